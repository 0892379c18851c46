"""Blocks computed elsewhere: the same bits whoever computes them, whoever is lost meanwhile."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from diffviz.diffusion.exact import GaussianDenoiser, MixtureDenoiser
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.recording.record import record
from diffviz.recording.workers import ProcessWorkers, executor

SCHEDULE = NoiseSchedule.linear(25, 1e-3, 0.2)
MIXTURE = MixtureDenoiser(SCHEDULE, [[-1.0, 0.0], [1.5, 1.0]], [0.2, 0.3], [0.7, 0.3])
ARGUMENTS = {"n": 50, "block": 8, "progress": False}


class Deadly:
    """The mixture's denoiser, whose process dies in the middle of a block.

    The first ``times`` calls at t = 13 kill; each leaves a file in ``folder``, so that all
    processes know of it.
    """

    sample_shape, schedule, law = MIXTURE.sample_shape, SCHEDULE, MIXTURE.law
    name, digest = MIXTURE.name, MIXTURE.digest

    def __init__(self, folder, times):
        self.folder, self.times = str(folder), times

    def __call__(self, x, t, context=None):
        if t == 13:
            for i in range(self.times):
                with suppress(FileExistsError):
                    os.close(os.open(f"{self.folder}/death-{i}", os.O_CREAT | os.O_EXCL))
                    os.kill(os.getpid(), signal.SIGKILL)
        return MIXTURE(x, t)


class Slow(Deadly):
    """The mixture's denoiser, which takes its time; a file in ``folder`` tells that it began."""

    def __call__(self, x, t, context=None):
        (Path(self.folder) / "asked").touch()
        time.sleep(0.01)
        return MIXTURE(x, t)


@pytest.fixture(scope="module")
def here():
    return record(MIXTURE, SCHEDULE, **ARGUMENTS)


@pytest.fixture(scope="module")
def processes():
    with executor("processes:2") as workers:
        yield workers


def test_processes_give_the_bits_of_this_process(here, processes):
    """And tell of every step. Kills: a seed that belongs to a worker, results merged as they
    arrive."""
    before = processes.steps()
    assert record(MIXTURE, SCHEDULE, executor=processes, **ARGUMENTS) == here
    assert processes.steps() - before == 7 * 25


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


def test_a_killed_process_is_replaced_and_its_block_computed_again(here, tmp_path):
    """One death by SIGKILL. Kills: a pool left broken, a block lost or counted twice."""
    with ProcessWorkers(1) as workers:
        run = record(Deadly(tmp_path, 1), SCHEDULE, executor=workers, **ARGUMENTS)
    assert len(list(tmp_path.iterdir())) == 1
    assert run == here


def test_a_block_that_kills_every_worker_is_named(tmp_path, monkeypatch):
    """Kills: an endless loop of new processes."""
    monkeypatch.setattr("diffviz.recording.record.LOSSES", 1)
    words = "a worker was lost 2 times at block 1 of 7"
    with ProcessWorkers(1) as workers, pytest.raises(InputError, match=words):
        record(Deadly(tmp_path, 99), SCHEDULE, executor=workers, **ARGUMENTS)


def _broken_at_seven(x, t, context=None):
    return x * float("nan") if t == 7 else x * 0.5


def test_ctrl_c_keeps_finished_blocks_and_leaves_no_process(tmp_path):
    """SIGINT to the whole group, as a terminal sends it: status 130, one line, blocks kept, and
    resuming in this process gives the undisturbed run. Kills: workers that go on."""
    out = tmp_path / "run.nc"
    command = [sys.executable, "-m", "diffviz.cli", "record", "--denoiser", "gaussian:1,0.5"]
    command += ["--n", "40000", "--block", "1000", "--T", "100", "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--executor", "processes:1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    partial = tmp_path / "run.nc.partial"
    deadline = time.monotonic() + 120
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
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    from diffviz.recording.run import Run

    schedule = NoiseSchedule.course(100)
    whole = record(
        GaussianDenoiser(schedule, 1, 0.5), schedule, n=40000, block=1000, progress=False
    )
    assert Run.load(out) == whole


@pytest.mark.parametrize(
    "text", ["", "processes", "processes:0", "processes:x", "dask", "dask://", "dask://h", "ray:2"]
)
def test_executors_that_mean_nothing_are_named(text):
    with pytest.raises(InputError, match="allowed: processes:N"):
        executor(text)


def test_a_cluster_that_is_not_there_is_named():
    pytest.importorskip("distributed")
    from diffviz.recording.workers import DaskWorkers

    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        DaskWorkers("127.0.0.1:9", timeout=0.5)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
    ) as cluster:
        yield cluster


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_gives_the_same_bits_and_outlives_a_worker(here, cluster, tmp_path):
    """Two workers, then one of them killed in the middle of a block. Kills: a job that is lost
    with its holder."""
    address = cluster.scheduler_address.removeprefix("tcp://")
    with executor(f"dask://{address}") as workers:
        assert workers.count == 2
        assert record(MIXTURE, SCHEDULE, executor=workers, **ARGUMENTS) == here
        run = record(Deadly(tmp_path, 1), SCHEDULE, executor=workers, **ARGUMENTS)
    assert len(list(tmp_path.iterdir())) == 1
    assert run == here
    assert np.isfinite(run.dataset["samples"]).all()


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_outlives_the_loss_of_all_its_workers(here, cluster, tmp_path):
    """Both killed at once, and the job with them. Kills: blocks cancelled for want of the job."""
    pids = [worker.process.process.pid for worker in cluster.workers.values()]

    def kill():
        while not (tmp_path / "asked").exists():
            time.sleep(0.01)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    address = cluster.scheduler_address.removeprefix("tcp://")
    with executor(f"dask://{address}") as workers:
        run = record(Slow(tmp_path, 0), SCHEDULE, executor=workers, **ARGUMENTS)
    killer.join()
    assert run == here
