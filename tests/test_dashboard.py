"""The dashboard's server: what it refuses, what it answers, and what its sentences claim."""

import gzip
import http.client
import json
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffviz as dv
from diffviz.diffusion.dial import LAWS, Law, balanced_score, dial_density
from diffviz.diffusion.gaussian import gaussian_trajectory

uvicorn = pytest.importorskip("uvicorn")
dashboards = pytest.importorskip("dashboards")

from dashboards import pages  # noqa: E402
from dashboards.payload import payload  # noqa: E402
from dashboards.sentences import clauses  # noqa: E402

HOSTILE = "</script><script>window.hacked = 1</script>"
TOKEN = "a-token-for-tests"


@pytest.fixture(scope="module")
def sprites():
    images, labels = dv.make_sprites(40)
    schedule = dv.NoiseSchedule.linear(20, 1e-3, 0.35)
    denoiser = dv.DatasetDenoiser(schedule, images, labels, ("a", "b", "c", "d", HOSTILE))
    return dv.record(denoiser, schedule, n=6, progress=False)


@pytest.fixture(scope="module")
def gaussian():
    schedule = dv.NoiseSchedule.linear(100, 1e-3, 0.1)
    denoiser = dv.GaussianDenoiser(schedule, 2.0, 0.5)
    return dv.record(denoiser, schedule, n=2000, progress=False)


class Server:
    """The application on a free port, in a thread."""

    def __init__(self, app):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(app, lifespan="off", log_level="critical", ws="none")
        self.server = uvicorn.Server(config)
        sockets = {"sockets": [self.socket]}
        self.thread = threading.Thread(target=self.server.run, kwargs=sockets, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)

    def open(self, path, method="GET", body=None, **headers):
        """A connection that has asked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        fixed = {"Host": f"127.0.0.1:{self.port}"}
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, fixed | given)
        return connection

    def ask(self, path, method="GET", body=None, **headers):
        """(status, headers, text)"""
        status, found, raw = self.raw(path, method, body, **headers)
        return status, found, raw.decode()

    def raw(self, path, method="GET", body=None, **headers):
        """(status, headers, bytes)"""
        connection = self.open(path, method, body, **headers)
        try:
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            raw = answer.read()
        finally:
            connection.close()
        if found.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        return answer.status, found, raw

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)
        self.socket.close()


@pytest.fixture(scope="module")
def server(sprites, gaussian):
    running = Server(dashboards.create_app({HOSTILE: sprites, "gaussian": gaussian}))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def guarded():
    running = Server(dashboards.create_app({}, token=TOKEN))
    yield running
    running.stop()


JSON = {"Content_Type": "application/json"}


# ------------------------------------------------------------------ who may ask


def test_every_page_and_the_health_check_answer(server):
    """Kills: a page whose address only works from inside."""
    assert json.loads(server.ask("/health")[2]) == {
        "status": "ok",
        "runs": 2,
        "jobs": {"running": 0, "waiting": 0},
    }
    for path in ("/", "/dial", "/schedule?kind=cosine", "/record"):
        status, headers, text = server.ask(path)
        assert status == 200 and headers["content-type"].startswith("text/html")
        assert "DashRenderer" in text


@pytest.mark.parametrize("path", ["/", "/health", "/data/start", "/nothing", "/assets/1-core.js"])
def test_every_answer_carries_the_policy(server, path):
    """Kills: headers added to pages only; inline scripts allowed without a hash."""
    _, headers, _ = server.ask(path)
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    script = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in script and "http" not in script
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8050",
        "",
        "127.0.0.1.evil.example",
        "localhost:" + "1" * 5000,
        "localhost:²",
    ],
)
def test_a_foreign_host_name_is_refused(server, host):
    """Kills: DNS rebinding, with a name compared by prefix or not at all; a port that is no
    number."""
    status, _, text = server.ask("/data/run/1", Host=host.encode().decode("latin-1"))
    assert status in (400, 403) and "Traceback" not in text and len(text) < 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_names_of_this_machine_are_allowed(server, host):
    """Kills: an IPv6 name cut at its colons."""
    assert server.ask("/health", Host=f"{host}:{server.port}")[0] == 200
    assert server.ask("/health", Host=host)[0] == 200


def test_only_the_own_port_is_allowed_where_it_is_known(gaussian):
    """Kills: a check of the name that forgets the port."""
    running = Server(dashboards.create_app({}, port=1))
    try:
        assert running.ask("/health", Host="localhost:1")[0] == 200
        assert running.ask("/health", Host="localhost:2")[0] == 403
    finally:
        running.stop()


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://[", "https://localhost"]
)
def test_a_post_from_another_page_is_refused(server, origin):
    """Kills: cross-site requests to the callbacks."""
    status, _, _ = server.ask("/_dash-update-component", "POST", "{}", Origin=origin, **JSON)
    assert status == 403


SENSELESS = (
    *("", "{", "[]", "null", "7", '"x"', "{}", '{"output": 3}', "[" * 100_000),
    '{"output": "dial-answer.data", "inputs": "x", "changedPropIds": {}}',
    '{"output": "a.b", "outputs": [], "inputs": [{"id": 1}], "changedPropIds": []}',
)


@pytest.mark.parametrize("body", SENSELESS)
def test_a_body_without_sense_gets_one_line(server, body):
    """Kills: a traceback on screen, and a server that dies of it."""
    status, _, text = server.ask("/_dash-update-component", "POST", body, **JSON)
    assert 400 <= status < 500
    assert "Traceback" not in text and "File " not in text and len(text) < 200
    assert server.ask("/health")[0] == 200


def test_large_bodies_and_other_kinds_are_refused(server):
    """Kills: memory filled by one request, told by its header or not; forms of other sites."""
    path = "/_dash-update-component"
    assert server.ask(path, "POST", "{}", Content_Length="3000000", **JSON)[0] == 413
    chunks = (b" " * 500_000 for _ in range(8))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("POST", path, chunks, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up on the rest
    finally:
        connection.close()
    assert server.ask(path, "POST", "a=b", Content_Type="text/plain")[0] == 415
    assert server.ask("/", "DELETE")[0] == 405


NO_RUNS = (
    *("../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/etc/passwd", "0", "3", "x" * 10_000),
    *("%3Cscript%3E", "1%00", "1/../1", "..%5c..%5cx"),
)


@pytest.mark.parametrize("name", NO_RUNS)
def test_a_run_is_asked_for_by_its_number_only(server, name):
    """Kills: any path, known or not, that a browser could make the server read."""
    status, _, text = server.ask(f"/data/run/{name}")
    assert status in (404, 414)
    assert "root:" not in text and "script" not in text and len(text) < 200


def test_a_guest_needs_the_token_once(guarded):
    """Kills: a token asked on pages only; kept in the address; compared loosely."""
    for path in ("/", "/health", "/data/start", "/assets/1-core.js", "/?token=", "/?token=a-tok"):
        assert guarded.ask(path)[0] == 401
    assert guarded.ask("/", Cookie="diffviz-token=wrong")[0] == 401
    status, headers, _ = guarded.ask(f"/dial?noise=0&token={TOKEN}")
    assert (status, headers["location"]) == (303, "/dial?noise=0")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite" in cookie
    assert guarded.ask("/health", Cookie=cookie.split(";")[0])[0] == 200


def test_the_join_link_leads_nowhere_else(guarded):
    """Kills: //evil.example as a path, which a browser reads as another server."""
    for path in (
        "//evil.example/",
        "/\\evil.example",
        "/%09/evil.example",
        "/%0d%0aX-Evil:1",
        "/%00",
    ):
        status, headers, _ = guarded.ask(f"{path}?token={TOKEN}")
        location = headers.get("location", "/")
        assert status in (303, 400) and "x-evil" not in headers
        assert location.startswith("/") and location[1:2] not in ("/", "\\")
        assert location.isprintable()


@pytest.mark.parametrize("other", ['x={"a": 1}', "foo", "a=x y", "a[0]=1"])
def test_the_token_is_found_beside_other_cookies(guarded, other):
    """Browsers send one server's cookies to all ports of a host. Kills: a parser that stops at
    the first odd one."""
    assert guarded.ask("/health", Cookie=f"{other}; diffviz-token={TOKEN}")[0] == 200
    assert guarded.ask("/health", Cookie=f"{other}; diffviz-token=no")[0] == 401


@pytest.mark.parametrize("path", ["x/y", "dash/nan", "dash/%00", "dash/..%2f..%2fsetup.py"])
def test_a_part_of_the_page_that_is_none_is_not_there(server, path):
    """Kills: Dash's own error, a status 500 and a traceback in the log for each."""
    status, _, text = server.ask(f"/_dash-component-suites/{path}")
    assert status == 404 and len(text) < 100


# ------------------------------------------------------------------ what is answered


def test_the_start_names_runs_and_has_all_words(server):
    """Kills: a path or a digest of a run sent to everybody; a language left out."""
    start = json.loads(server.ask("/data/start")[2])
    assert start["runs"] == [{"id": "1", "name": HOSTILE}, {"id": "2", "name": "gaussian"}]
    assert set(start["words"]["en"]) == set(start["words"]["zh"])
    assert start["config"]["showSendToCloud"] is False


def test_a_run_is_sent_whole_and_in_every_language(server, sprites):
    """Kills: NaN in JSON, sheets that do not fit the arms, a figure in one language."""
    text = server.ask("/data/run/1")[2]
    run = json.loads(text, parse_constant=pytest.fail)
    assert [arm["name"] for arm in run["arms"]] == sprites.arms
    assert len(run["images"]["fixed"]) == len(run["images"]["stretched"]) == 3
    assert run["times"] == list(range(20, -1, -1))
    for figure in run["figures"].values():
        assert set(figure["texts"]) == {"en", "zh"} and figure["texts"]["en"]
    assert run["live"]["right_mean"][0] == pytest.approx(
        float(sprites.dataset["reference_mean"][0]), rel=1e-3
    )


def test_runs_of_one_name_stay_apart(tmp_path, gaussian):
    """Kills: the second run of a name hiding the first."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        gaussian.save(tmp_path / folder / "run.nc")
    names = dashboards.load_runs([tmp_path / "a" / "run.nc", tmp_path / "b" / "run.nc"])
    assert list(names) == ["run", "run (2)"]
    odd = tmp_path / "run\udcff.nc"  # on the disk a byte that is no UTF-8
    gaussian.save(odd)
    (name,) = dashboards.load_runs([odd])
    assert name.encode() == b"run\\udcff"
    with pytest.raises(dv.RunFileError):
        dashboards.load_runs([tmp_path / "missing.nc"])


# ------------------------------------------------------------------ sentences


def test_sentences_say_what_theory_says(gaussian):
    """In the middle of the path on Gaussian data (SCIENCE: three arms, three views).

    Kills: thresholds or arms swapped, DDIM blamed for a joint law that it need not have.
    """
    said = clauses(gaussian)
    i = int(np.flatnonzero(gaussian.dataset["t"].values == 30)[0])

    def keys(plot, clause=0):
        found = said[plot][clause]
        return [found.keys[code] for code in found.codes[:, i]]

    assert keys("ks", 0) == ["law_same", "law_far", "law_close"]
    assert keys("ks", 1) == ["joint_kept", "joint_left", "joint_other"]
    assert keys("dial") == ["dial_reads", "dial_missing", "dial_other"]
    assert keys("stds") == ["between_like", "between_same", "between_like"]
    assert keys("distance") == ["as_far", "pulled", "as_far"]


def test_a_rule_with_less_noise_is_not_blamed():
    """DDIM with 0 < η < 1 leaves the residual's law on purpose; with η = 1 it is DDPM with √β̃.

    Kills: only η = 0 excused, every η excused.
    """
    schedule = dv.NoiseSchedule.course(60, 1e-3, 0.15)
    arms = [dv.Arm(str(eta), dv.ddim(eta=eta)) for eta in (0.1, 1.0)]
    denoiser = dv.GaussianDenoiser(schedule, 0.5, 0.5)
    run = dv.record(denoiser, schedule, arms=arms, n=4000, progress=False)
    i = int(np.flatnonzero(run.dataset["t"].values == 30)[0])
    said = clauses(run)
    for plot, clause, keys in (
        ("ks", 1, ["joint_other", "joint_kept"]),
        ("dial", 0, ["dial_other", "dial_reads"]),
    ):
        found = said[plot][clause]
        assert [found.keys[code] for code in found.codes[:, i]] == keys


def test_silence_where_nothing_is_known(gaussian):
    """Kills: a verdict on NaN, as a comparison with NaN is False and falls to the next case."""
    blank = dv.Run(gaussian.dataset.copy(deep=True))
    for name in ("ks_marginal", "reference_std_between", "reference_distance_to_mean"):
        blank.dataset[name][:] = np.nan
    said = clauses(blank)
    for plot in ("ks", "stds", "distance"):
        assert not said[plot][0].codes.any()
    assert json.loads(gzip.decompress(payload(blank)), parse_constant=pytest.fail)


def test_every_sentence_has_words(gaussian):
    """Kills: a key in a clause that the catalogue lacks."""
    for found in clauses(gaussian).values():
        for clause in found:
            for key in filter(None, clause.keys):
                assert "{items}" in dv.catalogue.catalogue("en")[f"dashboard.say.{key}"]


# ------------------------------------------------------------------ the noise dial


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.3])
def test_the_dial_agrees_with_the_exact_recursion(scale):
    """Closed form here, in float64, and in `gaussian_trajectory`: two derivations, one law.

    Kills: ᾱ_t for ᾱ_{t−1}, λ for λ², noise in the last step.
    """
    schedule = dv.NoiseSchedule.course(100, 1e-3, 0.1)
    data = dial_density(schedule, LAWS["gaussian"], scale, 1.0)
    exact = gaussian_trajectory(schedule, dv.Arm("x", dv.ddpm(), scale), 2.0, 0.5)
    assert data.std == pytest.approx(exact.std[-1], rel=1e-9)


@pytest.mark.parametrize(("scale", "score"), [(1.0, 1.0), (0.0, 0.5), (0.0, 1.0), (0.7, 0.8)])
def test_particles_follow_the_closed_form(scale, score):
    """A Gaussian written as two equal halves goes through particles instead.

    Kills: an error in the table of pulls or its interpolation. 2,000 particles leave a standard
    error of 1/√4000 = 1.6 % in a std; four of them are allowed.
    """
    schedule = dv.NoiseSchedule.course(200, 1e-3, 0.05)
    halves = Law((2.0, 2.0), (0.5, 0.5), (0.5, 0.5))
    exact = dial_density(schedule, LAWS["gaussian"], scale, score).std
    assert dial_density(schedule, halves, scale, score).std == pytest.approx(exact, rel=0.065)


def test_what_the_class_should_see():
    """(λ=1, c=1) and (λ=0, c=½) work, (λ=0, c=1) does not, and loses the small mode.

    Kills: a score coefficient that acts on x as well, a verdict by the std alone.
    """
    for law in ("gaussian", "mixture"):
        for noise, score in ((1, 1), (0, 0.5), (0.5, 0.65)):
            asked = {"law": law, "noise": noise, "score": score}
            assert pages.dial(asked)["verdict"] == "works", asked
    wrong = pages.dial({"law": "gaussian", "noise": 0, "score": 1})
    assert (wrong["verdict"], wrong["std"] < 0.05) == ("narrow", True)
    lost = pages.dial({"law": "mixture", "noise": 0, "score": 1})
    assert (lost["verdict"], lost["share"]) == ("lost", 0)
    assert balanced_score(1.0) == 1.0 and balanced_score(0.0) == 0.5


@pytest.mark.parametrize("place", ["x/1/1", "gaussian/x/1", "gaussian/nan/1", "gaussian/1/inf"])
def test_a_setting_that_is_none_is_not_there(server, place):
    """Kills: an address that reaches the arithmetic unchecked."""
    status, _, text = server.ask(f"/data/dial/{place}")
    assert status == 404 and len(text) < 100
    assert json.loads(server.ask("/data/dial/gaussian/7/0")[2])["noise"] == 1.5


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["law", "noise", "score", "kind", "first", "last", "sprite"]),
        anything | st.sampled_from(["gaussian", "linear", "cosine", 0.5]),
    )
    | anything
)
def test_no_question_breaks_the_pages(asked):
    """Kills: an unchecked value of a question, such as a list where a name is meant."""
    assert pages.dial(asked) is None or "verdict" in pages.dial(asked)
    if isinstance(asked, dict):
        asked = asked | {"T": 50}
    found = pages.schedule(asked)
    assert found is None or "wrong" in found or "checks" in found


# ------------------------------------------------------------------ the schedule


def test_the_checks_show_the_quirk_of_the_course():
    """Kills: a check tied to the wrong sentence of ``violations``."""

    def broken(kind):
        asked = {"kind": kind, "T": 500, "first": 1e-4, "last": 0.02, "sprite": 0}
        checks = pages.schedule(asked)["checks"]
        return [check["law"] for check in checks if check["broken"]]

    assert broken("course") == ["product"]
    assert broken("linear") == broken("cosine") == []


WRONG = (
    *({"T": 0}, {"T": 4001}, {"T": 2.5}, {"T": None}, {"first": -1}, {"last": 1}),
    *({"last": None}, {"kind": "../x"}, {"first": 0.03}),
)


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_schedule_is_told_in_one_line(change):
    """Kills: T without bound, β outside (0, 1)."""
    asked = {"kind": "linear", "T": 100, "first": 1e-4, "last": 0.02, "sprite": 0} | change
    assert len(pages.schedule(asked)["wrong"]) < 120


def test_terminal_mismatch_is_that_of_the_schedule():
    """√ᾱ_T = 0.079 for the course schedule (computed before the code existed)."""
    asked = {"kind": "course", "T": 500, "first": 1e-4, "last": 0.02, "sprite": 0}
    assert pages.schedule(asked)["terminal"] == {"value": "0.0793", "good": False}
