"""One recorded statistic over time: a value per arm, the theory's value, and the band around it.

The band is where 95 of 100 right samplers with as many samples lie at each t.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class Curve(NamedTuple):
    """Over the N recorded times.

    Attributes:
        values: per arm, (A, N).
        error: half-width of the bounds of a value that is known from counts only, (A, N).
        reference: what q(x_t) says, (N,), NaN where it is not known.
        low, high: the band of a right sampler, (N,), NaN where it is not known.
    """

    values: Array
    error: Array
    reference: Array
    low: Array
    high: Array


def recorded(
    run: Run, name: str, quantity: str = "", reference: str = "", band: str = ""
) -> Curve:
    """The variable ``name`` (of ``quantity``), with the variables of its reference and band."""
    data = run.dataset
    nothing = np.full(data.sizes["t"], np.nan)

    def values(variable: str) -> Array:
        if variable not in data:
            return nothing
        array = data[variable]
        if "quantity" in array.dims:
            array = array.sel(quantity=quantity)
        return array.values.astype(np.float64)

    arms = values(name)
    error = values(f"{name}_error")
    return Curve(
        arms,
        np.broadcast_to(error, arms.shape),
        values(reference),
        values(f"{band or name}_low"),
        values(f"{band or name}_high"),
    )


def draw_curve(
    figure: go.Figure,
    panel: int,
    t: NDArray[np.int64],
    curve: Curve,
    arms: list[str],
    language: str,
) -> None:
    """The band, the dotted reference, and one line per arm."""
    if np.isfinite(curve.low).any():
        words = text("figures.common.band", language)
        theme.add_band(figure, panel, t, curve.low, curve.high, words)
    words = text("figures.common.marginal", language)
    theme.add_reference(figure, panel, t, curve.reference, words)
    theme.add_curves(figure, panel, t, curve.values, arms, language, error=curve.error)
