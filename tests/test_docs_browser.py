"""The built pages and slides in a browser: nothing from outside, no error, nothing cut off.

Needs what `make docs` leaves in docs/_build/html; run by `make study`.
"""

from pathlib import Path

import pytest

HTML = Path(__file__).parent.parent / "docs" / "_build" / "html"
PAGES = sorted(p.relative_to(HTML).as_posix() for p in HTML.rglob("*.html"))
DECKS = [p for p in PAGES if p.startswith("slides/") and "_static" not in p]
SITE = [p for p in PAGES if p.split("/")[0] in ("en", "zh") and "_static" not in p]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not (HTML / "index.html").exists(), reason="not built: make docs"),
]

OVERFLOW = """() => {
  const slide = Reveal.getCurrentSlide();
  const scale = Reveal.getScale();
  const outer = document.querySelector(".reveal").getBoundingClientRect();
  const wrong = [];
  for (const node of slide.querySelectorAll("*")) {
    if (node.closest("aside, script, .picture, math")) continue;
    const box = node.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    if (box.bottom > outer.bottom + 1 || box.right > outer.right + 1)
      wrong.push(`${node.tagName} ${node.className}: ${box.right}, ${box.bottom}`);
  }
  for (const node of slide.querySelectorAll(".picture, math")) {
    const box = node.getBoundingClientRect();
    if (box.bottom > outer.bottom + 1 || box.right > outer.right + 1)
      wrong.push(`${node.tagName} ${node.className}: ${box.right}, ${box.bottom}`);
  }
  for (const plot of slide.querySelectorAll(".picture"))
    if (!("drawn" in plot.dataset) || plot.clientHeight < 240)
      wrong.push(`a picture is ${plot.clientHeight} pixels high`);
  // Words of a figure stay inside it, and those of its legend inside the legend.
  for (const words of slide.querySelectorAll(".picture svg text")) {
    const box = words.getBoundingClientRect();
    const legend = words.closest(".legend")?.querySelector(".bg");
    for (const around of [legend, words.closest(".picture")].filter(Boolean)) {
      const frame = around.getBoundingClientRect();
      if (box.width && (box.left < frame.left - 1 || box.right > frame.right + 1
          || box.top < frame.top - 3 || box.bottom > frame.bottom + 3))
        wrong.push(`${words.textContent} is cut: ${box.left} to ${box.right}`);
    }
  }
  return wrong;
}"""


DRAWN = """() => [...Reveal.getCurrentSlide().querySelectorAll(".picture")]
  .every((plot) => "drawn" in plot.dataset)"""


@pytest.fixture
def opened(browser):
    """A page at 1280×720, and what went wrong on it."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(120_000)
    wrong: list[str] = []
    page.on("request", lambda r: _note_request(r.url, wrong))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page, wrong
    page.close()


def _note_request(url: str, wrong: list[str]) -> None:
    if not url.startswith(("file:", "data:", "blob:", "about:")):
        wrong.append(f"asks for {url}")


SEEN = """() => {
  const wrong = [];
  for (const node of document.querySelectorAll(".picture, article img, canvas"))
    if (node.checkVisibility() && (node.clientHeight < 16 || node.clientWidth < 16))
      wrong.push(`${node.tagName} ${node.className}: ${node.clientWidth} × ${node.clientHeight}`);
  for (const node of document.querySelectorAll(".picture[data-drawn]"))
    if (node.clientHeight < 100 || !node.querySelector("svg.main-svg"))
      wrong.push(`a picture is ${node.clientHeight} high`);
  for (const node of document.querySelectorAll("article img"))
    if (node.checkVisibility() && !node.naturalWidth) wrong.push(node.src.slice(0, 90));
  const across = document.documentElement.scrollWidth;
  if (across > innerWidth + 1) wrong.push(`${across} pixels wide`);
  return wrong;
}"""


@pytest.mark.parametrize("path", SITE)
def test_a_page_asks_for_nothing_outside_and_shows_every_figure(opened, path):
    """Kills: figures that vanish at a resize, in the dark, on a phone; a page too wide."""
    page, wrong = opened
    page.goto((HTML / path).as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((x) => (x.open = true))")
    for picture in page.query_selector_all(".picture"):
        picture.scroll_into_view_if_needed()
        page.wait_for_function("(x) => 'drawn' in x.dataset", arg=picture)
    for scheme, width in (
        ("light", 1280),
        ("light", 1180),
        ("light", 390),
        ("dark", 390),
        ("dark", 1280),
    ):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 720})
        page.wait_for_timeout(400)
        assert not page.evaluate(SEEN), (scheme, width)
    assert not wrong


CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const opaque = (node) => (parts(getComputedStyle(node).backgroundColor)[3] ?? 1) > 0.5;
  const words = document.querySelector(".picture svg .xtick text");
  let ground = words.closest(".picture");
  while (!opaque(ground) && ground.parentElement) ground = ground.parentElement;
  const [high, low] = [getComputedStyle(words).fill, getComputedStyle(ground).backgroundColor]
    .map(light).sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_words_of_a_picture_can_be_read_on_its_ground(opened, scheme, language):
    """Kills: light words on the light ground that the theme lays under outputs in the dark."""
    page, wrong = opened
    page.emulate_media(color_scheme=scheme)
    page.goto((HTML / language / "lessons/4-measuring.html").as_uri())
    picture = page.query_selector(".picture")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("(x) => 'drawn' in x.dataset", arg=picture)
    assert page.evaluate(CONTRAST) > 4.5 and not wrong


@pytest.mark.parametrize("path", DECKS)
def test_no_slide_overflows(opened, path):
    page, wrong = opened
    page.goto((HTML / path).as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    count = page.evaluate("Reveal.getTotalSlides()")
    for number in range(count):
        page.wait_for_function(DRAWN)
        found = page.evaluate(OVERFLOW)
        assert not found, f"slide {number + 1}: {found}"
        page.evaluate("Reveal.next()")
    assert count <= 20 and not wrong
