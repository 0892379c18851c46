"""Three Kolmogorov–Smirnov views of one run.

Naive: x_t against N(0, 1). It leaves 0 for every arm, because x_t has to become data.
Marginal: x_t against q(x_t) = ∫q(x_t|x_0)p(x_0)dx_0. Near 0 for every sampler whose marginals are
right, DDPM and DDIM alike.
Residual: r_t = (x_t − √ᾱ_t·x_0)/√(1−ᾱ_t), with the trajectory's own end point x_0, against
N(0, 1). Near 0 only for a sampler whose (x_0, x_t) has the forward joint law.

In 95 of 100 samples of n independent values from N(0, 1), D lies below 1.358/√n. The p-value of
the largest of many steps is corrected by their number (Bonferroni).
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]
QUANTILE_95 = 1.358


class KSData(NamedTuple):
    """D per arm and time (A, N), half-widths of its bounds, and the residual's band and p."""

    arms: list[str]
    t: NDArray[np.int64]
    naive: Array
    naive_error: Array
    marginal: Array
    marginal_error: Array
    residual: Array
    residual_error: Array
    band: Array
    p: Array
    p_corrected: Array


def ks_data(run: Run) -> KSData:
    """The three D, the band 1.358/√n (N,), and p with min(1, p × number of steps)."""
    data = run.dataset
    p = data["ks_normal_p"].sel(quantity="residual").values
    values = data["values"].sel(quantity="residual").values[0].astype(np.float64)
    with np.errstate(divide="ignore"):
        band = np.where(values > 0, QUANTILE_95 / np.sqrt(values), np.nan)
    return KSData(
        run.arms,
        data["t"].values,
        data["ks_normal"].sel(quantity="x").values,
        data["ks_normal_error"].sel(quantity="x").values,
        data["ks_marginal"].values,
        data["ks_marginal_error"].values,
        data["ks_normal"].sel(quantity="residual").values,
        data["ks_normal_error"].sel(quantity="residual").values,
        band,
        p,
        np.minimum(p * run.spec.steps, 1.0),
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
    views = (
        (data.naive, data.naive_error),
        (data.marginal, data.marginal_error),
        (data.residual, data.residual_error),
    )
    theme.add_reference(
        figure, 2, data.t, data.band, text("figures.ks.band", language), filled=True
    )
    for panel, (values, error) in enumerate(views):
        theme.add_curves(figure, panel, data.t, values, data.arms, language, error=error)
    figure.update_yaxes(range=[0, 1.02])
    return figure
