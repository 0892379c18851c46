r"""What the x-ray has measured of a sampler, call by call and step by step.

A step is x_s = a·x_t + b·ε̂ + bias + σ·z. `xray_figure` shows a, b and σ with what the closest rule
says, and below each its difference from the rule in a band of ± 4 standard errors, where the
curve should lie around 0. `xray_noise_figure` shows the injected noise itself: D from N(0, 1),
correlations that should be 0, and the constant term. Both draw ``XRay.coefficients``.
"""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.figures.curves import QUANTILE_95
from diffviz.files.catalogue import text

Array = NDArray[np.float64]
NAMES = ("x", "eps", "std")
ERRORS = 4.0
"""Half-width of the bands in standard errors."""
LEAST = 0.02
"""An axis is at least so tall, so that rounding does not look like a fault."""
NOTHING = 1e-5
"""A std below this is rounding, not noise."""


def behaviour_figure(
    curves: Mapping[str, NDArray[np.floating]], language: str = "en"
) -> go.Figure:
    """Noise and signal over the calls; ``curves`` has signal, level and both as told, (2, calls).

    A right sampler keeps what its states hold and what its model is told together: the state is
    a·x_0 + b·n with the a and b of the told time. The first of the two laws of data is one point,
    where every consistent rule is exact.
    """
    titles = [text(f"figures.behaviour.{name}", language) for name in ("level", "signal")]
    call = text("figures.behaviour.call", language)
    figure = theme.panels(titles, language, x_titles=[call], y_titles=[""])
    words = {key: text(f"figures.behaviour.{key}", language) for key in ("told", "held")}
    for panel, name in enumerate(("level", "signal")):
        told, held = (
            np.where(np.isfinite(v), v, np.nan)
            for v in (curves[f"{name}_told"][0], curves[name][0])
        )
        calls = np.arange(1, len(held) + 1)
        theme.add_reference(figure, panel, calls, told, words["told"])
        theme.add_curve(figure, panel, calls, held, words["held"], 0)
    return figure.update_yaxes(rangemode="tozero")


def xray_figure(data: xr.Dataset, language: str = "en") -> go.Figure:
    """The three coefficients above, their differences from the rule below."""

    def words(key: str) -> str:
        return text(f"figures.xray.{key}", language)

    t, previous = data["t"].values, data["previous_eps"].values
    titles = [words(name + off) for off in ("", "_off") for name in NAMES]
    figure = theme.panels(titles, language, T=int(t.max()), columns=3)
    measured, rule = words("measured"), words("rule")
    for i, name in enumerate(NAMES):
        value, expected = data[name].values, data[f"expected_{name}"].values
        error = ERRORS * data[f"{name}_error"].values
        theme.add_curve(figure, i, t, value, measured, 0, error=error)
        theme.add_reference(figure, i, t, expected, rule)
        shown = [value - error, value + error, expected]
        if name == "std":
            shown.append(np.zeros(1))
        if name == "eps" and np.isfinite(previous).any():
            theme.add_curve(figure, i, t, previous, words("previous"), 1)
            shown.append(previous)
        figure.layout[_y(i)].range = _reach(shown, LEAST)
        off = value - expected
        if not np.isfinite(off).any():
            _say(figure, i + 3, words("no_rule"))
            continue
        theme.add_curve(figure, i + 3, t, off, measured, 0, error=error)
        theme.add_reference(figure, i + 3, t, np.zeros(len(t)), rule)
        figure.layout[_y(i + 3)].range = _reach([off - error, off + error], LEAST / 10)
    return figure


def xray_noise_figure(data: xr.Dataset, language: str = "en") -> go.Figure:
    """D of the noise, its correlations, and the constant term."""

    def words(key: str) -> str:
        return text(f"figures.xray_noise.{key}", language)

    t, std, ks, bias = (data[name].values for name in ("t", "std", "noise_ks", "bias"))
    titles = [words(key) for key in ("ks", "correlations", "bias")]
    figure, zero = theme.panels(titles, language, T=int(t.max())), np.zeros(len(t))
    if np.isfinite(ks).any():
        with np.errstate(divide="ignore", invalid="ignore"):
            # 95 % of iid samples stay below; the error is std/√(2·values).
            bound = QUANTILE_95 * np.sqrt(2) * data["std_error"].values / std
        bound = np.where(std > NOTHING, bound, np.nan)
        theme.add_reference(figure, 0, t, bound, words("band"), filled=True)
        theme.add_curve(figure, 0, t, ks, words("noise"), 0)
        theme.add_reference(figure, 1, t, zero, words("right"))
        correlations = {
            key: data[f"{key}_correlation"].values for key in ("batch", "grid", "step")
        }
        for i, (key, values) in enumerate(correlations.items()):
            theme.add_curve(figure, 1, t, values, words(key), i + 1)
        figure.layout.yaxis2.range = _reach(list(correlations.values()), 0.4)
    else:
        for panel in (0, 1):
            _say(figure, panel, words("unknown" if (std > NOTHING).any() else "none"))
    error = ERRORS * data["bias_error"].values
    theme.add_reference(figure, 2, t, zero, words("right"))
    theme.add_curve(figure, 2, t, bias, words("constant"), 4, error=error)
    figure.layout.yaxis.rangemode = "tozero"
    figure.layout.yaxis3.range = _reach([bias - error, bias + error], LEAST / 4)
    return figure


def _say(figure: go.Figure, panel: int, words: str) -> None:
    """A sentence on a panel that has no curve, and would not be drawn without one."""
    x, y = theme.axes(panel)
    figure.add_scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip", xaxis=x, yaxis=y)
    theme.say(figure, panel, words)


def _y(panel: int) -> str:
    return f"yaxis{panel + 1 if panel else ''}"


def _reach(curves: list[Array], least: float) -> list[float]:
    """From the least to the largest finite value and a little more, at least ``least`` tall."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    pad = max(0.06 * (high - low), (least - (high - low)) / 2)
    return [low - pad, high + pad]
