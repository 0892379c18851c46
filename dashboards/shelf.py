"""The runs of the server, by the id in an address; their figures, drawn once; their files.

Runs from the command line have short ids that everybody sees. A recorded run has a long random id:
whoever has the link opens the run, and nobody else does. No id is ever a path.
"""

import json
import re
import secrets
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import dash
import flask
from flask import Flask, Response, abort, request, send_file

import diffviz.figures
from diffviz.errors import InputError
from diffviz.figures import theme
from diffviz.files.catalogue import LANGUAGES
from diffviz.recording.combine import combine
from diffviz.recording.run import Run

RECORDED = re.compile("[A-Za-z0-9_-]{20,40}")
FILES = {"run.nc": "application/x-netcdf", "curves.csv": "text/csv", "report.html": "text/html"}
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

    def exists(self, run_id: str) -> bool:
        """Whether there is a run of this id; it is not opened."""
        path = self.path(run_id)
        return run_id in self.runs or (path is not None and path.exists())

    def get(self, run_id: str | None, beside: str | None = None) -> Run | None:
        """The run of this id; None where there is none.

        With ``beside`` both runs as one, arm beside arm.

        Raises:
            InputError: the two differ in shape, steps or schedule.
        """
        if run_id is None or not self.exists(run_id):
            return None
        if beside:
            first, other = self.get(run_id), self.get(beside)
            return first and other and self._combined(run_id, first, beside, other)
        return self.runs[run_id] if run_id in self.runs else self._recorded(self.path(run_id))

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


# ------------------------------------------------------------------- figures


@lru_cache(maxsize=64)
def pictures(run: Run) -> tuple[str, ...]:
    """The names of the pictures that the run has the numbers for."""
    return tuple(diffviz.figures.available(run))


def figure(
    run: Run, name: str, language: str, colours: str, large: bool = False, narrow: bool = False
) -> dict[str, Any]:
    """The picture ``name`` of a run as plotly's JSON, drawn once for all who ask.

    Raises:
        InputError: the run cannot give this picture.
    """
    with _DRAWING:
        return _drawn(run, name, language, colours, large, narrow)


@lru_cache(maxsize=400)
def _drawn(run: Run, name: str, language: str, *look: Any) -> dict[str, Any]:
    made = diffviz.figures.plot(run, name, language=language)
    return json.loads(theme.dressed(made, *look).to_json())


# ----------------------------------------------------------------- downloads


def add_downloads(server: Flask, shelf: Shelf) -> None:
    """The one route, ``/download/<id>/<file>``; a file is written when it is first asked for."""
    made = lru_cache(maxsize=64)(_written)

    @server.get("/download/<run_id>/<kind>")
    def download(run_id: str, kind: str) -> Response:
        run, language = shelf.get(run_id), request.args.get("lang", "en")
        if run is None or kind not in FILES or language not in LANGUAGES:
            abort(404, "there is no such file")
        path = made(run, kind, language if kind == "report.html" else "en", shelf.folder)
        name = "".join(c if c.isascii() and c.isalnum() else "-" for c in run_id[:24])
        name = f"diffviz-{name}-{kind}"
        return send_file(path, mimetype=FILES[kind], as_attachment=True, download_name=name)


def _written(run: Run, kind: str, language: str, folder: Path) -> Path:
    from diffviz.report.data import write_table
    from diffviz.report.page import write_report

    path = folder / f"{secrets.token_hex(8)}-{kind}"
    if kind == "run.nc":
        run.save(path)
    elif kind == "curves.csv":
        write_table(run, path)
    else:
        write_report(run, path, language=language)
    return path
