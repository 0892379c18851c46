"""The Record page in a real browser: forms, live curves, queues, ends, and runs laid over."""

import re

import pytest

import diffviz as dv
from dashboards.jobs import Jobs
from tests import test_dashboard_browser as shared
from tests.test_dashboard import Server

dashboards = pytest.importorskip("dashboards")
until = shared.until

pytestmark = pytest.mark.browser
ORDER = "denoiser=gaussian&plan=linear&length=40&n=50"


@pytest.fixture(scope="module")
def server():
    schedule = dv.NoiseSchedule.linear(40)
    line = dv.GaussianDenoiser(schedule, 2.0, 0.5)
    runs = {"given": dv.record(line, schedule, n=50, progress=False)}
    jobs = Jobs(workers=1, seconds=1e6)
    running = Server(dashboards.create_app(runs, jobs=jobs))
    running.jobs = jobs
    yield running
    jobs.close()
    running.stop()


@pytest.fixture
def visit(browser, server):
    """Opens a page as a guest of its own; when the test is over, nothing went wrong."""
    opened, trouble = [], []
    address = f"http://127.0.0.1:{server.port}"

    def open_at(path, ready="record", **options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "locale": "en"} | options
        )
        page = context.new_page()
        page.set_default_timeout(90_000)
        opened.append((context, page))
        page.on("console", lambda m: trouble.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on(
            "requestfailed",  # what the page itself breaks off, as its stream, is no trouble
            lambda r: None if "ABORTED" in r.failure else trouble.append(r.url),
        )
        page.on(
            "request",
            lambda r: r.url.startswith((address, "data:", "blob:")) or trouble.append(r.url),
        )
        page.goto(address + path)
        page.wait_for_selector(f"html[data-ready='{ready}']", state="attached")
        return page

    yield open_at
    for context, _ in opened:
        context.close()
    assert trouble == []


def state_is(page, state):
    page.wait_for_selector(f"#job[data-state={state}]")


def test_a_recording_from_order_to_compare_by_keys_alone(visit, server):
    """Started by Enter in the form, watched, opened, downloaded, laid over the run given.

    Kills: curves that come only at the end, a run that no list gets, a download of another run.
    """
    page = visit(f"/record?{ORDER}&seed=5")
    page.wait_for_selector("#order-begin:enabled")
    assert "3 × 50 samples, 40 steps" in page.inner_text("#order-cost")
    page.focus("#order-seed")
    page.keyboard.press("Enter")
    page.wait_for_selector("#job:visible")
    until(page, "document.documentElement.dataset.points === '40'", 90)
    state_is(page, "done")
    traces = page.evaluate(
        "() => document.querySelector('#live-plot .graph').data.filter((t) => t.meta)"
        ".map((t) => [t.meta[0], t.meta[1], t.x.length, t.y.at(-1)])"
    )
    assert len(traces) == 18 and {trace[2] for trace in traces} == {40}
    key = re.search(r"job=([\w-]+)", page.url)[1]
    run = dv.Run.load(server.jobs._jobs[key].folder / "run.nc")
    shown = [trace[3] for trace in traces if trace[0] == "std"]
    kept = run.dataset["std"].sel(quantity="x").isel(t=-2).values
    assert shown == pytest.approx(kept, rel=1e-3)
    page.wait_for_selector("#job-tools [data-do=html]")
    for name, suffix in (("run", ".nc"), ("html", ".html"), ("csv", ".csv"), ("picture", ".png")):
        with page.expect_download() as download:
            page.focus(f"#job-tools [data-do={name}]")
            page.keyboard.press("Enter")
        path = download.value.path()
        assert download.value.suggested_filename == f"gaussian-2-0.5-n=50-T=40-seed=5{suffix}"
        assert path.read_bytes()[:4] != b"" and path.stat().st_size > 5000
        if name == "picture":
            assert path.read_bytes().startswith(b"\x89PNG")
    page.focus("#job-tools [data-do=lay]")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"html[data-ready='1/{key}']", state="attached")
    shared.settled(page)
    names = page.evaluate(
        "() => [...new Set(document.querySelector('[data-figure=ks] .graph').data"
        ".map((t) => t.legendgroup))].filter((g) => g?.includes('·'))"
    )
    assert len(names) == 6 and sum(name.endswith("seed=5") for name in names) == 3
    page.select_option("#beside", "")
    page.select_option("#run", key)
    page.wait_for_selector(f"html[data-ready='{key}']", state="attached")
    page.reload()
    page.wait_for_selector(f"html[data-ready='{key}']", state="attached")
    other = visit("/record")
    assert other.is_visible("#no-jobs") and other.locator("#jobs li").count() == 0


def test_two_guests_queue_and_end_on_their_own(visit, server):
    """Kills: a queue without a place in it, a cancel that hits the wrong job, a dead worker that
    leaves its page waiting."""
    long = "denoiser=gaussian&plan=linear&length=2000&n=20000&arms=ddpm"
    mine, yours = visit(f"/record?{long}"), visit(f"/record?{ORDER}&lang=zh")
    mine.click("#order-begin:enabled")
    until(mine, "Number(document.documentElement.dataset.points) > 0", 90)
    yours.click("#order-begin:enabled")
    until(yours, "document.getElementById('job-state').textContent.includes('第 1 位')", 20)
    assert mine.locator("#jobs li").count() == yours.locator("#jobs li").count() == 1
    running = next(job for job in server.jobs._jobs.values() if job.process is not None)
    running.process.kill()
    state_is(mine, "failed")
    assert "ended from outside" in mine.inner_text("#job-state")
    state_is(yours, "done")
    mine.click("#order-begin:enabled")
    mine.click("[data-do=cancel]")
    state_is(mine, "cancelled")
    assert mine.locator("#jobs li").count() == 2
    for left in (1, 0):
        mine.locator("#jobs li .icon").first.click()
        until(mine, f"document.querySelectorAll('#jobs li').length === {left}", 20)
    assert mine.is_visible("#no-jobs")


def test_a_wrong_order_says_so_in_the_language_of_the_page(visit):
    """Kills: a start that fails silently, a refusal in English on a Chinese page."""
    page = visit(f"/record?{ORDER}")
    page.wait_for_selector("#order-begin:enabled")
    page.fill("#order-length", "10001")
    page.wait_for_selector("#order-wrong:visible")
    assert "Steps T is 10001; allowed are the integers from 1 to 10000" in page.inner_text(
        "#order-wrong"
    )
    assert page.is_disabled("#order-begin")
    page.click("[data-set-language=zh]")
    until(
        page, "document.getElementById('order-wrong').textContent.includes('步数 T 为 10001')", 20
    )
    page.fill("#order-length", "40")
    page.wait_for_selector("#order-begin:enabled")
    page.click("[data-arms=eta]")
    page.click("#order-add")
    assert page.locator(".arm-row").count() == 4
    assert page.evaluate("document.activeElement.id") == "arm-3-kind"
    page.wait_for_url("**arms=ddim%2Cddim%3A0.5%2Cddim%3A1%2Cddpm*")


def test_the_address_restores_the_form(visit):
    """Kills: a field that the address forgets, an arm written in another way than it is read."""
    page = visit(
        "/record?denoiser=mixture&data=0,1,1;3,0.5,2&plan=scaled-linear&length=80&start=0.001"
        "&end=0.2&arms=ddpm-posterior,ddim:0.3*0.5&n=7&seed=9&steps=40&lang=zh&theme=dark"
    )
    fields = ("denoiser", "data", "plan", "length", "start", "end", "n", "seed", "steps")
    values = [page.input_value(f"#order-{name}") for name in fields]
    assert values == [
        *("mixture", "0,1,1;3,0.5,2", "scaled-linear", "80", "0.001", "0.2", "7", "9", "40"),
    ]
    assert page.input_value("#arm-0-kind") == "ddpm-posterior"
    assert [page.input_value(f"#arm-1-{name}") for name in ("eta", "scale")] == ["0.3", "0.5"]
    page.fill("#order-seed", "10")
    page.wait_for_url("**&seed=10&steps=40**")


def test_every_control_is_named_and_nothing_overflows(visit):
    """Kills: an arm without a label, and a page wider than a phone."""
    page = visit(f"/record?{ORDER}", viewport={"width": 390, "height": 844})
    nameless = """() => [...document.querySelectorAll('button, input, select, a, [role]')]
        .filter((e) => e.checkVisibility() && !(e.getAttribute('aria-label') || e.innerText
            || e.labels?.length)).map((e) => e.outerHTML.slice(0, 120))"""
    assert [html for html in page.evaluate(nameless) if "role=" not in html] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
