"""Blocks computed elsewhere: the same bits whoever computes them."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from diffviz.diffusion.exact import GaussianDenoiser, MixtureDenoiser
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.recording.record import record
from diffviz.recording.workers import executor

SCHEDULE = NoiseSchedule.linear(25, 1e-3, 0.2)
MIXTURE = MixtureDenoiser(SCHEDULE, [[-1.0, 0.0], [1.5, 1.0]], [0.2, 0.3], [0.7, 0.3])
ARGUMENTS = {"n": 50, "block": 8, "progress": False}


class Deadly:
    """The mixture's denoiser, whose process dies in the middle of the ``block``-th block."""

    sample_shape, schedule, law = MIXTURE.sample_shape, SCHEDULE, MIXTURE.law
    name, digest = MIXTURE.name, MIXTURE.digest

    def __init__(self, block):
        self.block = block

    def __call__(self, x, t, context=None):
        self.block -= t == SCHEDULE.T
        if self.block < 0 and t == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return MIXTURE(x, t)


@pytest.fixture(scope="module")
def here():
    return record(MIXTURE, SCHEDULE, **ARGUMENTS)


@pytest.fixture(scope="module")
def processes():
    with executor("processes:2") as workers:
        yield workers


def test_processes_give_the_bits_of_this_process(here, processes):
    """Kills: a seed that belongs to a worker, results merged as they arrive."""
    assert record(MIXTURE, SCHEDULE, executor=processes, **ARGUMENTS) == here


def test_an_error_in_a_worker_is_the_error_here(processes):
    """The step is named as in this process. Kills: a traceback of the pool instead."""
    with pytest.raises(InputError, match=r"not finite at t = 7"):
        record(_broken_at_seven, SCHEDULE, sample_shape=(2,), executor=processes, **ARGUMENTS)


def test_threads_give_the_same_bits_and_keep_the_settings(here):
    """Kills: a number of torch threads that is changed for the whole process."""
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert record(MIXTURE, SCHEDULE, executor=pool, **ARGUMENTS) == here
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_killed_worker_is_one_line_and_its_finished_blocks_are_kept(here, tmp_path):
    """Resumed here they give the same run. Kills: a pool's traceback, a recording that hangs."""
    out = tmp_path / "run.nc"
    # Each task unpickles the denoiser anew, so only a pool of threads would count its blocks.
    with executor("processes:1") as pool:
        submit, count = pool.submit, iter(range(9))
        pool.submit = lambda f, job, block: submit(
            f, replace(job, denoiser=Deadly(0)) if next(count) == 3 else job, block
        )
        with pytest.raises(InputError, match=r"a worker was lost .* when 3 of 7 blocks were done"):
            record(MIXTURE, SCHEDULE, executor=pool, out=out, **ARGUMENTS)
    assert record(MIXTURE, SCHEDULE, out=out, resume=True, **ARGUMENTS) == here


def _broken_at_seven(x, t, context=None):
    return x * float("nan") if t == 7 else x * 0.5


def test_ctrl_c_keeps_finished_blocks_and_leaves_no_process(tmp_path):
    """SIGINT to the whole group, as a terminal sends it: status 130, one line, blocks kept, and
    resuming in this process gives the undisturbed run. Kills: workers that go on."""
    out, partial = tmp_path / "run.nc", tmp_path / "run.nc.partial"
    command = [sys.executable, "-m", "diffviz.cli", "record", "--denoiser", "gaussian:1,0.5"]
    command += ["--n", "5000", "--block", "500", "--T", "100", "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--executor", "processes:1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not partial.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and partial.exists()
    assert "Traceback" not in said and "--resume" in said
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    schedule = NoiseSchedule.course(100)
    given = GaussianDenoiser(schedule, 1, 0.5), schedule
    options = {"n": 5000, "block": 500, "progress": False}
    assert record(*given, out=out, resume=True, **options) == record(*given, **options)


@pytest.mark.parametrize(
    "text", ["", "processes", "processes:0", "processes:x", "dask", "dask://", "dask://h", "ray:2"]
)
def test_executors_that_mean_nothing_are_named(text):
    with pytest.raises(InputError, match="allowed: processes:N"), executor(text):
        pass


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("diffviz.recording.workers.PATIENCE", 0.5)
    with (
        pytest.raises(InputError, match="no Dask scheduler answers there"),
        executor("dask://127.0.0.1:9"),
    ):
        pass


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_gives_the_same_bits(here):
    """Kills: a job that only this process can compute."""
    distributed = pytest.importorskip("distributed")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    options = {"dashboard_address": None, "silence_logs": "CRITICAL", "threads_per_worker": 1}
    with distributed.LocalCluster(n_workers=1, **options) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        with executor(f"dask://{address}") as workers:
            assert record(MIXTURE, SCHEDULE, executor=workers, **ARGUMENTS) == here
