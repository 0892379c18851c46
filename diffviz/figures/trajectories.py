"""The fan: x_t of some samples over time, one panel per arm. For samples that are numbers.

Of a sample with several coordinates the first is drawn. Of images see `strips` and `map`.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.figures.strips import is_image
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class TrajectoriesData(NamedTuple):
    """``x`` is (A, samples, snapshots) at the times ``t``; ``reference`` the mean of q(x_t)."""

    arms: list[str]
    t: NDArray[np.int64]
    x: Array
    reference: Array


def trajectories_data(run: Run, samples: int = 40) -> TrajectoriesData | None:
    """The first coordinate of the first ``samples``; None for images, or nothing kept."""
    if is_image(run) or "snapshots" not in run.dataset:
        return None
    snapshots = run.dataset["snapshots"].values[:, :, :samples]
    t = run.dataset["snapshot"].values
    x = snapshots.reshape(*snapshots.shape[:3], -1)[..., 0].astype(np.float64)
    reference = run.dataset["reference_mean"].sel(t=t).values
    return TrajectoriesData(run.arms, t, np.moveaxis(x, 1, 2), reference)


def trajectories_figure(data: TrajectoriesData, language: str = "en") -> go.Figure:
    """One panel per arm, on one scale."""
    figure = theme.panels(
        [theme.label(name) for name in data.arms],
        language,
        T=int(data.t[0]),
        columns=min(len(data.arms), 4),
        y_titles=["xₜ"],
        common_y=True,
    )
    mean = text("figures.common.marginal_mean", language)
    shown = max(1, theme.MAX_POINTS // (len(data.t) + 1))
    for a, (name, x) in enumerate(zip(data.arms, data.x, strict=True)):
        lines = np.pad(x[:shown], ((0, 0), (0, 1)), constant_values=np.nan)
        x_axis, y_axis = theme.axes(a)
        figure.add_scatter(
            x=np.tile(np.append(data.t, data.t[-1]), len(lines)),
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
        theme.add_reference(figure, a, data.t, data.reference, mean)
    return figure
