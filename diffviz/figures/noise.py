"""How much noise each step injects, measured, beside the two choices of the DDPM paper.

√β_t and √β̃_t with β̃_t = β_t(1−ᾱ_s)/(1−ᾱ_t); over a jump from t to s, β_t is 1 − α_{s+1}…α_t
(arXiv 2006.11239, section 3.2). They differ near t = 0 only, so the second panel shows the ratio.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class NoiseData(NamedTuple):
    """Over the steps that leave ``t`` (S,): measured std (A, S), √β and √β̃ (S,)."""

    arms: list[str]
    t: NDArray[np.int64]
    std: Array
    beta: Array
    posterior: Array


def noise_data(run: Run) -> NoiseData:
    """The std of the injected noise per arm and step, with √β_t and √β̃_t."""
    t = run.dataset["t"].values
    schedule, now, then = run.schedule, t[:-1], t[1:]
    kept = np.array(
        [schedule.alphas[s + 1 : t + 1].prod() for t, s in zip(now, then, strict=True)]
    )
    tail = (1 - schedule.alpha_bars[then]) / (1 - schedule.alpha_bars[now])
    return NoiseData(
        run.arms,
        now,
        run.dataset["noise_std"].values[:, :-1],
        np.sqrt(1 - kept),
        np.sqrt((1 - kept) * tail),
    )


def noise_figure(data: NoiseData, language: str = "en") -> go.Figure:
    """The stds, and their ratio to √β."""
    figure = theme.panels(
        [text("figures.noise.absolute", language), text("figures.noise.relative", language)],
        language,
        T=int(data.t[0]),
        y_titles=[text("figures.noise.y", language), text("figures.noise.ratio", language)],
    )
    for panel, unit in enumerate((np.ones_like(data.beta), data.beta)):
        theme.add_reference(figure, panel, data.t, data.beta / unit, "√βₜ")
        theme.add_reference(figure, panel, data.t, data.posterior / unit, "√β̃ₜ", dash="dashdot")
        theme.add_curves(figure, panel, data.t, data.std / unit, data.arms, language)
    return figure.update_yaxes(rangemode="tozero")
