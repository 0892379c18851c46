"""How far x_t is from √ᾱ_t times the mean of the data: the drift to the mean, seen directly."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.figures.curves import Curve, draw_curve, recorded
from diffviz.files.catalogue import text
from diffviz.recording.run import Run


class DistanceData(NamedTuple):
    """RMS ``distance`` per coordinate of the arms over the times ``t``."""

    arms: list[str]
    t: NDArray[np.int64]
    distance: Curve


def distance_data(run: Run) -> DistanceData:
    """√(mean (x_t − √ᾱ_t μ)²) per arm and time, its value under q(x_t), and its band."""
    curve = recorded(run, "distance_to_mean", reference="reference_distance_to_mean")
    return DistanceData(run.arms, run.dataset["t"].values, curve)


def distance_figure(data: DistanceData, language: str = "en") -> go.Figure:
    """One line per arm, the dotted reference and its band."""
    y = text("figures.distance.y", language)
    figure = theme.panels([""], language, T=int(data.t[0]), y_titles=[y])
    draw_curve(figure, 0, data.t, data.distance, data.arms, language)
    return figure.update_yaxes(rangemode="tozero")
