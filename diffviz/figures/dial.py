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

from diffviz.figures import theme
from diffviz.figures.curves import Curve, draw_curve, recorded
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class DialData(NamedTuple):
    """``std`` of the residual of the arms over the times ``t``.

    Attributes:
        arms, t, std: of the run.
        scales: λ of each arm that injects noise, NaN of the others, (A,).
        reading: λ̂ of each arm between both ends of its rule, NaN of the others, (A, N).
        linear: whether the denoiser is linear.
    """

    arms: list[str]
    t: NDArray[np.int64]
    std: Curve
    scales: Array
    reading: Array
    linear: bool


def dial_data(run: Run) -> DialData:
    """The residual's std per arm and time, and λ̂ where both ends of the dial are recorded."""
    data = run.dataset
    std = recorded(run, "std", "residual", band="residual_std")
    noisy = np.nanmax(data["noise_std"].values, axis=1, initial=0) > 0
    scales = np.array([arm["noise_scale"] for arm in run.spec.arms], dtype=np.float64)
    linear = run.spec.denoiser.startswith("gaussian(")
    rules = [arm["rule"] for arm in run.spec.arms]
    reading = np.full(std.values.shape, np.nan)
    for a, rule in enumerate(rules):
        ends = [
            next((b for b, other in enumerate(rules) if other == rule and scales[b] == end), None)
            for end in (0.0, 1.0)
        ]
        if linear and noisy[a] and scales[a] != 1 and None not in ends:
            none, full = (np.square(std.values[b]) for b in ends if b is not None)
            with np.errstate(divide="ignore", invalid="ignore"):
                reading[a] = np.sqrt((np.square(std.values[a]) - none) / (full - none))
    return DialData(
        run.arms,
        data["t"].values,
        std,
        np.where(noisy, scales, np.nan),
        np.where(np.isfinite(reading), reading, np.nan),
        linear,
    )


def dial_figure(data: DialData, language: str = "en") -> go.Figure:
    """The stds, and beside them λ̂ where there is any, each with the settings as dotted lines."""
    shown = np.isfinite(data.reading).any(axis=1)
    names = ["std", "reading"] if shown.any() else ["std"]
    figure = theme.panels(
        [text(f"figures.dial.{name}", language) if len(names) > 1 else "" for name in names],
        language,
        T=int(data.t[0]),
        y_titles=[text(f"figures.dial.{name}_y", language) for name in names],
    )
    ends = data.t[[0, -1]]
    settings = {1.0: text("figures.common.normal", language)}
    if data.linear:
        scales = np.unique([1.0, *data.scales[np.isfinite(data.scales)]])
        settings = {v: text("figures.dial.setting", language, value=f"{v:g}") for v in scales}
    for panel in range(len(names)):
        for setting, name in settings.items():
            theme.add_reference(figure, panel, ends, np.full(2, setting), name)
    draw_curve(figure, 0, data.t, data.std, data.arms, language)
    for a in np.flatnonzero(shown):
        theme.add_curve(figure, 1, data.t, data.reading[a], data.arms[a], int(a))
    return figure.update_yaxes(rangemode="tozero")
