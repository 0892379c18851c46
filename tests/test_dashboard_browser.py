"""The dashboard in a real browser: pages, themes, languages, moving through time, deep links."""

import json

import numpy as np
import pytest

from diffviz.diagnosis.sentences import step_sentences, step_table
from diffviz.figures.histogram import histogram_data
from diffviz.files.catalogue import text
from diffviz.recording.request import RecordRequest
from tests.dashboard import PAGES, served

pytestmark = pytest.mark.browser
T = 40


@pytest.fixture(scope="module")
def run():
    return RecordRequest(denoiser="dataset:sprites", T=T, n=8).run(progress=False)


@pytest.fixture(scope="module")
def guest(run):
    with served({"run": run}, memory=4e9) as guest:
        yield guest


@pytest.fixture
def visit(browser, guest):
    """Opens an address; when the test is over, nothing went wrong and nothing left the machine."""
    contexts, trouble = [], []

    def open_at(address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)
        # Chromium warns of what the tests themselves do: read a canvas often.
        kinds, own = ("error", "warning"), "Canvas2D: Multiple readback"
        page.on(
            "console",
            lambda m: m.type in kinds and not m.text.startswith(own) and trouble.append(m.text),
        )
        page.on("pageerror", lambda error: trouble.append(str(error)))
        local = (guest.address, "data:", "blob:")
        page.on("request", lambda r: r.url.startswith(local) or trouble.append(r.url))
        page.goto(guest.address + address)
        page.wait_for_selector("h1, .notice")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert trouble == []


def ready(page):
    """The run is there: pictures are drawn, and a cursor stands on every plot over time."""
    page.wait_for_function(
        """() => [...document.querySelectorAll("canvas[data-arm]")].every((c) => c.width > 40)
            && document.querySelectorAll(".scrub-layer").length > 4"""
    )


def kept(name):
    """The selector of a control that the address keeps."""
    return f"""[id*='"name":"{name}"']"""


def at(page, t):
    page.wait_for_function(
        "t => document.querySelector('#player .now').textContent === `t = ${t}`", arg=t
    )


def pixels(page, arm):
    """The picture of the first sample of an arm, (16, 16, 3), as it is drawn."""
    return page.evaluate(
        f"""() => {{
            const canvas = document.querySelector('canvas[data-arm="{arm}"]');
            const data = canvas.getContext("2d").getImageData(0, 0, 16, 16).data;
            return [...data].filter((_, i) => i % 4 < 3);
        }}"""
    )


# --------------------------------------------------------------------- pages


@pytest.mark.parametrize("page_name", PAGES)
def test_a_page_has_no_barrier_and_no_overflow(visit, page_name):
    """In light, English and wide, and then in dark, Chinese and narrow by its own links.

    Kills: a control without a name, too little contrast, a page wider than a phone;
    an error in the console, a request to somewhere else.
    """
    axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(f"{PAGES[page_name]}?theme=light&lang=en")
    for language, width in (("en", 1280), ("zh", 390)):
        if language == "zh":
            page.set_viewport_size({"width": width, "height": 800})
            page.click(".settings a[href*='theme=dark']")
            page.wait_for_selector(".settings a[href*='theme=light']")
            page.click(".settings a[href*='lang=zh']")
            page.wait_for_selector("html[lang^=zh]")
        page.wait_for_load_state("networkidle")
        page.wait_for_function(
            "width => document.documentElement.scrollWidth <= width", arg=width, timeout=10_000
        )
        found = axe_module.Axe().run(page).response["violations"]
        said = [
            (one["id"], node["target"], node["failureSummary"][:200])
            for one in found
            for node in one["nodes"][:3]
        ]
        assert said == [], json.dumps(said, indent=1)


def test_links_lead_from_page_to_page_and_back(visit):
    """Kills: a page that loses language or theme; a back button that leaves the dashboard."""
    page = visit("/schedule?lang=zh&theme=dark")
    page.click("nav a:nth-child(4)")
    page.wait_for_url("**/dial?lang=zh&theme=dark*")
    page.wait_for_selector(kept("noise"))
    page.click(".settings a:nth-child(1)")
    page.wait_for_url("**lang=en*")
    page.wait_for_selector("h1:has-text('noise dial')")
    page.go_back()
    page.go_back()
    page.wait_for_url("**/schedule?lang=zh&theme=dark*")
    page.wait_for_selector(kept("kind"))


# ------------------------------------------------------------------- compare


def test_compare_opens_at_the_end_and_moves_without_asking(visit, run):
    """Kills: a page that opens in the middle; pictures, numbers, sentences, cursors, histogram or
    an address of another step; a step that asks the server; buttons that go the other way.
    """
    page = visit("/")
    ready(page)
    at(page, 0)
    asked = []
    page.on("request", lambda r: asked.append(r.url))
    page.locator(".steps [role=slider]").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.locator("h1").click()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    at(page, 12)
    page.wait_for_url("**t=12*")
    step = T - 12
    stored = run.dataset["frames"].values
    frame = abs(run.dataset["frame_t"].values - 12).argmin()
    expected = stored[1, frame, 0].transpose(1, 2, 0).reshape(-1)
    apart = np.abs(np.array(pixels(page, 1)) - expected.astype(int))
    assert apart.max() <= 4  # three bits are left out on the way
    said = page.inner_text("[data-plot=stds]")
    assert said == " ".join(step_sentences(run, "stds", "en")[step].split())
    cell = page.inner_text(".numbers tbody tr:nth-child(2) td:nth-of-type(3)")
    assert cell == step_table(run, "en").cells[step][1][2]
    share = float(page.evaluate("document.querySelector('#player').style.getPropertyValue('--t')"))
    assert share == pytest.approx(step / T)
    line = page.evaluate(
        """() => {
            const plot = document.querySelector('.over-time[id*="mean"] .js-plotly-plot');
            const axis = plot._fullLayout.xaxis;
            const box = plot.querySelector(".scrub-layer").getBoundingClientRect();
            const cursor = plot.querySelector(".scrub-layer i").getBoundingClientRect();
            return axis.p2d(cursor.left + cursor.width / 2 - box.left);
        }"""
    )
    assert line == pytest.approx(12, abs=0.5)
    drawn = page.evaluate(
        """() => [...document.querySelector('.over-time[id*="histogram"] .js-plotly-plot').data]
            .map((trace) => [...trace.y])"""
    )
    shown = histogram_data(run)
    right = [shown.reference[step], *shown.density[:, step]]
    for y, expected in zip(drawn, right, strict=True):
        assert y == pytest.approx(expected, abs=1e-3)
    page.click("#next")
    at(page, 11)
    page.click("#back")
    at(page, 12)
    assert asked == []


def test_play_shows_the_way_and_stops_at_the_end(visit):
    """Kills: numbers that glide while the pictures stand; a play that never ends."""
    page = visit("/?t=40")
    ready(page)
    at(page, 40)
    page.evaluate(
        """() => {
            window.seen = new Set();
            const look = () => {
                const canvas = document.querySelector('canvas[data-arm="0"]');
                const data = canvas.getContext("2d").getImageData(0, 0, 16, 16).data;
                window.seen.add(data.join());
                requestAnimationFrame(look);
            };
            look();
        }"""
    )
    page.click("#play")
    page.wait_for_selector("#player[data-playing]")
    at(page, 0)
    page.wait_for_selector("#player:not([data-playing])")
    assert page.evaluate("window.seen.size") > 12


def test_an_address_brings_everything_back(visit):
    """Kills: a step, a language, a plot or a hidden part that a link or a reload loses."""
    page = visit("/?run=run&t=7&lang=zh&plots=noise&hide=controls&big=1")
    for _ in range(2):
        ready(page)
        at(page, 7)
        page.wait_for_selector('#more-plots .over-time[id*="noise"] .js-plotly-plot')
        assert page.locator(".controls").count() == 0
        assert page.evaluate("getComputedStyle(document.documentElement).fontSize") == "20px"
        page.reload()


def test_a_phone_shows_pictures_before_controls(visit):
    """Kills: controls that push the pictures off the first screen."""
    page = visit("/", viewport={"width": 390, "height": 844})
    ready(page)
    top = page.locator("canvas").first.bounding_box()["y"]
    assert top < 844 / 2 < page.locator("#run").bounding_box()["y"]


def test_a_guess_lifts_the_curtains(visit):
    """Kills: names or ends that are seen before the guess; a wrong guess called right; a wrong
    arm called the one without noise; ends that nobody sees after it.
    """
    page = visit("/guess")
    page.wait_for_function("() => document.querySelectorAll('canvas[data-arm]')[2].width > 40")
    at(page, T)
    assert "z=0" not in page.inner_text(".curtains")
    lost = page.evaluate(
        """() => [...document.querySelectorAll(".curtains canvas")]
            .findIndex((c) => c.dataset.arm === "1")"""
    )
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    at(page, T - round(0.1 * (T + 1)))
    buttons = page.locator(".curtains button")
    buttons.nth((lost + 1) % 3).click()
    page.wait_for_selector("#answer p:has-text('Not that one')")
    at(page, 0)
    buttons.nth(lost).click()
    page.wait_for_selector("#answer p:has-text('Right')")
    assert "z=0" in page.locator(".curtains h2").nth(lost).inner_text()
    drawn = [buttons.nth(i).get_attribute("style") for i in range(3)]
    assert ["teal" in style for style in drawn] == [i == lost for i in range(3)]


def answering(status):
    return lambda route: route.fulfill(status=status, body="{}")


def test_a_server_that_is_gone_is_said(browser, guest):
    """Kills: a click after which nothing happens, for ever; a failure that nobody is told of."""
    page = browser.new_page()
    page.goto(f"{guest.address}/?lang=zh")
    ready(page)
    assert page.locator(".gone").is_hidden()
    page.route("**/_dash-update-component**", lambda route: route.abort())
    page.click("nav a:nth-child(4)")
    page.wait_for_selector(".gone >> text=服务器没有应答")
    page.unroute("**/_dash-update-component**")
    page.go_back()
    page.wait_for_selector(".gone", state="hidden")
    for shown, failing in ((".gone", answering(401)), (".failed", answering(400))):
        page.wait_for_selector("nav a:nth-child(4)")
        page.route("**/_dash-update-component**", failing)
        page.click("nav a:nth-child(4)")
        page.wait_for_selector(shown)
        page.unroute("**/_dash-update-component**")
        page.goto(f"{guest.address}/")
    page.close()


# --------------------------------------------------------------- other pages


def test_the_dial_says_what_a_setting_does(visit):
    """Kills: a slider that changes nothing; a place that is another one; a link without state."""
    page = visit("/dial?law=mixture&noise=1&score=1")
    page.wait_for_selector("#verdict:has-text('Balanced')")
    page.get_by_role("button", name="The mistake").click()
    page.wait_for_selector("#verdict:has-text('small one is lost')")
    page.wait_for_url("**noise=0&score=1*")
    page.locator(kept("noise") + " [role=slider]").focus()
    page.keyboard.press("End")
    page.wait_for_url("**noise=1.5*")
    page.wait_for_selector("#verdict:has-text('too wide')")


def test_a_schedule_says_what_holds(visit):
    """Kills: a schedule that is not redrawn; an order of β that is not refused in words."""
    page = visit("/schedule?kind=linear&T=50")
    page.wait_for_selector("#schedule .film figure >> nth=9")
    assert page.locator("#schedule td:has-text('✓ holds')").count() == 4
    assert page.locator("#schedule td:has-text('✗')").count() == 1  # T = 50 leaves a picture
    sure, *_ = page.locator("#schedule .film figcaption div:last-child").all_inner_texts()
    assert sure == text("dashboard.schedule.sure", "en")
    page.fill(kept("T"), "500")
    page.wait_for_selector("#schedule .film figure:last-child >> text=Any of about")
    page.fill(kept("last"), "0.00001")
    page.wait_for_selector("#schedule .notice")
    page.wait_for_url("**last=0.00001*")


def test_a_recording_is_watched_opened_and_kept(visit):
    """Kills: progress that nobody sees; a run that its own browser does not find; a cancel that
    says nothing; a reload that forgets.
    """
    page = visit("/record")
    page.wait_for_selector("#price:has-text('Takes about')")
    page.locator(".form .mantine-Select-input").first.click()
    page.get_by_role("option", name="Exact: 2,000 sprites").click()
    page.get_by_role("button", name="Class, schedule and steps").click()
    page.get_by_label("Steps taken").fill("60")
    page.wait_for_selector("#begin:not([disabled])")
    page.click("#begin")
    page.wait_for_selector("#live-images img")
    page.wait_for_selector("#live .js-plotly-plot")
    page.wait_for_selector("#ready a")
    page.click("#ready a")
    ready(page)
    at(page, 0)
    link = page.url
    page.goto(link.split("?")[0])
    page.wait_for_selector("#run")
    page.click("#run")
    page.get_by_role("option", name="dataset:sprites").click()
    page.wait_for_url(link.split("&t=")[0] + "*")
    page.goto(link.split("/?")[0] + "/record")
    page.wait_for_selector("#own a:has-text('Open')")
    page.wait_for_selector("#price:has-text('Takes about')")
    page.wait_for_selector("#begin:not([disabled])")
    states = ("Waiting", "Starting", "Sampling", "Sampled")
    live = page.locator(", ".join(f"#status:has-text('{state}')" for state in states))
    page.click("#begin")
    live.wait_for()
    page.click("#cancel")
    page.wait_for_selector("#status:has-text('Cancelled')")
    page.wait_for_selector("#begin:not([data-loading])")


def test_the_plane_plays(visit):
    """Kills: a module that the policy refuses, or that is not served."""
    page = visit("/play?lang=zh")
    page.wait_for_function(
        "() => document.querySelector('#plane')?.shadowRoot?.querySelector('canvas')"
    )
    page.goto(page.url.replace("/play", "/dial"))
    page.wait_for_selector(kept("noise"))


def test_a_broken_loop_is_seen(visit):
    """Kills: a fault that is not marked in the lines, and one that nobody looks at."""
    page = visit("/xray?loop=ddpm&faults=no-noise")
    page.wait_for_selector(".verdict.wrong")
    assert "z = 0" in page.inner_text("pre .wrong")
    assert page.locator(".film img").count() == 8
    page.click(kept("faults"))
    page.get_by_role("option", name="Wrong sign").click()
    page.wait_for_url("**faults=no-noise*wrong-sign*")
    page.wait_for_selector("#xray-wait:has-text('Running')")
    page.get_by_role("option", name="No noise").click()
    page.wait_for_selector(".verdict.wrong")
