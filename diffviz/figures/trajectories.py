"""The fan: x_t of some samples over time, one panel per arm. For samples that are numbers.

Of a sample with several coordinates the first is drawn. Of images see `strips` and `map`.
"""

import numpy as np
import plotly.graph_objects as go

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

DRAWN = 40
"""Samples, the first that were kept."""


def trajectories_figure(run: Run, language: str = "en") -> go.Figure:
    """One panel per arm, on one scale."""
    t, snapshots = run.dataset["snapshot"].values, run.dataset["snapshots"].values[:, :, :DRAWN]
    first = snapshots.reshape(*snapshots.shape[:3], -1)[..., 0].astype(np.float64)
    reference = run.dataset["reference_mean"].sel(t=t).values
    figure = theme.panels(
        [theme.label(name) for name in run.arms],
        language,
        T=int(t[0]),
        columns=min(len(run.arms), 4),
        y_titles=["xₜ"],
        common_y=True,
    )
    mean = text("figures.common.marginal_mean", language)
    shown = max(1, theme.MAX_POINTS // (len(t) + 1))
    for a, (name, x) in enumerate(zip(run.arms, first, strict=True)):
        lines = np.pad(x.T[:shown], ((0, 0), (0, 1)), constant_values=np.nan)
        x_axis, y_axis = theme.axes(a)
        figure.add_scatter(
            x=np.tile(np.append(t, t[-1]), len(lines)),
            y=lines.ravel(),
            mode="lines",
            name=theme.label(name),
            legendgroup=name,
            line={"color": theme.colour(a), "width": 1},
            opacity=0.55,
            connectgaps=False,
            hovertemplate="t = %{x}<br>%{fullData.name}: %{y:.3g}<extra></extra>",
            xaxis=x_axis,
            yaxis=y_axis,
        )
        theme.add_reference(figure, a, t, reference, mean)
    return figure
