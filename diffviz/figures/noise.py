"""How much noise each step injects, measured, beside the two choices of the DDPM paper.

√β_t and √β̃_t with β̃_t = β_t(1−ᾱ_s)/(1−ᾱ_t); over a jump from t to s, β_t is 1 − α_{s+1}…α_t
(arXiv 2006.11239, section 3.2). They differ near t = 0 only, so the second panel shows the ratio.
"""

import numpy as np
import plotly.graph_objects as go

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run


def noise_figure(run: Run, language: str = "en") -> go.Figure:
    """The std of the injected noise per arm and step, and its ratio to √β."""
    times, schedule = run.dataset["t"].values, run.schedule
    t, then = times[:-1], times[1:]
    kept = [schedule.alphas[s + 1 : t + 1].prod() for t, s in zip(t, then, strict=True)]
    beta = np.sqrt(1 - np.array(kept))
    tail = (1 - schedule.alpha_bars[then]) / (1 - schedule.alpha_bars[t])
    std = run.dataset["noise_std"].values[:, :-1]
    figure = theme.panels(
        [text("figures.noise.absolute", language), text("figures.noise.relative", language)],
        language,
        T=int(t[0]),
        y_titles=[text("figures.noise.y", language), text("figures.noise.ratio", language)],
    )
    for panel, unit in enumerate((np.ones_like(beta), beta)):
        theme.add_reference(figure, panel, t, beta / unit, "√βₜ")
        theme.add_reference(figure, panel, t, beta * np.sqrt(tail) / unit, "√β̃ₜ", dash="dashdot")
        theme.add_curves(figure, panel, t, std / unit, run.arms, language)
    return figure.update_yaxes(rangemode="tozero")
