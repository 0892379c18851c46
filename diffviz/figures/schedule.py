"""A noise schedule as the sampler sees it: β, α, ᾱ, the signal-to-noise ratio, and S1, S2, S3.

x_{t−1} = S1·(x_t − S2·ε̂) + S3·z.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.figures import theme
from diffviz.files.catalogue import text

Array = NDArray[np.float64]


class ScheduleData(NamedTuple):
    """Over t = T…0, each (T+1,); NaN at t = 0 where there is no step or the ratio is infinite."""

    t: NDArray[np.int64]
    beta: Array
    alpha_bar: Array
    snr: Array
    S1: Array
    S2: Array
    S3: Array


def schedule_data(schedule: NoiseSchedule) -> ScheduleData:
    """The arrays of the schedule, T first."""
    beta = np.concatenate([[np.nan], schedule.betas[1:]])
    snr = np.where(np.isfinite(schedule.snr), schedule.snr, np.nan)
    arrays = (beta, schedule.alpha_bars, snr, schedule.S1, schedule.S2, schedule.S3)
    return ScheduleData(np.arange(schedule.T, -1, -1), *(array[::-1] for array in arrays))


def schedule_figure(data: ScheduleData, language: str = "en") -> go.Figure:
    """Four small panels; SNR and the coefficients on logarithmic scales."""
    figure = theme.panels(
        [text(f"figures.schedule.{name}", language) for name in ("beta", "bar", "snr", "steps")],
        language,
        T=int(data.t[0]),
        columns=2,
        legend=False,
    )
    curves = (
        (0, 0, "βₜ", data.beta),
        (1, 0, "ᾱₜ", data.alpha_bar),
        (1, 1, "√ᾱₜ", np.sqrt(data.alpha_bar)),
        (1, 2, "αₜ", 1 - data.beta),
        (2, 0, "SNR", data.snr),
        (3, 0, "S1", data.S1),
        (3, 1, "S2", data.S2),
        (3, 2, "S3", data.S3),
    )
    for panel, i, name, values in curves:
        theme.add_curve(figure, panel, data.t, values, name, i)
    figure.update_traces(showlegend=False)
    figure.layout.showlegend = True
    theme.own_legend(figure, 1, "right")
    theme.own_legend(figure, 3, "left")
    figure.update_layout(yaxis3_type="log", yaxis4={"type": "log", "dtick": 1})
    return figure.update_layout(yaxis_rangemode="tozero", yaxis2_range=[0, 1.02])
