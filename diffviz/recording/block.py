r"""Several steps described at once: moments, D, counts and spreads of float32 values.

The same numbers, up to rounding, by two ways: `OnHost` works with numpy, at once. `OnDevice`
leaves the work to the device that holds the values, and nothing waits for it: its answers are
tensors there, and whoever wants their numbers asks for them later. Arrays lead with (times, arms).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from diffviz.diffusion.law import DataLaw
from diffviz.measure.statistics import (
    CELLS,
    Grid,
    Moments,
    Spread,
    histogram,
    ks_distances,
    normal_grid,
)
from diffviz.recording.tally import BINS

Array = NDArray[np.float64]
Values = Any
"""NDArray on the host, Tensor on a device."""


class Description(NamedTuple):
    """Of rows of n values: their moments, D against N(0, 1), and counts.

    ``m2``, ``m3`` and ``m4`` are Σ(x − mean)^k.
    ``cells`` are counts on the grid of N(0, 1), None unless blocks are to be merged. ``bins`` are
    even and reach from one given edge to another, the outer ones to infinity.
    """

    n: Values
    mean: Values
    m2: Values
    m3: Values
    m4: Values
    distance: Values
    cells: Values
    bins: Values


class OnHost:
    """By numpy.

    Args:
        buckets: of the grid of N(0, 1) and of those of the marginals.
        merging: whether counts in cells are wanted.
        edges: of the bins.
        data: the law behind the marginals.
    """

    together = 2**17
    """Values described in one go, so that small samples do not pay for many small calls."""

    def __init__(self, buckets: int, merging: bool, edges: Array, data: DataLaw | None) -> None:
        self.grid, self.merging, self.data = normal_grid(buckets), merging, data
        self.ends = float(edges[0]), float(edges[-1])

    def values(self, tensor: Tensor) -> Values:
        """The same values in the form that this class works with."""
        return tensor.numpy()

    def wide(self, values: Values) -> Values:
        """In float64."""
        return values.astype(np.float64)

    def describe(self, values: Values, wide: Values) -> Description:
        """Of ``values`` (times, arms, n); ``wide`` is their float64."""
        moments, shape = Moments.of(wide), values.shape[:2]
        distance, filling = ks_distances(values.reshape(1, -1, values.shape[-1]), [self.grid])
        filling = filling.reshape(*shape, -1)
        if self.ends == (self.grid.low, self.grid.high):
            bins = filling.reshape(*shape, BINS, -1).sum(axis=-1)
        else:
            bins = histogram(values, *self.ends, BINS)
        cells = self.grid.cells(filling) if self.merging else None
        parts = (moments.n, moments.mean, moments.m2, moments.m3, moments.m4)
        return Description(*parts, distance.reshape(shape), cells, bins)

    def marginal(self, values: Values, bars: Array) -> Iterator[tuple[slice, Values, Values]]:
        """(times, D against q(x_t), counts in cells of its grid or None), for ᾱ_t = ``bars``."""
        assert self.data is not None
        grids = [self.data.marginal_grid(float(bar), self.grid.buckets) for bar in bars]
        for chosen in _alike([(grid.buckets, grid.cdf is None) for grid in grids]):
            distance, filling = ks_distances(values[chosen], grids[chosen])
            cells = None
            if self.merging:
                parts = zip(grids[chosen], filling, strict=True)
                cells = np.stack([grid.cells(counts) for grid, counts in parts])
            yield chosen, distance, cells

    def spreads(self, samples: Values, coordinates: Values) -> tuple[Values, Values, Values]:
        """(Σ of variances within a sample, mean and Σ(x − mean)² per coordinate between samples).

        ``samples`` (times, arms, B, values of one) in float64; ``coordinates`` are those of a
        sample to look at between samples, None for all.
        """
        across, along = 2, 3
        if samples.shape[2] > samples.shape[3]:  # the longer axis last, where sums are fast
            samples = np.ascontiguousarray(samples.swapaxes(2, 3))
            across, along = 3, 2
        within = np.square(Spread.of(samples, axis=along).std).sum(axis=-1)
        if coordinates is not None:
            samples = samples.take(coordinates, axis=along)
        spread = Spread.of(samples, axis=across)
        return within, spread.mean, spread.m2

    def residual(self, states: Values, end: Values, bars: Array) -> tuple[Values, Values]:
        """(x_t − √ᾱ_t x_0)/√(1 − ᾱ_t) in float32 and float64; ``end`` is x_0 in float64."""
        bar = bars[:, None, None]
        wide = (states - np.sqrt(bar) * end) / np.sqrt(1 - bar)
        return wide.astype(np.float32), wide


class OnDevice:
    """By torch, on the device of the values. Arguments and methods as of `OnHost`.

    Values are sorted, so that D is exact, and counts are ranks of edges among them.
    """

    together = 2**22

    def __init__(
        self,
        buckets: int,
        merging: bool,
        edges: Array,
        data: DataLaw | None,
        device: torch.device,
    ) -> None:
        self.buckets, self.merging, self.data, self.device = buckets, merging, data, device
        self._bins = self._moved(edges[1:-1])
        self._grid = normal_grid(buckets)

    def values(self, tensor: Tensor) -> Values:
        """The tensor itself."""
        return tensor

    def wide(self, values: Values) -> Values:
        """In float64."""
        return values.double()

    def describe(self, values: Values, wide: Values) -> Description:
        """As `OnHost.describe`."""
        mean = wide.mean(dim=-1)
        centered = wide - mean[..., None]
        squares = centered * centered
        m3, m4 = (squares * centered).sum(dim=-1), (squares * squares).sum(dim=-1)
        ordered = values.sort(dim=-1).values.double()
        distance = _distance(ordered, torch.special.ndtr(ordered))
        cells = self._cells(ordered, [self._grid]) if self.merging else None
        bins = _counts(ordered, self._bins)
        m2, n = squares.sum(dim=-1), np.full(values.shape[:2], float(values.shape[-1]))
        return Description(n, mean, m2, m3, m4, distance, cells, bins)

    def marginal(self, values: Values, bars: Array) -> Iterator[tuple[slice, Values, Values]]:
        """As `OnHost.marginal`."""
        assert self.data is not None
        plans = [self.data.marginal_plan(float(bar), self.buckets) for bar in bars]
        for chosen in _alike([(plan.buckets, plan.exact) for plan in plans]):
            few = plans[chosen]
            # (shift, scale, weight) by component by time; components too many weigh nothing.
            law = np.zeros((3, max(len(plan.weights) for plan in few), len(few), 1, 1))
            law[1] = 1
            for i, plan in enumerate(few):
                law[:, : len(plan.weights), i, 0, 0] = plan.shifts, plan.scales, plan.weights
            components = self._moved(law)
            ordered = values[chosen].sort(dim=-1).values.double()
            if few[0].exact:
                distance = _distance(ordered, _mixture(components, ordered))
            else:
                edges = self._moved(np.stack([plan.edges for plan in few])[:, None])
                rank = _counts(ordered, edges)[..., :-1].cumsum(dim=-1)
                gap = rank / ordered.shape[-1] - _mixture(components, edges)
                distance = gap.abs().amax(dim=-1)
            cells = None
            if self.merging:
                bars_here = bars[chosen].tolist()
                grids = [self.data.marginal_grid(bar, self.buckets) for bar in bars_here]
                cells = self._cells(ordered, grids)
            yield chosen, distance, cells

    def spreads(self, samples: Values, coordinates: Values) -> tuple[Values, Values, Values]:
        """As `OnHost.spreads`."""
        size = samples.shape[-1]
        m2 = (samples - samples.mean(dim=-1, keepdim=True)).square().sum(dim=-1)
        within = m2 / (size - 1) if size > 1 else torch.full_like(m2, float("nan"))
        if coordinates is not None:
            samples = samples.index_select(-1, self._moved(coordinates))
        mean = samples.mean(dim=2)
        m2 = (samples - mean[:, :, None]).square().sum(dim=2)
        return within.sum(dim=-1), mean, m2

    def residual(self, states: Values, end: Values, bars: Array) -> tuple[Values, Values]:
        """As `OnHost.residual`."""
        bar = self._moved(bars[:, None, None])
        wide = (states - bar.sqrt() * end) / (1 - bar).sqrt()
        return wide.float(), wide

    def _cells(self, ordered: Tensor, grids: list[Grid]) -> Tensor:
        """Counts in cells (times, arms, CELLS) on the grid of each time, or on one for all."""
        edges = np.full((len(grids), 1, CELLS - 1), np.inf)
        for row, grid in zip(edges[:, 0], grids, strict=True):
            starts = grid.cell_starts[1:]
            row[: len(starts)] = np.linspace(grid.low, grid.high, grid.buckets + 1)[starts]
        return _counts(ordered, self._moved(edges))

    def _moved(self, values: NDArray[np.generic]) -> Tensor:
        """On the device, without waiting for what it does."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def statistics_on(
    device: str, buckets: int, merging: bool, edges: Array, data: DataLaw | None
) -> OnHost | OnDevice:
    """The way for values on ``device``; the other arguments are those of `OnHost`."""
    where = torch.device(device)
    if where.type == "cpu":
        return OnHost(buckets, merging, edges, data)
    return OnDevice(buckets, merging, edges, data, where)


def on_host(found: Any) -> Any:
    """The same with numpy arrays for tensors, which must be waited for."""
    if isinstance(found, Description):
        return Description(*map(on_host, found))
    return found.cpu().numpy() if isinstance(found, Tensor) else found


def _alike(kinds: list[tuple[int, bool]]) -> Iterator[slice]:
    """Runs of neighbours of one kind."""
    first = 0
    for last in range(1, len(kinds) + 1):
        if last == len(kinds) or kinds[last] != kinds[first]:
            yield slice(first, last)
            first = last


def _distance(ordered: Tensor, null: Tensor) -> Tensor:
    """max_i max(i/n − F(x_(i)), F(x_(i)) − (i − 1)/n) over the last axis."""
    n = ordered.shape[-1]
    above = torch.arange(1, n + 1, device=ordered.device, dtype=torch.float64) / n - null
    return torch.maximum(above.amax(dim=-1), 1 / n - above.amin(dim=-1))


def _counts(ordered: Tensor, edges: Tensor) -> Tensor:
    """Counts (times, arms, edges + 1) between inner edges, of which each belongs to the right."""
    where = edges.expand(*ordered.shape[:-1], -1).contiguous()
    below = torch.searchsorted(ordered, where)
    below = pad(pad(below, (1, 0)), (0, 1), value=ordered.shape[-1])
    return below.diff(dim=-1).int()


def _mixture(components: Tensor, x: Tensor) -> Tensor:
    """Σ_k weights_k Φ((x − shifts_k)/scales_k) for x (times, arms, n); 0 is the scale of a step.

    ``components`` are shifts, scales and weights, each (K, times, 1, 1).
    """
    total = torch.zeros_like(x)
    for shifts, scales, weights in components.split(max(1, 2**23 // x.numel()), dim=1):
        steps = (x >= shifts).double()
        null = torch.where(scales > 0, torch.special.ndtr((x - shifts) / scales), steps)
        total += (weights * null).sum(dim=0)
    return total
