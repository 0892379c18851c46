"""The band of a curve: where a right sampler of the same n stays, 95 % of the time at each t.

A run records its bands as ``NAME_low`` and ``NAME_high``.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffviz.recording.run import Run

Array = NDArray[np.float64]


class Names(NamedTuple):
    """The variables of a curve and of its reference, and which quantity it is of."""

    variable: str
    quantity: str | None = None
    reference: str | None = None


CURVES = {
    "mean": Names("mean", "x", "reference_mean"),
    "std": Names("std", "x", "reference_std"),
    "std_between": Names("std_between", None, "reference_std_between"),
    "std_within": Names("std_within", None, "reference_std_within"),
    "distance_to_mean": Names("distance_to_mean", None, "reference_distance_to_mean"),
    "ks_normal": Names("ks_normal", "x"),
    "ks_marginal": Names("ks_marginal"),
    "residual_std": Names("std", "residual"),
    "residual_ks": Names("ks_normal", "residual"),
}


def curve(run: Run, name: str) -> Array:
    """(A, N), the curve of that name for every arm."""
    return _values(run, CURVES[name].variable, CURVES[name].quantity)


def half_width(run: Run, name: str) -> Array:
    """(A, N), by how much a value can be off that is known from counts of merged blocks."""
    variable = f"{CURVES[name].variable}_error"
    if variable not in run.dataset:
        return np.zeros(curve(run, name).shape)
    return _values(run, variable, CURVES[name].quantity)


def reference(run: Run, name: str) -> Array:
    """(N,), what theory says; 1 for the residual's std, 0 for distances D, NaN where unknown."""
    given = CURVES[name].reference
    if given is not None:
        return _values(run, given)
    value = {"residual_std": 1.0, "ks_normal": np.nan}.get(name, 0.0)
    return np.full(run.dataset.sizes["t"], value)


def band(run: Run, name: str) -> tuple[Array, Array]:
    """(low, high), (N,) each; NaN where the run does not know them."""
    if f"{name}_low" not in run.dataset:
        unknown = np.full(run.dataset.sizes["t"], np.nan)
        return unknown, unknown
    return _values(run, f"{name}_low"), _values(run, f"{name}_high")


def _values(run: Run, variable: str, quantity: str | None = None) -> Array:
    values = run.dataset[variable]
    return (values if quantity is None else values.sel(quantity=quantity)).values
