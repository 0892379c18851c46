"""Recordings ordered by browsers: real worker processes, their ends, owners and limits."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffviz as dv

pytest.importorskip("uvicorn")

from dashboards import create_app
from dashboards.jobs import Job, Jobs, described
from dashboards.order import FIELDS, SHIPPED, Refused, order
from tests.test_dashboard import JSON, Server

QUICK = {"denoiser": "gaussian", "data": "1,0.5", "plan": "linear", "length": 20, "n": 30}
LONG = QUICK | {"length": 2000, "n": 20_000, "arms": "ddpm"}
FRUGAL = [dict(QUICK, seed=seed) for seed in range(40)]


def until(condition, seconds=150):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def jobs():
    made = Jobs(seconds=1e9)
    yield made
    made.close()


def submit(jobs, asked, owner="me") -> Job:
    return jobs.submit(order(asked, jobs.models), owner)


# ------------------------------------------------------------------ an order


def test_an_order_is_what_the_command_line_would_be_told():
    """Kills: fields that go nowhere, a schedule that replaces the network's own unasked."""
    asked = QUICK | {"start": 0.001, "end": 0.3, "arms": "ddim:0.5, ddpm*1.2", "seed": 7}
    made = order(asked, SHIPPED)
    assert made.told() | {"name": ""} == {
        "denoiser": "gaussian:1,0.5",
        "narrowed": False,
        "plan": "linear",
        "T": 20,
        "start": 0.001,
        "end": 0.3,
        "arms": "ddim:0.5,ddpm*1.2",
        "n": 30,
        "block": 30,
        "seed": 7,
        "label": None,
        "steps": 20,
        "name": "",
    }
    network = order({"denoiser": "network", "class": "hero"}, SHIPPED)
    assert (network.denoiser, network.plan, network.T, network.label) == (None, None, 500, "hero")
    assert order({"denoiser": "sprites", "class": "food"}, SHIPPED).told()["narrowed"]


REFUSED = {
    "field": {"../x": 1},
    "long": {"data": "1" * 10_000},
    "denoiser": {"denoiser": "../../etc/passwd"},
    "class": {"denoiser": "sprites", "class": "<script>"},
    "plan": {"plan": "__import__"},
    "schedule": {"start": 0.3, "end": 0.1},
    "beta": {"end": 1.5},
    "gaussian": {"data": "1,-1"},
    "arms": {"arms": ",".join(["ddpm"] * 9)},
    "arm": {"arms": "ddim:1.5"},
    "twice": {"arms": "ddpm,ddpm"},
    "number": {"length": 10_001},
}
MORE_REFUSED = [
    *REFUSED.items(),
    ("denoiser", {"denoiser": ["network"]}),
    ("gaussian", {"data": "nan,1"}),
    ("gaussian", {"data": "1e9,1"}),
    ("mixture", {"denoiser": "mixture", "data": ";".join(["0,1,1"] * 17)}),
    ("mixture", {"denoiser": "mixture", "data": "0,1,0"}),
    ("arm", {"arms": "ddpm*11"}),
    ("arm", {"arms": "ddpm:1"}),
    ("arm", {"arms": ""}),
    ("number", {"length": 0}),
    ("number", {"n": True}),
    ("number", {"n": 1.5}),
    ("number", {"n": 10**9}),
    ("number", {"seed": -1}),
    ("number", {"steps": 21}),
]


@pytest.mark.parametrize(("key", "change"), MORE_REFUSED)
def test_a_wrong_order_is_refused_by_name(key, change):
    """Kills: a limit that is missing, and a refusal without words in some language."""
    with pytest.raises(Refused) as refused:
        order(QUICK | change, SHIPPED)
    assert refused.value.key == key and len(str(refused.value)) < 300
    for language in ("en", "zh"):
        words = dv.catalogue.catalogue(language)[f"dashboard.record.refused.{key}"]
        for name in refused.value.values:
            assert name in ("allowed", "given", "name") or f"{{{name}}}" in words


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
likely = st.sampled_from(["gaussian", "mixture", "cosine", "own", "ddpm*2", "1,1", 5, 0.1, ""])


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(FIELDS), anything | likely))
def test_no_order_breaks_the_server(asked):
    """Kills: a value whose kind is taken for granted."""
    try:
        made = order(asked, SHIPPED)
    except Refused:
        return
    assert 1 <= made.T <= 10_000 and made.seconds() > 0 and made.memory() > 0
    json.dumps(made.told())


# ------------------------------------------------------------------ jobs and their ends


def test_a_job_records_what_the_library_records(jobs):
    """The same bits as ``record``; curves told on the way; every file whole; memory given back.

    Kills: a seed, a schedule or an arm lost on the way to the worker, curves of another run.
    """
    job = submit(jobs, QUICK | {"seed": 3, "arms": "ddpm,z=0"})
    until(lambda: job.process is not None)
    worker = job.process
    seen, told = {}, []
    until(lambda: told.append(jobs.news("me", seen)) or job.process is None)
    assert (job.state, job.files) == ("done", ("run", "payload", "csv", "html"))
    assert worker.poll() is not None
    schedule = dv.NoiseSchedule.linear(20)
    expected = dv.record(
        dv.GaussianDenoiser(schedule, 1.0, 0.5),
        schedule,
        arms=[dv.Arm("ddpm", dv.ddpm()), dv.Arm("z=0", dv.ddpm(), 0.0)],
        n=30,
        seed=3,
        progress=False,
    )
    run = dv.Run.load(jobs.file(job.id, "me", "run"))
    assert run == expected
    fresh = [p for news in told if news for c in news["curves"].values() for p in c["points"]]
    assert [point[0] for point in fresh] == list(range(20, 0, -1))
    std = [[float(f"{v:.4g}") for v in row] for row in run.dataset["std"].sel(quantity="x")]
    assert [point[1][1] for point in fresh] == [[a, b] for a, b in zip(*std, strict=True)][:-1]
    assert json.loads(gzip.decompress(jobs.file(job.id, "me", "payload").read_bytes()))["arms"]
    rows = jobs.file(job.id, "me", "csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 21 and rows[0].startswith("arm,t,mean_x,")
    assert "<html" in jobs.file(job.id, "me", "html").read_text()
    folder = job.folder.parent
    jobs.close()
    assert not folder.exists()


def test_cancelled_killed_and_queued_jobs_leave_the_rest_well(jobs):
    """Kills: a worker left behind, a queue that stops at a dead job, a turn given to one owner
    while another waits."""
    first, second = submit(jobs, LONG, "a"), submit(jobs, LONG, "a")
    mine = submit(jobs, QUICK, "b")
    until(lambda: first.phase == "sampling")
    assert [jobs.view(job)["position"] for job in (first, second, mine)] == [None, 2, 1]
    pid = first.process.pid
    assert not jobs.cancel(first.id, "b") and first.state == "running"
    assert jobs.cancel(first.id, "a")
    until(lambda: not alive(pid))
    assert first.state == "cancelled"
    until(lambda: mine.state == "done")
    until(lambda: second.phase == "sampling" and second.process is not None)
    os.kill(second.process.pid, signal.SIGKILL)
    until(lambda: second.state != "running")
    assert (second.state, second.failure) == ("failed", "killed")
    until(lambda: not second.folder.exists() and not first.folder.exists())
    assert {job["id"] for job in jobs.runs("b")} == {mine.id} and jobs.runs("a") == []


def test_a_run_without_its_report_is_said_to_be_so(jobs):
    """Kills: "done" where the report never comes, as after a full disk."""
    whole = submit(jobs, QUICK, "a")
    until(lambda: whole.process is None and not whole.active)
    assert not jobs.view(whole)["incomplete"] and "html" in whole.files
    job = submit(jobs, QUICK, "a")
    until(lambda: job.state == "done")
    if job.process is not None:
        os.kill(job.process.pid, signal.SIGKILL)
    until(lambda: job.process is None)
    assert jobs.view(job)["incomplete"] == ("html" not in job.files)


def test_a_folder_that_was_cleaned_away_is_made_again(jobs):
    """Kills: a server that can record nothing any more once a cleaner was in /tmp."""
    first = submit(jobs, QUICK, "a")
    until(lambda: first.process is None and not first.active)
    shutil.rmtree(first.folder.parent)
    second = submit(jobs, QUICK, "a")
    until(lambda: second.state != "running" and second.state != "waiting")
    assert second.state == "done"


def test_out_of_memory_is_the_jobs_own(jobs, monkeypatch):
    """The estimate is made to lie, so that the worker's own limit has to hold.

    Kills: a limit that is not set, an allocation failure that reads as a crash.
    """
    monkeypatch.setattr("dashboards.order.Order.memory", lambda self: 1e6)
    jobs.memory = 330e6
    job = submit(jobs, QUICK | {"n": 16_000, "length": 2_000, "arms": "ddpm,z=0,ddim"})
    until(lambda: not job.active)
    assert (job.state, job.failure) == ("failed", "memory")


def test_a_wrong_checkpoint_is_told(tmp_path):
    """Kills: a file that is found to be wrong only when somebody records with it."""
    page = tmp_path / "page.pth"
    page.write_text("<!DOCTYPE html>")
    with pytest.raises(dv.CheckpointError, match=r"page\.pth"):
        described([page])


def test_no_worker_outlives_its_server():
    """Killed without warning, in the middle of sampling. Kills: orphans that compute on."""
    script = (
        "import time\n"
        "from dashboards.jobs import Jobs\n"
        "from dashboards.order import order\n"
        f"jobs = Jobs(seconds=1e9)\njob = jobs.submit(order({LONG}, jobs.models), 'me')\n"
        "while job.phase != 'sampling': time.sleep(.02)\n"
        "print(job.process.pid, job.folder.parent, flush=True)\ntime.sleep(60)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid, folder = server.stdout.readline().split()
    server.kill()
    server.wait()
    server.stdout.close()
    until(lambda: not alive(int(pid)), 10)
    jobs = Jobs(workers=0)
    submit(jobs, QUICK)
    assert not Path(folder).exists()  # swept by the next
    jobs.close()


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# ------------------------------------------------------------------ limits


def test_limits_are_told_before_the_start(jobs):
    """Kills: an estimate that nothing compares with a limit, a queue without an end."""
    for change in ({"n": 10**6, "length": 10_000}, {"denoiser": "network", "n": 5000}):
        asked = order({"denoiser": "gaussian"} | change, SHIPPED)
        with pytest.raises(Refused) as refused:
            Jobs().price(asked)
        assert refused.value.key in ("seconds", "memory")
    jobs.workers = 0  # nothing starts
    for asked in FRUGAL[:6]:
        submit(jobs, asked)
    with pytest.raises(Refused, match="own"):
        submit(jobs, QUICK)
    for i in range(54):
        submit(jobs, QUICK, f"guest {i}")
    with pytest.raises(Refused, match="queue"):
        submit(jobs, QUICK, "another")


def test_runs_are_kept_within_a_bound(jobs):
    """Who keeps most gives way, with the oldest. Kills: one guest who pushes out the others."""
    jobs.workers = 0
    sizes = {"a": [40, 40, 40], "b": [10]}
    made = {owner: [submit(jobs, QUICK, owner) for _ in parts] for owner, parts in sizes.items()}
    for owner, parts in sizes.items():
        for job, size in zip(made[owner], parts, strict=True):
            job.state, job.bytes, job.files = "done", size, ("run", "payload")
    jobs.folder_bytes = 100
    jobs._make_room(made["b"][0])
    assert [len(jobs.runs(owner)) for owner in ("a", "b")] == [2, 1]
    assert jobs.find(made["a"][0].id, "a") is None


@pytest.mark.parametrize(
    "asked",
    [
        {"denoiser": "gaussian", "n": 16_384, "length": 1000},
        {"denoiser": "mixture", "n": 40_000, "length": 300},
        {"denoiser": "sprites", "n": 64, "length": 30},
    ],
)
@pytest.mark.slow
def test_no_job_takes_more_memory_than_was_said(asked):
    """With the estimate as the worker's limit, jobs still end well.

    Kills: an estimate that forgets the trajectories, the snapshots or the counts for merging.
    """
    made = order(asked, SHIPPED)
    jobs = Jobs(memory=made.memory() * 1.001, seconds=1e9)
    job = jobs.submit(made, "me")
    until(lambda: not job.active, 280)
    jobs.close()
    assert job.state == "done", (job.failure, job.line, made.memory())


# ------------------------------------------------------------------ over HTTP


@pytest.fixture(scope="module")
def server():
    jobs = Jobs(seconds=1e9)
    running = Server(create_app({}, jobs=jobs))
    running.jobs = jobs
    yield running
    jobs.close()
    running.stop()


def post(server, path, asked, **headers):
    status, found, text = server.ask(path, "POST", json.dumps(asked), **JSON, **headers)
    return status, found, json.loads(text)


def cookie_of(server):
    return server.ask("/data/start")[1]["set-cookie"].split(";")[0]


def test_a_guest_gets_an_unguessable_cookie_once(server):
    """Kills: a cookie that scripts read or other sites send; the same one for everybody."""
    whole = server.ask("/data/start")[1]["set-cookie"]
    assert "HttpOnly" in whole and "samesite=strict" in whole.lower()
    cookies = {cookie_of(server) for _ in range(5)}
    assert len(cookies) == 5 and all(len(c.split("=")[1]) == 32 for c in cookies)
    assert "set-cookie" not in server.ask("/data/start", Cookie=cookies.pop())[1]
    assert "set-cookie" in server.ask("/data/start", Cookie="diffviz-guest=short")[1]


def test_two_guests_see_and_touch_only_their_own(server):
    """Kills: a job, its figure, its files or its run found by whoever knows its name."""
    mine, yours = cookie_of(server), cookie_of(server)
    status, _, job = post(server, "/data/jobs", QUICK, Cookie=mine)
    assert status == 200
    key = job["id"]
    until(lambda: server.jobs._jobs[key].process is None and not server.jobs._jobs[key].active)
    places = [
        f"/data/run/{key}",
        f"/data/jobs/{key}/figure",
        *(f"/data/jobs/{key}/file/{name}" for name in ("run", "html", "csv")),
    ]
    for place in places:
        assert server.jobs.file(key, "", "run") is None
        assert server.ask(place)[0] == 404
        assert server.ask(place, Cookie=yours)[0] == 404
    assert post(server, f"/data/jobs/{key}/cancel", {}, Cookie=yours)[0] == 404
    assert json.loads(server.ask("/data/jobs", Cookie=yours)[2])["jobs"] == []
    assert json.loads(server.ask("/data/runs", Cookie=yours)[2]) == []
    kinds = {}
    for place in places:
        connection = server.raw(place, Cookie=mine)
        kinds[place.rsplit("/", 1)[1]] = connection
    assert kinds["run"][0] == 200 and kinds["run"][2][1:4] == b"HDF"
    assert kinds["csv"][2].startswith(b"arm,t,")
    assert "attachment" in kinds["html"][1]["content-disposition"]
    assert json.loads(server.ask("/data/runs", Cookie=mine)[2]) == [
        {"id": key, "name": "gaussian(1,0.5), n=30, T=20, seed=0"}
    ]
    assert post(server, f"/data/jobs/{key}/cancel", {}, Cookie=mine)[0] == 200
    assert server.ask(places[0], Cookie=mine)[0] == 404


def test_news_come_as_a_stream_and_end_with_the_server():
    """Kills: a stream that keeps the server from stopping, and news of somebody else."""
    jobs = Jobs()
    running = Server(create_app({}, jobs=jobs))
    mine = cookie_of(running)
    lines, whole = [], threading.Event()

    def listen():
        connection = running.open("/data/jobs/stream", Cookie=mine)
        answer = connection.getresponse()
        assert answer.getheader("content-type").startswith("text/event-stream")
        for line in answer:
            lines.append(line.decode())
        whole.set()
        connection.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    _, _, job = post(running, "/data/jobs", LONG | {"length": 500}, Cookie=mine)
    until(lambda: any('"sampling"' in line and '"points"' in line for line in lines))
    assert all(job["id"] in line for line in lines if line.startswith('data: {"jobs": [{'))
    start = time.monotonic()
    jobs.close()
    running.stop()
    assert whole.wait(5) and time.monotonic() - start < 8
    assert jobs._jobs[job["id"]].failure == "stopped"


HOSTILE = (
    *("..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "x" * 2000, "%3Cscript%3E", "run.nc", "1%00"),
    *("..%5c..%5cx", "payload", "*"),
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_reaches_a_file(server, name):
    """Kills: a name from outside joined to a folder."""
    mine = cookie_of(server)
    for place in (f"/data/jobs/{name}/figure", f"/data/jobs/x/file/{name}", f"/data/run/{name}/1"):
        status, _, text = server.ask(place, Cookie=mine)
        assert status == 404 and len(text) < 200
    assert post(server, f"/data/jobs/{name}/cancel", {}, Cookie=mine)[0] in (404, 405)


def test_an_order_over_http_is_refused_in_one_line(server):
    """Kills: a refusal that is logged with a traceback or answered with 500."""
    for path in ("/data/jobs", "/data/jobs/estimate"):
        for asked in REFUSED.values():
            status, _, answer = post(server, path, QUICK | asked)
            assert status == (422 if path == "/data/jobs" else 200)
            assert set(answer) == {"wrong"} and len(json.dumps(answer)) < 400
        assert server.ask(path, "POST", "[" * 9999, **JSON)[0] == 400
        assert server.ask(path, "POST", "[]", **JSON)[0] == 400
        assert server.ask(path, "POST", "{}", Origin="http://evil.example", **JSON)[0] == 403
    assert json.loads(server.ask("/health")[2])["jobs"] == {"running": 0, "waiting": 0}
