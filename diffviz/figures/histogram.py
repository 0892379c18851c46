"""The histogram of x_t, ε̂ or the residual at one time, as a density beside that of N(0, 1).

density = count / (number of values × width of a bin). The outer bins also hold what lies beyond.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class HistogramData(NamedTuple):
    """``density`` is (A, N, bins) over all times ``t``, NaN where nothing was counted."""

    arms: list[str]
    quantity: str
    t: NDArray[np.int64]
    bins: Array
    density: Array
    normal: Array


def histogram_data(run: Run, quantity: str = "x") -> HistogramData:
    """Densities of ``quantity`` (x, eps or residual) at every time, and that of N(0, 1)."""
    data = run.dataset
    counts = data["histogram"].sel(quantity=quantity).values.astype(np.float64)
    bins = data["bin"].values
    total = counts.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        density = counts / (total * (bins[1] - bins[0]))
    normal = np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi)
    return HistogramData(run.arms, quantity, data["t"].values, bins, density, normal)


def histogram_figure(data: HistogramData, t: int, language: str = "en") -> go.Figure:
    """The densities at the recorded time nearest to ``t``."""
    i = int(np.abs(data.t - t).argmin())
    figure = theme.panels(
        [f"t = {data.t[i]}"],
        language,
        x_titles=[text(f"figures.histogram.{data.quantity}", language)],
        y_titles=[text("figures.histogram.y", language)],
    )
    hover = "%{x:.2f}"
    theme.add_reference(
        figure, 0, data.bins, data.normal, text("figures.common.normal", language), hover=hover
    )
    theme.add_curves(
        figure, 0, data.bins, data.density[:, i], data.arms, language, shape="hvh", hover=hover
    )
    figure.update_yaxes(rangemode="tozero")
    return figure
