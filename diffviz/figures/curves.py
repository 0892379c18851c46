"""The pictures of recorded statistics: a line per arm, the value under q(x_t), and the band.

- mean: of x_t over all samples and coordinates; q(x_t) has √ᾱ_t times the mean of the data.
- distance: √(mean (x_t − √ᾱ_t·μ)²), the drift to the mean, seen directly.
- stds, which must not be confused. Pooled: over all samples and coordinates, the structure of
  images and their diversity in one. Between samples: √(mean over coordinates of the variance
  between samples); this is what collapses. Within a sample: √(mean over samples of the variance
  between the coordinates of one).
- ks, three views. Naive: D of x_t from N(0, 1); it leaves 0 for every arm, because x_t has to
  become data. Marginal: D from q(x_t) = ∫q(x_t|x_0)p(x_0)dx_0, near 0 for every sampler whose
  marginals are right, DDPM and DDIM alike. Residual: D of r_t = (x_t − √ᾱ_t·x_0)/√(1−ᾱ_t) from
  N(0, 1), with x_0 the trajectory's own end point; near 0 only where (x_0, x_t) has the forward
  joint law.

In the band 95 of 100 right samplers with as many samples lie at each t.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.diagnosis.bands import CURVES, band, curve, half_width, reference
from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]
PICTURES = {
    "mean": {"mean": ""},
    "distance": {"distance_to_mean": ""},
    "stds": {"std": "pooled", "std_between": "between", "std_within": "within"},
    "ks": {"ks_normal": "naive", "ks_marginal": "marginal", "residual_ks": "residual"},
}
"""Picture → its curves by their names in `bands`, and the title of the panel of each."""
QUANTILE_95 = 1.358
"""Of 100 samples of n independent values from N(0, 1), 95 have D below this over √n."""


class Curve(NamedTuple):
    """Values per arm (A, N), half-width of their bounds (A, N), and what is right, (N,) each."""

    values: Array
    error: Array
    reference: Array
    low: Array
    high: Array


class CurvesData(NamedTuple):
    """The curves of a picture over the times ``t``; ``bound`` (N,) is that of the residual's D."""

    picture: str
    arms: list[str]
    t: NDArray[np.int64]
    curves: list[Curve]
    bound: Array


def recorded(run: Run, name: str) -> Curve:
    """The curve of that name; NaN for what the run does not know."""
    right = reference(run, name)
    if CURVES[name].reference is None:  # 0 and 1 by definition are not drawn
        right = np.full_like(right, np.nan)
    return Curve(curve(run, name), half_width(run, name), right, *band(run, name))


def curves_data(run: Run, picture: str) -> CurvesData:
    """The curves of ``picture``."""
    n = run.dataset["values"].sel(quantity="residual").values[0].astype(np.float64)
    with np.errstate(divide="ignore"):
        bound = np.where(n > 0, QUANTILE_95 / np.sqrt(n), np.nan)
    curves = [recorded(run, name) for name in PICTURES[picture]]
    return CurvesData(picture, run.arms, run.dataset["t"].values, curves, bound)


def curves_figure(data: CurvesData, language: str = "en") -> go.Figure:
    """One panel for each curve, side by side on one scale."""
    key, titles = f"figures.{data.picture}", PICTURES[data.picture].values()
    figure = theme.panels(
        [text(f"{key}.{title}", language) if title else "" for title in titles],
        language,
        T=int(data.t[0]),
        y_titles=[text(f"{key}.y", language)],
        common_y=True,
    )
    if data.picture == "ks":
        if not np.isfinite(data.curves[2].low).any():
            words = text("figures.ks.bound", language)
            theme.add_reference(figure, 2, data.t, data.bound, words, filled=True)
        figure.update_yaxes(range=[0, 1.02])
    elif data.picture != "mean":
        figure.update_yaxes(rangemode="tozero")
    for panel, one in enumerate(data.curves):
        draw_curve(figure, panel, data.t, one, data.arms, language)
    return figure


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
