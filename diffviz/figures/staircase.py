r"""The staircase of noise levels, σ_t = √((1−ᾱ_t)/ᾱ_t): why no noise means too little noise.

Take one data point x_0, for which the exact denoiser is known: a state x_t/√ᾱ_t = x_0 + n·e has
ε̂ = e·n/σ_t, whatever level n it really has. Put into the update rules, a step from t to s gives

    DDPM, before its noise   n → n·σ_s²/σ_t²     (below σ_s even when n = σ_t)
    DDPM, noise √β̃_t added   n² → n²·σ_s⁴/σ_t⁴ + σ_s²(1 − σ_s²/σ_t²),   which keeps n_t = σ_t
    z = 0                    n → n·σ_s²/σ_t²,    so n_t = σ_t²/σ_start
    DDIM, η = 0              n → n·σ_s/σ_t,      which keeps n_t = σ_t

while the network is told σ_t every time.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.diagnosis.arms import ArmKind, arm_kinds
from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class StaircaseData(NamedTuple):
    """A few steps in closed form, and the whole run as measured.

    Attributes:
        times: of the few steps (K+1,), falling.
        told: σ at those times; also where DDIM is, and DDPM after its noise.
        lowered: where DDPM is before its noise, (K,), at ``times[1:]``.
        still: where z = 0 is, (K+1,).
        arms, t: of the run.
        default: whether they are DDPM, z = 0 and DDIM, in this order.
        level: measured (A, N).
        reference: what the network was told (N,), NaN at t = 0.
    """

    times: NDArray[np.int64]
    told: Array
    lowered: Array
    still: Array
    arms: list[str]
    default: bool
    t: NDArray[np.int64]
    level: Array
    reference: Array


def staircase_data(run: Run, steps: int = 6) -> StaircaseData:
    """``steps`` steps around the middle of the run's times, and the run's noise levels."""
    t = run.dataset["t"].values
    noisy = t[:-1]  # σ_0 = 0 has no place on a logarithmic scale
    start = max((len(noisy) - steps) // 2, 0)
    times = noisy[start : start + steps + 1]
    told = run.schedule.sigma[times]
    reference = run.dataset["reference_noise_level"].values
    return StaircaseData(
        times,
        told,
        told[1:] ** 2 / told[:-1],
        told**2 / told[0],
        run.arms,
        [_step(arm) for arm in arm_kinds(run)[:3]] == ["ddpm", "still", "ddim"],
        t,
        _positive(run.dataset["noise_level"].values),
        _positive(reference),
    )


def _step(arm: ArmKind) -> str:
    """Which of the three steps in closed form the arm takes."""
    if not arm.eta:
        return "ddim" if arm.eta == 0 else ""
    return "ddpm" if arm.scale else "still"


def _positive(values: Array) -> Array:
    return np.where(values > 0, values, np.nan)


def staircase_figure(data: StaircaseData, language: str = "en") -> go.Figure:
    """Both on logarithmic scales."""
    figure = theme.panels(
        [
            text("figures.staircase.steps", language, steps=len(data.lowered)),
            text("figures.staircase.run", language),
        ],
        language,
        T=int(data.t[0]),
        y_titles=[text("figures.staircase.y", language)],
    )
    paths = (
        ("ddpm", np.repeat(data.times, 2)[1:], _sawtooth(data)),
        ("still", data.times, data.still),
        ("ddim", data.times, data.told),
    )
    for i, (key, x, level) in enumerate(paths):
        # In the colours of the default arms; of a run with other arms no colour stands twice.
        own = i if data.default else i + len(data.arms)
        theme.add_curve(figure, 0, x, level, text(f"figures.staircase.{key}", language), own)
    figure.update_traces(mode="lines+markers", marker_size=6, legendgroup="steps")
    if data.default:  # the legend of the run names these colours
        figure.update_traces(showlegend=False)
    else:
        theme.own_legend(figure, 0)
    told = text("figures.staircase.told", language)
    theme.add_reference(figure, 1, data.t, data.reference, told)
    theme.add_curves(figure, 1, data.t, data.level, data.arms, language)
    pad = 0.08 * (data.times[0] - data.times[-1] or 1)
    figure.layout.xaxis.range = [data.times[0] + pad, data.times[-1] - pad]
    figure.update_yaxes(type="log")
    figure.layout.yaxis2.dtick = 1
    return figure


def _sawtooth(data: StaircaseData) -> Array:
    """Down to the lowered level and up to σ again, at every time but the first."""
    teeth = np.stack([data.lowered, data.told[1:]], axis=1).ravel()
    return np.concatenate([data.told[:1], teeth])
