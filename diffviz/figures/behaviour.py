"""What a sampler's states hold at each call of its model, beside what the model is told.

A right sampler keeps the two together: the state is a·x_0 + b·n with the a and b of the told time.
"""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text


def behaviour_figure(
    curves: Mapping[str, NDArray[np.floating]], language: str = "en"
) -> go.Figure:
    """Noise and signal over the calls; ``curves`` has signal, level and both as told, (2, calls).

    The first of the two laws of data is one point, where every consistent rule is exact.
    """
    titles = [text(f"figures.behaviour.{name}", language) for name in ("level", "signal")]
    call = text("figures.behaviour.call", language)
    figure = theme.panels(titles, language, x_titles=[call], y_titles=[""])
    for panel, name in enumerate(("level", "signal")):
        told, held = curves[f"{name}_told"][0], curves[name][0]
        x, y = theme.axes(panel)
        calls = np.arange(1, len(held) + 1)
        lines = (
            ("told", told, theme.REFERENCE, "dot"),
            ("held", held, theme.colour(0), "solid"),
        )
        for key, values, ink, dash in lines:
            figure.add_scatter(
                x=calls,
                y=np.where(np.isfinite(values), values, np.nan),
                mode="lines",
                name=text(f"figures.behaviour.{key}", language),
                legendgroup=key,
                showlegend=panel == 0,
                line={"color": ink, "dash": dash, "width": theme.WIDTH},
                hovertemplate="%{x}<br>%{fullData.name}: %{y:.3g}<extra></extra>",
                xaxis=x,
                yaxis=y,
            )
    return figure.update_yaxes(rangemode="tozero")
