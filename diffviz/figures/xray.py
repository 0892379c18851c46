r"""What the x-ray has measured of a sampler, step by step, beside the rule that is closest.

A step is x_s = a·x_t + b·ε̂ + bias + σ·z. The first picture shows a, b and σ with what the rule
says, and below each its difference from the rule in a band of ± 4 standard errors, where the
curve should lie around 0. The second shows the injected noise itself: D from N(0, 1), correlations
that should be 0, and the constant term.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.figures.curves import QUANTILE_95
from diffviz.files.catalogue import text

Array = NDArray[np.float64]
NAMES = ("x", "eps", "std")
DIFFERENCES = ("x_off", "eps_off", "std_off")
ERRORS = 4.0
"""Half-width of the bands in standard errors."""
LEAST = 0.02
"""An axis is at least so tall, so that rounding does not look like a fault."""
NOTHING = 1e-5
"""A std below this is rounding, not noise."""


class XRayData(NamedTuple):
    """Over the steps that leave ``t`` (S,), in the order in which they were taken.

    Attributes:
        t: time the step leaves.
        measured, error, expected: (3, S), the coefficients of x_t and ε̂ and the std of the noise,
            their standard errors, and what the closest rule says, NaN without one.
        previous: coefficient of the ε̂ before, NaN unless the sampler has several steps in memory.
        bias, bias_error: the constant term.
        ks, ks_bound: D of the noise from N(0, 1), and what 95 % of iid samples stay below.
        correlations: (3, S), of two samples, of neighbours, with the noise of the step before.
    """

    t: NDArray[np.generic]
    measured: Array
    error: Array
    expected: Array
    previous: Array
    bias: Array
    bias_error: Array
    ks: Array
    ks_bound: Array
    correlations: Array


def xray_data(coefficients: xr.Dataset) -> XRayData:
    """From ``XRay.coefficients``."""

    def rows(*names: str) -> Array:
        return np.stack([coefficients[name].values for name in names]).astype(np.float64)

    std, error = rows("std", "std_error")
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = QUANTILE_95 * np.sqrt(2) * error / std  # the error is std/√(2·values)
    return XRayData(
        coefficients["t"].values,
        rows(*NAMES),
        rows(*(f"{name}_error" for name in NAMES)),
        rows(*(f"expected_{name}" for name in NAMES)),
        rows("previous_eps")[0],
        rows("bias")[0],
        rows("bias_error")[0],
        rows("noise_ks")[0],
        np.where(std > NOTHING, bound, np.nan),
        rows("batch_correlation", "grid_correlation", "step_correlation"),
    )


def xray_figure(data: XRayData, language: str = "en") -> go.Figure:
    """The three coefficients above, their differences from the rule below."""

    def words(key: str) -> str:
        return text(f"figures.xray.{key}", language)

    figure = theme.panels(
        [words(name) for name in (*NAMES, *DIFFERENCES)],
        language,
        T=_latest(data),
        columns=3,
    )
    measured, rule = words("measured"), words("rule")
    for i, name in enumerate(NAMES):
        value, expected, error = data.measured[i], data.expected[i], ERRORS * data.error[i]
        theme.add_curve(figure, i, data.t, value, measured, 0, error=error)
        theme.add_reference(figure, i, data.t, expected, rule)
        shown = [value - error, value + error, expected]
        if name == "std":
            shown.append(np.zeros(1))
        if name == "eps" and np.isfinite(data.previous).any():
            theme.add_curve(figure, i, data.t, data.previous, words("previous"), 1)
            shown.append(data.previous)
        figure.layout[_y(i)].range = _reach(shown, LEAST)
        off = value - expected
        if not np.isfinite(off).any():
            _say(figure, i + 3, words("no_rule"))
            continue
        theme.add_curve(figure, i + 3, data.t, off, measured, 0, error=error)
        theme.add_reference(figure, i + 3, data.t, np.zeros(len(data.t)), rule)
        figure.layout[_y(i + 3)].range = _reach([off - error, off + error], LEAST / 10)
    return figure


def xray_noise_figure(data: XRayData, language: str = "en") -> go.Figure:
    """D of the noise, its correlations, and the constant term."""

    def words(key: str) -> str:
        return text(f"figures.xray_noise.{key}", language)

    titles = [words(key) for key in ("ks", "correlations", "bias")]
    figure = theme.panels(titles, language, T=_latest(data))
    zero = np.zeros(len(data.t))
    if np.isfinite(data.ks).any():
        theme.add_reference(figure, 0, data.t, data.ks_bound, words("band"), filled=True)
        theme.add_curve(figure, 0, data.t, data.ks, words("noise"), 0)
        theme.add_reference(figure, 1, data.t, zero, words("right"))
        for i, name in enumerate(("batch", "grid", "step")):
            theme.add_curve(figure, 1, data.t, data.correlations[i], words(name), i + 1)
        figure.layout.yaxis2.range = _reach(list(data.correlations), 0.4)
    else:
        there = (data.measured[2] > NOTHING).any()
        for panel in (0, 1):
            _say(figure, panel, words("unknown" if there else "none"))
    error = ERRORS * data.bias_error
    theme.add_reference(figure, 2, data.t, zero, words("right"))
    theme.add_curve(figure, 2, data.t, data.bias, words("constant"), 4, error=error)
    figure.layout.yaxis.rangemode = "tozero"
    figure.layout.yaxis3.range = _reach([data.bias - error, data.bias + error], LEAST / 4)
    return figure


def _say(figure: go.Figure, panel: int, words: str) -> None:
    """A sentence on a panel that has no curve, and would not be drawn without one."""
    number = str(panel + 1) if panel else ""
    axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
    figure.add_scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip", **axes)
    theme.say(figure, panel, words)


def _latest(data: XRayData) -> int:
    return int(np.max(data.t))


def _y(panel: int) -> str:
    return f"yaxis{panel + 1 if panel else ''}"


def _reach(curves: list[Array], least: float) -> list[float]:
    """From the least to the largest finite value and a little more, at least ``least`` tall."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    pad = max(0.06 * (high - low), (least - (high - low)) / 2)
    return [low - pad, high + pad]
