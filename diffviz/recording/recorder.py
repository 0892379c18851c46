r"""Steps are folded into the statistics of a block, as they come.

Steps are copied and measured several at a time, so that small samples do not pay for many small
calls. On another device than the CPU they are measured there, and nothing waits for it before the
numbers are asked for.

The residual r_t = (x_t − √ᾱ_t x_0)/√(1−ᾱ_t) needs the trajectory's own end point, so a block keeps
its trajectory until it ends, on a fixed random subset of coordinates within ``MEMORY``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.sampler import Step
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.measure.ks import CELLS, NORMAL
from diffviz.measure.moments import Spread
from diffviz.recording.block import FRAMED, MAPPED, BlockStats, nearest_data
from diffviz.recording.dataset import SHOWN, bin_edges, frame_times, snapshot_times
from diffviz.recording.run import QUANTITIES, SNAPSHOT_UNIT
from diffviz.recording.statistics import (
    Rows,
    measure,
    measure_marginal,
    measure_spreads,
    sorted_rows,
    to_device,
)

MEMORY = 64 * 2**20
"""Bytes that a block may keep of its trajectories."""
MAX_COORDINATES = 4096
"""Coordinates on which the spread between samples is followed."""
TOGETHER = {"cpu": 2**17}
"""Values that are measured in one go, by the kind of device."""
TOGETHER_ELSEWHERE = 2**22
MOMENTS = ("mean", "m2", "m3", "m4")

Array = NDArray[np.float64]


class Recorder:
    """Folds the steps of one block of A arms into `BlockStats`.

    Call ``observe`` with every step from t = T on, then ``finish`` with the end points.

    Args:
        schedule: gives ᾱ_t of the residual and of q(x_t).
        times: (S+1,), falling from T to 0, all that will be visited.
        arms: A.
        batch: samples per arm, B.
        sample_shape: D.
        law: the law of the data, for q(x_t).
        keep: how many samples are kept as they are.
        mergeable: whether other blocks will be added.
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
        law: DataLaw | None = None,
        keep: int = 64,
        mergeable: bool = True,
        device: str = "cpu",
    ) -> None:
        self.schedule, self.times, self.law, self.batch = schedule, times, law, batch
        self._device, self._mergeable = torch.device(device), mergeable
        points, size = len(times), int(np.prod(sample_shape))
        rng = np.random.default_rng(0)  # one fixed choice for all blocks of all runs
        followed = MEMORY // (4 * arms * points)
        chosen = max(1, min(size, followed // batch))
        traced = np.sort(rng.choice(size, chosen, replace=False))
        coordinates = np.arange(size)
        if size > MAX_COORDINATES:
            coordinates = np.sort(rng.choice(size, MAX_COORDINATES, replace=False))
        shown, framed = snapshot_times(times), frame_times(times, arms, sample_shape)
        self._shown = {int(t): i for i, t in enumerate(shown)}
        self._framed = {int(t): i for i, t in enumerate(framed)}
        plane = None if law is None else law.plane
        few = min(batch, MAPPED, max(1, SHOWN // (8 * arms * points)))
        pictures = min(batch, FRAMED, max(1, SHOWN // max(arms * size * len(framed), 1)))
        self._stats = BlockStats.empty(
            arms,
            points,
            batch,
            sample_shape,
            coordinates=coordinates,
            cells=CELLS if mergeable else 0,
            kept=min(keep, batch),
            snapshots=len(shown),
            mapped=0 if plane is None else few,
            frames=(len(framed), pictures if len(framed) else 0),
        )
        self._bins = self._moved(bin_edges(law)[1:-1])
        self._edges = self._moved(NORMAL.edges) if mergeable else None
        self._coordinates = self._moved(coordinates) if len(coordinates) < size else None
        self._plane = None if plane is None else self._moved(plane[0].astype(np.float32))
        self._traced = self._moved(traced) if chosen < size else None
        self._later: list[Callable[[], None]] = []

        self._limit = TOGETHER.get(self._device.type, TOGETHER_ELSEWHERE)
        together = max(1, min(points - 1, self._limit // (arms * batch * size)))
        rows = max(1, min(batch, followed // chosen))

        def room(*sizes: int) -> Tensor:
            return torch.empty(sizes, dtype=torch.float32, device=self._device)

        self._x, self._eps = (room(together, arms, batch * size) for _ in range(2))
        self._z = room(together, 1, batch * size)
        self._trace = room(points, arms, rows, chosen)
        self._measured = self._waiting = 0

    def observe(self, step: Step) -> None:
        """Take in what one ``step`` was given and what it drew."""
        k = self._waiting
        for kept, values in ((self._x, step.x), (self._eps, step.eps), (self._z, step.z)):
            kept[k].copy_(values.detach().reshape(kept.shape[1:]))
        self._waiting += 1
        if self._waiting == len(self._x):
            self._measure_waiting()

    def latest(self) -> dict[str, Array]:
        """The step taken in last, per arm (A,): what needs no end point, NaN where unknown."""
        self._measure_waiting()
        self._settle()
        stats, i = self._stats, self._measured - 1
        x, eps = QUANTITIES.index("x"), QUANTITIES.index("eps")
        between = Spread(stats.pixels.n, stats.pixels.mean[:, i], stats.pixels.m2[:, i]).variance
        return {
            "mean": stats.moments.mean[:, x, i],
            "std": stats.moments.std[:, x, i],
            "std_between": np.sqrt(between.mean(axis=-1)),
            "ks_normal": stats.ks[:, x, i],
            "ks_marginal": stats.ks_marginal[:, i],
            "eps_std": stats.moments.std[:, eps, i],
        }

    def pictures(self) -> NDArray[np.uint8]:
        """The newest frame of every arm, (A, samples, *D), after ``latest``; empty without any."""
        reached = self.times[max(self._measured - 1, 0)]
        index = max((i for t, i in self._framed.items() if t >= reached), default=0)
        frames = self._stats.frames[:, index : index + 1]
        return frames.reshape(len(frames), -1, *frames.shape[3:])

    def finish(self, x_0: Tensor) -> BlockStats:
        """The block's statistics, given its end points ``x_0`` (A, B, *D)."""
        self._measure_waiting()
        end = x_0.detach().to(self._x).reshape(1, *self._x.shape[1:])
        self._measure_states(end, slice(self._measured, self._measured + 1))
        self._measure_residuals()
        self._settle()
        ends = x_0.detach().to("cpu", torch.float32).numpy()
        samples = ends[:, : self._stats.samples.shape[1]]
        return nearest_data(replace(self._stats, samples=samples), ends, self.law)

    # ------------------------------------------------------------------ measuring

    def _measure_waiting(self) -> None:
        count = self._waiting
        if not count:
            return
        steps = slice(self._measured, self._measured + count)
        self._measure_states(self._x[:count], steps)
        self._measure_rows(self._eps[:count], "eps", steps)
        noise = measure(sorted_rows(self._z[:count]), self._bins, self._edges)
        self._keep(self._store_noise, steps, noise)
        self._measured += count
        self._waiting = 0

    def _measure_states(self, x: Tensor, steps: slice) -> None:
        """Everything about x_t at several times, ``x`` (times, A, values)."""
        samples = x.reshape(*x.shape[:2], self.batch, -1)
        traced = samples[:, :, : self._trace.shape[2]]
        if self._traced is None:
            self._trace[steps] = traced
        else:
            torch.index_select(traced, 3, self._traced, out=self._trace[steps])
        self._keep_pictures(samples, steps)
        sorted_groups = []
        for arms in self._groups(x):
            sorted_groups.append(self._measure_rows(x[:, arms], "x", steps, arms))
            spreads = measure_spreads(samples[:, arms].double(), self._coordinates)
            self._keep(self._store_spreads, arms, steps, *spreads)
        if self.law is None:
            return
        ordered = torch.cat(sorted_groups, dim=1)
        laws = [self.law.marginal(bar) for bar in self._bars(steps)]
        start = 0
        # Alike in kind, and in size within a factor of 2.
        for _, alike in groupby(laws, lambda law: (law.exact, len(law.weights).bit_length())):
            part = list(alike)
            here = slice(start, start + len(part))
            found = measure_marginal(ordered[here], part, self._mergeable)
            there = slice(steps.start + here.start, steps.start + here.stop)
            self._keep(self._store_marginal, there, *found)
            start = here.stop

    def _bars(self, steps: slice) -> list[float]:
        return self.schedule.alpha_bars[self.times[steps]].tolist()

    def _keep_pictures(self, samples: Tensor, steps: slice) -> None:
        """Of ``samples`` (times, A, B, values of one), what is kept as it is."""
        if self._plane is not None:
            few = samples[:, :, : self._stats.plane.shape[2], None]
            places = (few * self._plane).sum(dim=-1)
            self._keep(self._store_plane, steps, places)
        for i, t in enumerate(self.times[steps].tolist()):
            if t in self._framed:
                few = samples[i, :, : self._stats.frames.shape[2]].clamp(-1, 1)
                pixels = few.add(1).mul(127.5).round().to(torch.uint8)
                self._keep(self._store_frame, t, pixels)
            if t in self._shown:
                shown = samples[i, :, : self._stats.snapshots.shape[2]].clone()
                self._keep(self._store_snapshot, t, shown)

    def _measure_residuals(self) -> None:
        bars = self.schedule.alpha_bars[self.times[:-1]]
        trace = self._trace.reshape(*self._trace.shape[:2], -1)
        end = trace[-1].double()
        together = max(1, self._limit // end.numel())
        for first in range(0, len(bars), together):
            steps = slice(first, min(first + together, len(bars)))
            bar = self._moved(bars[steps, None, None])
            residual = (trace[steps] - bar.sqrt() * end) / (1 - bar).sqrt()
            for arms in self._groups(residual):
                self._measure_rows(residual[:, arms].float(), "residual", steps, arms)

    def _measure_rows(
        self, x: Tensor, quantity: str, steps: slice, arms: slice = slice(None)
    ) -> Tensor:
        """Measure ``x`` (times, arms, n); gives it sorted."""
        ordered = sorted_rows(x)
        rows = measure(ordered, self._bins, self._edges)
        index = (arms, QUANTITIES.index(quantity), steps)
        self._keep(self._store_rows, index, rows)
        return ordered

    def _groups(self, x: Tensor) -> list[slice]:
        """All arms at once, or one by one when that many values leave the fast caches."""
        arms = x.shape[1]
        if x.numel() <= self._limit:
            return [slice(0, arms)]
        return [slice(a, a + 1) for a in range(arms)]

    def _moved(self, values: NDArray) -> Tensor:
        return to_device(values, self._device)

    # ------------------------------------------------------------------ storing

    def _keep(self, store: Callable[..., None], *numbers: object) -> None:
        """Store numbers now if they are known, when they are needed if a device makes them."""
        self._later.append(partial(store, *numbers))
        if self._device.type == "cpu":
            self._settle()

    def _settle(self) -> None:
        for store in self._later:
            store()
        self._later = []

    def _store_rows(self, index: tuple, rows: Rows) -> None:
        stats = self._stats
        stats.moments.n[index] = rows.n
        for name in MOMENTS:
            getattr(stats.moments, name)[index] = _numbers(getattr(rows, name)).T
        stats.ks[index] = _numbers(rows.distance).T
        stats.histogram[index] = _numbers(rows.bins).swapaxes(0, 1)
        if rows.cells is not None:
            stats.cells[index] = _numbers(rows.cells).swapaxes(0, 1)

    def _store_noise(self, steps: slice, rows: Rows) -> None:
        stats = self._stats
        stats.noise.n[steps] = rows.n
        for name in MOMENTS:
            getattr(stats.noise, name)[steps] = _numbers(getattr(rows, name))[:, 0]
        stats.noise_ks[steps] = _numbers(rows.distance)[:, 0]
        if rows.cells is not None:
            stats.noise_cells[steps] = _numbers(rows.cells)[:, 0]

    def _store_spreads(
        self, arms: slice, steps: slice, within: Tensor, mean: Tensor, m2: Tensor
    ) -> None:
        self._stats.within[arms, steps] = _numbers(within).T
        self._stats.pixels.mean[arms, steps] = _numbers(mean).swapaxes(0, 1)
        self._stats.pixels.m2[arms, steps] = _numbers(m2).swapaxes(0, 1)

    def _store_marginal(self, steps: slice, distance: Tensor, cells: Tensor | None) -> None:
        self._stats.ks_marginal[:, steps] = _numbers(distance).T
        if cells is not None:
            self._stats.marginal_cells[:, steps] = _numbers(cells).swapaxes(0, 1)

    def _store_plane(self, steps: slice, places: Tensor) -> None:
        self._stats.plane[:, steps] = _numbers(places).swapaxes(0, 1)

    def _store_frame(self, t: int, pixels: Tensor) -> None:
        here = self._stats.frames[:, self._framed[t]]
        here[:] = _numbers(pixels).reshape(here.shape)

    def _store_snapshot(self, t: int, x: Tensor) -> None:
        units = np.clip(np.rint(_numbers(x).astype(np.float64) / SNAPSHOT_UNIT), -32767, 32767)
        here = self._stats.snapshots[:, self._shown[t]]
        here[:] = units.reshape(here.shape)


def _numbers(x: Tensor) -> NDArray:
    return x.cpu().numpy()
