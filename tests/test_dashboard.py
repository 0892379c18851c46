"""The dashboard asked over HTTP: security, pages, downloads, what is sent to move through time."""

import base64
import http.client
import json
import random
import re
import sys
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

from dashboards.security import HEADERS
from dashboards.shelf import Shelf
from dashboards.shell import View, arm_title, pages
from dashboards.stage import clock, still
from diffviz.diagnosis.findings import SEVERITIES
from diffviz.diagnosis.verdicts import dial_verdict
from diffviz.diffusion.balance import ScaledDensity, balanced_score
from diffviz.diffusion.forward import ForwardData
from diffviz.figures import theme
from diffviz.figures.density import PLACES
from diffviz.files.catalogue import text
from diffviz.files.images import data_uri
from diffviz.identify import zoo, zoo_results
from diffviz.recording.request import RecordRequest
from diffviz.recording.run import Run
from diffviz.report.frames import densities, dots, frames
from tests.dashboard import PAGES, served


@pytest.fixture(scope="module")
def run():
    request = RecordRequest(denoiser="dataset:sprites", T=24, n=4, arms="ddpm,z=0,ddim")
    return request.run(progress=False)


@pytest.fixture(scope="module")
def other():
    """A run that can be shown together with the first."""
    request = RecordRequest(denoiser="dataset:sprites", T=24, n=4, arms="ddpm,z=0,ddim", seed=1)
    return request.run(progress=False)


@pytest.fixture(scope="module")
def line():
    """A run of numbers, which no picture can be drawn of."""
    return RecordRequest(denoiser="gaussian:2,0.5", T=20, n=50).run(progress=False)


@pytest.fixture(scope="module")
def guest(run, other, line):
    with served({"run": run, "line": line, "other": other}) as guest:
        yield guest


# ------------------------------------------------------------------ security


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::2]", "a b", ""])
def test_a_foreign_host_name_is_refused(guest, host):
    """Kills: a name of somebody else that is pointed at this server and answered."""
    assert guest.ask("/", Host=host)[0] in (400, 403)
    assert guest.ask("/", Host=f"localhost:{guest.port}")[0] == 200


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (415, {"Content_Type": "text/plain"}),
        (415, {"Content_Type": "multipart/form-data; boundary=x"}),
    ],
)
def test_a_post_from_elsewhere_is_refused(guest, status, asked):
    """Kills: a form on another page that orders a recording, also of this host's other servers."""
    assert guest.ask("/_dash-update-component", {}, **asked)[0] == status


def test_bodies_and_addresses_have_a_limit(guest):
    """Kills: a body of any size that is read into memory, and bodies that are no object."""
    post = "/_dash-update-component"
    assert guest.ask(post, b"[" * 100_000)[0] == 400
    assert guest.ask(post, b"[1]")[0] == 400
    assert guest.ask(post, b"\xff{}")[0] == 400
    assert guest.ask("/?" + "a" * 5000)[0] == 414
    assert guest.ask("/", method="DELETE")[0] == 405
    for length in ("2000001", "99999999999999"):
        large = http.client.HTTPConnection("127.0.0.1", guest.port, timeout=20)
        large.putrequest("POST", post)
        large.putheader("Content-Type", "application/json")
        large.putheader("Content-Length", length)
        large.endheaders(b"{")
        assert large.getresponse().status == 413
        large.close()


@pytest.mark.parametrize("path", ["/", "/health", "/nothing/here", "/download/x/y"])
def test_every_answer_is_sealed(guest, path):
    """Kills: a header that refusals or errors do without, and a source that is not our own."""
    _, headers, _ = guest.ask(path)
    for name, value in HEADERS.items():
        assert headers[name] == value
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'" and policy["object-src"] == "'none'"
    assert re.fullmatch(r"'self'( 'sha256-[^' ]+')* *", policy["script-src"])
    assert "Python" not in headers.get("Server", "")


def test_inline_scripts_are_those_of_the_policy(guest):
    """Kills: a policy from before the pages have added their scripts."""
    import hashlib

    _, headers, body = guest.ask("/")
    page = body.decode()
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    for kind, script in re.findall(r"<script([^>]*)>(.*?)</script>", page, re.S):
        if script and "application/json" not in kind:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert digest in headers["Content-Security-Policy"]


def test_a_token_becomes_a_cookie_of_this_port(run):
    """Kills: a page without the token; a token that stays in the address; two dashboards of one
    host that sign each other out, because their cookies have one name.
    """
    with served({"run": run}, token="right") as one, served({"run": run}, token="other") as two:
        names = []
        for guest, token in ((one, "right"), (two, "other")):
            for path in ("/", "/health", "/assets/pages.js", "/?token=wrong", "/?token="):
                assert guest.ask(path)[0] == 401
            assert guest.ask("/_dash-update-component", {})[0] == 401
            status, headers, _ = guest.ask(f"//evil.example/?lang=zh&token={token}")
            assert status == 303 and headers["Location"] == "/evil.example/?lang=zh"
            name, _, value = headers["Set-Cookie"].partition(";")[0].partition("=")
            assert "HttpOnly" in headers["Set-Cookie"] and value == token
            names.append(name)
            guest.cookie = {"Cookie": f"odd\x01=x; {name}={value}"}
            assert guest.ask("/health")[0] == 200
        assert len(set(names)) == 2


def test_no_callback_body_brings_the_server_down(guest):
    """Kills: a callback that answers nonsense with 500 or shows a traceback."""
    dependencies = json.loads(guest.ask("/_dash-dependencies")[2])
    rng = random.Random(0)
    values = [None, True, -1, 10**30, 0.5, "", "../../etc/passwd", "ddpm*1e9", "<b>", "zh"]
    values += [[], ["z=0"] * 9, {}, {"id": "x" * 30, "form": {}}, {"run": "../x"}, [[[]]], "run"]
    changed = {"inputs", "state", "outputs", "output", "changedPropIds"}
    seen = set()
    for i in range(1000):
        one = rng.choice(dependencies)
        parts = {
            part: [
                {"id": _id(p["id"]), "property": p["property"], "value": rng.choice(values)}
                for p in one[part]
            ]
            for part in ("inputs", "state")
        }
        body = {
            "output": one["output"],
            "outputs": rng.choice([[], {"id": "x", "property": "y"}, None]),
            **parts,
            "changedPropIds": rng.choice([[], ["begin.n_clicks"], None, ["."]]),
        }
        if i % 3 == 0:
            body[rng.choice(sorted(changed))] = rng.choice(values)
        if i % 7 == 0:
            del body[rng.choice(sorted(set(body)))]
        status, _, answer = guest.ask("/_dash-update-component", body)
        seen.add(status)
        assert status < 500 and b"Traceback" not in answer, (body, answer[:300])
    assert seen <= {200, 204, 400, 404} and len(seen) > 1
    assert guest.ask("/health")[0] == 200


def _id(text):
    return json.loads(text) if text.startswith("{") else text


# --------------------------------------------------------------------- pages


def test_every_page_is_registered_and_those_of_the_navigation_in_order(guest):
    """Kills: a page that nothing leads to, an order of the modules' names, lessons as a page."""
    assert pages().items() >= PAGES.items()
    assert list(pages(linked=True)) == list(PAGES)[:-1]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", [*PAGES, "nowhere"])
def test_every_page_speaks_the_language_of_its_address(guest, page, language):
    """Kills: a page without a heading, or with one of the other language; a tab that stays
    English; an address that leads nowhere and is no page.
    """
    answer = guest.page(PAGES.get(page, "/no/where"), f"?lang={language}&theme=dark")
    key = {"compare": "compare.lead", "nowhere": "not_found.title"}.get(page, f"{page}.title")
    assert json.dumps(text(f"dashboard.{key}", language), ensure_ascii=False)[1:-1] in answer
    tab = {"lesson": "lesson.title", "nowhere": "not_found.title"}.get(page, f"nav.{page}")
    title = f"{text(f'dashboard.{tab}', language)} · diffviz"
    assert f'"title":{json.dumps(title, ensure_ascii=False)}' in answer
    assert '"forceColorScheme":"dark"' in answer
    assert guest.ask("/no/where")[0] == 200


def test_compare_shows_a_graph_for_every_picture_and_hides_what_a_link_says(guest):
    """Kills: fewer than eight plots, and a lecture's link that hides nothing."""
    page = guest.page("/", "?run=run&plots=staircase,noise")
    assert page.count('"type":"Graph"') >= 7
    assert '"player"' in page and '"numbers"' in page
    assert page.count("/lesson?run=") == 0 and page.count('"/lesson#lesson-') >= 7
    bare = guest.page("/", "?run=run&hide=nav,player,numbers,controls,captions,sentences")
    assert '"player"' not in bare and "nav-link" not in bare and "/download/" not in bare
    plain = guest.page("/", "?run=line")
    assert "Canvas" not in plain and "trajectories" in plain


@pytest.mark.parametrize(
    ("search", "key"),
    [
        ("?run=nothing", "compare.unknown_title"),
        ("?run=../../etc/passwd", "compare.unknown_title"),
        ("?run=run&beside=line", "compare.apart_title"),
    ],
)
def test_what_cannot_be_shown_is_said_with_a_way_on(guest, search, key):
    """Kills: a failure that leaves an empty page, without a link to go on with."""
    page = guest.page("/", search)
    assert text(f"dashboard.{key}", "en") in page and '"href":"/' in page


def test_a_server_without_runs_leads_to_record():
    """Kills: an empty server that offers nothing."""
    with served({}) as guest:
        assert '"href":"/record"' in guest.page("/")


def nodes(page):
    """Every object of a page, in order."""
    left = [json.loads(page)]
    while left:
        one = left.pop(0)
        if isinstance(one, dict):
            yield one
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        left = [*inside, *left]


def parts(page, kind):
    """The properties of every component of a kind on a page."""
    return [one["props"] for one in nodes(page) if one.get("type") == kind and "props" in one]


def graphs(page):
    """name → the figure of every graph on a page."""
    return {graph["id"]["name"]: graph["figure"] for graph in parts(page, "Graph")}


def test_a_plot_has_the_numbers_of_the_arm_that_it_names(guest, run):
    """Kills: arms exchanged on their way to the browser; another theme; type that is not large."""
    drawn = graphs(guest.page("/", "?run=run&theme=dark&big=1"))["mean"]
    look = drawn["layout"]["template"]["layout"]
    assert look["paper_bgcolor"] == theme.PAPER["dark"] and look["font"]["size"] == theme.LARGE
    curves = {trace["name"]: trace for trace in drawn["data"]}
    for i, arm in enumerate(run.arms):
        packed = curves[arm]["y"]
        drawn = np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])
        assert drawn == pytest.approx(run.dataset["mean"].sel(quantity="x").values[i])


def test_an_address_shows_the_run_that_it_names(guest, other):
    """Kills: another run's curves, pictures, clock or downloads; a run that is lost on the way to
    another page; an arm's swatch, points or picture in those of another arm.
    """
    page, t = guest.page("/", "?run=other&t=9"), 9
    drawn = graphs(page)
    curves = {trace["name"]: trace for trace in drawn["mean"]["data"]}
    colours = [curves[arm]["line"]["color"] for arm in other.arms]
    swatches = [span["style"]["background"] for span in parts(page, "Span") if "style" in span]
    points = [panel["colour"] for panel in drawn["map"]["layout"]["meta"]["panels"]]
    assert swatches == points == colours and len(set(colours)) == len(colours)
    for i, arm in enumerate(other.arms):
        packed = curves[arm]["y"]
        y = np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])
        assert y == pytest.approx(other.dataset["mean"].sel(quantity="x").values[i])
    stills = [canvas["style"]["backgroundImage"] for canvas in parts(page, "Canvas")]
    assert stills == [f"url({data_uri(still(other, i, t))})" for i in range(len(stills))]
    frame = other.dataset["frames"].values[:, list(other.dataset["frame_t"].values).index(t)]
    for i, row in enumerate(frame):
        assert np.array_equal(still(other, i, t)[:, :16, :3], np.moveaxis(row[0], 0, -1))
    stores = {one["id"]: one.get("data") for one in parts(page, "Store")}
    assert stores["which"]["run"] == "other" and stores["clock"]["run"] == "other None"
    files = [one["href"] for one in parts(page, "A") if "/download/" in one["href"]]
    assert files and all(one.startswith("/download/other/") for one in files)
    for address, name in (("/", "compare"), ("/dial", "dial"), ("/guess", "guess")):
        links = parts(guest.page(address, "?run=other&t=9"), "Link")
        nav = [one["href"] for one in links if "nav-link" in one.get("className", "")]
        assert len(nav) > 5 and all(one.endswith("?run=other") for one in nav), name


def test_a_phone_has_panels_in_one_column_and_no_click_is_lost(guest):
    """Kills: panels of a few pixels side by side; a button that looks ready and does nothing."""
    page = guest.page("/record")
    begin = page.index('"id":"begin"')
    assert '"disabled":true' in page[begin - 300 : begin + 300]
    guest.cookie = {"Cookie": "narrow=1"}
    phone = graphs(guest.page("/", "?run=run"))["stds"]["layout"]
    guest.cookie = {}
    wide = graphs(guest.page("/", "?run=run"))["stds"]["layout"]
    domains = [phone[f"yaxis{i}"]["domain"] for i in ("", 2, 3)]
    assert domains[0][0] > domains[1][1] > domains[2][1] and domains[2][0] == pytest.approx(0)
    assert phone["xaxis3"]["domain"] == [0, 1] != wide["xaxis3"]["domain"]
    assert wide["yaxis"]["domain"] == wide["yaxis3"]["domain"]


def test_links_keep_the_settings_and_nothing_else():
    """Kills: a language lost on the way to another page, a step taken along to another run."""
    said = {"lang": "zh", "big": "1", "theme": "dark", "hide": "nav"}
    view = View.read("compare", said | {"t": "3", "run": "a", "x": ["no"]})
    assert view.href("dial") == "/dial?lang=zh&big=1&theme=dark&hide=nav"
    assert view.href(beside=None, t=7) == "/?lang=zh&big=1&theme=dark&hide=nav&t=7&run=a"
    assert View.read("dial", {"noise": "nan"}).number("noise", 0, 1, 0.5) == 0.5
    assert View.read("dial", {"lang": "xx", "theme": "red"}).language == "en"


def page_of(name):
    """The module of a page, as the application has loaded it."""
    path = f"pages/{name}.py"
    return next(
        m for m in list(sys.modules.values()) if str(m.__dict__.get("__file__")).endswith(path)
    )


@pytest.mark.parametrize(
    ("distance", "shares", "std", "off", "word"),
    [
        (0.05, (0.7, 0.3), 1.0, 0.0, "works"),
        (0.05, (0.7, 0.3), 1.0, -0.1, "nearly"),  # two clicks beside the balance
        (0.9, (0.99, 0.01), 1.0, 0.5, "lost"),
        (0.3, (0.7, 0.3), 0.8, 0.1, "narrow"),
        (0.3, (0.7, 0.3), 1.2, -0.1, "wide"),
        (0.3, (0.9, 0.1), 1.0, 0.1, "shifted"),
    ],
)
def test_a_setting_of_the_dial_has_its_verdict(distance, shares, std, off, word):
    """Kills: too wide called narrow, a lost mode nearly right, a place off the balance right."""
    none = np.zeros(0)
    density = ScaledDensity(none, none, none, std, 1.0, distance, shares, (0.7, 0.3))
    assert dial_verdict(density, off) == word


def test_known_places_of_the_dial_are_what_they_are_called():
    """Kills: the flow and the mistake exchanged."""
    balanced = {name: balanced_score(noise) == score for name, (noise, score) in PLACES.items()}
    assert balanced == {"ddpm": True, "flow": True, "mistake": False}
    assert (PLACES["ddpm"][0], PLACES["flow"][0]) == (1.0, 0.0)


def test_a_click_in_the_map_of_the_dial_goes_there(guest):
    """Kills: λ and c exchanged; the share of the large mode said for that of the small one."""
    went = guest.call(
        '{"name":"noise","type":"kept"}.value', pad={"points": [{"x": 0.4, "y": 0.8}]}
    )
    assert went == {"noise.value": 0.4, "score.value": 0.8}
    said = guest.call("verdict.children", law="mixture", noise=0.0, score=1.0)
    assert (
        text("dashboard.dial.share", "en", share="0%", right="30%")
        in said["dial-numbers.children"]
    )


def kept(page):
    """name → the value of every control that the address keeps."""
    ids = [(one.get("id"), one) for one in nodes(page)]
    return {
        of["name"]: one.get("value")
        for of, one in ids
        if isinstance(of, dict) and of.get("type") == "kept"
    }


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (
            "/schedule",
            {"kind": "scaled-linear", "T": 77, "first": 0.01, "last": 0.3, "sprite": "4"},
        ),
        ("/dial", {"law": "mixture", "noise": 0.7, "score": 0.65}),
        ("/xray", {"loop": "ddim", "faults": ["direction-lost"]}),
        ("/", {"plots": ["staircase", "noise"]}),
    ],
)
def test_controls_have_the_values_of_the_address(guest, path, values):
    """Kills: a control that a link or a reload sets back."""
    words = {k: ",".join(v) if isinstance(v, list) else v for k, v in values.items()}
    assert kept(guest.page(path, f"?{urlencode(words)}")) == values


def test_a_cosine_schedule_needs_no_ends(guest):
    """Kills: the range of β of the form given to a schedule that has none, and refused."""
    drawn = guest.call("schedule.children", kind="cosine", T=50, first=1e-4, last=0.02, sprite="0")
    assert "schedule" in graphs(json.dumps(drawn))


@pytest.mark.parametrize("loop", ["flow", "ddim", "ddpm"])
def test_the_x_ray_shows_the_loop_that_was_chosen(guest, loop):
    """Kills: the result of another loop; a right loop that is called wrong."""
    seen = guest.call("xray.children", faults=[], loop=loop)
    spans = re.findall(r'"children": "([^"]*)\\n"', json.dumps(seen))
    code = [line[2:] for line in map(json.loads, (f'"{span}"' for span in spans))]
    assert code == zoo.programs()[loop].source.strip("\n").split("\n")
    assert text("dashboard.xray.verdict.right", "en") in json.dumps(seen, ensure_ascii=False)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_shipped_result_of_the_x_ray_can_be_said(language):
    """Kills: results from before findings were renamed; a severity without a word. The page of
    such a loop would be empty.
    """
    assert all(text(f"dashboard.xray.{severity}", language) for severity in SEVERITIES)
    found = zoo_results.results()
    assert all(one.text(language) for seen in found.values() for one in seen.findings)


def test_a_guess_is_dealt_by_its_number(guest):
    """Kills: letters in the order of the arms, always; two browsers that see other orders."""

    def arms(deal):
        return tuple(re.findall(r'"data-arm":"(\d)"', guest.page("/guess", f"?deal={deal}")))

    dealt = [arms(deal) for deal in range(12)]
    assert len(set(dealt)) > 3 and arms(3) == dealt[3]
    assert all(sorted(one) == ["0", "1", "2"] for one in dealt)


def test_who_can_still_tell_the_sprite_is_said(guest):
    """Kills: a guess called certain, few candidates called all of them."""
    page, view = page_of("schedule"), View.read("schedule", {"lang": "en"})
    sure, left = np.array([0.995, 0.98, 0.5, 0.2, 0.01]), np.array([1.0, 1.1, 2.0, 12.4, 170.2])
    data = ForwardData(np.arange(5), sure, sure, sure, left)
    wanted = [("sure", 1), ("likely", 1), ("likely", 2), ("few", 12), ("nobody", 170)]
    for i, (key, n) in enumerate(wanted):
        assert page._guess(view, data, i) == text(f"dashboard.schedule.{key}", "en", n=n)


def test_an_arm_is_titled_by_what_it_does():
    """Kills: noise that is scaled told as whole or as none; DDIM said to lose it."""
    view = View.read("compare", {"lang": "en"})
    for rule, scale, key in (
        ("ddpm/beta", 1.0, "with"),
        ("ddpm/beta", 0.0, "without"),
        ("ddpm/posterior", 0.5, "scaled"),
        ("ddim(eta=0)", 1.0, "ddim"),
    ):
        told = arm_title(view, "mine", {"rule": rule, "noise_scale": scale})
        assert told == text(f"dashboard.arm.{key}", "en", name="mine", scale=f"{scale:g}")


# ----------------------------------------------------------------- downloads


def test_a_run_is_downloaded_as_it_is(guest, run, other, tmp_path):
    """Kills: another run, or a part of one; a name that is a path; a page in one language only."""
    for name, wanted in (("run", run), ("other", other)):
        status, headers, body = guest.ask(f"/download/{name}/run.nc")
        (tmp_path / "got.nc").write_bytes(body)
        assert status == 200 and Run.load(tmp_path / "got.nc").dataset.identical(wanted.dataset)
        assert f"filename=diffviz-{name}-run.nc" in headers["Content-Disposition"]
    status, _, table = guest.ask("/download/run/curves.csv")
    assert status == 200 and table.decode().count("\n") > 3 * 24
    status, _, report = guest.ask("/download/run/report.html?lang=zh")
    assert status == 200 and b'data-language="zh"' in report[:2000]
    for wrong in ("run/other", "nothing/run.nc", "run/report.html?lang=xx"):
        assert guest.ask(f"/download/{wrong}")[0] == 404
    assert b"HDF" not in guest.ask("/download/..%2Frun/run.nc")[2]


def test_no_id_is_a_path(run, tmp_path):
    """Kills: a run of another folder opened by its path in an address."""
    (tmp_path / "in").mkdir()
    run.save(tmp_path / "outside-the-folder-0.nc")
    run.save(tmp_path / "in" / "abcdefghijklmnopqrstuvwx.nc")
    shelf = Shelf({}, tmp_path / "in")
    assert shelf.get("../outside-the-folder-0") is None
    assert shelf.get(str(tmp_path / "outside-the-folder-0")) is None
    found = shelf.get("abcdefghijklmnopqrstuvwx")
    assert found is not None and found.arms == run.arms


# ------------------------------------------------------ what moves in a browser


def test_the_clock_has_a_sentence_and_numbers_for_every_step(run):
    """Kills: sentences of other steps, numbers of another arm."""
    told = clock(run, "en", ("mean", "stds"))
    steps = run.dataset.sizes["t"]
    assert told["times"] == run.dataset["t"].values.tolist() and len(told["cells"]) == steps
    from diffviz.diagnosis.sentences import step_sentences

    said = told["sentences"]["stds"]
    assert [said[0][i] for i in said[1]] == step_sentences(run, "stds", "en")
    assert len(set(said[0])) == len(said[0])


def test_what_moves_is_of_the_runs_that_are_shown(guest, run, other, line):
    """Kills: pictures, points or densities of another run, or of one where two are shown."""
    both = Shelf({"run": run, "other": other}, Path()).get("run", "other")
    for shown, which in ((other, {"run": "other"}), (line, {"run": "line"}),
                         (both, {"run": "run", "beside": "other"})):  # fmt: skip
        sent = guest.call("moving.data", which=which)["moving.data"]
        assert sent["frames"] == json.loads(json.dumps(frames(shown)))
        assert (sent["dots"], sent["densities"]) == (dots(shown), densities(shown))
    more = guest.call("more-plots.children", plots=["noise"], which=which)
    names = [trace["name"] for trace in graphs(json.dumps(more))["noise"]["data"]]
    assert set(both.arms) <= set(names)


def test_a_recorded_run_is_offered_when_it_is_there(run):
    """Kills: a run to choose that is still being made, or that has gone; a recording that ended
    and is said to go on; one that another order writes over.
    """
    run_id, form = "recordedrecordedrecorded", {"denoiser": "gaussian", "numbers": "1,1", "T": 5}
    mine = [{"id": run_id, "name": "mine"}]
    with served({"run": run}) as guest:
        guest.jobs.cache.set(f"state-{run_id}", {"pid": 2**22 - 1, "state": "sampling"})
        assert guest.call("run.data", mine=mine, run=[])["run.data"] == []
        rows = json.dumps(guest.call("own.children", mine=mine))
        assert text("dashboard.record.gone", "en") in rows
        path = guest.jobs.folder / f"{run_id}.nc"
        run.save(path)
        before = path.read_bytes()
        assert guest.call("run.data", mine=mine, run=[])["run.data"][0]["value"] == run_id
        assert f"/?run={run_id}" in json.dumps(guest.call("own.children", mine=mine))
        page_of("record").record(lambda state: None, {"id": run_id, "form": form}, "")
        assert path.read_bytes() == before


def test_two_runs_stand_side_by_side(run, tmp_path):
    """Kills: one arm's numbers under another's name; a misfit that is offered."""
    shelf = Shelf({"a": run, "b": run}, tmp_path)
    both = shelf.get("a", "b")
    assert both is not None and len(both.arms) == 6
    spec = json.loads(run.spec.to_json())
    spec["arms"] = spec["arms"][2:]
    one = Run(run.dataset.isel(arm=[2]).assign_attrs(spec=json.dumps(spec)))
    names = Shelf({"a": run, "b": one}, tmp_path).get("a", "b").arms
    assert names == ["ddpm · a", "z=0 · a", "ddim · a", "ddim · b"]
    assert shelf.fits("a", "b") and not shelf.fits("a", "a")
