"""Statistics of samples: arrays in, numbers out. numpy and scipy only, float64 inside.

Moments and counts are monoids: ``merge`` is associative, the empty one is its identity, and the
statistic of a whole equals the merged statistics of its parts. They are frozen; nothing that is
merged changes.

The Kolmogorov–Smirnov distance D = sup_x |F_n(x) − F(x)| is exact within one array. Arrays that
are never together in memory meet as counts on a `Grid`, from which D is known up to the mass of
one cell.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import kolmogi, kolmogorov, ndtr
from scipy.stats import kstwo

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

BUCKETS = 8192
"""Buckets of a grid on which arrays meet."""
SORTED = 2**14
"""Values up to which sorting all of them costs less than counting them in buckets first."""
CELLS = 2048
"""Cells of equal mass that counts are kept in. Together with the buckets that they are made of, no
cell of N(0, 1) weighs more than 1/1024."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and central sums Σ(x − mean)^k for k = 2, 3, 4, elementwise over any shape.

    Merged by the pairwise formulas of Pébay (SAND2008-6212, eq. 2.1), which stay accurate for a
    small spread around a large mean.
    """

    n: Array
    mean: Array
    m2: Array
    m3: Array
    m4: Array

    @classmethod
    def empty(cls, shape: tuple[int, ...] = ()) -> "Moments":
        """The identity of ``merge``."""
        return cls(*(np.zeros(shape) for _ in range(5)))

    @classmethod
    def of(cls, x: NDArray[np.floating]) -> "Moments":
        """Moments over the last axis of ``x``."""
        values = np.asarray(x, dtype=np.float64)
        mean = values.mean(axis=-1)
        centered = values - mean[..., None]
        squares = centered * centered
        return cls(
            np.full(mean.shape, float(values.shape[-1])),
            mean,
            squares.sum(axis=-1),
            np.einsum("...i,...i->...", squares, centered),
            np.einsum("...i,...i->...", squares, squares),
        )

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both samples together."""
        n = self.n + other.n
        safe = np.where(n > 0, n, 1)
        a, b = self.n / safe, other.n / safe
        delta = np.where((self.n > 0) & (other.n > 0), other.mean - self.mean, 0)
        mean = np.where(self.n > 0, self.mean, other.mean) + b * delta
        m2 = self.m2 + other.m2 + delta**2 * a * b * n
        m3 = (
            self.m3
            + other.m3
            + delta**3 * a * b * (a - b) * n
            + 3 * delta * (a * other.m2 - b * self.m2)
        )
        m4 = (
            self.m4
            + other.m4
            + delta**4 * a * b * (a * a - a * b + b * b) * n
            + 6 * delta**2 * (a * a * other.m2 + b * b * self.m2)
            + 4 * delta * (a * other.m3 - b * self.m3)
        )
        return Moments(n, mean, m2, m3, m4)

    @property
    def std(self) -> Array:
        """Standard deviation with n − 1; NaN below two values."""
        return np.sqrt(_ratio(self.m2, self.n - 1))

    @property
    def skewness(self) -> Array:
        """Third standardised moment (biased, as scipy's default); NaN for a constant sample."""
        return _ratio(_ratio(self.m3, self.n), _ratio(self.m2, self.n) ** 1.5)

    @property
    def kurtosis(self) -> Array:
        """Excess kurtosis (biased, as scipy's default); NaN for a constant sample."""
        return _ratio(_ratio(self.m4, self.n), _ratio(self.m2, self.n) ** 2) - 3


@dataclass(frozen=True)
class Spread:
    """Count, mean and Σ(x − mean)² per coordinate: the monoid behind means and stds.

    ``n`` is a number or has the shape of ``mean``.
    """

    n: Array
    mean: Array
    m2: Array

    @classmethod
    def of(cls, x: NDArray[np.floating], axis: int) -> "Spread":
        """Spread over one axis of ``x``."""
        values = np.asarray(x, dtype=np.float64)
        mean = values.mean(axis=axis, keepdims=True)
        m2 = ((values - mean) ** 2).sum(axis=axis)
        return cls(np.array(float(values.shape[axis])), mean.squeeze(axis), m2)

    def merge(self, other: "Spread") -> "Spread":
        """The spread of both samples together; both must hold values."""
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Spread(n, mean, self.m2 + other.m2 + delta**2 * (self.n * other.n / n))

    @property
    def std(self) -> Array:
        """Standard deviation with n − 1; NaN below two values."""
        return np.sqrt(_ratio(self.m2, np.broadcast_to(self.n - 1, self.m2.shape)))


def _ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.asarray(b) > 0)


@dataclass(frozen=True, eq=False)
class Grid:
    """Even buckets on [low, high] with the CDF of the null known at their edges.

    The two outer buckets reach to ±∞. The bucket of x is a monotone function of x, so the count
    below an edge is the rank there; only rounding in that function, at most ``SLACK`` of
    probability, separates the edge from its nominal place.
    """

    low: float
    high: float
    edge_cdf: Array
    cdf: Callable[[Array], Array] | None

    SLACK = 1e-5

    @classmethod
    def of(
        cls,
        cdf: Callable[[Array], Array],
        low: float,
        high: float,
        buckets: int = BUCKETS,
        exact: bool = True,
    ) -> "Grid":
        """The grid of ``buckets`` for a null with this CDF.

        With ``exact=False`` the CDF is never evaluated between edges, because it is costly or
        jumps there, and D is the largest |F_n − F| over the edges.
        """
        inner = cdf(np.linspace(low, high, buckets + 1)[1:-1])
        edge_cdf = np.concatenate([[0.0], inner, [1.0]])
        return cls(low, high, edge_cdf, cdf if exact else None)

    @property
    def buckets(self) -> int:
        """Their number."""
        return len(self.edge_cdf) - 1

    def ks(self, x: NDArray[np.floating]) -> tuple[float, Counts]:
        """(D, counts in cells) of a flat array of floats without NaN.

        The counts are for `ks_bounds`.
        """
        distance, filling = ks_distances(x[None, None], [self])
        return float(distance[0, 0]), self.cells(filling[0, 0])

    def cells(self, filling: NDArray[np.integer]) -> Counts:
        """Counts in cells (…, CELLS) from counts in buckets (…, buckets)."""
        counts = np.zeros((*filling.shape[:-1], CELLS), dtype=np.int64)
        counts[..., : len(self.cell_starts)] = np.add.reduceat(filling, self.cell_starts, axis=-1)
        return counts

    @cached_property
    def cell_starts(self) -> NDArray[np.intp]:
        """First bucket of each cell; a cell gathers buckets until it weighs 1/CELLS or more."""
        cell = np.minimum((self.edge_cdf[:-1] * CELLS).astype(np.intp), CELLS - 1)
        return np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]]))

    def ks_bounds(self, counts: NDArray[np.integer]) -> tuple[float, float]:
        """(lower, upper) bound of D, for counts (CELLS,) merged from any number of arrays."""
        edge = np.concatenate([self.edge_cdf[self.cell_starts], [1.0]])
        share = np.concatenate([[0], np.cumsum(counts[: len(self.cell_starts)])]) / counts.sum()
        filled = np.diff(share) > 0
        upper = np.maximum(share[1:] - edge[:-1], edge[1:] - share[:-1])[filled].max()
        return max(float(np.abs(share - edge).max()) - self.SLACK, 0.0), float(upper) + self.SLACK


@cache
def normal_grid(buckets: int = BUCKETS) -> Grid:
    """The grid for N(0, 1); with ``BUCKETS`` the one on which the arrays of a run meet."""
    return Grid.of(ndtr, -4.5, 4.5, buckets)


def fitting_buckets(n: int, most: int = BUCKETS) -> int:
    """The number of buckets, a power of 2, with which D of n values costs least.

    Edges cost as many as there are; the values left to sort are those within a bucket's mass of
    D ~ n^(−1/2), in all ~ n^(3/2) divided by the number of buckets. Both weigh alike near n^(3/4).
    """
    return 1 << min(max(round(np.log2(3 * n**0.75)), 7), most.bit_length() - 1)


def ks_distances(x: NDArray[np.floating], grids: Sequence[Grid]) -> tuple[Array, Counts]:
    """(D (G, R), counts in buckets (G, R, buckets)) of rows of floats (G, R, n) without NaN.

    The rows ``x[g]`` are compared with the null of ``grids[g]``; the grids are alike in the number
    of their buckets and all exact or none. Branch and bound: a bucket whose ranks and CDF range
    cannot reach the best |F_n − F| seen at an edge is left out, and only the values of the few
    others are sorted and evaluated.
    """
    groups, rows, n = x.shape
    buckets = grids[0].buckets
    filling, bucket = _counted(x, [g.low for g in grids], [g.high for g in grids], buckets)
    edge = np.stack([g.edge_cdf for g in grids])[:, None]
    counts = filling
    exact = grids[0].cdf is not None
    merged = max(buckets // fitting_buckets(n, buckets), 1) if exact else 1
    if merged > 1:  # more buckets than values can use; what remains costs less on fewer
        edge = edge[..., ::merged]
        counts = counts.reshape(groups, rows, -1, merged).sum(axis=-1)
        bucket //= merged
    rank = np.cumsum(counts, axis=-1)
    gap = np.zeros((groups, rows, counts.shape[-1] + 1))
    np.divide(rank, n, out=gap[..., 1:])
    gap -= edge
    distance = np.maximum(gap.max(axis=-1), -gap.min(axis=-1))
    if not exact:
        return distance, filling

    needed = (distance - 2 * Grid.SLACK)[..., None] - np.diff(edge)
    candidate = (gap[..., 1:] >= needed) | (gap[..., :-1] <= -needed)
    candidate &= counts > 0
    values = np.compress(candidate.reshape(-1)[bucket], x)  # sooner than by a mask
    sizes = counts[candidate]
    ends = np.cumsum(np.where(candidate, counts, 0).sum(axis=-1))
    starts = np.concatenate([[0], ends[:-1]])
    for start, end in zip(starts, ends, strict=True):
        values[start:end].sort()
    # Ranks run through a candidate bucket and jump over the buckets left out before it.
    jump = rank[candidate] - np.cumsum(sizes)
    above = np.arange(1, len(values) + 1) + np.repeat(jump, sizes)
    null = np.empty(len(values))
    for g, grid in enumerate(grids):
        group = slice(starts[g * rows], ends[g * rows + rows - 1])
        assert grid.cdf is not None
        null[group] = grid.cdf(values[group].astype(np.float64))
    highest = np.maximum(above / n - null, null - (above - 1) / n)
    return np.maximum.reduceat(highest, starts).reshape(groups, rows), filling


def _counted(
    x: NDArray[np.floating], low: Sequence[float], high: Sequence[float], buckets: int
) -> tuple[Counts, NDArray[np.intp]]:
    """(counts (G, R, buckets), flat index of every value's bucket among all of them).

    Even buckets on [low_g, high_g] for the rows x[g] (R, n); what lies outside, ±∞ included,
    falls into the outer ones.
    """
    groups, rows, _ = x.shape
    scale = buckets / np.subtract(high, low, dtype=np.float64)
    if x.dtype == np.float32:
        rounding = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32))
        if (rounding * scale).max() > 0.01:  # of a bucket
            x = x.astype(np.float64)
    with np.errstate(over="ignore"):
        position = x - np.array(low, dtype=x.dtype).reshape(-1, 1, 1)
        position *= scale.astype(x.dtype).reshape(-1, 1, 1)
    np.clip(position, 0, buckets - 1, out=position)
    bucket = position.astype(np.int32).astype(np.intp)  # in two steps, which is faster
    bucket += buckets * np.arange(groups * rows).reshape(groups, rows, 1)
    flat = bucket.reshape(-1)
    counts = np.bincount(flat, minlength=groups * rows * buckets)
    return counts.reshape(groups, rows, buckets), flat


def ks_statistic(x: ArrayLike) -> float:
    """Exact two-sided Kolmogorov–Smirnov distance of all values of ``x`` from N(0, 1).

    D = max_i max(i/n − Φ(x_(i)), Φ(x_(i)) − (i − 1)/n), what ``scipy.stats.kstest(x, "norm")``
    gives for the values as float64, many times as fast. NaN when any value is NaN.

    Raises:
        ValueError: ``x`` is empty or not real numbers.
    """
    values = np.asarray(x)
    if values.dtype.kind not in "fiub" or values.size == 0:
        raise ValueError(f"x is {values.dtype} of size {values.size}; allowed are real numbers")
    values = values.reshape(-1)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    smallest, largest = float(values.min()), float(values.max())  # NaN when any value is
    if np.isnan(smallest):
        return float("nan")
    if smallest == largest:
        values = values[:1]  # n equal values have the D of a single one
    if values.size <= SORTED or _sorting_is_quicker(values.dtype):
        return _by_sorting(values)
    return _by_counting(values, smallest, largest)


@cache
def _sorting_is_quicker(dtype: np.dtype[np.floating]) -> bool:
    """Whether D of many values is had sooner here by sorting them all: both ways, measured once.

    numpy sorts three times as fast on some processors as on others. Both give the same bits.
    """
    x = np.tanh(3 * np.random.default_rng(0).standard_normal(49_152)).astype(dtype)

    def seconds(way: Callable[[], float]) -> float:
        start = time.perf_counter()
        way()
        return time.perf_counter() - start

    sorting, counting = (
        min(seconds(way) for _ in range(4))
        for way in (lambda: _by_sorting(x), lambda: _by_counting(x, -1.0, 1.0))
    )
    return sorting < counting


def _by_counting(values: NDArray[np.floating], smallest: float, largest: float) -> float:
    """D from N(0, 1) of values from ``smallest`` to ``largest``, few of which are sorted."""
    buckets = fitting_buckets(values.size, 65_536)
    if smallest < -3 and largest > 3:
        grid = normal_grid(buckets)
    else:
        low, high = np.clip([smallest, largest], -9.0, 9.0)
        if low == high:  # all on one side
            low, high = np.clip([smallest, largest], -1e6, 1e6)
            high = max(high, low + 1)
        grid = Grid.of(ndtr, low, max(high, low + 1e-30), buckets)
    return float(ks_distances(values[None, None], [grid])[0][0, 0])


def _by_sorting(values: NDArray[np.floating]) -> float:
    """D of ``values`` from N(0, 1), all of which are sorted.

    Φ is evaluated at every 32nd value, then only between two of them where F_n and Φ, both of
    which rise, can be further apart than they were seen to be.
    """
    values, n = np.sort(values), len(values)
    seen = np.append(np.arange(0, n - 1, 32), n - 1)
    null = ndtr(values[seen].astype(np.float64))
    before, after = seen / n, (seen + 1) / n  # F_n on both sides of the value
    best = max((after - null).max(), (null - before).max())
    open_ = (after[1:] - null[:-1] > best) | (null[1:] - before[:-1] > best)
    index = (seen[:-1][open_, None] + np.arange(1, 32)).reshape(-1)
    index = np.minimum(index, n - 1)
    null = ndtr(values[index].astype(np.float64))
    highest = ((index + 1) / n - null).max(initial=best)
    return float((null - index / n).max(initial=highest))


def ks_pvalue(statistic: ArrayLike, n: ArrayLike) -> Array:
    """P(D ≥ statistic) for n independent values under the null.

    Kolmogorov's limit at v = z + 1/(6√n) + (z − 1)/(4n), z = √n·D (Vrbik 2018), with a relative
    error below 2 % where p ≥ 1e-2; below n = 100 the exact law.
    """
    d, n = np.broadcast_arrays(np.asarray(statistic, np.float64), np.asarray(n, np.float64))
    valid = np.isfinite(d) & (n > 0)
    size = np.where(valid, n, 100.0)
    z = np.sqrt(size) * np.where(valid, d, 0.0)
    p = kolmogorov(np.maximum(z + 1 / (6 * np.sqrt(size)) + (z - 1) / (4 * size), 0))
    small = valid & (size < 100)
    if small.any():
        p = np.array(p)
        p[small] = kstwo.sf(d[small], size[small])
    return np.where(valid, p, np.nan)


def ks_quantile(p: float, n: int) -> float:
    """The D that n independent values exceed with probability ``p``; the inverse of the above."""
    if n < 100:
        return float(kstwo.isf(p, n))
    z = (kolmogi(p) - 1 / (6 * np.sqrt(n)) + 1 / (4 * n)) / (1 + 1 / (4 * n))
    return float(z / np.sqrt(n))


def histogram(x: NDArray[np.floating], low: float, high: float, bins: int) -> Counts:
    """Counts on even bins over the last axis; values outside fall into the outer bins."""
    rows = x.reshape(1, -1, x.shape[-1])
    return _counted(rows, [low], [high], bins)[0].reshape(*x.shape[:-1], bins)
