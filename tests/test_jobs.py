"""Recordings ordered by browsers: what is taken, real worker processes, and how they end."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from dashboards.jobs import Jobs, follow
from dashboards.worker import _Watch
from diffviz.errors import InputError
from diffviz.figures.live import STATISTICS
from diffviz.recording.request import RecordRequest
from diffviz.recording.run import Run

QUICK = {"denoiser": "gaussian", "numbers": "1,0.5", "schedule": "linear", "T": 20, "n": 30}
LONG = QUICK | {"T": 4000, "n": 20_000, "arms": ["ddpm"]}
RUN_ID = "abcdefghijklmnopqrstuvwx"


@pytest.fixture
def jobs():
    with Jobs(memory=4e9) as made:
        yield made


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return found


# ------------------------------------------------------------------ an order


def test_a_form_is_the_request_of_the_command_line(jobs):
    """Kills: fields that go nowhere; a schedule that replaces the network's own unasked."""
    form = QUICK | {"arms": ["ddim(eta=0.5)", "ddpm*1.2"], "seed": 7, "label": None, "steps": ""}
    expected = RecordRequest(
        denoiser="gaussian:1,0.5", schedule="linear", T=20, n=30, seed=7,
        arms="ddim(eta=0.5),ddpm*1.2",
    )  # fmt: skip
    assert jobs.request(form) == expected
    assert jobs.request({"denoiser": "network", "label": "hero"}).noise_schedule is None
    assert jobs.request({"denoiser": "sprites"}).denoiser == "dataset:sprites"


@pytest.mark.parametrize(
    "change",
    [
        {"denoiser": "../../etc/passwd"},
        {"denoiser": "dataset:/etc/passwd"},
        {"denoiser": "gaussian", "numbers": "1"},
        {"denoiser": "gaussian", "numbers": "nan,1"},
        {"denoiser": ["network"]},
        {"schedule": "__import__"},
        {"T": 10_001},
        {"T": 0},
        {"n": 1.5},
        {"n": True},
        {"n": 10**9},
        {"seed": -1},
        {"steps": 21},
        {"beta_end": 1.5},
        {"arms": ["ddpm"] * 9},
        {"arms": ["ddpm", "ddpm"]},
        {"arms": ["ddim(eta=2)"]},
        {"arms": "nothing"},
        {"label": "<script>"},
        {"device": "cuda"},
        {"executor": "dask://evil.example:1"},
        {"block": 10},
        {"../x": 1},
    ],
)
def test_a_wrong_order_is_refused_in_one_line(jobs, change):
    """Kills: a path, another machine or a limit that a browser can set or get round."""
    with pytest.raises(InputError) as refused:
        jobs.request(QUICK | change)
    assert len(str(refused.value).splitlines()) == 1 and len(str(refused.value)) < 300


def test_what_is_too_large_is_refused_before_it_starts():
    """Kills: an estimate that nobody compares with the limit."""
    with Jobs(memory=1e9) as jobs:
        with pytest.raises(InputError, match="memory"):
            jobs.request({"denoiser": "sprites", "n": 5000})
        jobs.memory = 1e12
        with pytest.raises(InputError, match="minutes"):
            jobs.request(QUICK | {"T": 10_000, "n": 1_000_000})


def test_a_checkpoint_is_known_by_a_number_and_never_by_its_path(tmp_path):
    """Kills: a file of the server that a browser names."""
    with pytest.raises(InputError):
        Jobs([tmp_path / "missing.safetensors"])


def test_only_so_many_may_wait(jobs, monkeypatch):
    """Kills: a line without an end."""
    monkeypatch.setattr(jobs, "line", lambda: list(range(20)))
    with pytest.raises(InputError, match="20 recordings are waiting"):
        jobs.request(QUICK)


# ------------------------------------------------------------------ recording


def test_a_recording_is_the_run_that_the_library_makes(jobs):
    """Kills: another seed or schedule in the worker; progress that goes back; curves that are
    not those of the run; an estimate of the total that is wrong.
    """
    states = list(jobs.record(RUN_ID, QUICK | {"denoiser": "sprites", "numbers": ""}, "en"))
    kinds = [state["state"] for state in states]
    assert kinds[0] == "starting" and kinds[-2:] == ["writing", "done"]
    sampled = [state for state in states if state["state"] == "sampling"]
    done = [state["done"] for state in sampled]
    assert done == sorted(done) and sampled[-1]["done"] <= sampled[-1]["total"] == 20
    assert sampled[-1]["images"].startswith("data:image/png;base64,")
    got = Run.load(jobs.folder / f"{RUN_ID}.nc")
    expected = jobs.request(QUICK | {"denoiser": "sprites", "numbers": ""}).run(progress=False)
    assert got.spec == expected.spec
    assert (got.dataset["std_between"] == expected.dataset["std_between"]).all()
    curve = next(
        trace for trace in sampled[-1]["figure"]["data"] if trace.get("meta") == ["std", 1]
    )
    std = expected.dataset["std"].sel(quantity="x").values[1]
    assert curve["y"][-1] == pytest.approx(std[len(curve["y"]) - 1], rel=1e-3)


def test_progress_counts_every_block():
    """Of 100 samples in blocks of 64, by steps. Kills: a last block that is forgotten, so that a
    recording is said to be more than whole."""

    class Step:
        times, batch = np.array([2, 1, 0]), 64
        pictures = staticmethod(lambda: np.zeros(0))
        latest = staticmethod(lambda: dict.fromkeys(STATISTICS, np.zeros(3)))

    said = []
    watch = _Watch(RecordRequest(n=100), "en", lambda state, **values: said.append(values))
    for block in range(2):
        for index in range(2):
            watch.last = 0.0
            watch(block, index, Step())
    assert [(one["done"], one["total"]) for one in said] == [(i, 4) for i in range(1, 5)]


def test_an_order_that_cannot_be_recorded_says_why(jobs):
    """Kills: a refusal that only the form makes, and that a forged order gets round."""
    (state,) = jobs.record(RUN_ID, QUICK | {"n": -1}, "en")
    assert state["state"] == "wrong" and "n is -1" in state["line"]


def test_too_little_memory_ends_the_worker_alone(jobs):
    """Kills: a limit that is not set, or that takes the server along."""
    jobs.memory = 3e9
    form = jobs.request(LONG)
    jobs.memory, jobs.request = 200e6, lambda _: form
    last = list(jobs.record(RUN_ID, LONG, "en"))[-1]
    assert last["state"] == "memory"
    assert not list(jobs.folder.glob("*.nc"))


@pytest.mark.parametrize(
    ("with_", "state"), [(signal.SIGKILL, "memory"), (signal.SIGSEGV, "crash")]
)
def test_a_worker_that_is_killed_is_said_to_be(jobs, with_, state):
    """Kills: a page that waits for ever for a process that is gone."""
    going = jobs.record(RUN_ID, LONG, "en")
    assert next(going)["state"] == "starting"
    threading.Thread(target=lambda: _signal_worker(with_), daemon=True).start()
    assert list(going)[-1]["state"] == state


class Broken(RecordRequest):
    """Fails as no user's input does."""

    def run(self, **_):
        raise RuntimeError("a bug")


def test_a_worker_that_fails_says_so(jobs):
    """Kills: an error that is swallowed, and a run said to be there that is not."""
    jobs.request = lambda _: Broken()
    assert list(jobs.record(RUN_ID, QUICK, "en"))[-1] == {"state": "crash"}


def _signal_worker(number):
    worker = until(_worker)
    time.sleep(1)
    worker.send_signal(number)


def _worker(parent=None):
    for child in (parent or psutil.Process()).children():
        if "--multiprocessing-fork" in child.cmdline():
            return child
    return None


def test_the_line_is_first_come_first_served_and_forgets_the_dead(jobs):
    """Kills: a place that a killed process keeps; more at a time than there are workers."""
    sleepers = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) for _ in range(3)]
    try:
        first, second, third = (one.pid for one in sleepers)
        assert [jobs.before(pid) for pid in (first, second, third)] == [0, 1, 2]
        assert jobs.before(third, "another") == 0
        sleepers[0].kill()
        sleepers[0].wait()
        assert [jobs.before(pid) for pid in (third, second)] == [1, 0]
        jobs.workers = 2
        assert jobs.before(third) == 0
    finally:
        for one in sleepers:
            one.kill()
            one.wait()
            one.stdin.close()


SERVER = """
import sys
from dashboards.jobs import Jobs, follow

if __name__ == "__main__":
    form = dict(denoiser="gaussian", numbers="1,0.5", T=4000, n=20000, arms=["ddpm"])
    with Jobs(memory=4e9) as jobs:
        work = lambda *_: follow(jobs, "a" * 24, form, "en", lambda state: None)
        jobs.manager.func_registry["work"] = work
        jobs.manager.begin()
        pid = jobs.manager.call_job_fn("key", work, None, None)
        print(pid, jobs.folder, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_everything_ends_with_the_server(killed):
    """Kills: a job that keeps the port of a server that is gone, and records for nobody; runs
    that others on the machine can read; a folder that stays."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        pid, _, folder = server.stdout.readline().decode().strip().partition(" ")
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        job = psutil.Process(int(pid))
        worker = until(lambda: _worker(job))
        if killed:
            server.kill()
        else:
            server.communicate(b"\n")
    until(lambda: not job.is_running())
    until(lambda: not worker.is_running())
    assert os.path.exists(folder) == killed
    shutil.rmtree(folder, ignore_errors=True)


BUSY = """
import threading
from dashboards.jobs import Jobs

def look():
    while True:
        jobs.cache["look"] = 1

with Jobs(memory=4e9) as jobs:
    work = lambda key, *_: jobs.cache.set(key, True)
    jobs.manager.func_registry["work"] = work
    jobs.manager.begin()
    threading.Thread(target=look, daemon=True).start()
    pids = [jobs.manager.call_job_fn(f"job{i}", work, None, None) for i in range(40)]
    while any(map(jobs.manager.job_running, pids)):
        pass
    print(sum(jobs.cache.get(f"job{i}", False) for i in range(40)), flush=True)
"""


def test_no_job_inherits_a_lock_of_a_busy_server():
    """Kills: jobs that are forked from a server with threads; some of them wait for ever."""
    ran = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "40", ran.stderr


def test_a_program_that_closes_nothing_ends():
    """Kills: an interpreter that waits at its end for the process that starts jobs."""
    program = "from dashboards.app import create_app; create_app({})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_state_of_a_recording_outlives_its_page(jobs):
    """Kills: a reload after which nobody knows what became of the recording."""
    told = []
    ended = follow(jobs, RUN_ID, QUICK, "zh", told.append)
    assert ended["state"] == "done" == told[-1]["state"]
    assert jobs.cache[f"state-{RUN_ID}"]["state"] == "done"
