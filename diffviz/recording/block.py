"""The statistics of a block of samples, and how blocks add up.

`BlockStats` is a frozen monoid of numpy arrays: ``merge`` is associative and changes nothing, so a
run does not depend on how its blocks were shared out.
"""

import copy
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffviz.diffusion.law import DataLaw
from diffviz.measure.moments import Moments, Spread
from diffviz.recording.run import NOTHING, QUANTITIES

BINS = 128
MAPPED = 256
"""Samples whose way through the plane of the data is kept."""
FRAMED = 8
"""Samples that are kept as pictures at many times."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BlockStats:
    """Statistics of A arms over S+1 times, S steps, for samples of shape D.

    Attributes:
        blocks: how many blocks are in it.
        n: samples per arm.
        moments: of x, ε̂ and the residual, (A, 3, S+1); no value counts 0.
        ks: D against N(0, 1), (A, 3, S+1); known in a single block only.
        cells: counts in the cells of N(0, 1), (A, 3, S+1, CELLS); none if never to be merged.
        histogram: counts on even bins for drawing, (A, 3, S+1, BINS).
        ks_marginal, marginal_cells: the same of x_t against q(x_t), (A, S+1[, CELLS]).
        pixels: spread of x_t per coordinate, (A, S+1, coordinates).
        coordinates: which of the D coordinates those are.
        within: Σ over samples of the variance within a sample, (A, S+1).
        noise, noise_ks, noise_cells: of the shared draw z, (S,), (S,), (S, CELLS).
        snapshots: (A, snapshots, kept, *D), int16 in `run.SNAPSHOT_UNIT`.
        plane: x_t of a few samples along two directions, (A, S+1, few, 2) float32.
        frames: a few samples at many times as pictures, (A, frames, few, *D) uint8; none of them
            unless samples are images.
        samples: end points of the samples kept, (A, kept, *D) float32.
        nearest: spread over samples of the RMS distance to the nearest data, (A,).
        hits: which data were nearest to some sample, (A, N) bool; N = 0 when unknown.
        class_counts: samples by the class of their nearest data, (A, classes).
        ends: index of the step that gave no finite state, (A,); S for an arm that is whole.
    """

    blocks: int
    n: int
    moments: Moments
    ks: Array
    cells: NDArray[np.uint32]
    histogram: NDArray[np.uint32]
    ks_marginal: Array
    marginal_cells: NDArray[np.uint32]
    pixels: Spread
    coordinates: NDArray[np.int64]
    within: Array
    noise: Moments
    noise_ks: Array
    noise_cells: NDArray[np.uint32]
    snapshots: NDArray[np.int16]
    plane: NDArray[np.float32]
    frames: NDArray[np.uint8]
    samples: NDArray[np.float32]
    nearest: Spread
    hits: NDArray[np.bool_]
    class_counts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def empty(
        cls,
        arms: int,
        times: int,
        n: int,
        shape: tuple[int, ...],
        *,
        coordinates: NDArray[np.int64],
        cells: int,
        kept: int,
        snapshots: int,
        mapped: int,
        frames: tuple[int, int],
    ) -> "BlockStats":
        """One block of ``n`` samples of which nothing is known yet.

        ``times`` is S+1; ``cells``, ``kept``, ``snapshots``, ``mapped`` and ``frames`` are sizes.
        """
        over_t, quantities = (arms, times), (arms, len(QUANTITIES), times)
        per_pixel = np.full((*over_t, len(coordinates)), np.nan)
        return cls(
            blocks=1,
            n=n,
            moments=Moments.empty(quantities),
            ks=np.full(quantities, np.nan),
            cells=np.zeros((*quantities, cells), np.uint32),
            histogram=np.zeros((*quantities, BINS), np.uint32),
            ks_marginal=np.full(over_t, np.nan),
            marginal_cells=np.zeros((*over_t, cells), np.uint32),
            pixels=Spread(float(n), per_pixel, per_pixel.copy()),
            coordinates=coordinates,
            within=np.full(over_t, np.nan),
            noise=Moments.empty((times - 1,)),
            noise_ks=np.full(times - 1, np.nan),
            noise_cells=np.zeros((times - 1, cells), np.uint32),
            snapshots=np.full((arms, snapshots, kept, *shape), NOTHING, np.int16),
            plane=np.full((*over_t, mapped, 2), np.nan, np.float32),
            frames=np.zeros((arms, *frames, *shape), np.uint8),
            samples=np.full((arms, kept, *shape), np.nan, np.float32),
            nearest=Spread(1.0, np.full(arms, np.nan), np.full(arms, np.nan)),
            hits=np.zeros((arms, 0), bool),
            class_counts=np.zeros((arms, 0), np.int64),
            ends=np.full(arms, times - 1),
        )

    def merge(self, other: "BlockStats", keep: int) -> "BlockStats":
        """These followed by ``other``, with at most ``keep`` samples kept as they are."""

        def joined(name: str, axis: int, most: int) -> Any:
            both = np.concatenate([getattr(self, name), getattr(other, name)], axis)
            return np.take(both, np.arange(min(most, both.shape[axis])), axis)

        return BlockStats(
            blocks=self.blocks + other.blocks,
            n=self.n + other.n,
            moments=self.moments.merge(other.moments),
            ks=np.full_like(self.ks, np.nan),
            cells=self.cells + other.cells,
            histogram=self.histogram + other.histogram,
            ks_marginal=np.full_like(self.ks_marginal, np.nan),
            marginal_cells=self.marginal_cells + other.marginal_cells,
            pixels=self.pixels.merge(other.pixels),
            coordinates=self.coordinates,
            within=self.within + other.within,
            noise=self.noise.merge(other.noise),
            noise_ks=np.full_like(self.noise_ks, np.nan),
            noise_cells=self.noise_cells + other.noise_cells,
            snapshots=joined("snapshots", 2, keep),
            plane=joined("plane", 2, MAPPED),
            frames=joined("frames", 2, FRAMED),
            samples=joined("samples", 1, keep),
            nearest=self.nearest.merge(other.nearest),
            hits=self.hits | other.hits,
            class_counts=self.class_counts + other.class_counts,
            ends=np.minimum(self.ends, other.ends),
        )

    def cut(self, shown: NDArray[np.int64], framed: NDArray[np.int64]) -> "BlockStats":
        """Without what broken arms have after their end: no counts, NaN, no end points.

        x_t is kept up to the time that the last step left from, ε̂ before it; the residual, which
        needs an end point, nowhere. ``shown`` and ``framed`` are the indices of the times of the
        snapshots and frames; a frame after the end is black.
        """
        steps = self.moments.n.shape[-1] - 1
        if (self.ends == steps).all():
            return self
        stats = copy.deepcopy(self)
        for arm, end in enumerate(self.ends.tolist()):
            if end >= steps:
                continue
            for quantity, start in enumerate((end + 1, end, 0)):
                after = (arm, quantity, slice(start, None))
                for field in fields(Moments):
                    getattr(stats.moments, field.name)[after] = 0
                stats.ks[after], stats.cells[after], stats.histogram[after] = np.nan, 0, 0
            after_x = (arm, slice(end + 1, None))
            stats.ks_marginal[after_x], stats.marginal_cells[after_x] = np.nan, 0
            stats.pixels.mean[after_x] = stats.pixels.m2[after_x] = np.nan
            stats.within[after_x] = stats.plane[after_x] = np.nan
            stats.snapshots[arm, shown > end] = NOTHING
            stats.frames[arm, framed > end] = 0
            stats.samples[arm] = stats.nearest.mean[arm] = stats.nearest.m2[arm] = np.nan
            stats.hits[arm], stats.class_counts[arm] = False, 0
        return stats


def nearest_data(stats: BlockStats, ends: NDArray[np.float32], law: DataLaw | None) -> BlockStats:
    """With distances to, hits of, and classes of the data nearest to ``ends`` (A, B, *D)."""
    if law is None or law.points is None:
        return stats
    arms = len(ends)
    flat = ends.reshape(arms, ends.shape[1], -1)
    target = law.points.reshape(len(law.points), -1)
    squares = np.einsum("nd,nd->n", target, target)
    hits = np.zeros((arms, len(target)), dtype=bool)
    counts = np.zeros((arms, len(law.classes)), dtype=np.int64)
    distances = np.empty(flat.shape[:2])
    for a, samples in enumerate(flat):
        for start in range(0, len(samples), 1024):
            rows = samples[start : start + 1024]
            index = (squares - 2 * rows @ target.T).argmin(axis=1)
            apart = ((rows - target[index]) ** 2).mean(axis=1)
            distances[a, start : start + 1024] = np.sqrt(apart)
            hits[a, index] = True
            if law.labels is not None and law.classes:
                counts[a] += np.bincount(law.labels[index], minlength=len(law.classes))
    nearest = Spread.of(distances, axis=1)
    return replace(stats, nearest=nearest, hits=hits, class_counts=counts)
