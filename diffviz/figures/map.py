"""The map: where the samples go, in the plane of the data's first two principal components.

The kept samples' x_t − √ᾱ_t·μ is projected on the two components, and each coordinate is divided
by the std of q(x_t) along it. In these units q(x_t) has the same mean, the origin, and the same
spread at every t, so the data's own cloud (t = 0) is what a right sampler's points should fill.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]
DRAWN = 64
"""Times at which a path is drawn; with all of them DDPM's would be a blot."""
WHITE = {"color": "#ffffff", "width": 1}


class MapData(NamedTuple):
    """In stds of q(x_t).

    Attributes:
        arms, t: of the run.
        now: the place in ``t`` of the time that is looked at.
        x: the samples on their way, (A, N, samples, 2).
        cloud: the data, (points, 2).
    """

    arms: list[str]
    t: NDArray[np.int64]
    now: int
    x: NDArray[np.float32]
    cloud: Array


def map_data(run: Run, t: int | None = None) -> MapData | None:
    """The paths of the kept samples and the data, seen at ``t``, or at the end.

    None when the run has no plane of the data.
    """
    data = run.dataset
    if not {"map", "map_std", "map_data"} <= set(data):
        return None
    std = data["map_std"].values.astype(np.float64)
    std = np.where(std > 0, std, 1.0)
    x = data["map"].values / std[:, None]
    times = data["t"].values
    now = len(times) - 1 if t is None else int(np.abs(times - t).argmin())
    return MapData(run.arms, times, now, x.astype(np.float32), data["map_data"].values / std[-1])


def map_figure(data: MapData, language: str = "en") -> go.Figure:
    """One panel per arm: the paths so far, and where the samples are now.

    ``layout.meta["panels"]`` names the axes and the colour of each arm, for a page that moves the
    points itself.
    """
    now = data.now
    axis = [text(f"figures.map.{name}", language) for name in ("x", "y")]
    figure = theme.panels(
        [theme.label(name) for name in data.arms],
        language,
        x_titles=axis[:1],
        y_titles=axis[1:],
        columns=min(len(data.arms), 3),
        common_y=True,
    )
    times = np.unique(np.rint(np.linspace(0, now, min(DRAWN, now + 1))).astype(int))
    for a, name in enumerate(data.arms):
        path = np.moveaxis(data.x[a, times], 1, 0)  # (samples, times, 2)
        gaps = np.pad(path, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 2)
        ink, grey = theme.colour(a), theme.REFERENCE
        line = {"mode": "lines", "line": {"color": ink, "width": 1}, "opacity": 0.5}
        cloud = {"color": grey, "size": 4, "opacity": 0.45}
        ring = {"symbol": "circle-open", "color": grey, "size": 7}
        cross = {"symbol": "cross", "color": "#000000", "size": 15, "line": WHITE}
        x_axis, y_axis = theme.axes(a)
        for role, points, style in (
            ("data", data.cloud, {"marker": cloud}),
            ("path", gaps, {**line, "name": theme.label(name), "showlegend": False}),
            ("start", data.x[a, 0], {"marker": ring}),
            ("mean", np.zeros((1, 2)), {"marker": cross}),
            ("now", data.x[a, now], {"marker": {"color": ink, "size": 9, "line": WHITE}}),
        ):
            t = int(data.t[0 if role == "start" else now])
            figure.add_scatter(
                x=points[:, 0],
                y=points[:, 1],
                mode="markers",
                name=text(f"figures.map.{role}", language, t=t),
                legendgroup=role,
                showlegend=a == 0,  # those of the first panel stand for all
                hoverinfo="skip",
                xaxis=x_axis,
                yaxis=y_axis,
                meta=role,
            )
            figure.data[-1].update(style)
    figure.layout.meta["panels"] = [
        dict(zip("xy", theme.axes(a), strict=True), colour=theme.colour(a))
        for a in range(len(data.arms))
    ]
    everything = np.concatenate([data.cloud, data.x[np.isfinite(data.x).all(axis=-1)]])
    reach = min(max(2.5, 1.05 * float(np.abs(everything).max(initial=0))), 4.5)
    figure.update_xaxes(range=[-reach, reach], constrain="domain", zeroline=False)
    figure.update_yaxes(range=[-reach, reach], constrain="domain", zeroline=False)
    # An axis that matches another cannot keep a scale of its own, and plotly says so.
    figure.update_yaxes(matches=None)
    for a in range(len(data.arms)):
        x = theme.axes(a)[0]
        figure.update_yaxes(scaleanchor=x, selector={"anchor": x})
    return figure
