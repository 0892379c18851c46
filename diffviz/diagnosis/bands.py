"""The band of a curve: where a right sampler of the same n stays, 95 % of the time at each t.

A run records its bands as ``NAME_low`` and ``NAME_high``.
"""

import numpy as np
from numpy.typing import NDArray

from diffviz.recording.run import Run

Array = NDArray[np.float64]
CURVES = {
    "mean": ("mean", "x", "reference_mean"),
    "std": ("std", "x", "reference_std"),
    "std_between": ("std_between", None, "reference_std_between"),
    "std_within": ("std_within", None, "reference_std_within"),
    "distance_to_mean": ("distance_to_mean", None, "reference_distance_to_mean"),
    "ks_normal": ("ks_normal", "x", None),
    "ks_marginal": ("ks_marginal", None, None),
    "residual_std": ("std", "residual", None),
    "residual_ks": ("ks_normal", "residual", None),
}
"""Name of a curve → variable, quantity, and the variable that is its reference."""


def curve(run: Run, name: str) -> Array:
    """(A, N), the curve of that name for every arm."""
    variable, quantity, _ = CURVES[name]
    values = run.dataset[variable]
    return (values if quantity is None else values.sel(quantity=quantity)).values


def reference(run: Run, name: str) -> Array:
    """(N,), what theory says; 1 for the residual's std, 0 for distances D, NaN where unknown."""
    given = CURVES[name][2]
    if given is not None:
        return run.dataset[given].values
    value = {"residual_std": 1.0, "ks_normal": np.nan}.get(name, 0.0)
    return np.full(run.dataset.sizes["t"], value)


def band(run: Run, name: str) -> tuple[Array, Array]:
    """(low, high), (N,) each; NaN where the run does not know them."""
    if f"{name}_low" not in run.dataset:
        unknown = np.full(run.dataset.sizes["t"], np.nan)
        return unknown, unknown
    return run.dataset[f"{name}_low"].values, run.dataset[f"{name}_high"].values
