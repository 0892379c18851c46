"""The density of x_t over time where noise and score are scaled, next to q(x_t)."""

import numpy as np
import plotly.graph_objects as go

from diffviz.diffusion.balance import BINS, ScaledDensity
from diffviz.figures import theme
from diffviz.files.catalogue import text


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
    )


def faded(colour: str, alpha: float) -> str:
    """A colour like #1a7fc4 with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"
