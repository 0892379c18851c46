"""The statistics of a block of samples, and how blocks add up.

`BlockStats` is a frozen monoid of numpy arrays: ``merge`` is associative and changes nothing, so a
run does not depend on how its blocks were shared out.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from diffviz.diffusion.law import DataLaw
from diffviz.measure.ks import CELLS
from diffviz.measure.moments import Moments
from diffviz.recording.run import NOTHING

BINS = 128
MEMORY = 64 * 2**20
"""Bytes that a block may keep of its trajectories."""
MAPPED = 256
"""Samples whose way through the plane of the data is kept."""
FRAMED = 8
"""Samples that are kept as pictures at many times."""

Array = NDArray[np.float64]
Counts = NDArray[np.uint32]


class Layout(NamedTuple):
    """Of an array: its dimensions, its initial value and type, and how two are merged.

    ``merge`` is None for arrays over the samples that are kept, which are joined, and for those
    that `Moments` merge.
    """

    dims: str
    fill: Any
    dtype: Any
    merge: Callable[[Any, Any], Any] | None = None


def _unknown(one: Array, other: Array) -> Array:
    return np.full_like(one, np.nan)


def _first(one: Any, other: Any) -> Any:
    return one


@dataclass(frozen=True, eq=False)
class BlockStats:
    """Statistics of A arms over S+1 times, S steps, for samples of shape D.

    Attributes:
        blocks: how many blocks are in it.
        n: samples per arm.
        keep: how many samples are kept as they are, at most.
        counts, sums: `Moments` of x, ε̂ and the residual, (A, 3, S+1), (4, A, 3, S+1).
        ks: D against N(0, 1), (A, 3, S+1); known in a single block only.
        cells: counts in the cells of N(0, 1), (A, 3, S+1, CELLS); none if never to be merged.
        histogram: counts on even bins for drawing, (A, 3, S+1, BINS).
        ks_marginal, marginal_cells: the same of x_t against q(x_t), (A, S+1[, CELLS]).
        pixels: sums of x_t between samples, per coordinate, (2, A, S+1, coordinates).
        coordinates: which of the D coordinates those are.
        within: Σ over samples of the variance within a sample, (A, S+1).
        noise, noise_ks, noise_cells: of the shared draw z, (2, S), (S,), (S, CELLS).
        snapshots: (A, snapshots, kept, *D), int16 in `run.SNAPSHOT_UNIT`.
        plane: x_t of a few samples along two directions, (A, S+1, few, 2).
        frames: a few samples at many times as pictures, (A, frames, few, *D); none of them unless
            samples are images.
        samples: end points of the samples kept, (A, kept, *D).
        nearest: Σ over samples of the RMS distance to the nearest data, (A,).
        hits: which data were nearest to some sample, (A, N); N = 0 when unknown.
        class_counts: samples by the class of their nearest data, (A, classes).
        ends: index of the step that gave no finite state, (A,); S for an arm that is whole.
    """

    blocks: int
    n: int
    keep: int
    counts: Annotated[Array, Layout("arm quantity t", 0, float, np.add)]
    sums: Annotated[Array, Layout("power arm quantity t", 0, float)]
    ks: Annotated[Array, Layout("arm quantity t", np.nan, float, _unknown)]
    cells: Annotated[Counts, Layout("arm quantity t cell", 0, np.uint32, np.add)]
    histogram: Annotated[Counts, Layout("arm quantity t bin", 0, np.uint32, np.add)]
    ks_marginal: Annotated[Array, Layout("arm t", np.nan, float, _unknown)]
    marginal_cells: Annotated[Counts, Layout("arm t cell", 0, np.uint32, np.add)]
    pixels: Annotated[Array, Layout("moment arm t coordinate", np.nan, float)]
    coordinates: Annotated[NDArray[np.int64], Layout("coordinate", 0, np.int64, _first)]
    within: Annotated[Array, Layout("arm t", np.nan, float, np.add)]
    noise: Annotated[Array, Layout("moment step", 0, float)]
    noise_ks: Annotated[Array, Layout("step", np.nan, float, _unknown)]
    noise_cells: Annotated[Counts, Layout("step cell", 0, np.uint32, np.add)]
    snapshots: Annotated[NDArray[np.int16], Layout("arm snapshot kept *", NOTHING, np.int16)]
    plane: Annotated[NDArray[np.float32], Layout("arm t mapped axis", np.nan, np.float32)]
    frames: Annotated[NDArray[np.uint8], Layout("arm frame framed *", 0, np.uint8)]
    samples: Annotated[NDArray[np.float32], Layout("arm kept *", np.nan, np.float32)]
    nearest: Annotated[Array, Layout("arm", np.nan, float, np.add)]
    hits: Annotated[NDArray[np.bool_], Layout("arm member", False, bool, np.logical_or)]
    class_counts: Annotated[NDArray[np.int64], Layout("arm class", 0, np.int64, np.add)]
    ends: Annotated[NDArray[np.int64], Layout("arm", 0, np.int64, np.minimum)]

    @classmethod
    def empty(
        cls, n: int, keep: int, sizes: Mapping[str, int], shape: tuple[int, ...]
    ) -> "BlockStats":
        """One block of ``n`` samples of ``shape`` of which nothing is known yet.

        ``sizes`` are those of the dimensions named above, but for two that are always the same.
        """
        sizes = {**sizes, "power": 4, "moment": 2}
        arrays = {}
        for name, (dims, fill, dtype, _) in ARRAYS.items():
            lengths = [shape if dim == "*" else (sizes[dim],) for dim in dims.split()]
            arrays[name] = np.full(sum(lengths, ()), fill, dtype)
        arrays["ends"][:] = sizes["step"]
        return cls(1, n, keep, **arrays)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def moments(self) -> Moments:
        """Of x, ε̂ and the residual, (A, 3, S+1)."""
        return Moments(self.counts, self.sums)

    @property
    def between(self) -> Moments:
        """Of every coordinate of x_t, over samples, (A, S+1, coordinates)."""
        return Moments(self.n, self.pixels)

    @property
    def drawn(self) -> Moments:
        """Of all values of the shared draw z, (S,)."""
        return Moments(self.n * math.prod(self.samples.shape[2:]), self.noise)

    def merge(self, other: "BlockStats") -> "BlockStats":
        """These followed by ``other``.

        Raises:
            ValueError: the sizes differ.
        """
        most = {"kept": self.keep, "mapped": MAPPED, "framed": FRAMED}
        merged: dict[str, Any] = {}
        for name, layout in ARRAYS.items():
            one, two = getattr(self, name), getattr(other, name)
            dims = layout.dims.split()
            axis = next((i for i, dim in enumerate(dims) if dim in most), None)
            if axis is not None:
                both = np.concatenate([one, two], axis)
                count = min(most[dims[axis]], both.shape[axis])
                merged[name] = np.take(both, np.arange(count), axis)
            elif one.shape != two.shape:
                raise ValueError(f"{name} has the shapes {one.shape} and {two.shape}")
            elif layout.merge is not None:
                merged[name] = layout.merge(one, two)
        for name, of in (("sums", "moments"), ("pixels", "between"), ("noise", "drawn")):
            merged[name] = getattr(self, of).merge(getattr(other, of)).sums
        return BlockStats(self.blocks + other.blocks, self.n + other.n, self.keep, **merged)

    def cut(self, shown: NDArray[np.int64], framed: NDArray[np.int64]) -> "BlockStats":
        """Without what broken arms have after their end: no counts, NaN, no end points.

        x_t is kept up to the time that the last step left from, ε̂ before it; the residual, which
        needs an end point, nowhere. ``shown`` and ``framed`` are the indices of the times of the
        snapshots and frames; a frame after the end is black.
        """
        steps = self.counts.shape[-1] - 1
        broken = [(arm, end) for arm, end in enumerate(self.ends.tolist()) if end < steps]
        stats = copy.deepcopy(self) if broken else self
        for arm, end in broken:
            for quantity, start in enumerate((end + 1, end, 0)):
                after = (arm, quantity, slice(start, None))
                stats.counts[after] = stats.cells[after] = stats.histogram[after] = 0
                stats.ks[after], stats.sums[(slice(None), *after)] = np.nan, 0
            rest = (arm, slice(end + 1, None))
            stats.ks_marginal[rest] = stats.within[rest] = stats.plane[rest] = np.nan
            stats.pixels[(slice(None), *rest)] = np.nan
            stats.snapshots[arm, shown > end] = NOTHING
            stats.marginal_cells[rest] = stats.frames[arm, framed > end] = 0
            stats.samples[arm] = stats.nearest[arm] = np.nan
            stats.hits[arm], stats.class_counts[arm] = False, 0
        return stats


ARRAYS: dict[str, Layout] = {
    name: kind.__metadata__[0]
    for name, kind in get_type_hints(BlockStats, include_extras=True).items()
    if hasattr(kind, "__metadata__")
}


def usual_block(size: int) -> int:
    """Samples per block where nobody says: 64 images, more of samples of fewer values."""
    return max(64, min(16384, 49152 // size))


def kept_samples(n: int, size: int) -> int:
    """How many of ``n`` samples of ``size`` values are kept as they are."""
    return min(n, max(256, 2**16 // size))


def block_bytes(arms: int, block: int, size: int, points: int, merged: bool) -> int:
    """About what a block of ``arms`` × ``block`` samples of ``size`` values needs in memory.

    Its states a few times over, its curves and spreads at all ``points``, the trajectories kept,
    and the counts by which it is merged.
    """
    states = 80 * arms * block * size
    curves = arms * points * (6000 + 32 * min(size, 4096))
    counts = 10 * 4 * CELLS * (4 * arms + 1) * points if merged else 0
    return states + curves + counts + min(MEMORY, 4 * arms * block * size * points)


def find_nearest(stats: BlockStats, ends: NDArray[np.float32], law: DataLaw) -> None:
    """Fill in which of the data lie nearest to the end points ``ends`` (A, B, *D)."""
    assert law.points is not None
    target = law.points.reshape(len(law.points), -1)
    squares = np.einsum("nd,nd->n", target, target)
    stats.nearest[:] = 0
    for a, samples in enumerate(ends.reshape(*ends.shape[:2], -1)):
        for rows in np.array_split(samples, -(-len(samples) // 1024)):
            index = (squares - 2 * rows @ target.T).argmin(axis=1)
            apart = ((rows - target[index]) ** 2).mean(axis=1)
            stats.nearest[a] += np.sqrt(apart).sum(dtype=np.float64)
            stats.hits[a, index] = True
            if stats.class_counts.size and law.labels is not None:
                kinds = law.labels[index]
                stats.class_counts[a] += np.bincount(kinds, minlength=len(law.classes))
