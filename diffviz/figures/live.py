"""What is known of a run while it is being sampled: six curves that grow from t = T on.

The residual is not among them, since it needs the end point of its own trajectory. The curves of
the arms are empty here; a page that follows a recording fills them by the ``meta`` of their
traces, ``[statistic, arm]``.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from diffviz.figures import theme
from diffviz.files.catalogue import text

STATISTICS = ("mean", "std", "std_between", "ks_normal", "ks_marginal", "eps_std")
"""As ``Recorder.latest`` names them, in the order of the panels."""


def live_figure(arms: Sequence[str], T: int, language: str = "en") -> go.Figure:
    """Six panels over t."""
    titles = [text(f"figures.live.{name}", language) for name in STATISTICS]
    figure = theme.panels(titles, language, T=T, columns=3)
    for panel, name in enumerate(STATISTICS):
        theme.add_curves(figure, panel, np.array([T]), np.zeros((len(arms), 1)), arms, language)
        for a, trace in enumerate(figure.data[-len(arms) :]):
            trace.meta, trace.x, trace.y = [name, a], [], []
        if name != "mean":
            figure.update_yaxes(rangemode="tozero", selector={"anchor": theme.axes(panel)[0]})
    return figure
