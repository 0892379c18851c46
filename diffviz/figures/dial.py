"""The noise dial: the std of the residual r_t = (x_t − √ᾱ_t·x_0)/√(1−ᾱ_t) over time.

With a linear denoiser, and so with Gaussian data only, the variances of x_t are linear in λ², and
at every t

    r_λ² = r_0² + λ²·(r_1² − r_0²),    λ̂ = √((r_λ² − r_0²)/(r_1² − r_0²)),

where r_0 and r_1 belong to the same rule without its noise and with all of it. A network's
residual does not read λ: once the samples have collapsed it is asked about states that it never
saw, and answers anything.
"""

import numpy as np
import plotly.graph_objects as go

from diffviz.diagnosis.arms import arm_kinds, is_linear
from diffviz.diagnosis.numbers import noise_readings
from diffviz.figures import theme
from diffviz.figures.curves import draw_curve, recorded
from diffviz.files.catalogue import text
from diffviz.recording.run import Run


def dial_figure(run: Run, language: str = "en") -> go.Figure:
    """The stds, and beside them λ̂ where it can be read, each with the settings as dotted lines."""
    t, readings = run.dataset["t"].values, noise_readings(run)
    names = ["std", "reading"] if readings else ["std"]
    figure = theme.panels(
        [text(f"figures.dial.{name}", language) if len(names) > 1 else "" for name in names],
        language,
        T=int(t[0]),
        y_titles=[text(f"figures.dial.{name}_y", language) for name in names],
    )
    settings = {1.0: text("figures.common.normal", language)}
    if is_linear(run):
        settings = {
            scale: text("figures.dial.setting", language, value=f"{scale:g}")
            for scale in sorted({1.0, *(arm.scale for arm in arm_kinds(run) if arm.drawn)})
        }
    for panel in range(len(names)):
        for setting, name in settings.items():
            theme.add_reference(figure, panel, t[[0, -1]], np.full(2, setting), name)
    draw_curve(figure, 0, t, recorded(run, "residual_std"), run.arms, language)
    for arm, reading in readings.items():
        theme.add_curve(figure, 1, t, reading, arm, run.arms.index(arm))
    return figure.update_yaxes(rangemode="tozero")
