"""Files of a run: ``/download/<id>/run.nc``, ``curves.csv`` and ``report.html``."""

import secrets
from functools import lru_cache
from pathlib import Path

from flask import Flask, Response, abort, request, send_file

from dashboards.shelf import Shelf
from diffviz.files.catalogue import LANGUAGES
from diffviz.recording.run import Run

KINDS = {"run.nc": "application/x-netcdf", "curves.csv": "text/csv", "report.html": "text/html"}


def add(server: Flask, shelf: Shelf) -> None:
    """The one route; a file is written when it is first asked for."""
    made = lru_cache(maxsize=64)(_written)

    @server.get("/download/<run_id>/<kind>")
    def download(run_id: str, kind: str) -> Response:
        run, language = shelf.get(run_id), request.args.get("lang", "en")
        if run is None or kind not in KINDS or language not in LANGUAGES:
            abort(404, "there is no such file")
        path = made(run, kind, language if kind == "report.html" else "en", shelf.folder)
        name = "".join(c if c.isascii() and c.isalnum() else "-" for c in run_id[:24])
        return send_file(
            path,
            mimetype=KINDS[kind],
            as_attachment=True,
            download_name=f"diffviz-{name}-{kind}",
        )


def _written(run: Run, kind: str, language: str, folder: Path) -> Path:
    path = folder / f"{secrets.token_hex(8)}-{kind}"
    if kind == "run.nc":
        run.save(path)
    elif kind == "curves.csv":
        from diffviz.report.data import write_table

        write_table(run, path)
    else:
        from diffviz.report.page import write_report

        write_report(run, path, language=language)
    return path
