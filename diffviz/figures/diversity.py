"""What came out at the end: how many different data, of which classes, and how near.

Known only when the run was recorded with its data (images, or the modes of a mixture):
``diversity_data`` returns None otherwise, and there is nothing to draw.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import class_name, text
from diffviz.recording.run import Run

Array = NDArray[np.float64]
NORMAL_95 = 1.96
"""95 of 100 values of N(0, 1) are not further from 0."""


class DiversityData(NamedTuple):
    """Per arm (A,) what end points are nearest to; shares of classes (A, C), C = 0 without any.

    As many random draws from the data have ``expected`` different ones, and 95 of 100 such sets
    have shares of the classes within ``chance`` of the data's.
    """

    arms: list[str]
    distinct: Array
    expected: float
    distance: Array
    classes: list[str]
    share: Array
    reference_share: Array
    chance: Array


def diversity_data(run: Run) -> DiversityData | None:
    """The end points against the data, or None when the run does not know its data."""
    data = run.dataset
    if "distinct_nearest" not in data:
        return None
    classes: list[str] = []
    share, reference = np.empty((len(run.arms), 0)), np.empty(0)
    if "class_count" in data:
        classes = [str(name) for name in data["class"].values]
        count = data["class_count"].values.astype(np.float64)
        total = count.sum(axis=1, keepdims=True)
        share = np.where(total > 0, count / np.maximum(total, 1), np.nan)
        reference = data["reference_class_share"].values
    return DiversityData(
        run.arms,
        data["distinct_nearest"].values.astype(np.float64),
        float(data["reference_distinct_nearest"]),
        data["nearest_distance"].values,
        classes,
        share,
        reference,
        NORMAL_95 * np.sqrt(reference * (1 - reference) / run.spec.n),
    )


def diversity_figure(data: DiversityData, language: str = "en") -> go.Figure:
    """Bars per arm; the classes only where there are any."""
    names = ("distinct", "distance", "classes") if data.classes else ("distinct", "distance")
    classes = [theme.label(class_name(name, language)) for name in data.classes]
    figure = theme.panels(
        [text(f"figures.diversity.{name}", language) for name in names],
        language,
        x_titles=[""],
        y_titles=[text(f"figures.diversity.{name}_y", language) for name in names],
    )
    for a, name in enumerate(data.arms):
        shown = theme.label(name)
        bars = [([shown], [data.distinct[a]]), ([shown], [data.distance[a]])]
        if data.classes:
            bars.append((classes, list(data.share[a])))
        for panel, (x, y) in enumerate(bars):
            x_axis, y_axis = theme.axes(panel)
            figure.add_bar(
                x=x,
                y=y,
                name=shown,
                legendgroup=name,
                showlegend=panel == 0,
                marker_color=theme.colour(a),
                offsetgroup=None if panel < 2 else str(a),
                hovertemplate="%{x}<br>%{fullData.name}: %{y:.3g}<extra></extra>",
                xaxis=x_axis,
                yaxis=y_axis,
            )
    theme.add_level(figure, 0, data.expected, text("figures.diversity.expected", language))
    if data.classes:
        figure.add_bar(
            x=classes,
            y=data.reference_share,
            error_y={"array": data.chance, "color": theme.REFERENCE},
            name=text("figures.diversity.share", language),
            offsetgroup="data",
            marker_color=theme.REFERENCE,
            legendrank=2000,
            hovertemplate="%{x}<br>%{fullData.name}: %{y:.3g}<extra></extra>",
            xaxis="x3",
            yaxis="y3",
        )
    return figure.update_yaxes(rangemode="tozero")
