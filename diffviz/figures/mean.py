"""The mean of x_t over all samples and coordinates, beside √ᾱ_t times the mean of the data."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class MeanData(NamedTuple):
    """``mean`` is (A, N) over the N times ``t``; ``reference`` (N,) is NaN when not known."""

    arms: list[str]
    t: NDArray[np.int64]
    mean: Array
    reference: Array


def mean_data(run: Run) -> MeanData:
    """The mean of x_t per arm and time, and that of q(x_t)."""
    data = run.dataset
    return MeanData(
        run.arms,
        data["t"].values,
        data["mean"].sel(quantity="x").values,
        data["reference_mean"].values,
    )


def mean_figure(data: MeanData, language: str = "en") -> go.Figure:
    """One line per arm and the dotted reference."""
    figure = theme.panels(
        [""], language, T=int(data.t[0]), y_titles=[text("figures.mean.y", language)]
    )
    theme.add_reference(
        figure, 0, data.t, data.reference, text("figures.common.marginal", language)
    )
    theme.add_curves(figure, 0, data.t, data.mean, data.arms, language)
    return figure
