"""The noise dial: the std of the residual r_t = (x_t − √ᾱ_t·x_0)/√(1−ᾱ_t) over time.

Under an ancestral sampler that injects λ times its noise, and away from both ends, it reads λ.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class DialData(NamedTuple):
    """``std`` is (A, N); ``dials`` are 1 and every λ of an arm that injects noise, rising."""

    arms: list[str]
    t: NDArray[np.int64]
    std: Array
    dials: Array


def dial_data(run: Run) -> DialData:
    """The residual's std per arm and time, and the settings of the dial."""
    data = run.dataset
    injects = np.nanmax(data["noise_std"].values, axis=1, initial=0) > 0
    scales = [
        arm["noise_scale"] for arm, noisy in zip(run.spec.arms, injects, strict=True) if noisy
    ]
    return DialData(
        run.arms,
        data["t"].values,
        data["std"].sel(quantity="residual").values,
        np.unique([1.0, *scales]),
    )


def dial_figure(data: DialData, language: str = "en") -> go.Figure:
    """One line per arm, and a dotted line for every setting."""
    figure = theme.panels(
        [""], language, T=int(data.t[0]), y_titles=[text("figures.dial.y", language)]
    )
    ends = data.t[[0, -1]]
    for setting in data.dials:
        name = text("figures.dial.setting", language, value=f"{setting:g}")
        theme.add_reference(figure, 0, ends, np.full(2, setting), name)
    theme.add_curves(figure, 0, data.t, data.std, data.arms, language)
    figure.update_yaxes(rangemode="tozero")
    return figure
