"""A noise schedule as the sampler sees it: β, α, ᾱ, the signal-to-noise ratio, and S1, S2, S3.

x_{t−1} = S1·(x_t − S2·ε̂) + S3·z.
"""

import numpy as np
import plotly.graph_objects as go

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.figures import theme
from diffviz.files.catalogue import text

KEYED = (1, 3)
"""Panels with a legend of their own, on the second line of their titles."""


def schedule_figure(schedule: NoiseSchedule, language: str = "en") -> go.Figure:
    """Four small panels; SNR and the coefficients on logarithmic scales.

    Nothing is drawn at t = 0 where there is no step, or where the ratio is infinite.
    """
    titles = [
        text(f"figures.schedule.{name}", language) for name in ("beta", "bar", "snr", "steps")
    ]
    figure = theme.panels(
        [f"{title}\n" if panel in KEYED else title for panel, title in enumerate(titles)],
        language,
        T=schedule.T,
        columns=2,
        legend=False,
    )
    beta = np.append(np.nan, schedule.betas[1:])
    curves = (
        (0, 0, "βₜ", beta),
        (1, 0, "ᾱₜ", schedule.alpha_bars),
        (1, 1, "√ᾱₜ", np.sqrt(schedule.alpha_bars)),
        (1, 2, "αₜ", 1 - beta),
        (2, 0, "SNR", np.where(np.isfinite(schedule.snr), schedule.snr, np.nan)),
        (3, 0, "S1", schedule.S1),
        (3, 1, "S2", schedule.S2),
        (3, 2, "S3", schedule.S3),
    )
    t = np.arange(schedule.T, -1, -1)
    for panel, i, name, values in curves:
        theme.add_curve(figure, panel, t, values[::-1], name, i)
    figure.update_traces(showlegend=False)
    figure.layout.showlegend = True
    for panel in KEYED:
        theme.own_legend(figure, panel, above=True)
    figure.update_layout(yaxis3_type="log", yaxis4={"type": "log", "dtick": 1})
    return figure.update_layout(yaxis_rangemode="tozero", yaxis2_range=[0, 1.02])
