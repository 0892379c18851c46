"""The histogram of x_t, ε̂ or the residual at one time, as a density, beside what theory says.

density = count / (number of values × width of a bin). The outer bins also hold what lies beyond.
Beside x_t stands q(x_t), where the run knows it; beside the residual stands N(0, 1).
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
    """Over all times ``t``.

    Attributes:
        arms, t: of the run.
        quantity: x, eps or residual.
        now: the place in ``t`` of the time that is looked at.
        bins: their middles.
        density: (A, N, bins), NaN where nothing was counted.
        reference: of q(x_t) beside x, of N(0, 1) beside the residual, (N, bins), else NaN.
    """

    arms: list[str]
    quantity: str
    t: NDArray[np.int64]
    now: int
    bins: Array
    density: Array
    reference: Array


def histogram_data(run: Run, quantity: str = "x", t: int | None = None) -> HistogramData:
    """Densities of ``quantity`` (x, eps or residual) at every time, and their reference.

    Seen at the recorded time nearest to ``t``, or in the middle.
    """
    data = run.dataset
    counts = data["histogram"].sel(quantity=quantity).values.astype(np.float64)
    bins = data["bin"].values
    width = bins[1] - bins[0]
    with np.errstate(invalid="ignore"):
        density = counts / (counts.sum(axis=-1, keepdims=True) * width)
    reference = np.full(counts.shape[1:], np.nan)
    if quantity == "residual":
        reference[:] = np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi)
    elif quantity == "x":
        reference = data["reference_histogram"].values / width
    times = data["t"].values
    now = int(np.abs(times - (run.schedule.T // 2 if t is None else t)).argmin())
    return HistogramData(run.arms, quantity, times, now, bins, density, reference)


def histogram_figure(data: HistogramData, language: str = "en") -> go.Figure:
    """The densities at the time that is looked at."""
    i = data.now
    figure = theme.panels(
        [f"t = {data.t[i]}"],
        language,
        x_titles=[text(f"figures.histogram.{data.quantity}", language)],
        y_titles=[text("figures.histogram.y", language)],
    )
    name = text(f"figures.common.{'marginal' if data.quantity == 'x' else 'normal'}", language)
    theme.add_reference(figure, 0, data.bins, data.reference[i], name)
    curves = data.density[:, i]
    theme.add_curves(figure, 0, data.bins, curves, data.arms, language, shape="hvh")
    return figure.update_yaxes(rangemode="tozero")
