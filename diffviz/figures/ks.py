"""Three Kolmogorov–Smirnov views of one run.

Naive: x_t against N(0, 1). It leaves 0 for every arm, because x_t has to become data.
Marginal: x_t against q(x_t) = ∫q(x_t|x_0)p(x_0)dx_0. Near 0 for every sampler whose marginals are
right, DDPM and DDIM alike.
Residual: r_t = (x_t − √ᾱ_t·x_0)/√(1−ᾱ_t), with the trajectory's own end point x_0, against
N(0, 1). Near 0 only for a sampler whose (x_0, x_t) has the forward joint law.

In 95 of 100 samples of n independent values from N(0, 1), D lies below 1.358/√n.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.figures.curves import Curve, draw_curve, recorded
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]
QUANTILE_95 = 1.358


class KSData(NamedTuple):
    """D of the arms over the times ``t`` in three views; ``bound`` (N,) is 1.358/√n."""

    arms: list[str]
    t: NDArray[np.int64]
    naive: Curve
    marginal: Curve
    residual: Curve
    bound: Array


def ks_data(run: Run) -> KSData:
    """The three D per arm and time, and the bound of the residual's."""
    data = run.dataset
    n = data["values"].sel(quantity="residual").values[0].astype(np.float64)
    with np.errstate(divide="ignore"):
        bound = np.where(n > 0, QUANTILE_95 / np.sqrt(n), np.nan)
    return KSData(
        run.arms,
        data["t"].values,
        recorded(run, "ks_normal", "x", band="none"),
        recorded(run, "ks_marginal"),
        recorded(run, "ks_normal", "residual", band="residual_ks"),
        bound,
    )


def ks_figure(data: KSData, language: str = "en") -> go.Figure:
    """The three views side by side, D from 0 to 1."""
    figure = theme.panels(
        [text(f"figures.ks.{view}", language) for view in ("naive", "marginal", "residual")],
        language,
        T=int(data.t[0]),
        y_titles=[text("figures.ks.y", language)],
        common_y=True,
    )
    if not np.isfinite(data.residual.low).any():
        words = text("figures.ks.bound", language)
        theme.add_reference(figure, 2, data.t, data.bound, words, filled=True)
    for panel, curve in enumerate((data.naive, data.marginal, data.residual)):
        draw_curve(figure, panel, data.t, curve, data.arms, language)
    return figure.update_yaxes(range=[0, 1.02])
