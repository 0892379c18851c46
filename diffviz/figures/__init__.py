"""Pictures of a run: ``plot(run, name)`` gives a plotly figure.

``x_figure`` draws a run, or the numbers that ``x_data(run)`` picks into a frozen tuple where they
are computed first or used elsewhere too. There is one file per picture, or per kind of picture.
What all figures share is in `theme`. To read one whole, begin with `curves`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from diffviz.errors import InputError
from diffviz.figures.curves import curves_data, curves_figure
from diffviz.figures.dial import dial_figure
from diffviz.figures.diversity import diversity_data, diversity_figure
from diffviz.figures.histogram import histogram_data, histogram_figure
from diffviz.figures.map import map_data, map_figure
from diffviz.figures.noise import noise_figure
from diffviz.figures.schedule import schedule_figure
from diffviz.figures.staircase import staircase_data, staircase_figure
from diffviz.figures.strips import is_image, strips_data, strips_figure
from diffviz.figures.theme import CONFIG, TEMPLATES, add_cursor
from diffviz.figures.trajectories import trajectories_figure
from diffviz.files.catalogue import LANGUAGES, text
from diffviz.recording.run import Run

__all__ = ["CONFIG", "NAMES", "available", "caption", "plot"]

Time = int | None
"""The step that is looked at; None for the whole run."""


def _strips(run: Run, t: Time) -> Any:
    """Three samples of each arm over time, or eight at ``t``."""
    if t is not None:
        return strips_data(run, range(8), [t])
    return strips_data(run, range(3), np.linspace(run.schedule.T, 0, 13).astype(int).tolist())


def _numbers(run: Run, t: Time) -> Run | None:
    """The run itself, if its samples are numbers that were kept."""
    return None if is_image(run) or "snapshots" not in run.dataset else run


_PICTURES: dict[str, tuple[Callable[[Run, Time], Any], Callable[[Any, str], go.Figure]]] = {
    "map": (map_data, map_figure),
    "strips": (_strips, strips_figure),
    "ks": (lambda run, t: curves_data(run, "ks"), curves_figure),
    "stds": (lambda run, t: curves_data(run, "stds"), curves_figure),
    "mean": (lambda run, t: curves_data(run, "mean"), curves_figure),
    "distance": (lambda run, t: curves_data(run, "distance"), curves_figure),
    "dial": (lambda run, t: run, dial_figure),
    "staircase": (lambda run, t: staircase_data(run), staircase_figure),
    "histogram": (lambda run, t: histogram_data(run, "x", t), histogram_figure),
    "noise": (lambda run, t: run, noise_figure),
    "diversity": (lambda run, t: diversity_data(run), diversity_figure),
    "schedule": (lambda run, t: run.schedule, schedule_figure),
    "trajectories": (_numbers, trajectories_figure),
}
NAMES = tuple(_PICTURES)
"""The names of all pictures."""


def plot(
    run: Run, name: str, *, language: str = "en", theme: str = "light", t: Time = None
) -> go.Figure:
    """The picture ``name`` of a run, as a plotly figure.

    Args:
        run: a recorded run.
        name: one of ``NAMES``; ``available(run)`` has those that this run can give.
        language: of its words, en or zh.
        theme: light or dark.
        t: the step that is looked at. The histogram, the strips and the map show it; the figures
            over time have a line there.

    Raises:
        InputError: an unknown name, language or theme, a picture that the run has no numbers for,
            or a step outside the run.
    """
    _check("picture", name, NAMES)
    _check("language", language, LANGUAGES)
    _check("theme", theme, tuple(TEMPLATES))
    if t is not None and not 0 <= t <= run.schedule.T:
        raise InputError(f"t is {t}; allowed is 0…{run.schedule.T}")
    pick, draw = _PICTURES[name]
    data = pick(run, t)
    if data is None:
        raise InputError(
            f"picture is {name!r}; this run has the numbers for {', '.join(available(run))}"
        )
    figure = draw(data, language)
    if t is not None:
        add_cursor(figure, t)
    return figure.update_layout(template=TEMPLATES[theme])


def available(run: Run) -> list[str]:
    """The names of the pictures that the run has the numbers for."""
    return [name for name, (pick, _) in _PICTURES.items() if pick(run, None) is not None]


def caption(name: str, language: str = "en") -> str:
    """What the picture ``name`` shows, and what it cannot say, in a few sentences."""
    return text(f"figures.{name}.caption", language)


def _check(what: str, given: object, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise InputError(f"{what} is {given!r}; allowed: {', '.join(allowed)}")
