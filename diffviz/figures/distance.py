"""How far x_t is from √ᾱ_t times the mean of the data: the drift to the mean, seen directly."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class DistanceData(NamedTuple):
    """RMS distance per coordinate (A, N) and that of q(x_t) (N,); NaN when not known."""

    arms: list[str]
    t: NDArray[np.int64]
    distance: Array
    reference: Array


def distance_data(run: Run) -> DistanceData:
    """√(mean (x_t − √ᾱ_t μ)²) per arm and time, and its value under q(x_t)."""
    data = run.dataset
    return DistanceData(
        run.arms,
        data["t"].values,
        data["distance_to_mean"].values,
        data["reference_distance_to_mean"].values,
    )


def distance_figure(data: DistanceData, language: str = "en") -> go.Figure:
    """One line per arm and the dotted reference."""
    figure = theme.panels(
        [""], language, T=int(data.t[0]), y_titles=[text("figures.distance.y", language)]
    )
    theme.add_reference(
        figure, 0, data.t, data.reference, text("figures.common.marginal", language)
    )
    theme.add_curves(figure, 0, data.t, data.distance, data.arms, language)
    figure.update_yaxes(rangemode="tozero")
    return figure
