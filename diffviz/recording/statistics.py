"""Statistics of values on the device that holds them: moments, D, counts and spreads, in torch.

Values are sorted once; their moments, D and counts follow from that. Arrays lead with (arms,
times). Nothing here waits for the device.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from diffviz.measure.ks import Mixture


class Rows(NamedTuple):
    """What is measured of rows of values; all but ``sums`` lead with (arms, times).

    Attributes:
        sums: mean and Σ(x − mean)^k for k = 2, 3, 4, each (arms, times).
        distance: D against N(0, 1).
        bins, cells: counts.
    """

    sums: Tensor
    distance: Tensor
    bins: Tensor
    cells: Tensor | None


def sorted_rows(x: Tensor) -> Tensor:
    """``x`` (…, n) sorted along its last axis, in float64."""
    if x.device.type == "cpu":  # numpy sorts four times as fast there
        return torch.from_numpy(np.sort(x.numpy(), axis=-1)).double()
    return x.sort(dim=-1).values.double()


def measure(ordered: Tensor, bins: Tensor, cells: Tensor | None) -> Rows:
    """Of sorted rows (arms, times, n); ``bins`` and ``cells`` are inner edges."""
    mean = ordered.mean(dim=-1)
    centered = ordered - mean[..., None]
    squares = centered * centered
    powers = (squares, squares * centered, squares * squares)
    return Rows(
        torch.stack([mean, *(values.sum(dim=-1) for values in powers)]),
        distance(ordered, torch.special.ndtr(ordered)),
        count(ordered, bins),
        None if cells is None else count(ordered, cells),
    )


def distance(ordered: Tensor, null: Tensor) -> Tensor:
    """max_i max(i/n − F(x_(i)), F(x_(i)) − (i − 1)/n) over the last axis."""
    n = ordered.shape[-1]
    above = torch.arange(1, n + 1, device=ordered.device, dtype=torch.float64) / n - null
    return torch.maximum(above.amax(dim=-1), 1 / n - above.amin(dim=-1))


def count(ordered: Tensor, edges: Tensor) -> Tensor:
    """Counts (arms, times, edges + 1) between inner edges; a value on an edge lies right of it."""
    where = edges.expand(*ordered.shape[:-1], -1).contiguous()
    below = torch.searchsorted(ordered, where)
    below = pad(pad(below, (1, 0)), (0, 1), value=ordered.shape[-1])
    return below.diff(dim=-1).int()


def measure_marginal(
    ordered: Tensor, laws: list[Mixture], counted: bool
) -> tuple[Tensor, Tensor | None]:
    """(D (arms, times) of sorted rows from the law of each time, counts in its cells).

    The ``laws`` are all exact or none; counts are None unless wanted.
    """
    # (location, scale, weight) by component by time; components too many weigh nothing.
    table = np.zeros((3, max(len(law.weights) for law in laws), 1, len(laws), 1))
    table[1] = 1
    for i, law in enumerate(laws):
        table[:, : len(law.weights), 0, i, 0] = law.locations, law.scales, law.weights
    components = to_device(table, ordered.device)
    exact, cells = laws[0].exact, None
    if counted or not exact:
        edges = to_device(np.stack([law.edges for law in laws])[None], ordered.device)
        cells = count(ordered, edges)
    if exact:
        return distance(ordered, _cdf(components, ordered)), cells
    assert cells is not None
    share = cells[..., :-1].cumsum(dim=-1).double() / ordered.shape[-1]
    return (share - _cdf(components, edges)).abs().amax(dim=-1), cells if counted else None


def _cdf(components: Tensor, x: Tensor) -> Tensor:
    """Σ_k weights_k Φ((x − locations_k)/scales_k) for x (arms, times, n); 0 is an atom's scale.

    ``components`` (3, K, 1, times, 1) are locations, scales and weights.
    """
    total = torch.zeros_like(x)
    for places, scales, weights in components.split(max(1, 2**21 // x.numel()), dim=1):
        steps = (x >= places).double()
        null = torch.where(scales > 0, torch.special.ndtr((x - places) / scales), steps)
        total += (weights * null).sum(dim=0)
    return total


def measure_spreads(samples: Tensor, coordinates: Tensor | None) -> tuple[Tensor, Tensor]:
    """(Σ of variances within a sample, mean and Σ(x − mean)² per coordinate between samples).

    ``samples`` (arms, times, B, values of one) in float64; ``coordinates`` are those of a sample
    to look at between samples, None for all.
    """
    size = samples.shape[-1]
    m2 = (samples - samples.mean(dim=-1, keepdim=True)).square().sum(dim=-1)
    within = m2 / (size - 1) if size > 1 else torch.full_like(m2, float("nan"))
    if coordinates is not None:
        samples = samples.index_select(-1, coordinates)
    mean = samples.mean(dim=2)
    m2 = (samples - mean[:, :, None]).square().sum(dim=2)
    return within.sum(dim=-1), torch.stack([mean, m2])


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """There, without waiting for what the device does; on the CPU the array itself."""
    if values.dtype == np.uint32:  # torch cannot count in it
        values = values.view(np.int32)
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
