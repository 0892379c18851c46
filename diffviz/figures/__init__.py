"""One file per picture: ``x_data(run)`` computes, ``x_figure(data, language)`` draws.

``PICTURES`` draws each by its name, from a run alone: a figure, or None where the run does not
hold what it needs. Pictures of images are in `strips`; they are not plotly figures.
"""

from collections.abc import Callable

import plotly.graph_objects as go

from diffviz.figures.dial import dial_data, dial_figure
from diffviz.figures.distance import distance_data, distance_figure
from diffviz.figures.diversity import diversity_data, diversity_figure
from diffviz.figures.histogram import histogram_data, histogram_figure
from diffviz.figures.ks import ks_data, ks_figure
from diffviz.figures.mean import mean_data, mean_figure
from diffviz.figures.noise import noise_data, noise_figure
from diffviz.figures.schedule import schedule_data, schedule_figure
from diffviz.figures.staircase import staircase_data, staircase_figure
from diffviz.figures.stds import stds_data, stds_figure
from diffviz.figures.trajectories import trajectories_data, trajectories_figure
from diffviz.files.catalogue import text
from diffviz.recording.run import Run


def _diversity(run: Run, language: str) -> go.Figure | None:
    data = diversity_data(run)
    return None if data is None else diversity_figure(data, language)


def _trajectories(run: Run, language: str) -> go.Figure | None:
    data = trajectories_data(run)
    return None if data is None else trajectories_figure(data, language)


PICTURES: dict[str, Callable[[Run, str], go.Figure | None]] = {
    "trajectories": _trajectories,
    "mean": lambda run, language: mean_figure(mean_data(run), language),
    "stds": lambda run, language: stds_figure(stds_data(run), language),
    "distance": lambda run, language: distance_figure(distance_data(run), language),
    "ks": lambda run, language: ks_figure(ks_data(run), language),
    "dial": lambda run, language: dial_figure(dial_data(run), language),
    "staircase": lambda run, language: staircase_figure(staircase_data(run), language),
    "noise": lambda run, language: noise_figure(noise_data(run), language),
    "histogram": lambda run, language: histogram_figure(
        histogram_data(run), run.schedule.T // 2, language
    ),
    "diversity": _diversity,
    "schedule": lambda run, language: schedule_figure(schedule_data(run.schedule), language),
}
"""Name → (run, language) → figure. A histogram by its name alone is that of x_t at t = T/2."""


def caption(name: str, language: str = "en") -> str:
    """What the picture ``name`` shows, and what it cannot say, in one or two sentences."""
    return text(f"figures.{name}.caption", language)
