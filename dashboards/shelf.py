"""The runs that there are, by the id in an address, and their figures, drawn once.

Runs from the command line have short ids that everybody sees. A recorded run has a long random id:
whoever has the link opens the run, and nobody else does. No id is ever a path.
"""

import json
import re
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import dash
import flask

import diffviz.figures
from diffviz.errors import InputError
from diffviz.recording.combine import combine
from diffviz.recording.run import Run

RECORDED = re.compile("[A-Za-z0-9_-]{20,40}")
_DRAWING = threading.Lock()


class Shelf:
    """Hands out runs.

    Args:
        runs: those that everybody sees, by id.
        folder: where jobs leave theirs, as ``<id>.nc``.
    """

    def __init__(self, runs: Mapping[str, Run], folder: Path) -> None:
        self.runs, self.folder = dict(runs), folder
        self._recorded = lru_cache(maxsize=16)(Run.load)
        self._combined = lru_cache(maxsize=8)(_combined)

    @property
    def first(self) -> str | None:
        """The run of an address that names none."""
        return next(iter(self.runs), None)

    def path(self, run_id: str) -> Path | None:
        """The file of a recorded run; None for an id that is none."""
        return self.folder / f"{run_id}.nc" if RECORDED.fullmatch(run_id) else None

    def get(self, run_id: str | None, beside: str | None = None) -> Run | None:
        """The run of this id; None where there is none.

        With ``beside`` both runs as one, arm beside arm.

        Raises:
            InputError: the two differ in shape, steps or schedule.
        """
        if run_id is None:
            return None
        if beside:
            first, other = self.get(run_id), self.get(beside)
            if first is None or other is None:
                return None
            return self._combined(run_id, first, beside, other)
        if run_id in self.runs:
            return self.runs[run_id]
        path = self.path(run_id)
        return self._recorded(path) if path is not None and path.exists() else None

    def exists(self, run_id: str) -> bool:
        """Whether there is a run of this id; it is not opened."""
        path = self.path(run_id)
        return run_id in self.runs or (path is not None and path.exists())

    def fits(self, run_id: str, other: str) -> bool:
        """Whether the two can be laid over each other."""
        try:
            return run_id != other and self.get(run_id, other) is not None
        except InputError:
            return False


def shelf() -> Shelf:
    """The shelf of the application that answers."""
    return setting("SHELF")


def setting(name: str) -> Any:
    """A value of the server that answers; in a background process, of its parent."""
    server = flask.current_app if flask.has_app_context() else dash.get_app().server
    return server.config[name]


def _combined(first_id: str, first: Run, other_id: str, other: Run) -> Run:
    return combine({first_id[:8]: first, other_id[:8]: other})


@lru_cache(maxsize=64)
def pictures(run: Run) -> tuple[str, ...]:
    """The names of the pictures that the run has the numbers for."""
    return tuple(diffviz.figures.available(run))


def figure(run: Run, name: str, language: str, theme: str, big: bool = False) -> dict[str, Any]:
    """The picture ``name`` of a run as plotly's JSON, drawn once for all who ask.

    Raises:
        InputError: the run cannot give this picture.
    """
    with _DRAWING:
        return _drawn(run, name, language, theme, big)


@lru_cache(maxsize=400)
def _drawn(run: Run, name: str, language: str, theme: str, big: bool) -> dict[str, Any]:
    made = diffviz.figures.plot(run, name, language=language, theme=theme)
    return json.loads(enlarged(made, big).to_json())


def enlarged(made: Any, big: bool) -> Any:
    """The figure; ``big`` with type, lines and markers for the back row of a lecture room."""
    if not big:
        return made
    made.update_layout(font_size=20, legend_font_size=20, hoverlabel_font_size=20)
    made.for_each_annotation(lambda a: a.update(font_size=20))
    made.for_each_xaxis(lambda a: a.update(title_font_size=20))
    made.for_each_yaxis(lambda a: a.update(title_font_size=20))
    for trace in made.data:
        if getattr(getattr(trace, "line", None), "width", None):
            trace.line.width *= 1.6
        if isinstance(size := getattr(getattr(trace, "marker", None), "size", None), int | float):
            trace.marker.size = size * 1.5
    return made
