"""The mean of x_t over all samples and coordinates, beside √ᾱ_t times the mean of the data."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.figures.curves import Curve, draw_curve, recorded
from diffviz.files.catalogue import text
from diffviz.recording.run import Run


class MeanData(NamedTuple):
    """``mean`` of the arms over the times ``t``."""

    arms: list[str]
    t: NDArray[np.int64]
    mean: Curve


def mean_data(run: Run) -> MeanData:
    """The mean of x_t per arm and time, that of q(x_t), and its band."""
    return MeanData(
        run.arms, run.dataset["t"].values, recorded(run, "mean", "x", "reference_mean")
    )


def mean_figure(data: MeanData, language: str = "en") -> go.Figure:
    """One line per arm, the dotted reference and its band."""
    y = text("figures.mean.y", language)
    figure = theme.panels([""], language, T=int(data.t[0]), y_titles=[y])
    draw_curve(figure, 0, data.t, data.mean, data.arms, language)
    return figure
