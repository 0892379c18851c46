"""The Kolmogorov–Smirnov distance D = sup_x |F_n(x) − F(x)| between a sample and a law.

D is exact within one array. Arrays that are never together in memory meet as counts in the cells
between fixed edges: F_n is then known at the edges, and D up to what one cell holds.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import kolmogi, kolmogorov, ndtr
from scipy.stats import kstwo

Array = NDArray[np.float64]
CELLS = 1024
"""Between the edges of a law, the two outer ones included."""
SIMPLE = 8
"""Components of a law up to which its CDF is evaluated at every value."""
GRID, REACH = 512, 8
"""Cells per unit of the grid on which values are counted first, which ends at ±REACH."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Σ_k weights_k N(locations_k, scales_k²) on the line; a component of scale 0 is an atom.

    Attributes:
        locations, scales, weights: (K,); the weights sum to 1.
    """

    locations: Array
    scales: Array
    weights: Array

    def cdf(self, x: Array) -> Array:
        """F(x) = Σ_k weights_k Φ((x − locations_k)/scales_k), for x of any shape."""
        return np.tensordot(self.weights, component_cdf(x, self.locations, self.scales), 1)

    @property
    def exact(self) -> bool:
        """Whether D is taken over all values; else over the edges, where F jumps or is costly."""
        return len(self.locations) <= SIMPLE and bool(self.scales.min() > 0)

    @cached_property
    def edges(self) -> Array:
        """``CELLS`` − 1 rising edges; those that are not needed are infinite.

        They part an exact law into cells of equal mass, atoms at the middles between them, and any
        other law evenly.
        """
        edges = np.full(CELLS - 1, np.inf)
        if self.scales.min() == 0:
            places = np.unique(self.locations)
            half = np.diff(places).min(initial=0.02) / 2
            middles = (places[1:] + places[:-1]) / 2
            found = np.concatenate([[places[0] - half], middles, [places[-1] + half]])
            edges[: len(found)] = found[: len(edges)]
            return edges
        low = (self.locations - 5 * self.scales).min()
        high = (self.locations + 5 * self.scales).max()
        if not self.exact:
            return np.linspace(low, high, CELLS + 1)[1:-1]
        grid = np.linspace(low, high, 8 * CELLS + 1)
        return np.interp(np.arange(1, CELLS) / CELLS, self.cdf(grid), grid)

    @cached_property
    def edge_cdf(self) -> Array:
        """F at −∞, at the ``edges``, and at ∞: (CELLS + 1,)."""
        return np.concatenate([[0.0], self.cdf(self.edges), [1.0]])


NORMAL = Mixture(np.zeros(1), np.ones(1), np.ones(1))
"""N(0, 1)."""


def component_cdf(x: Array, locations: Array, scales: Array) -> Array:
    """Φ((x − location)/scale), a step where the scale is 0: (K, *shape of x)."""
    column = (-1, *[1] * np.ndim(x))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (x - locations.reshape(column)) / scales.reshape(column)
    return ndtr(np.where(np.isnan(z), np.inf, z))


def ks_statistic(x: ArrayLike) -> float:
    """Exact two-sided Kolmogorov–Smirnov distance of all values of ``x`` from N(0, 1).

    D = max_i max(i/n − Φ(x_(i)), Φ(x_(i)) − (i − 1)/n), what ``scipy.stats.kstest(x, "norm")``
    gives for the values as float64. NaN when any value is NaN.

    Counting on a grid gives F_n and Φ at its edges. Between two edges both only rise, so only the
    values of cells where they can be further apart than at some edge are sorted and looked at.

    Raises:
        ValueError: ``x`` is empty or not real numbers.
    """
    values = np.asarray(x).reshape(-1)
    if values.dtype.kind not in "fiub" or values.size == 0:
        raise ValueError(f"x is {values.dtype} of size {values.size}; allowed are real numbers")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    places = np.clip(values, -REACH - 1 / GRID, REACH)
    places *= GRID  # exact: GRID is a power of 2
    if np.isnan(places.sum()):
        return float("nan")
    cell = np.floor(places, out=places).astype(np.int32)
    cell += REACH * GRID + 1
    null, n = _grid_cdf(), values.size
    counts = np.bincount(cell, minlength=len(null) - 1)
    before = np.concatenate([[0], np.cumsum(counts)])  # values below each edge
    share = before / n
    best = np.abs(share - null).max()
    open_ = np.maximum(share[1:] - null[:-1], null[1:] - share[:-1]) > best
    few, kept = np.sort(values[np.flatnonzero(open_[cell])]), counts[open_]
    rank = np.arange(len(few)) + np.repeat(before[:-1][open_] - np.cumsum(kept) + kept, kept)
    null = ndtr(few.astype(np.float64))
    highest = ((rank + 1) / n - null).max(initial=best)
    return float((null - rank / n).max(initial=highest))


@cache
def _grid_cdf() -> Array:
    """Φ at −∞, at the edges of the grid, and at ∞."""
    edges = np.arange(-REACH * GRID, REACH * GRID + 1) / GRID
    return np.concatenate([[0.0], ndtr(edges), [1.0]])


def ks_of_counts(counts: NDArray[np.integer], law: Mixture) -> tuple[float, float]:
    """(D, half-width of its bounds) from the counts (CELLS,) between the edges of ``law``.

    D is at least the largest |F_n − F| over the edges, and that is what D means where the law is
    not exact. It is at most what F_n and F can be apart within a cell that holds a value.
    """
    edge = law.edge_cdf
    share = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    low = float(np.abs(share - edge).max())
    if not law.exact:
        return low, 0.0
    filled = counts > 0
    high = float(np.maximum(share[1:] - edge[:-1], edge[1:] - share[:-1])[filled].max())
    return (low + high) / 2, (high - low) / 2


def ks_pvalue(statistic: ArrayLike, n: ArrayLike) -> Array:
    """P(D ≥ statistic) for n independent values under the null.

    Kolmogorov's limit at v = z + 1/(6√n) + (z − 1)/(4n), z = √n·D (Vrbik 2018), with a relative
    error below 2 % where p ≥ 1e-2; below n = 100 the exact law.
    """
    d, n = np.broadcast_arrays(np.asarray(statistic, np.float64), np.asarray(n, np.float64))
    valid = np.isfinite(d) & (n > 0)
    size = np.where(valid, n, 100.0)
    z = np.sqrt(size) * np.where(valid, d, 0.0)
    p = np.array(kolmogorov(np.maximum(z + 1 / (6 * np.sqrt(size)) + (z - 1) / (4 * size), 0)))
    small = valid & (size < 100)
    if small.any():
        p[small] = kstwo.sf(d[small], size[small])
    return np.where(valid, p, np.nan)


def ks_quantile(p: float, n: int) -> float:
    """The D that n independent values exceed with probability ``p``; the inverse of the above."""
    if n < 100:
        return float(kstwo.isf(p, n))
    z = (kolmogi(p) - 1 / (6 * np.sqrt(n)) + 1 / (4 * n)) / (1 + 1 / (4 * n))
    return float(z / np.sqrt(n))
