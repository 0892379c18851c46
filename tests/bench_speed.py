"""Benchmarks, `make bench`. Each measures a ratio within one run; none asserts a time.

The ratio stands in the name's ``extra_info`` and is printed at the end of each test.
"""

import time

import numpy as np
import pytest
import scipy.stats
import torch

from diffviz.denoisers.checkpoints import load_denoiser
from diffviz.denoisers.exact import DatasetDenoiser, MixtureDenoiser
from diffviz.recording import Recorder, record
from diffviz.sampling import DEFAULT_ARMS, sample
from diffviz.schedule import NoiseSchedule
from diffviz.specs import shipped_weights
from diffviz.sprites import make_sprites
from diffviz.statistics import ks_statistic

pytestmark = pytest.mark.bench
STEPS = 40


@pytest.fixture(autouse=True)
def all_cores():
    torch.set_num_threads(max(1, torch.get_num_threads()))


def alternating(benchmark, capsys, first, second, words, rounds=5):
    """Benchmark ``first`` and say its time as a multiple of ``second``'s, run in turn."""
    times = {first: [], second: []}
    for _ in range(rounds):
        for task in (second, first):
            start = time.perf_counter()
            task()
            times[task].append(time.perf_counter() - start)
    ratio = min(times[first]) / min(times[second])
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(first, rounds=1)
    with capsys.disabled():
        print(f"\n  {words}: {ratio:.3f}")


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("arms", [1, 3])
def test_recording_beside_the_bare_loop(benchmark, capsys, batch, arms):
    denoiser = load_denoiser(shipped_weights())
    schedule, chosen = denoiser.schedule, DEFAULT_ARMS[:arms]
    assert denoiser.data is not None
    times = schedule.times()[: STEPS + 1]

    def steps():
        generator = torch.Generator().manual_seed(0)
        x_T = torch.randn(batch, 3, 16, 16, generator=generator)
        return sample(denoiser, schedule, x_T, generator, arms=chosen, times=times)

    def bare():
        for _ in steps():
            pass

    def recorded():
        shape = denoiser.sample_shape
        recorder = Recorder(
            schedule, times, arms, batch, shape, data=denoiser.data, mergeable=False
        )
        for step in steps():
            recorder.observe(step)

    words = f"recording / bare loop, batch {batch}, arms {arms}"
    alternating(benchmark, capsys, recorded, bare, words)


@pytest.mark.parametrize("n", [49_152, 1_000_000])
@pytest.mark.parametrize("other", ["scipy", "sort"])
def test_ks_beside_the_usual_way(benchmark, capsys, n, other):
    x = np.random.default_rng(0).normal(size=n).astype(np.float32)
    ways = {"scipy": lambda: scipy.stats.kstest(x, "norm"), "sort": lambda: np.sort(x)}
    words = f"ks_statistic / {other}, n = {n}"
    alternating(benchmark, capsys, lambda: ks_statistic(x), ways[other], words)


@pytest.mark.parametrize("size", [1788, 10_000])
def test_dataset_denoiser(benchmark, size):
    images, _ = make_sprites(size)
    denoiser = DatasetDenoiser(NoiseSchedule.course(), images)
    x = torch.randn(64, 3, 16, 16)
    benchmark(denoiser, x, 100)


@pytest.mark.parametrize("particles", [100_000, 1_000_000])
def test_mixture_denoiser(benchmark, particles):
    rng = np.random.default_rng(0)
    denoiser = MixtureDenoiser(
        NoiseSchedule.course(), rng.normal(size=(8, 2)) * 2, np.full(8, 0.2), np.ones(8)
    )
    benchmark(denoiser, torch.randn(particles, 2), 100)


@pytest.mark.parametrize("n", [1000, 30_000])
def test_cost_per_sample(benchmark, capsys, n):
    schedule = NoiseSchedule.course(50, 1e-3, 0.2)
    denoiser = MixtureDenoiser(schedule, [[-1.0, 0.0], [1.0, 0.0]], [0.2, 0.2], [1.0, 1.0])
    start = time.perf_counter()
    benchmark.pedantic(lambda: record(denoiser, schedule, n=n, progress=False), rounds=1)
    with capsys.disabled():
        seconds = time.perf_counter() - start
        print(f"\n  record, n = {n}: {1e6 * seconds / n:.1f} µs per sample")
