"""The noise dial: the std of the residual r_t = (x_t − √ᾱ_t·x_0)/√(1−ᾱ_t) over time.

With a linear denoiser, and so with Gaussian data only, the variances of x_t are linear in λ², and
at every t

    r_λ² = r_0² + λ²·(r_1² − r_0²),    λ̂ = √((r_λ² − r_0²)/(r_1² − r_0²)),

where r_0 and r_1 belong to the same rule without its noise and with all of it. A network's
residual does not read λ: once the samples have collapsed it is asked about states that it never
saw, and answers anything.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.diagnosis.numbers import LINEAR, dial_readings
from diffviz.figures import theme
from diffviz.figures.curves import Curve, draw_curve, recorded
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class DialData(NamedTuple):
    """``std`` of the residual of the arms over the times ``t``.

    Attributes:
        arms, t, std: of the run.
        scales: each λ of an arm that injects noise, rising; empty unless the denoiser is linear.
        reading: λ̂ (N,) by the number of the arm, where it can be read.
    """

    arms: list[str]
    t: NDArray[np.int64]
    std: Curve
    scales: Array
    reading: dict[int, Array]


def dial_data(run: Run) -> DialData:
    """The residual's std per arm and time, and λ̂ where both ends of the dial are recorded."""
    data = run.dataset
    noisy = np.nanmax(data["noise_std"].values, axis=1, initial=0) > 0
    scales = np.array([arm["noise_scale"] for arm in run.spec.arms], dtype=np.float64)
    return DialData(
        run.arms,
        data["t"].values,
        recorded(run, "residual_std"),
        np.unique([1.0, *scales[noisy]]) if run.spec.denoiser.startswith(LINEAR) else np.empty(0),
        {run.arms.index(name): reading for name, reading in dial_readings(run).items()},
    )


def dial_figure(data: DialData, language: str = "en") -> go.Figure:
    """The stds, and beside them λ̂ where there is any, each with the settings as dotted lines."""
    names = ["std", "reading"] if data.reading else ["std"]
    figure = theme.panels(
        [text(f"figures.dial.{name}", language) if len(names) > 1 else "" for name in names],
        language,
        T=int(data.t[0]),
        y_titles=[text(f"figures.dial.{name}_y", language) for name in names],
    )
    ends = data.t[[0, -1]]
    settings = {
        scale: text("figures.dial.setting", language, value=f"{scale:g}") for scale in data.scales
    } or {1.0: text("figures.common.normal", language)}
    for panel in range(len(names)):
        for setting, name in settings.items():
            theme.add_reference(figure, panel, ends, np.full(2, setting), name)
    draw_curve(figure, 0, data.t, data.std, data.arms, language)
    for a, reading in data.reading.items():
        theme.add_curve(figure, 1, data.t, reading, data.arms[a], a)
    return figure.update_yaxes(rangemode="tozero")
