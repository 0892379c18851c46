"""Three stds of x_t, which must not be confused.

Pooled: over all samples and coordinates, the structure of images and their diversity in one.
Between samples: √(mean over coordinates of the variance between samples); this is what collapses.
Within a sample: √(mean over samples of the variance between the coordinates of one).
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.figures.curves import Curve, draw_curve, recorded
from diffviz.files.catalogue import text
from diffviz.recording.run import Run


class StdsData(NamedTuple):
    """The three stds of the arms over the times ``t``."""

    arms: list[str]
    t: NDArray[np.int64]
    pooled: Curve
    between: Curve
    within: Curve


def stds_data(run: Run) -> StdsData:
    """The three stds per arm and time, those of q(x_t), and their bands."""
    return StdsData(
        run.arms,
        run.dataset["t"].values,
        recorded(run, "std", "x", "reference_std"),
        recorded(run, "std_between", reference="reference_std_between"),
        recorded(run, "std_within", reference="reference_std_within"),
    )


def stds_figure(data: StdsData, language: str = "en") -> go.Figure:
    """The three side by side on one scale."""
    figure = theme.panels(
        [text(f"figures.stds.{which}", language) for which in ("pooled", "between", "within")],
        language,
        T=int(data.t[0]),
        y_titles=[text("figures.stds.y", language)],
        common_y=True,
    )
    for panel, curve in enumerate((data.pooled, data.between, data.within)):
        draw_curve(figure, panel, data.t, curve, data.arms, language)
    return figure.update_yaxes(rangemode="tozero")
