"""Three stds of x_t, which must not be confused.

Pooled: over all samples and coordinates, the structure of images and their diversity in one.
Between samples: per coordinate over the samples, then averaged; this is what collapses.
Within a sample: over the coordinates of one sample, then averaged.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

Array = NDArray[np.float64]


class StdsData(NamedTuple):
    """Each (A, N), with its reference (N,), which is NaN when not known."""

    arms: list[str]
    t: NDArray[np.int64]
    pooled: Array
    between: Array
    within: Array
    reference_pooled: Array
    reference_between: Array
    reference_within: Array


def stds_data(run: Run) -> StdsData:
    """The three stds per arm and time, and those of q(x_t)."""
    data = run.dataset
    return StdsData(
        run.arms,
        data["t"].values,
        data["std"].sel(quantity="x").values,
        data["std_between"].values,
        data["std_within"].values,
        data["reference_std"].values,
        data["reference_std_between"].values,
        data["reference_std_within"].values,
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
    marginal = text("figures.common.marginal", language)
    curves = (data.pooled, data.between, data.within)
    references = (data.reference_pooled, data.reference_between, data.reference_within)
    for panel, (values, reference) in enumerate(zip(curves, references, strict=True)):
        theme.add_reference(figure, panel, data.t, reference, marginal)
        theme.add_curves(figure, panel, data.t, values, data.arms, language)
    figure.update_yaxes(rangemode="tozero")
    return figure
