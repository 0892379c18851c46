"""The report in a real browser: offline, silent, and moved by keys alone."""

import pytest

import diffviz as dv
from diffviz.report import write_report

pytestmark = pytest.mark.browser
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
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
        pages.append(page)
        page.on("console", lambda m: trouble.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("requestfailed", lambda request: trouble.append(request.url))
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:", "blob:")) or trouble.append(r.url),
        )
        page.goto(f"{report.as_uri()}{hash_}")
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_at
    for page in pages:
        assert page.evaluate("window.hacked") is None
        page.close()
    assert trouble == []


def settled(page):
    """Two frames later, and when every plot in sight has followed the slider."""
    frames = "done => requestAnimationFrame(() => requestAnimationFrame(done))"
    page.evaluate(f"() => new Promise({frames})")
    page.wait_for_selector("html:not([data-busy])", state="attached")


def pixels(page, selector="canvas.now"):
    return page.evaluate(
        "s => [...document.querySelectorAll(s)].map(c => c.toDataURL())", selector
    )


def show(page, name):
    page.evaluate(
        "n => document.querySelector(`[data-figure=${n}]`).scrollIntoView({behavior: 'instant'})",
        name,
    )
    page.wait_for_selector(f"[data-figure={name}] .main-svg")
    settled(page)


def cursors(page, name):
    return page.evaluate(
        "n => document.querySelector(`[data-figure=${n}]`).layout.shapes"
        ".filter(s => s.name === 'cursor').map(s => [s.x0, s.x1])",
        name,
    )


def test_keys_move_images_numbers_and_every_cursor(visit):
    """Kills: a slider without keys, images bound to a mouse, a panel whose cursor stays."""
    page = visit()
    page.focus("#step")
    before = pixels(page)
    assert len(set(before)) == 1  # all arms start from the same x_T
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    settled(page)
    assert page.input_value("#step") == "3"
    assert page.get_attribute("#step", "aria-valuetext") == "t = 47"
    assert page.text_content("#live-t") == page.text_content("#image-t") == "47"
    assert len(set(pixels(page))) == 3
    page.keyboard.press("End")
    settled(page)
    after = pixels(page)
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert page.text_content("#image-t") == page.text_content("#live-t") == "0"
    for name, panels in (("ks", 3), ("dial", 1), ("stds", 3)):
        show(page, name)
        assert cursors(page, name) == [[0, 0]] * panels
    page.focus("#step")
    page.keyboard.press("Home")
    settled(page)
    assert pixels(page) == before
    page.keyboard.press("ArrowRight")
    settled(page)
    assert cursors(page, "stds") == [[49, 49]] * 3
    show(page, "ks")  # it was out of sight when the slider moved
    assert cursors(page, "ks") == [[49, 49]] * 3


def test_live_table_is_the_run(visit, run):
    """Kills: columns or rows swapped, steps counted from the wrong end."""
    page = visit("#t=20")
    assert page.text_content("#live-t") == "20"
    arm = run.dataset.isel(arm=1).sel(t=20)
    expected = [float(arm["std_between"]), float(arm["std"].sel(quantity="residual"))]
    cells = [page.text_content(f"#live tbody tr:nth-child(2) td:nth-child({i})") for i in (4, 5)]
    assert [float(cell) for cell in cells] == pytest.approx(expected, abs=0.006)
    assert page.text_content("#live tbody tr:last-child td:nth-child(5)") == "–"


def test_histogram_follows(visit):
    """Kills: the histogram of step 0 for ever, or of another arm."""
    page = visit("#t=50")
    show(page, "histogram")
    read = (
        "() => document.querySelector('[data-figure=histogram]')"
        ".data.map(t => JSON.stringify(t.y))"
    )
    start = page.evaluate(read)
    page.focus("#step")
    page.keyboard.press("End")
    settled(page)
    show(page, "histogram")
    end = page.evaluate(read)
    moved = [a != b for a, b in zip(start, end, strict=True)]
    assert moved.count(False) == 1 and moved.count(True) == 3  # N(0, 1) stays


def test_language_changes_words_titles_and_plots(visit):
    """Kills: a text left in the other language, a label forgotten."""
    page = visit()
    show(page, "dial")
    title = "() => document.querySelector('[data-figure=dial]').layout.yaxis.title.text"
    english = page.evaluate(title)
    page.click("[data-set-language=zh]")
    settled(page)
    assert page.get_attribute("html", "lang") == "zh-Hans"
    assert page.get_attribute("[data-set-language=zh]", "aria-pressed") == "true"
    assert page.evaluate(title) != english
    assert "标准差" in page.evaluate(title)
    assert page.get_attribute("#play", "aria-label") == "播放"
    assert not page.is_visible("h2#summary .in-en") and page.is_visible("h2#summary .in-zh")
    page.click("[data-set-language=en]")
    settled(page)
    assert page.evaluate(title) == english and page.get_attribute("html", "lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_system_until_it_is_switched(visit, scheme):
    """Kills: a theme of its own, plots that keep the other theme's text."""
    page = visit(color_scheme=scheme)
    show(page, "dial")
    ink = "() => document.querySelector('[data-figure=dial]').layout.font.color"
    paper = "() => getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(paper), page.evaluate(ink)
    page.click("#theme")
    settled(page)
    second = page.evaluate(paper), page.evaluate(ink)
    assert page.get_attribute("html", "data-theme") == {"light": "dark", "dark": "light"}[scheme]
    assert first[0] != second[0] and first[1] != second[1]


def test_a_link_opens_the_same_view(visit):
    """Kills: the hash written and not read, or read and not written."""
    page = visit()
    page.focus("#step")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.click("[data-set-language=zh]")
    page.click("#theme")
    page.wait_for_timeout(500)
    hash_ = page.evaluate("location.hash")
    settled(page)
    expected = pixels(page), page.text_content("#live tbody")
    page = visit(hash_)
    settled(page)
    assert page.get_attribute("html", "lang") == "zh-Hans"
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.input_value("#step") == "12" and page.text_content("#bar-t") == "38"
    assert (pixels(page), page.text_content("#live tbody")) == expected


def test_stretched_view_is_named_and_different(visit):
    """Kills: the box without effect, the note that stays with the fixed range."""
    page = visit("#t=30")
    fixed = pixels(page)
    page.check("#stretch")
    page.wait_for_timeout(300)
    assert all(a != b for a, b in zip(fixed, pixels(page), strict=True))
    assert page.is_visible("[data-when=stretched] .in-en")
    assert not page.is_visible("[data-when=fixed] .in-en")


def test_play_runs_to_the_end_and_stops(visit):
    """Kills: a play that never ends, or a button that does not say that it pauses."""
    page = visit("#t=5")
    page.select_option("#speed", "4")
    page.click("#play")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.wait_for_selector("#play[aria-label=Play]")
    assert page.text_content("#bar-t") == "0"


def test_a_phone_has_no_sideways_scroll(visit):
    """Kills: a table, a name or a plot wider than the page."""
    page = visit(viewport={"width": 360, "height": 740})
    show(page, "ks")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    domains = page.evaluate(
        "() => ['xaxis', 'xaxis2', 'xaxis3'].map("
        "a => document.querySelector('[data-figure=ks]').layout[a].domain[0])"
    )
    assert domains == [0, 0, 0]  # the panels are stacked


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
