r"""Steps are folded into the statistics of a block, as they come.

Steps are copied and measured several at a time, so that small samples do not pay for many small
calls. On another device than the CPU they are measured there, and nothing waits for it before the
numbers are asked for.

The residual r_t = (x_t − √ᾱ_t x_0)/√(1−ᾱ_t) needs the trajectory's own end point, so a block keeps
its trajectory until it ends, on a fixed random subset of coordinates within ``MEMORY``.
"""

from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.sampler import Step
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.measure.ks import CELLS, NORMAL
from diffviz.measure.moments import Moments
from diffviz.recording.block import BINS, FRAMED, MAPPED, MEMORY, BlockStats, find_nearest
from diffviz.recording.dataset import SHOWN, bin_edges, frame_times, snapshot_times
from diffviz.recording.run import QUANTITIES, SNAPSHOT_UNIT
from diffviz.recording.statistics import (
    measure,
    measure_marginal,
    measure_spreads,
    sorted_rows,
    to_device,
)

MAX_COORDINATES = 4096
"""Coordinates on which the spread between samples is followed."""
ON_CPU, ELSEWHERE = 2**17, 2**22
"""Values that are measured in one go."""
ALL = slice(None)

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
        pictures = min(batch, FRAMED, max(1, SHOWN // max(arms * size * len(framed), 1)))
        data = None if law is None else law.points
        sizes = {
            "arm": arms,
            "quantity": len(QUANTITIES),
            "t": points,
            "step": points - 1,
            "cell": CELLS if mergeable else 0,
            "bin": BINS,
            "coordinate": len(coordinates),
            "snapshot": len(shown),
            "kept": min(keep, batch),
            "mapped": min(batch, MAPPED, max(1, SHOWN // (8 * arms * points))),
            "axis": 2 if plane is not None else 0,
            "frame": len(framed),
            "framed": pictures if len(framed) else 0,
            "member": 0 if data is None else len(data),
            "class": 0 if law is None or data is None else len(law.classes),
        }
        self._stats = BlockStats.empty(batch, keep, sizes, sample_shape)
        self._stats.coordinates[:] = coordinates
        # On the CPU these are the very arrays of the statistics.
        self._found = {name: self._moved(array) for name, array in self._stats.arrays.items()}
        self._bins = self._moved(bin_edges(law)[1:-1])
        self._edges = self._moved(NORMAL.edges) if mergeable else None
        self._coordinates = self._moved(coordinates) if len(coordinates) < size else None
        self._plane = None if plane is None else self._moved(plane[0].astype(np.float32))
        self._traced = self._moved(traced) if chosen < size else None

        self._limit = ON_CPU if self._device.type == "cpu" else ELSEWHERE
        together = max(1, min(points - 1, self._limit // (arms * batch * size)))
        rows = max(1, min(batch, followed // chosen))

        def room(*sizes: int) -> Tensor:
            return torch.empty(sizes, dtype=torch.float32, device=self._device)

        self._x, self._eps = (room(arms, together, batch * size) for _ in range(2))
        self._z = room(1, together, batch * size)
        self._trace = room(arms, points, rows, chosen)
        self._measured = self._waiting = 0

    def observe(self, step: Step) -> None:
        """Take in what one ``step`` was given and what it drew."""
        k = self._waiting
        for kept, values in ((self._x, step.x), (self._eps, step.eps), (self._z, step.z)):
            kept[:, k].copy_(values.detach().reshape(len(kept), -1))
        self._waiting += 1
        if self._waiting == self._x.shape[1]:
            self._measure_waiting()

    def latest(self) -> dict[str, Array]:
        """The step taken in last, per arm (A,): what needs no end point, NaN where unknown."""
        self._measure_waiting()
        i, x, eps = self._measured - 1, QUANTITIES.index("x"), QUANTITIES.index("eps")
        counts, sums = (self._found[name][..., i].cpu().numpy() for name in ("counts", "sums"))
        state, answer = (Moments(counts[:, q], sums[:, :, q]) for q in (x, eps))
        pixels = self._found["pixels"][:, :, i].cpu().numpy()
        between = Moments(self.batch, pixels).variance.mean(axis=-1)
        return {
            "mean": state.mean,
            "std": state.std,
            "std_between": np.sqrt(between),
            "ks_normal": self._found["ks"][:, x, i].cpu().numpy(),
            "ks_marginal": self._found["ks_marginal"][:, i].cpu().numpy(),
            "eps_std": answer.std,
        }

    def pictures(self) -> NDArray[np.uint8]:
        """The newest frame of every arm, (A, samples, *D), after ``latest``; empty without any."""
        reached = self.times[max(self._measured - 1, 0)]
        index = max((i for t, i in self._framed.items() if t >= reached), default=0)
        frames = self._found["frames"][:, index : index + 1].cpu().numpy()
        return frames.reshape(len(frames), -1, *frames.shape[3:])

    def finish(self, x_0: Tensor) -> BlockStats:
        """The block's statistics, given its end points ``x_0`` (A, B, *D)."""
        self._measure_waiting()
        end = x_0.detach().to(self._x).reshape(len(x_0), 1, -1)
        self._measure_states(end, slice(self._measured, self._measured + 1))
        self._measure_residuals()
        stats = self._stats
        if self._device.type != "cpu":
            for name, array in stats.arrays.items():
                array[...] = self._found[name].cpu().numpy().view(array.dtype)
        ends = x_0.detach().to("cpu", torch.float32).numpy()
        stats.samples[:] = ends[:, : stats.samples.shape[1]]
        if self.law is not None and self.law.points is not None:
            find_nearest(stats, ends, self.law)
        return stats

    # ------------------------------------------------------------------ measuring

    def _measure_waiting(self) -> None:
        count = self._waiting
        if not count:
            return
        steps = slice(self._measured, self._measured + count)
        self._measure_states(self._x[:, :count], steps)
        self._measure_rows(self._eps[:, :count], "eps", steps)
        noise = measure(sorted_rows(self._z[:, :count]), self._bins, self._edges)
        self._found["noise"][:, steps] = noise.sums[:2, 0]
        self._found["noise_ks"][steps] = noise.distance[0]
        if noise.cells is not None:
            self._found["noise_cells"][steps] = noise.cells[0]
        self._measured += count
        self._waiting = 0

    def _measure_states(self, x: Tensor, steps: slice) -> None:
        """Everything about x_t at several times, ``x`` (A, times, values)."""
        samples, found = x.reshape(*x.shape[:2], self.batch, -1), self._found
        traced = samples[:, :, : self._trace.shape[2]]
        if self._traced is not None:
            traced = traced.index_select(3, self._traced)
        self._trace[:, steps] = traced
        self._keep_pictures(samples, steps)
        sorted_groups = []
        for arms in self._groups(x):
            sorted_groups.append(self._measure_rows(x[arms], "x", steps, arms))
            within, pixels = measure_spreads(samples[arms].double(), self._coordinates)
            found["within"][arms, steps] = within
            found["pixels"][:, arms, steps] = pixels
        if self.law is None:
            return
        ordered = torch.cat(sorted_groups)
        bars = self.schedule.alpha_bars[self.times[steps]].tolist()
        laws = [self.law.marginal(bar) for bar in bars]
        start = 0
        # Alike in kind, and in size within a factor of 2.
        for _, alike in groupby(laws, lambda law: (law.exact, len(law.weights).bit_length())):
            part = list(alike)
            here = slice(start, start + len(part))
            there = slice(steps.start + start, steps.start + here.stop)
            apart, cells = measure_marginal(ordered[:, here].contiguous(), part, self._mergeable)
            found["ks_marginal"][:, there] = apart
            if cells is not None:
                found["marginal_cells"][:, there] = cells
            start = here.stop

    def _keep_pictures(self, samples: Tensor, steps: slice) -> None:
        """Of ``samples`` (A, times, B, values of one), what is kept as it is."""
        found = self._found
        if self._plane is not None:
            few = samples[:, :, : found["plane"].shape[2], None]
            found["plane"][:, steps] = (few * self._plane).sum(dim=-1)
        for i, t in enumerate(self.times[steps].tolist()):
            if t in self._framed:
                here = found["frames"][:, self._framed[t]]
                few = samples[:, i, : here.shape[1]].clamp(-1, 1)
                here[:] = few.add(1).mul(127.5).round().reshape(here.shape)
            if t in self._shown:
                here = found["snapshots"][:, self._shown[t]]
                units = samples[:, i, : here.shape[1]].double().div(SNAPSHOT_UNIT).round()
                here[:] = units.clamp(-32767, 32767).reshape(here.shape)

    def _measure_residuals(self) -> None:
        bars = self.schedule.alpha_bars[self.times[:-1]]
        trace = self._trace.reshape(*self._trace.shape[:2], -1)
        end = trace[:, -1:].double()
        together = max(1, self._limit // end.numel())
        for first in range(0, len(bars), together):
            steps = slice(first, min(first + together, len(bars)))
            bar = self._moved(bars[steps, None])
            residual = (trace[:, steps] - bar.sqrt() * end) / (1 - bar).sqrt()
            for arms in self._groups(residual):
                self._measure_rows(residual[arms].float(), "residual", steps, arms)

    def _measure_rows(self, x: Tensor, quantity: str, steps: slice, arms: slice = ALL) -> Tensor:
        """Measure ``x`` (arms, times, n); gives it sorted."""
        ordered = sorted_rows(x)
        rows, found = measure(ordered, self._bins, self._edges), self._found
        index = (arms, QUANTITIES.index(quantity), steps)
        found["counts"][index] = x.shape[-1]
        found["sums"][(ALL, *index)] = rows.sums
        found["ks"][index] = rows.distance
        found["histogram"][index] = rows.bins
        if rows.cells is not None:
            found["cells"][index] = rows.cells
        return ordered

    def _groups(self, x: Tensor) -> list[slice]:
        """All arms at once, or one by one when that many values leave the fast caches."""
        if x.numel() <= self._limit:
            return [ALL]
        return [slice(a, a + 1) for a in range(len(x))]

    def _moved(self, values: NDArray) -> Tensor:
        return to_device(values, self._device)
