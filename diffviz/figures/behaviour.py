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
    words = {key: text(f"figures.behaviour.{key}", language) for key in ("told", "held")}
    for panel, name in enumerate(("level", "signal")):
        told, held = (
            np.where(np.isfinite(v), v, np.nan)
            for v in (curves[f"{name}_told"][0], curves[name][0])
        )
        calls = np.arange(1, len(held) + 1)
        theme.add_reference(figure, panel, calls, told, words["told"], hover="%{x}")
        theme.add_curve(figure, panel, calls, held, words["held"], 0, hover="%{x}")
    return figure.update_yaxes(rangemode="tozero")
