"""The report in a real browser: pictures first, offline, silent, and moved by keys alone."""

import pytest

import diffviz as dv
from diffviz.diagnosis.sentences import step_sentences, step_table
from diffviz.files.images import to_uint8
from diffviz.report import write_report

pytestmark = pytest.mark.browser
HOSTILE = "</script><script>window.hacked = 1</script>"
EVENT = '"><img src=x onerror="window.hacked = 1">'


@pytest.fixture(scope="module")
def run():
    images, labels = dv.make_sprites(50)
    schedule = dv.NoiseSchedule.linear(50, 1e-3, 0.2)
    denoiser = dv.DatasetDenoiser(schedule, images, labels, ("a", "b", "c", "d", HOSTILE))
    arms = [dv.Arm(HOSTILE, dv.ddpm()), dv.Arm(EVENT, dv.ddpm(), 0.0), dv.Arm("$x$", dv.ddim())]
    return dv.record(denoiser, schedule, arms=arms, n=8, progress=False)


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(run, path)
    return path


@pytest.fixture
def visit(browser, report):
    """Opens the report; when the test is over, nothing was asked for and nothing went wrong."""
    pages, trouble = [], []

    def open_at(hash_="", **options):
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}} | options)
        page.set_default_timeout(100_000)
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        local = ("file:", "data:", "blob:")
        page.on("request", lambda r: r.url.startswith(local) or trouble.append(r.url))
        pages.append(page)
        page.goto(report.as_uri() + hash_)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_at
    for page in pages:
        assert page.evaluate("window.hacked") is None
        page.close()
    assert trouble == []


def settled(page):
    """Two frames later."""
    page.evaluate("() => new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))")


def show(page, name):
    page.evaluate(
        "n => document.querySelector(`[data-figure=${n}]`).scrollIntoView({behavior: 'instant'})",
        name,
    )
    page.wait_for_selector(f"[data-figure={name}] .main-svg")
    settled(page)


PIXELS = """arm => {
  const c = document.querySelectorAll('canvas[data-arm]')[arm];
  return [...c.getContext('2d').getImageData(0, 0, 16, 16).data].filter((_, i) => i % 4 < 3);
}"""
# Where the cursor stands, and where the pixel of t is, for each time axis of a figure.
CURSORS = """([name, t]) => {
  const plot = document.querySelector(`[data-figure=${name}]`);
  const left = plot.getBoundingClientRect().left;
  const lines = [...plot.querySelectorAll('.scrub-layer i')].map(
    (line) => line.getBoundingClientRect().left + 1 - left);
  const axes = plot.layout.meta.time_axes.map((axis) => axis.replace('x', 'xaxis'));
  const drawn = axes.map((axis) => plot._fullLayout[axis]);
  return [lines, drawn.map((axis) => axis._offset + axis.r2p(t))];
}"""


def test_the_page_opens_with_the_ends_of_every_arm(visit, run):
    """Kills: pictures of another arm, time or channel order; noise on the first screen."""
    page = visit()
    page.wait_for_function("document.querySelector('canvas[data-arm]').width === 67")
    for arm, name in enumerate(run.arms):
        end = to_uint8(run.dataset["samples"].sel(arm=name).values[:1])[0].ravel()
        drawn = page.evaluate(PIXELS, arm)
        assert max(abs(int(a) - int(b)) for a, b in zip(drawn, end, strict=True)) <= 1
        figure = page.locator("figure.arm").nth(arm)
        assert figure.locator("b").text_content() == name
        assert figure.bounding_box()["y"] + figure.bounding_box()["height"] < 800
    assert page.text_content("[data-t]") == "0"
    assert page.locator("#play").bounding_box()["y"] < 300


def test_one_step_moves_everything(visit, run):
    """Kills: a table, a sentence, a picture or a cursor that stays; keys without effect, or with
    the effect of another."""
    page = visit()
    for name in ("ks", "stds", "dial"):
        show(page, name)
    page.focus("#step")
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("Tab")  # away from the slider, arrows go on
    page.evaluate("document.activeElement.blur()")
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    settled(page)
    assert page.text_content("[data-t]") == "40" and page.input_value("#step") == "10"
    table = step_table(run, "en").cells[10]
    rows = page.evaluate(
        "[...document.querySelectorAll('#live tbody tr')].map("
        "row => [...row.cells].slice(1).map(cell => cell.textContent))"
    )
    assert rows == table
    for name, axes in (("ks", 3), ("stds", 3), ("dial", 1)):
        said = page.text_content(f"[data-sentence={name}]")
        assert said == step_sentences(run, name, "en")[10]
        lines, wanted = page.evaluate(CURSORS, [name, 40])
        assert len(lines) == axes and lines == pytest.approx(wanted, abs=1)
    frame = abs(run.dataset["frame_t"].values - 40).argmin()
    wanted = run.dataset["frames"].values[1, frame, 0].transpose(1, 2, 0).ravel()
    drawn = page.evaluate(PIXELS, 1)
    assert max(abs(int(a) - int(b)) for a, b in zip(drawn, wanted, strict=True)) <= 4
    show(page, "histogram")
    read = "document.querySelector('[data-figure=histogram]').data.map(t => JSON.stringify(t.y))"
    before = page.evaluate(read)
    page.evaluate("document.activeElement.blur()")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    settled(page)
    assert all(a != b for a, b in zip(before, page.evaluate(read), strict=True))
    for key, step in (("PageDown", "35"), ("PageUp", "30")):
        page.evaluate(  # as from an element that has the focus and is no control
            "key => document.querySelector('[data-figure]').dispatchEvent("
            "new KeyboardEvent('keydown', {key, bubbles: true}))",
            key,
        )
        settled(page)
        assert page.input_value("#step") == step


def test_play_runs_from_noise_to_data_and_stops(visit):
    """Kills: a play that never ends, or begins at the end; a button that does not say Pause."""
    page = visit()
    seen = "window.seen = []; new MutationObserver(() => seen.push("
    seen += "+document.querySelector('[data-t]').textContent)).observe("
    seen += "document.querySelector('[data-t]'), {childList: true})"
    page.evaluate(seen)
    page.click("#play")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.wait_for_selector("#play[aria-label='Play from noise']")
    assert page.text_content("[data-t]") == "0"
    times = page.evaluate("seen")
    assert times[0] >= 45 and times == sorted(times, reverse=True) and len(set(times)) > 5


def test_language_and_theme_change_everything_and_a_link_keeps_them(visit):
    """Kills: a text left in the other language, plots in the other theme, a hash not read."""
    page = visit(color_scheme="light")
    show(page, "dial")
    read = """() => {
      const {yaxis, font} = document.querySelector('[data-figure=dial]').layout;
      return [yaxis.title.text, font.color, getComputedStyle(document.body).backgroundColor];
    }"""
    english, ink, paper = page.evaluate(read)
    page.click("[data-set-language=zh]")
    page.click("#theme")
    settled(page)
    page.wait_for_function(f"before => ({read})()[0] !== before", arg=english)
    chinese, dark_ink, dark_paper = page.evaluate(read)
    assert "标准差" in chinese and dark_ink != ink and dark_paper != paper
    assert page.get_attribute("html", "lang") == "zh-Hans"
    assert page.get_attribute("#play", "aria-label") == "从噪声开始播放"
    assert page.is_visible("h1 .in-zh") and not page.is_visible("h1 .in-en")
    page.focus("#step")
    page.keyboard.press("Home")
    page.wait_for_timeout(500)
    other = visit(page.evaluate("location.hash"), color_scheme="light")
    assert other.get_attribute("html", "data-theme") == "dark"
    assert other.is_visible("h1 .in-zh") and other.text_content("[data-t]") == "50"


@pytest.mark.parametrize(
    ("width", "scheme", "language"), [(1280, "light", "en"), (390, "dark", "zh")]
)
def test_every_figure_shows_and_axe_finds_nothing(visit, width, scheme, language):
    """Also after a resize. Kills: a figure without height, a page wider than the phone, a label
    or contrast that is missing."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(f"#t=0&lang={language}", viewport={"width": width, "height": 800},
                 color_scheme=scheme)  # fmt: skip
    names = page.evaluate(
        "[...document.querySelectorAll('[data-figure]')].map(e => e.dataset.figure)"
    )
    assert len(names) >= 11
    for name in names:
        show(page, name)
    heights = "[...document.querySelectorAll('[data-figure] .main-svg')].map(e => e.clientHeight)"
    assert min(page.evaluate(heights)) > 200
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in found] == []
    page.set_viewport_size({"width": width - 30, "height": 800})
    page.wait_for_timeout(800)
    assert min(page.evaluate(heights)) > 200
    assert page.evaluate("document.documentElement.scrollWidth") <= width - 30


def test_the_policy_stops_a_foreign_script(browser, report):
    """Kills: 'unsafe-inline' for scripts. A new page, since the browser rightly complains."""
    page = browser.new_page()
    page.set_default_timeout(100_000)
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.evaluate(
        "() => { const s = document.createElement('script');"
        " s.textContent = 'window.hacked = 1'; document.body.append(s);"
        " document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.hacked = 2\">x</b>');"
        " document.body.lastElementChild.click(); }"
    )
    assert page.evaluate("window.hacked") is None
    page.close()
