"""The live plane in Chromium: its states and numbers are Python's, and nothing breaks it."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from diffviz.play import plane
from tests import play_twin as twin

pytestmark = pytest.mark.browser

POLICY = "default-src 'none'; script-src 'self'; img-src 'self'"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>The plane</title>
<meta name="viewport" content="width=device-width">
<main><h1>The plane</h1><div id="here"></div></main>
<script type="module" src="/page.js"></script></html>"""
SCRIPT = """import * as plane from "/plane.js"; window.plane = plane;
window.put = (options) => { window.shown?.destroy();
    window.shown = plane.mount(document.getElementById("here"), options); };"""


@pytest.fixture
def visit(browser):
    """A page under a strict policy that holds the module; it may load nothing but itself."""
    open_pages, problems = [], []

    def serve(route):
        path = route.request.url.removeprefix("http://plane.test")
        kind = "text/javascript" if path.endswith(".js") else "text/html"
        body = {"/": PAGE, "/page.js": SCRIPT, "/plane.js": plane.module()}.get(path.split("#")[0])
        if body is None:
            problems.append(f"asked for {path}")
            return route.abort()
        headers = {"Content-Type": kind, "Content-Security-Policy": POLICY}
        return route.fulfill(body=body, headers=headers)

    def go(options=None, path="", **look):
        context = browser.new_context(**look)
        open_pages.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: said.type == "error" and problems.append(said.text))
        page.route("**/*", serve)
        page.goto(f"http://plane.test/{path}")
        page.wait_for_function("!!window.put")
        page.evaluate("(o) => put(o)", plane.options() if options is None else options)
        return page

    yield go
    for context in open_pages:
        context.close()
    assert problems == []


def small(preset="noise", language="en", theme="auto", address=False, open=False, **settings):
    settings = {"particles": 60, **settings}
    chosen = plane.options(preset, language, theme=theme, address=address, settings=settings)
    return {**chosen, "open": open}


def state(page):
    return page.evaluate("shown.state()")


WALK = """(o) => { put(o); const all = []; let s;
    do { s = shown.state();
         all.push([s.told, s.right, Object.values(s.arms).map((a) => [a.x, a.numbers, a.held])]);
         shown.step(1); } while (s.t > 0);
    return all; }"""


@pytest.mark.parametrize(
    ("preset", "T", "n"),
    [
        *(("balance", 10, 8), ("coarse", 100, 8), ("noise", 500, 8)),
        *(
            pytest.param(preset, T, 60, marks=pytest.mark.slow)
            for preset in plane.PRESETS
            for T in (10, 100, 500)
        ),
    ],
)
def test_states_and_numbers_are_those_of_python(visit, preset, T, n):
    """Kills: a coefficient, a power of ᾱ, an index of z or of the arms other than in Python."""
    page, chosen = visit(small()), plane.PRESETS[preset]
    scale, pull = (0.6, 0.75) if n == 8 else (chosen.scale, chosen.pull)
    kind = {10: "cosine", 100: "linear"}.get(T, chosen.schedule)
    law, schedule = plane.laws()[chosen.law], plane.schedule(kind, T)
    x_T = np.random.default_rng(T).standard_normal((n, 2))
    ways = twin.arms(scale, pull)
    right = twin.states(law, schedule, x_T, T, ways)
    own = {"T": T, "schedule": kind, "particles": n, "scale": scale, "pull": pull}
    options = small(preset, view="over", arms=plane.ARMS, **own)
    steps = page.evaluate(WALK, {**options, "noise": {"x_T": x_T.tolist(), "z": right.z.tolist()}})
    assert len(steps) == T + 1
    levels = np.stack([twin.held(arm, schedule) for arm in ways], axis=1)
    found = np.array([[x for x, _, _ in arms] for _, _, arms in steps])
    expected = right.x.reshape(4, T + 1, 2 * n).swapaxes(0, 1)
    assert np.abs(found - expected).max() < 1e-5
    held = np.array([[held for _, _, held in arms] for _, _, arms in steps])
    assert np.abs(held - levels).max() < 1e-6
    for k in {*range(0, T + 1, 7), T - 1, T} if n == 8 else range(T + 1):
        bar = float(schedule.alpha_bars[T - k])
        assert steps[k][0] == pytest.approx(np.sqrt(1 - bar), abs=1e-12)
        for a, (_, numbers, _) in enumerate(steps[k][2]):
            for field, value in twin.numbers(law, bar, right.x[a, k])._asdict().items():
                assert numbers[field] == pytest.approx(value, abs=1e-6), (k, a, field)


def test_a_notebook_renders_the_widget(visit):
    """Kills: a default export that anywidget cannot call, colours asked for before there are any
    (a notebook attaches the element later), an end that does not clean up."""
    page = visit(small())
    page.evaluate(
        """(options) => { const el = document.createElement("div");
        const model = {get: (name) => ({options})[name]};
        window.end = plane.default.render({model, el});
        window.root = el.shadowRoot; document.body.append(el); }""",
        small(language="zh"),
    )
    page.wait_for_function("() => root.querySelectorAll('figure:not([hidden])').length === 3")
    page.wait_for_function(
        """() => { const canvas = root.querySelector("figure canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < data.length; i += 4)
            if (data[i] === 31 && data[i + 1] === 35 && data[i + 2] === 40) return true;
        return false; }"""
    )
    page.evaluate("end()")
    assert page.evaluate("root.childElementCount") == 0


@pytest.mark.parametrize("name", plane.PRESETS)
def test_presets_end_with_what_they_teach(visit, name):
    """Kills: a lesson said although it did not come true, or kept back although it did."""
    page = visit(plane.options(name))
    texts = plane.options()["texts"]["en"]
    claim = page.locator("#claim")
    assert claim.inner_text() == texts["claim"][name].replace("{n}", "1000")
    page.evaluate("shown.set({t: 0}); shown.state()")
    page.wait_for_function(
        "(t) => here.shadowRoot.querySelector('#claim').textContent === t",
        arg=texts["truth"][name],
    )
    says = {arm: found["says"] for arm, found in state(page)["arms"].items()}
    assert says.get("z0", "lost") in {"lost", "narrow", "pulled", "misplaced", "one"}
    page.evaluate("shown.set({scale: 1, pull: 0.2, arms: ['own']})")
    assert state(page)["arms"]["own"]["says"] == "wide"
    assert claim.inner_text() == texts["claim"]["custom"]


@pytest.mark.parametrize(("preset", "T"), [("glass", 20), ("balance", 40)])
def test_every_sentence_follows_the_marks_of_its_row(visit, preset, T):
    """Kills: "on track" over points with 78 % of the right spread, or over a marked number."""
    page = visit(plane.options(preset, settings={"T": T}))
    for t in range(T - 1, -1, -3):
        page.evaluate("(t) => { shown.set({t}); shown.state(); }", t)
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        found = state(page)
        for arm, of in found["arms"].items():
            marked = page.locator(f"#{arm}-row .bad:visible").count()
            assert of["says"].startswith("right") == (marked == 0), (t, arm)
            assert page.inner_text("#right-ks").startswith("< ")  # a limit, no value
            if marked == 0:
                assert of["numbers"]["std"] == pytest.approx(found["right"]["std"], rel=0.15)
                assert of["numbers"]["ks"] < 0.08


def test_it_plays_to_the_end_and_back(visit):
    """Kills: a run that stops early, a scrub that makes other states than the way there."""
    page = visit(small(T=20))
    page.keyboard.press("Tab")
    page.evaluate("shown.set({speed: 40})")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => shown.state().t === 0 && !shown.state().playing")
    end = state(page)
    page.evaluate("shown.step(-7)")
    assert state(page)["t"] == 7
    page.evaluate("shown.step(7)")
    assert state(page)["arms"] == end["arms"]
    page.evaluate("shown.set({seed: 2})")
    assert state(page)["t"] == 20 and state(page)["arms"]["ddpm"]["x"] != end["arms"]["ddpm"]["x"]


def test_keyboard_does_all(visit):
    """Kills: a key without effect, one that is taken from a control that has the focus."""
    page = visit(small(T=30))
    picture = page.get_by_role("img").first
    picture.focus()
    for key, t in (("ArrowRight", 29), ("End", 0), ("ArrowLeft", 1), ("Home", 30)):
        page.keyboard.press(key)
        assert state(page)["t"] == t, key
    page.keyboard.press("s")
    page.keyboard.press("g")
    assert state(page)["score"] and state(page)["glass"]
    page.keyboard.press("Space")
    assert state(page)["playing"]
    page.keyboard.press("Space")
    assert not state(page)["playing"]
    slider = page.get_by_label("Time, from noise to data")
    assert slider.get_attribute("max") == "30"
    slider.focus()
    page.keyboard.press("End")
    assert state(page)["t"] == 0
    assert re.search(
        r"t = 0\. ddpm: .+ z = 0|t = 0\. ddpm: .+", picture.get_attribute("aria-label")
    )
    page.evaluate("shown.set({preset: 'draw'})")
    page.get_by_role("img").first.focus()
    before = len(state(page)["points"])
    for key in ("ArrowUp", "Enter", "ArrowLeft", "Enter", "Backspace"):
        page.keyboard.press(key)
    assert len(state(page)["points"]) == before + 1
    assert state(page)["points"][-1] == pytest.approx([0, 0.1])


def test_points_are_drawn_by_pointer_and_by_touch(visit):
    """Kills: points mirrored, a drag that draws one point, an empty law that breaks the page."""
    page = visit(small(preset="draw"), has_touch=True)
    page.get_by_role("button", name="Clear").click()
    assert state(page)["points"] == [] and state(page)["arms"] == {}
    assert page.get_by_role("button", name="Play").is_disabled()
    box = page.get_by_role("img").first.bounding_box()
    center = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.touchscreen.tap(center[0] + box["width"] / 4, center[1] - box["height"] / 8)
    ((x, y),) = state(page)["points"]
    assert (x, y) == (pytest.approx(1.7, abs=0.05), pytest.approx(0.85, abs=0.05))
    page.mouse.move(*center)
    page.mouse.down()
    page.mouse.move(center[0] - 100, center[1], steps=20)
    page.mouse.up()
    assert 4 < len(state(page)["points"]) < 15
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Run it").click()
    assert state(page)["playing"]


def test_nothing_breaks_it(visit):
    """Kills: a division by zero, an index out of range, an option from an address trusted."""
    page = visit(small(T=40))
    heap = [[0.5, 0.5]] * 256
    for changes in (
        {"law": "drawn", "points": [[0.3, -0.2]]},
        {"points": heap},
        {"points": heap * 3},
        {"T": 1},
        {"T": 1, "schedule": "linear"},
        {"T": 0},
        {"T": "x", "schedule": "none", "law": "constructor"},
        {"T": 30, "arms": ["own"], "scale": 0, "pull": 0},
        {"scale": 9, "pull": -3},
        {"arms": [], "seed": -5},
        {"arms": list(plane.ARMS), "view": "over", "score": True, "glass": True},
        {"preset": "no such preset"},
        {"particle": 10**6, "particles": 2},
        {"points": [], "law": "drawn"},
        {"points": "no", "t": -1},
        {"law": "ring", "t": 10**9},
    ):
        page.evaluate("(c) => shown.set(c)", changes)
        for t in (10**6, 3, 0):
            page.evaluate("(t) => { shown.set({t}); shown.state(); }", t)
            page.evaluate("new Promise(requestAnimationFrame)")
        for arm in state(page)["arms"].values():
            assert np.isfinite(arm["x"]).all(), changes
            assert None not in arm["numbers"]["shares"], changes
    for width in (320, 1900, 700):
        page.set_viewport_size({"width": width, "height": 500})
        page.evaluate("new Promise((done) => setTimeout(done, 60))")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    sizes = page.evaluate(
        "[...here.shadowRoot.querySelectorAll('figure:not([hidden]) canvas')].map((c) => c.width)"
    )
    assert min(sizes) > 100


@pytest.mark.parametrize("skew", [60_000, -500])
def test_a_clock_that_jumps_does_no_harm(visit, skew):
    """Kills: a minute in the background counted as a minute of playing; a frame from before the
    click (on a busy machine) that asks for a state before x_T."""
    page = visit(small())
    page.evaluate(
        """(skew) => { let off = 0, first = true; const real = requestAnimationFrame;
        window.requestAnimationFrame = (work) => real((now) => {
            off = skew > 0 ? off + skew : first ? skew : 0;
            first = false;
            work(now + off); }); }""",
        skew,
    )
    page.get_by_role("button", name="Play").click()
    seen = page.wait_for_function("() => { const { k } = shown.state(); return k > 3 && k; }")
    assert seen.json_value() < 250


def test_a_hundred_mounts_leave_nothing_behind(visit):
    """Kills: a listener, an observer, a timer or nodes kept after destroy()."""
    page = visit(small(T=10))
    again = """async ([count, o]) => { for (let i = 0; i < count; i++) {
        put(o); shown.state(); shown.set({view: "over", theme: "dark"});
        if (i % 10 === 0) await new Promise(requestAnimationFrame); } }"""
    page.evaluate(again, [5, small(T=10)])
    before = used(page)
    page.evaluate(again, [100, small(T=10)])
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    after = used(page)
    assert after["Nodes"] <= before["Nodes"] + 20
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 5
    assert after["JSHeapUsedSize"] < before["JSHeapUsedSize"] + 3e6
    page.evaluate("shown.destroy()")
    assert page.evaluate("here.shadowRoot.childElementCount") == 0


FUZZ = """async ([seconds, seed, options]) => {
    let a = seed, count = 0;
    const random = () => { a = (a * 1664525 + 1013904223) % 4294967296; return a / 4294967296; };
    const one = (list) => list[Math.floor(random() * list.length)];
    const keys = [" ", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "Enter",
        "Backspace", "s", "g", "x"];
    const all = "button, input, select, canvas, svg, figure, summary";
    const end = performance.now() + 1000 * seconds;
    while (performance.now() < end) {
        const node = one([...here.shadowRoot.querySelectorAll(all)]);
        const box = node.getBoundingClientRect();
        const init = { bubbles: true, composed: true, cancelable: true, key: one(keys),
            buttons: Math.floor(2 * random()), clientX: box.x + box.width * random(),
            clientY: box.y + box.height * random() };
        const what = Math.floor(10 * random());
        if (what < 3) for (const type of ["pointerdown", "pointermove", "pointermove"])
            node.dispatchEvent(new PointerEvent(type, init));
        else if (what < 5) node.dispatchEvent(new KeyboardEvent("keydown", init));
        else if (what < 7 && node.click && !["png", "gif"].includes(node.id)) node.click();
        else if (what < 9 && "value" in node) {
            if (node.tagName === "SELECT") node.value = one([...node.options]).value;
            else node.value = one(["", "0", "1e9", "-3", "x", String(100 * random())]);
            node.dispatchEvent(new InputEvent("input", init));
        } else if (what === 9) {
            here.style.width = 250 + 1000 * random() + "px";
            document.documentElement.dataset.theme = one(["dark", "light"]);
            shown.set({ language: one(["en", "zh"]), T: one([1, 2, 10, 60]) });
            if (random() < 0.1) put(options);
        }
        if (++count % 5 === 0) await new Promise((done) => setTimeout(done));
        if (count % 20 === 0) await new Promise(requestAnimationFrame);
    }
    return count; }"""


def used(page):
    """What the page holds in memory, after garbage collection."""
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable")
    for _ in range(3):
        client.send("HeapProfiler.collectGarbage")
    found = client.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in found}


@pytest.mark.parametrize("seconds", [3, pytest.param(240, marks=pytest.mark.slow)])
def test_random_input_does_no_harm(visit, seconds):
    """Kills: an error or a leak after events that no reader would send in this order."""
    page, options = visit(small(T=10)), small(T=10)
    page.evaluate(FUZZ, [0.3, 1, options])
    page.evaluate("(o) => put(o)", options)
    before = used(page)
    assert page.evaluate(FUZZ, [seconds, 7, options]) > 10 * seconds
    page.evaluate("(o) => put(o)", options)
    page.evaluate("new Promise((done) => setTimeout(done, 200))")
    after = used(page)
    assert after["Nodes"] <= before["Nodes"] + 50
    assert after["JSHeapUsedSize"] < before["JSHeapUsedSize"] + 3e6
    print({name: (before[name], after[name]) for name in ("Nodes", "JSHeapUsedSize")})


LOOKS = [
    {"language": "en", "theme": "light"},
    {"language": "zh", "theme": "dark"},
    {"language": "zh", "theme": "light", "phone": True},
]


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_axe_finds_nothing(visit, look):
    """Kills: a control without a name, text too pale in one theme, a wrong role."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    phone = look.pop("phone", False)
    size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 900}
    options = small(T=40, open=True, arms=plane.ARMS, glass=True, t=10, **look)
    page = visit(options, viewport=size, bypass_csp=True)
    page.evaluate(
        "(dark) => document.body.style = dark ? 'background: #16181d; color: #fff' : ''",
        look["theme"] == "dark",
    )
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()
    seen = page.locator("section.root").inner_text()
    assert bool(re.search("[一-鿿]", seen)) == (look["language"] == "zh")
    assert "{" not in seen and "undefined" not in seen and "NaN" not in seen


def test_reduced_motion_shows_still_frames(visit):
    """Kills: a page that moves although the reader has asked it not to."""
    page = visit(small(T=40), reduced_motion="reduce")
    page.get_by_role("button", name="Play").click()
    page.evaluate("new Promise((done) => setTimeout(done, 1500))")
    assert state(page)["k"] in (0, 5)


def test_the_address_keeps_the_state(visit):
    """Kills: a field left out of the address, an address of nonsense that breaks the page."""
    page = visit(small(address=True))
    page.evaluate("""shown.set({law: "drawn", points: [[1, 2], [0, -1]], T: 70, seed: 5,
        scale: 0.3, pull: 0.7, arms: ["own", "ddim"], schedule: "cosine"}); shown.set({t: 30})""")
    kept, path = state(page), page.evaluate("location.hash")
    page = visit(small(address=True), path=path)
    assert {k: v for k, v in state(page).items() if k != "language"} == {
        k: v for k, v in kept.items() if k != "language"
    }
    for wrong in (
        "#plane=%7B",
        "#plane=[1]",
        "#plane=null",
        '#plane={"arms":{},"points":[[1]],"T":[],"preset":"none","particle":-2.5}',
    ):
        assert state(visit(small(address=True), path=wrong))["arms"]
    assert visit(small(), path="").evaluate("location.hash") == ""


def test_what_is_seen_is_saved(visit):
    """Kills: a GIF with codes of the wrong width, frames in the wrong order, an empty PNG."""
    page = visit(small(T=6, open=True, language="en"))
    page.evaluate("shown.set({t: 0})")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save PNG").click()
    picture = Image.open(io.BytesIO(saved.value.path().read_bytes()))
    assert picture.width == 3 * 430 + 10 and len(picture.convert("RGB").getcolors(10**6)) > 50
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save GIF").click()
    film = Image.open(io.BytesIO(saved.value.path().read_bytes()))
    assert film.n_frames == 7
    frames = []
    for i in range(film.n_frames):
        film.seek(i)
        frames.append(np.asarray(film.convert("RGB"), dtype=float))
    assert frames[0].shape == (300, 820, 3)
    right = np.abs(frames[-1][30:290, 280:540] - frames[0][30:290, 280:540]).mean()
    assert right > 2
    assert state(page)["t"] == 0


def test_a_click_puts_the_nearest_particle_under_the_glass(visit):
    """Of the arm that is clicked on. Kills: a particle of another pane, y upside down."""
    page = visit(small(T=20, t=10))
    pane = page.get_by_role("img").nth(1)
    width, reach = pane.bounding_box()["width"], 3.4
    x = np.array(state(page)["arms"]["z0"]["x"]).reshape(-1, 2)
    for wanted in (7, 20):
        at = (x[wanted] * [1, -1] + reach) * width / 2 / reach
        pane.click(position={"x": at[0], "y": at[1]})
        spot = np.round(at) * 2 * reach / width - reach
        near = np.hypot(*(x - spot * [1, -1]).T)
        found = state(page)["particle"]
        assert state(page)["glass"] and near[found] < near.min() + 2 * reach / width


def test_every_setting_has_its_control(visit):
    """Kills: a control wired to another setting, or that has no effect; a language that changes
    the state."""
    page = visit(small(open=True, T=50))
    page.get_by_role("combobox", name="Data", exact=True).select_option("spiral")
    page.get_by_role("combobox", name="Schedule", exact=True).select_option("cosine")
    page.get_by_label("Seed").fill("12")
    page.get_by_label("Seed").press("Enter")
    page.get_by_role("checkbox", name="your own").check()
    page.get_by_role("checkbox", name="ddpm").uncheck()
    page.get_by_label("Noise λ").fill("0.6")
    page.get_by_role("button", name="Balance").click()
    page.get_by_role("combobox", name="View", exact=True).select_option("over")
    page.get_by_role("checkbox", name="score").check()
    page.get_by_role("checkbox", name="paths").uncheck()
    found = state(page)
    wanted = {"law": "spiral", "schedule": "cosine", "seed": 12, "scale": 0.6, "view": "over"}
    wanted |= {"arms": ["z0", "ddim", "own"], "score": True, "paths": False, "preset": "", "T": 50}
    found["arms"] = list(found["arms"])
    assert {name: found[name] for name in wanted} == wanted
    assert found["pull"] == pytest.approx(0.68)
    ends = []
    for pull in (0.68, 0.3):
        page.evaluate("(pull) => { shown.set({pull}); shown.set({t: 0}); }", pull)
        ends.append(state(page)["arms"]["own"]["x"])
    assert ends[0] != ends[1]
    page.evaluate("shown.set({language: 'zh'})")
    page.get_by_label("步数 T").fill("100")
    assert state(page)["T"] == 1000 and json.dumps(state(page)["arms"])
