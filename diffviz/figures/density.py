"""The noise dial: densities of x_t for one setting, next to q(x_t), and the map of settings."""

import numpy as np
import plotly.graph_objects as go

from diffviz.diffusion.balance import BINS, ScaledDensity, balanced_score
from diffviz.figures import theme
from diffviz.files.catalogue import text

PLACES = {"ddpm": (1.0, 1.0), "flow": (0.0, 0.5), "mistake": (0.0, 1.0)}
"""(λ, c) of what everybody knows."""


def density_figure(data: ScaledDensity, language: str = "en") -> go.Figure:
    """q(x_t), what the sampler makes of it, and both at t = 0, on one axis of x."""
    time = text("figures.common.time", language)
    figure = theme.panels(
        [text(f"figures.density.{panel}", language) for panel in ("right", "made", "end")],
        language,
        x_titles=[time, time, text("figures.histogram.y", language)],
        y_titles=["xₜ"],
        common_y=True,
    )
    inks = (theme.REFERENCE, theme.colour(0))
    for panel, (density, ink) in enumerate(zip((data.marginal, data.density), inks, strict=True)):
        x, y = theme.axes(panel)
        figure.add_heatmap(
            x=data.t,
            y=BINS,
            z=density.T.astype(np.float32),
            zmin=0,
            zmax=float(data.marginal.max()) * 0.8,
            zsmooth="fast",
            colorscale=[[0, faded(ink, 0)], [0.5, faded(ink, 0.75)], [1, ink]],
            showscale=False,
            hoverinfo="skip",
            xaxis=x,
            yaxis=y,
        )
    curves = (
        ("data", data.marginal, "dot", "none"),
        ("sampled", data.density, "solid", "tozerox"),
    )
    for (name, density, dash, fill), ink in zip(curves, inks, strict=True):
        figure.add_scatter(
            x=density[-1],
            y=BINS,
            mode="lines",
            name=text(f"figures.density.{name}", language),
            line={"color": ink, "width": theme.WIDTH, "dash": dash},
            fill=fill,
            fillcolor=faded(ink, 0.3),
            hoverinfo="skip",
            xaxis="x3",
            yaxis="y3",
        )
    T = int(data.t[0])
    figure.layout.meta["time_axes"] = ["x", "x2"]
    return figure.update_layout(
        xaxis_range=[T, 0],
        xaxis2_range=[T, 0],
        xaxis3_range=[0, 2.2 * float(data.marginal[-1].max())],
        yaxis_range=[float(BINS[0]), float(BINS[-1])],
        uirevision="density",
    )


def faded(colour: str, alpha: float) -> str:
    """A colour like #1a7fc4 with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"


def pad_figure(
    noise: float,
    score: float,
    noises: tuple[float, float],
    scores: tuple[float, float],
    step: float,
    language: str = "en",
) -> go.Figure:
    """The square of λ and c: the curve of balance, known places, and where we are.

    A click finds the nearest point of an unseen grid of ``step``.
    """
    axes = [
        np.arange(round((high - low) / step) + 1) * step + low for low, high in (noises, scores)
    ]
    grid = np.round(np.stack(np.meshgrid(*axes)).reshape(2, -1), 6)
    curve = np.linspace(0, 1, 41)
    known = np.array(list(PLACES.values()))
    figure = go.Figure()
    figure.add_scatter(
        x=grid[0],
        y=grid[1],
        mode="markers",
        marker={"size": 14, "opacity": 0},
        hovertemplate="λ = %{x:.2f}, c = %{y:.2f}<extra></extra>",
    )
    here = {"size": 18, "color": theme.colour(0), "line": {"color": "#ffffff", "width": 2}}
    figure.add_scatter(x=[noise], y=[score], mode="markers", marker=here, hoverinfo="skip")
    ring = {"size": 11, "symbol": "circle-open", "line_width": 2, "color": theme.REFERENCE}
    figure.add_scatter(
        x=known[:, 0],
        y=known[:, 1],
        mode="markers",
        marker=ring,
        text=[text(f"figures.pad.{name}", language) for name in PLACES],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_traces(showlegend=False)
    figure.add_scatter(
        x=curve,
        y=[balanced_score(noise_scale) for noise_scale in curve.tolist()],
        mode="lines",
        name=text("figures.pad.balance", language),
        line={"color": theme.REFERENCE, "dash": "dot", "width": 3},
    )
    return figure.update_layout(
        template=theme.TEMPLATES["light"],
        showlegend=True,
        height=300,
        margin={"l": 50, "r": 10, "t": 36, "b": 46},
        xaxis={"title": "λ", "range": _around(noises), "zeroline": False},
        yaxis={"title": "c", "range": _around(scores), "zeroline": False},
        legend={"y": 1.02},
        uirevision="pad",
    )


def _around(ends: tuple[float, float]) -> list[float]:
    pad = 0.05 * (ends[1] - ends[0])
    return [ends[0] - pad, ends[1] + pad]
