"""Benchmarks, `make bench`: each compares two ways in one process, in turn, and none asserts.

Ways made of many pieces, such as the steps of a loop, alternate piece by piece; of every piece the
quickest of all rounds counts, so a busy neighbour disturbs little. With one torch thread the time
is the process's CPU time, with more the wall's. ``DIFFVIZ_BENCH=FILE`` makes the table of that
page, between its two marks, from what was measured.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from diffviz.diffusion.checkpoints import load_denoiser
from diffviz.diffusion.exact import DatasetDenoiser, MixtureDenoiser
from diffviz.diffusion.names import shipped_weights
from diffviz.diffusion.rules import Arm, ddpm
from diffviz.diffusion.sampler import sample
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.identify import zoo
from diffviz.identify.xray import xray
from diffviz.measure.ks import ks_statistic
from diffviz.recording.record import record
from diffviz.recording.recorder import Recorder
from diffviz.recording.workers import executor
from diffviz.report import write_report
from diffviz.sprites.make import make_sprites

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore")]
CORES = os.cpu_count() or 1
THREADS = sorted({1, CORES})
SHAPE = (3, 16, 16)
Pieces = Callable[[], Iterator[None]]


class Table:
    """Rows of (what, beside what, this, that, ratio, aim)."""

    HEAD = ("what", "compared with", "this", "that", "ratio", "aim")

    def __init__(self, say: Callable[[str], object]) -> None:
        self.rows: dict[tuple[str, str], tuple[str, ...]] = {}
        self.say = say

    def add(
        self, what: str, this: str, beside: str = "", that: str = "", ratio="", aim: str = ""
    ) -> None:
        shown = ratio if isinstance(ratio, str) else f"{ratio:.3g}"
        self.rows[what, beside] = (what, beside, this, that, shown, aim)
        self.say("  " + " | ".join(self.rows[what, beside]))

    def read(self, text: str) -> None:
        for line in text.splitlines():
            if line.startswith("| ") and not line.startswith(("| what |", "| --- |")):
                row = tuple(cell.strip() for cell in line.strip("|").split(" | "))
                self.rows[row[0], row[1]] = row

    def text(self) -> str:
        lines = [" | ".join(row) for row in (self.HEAD, ("---",) * 6, *self.rows.values())]
        return "\n".join(f"| {line} |" for line in lines)

    def write(self, page: Path, load: float) -> None:
        """Put the table between the two marks of the page."""
        start, end = "<!-- made by make bench -->\n", "<!-- end -->"
        before, rest = page.read_text(encoding="utf-8").split(start)
        after = rest.split(end)[1]
        text = f"{before}{start}\n{_conditions(load)}\n\n{self.text()}\n\n{end}{after}"
        page.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def measured(request):
    say = request.config.pluginmanager.get_plugin("terminalreporter").write_line
    found = Table(say)
    target = os.environ.get("DIFFVIZ_BENCH")
    if target and request.config.option.keyword:  # a part is measured again, the rest stays
        found.read(Path(target).read_text(encoding="utf-8"))
    return found, os.getloadavg()[0]


@pytest.fixture
def table(measured):
    """The table; what a benchmark adds stands in the page as soon as that benchmark has ended."""
    found, load = measured
    yield found
    if target := os.environ.get("DIFFVIZ_BENCH"):
        found.write(Path(target), load)


def _conditions(load: float) -> str:
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        model = next((s.split(":")[1].strip() for s in lines if s.startswith("model name")), model)
    names = ("torch", "numpy", "scipy", "diffusers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    now = os.getloadavg()[0]
    quiet = max(load, now - CORES) < 0.5
    state = "otherwise idle" if quiet else "shared with other work, so times are too long"
    return (
        f"{model}, {CORES} cores, {state} (load {load:.1f} before and {now:.1f} after). "
        f"Python {platform.python_version()}, {versions}. CPU: time of the process with one torch "
        f"thread; wall: with {CORES}."
    )


@pytest.fixture(params=THREADS, ids=lambda n: f"{n}-threads")
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


def clock(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


def in_turn(benchmark, ways: list[Pieces], rounds: int, now=time.process_time) -> list[float]:
    """Seconds of each way: its pieces' quickest, summed."""
    best: list[np.ndarray] = []

    def turn() -> None:
        running = [way() for way in ways]
        taken: list[list[float]] = [[] for _ in ways]
        going = list(range(len(ways)))
        while going:
            for i in list(going):
                start = now()
                try:
                    next(running[i])
                except StopIteration:
                    going.remove(i)
                taken[i].append(now() - start)
        for i, times in enumerate(taken):
            if len(best) <= i:
                best.append(np.array(times))
            best[i] = np.minimum(best[i], times)

    benchmark.pedantic(turn, rounds=rounds, warmup_rounds=1)
    seconds = [float(times.sum()) for times in best]
    benchmark.extra_info["seconds"] = seconds
    return seconds


def once(task: Callable[[], object]) -> Pieces:
    """A way of one piece."""

    def pieces() -> Iterator[None]:
        task()
        yield

    return pieces


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


@pytest.fixture(scope="module")
def network():
    denoiser = load_denoiser(shipped_weights())
    assert denoiser.law is not None
    return denoiser


def start(batch: int) -> tuple[torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, *SHAPE, generator=generator), generator


def whole_finish(network, batch: int) -> float:
    """CPU seconds that the end of a block of all T steps takes, whatever its network."""
    schedule = network.schedule
    times = schedule.times()
    recorder = Recorder(schedule, times, 3, batch, SHAPE, law=network.law, mergeable=False)
    x_T, generator = start(batch)
    for step in sample(lambda x, t, context=None: 0.1 * x, schedule, x_T, generator):
        recorder.observe(step)
    begun = time.process_time()
    recorder.finish(step.x_next)
    return time.process_time() - begun


@pytest.mark.parametrize(("batch", "steps", "aim"), [(1, 120, "≤ 1.10"), (64, 10, "≤ 1.10")])
def test_recording_beside_bare_forwards(benchmark, table, network, threads, batch, steps, aim):
    """Three arms, every statistic, and a share of what the end of a block costs."""
    schedule = network.schedule
    times = schedule.times()

    def recorded() -> Iterator[None]:
        recorder = Recorder(schedule, times, 3, batch, SHAPE, law=network.law, mergeable=False)
        for step in islice(sample(network, schedule, *start(batch)), steps):
            recorder.observe(step)
            yield

    def bare() -> Iterator[None]:
        x, _ = start(3 * batch)
        for t in times[:steps]:
            network(x, int(t))
            yield

    this, that = in_turn(benchmark, [recorded, bare], 3, clock(threads))
    this = this / steps + whole_finish(network, batch) / schedule.T
    that /= steps
    kind = "CPU" if threads == 1 else "wall"
    what = f"recording, 3 arms, batch {batch}, a step ({kind})"
    table.add(what, ms(this), "bare forwards", ms(that), this / that, aim)


@pytest.mark.parametrize(("batch", "steps"), [(1, 120), (64, 10)])
def test_sampling_beside_diffusers(benchmark, table, network, batch, steps):
    from diffusers import DDPMScheduler

    schedule, arm = network.schedule, [Arm("ddpm", ddpm())]

    def ours() -> Iterator[None]:
        for _ in islice(sample(network, schedule, *start(batch), arms=arm), steps):
            yield

    def theirs() -> Iterator[None]:
        scheduler = DDPMScheduler(500, 1e-4, 0.02, clip_sample=False, variance_type="fixed_large")
        scheduler.set_timesteps(500)
        x, generator = start(batch)
        for t in scheduler.timesteps[:steps]:
            x = scheduler.step(network(x, int(t) + 1), t, x, generator=generator).prev_sample
            yield

    this, that = (s / steps for s in in_turn(benchmark, [ours, theirs], 3))
    what = f"sampling, 1 arm, batch {batch}, a step (CPU)"
    table.add(what, ms(this), "diffusers' DDPMScheduler", ms(that), this / that, "≤ 1")


@pytest.mark.parametrize("law", ["N(0, 1)", "tanh 3·N(0, 1)"])
def test_ks_beside_scipy(benchmark, table, law):
    z = np.random.default_rng(0).normal(size=49_152).astype(np.float32)
    x = z if law == "N(0, 1)" else np.tanh(3 * z)
    ways = [lambda: ks_statistic(x), lambda: scipy.stats.kstest(x, "norm")]
    ours, scipys = in_turn(benchmark, [once(way) for way in ways], 30)
    what = f"ks_statistic, n = 49,152, {law}"
    table.add(what, ms(ours), "scipy.stats.kstest", ms(scipys), ours / scipys, "≤ 0.125")


@pytest.mark.parametrize("size", [1788, 10_000])
def test_dataset_denoiser(benchmark, table, size):
    images, _ = make_sprites(size)
    denoiser = DatasetDenoiser(NoiseSchedule.course(), images)
    points = denoiser.law.points.reshape(size, -1).astype(np.float64)
    x, bar = torch.randn(64, *SHAPE), denoiser.schedule.alpha_bars[100]

    def naive() -> None:
        for sample_ in x.numpy().reshape(64, -1):
            logits = -((sample_ - np.sqrt(bar) * points) ** 2).sum(axis=1) / 2 / (1 - bar)
            weights = np.exp(logits - logits.max())
            (sample_ - np.sqrt(bar) * weights @ points / weights.sum()) / np.sqrt(1 - bar)

    this, that = in_turn(benchmark, [once(lambda: denoiser(x, 100)), once(naive)], 2)
    what = f"exact denoiser of {size:,} images, batch 64 (CPU)"
    table.add(what, ms(this), "the formula in numpy", ms(that), this / that)


@pytest.mark.parametrize("particles", [100_000, 1_000_000])
def test_mixture_denoiser(benchmark, table, particles):
    rng = np.random.default_rng(0)
    means, std = rng.normal(size=(8, 2)) * 2, 0.2
    schedule = NoiseSchedule.course()
    denoiser = MixtureDenoiser(schedule, means, np.full(8, std), np.ones(8))
    x, bar = torch.randn(particles, 2), schedule.alpha_bars[100]

    def naive() -> None:
        variance = bar * std**2 + 1 - bar
        offsets = x.double().numpy()[:, None] - np.sqrt(bar) * means
        logits = -(offsets**2).sum(axis=-1) / 2 / variance
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        (weights[:, :, None] * offsets).sum(axis=1) * (np.sqrt(1 - bar) / variance)

    this, that = in_turn(benchmark, [once(lambda: denoiser(x, 100)), once(naive)], 3)
    what = f"exact denoiser of 8 modes, {particles:,} particles (CPU)"
    table.add(what, ms(this), "the formula in numpy", ms(that), this / that)


def test_two_workers_beside_one(benchmark, table, network):
    """Started before, as their start is no matter of a long recording."""

    def seconds(count: int) -> float:
        with executor(f"processes:{count}") as pool:
            arguments = {"block": 16, "executor": pool, "progress": False}
            record(network, network.schedule, n=32, steps=2, **arguments)
            begun = time.perf_counter()
            record(network, network.schedule, n=128, steps=20, **arguments)
            return time.perf_counter() - begun

    one, two = benchmark.pedantic(lambda: (seconds(1), seconds(2)), rounds=1)
    what = "two processes, 8 blocks of the shipped network (wall)"
    table.add(what, f"{two:.3g} s", "one", f"{one:.3g} s", two / one, "≤ 0.59")


def test_xray_beside_the_loop_alone(benchmark, table):
    """Of the tutorial's loop, 500 steps: what is found out beside the loop with a small model."""
    schedule = NoiseSchedule.course()
    program = next(iter(zoo.programs().values()))
    loop = zoo.sampler(program.source, schedule)

    def alone() -> None:
        loop(lambda x, t, *_: 0.1 * x, (64, *SHAPE))

    ways = [once(lambda: xray(loop, schedule)), once(alone)]
    this, that = in_turn(benchmark, ways, 2)
    what = f"x-ray of {program.name}, T = 500 (CPU)"
    table.add(what, f"{this:.3g} s", "one run of its loop", f"{that:.3g} s", this / that)


@pytest.fixture(scope="module")
def run():
    images, labels = make_sprites(500)
    classes = ("hero", "non-hero", "food", "spell", "side-facing")
    schedule = NoiseSchedule.course()
    return record(
        DatasetDenoiser(schedule, images, labels, classes), schedule, n=16, progress=False
    )


def test_report(benchmark, table, run, tmp_path):
    page = tmp_path / "report.html"
    (this,) = in_turn(benchmark, [once(lambda: write_report(run, page))], 2)
    megabytes = page.stat().st_size / 1e6
    table.add("report of 16 sprites, T = 500 (CPU)", f"{this:.3g} s")
    table.add("its weight", f"{megabytes:.3g} MB", "at most", "6 MB", megabytes / 6, "≤ 1")


def test_first_picture(benchmark, table, run, tmp_path):
    """From opening the report's file to the first figure on the screen, in Chromium."""
    from playwright.sync_api import sync_playwright

    from tests.browser import FLAGS, find_chromium

    path = tmp_path / "report.html"
    write_report(run, path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)

        def opened() -> float:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            begun = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_selector("canvas, .main-svg", state="visible")
            seconds = time.perf_counter() - begun
            page.close()
            return seconds

        this = min(benchmark.pedantic(lambda: [opened() for _ in range(3)], rounds=1))
        browser.close()
    table.add(
        "first picture of the report (wall)",
        f"{this:.3g} s",
        "at most",
        "1.5 s",
        this / 1.5,
        "≤ 1",
    )


def test_whole_test_run(benchmark, table):
    """What `make test` runs, as it runs it, if ``DIFFVIZ_BENCH_TESTS`` asks for it: minutes."""
    if not os.environ.get("DIFFVIZ_BENCH_TESTS"):
        pytest.skip("DIFFVIZ_BENCH_TESTS is not set")
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(CORES)]

    def minutes() -> float:
        begun = time.perf_counter()
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - begun) / 60

    this = benchmark.pedantic(minutes, rounds=1)
    table.add("the whole test run (wall)", f"{this:.2g} min", "at most", "6 min", this / 6, "≤ 1")


def test_scrubbing(benchmark, table, run, tmp_path):
    """A key a frame for two seconds, in Chromium; a display shows 60 frames a second."""
    from playwright.sync_api import sync_playwright

    from tests.browser import FLAGS, find_chromium

    path = tmp_path / "run.nc"
    run.save(path)
    command = [sys.executable, "-m", "diffviz.cli", "dashboard", str(path), "--port", "8093"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    script = """() => new Promise((done) => {
        const begun = performance.now(); let left = 120
        const frame = () => {
            if (!left--) return done((performance.now() - begun) / 120)
            document.body.dispatchEvent(
                new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))
            requestAnimationFrame(frame)
        }
        requestAnimationFrame(frame)
    })"""
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            end = time.monotonic() + 60
            while True:
                try:
                    page.goto("http://127.0.0.1:8093/?t=500")
                    break
                except Exception:
                    assert time.monotonic() < end
                    time.sleep(0.2)
            page.wait_for_selector(".main-svg", state="visible")
            frames = []
            for _ in range(3):
                page.keyboard.press("Home")
                frames.append(
                    benchmark.pedantic(page.evaluate, (script,), rounds=1) / 1e3
                    if not frames
                    else page.evaluate(script) / 1e3
                )
                where = "document.querySelector('#player').style.getPropertyValue('--t')"
                assert float(page.evaluate(where)) > 0
            browser.close()
    finally:
        server.terminate()
        server.wait(10)
    this = min(frames)
    table.add(
        "scrubbing the dashboard, a frame", ms(this), "60 Hz", ms(1 / 60), this * 60, "≤ 1.2"
    )
