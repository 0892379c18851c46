r"""Recording: steps are folded into a tally block by block, blocks into a run.

The block is the unit of batch, seed, task and durability. Block k draws x_T and z from
``SeedSequence([seed, k])`` alone, so it is the same whoever computes it and whenever, and blocks
are merged in their order: sharing them out differently cannot change a run.

The residual r_t = (x_t − √ᾱ_t x_0)/√(1−ᾱ_t) needs the trajectory's own end point, so a block keeps
its trajectory until it ends, on a fixed random subset of coordinates within ``MEMORY``.
"""

import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from diffviz.diffusion.denoiser import Denoiser, describe, on_device, restarted
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, check_arms, coefficient_table
from diffviz.diffusion.sampler import Step, check_device, sample
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, NonfiniteError, RunFileError
from diffviz.files.atomic import check_writable
from diffviz.measure.statistics import BUCKETS, CELLS, Moments, Spread, fitting_buckets
from diffviz.recording.block import Description, OnHost, Values, on_host, statistics_on
from diffviz.recording.checks import CALLS, SAMPLES, Answers, compare_answers
from diffviz.recording.dataset import assemble
from diffviz.recording.nonfinite import Guard
from diffviz.recording.run import Run, RunSpec, array_digest, check_words
from diffviz.recording.tally import BINS, FRAMED, MAPPED, QUANTITIES, SNAPSHOT_UNIT, Tally
from diffviz.recording.workers import LOSSES, Workers, hold_memory, worker_progress

MEMORY = 64 * 2**20
"""Bytes that a block may keep of its trajectories."""
SHOWN = 16 * 2**20
"""Bytes that the plane and the frames of a block may take, each."""
FRAMES = 250
MAX_DIMENSIONS = 16
MAX_MEMORY = 2**34
"""Bytes that one block may need in all."""
MAX_COORDINATES = 4096
"""Coordinates on which the spread between samples is followed."""

MIN_SAMPLED = 33 * CALLS * SAMPLES
"""Answers that a run needs for a question to the denoiser itself to be worth its time."""
MOMENTS = ("n", "mean", "m2", "m3", "m4")

Array = NDArray[np.float64]


class Recorder:
    """Folds the steps of one block of A arms into a `Tally`.

    Call ``observe`` with every step from t = T on, then ``finish`` with the end points. A tally
    that will stay alone need not be ``mergeable``. Steps are copied and described several at a
    time, so that small samples do not pay for many small calls. On another device than the CPU
    they are described there, and nothing waits for it before ``finish`` or ``latest``.

    Args:
        schedule: gives ᾱ_t of the residual and of q(x_t).
        times: (S+1,), falling from T to 0, all that will be visited.
        arms: A.
        batch: samples per arm, B.
        sample_shape: D.
        data: the law of the data, for the references.
        keep: how many samples are kept as they are.
        mergeable: whether the tally will be merged with others.
        device: where the steps' tensors lie.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        times: NDArray[np.int64],
        arms: int,
        batch: int,
        sample_shape: tuple[int, ...],
        *,
        data: DataLaw | None = None,
        keep: int = 64,
        mergeable: bool = True,
        device: str = "cpu",
    ) -> None:
        self.schedule, self.times, self.data = schedule, times, data
        self.sample_shape, self.batch = sample_shape, batch
        self.keep = min(keep, batch)
        self.edges = bin_edges(data)
        points, size = len(times), int(np.prod(sample_shape))
        rng = np.random.default_rng(0)  # one fixed choice for all blocks of all runs
        followed = MEMORY // (4 * arms * points)
        chosen = max(1, min(size, followed // batch))
        traced = np.sort(rng.choice(size, chosen, replace=False))
        self._rows = max(1, min(batch, followed // chosen))
        self._coordinates = np.arange(size)
        if size > MAX_COORDINATES:
            self._coordinates = np.sort(rng.choice(size, MAX_COORDINATES, replace=False))
        # Counts in cells are for merging, and most of a tally's memory. What merges must meet on
        # one grid; what stays alone takes the one that costs least.
        width = CELLS if mergeable else 0
        buckets = BUCKETS if mergeable else fitting_buckets(batch * size)
        self._on = statistics_on(device, buckets, mergeable, self.edges, data)
        counts = np.uint16 if batch * size < 2**16 else np.uint32
        quantities = (arms, len(QUANTITIES), points)
        self._moments = Moments.empty(quantities)
        self._ks = np.full(quantities, np.nan)
        self._cells = np.zeros((*quantities, width), dtype=counts)
        self._histogram = np.zeros((*quantities, BINS), dtype=np.uint32)
        self._ks_marginal = np.full((arms, points), np.nan)
        self._marginal_cells = np.zeros((arms, points, width), dtype=counts)
        self._pixel_mean = np.empty((arms, points, len(self._coordinates)))
        self._pixel_m2 = np.empty_like(self._pixel_mean)
        self._within = np.empty((arms, points))
        self._noise = Moments.empty((points - 1,))
        self._noise_ks = np.full(points - 1, np.nan)
        self._noise_cells = np.zeros((points - 1, width), dtype=counts)
        self._shown = {int(t): i for i, t in enumerate(snapshot_times(times))}
        shown = (arms, len(self._shown), self.keep, *sample_shape)
        self._snapshots = np.empty(shown, dtype=np.int16)
        self._plane = self._directions = None
        if data is not None and data.plane is not None:
            few = min(batch, MAPPED, max(1, SHOWN // (8 * arms * points)))
            self._plane = np.empty((arms, points, few, 2), dtype=np.float32)
            directions = data.plane[0].astype(np.float32)
            self._directions = torch.from_numpy(directions).to(device)
        framed = frame_times(times, arms, sample_shape)
        self._framed = {int(t): i for i, t in enumerate(framed)}
        few = min(batch, FRAMED, max(1, SHOWN // max(arms * size * len(framed), 1)))
        frames = (arms, len(framed), few if len(framed) else 0, *sample_shape)
        self._frames = np.zeros(frames, dtype=np.uint8)
        self._later: list[tuple[Callable[..., None], Sequence[object]]] = []

        together = max(1, min(points - 1, self._on.together // (arms * batch * size)))
        self._x = torch.empty((together, arms, batch * size), device=device)
        self._eps = torch.empty_like(self._x)
        self._z = torch.empty((together, 1, batch * size), device=device)
        self._trace = torch.empty((points, arms, self._rows, chosen), device=device)
        self._traced = None if chosen == size else torch.from_numpy(traced).to(device)
        self._described = self._waiting = 0

    def observe(self, step: Step) -> None:
        """Take in what one ``step`` was given and what it drew."""
        k = self._waiting
        for kept, values in ((self._x, step.x), (self._eps, step.eps), (self._z, step.z)):
            kept[k].copy_(values.detach().reshape(kept.shape[1:]))
        self._waiting += 1
        if self._waiting == len(self._x):
            self._describe_waiting()

    def latest(self) -> dict[str, Array]:
        """The step taken in last, per arm (A,): what needs no end point, NaN where unknown."""
        self._describe_waiting()
        self._settle()
        i, x, eps = self._described - 1, QUANTITIES.index("x"), QUANTITIES.index("eps")
        batch = np.array(float(self.batch))
        between = Spread(batch, self._pixel_mean[:, i], self._pixel_m2[:, i]).std
        moments = self._moments
        return {
            "mean": moments.mean[:, x, i],
            "std": moments.std[:, x, i],
            "std_between": np.sqrt((between**2).mean(axis=-1)),
            "ks_normal": self._ks[:, x, i],
            "ks_marginal": self._ks_marginal[:, i],
            "eps_std": moments.std[:, eps, i],
        }

    def pictures(self) -> NDArray[np.uint8]:
        """The newest frame of every arm, (A, samples, *D), after ``latest``; empty without any."""
        reached = self.times[max(self._described - 1, 0)]
        index = max((i for t, i in self._framed.items() if t >= reached), default=0)
        return self._frames[:, index : index + 1].reshape(
            len(self._frames), -1, *self.sample_shape
        )

    def finish(self, x_0: Tensor) -> Tally:
        """The block's tally, given its end points ``x_0`` (A, B, *D)."""
        self._describe_waiting()
        end = x_0.detach().to(self._x).reshape(1, *self._x.shape[1:])
        self._states(end, slice(self._described, self._described + 1))
        self._residuals()
        self._settle()
        ends = x_0.detach().to("cpu", torch.float32).numpy()
        nearest, hits, class_counts = _nearest(ends, self.data)
        return Tally(
            blocks=1,
            n=self.batch,
            moments=self._moments,
            ks=self._ks,
            cells=self._cells,
            histogram=self._histogram,
            ks_marginal=self._ks_marginal,
            marginal_cells=self._marginal_cells,
            pixels=Spread(np.array(float(self.batch)), self._pixel_mean, self._pixel_m2),
            coordinates=self._coordinates,
            within=self._within,
            noise=self._noise,
            noise_ks=self._noise_ks,
            noise_cells=self._noise_cells,
            snapshots=self._snapshots,
            plane=np.empty((len(ends), len(self.times), 0, 2), np.float32)
            if self._plane is None
            else self._plane,
            frames=self._frames,
            samples=ends[:, : self.keep],
            nearest=nearest,
            hits=hits,
            class_counts=class_counts,
            ends=np.full(len(ends), len(self.times) - 1),
        )

    # ------------------------------------------------------------------ describing

    def _describe_waiting(self) -> None:
        count = self._waiting
        if not count:
            return
        steps = slice(self._described, self._described + count)
        self._states(self._x[:count], steps)
        self._describe(self._on.values(self._eps[:count]), "eps", steps)
        z = self._on.values(self._z[:count])
        self._keep(self._store_noise, steps, self._on.describe(z, self._on.wide(z)))
        self._described += count
        self._waiting = 0

    def _states(self, x: Tensor, steps: slice) -> None:
        """Everything about x_t at several times, ``x`` (times, A, values)."""
        count, arms, _ = x.shape
        samples = x.reshape(count, arms, self.batch, -1)
        traced = samples[:, :, : self._rows]
        if self._traced is None:
            self._trace[steps] = traced
        else:
            torch.index_select(traced, 3, self._traced, out=self._trace[steps])
        if self._plane is not None and self._directions is not None:
            few = samples[:, :, : self._plane.shape[2], None]
            self._keep(self._store_plane, steps, self._on.values((few * self._directions).sum(-1)))
        for i, t in enumerate(self.times[steps].tolist()):
            if t in self._framed:
                few = samples[i, :, : self._frames.shape[2]].clamp(-1, 1)
                pixels = few.add(1).mul(127.5).round().to(torch.uint8)
                self._keep(self._store_frame, t, self._on.values(pixels))
            if t in self._shown:
                shown = samples[i, :, : self.keep].clone()
                self._keep(self._store_snapshot, t, self._on.values(shown))
        values = self._on.values(x)
        coordinates = self._coordinates if samples.shape[-1] > len(self._coordinates) else None
        for group in self._groups(x.shape):
            wide = self._describe(values[:, group], "x", steps, group)
            apart = wide.reshape(count, -1, self.batch, samples.shape[-1])
            self._keep(self._store_spreads, group, steps, *self._on.spreads(apart, coordinates))
        if self.data is None:
            return
        bars = self.schedule.alpha_bars[self.times[steps]]
        for chosen, distance, cells in self._on.marginal(values, bars):
            here = slice(steps.start + chosen.start, steps.start + chosen.stop)
            self._keep(self._store_marginal, here, distance, cells)

    def _residuals(self) -> None:
        bars = self.schedule.alpha_bars[self.times[:-1]]
        trace = self._on.values(self._trace.reshape(*self._trace.shape[:2], -1))
        end = self._on.wide(trace[-1])
        together = max(1, self._on.together // (end.shape[0] * end.shape[1]))
        for first in range(0, len(bars), together):
            steps = slice(first, min(first + together, len(bars)))
            values, wide = self._on.residual(trace[steps], end, bars[steps])
            for group in self._groups(values.shape):
                self._describe(values[:, group], "residual", steps, group, wide[:, group])

    def _describe(
        self,
        values: Values,
        quantity: str,
        steps: slice,
        arms: slice | None = None,
        wide: Values | None = None,
    ) -> Values:
        """Describe ``values`` (times, arms, n) in float32; gives them in float64."""
        if arms is None:
            for group in self._groups(values.shape):
                self._describe(values[:, group], quantity, steps, group)
            return None
        wide = self._on.wide(values) if wide is None else wide
        index = (arms, QUANTITIES.index(quantity), steps)
        self._keep(self._store, index, self._on.describe(values, wide))
        return wide

    def _groups(self, shape: Sequence[int]) -> list[slice]:
        """All arms at once, or one by one when that many values leave the fast caches."""
        steps, arms, n = shape
        if steps * arms * n <= self._on.together:
            return [slice(0, arms)]
        return [slice(a, a + 1) for a in range(arms)]

    # ------------------------------------------------------------------ storing

    def _keep(self, store: Callable[..., None], *arguments: object) -> None:
        """Store numbers now if they are known, when they are asked for if a device makes them."""
        self._later.append((store, arguments))
        if isinstance(self._on, OnHost):
            self._settle()

    def _settle(self) -> None:
        for store, arguments in self._later:
            store(*map(on_host, arguments))
        self._later = []

    def _store(self, index: tuple, description: Description) -> None:
        for name in MOMENTS:
            getattr(self._moments, name)[index] = np.transpose(getattr(description, name))
        self._ks[index] = description.distance.T
        self._histogram[index] = description.bins.swapaxes(0, 1)
        if description.cells is not None:
            self._cells[index] = description.cells.swapaxes(0, 1)

    def _store_noise(self, steps: slice, description: Description) -> None:
        for name in MOMENTS:
            getattr(self._noise, name)[steps] = np.ravel(getattr(description, name))
        self._noise_ks[steps] = description.distance[:, 0]
        if description.cells is not None:
            self._noise_cells[steps] = description.cells[:, 0]

    def _store_spreads(
        self, group: slice, steps: slice, within: Array, mean: Array, m2: Array
    ) -> None:
        self._within[group, steps] = within.T
        self._pixel_mean[group, steps] = mean.swapaxes(0, 1)
        self._pixel_m2[group, steps] = m2.swapaxes(0, 1)

    def _store_marginal(
        self, steps: slice, distance: Array, cells: NDArray[np.integer] | None
    ) -> None:
        self._ks_marginal[:, steps] = distance.T
        if cells is not None:
            self._marginal_cells[:, steps] = cells.swapaxes(0, 1)

    def _store_plane(self, steps: slice, places: NDArray[np.float32]) -> None:
        assert self._plane is not None
        self._plane[:, steps] = places.swapaxes(0, 1)

    def _store_frame(self, t: int, pixels: NDArray[np.uint8]) -> None:
        here = self._frames[:, self._framed[t]]
        here[:] = pixels.reshape(here.shape)

    def _store_snapshot(self, t: int, x: NDArray[np.float32]) -> None:
        units = np.clip(np.rint(x.astype(np.float64) / SNAPSHOT_UNIT), -32767, 32767)
        here = self._snapshots[:, self._shown[t]]
        here[:] = units.reshape(here.shape)


def _nearest(
    ends: NDArray[np.float32], data: DataLaw | None
) -> tuple[Spread, NDArray[np.bool_], NDArray[np.int64]]:
    """Distances to, hits of, and classes of the nearest data, for end points (A, B, *D)."""
    arms = len(ends)
    points = None if data is None else data.points
    if data is None or points is None:
        nothing = Spread(np.array(1.0), np.full(arms, np.nan), np.full(arms, np.nan))
        return nothing, np.zeros((arms, 0), bool), np.zeros((arms, 0), np.int64)
    flat = ends.reshape(arms, ends.shape[1], -1)
    target = points.reshape(len(points), -1)
    squares = np.einsum("nd,nd->n", target, target)
    hits = np.zeros((arms, len(points)), dtype=bool)
    counts = np.zeros((arms, len(data.classes)), dtype=np.int64)
    distances = np.empty(flat.shape[:2])
    for a, samples in enumerate(flat):
        for start in range(0, len(samples), 1024):
            rows = samples[start : start + 1024]
            index = (squares - 2 * rows @ target.T).argmin(axis=1)
            distances[a, start : start + 1024] = np.sqrt(
                ((rows - target[index]) ** 2).mean(axis=1)
            )
            hits[a, index] = True
            if data.labels is not None and data.classes:
                counts[a] += np.bincount(data.labels[index], minlength=len(data.classes))
    return Spread.of(distances, axis=1), hits, counts


def snapshot_times(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The times at which x_t itself is kept: T, every 25th part of it, and t < 8.

    For T = 500 these are the tutorial's: t % 20 == 0, t = 500, t < 8. Up to 64 steps, all of them.
    """
    if len(times) <= 65:
        return times
    T = int(times[0])
    wanted = np.unique(np.concatenate([[T], np.arange(0, T, max(T // 25, 1)), np.arange(8)]))
    nearest = np.abs(times[:, None] - wanted).argmin(axis=0)
    return times[np.unique(nearest)]


def frame_times(times: NDArray[np.int64], arms: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The times of the frames: up to ``FRAMES`` + 1 of ``times``, evenly; none for no images.

    Fewer where even one sample of all ``arms``, of this ``shape``, would take too much memory.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        return times[:0]
    count = min(len(times), FRAMES + 1, SHOWN // (arms * math.prod(shape)))
    return times[np.unique(np.rint(np.linspace(0, len(times) - 1, count)).astype(int))]


def bin_edges(data: DataLaw | None) -> Array:
    """Even bins over ±4.5, widened where the data reach further."""
    low, high = -4.5, 4.5
    if data is not None:
        low = min(low, float((data.locations - 4.5 * np.maximum(data.scales, 0)).min()))
        high = max(high, float((data.locations + 4.5 * np.maximum(data.scales, 0)).max()))
    return np.linspace(low, high, BINS + 1)


@dataclass(frozen=True)
class _Job:
    """What a worker needs to compute any block of a run."""

    denoiser: Denoiser
    schedule: NoiseSchedule
    arms: tuple[Arm, ...]
    spec: RunSpec
    data: DataLaw | None
    context: NDArray[np.float32] | None
    keep: int
    device: str

    def batch(self, block: int) -> int:
        return min(self.spec.block, self.spec.n - block * self.spec.block)


Watch = Callable[[int, int, Recorder], None]
"""Told (block, index of the step, recorder) after every step of a recording in this process."""


def record_block(
    job: _Job,
    block: int,
    progress: Callable[[], None] | None = None,
    watch: Watch | None = None,
) -> Tally:
    """Sample and record one block of a run. Depends on nothing but its arguments.

    An arm that stops being finite ends there; its ``ends`` in the tally says so.
    """
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # named below, not warned of
            return _sample_block(job, block, None, progress, watch)
    except NonfiniteError:
        guard = Guard(_denoiser_of(job, block), len(job.arms), job.spec.steps)
        tally = _sample_block(job, block, guard)
        if min(guard.ends) == job.spec.steps:
            raise
        return replace(tally, ends=np.array(guard.ends))


def _sample_block(
    job: _Job,
    block: int,
    guard: Guard | None,
    progress: Callable[[], None] | None = None,
    watch: Watch | None = None,
) -> Tally:
    spec = job.spec
    device = torch.device(job.device)
    words = _words(job, block)
    generator = torch.Generator(device).manual_seed(int(words[0]) << 31 ^ int(words[1]))
    batch, times = job.batch(block), job.schedule.times(spec.steps)
    x_T = torch.randn((batch, *spec.sample_shape), generator=generator, device=device)
    context = None
    if job.context is not None:
        context = torch.as_tensor(job.context, device=device).expand(batch, -1)
    recorder = Recorder(
        job.schedule,
        times,
        len(job.arms),
        batch,
        spec.sample_shape,
        data=job.data,
        keep=job.keep,
        mergeable=spec.blocks > 1,
        device=job.device,
    )
    denoiser = _denoiser_of(job, block) if guard is None else guard
    step = None
    steps = sample(
        denoiser, job.schedule, x_T, generator, arms=job.arms, times=times, context=context
    )
    for index, step in enumerate(steps):
        recorder.observe(step)
        if progress is not None:
            progress()
        if watch is not None:
            watch(block, index, recorder)
    assert step is not None
    if guard is None and not bool(torch.isfinite(step.x_next).all()):
        raise NonfiniteError(f"the end points are not finite, after the step at t = {step.t}")
    return recorder.finish(step.x_next if guard is None else guard.finish(step.x_next))


def _denoiser_of(job: _Job, block: int) -> Denoiser:
    """One that draws for itself must draw the same for a block wherever it is computed."""
    return restarted(job.denoiser, int(_words(job, block)[1]))


def _words(job: _Job, block: int) -> NDArray[np.unsignedinteger]:
    return np.random.SeedSequence([job.spec.seed, block]).generate_state(2, np.uint32)


def record(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    *,
    arms: Sequence[Arm] = DEFAULT_ARMS,
    n: int = 64,
    seed: int = 0,
    block: int | None = None,
    steps: int | None = None,
    label: str | None = None,
    device: str = "cpu",
    sample_shape: tuple[int, ...] | None = None,
    progress: bool = True,
    executor: Executor | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Sample ``n`` trajectories per arm from common noise and record every step of them.

    Args:
        denoiser: ours, or any callable (x, t, context) -> ε̂.
        schedule: gives the coefficients; may differ from the denoiser's own.
        arms: the ways of sampling, all in one batch.
        n: samples per arm, at least 1.
        seed: of x_T and z.
        block: samples per block; 64 images, more of smaller samples, unless given.
        steps: how many of the T steps to take, evenly spaced; all unless given.
        label: the class to sample, for a denoiser with ``classes``.
        device: where to sample.
        sample_shape: shape of one sample, for a denoiser that has none; (3, 16, 16) if not given.
        progress: show a bar with an estimate on standard error.
        executor: computes blocks elsewhere; here, one after the other, unless given. From
            `diffviz.recording.workers` it survives the loss of a worker.
        out: also save the run there. Finished blocks are kept beside it until it is whole.
        resume: go on from the blocks kept by an unfinished recording of the same run. A callable
            that is no module and has no ``digest`` is taken to be the one that was recorded.
        watch: told of every step that this process takes, as ``Recorder.latest`` describes it.

    Raises:
        InputError: an argument is out of range, the denoiser's answer is unusable (naming the
            step), or ``out`` cannot be written.
    """
    start = time.perf_counter()
    job = _job(denoiser, schedule, arms, n, seed, block, steps, label, device, sample_shape)
    kept = None
    if out is not None:
        check_words(job.spec, job.data.classes if job.data is not None else ())
        kept = _partial_path(check_writable(out))
    tally = None
    if out is not None and kept is not None:
        check_writable(kept)
        if resume and Path(out).is_file() and not kept.exists():
            finished = Run.load(out)
            if not finished.broken:
                _check_same(finished.spec, job.spec, Path(out))
                return finished
        tally = _kept(kept, job.spec, resume)
    done = 0 if tally is None else tally.blocks
    for result in _blocks(job, done, progress, executor, watch):
        if tally is not None and not tally.fits(result):
            raise RunFileError(f"{kept}: its blocks have other shapes than those of this run")
        tally = result if tally is None else tally.merge(result, job.keep)
        del result  # tens of megabytes that the next block need not find in its way
        if (tally.ends < job.spec.steps).any():
            break
        if kept is not None and tally.blocks < job.spec.blocks:
            tally.save(kept, job.spec.to_json())
    assert tally is not None
    times = schedule.times(job.spec.steps)
    shown, framed = (
        np.flatnonzero(np.isin(times, chosen))
        for chosen in (
            snapshot_times(times),
            frame_times(times, len(arms), job.spec.sample_shape),
        )
    )
    run = assemble(
        tally.cut(shown, framed),
        replace(job.spec, n=tally.n),
        schedule,
        times,
        job.data,
        snapshot_times(times),
        frame_times(times, len(arms), job.spec.sample_shape),
        bin_edges(job.data),
        _step_std(job),
        time.perf_counter() - start,
        _answers(job),
    )
    if out is not None and kept is not None:
        run.save(out)
        kept.unlink(missing_ok=True)
    if run.broken:
        t = max(run.broken.values())
        arms_then = ", ".join(name for name, when in run.broken.items() if when == t)
        there = (
            "; record with out= (--out) to keep the run"
            if out is None
            else f"; {out} holds the run"
        )
        raise NonfiniteError(
            f"a value is not finite at t = {t}, in the denoiser's answer or the state after it, "
            f"in arm {arms_then}{there} up to there",
            run,
        )
    return run


def _job(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    arms: Sequence[Arm],
    n: int,
    seed: int,
    block: int | None,
    steps: int | None,
    label: str | None,
    device: str,
    sample_shape: tuple[int, ...] | None,
) -> _Job:
    _check_count("n", n, 1, 10**9)
    _check_count("seed", seed, 0, 2**32 - 1)
    arms = check_arms(arms)
    bars = schedule.alpha_bars[1:]
    if not ((bars > 0) & (bars < 1)).all():
        problems = "; ".join(schedule.violations()) or f"ᾱ from {bars.min():g} to {bars.max():g}"
        raise InputError(f"{schedule.name} cannot be sampled from: {problems}")
    known = describe(denoiser)
    if sample_shape is None:  # () is a shape, that of a number
        sample_shape = (3, 16, 16) if known.sample_shape is None else known.sample_shape
    shape = _checked_shape(sample_shape, n)
    times = schedule.times(steps)
    size = int(np.prod(shape))
    block = max(64, min(16384, 49152 // size)) if block is None else block
    _check_count("block", block, 1, 10**6)
    check_device(device)
    _check_memory(len(arms), min(block, n), size, len(times))
    data = known.law
    context = None
    if label is not None:
        classes = known.classes
        if label not in classes:
            allowed = ", ".join(classes) or "none, this denoiser has no classes"
            raise InputError(f"class is {label!r}; allowed: {allowed}")
        context = np.eye(len(classes), dtype=np.float32)[classes.index(label)]
        if data is not None:
            data = data.only(classes.index(label)) if data.labels is not None else None
    spec = RunSpec(
        denoiser=known.name,
        denoiser_digest=known.digest,
        schedule=schedule.name,
        schedule_digest=array_digest(schedule.betas, schedule.alphas, schedule.alpha_bars),
        arms=tuple(
            {"name": a.name, "rule": a.rule.name, "noise_scale": float(a.noise_scale)}
            for a in arms
        ),
        steps=len(times) - 1,
        n=int(n),
        block=min(int(block), int(n)),
        seed=int(seed),
        sample_shape=shape,
        label=label,
        device=torch.device(device).type,
    )
    keep = min(int(n), max(256, 2**16 // size))
    return _Job(on_device(denoiser, device), schedule, arms, spec, data, context, keep, device)


def _check_memory(arms: int, block: int, size: int, points: int) -> None:
    """A block fits in memory: its states a few times over, its counts, its spread per pixel."""
    states = 16 * 4 * arms * block * size
    counts = 2 * 4 * arms * points * (4 * CELLS + 3 * BINS)
    spreads = 2 * 16 * arms * points * min(size, MAX_COORDINATES)
    need = states + counts + spreads
    if need > MAX_MEMORY:
        raise InputError(
            f"{arms} arms × {block} samples in a block × {size} values × {points - 1} steps need "
            f"about {need / 2**30:.0f} GiB; allowed are {MAX_MEMORY >> 30} GiB: take fewer arms, "
            "a smaller block or fewer steps"
        )


def _checked_shape(shape: object, n: int) -> tuple[int, ...]:
    allowed = f"allowed are up to {MAX_DIMENSIONS} whole numbers from 1"
    try:
        sizes: tuple = tuple(shape)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"sample_shape is {shape!r:.80}; {allowed}") from None
    integral = all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in sizes)
    if not integral or len(sizes) > MAX_DIMENSIONS or any(i < 1 for i in sizes):
        raise InputError(f"sample_shape is {sizes!r:.80}; {allowed}")
    whole = tuple(int(i) for i in sizes)
    if n * math.prod(whole) >= 2**32:
        raise InputError(f"n is {n}, of {math.prod(whole)} values each; allowed are 2³² in all")
    return whole


def _check_count(name: str, value: object, low: int, high: int) -> None:
    integral = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not integral or not low <= int(value) <= high:  # type: ignore[call-overload]
        raise InputError(f"{name} is {value!r}; allowed are the integers {low}…{high}")


def _step_std(job: _Job) -> Array:
    times = job.schedule.times(job.spec.steps)
    return coefficient_table(job.arms, job.schedule, times)[:, :, 2].T


def _answers(job: _Job) -> Answers:
    """How the denoiser answers when it is asked again. After sampling, so as not to change it."""
    spec = job.spec
    if spec.steps * spec.n * len(job.arms) < MIN_SAMPLED:
        return Answers()
    context = None if job.context is None else torch.as_tensor(job.context)
    T = int(job.schedule.times(spec.steps)[0])
    return compare_answers(
        lambda: _denoiser_of(job, 0),
        spec.sample_shape,
        T,
        spec.seed,
        context=context,
        device=job.device,
    )


def _blocks(
    job: _Job, done: int, progress: bool, executor: Executor | None, watch: Watch | None
) -> Iterator[Tally]:
    """The tallies of the blocks still to do, in their order."""
    todo = range(done, job.spec.blocks)
    if executor is None:
        with tqdm(total=len(todo) * job.spec.steps, unit="step", disable=not progress) as bar:
            for block in todo:
                bar.set_description(f"block {block + 1} of {job.spec.blocks}")
                yield record_block(job, block, bar.update, watch)
        return
    with tqdm(total=len(todo) * job.spec.steps, unit="step", disable=not progress) as bar:
        yield from _elsewhere(job, todo, executor, bar)


def _elsewhere(job: _Job, todo: range, executor: Executor, bar: tqdm) -> Iterator[Tally]:
    """The tallies of blocks computed by ``executor``, in their order.

    Blocks whose worker was lost are submitted again to `Workers`, which can be renewed.
    """
    workers = executor if isinstance(executor, Workers) else None
    # Sent ahead only so far, so that results waiting for their turn stay few.
    ahead = 2 * (workers.count if workers else os.cpu_count() or 4)
    waiting: deque[tuple[int, Future[Tally]]] = deque()
    upcoming, before, losses = deque(todo), workers.steps() if workers else 0, 0

    def taken(finished: int) -> None:
        counted = workers.steps() - before if workers else 0
        bar.n = min(max(counted, finished * job.spec.steps), bar.total)
        bar.set_description(f"block {todo.start + finished} of {job.spec.blocks} done")

    try:
        for finished in range(len(todo)):
            while True:
                try:
                    while upcoming and len(waiting) < ahead:
                        future = executor.submit(_block_of_worker, job, upcoming[0])
                        waiting.append((upcoming.popleft(), future))
                    tally = _result(waiting[0][1], workers, partial(taken, finished))
                    break
                except _losses(workers) as error:
                    losses += 1
                    if workers is None or losses > LOSSES:
                        raise InputError(
                            f"a worker was lost {losses} times at block {todo[finished] + 1} of "
                            f"{job.spec.blocks} (killed, or out of memory): {error}"
                        ) from None
                    workers.renew()
                    upcoming.extendleft(block for block, _ in reversed(waiting))
                    waiting.clear()
            waiting.popleft()
            losses = 0
            taken(finished + 1)
            yield tally
    finally:
        if workers is None:  # Workers end what they do with themselves
            for _, future in waiting:
                future.cancel()


def _losses(workers: Workers | None) -> tuple[type[BaseException], ...]:
    return (BrokenExecutor,) if workers is None else workers.losses


def _result(future: Future[Tally], workers: Workers | None, look: Callable[[], None]) -> Tally:
    """What the future brings; ``look`` is called twice a second until then."""
    while True:
        done, _ = wait([future], timeout=0.5)
        if done:
            return future.result()
        look()
        if workers is not None:
            workers.check()


def _block_of_worker(job: _Job, block: int) -> Tally:
    """A block as a worker computes it; a process of its own takes one torch thread."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
        hold_memory()
    return record_block(job, block, worker_progress())


def _partial_path(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _kept(path: Path, spec: RunSpec, resume: bool) -> Tally | None:
    if not path.exists():
        return None
    tally, found = Tally.load(path)
    if not resume:
        raise InputError(
            f"{path}: holds {tally.blocks} of {RunSpec.from_json(found).blocks} blocks of an "
            "unfinished run; go on with resume, or delete it"
        )
    _check_same(RunSpec.from_json(found), spec, path)
    if not (0 < tally.blocks < spec.blocks and tally.n == tally.blocks * spec.block):
        raise RunFileError(f"{path}: {tally.n} samples in {tally.blocks} blocks are no part of it")
    return tally


def _check_same(found: RunSpec, wanted: RunSpec, path: Path) -> None:
    for name, value in vars(wanted).items():
        if getattr(found, name) != value:
            raise InputError(
                f"{path}: was recorded with {name} = {getattr(found, name)!r}, "
                f"now it is {value!r}; resume needs the same run"
            )
