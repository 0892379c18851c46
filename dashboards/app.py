"""The application and its server: Dash on Flask, one thread for each request.

Flask and not an event loop: a callback that takes a second then holds up nobody else, and whoever
adds one need not know about it.
"""

import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import dash
from dash import Dash
from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from dashboards import shelf, shell, stage
from dashboards.jobs import Jobs
from dashboards.security import LOOPBACK, secure
from diffviz.diffusion.names import shipped_weights
from diffviz.errors import InputError
from diffviz.recording.run import Run

HERE = Path(__file__).parent
# Chromium asks for an icon again whenever the address changes, so it is part of the page.
ICON = "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'%3E%3Cpath fill='%231468ab' "
ICON += "d='M1 1h3v3H1zM6 2h1v1H6zM2 6h1v1H2zM5 5h3v3H5z'/%3E%3C/svg%3E"
INDEX = f"""<!DOCTYPE html>
<html lang="en">
<head>{{%metas%}}<title>{{%title%}}</title>{{%css%}}
<link rel="icon" href="data:image/svg+xml,{ICON}">
<meta name="color-scheme" content="light dark"></head>
<body>{{%app_entry%}}<footer>{{%config%}}{{%scripts%}}{{%renderer%}}</footer></body>
</html>"""
SHARED = (("diffviz.figures", "scrub.js"), ("diffviz.play", "plane.js"))
"""Scripts that live beside what they draw, and that reports and notebooks use as well."""


def create_app(
    runs: Mapping[str, Run],
    *,
    hosts: Sequence[str] = LOOPBACK,
    port: int | None = None,
    token: str | None = None,
    jobs: Jobs | None = None,
) -> Dash:
    """The whole application; ``create_app(runs).server`` is for any WSGI server.

    Args:
        runs: what is shown, by the id that an address has for it.
        hosts: names under which the server may be asked.
        port: of the server; part of the name of its cookie.
        token: what every request must show; nothing unless given.
        jobs: who records; whoever makes it closes it.
    """
    jobs = Jobs() if jobs is None else jobs
    assets = jobs.folder / "assets"  # the dashboard's own and the shared scripts in one folder
    shutil.copytree(HERE / "assets", assets, dirs_exist_ok=True)
    for package, name in SHARED:
        (assets / name).write_bytes(files(package).joinpath(name).read_bytes())
    server = Flask("dashboards", static_folder=None)
    secure(server, hosts, port, token)
    runs_here = shelf.Shelf(runs, jobs.folder)
    shelf.add_downloads(server, runs_here)
    app = Dash(
        "dashboards",
        server=server,
        title="diffviz",
        update_title=None,
        index_string=INDEX,
        assets_folder=str(assets),
        assets_ignore="plane",  # a module: the page that uses it imports it
        use_pages=True,
        pages_folder=str(HERE / "pages"),
        suppress_callback_exceptions=True,
        background_callback_manager=jobs.manager,
        health_endpoint="health",
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.layout = dash.html.Div([dash.page_container])
    shell.register(app)
    stage.register(app)
    # The hashes are asked for at every answer: pages add inline scripts with the first request.
    server.config.update(SHELF=runs_here, JOBS=jobs, SCRIPTS=app.csp_hashes)
    jobs.manager.begin()
    return app


def serve(
    paths: Sequence[str | Path],
    host: str = "127.0.0.1",
    port: int = 8050,
    *,
    checkpoints: Sequence[str | Path] = (),
    workers: int = 1,
) -> None:
    """Show the runs at ``paths`` in a browser, and record others, until interrupted.

    On another host than this machine itself a warning is printed, and a link with a token that
    every request needs.

    Args:
        paths: runs that everybody sees; a shipped one where there is none.
        host: address to listen on.
        port: and its port.
        checkpoints: weights that may be recorded with, besides those that come with diffviz.
        workers: recordings at a time; the others wait.

    Raises:
        InputError: a run or a checkpoint cannot be read, a number is out of range, or the host
            is blank, which would be every address.
    """
    bare = host.strip("[] \t")
    if not bare:
        raise InputError(f"host is {host!r}; allowed is an address or name, as 127.0.0.1")
    for name, value, most in (("port", port, 65535), ("workers", workers, 64)):
        if not 1 <= value <= most:
            raise InputError(f"{name} is {value!r}; allowed are the integers 1…{most}")
    runs = load_runs(paths or shipped_runs())
    local = bare in ("127.0.0.1", "localhost", "::1")
    shown = f"[{bare}]" if ":" in bare else bare
    token = None if local else secrets.token_urlsafe(18)
    names = [shown, *(_own_names() if bare in ("0.0.0.0", "::") else ())]
    with _listen(bare, port) as listening, Jobs(checkpoints, workers=workers) as jobs:
        app = create_app(runs, hosts=(*LOOPBACK, *names), port=port, token=token, jobs=jobs)
        if token is None:
            print(f"diffviz is at http://{shown}:{port}/  (Ctrl+C ends it)", flush=True)
        else:
            print("Warning: whoever on this network has the link can open it.", file=sys.stderr)
            for name in names[1:] or names:
                print(f"Join at http://{name}:{port}/?token={token}", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            made_server(app, bare, port, listening).serve_forever()


def made_server(app: Dash, host: str, port: int, listening: socket.socket) -> BaseWSGIServer:
    """A server for ``app`` on a socket that listens already; ``serve_forever`` starts it."""
    server = make_server(
        host, port, app.server, threaded=True, request_handler=_Quiet, fd=listening.fileno()
    )
    server.daemon_threads = True  # type: ignore[attr-defined]
    return server


class _Quiet(WSGIRequestHandler):
    """Keeps connections open, ends idle ones, and writes no line for each request."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True  # else an answer's body waits 40 ms for its head

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write no line."""

    def version_string(self) -> str:
        """No version: it is nobody's business."""
        return "diffviz"


def load_runs(paths: Sequence[str | Path]) -> dict[str, Run]:
    """Runs by the names of their files; a name that comes again gets a number.

    Raises:
        RunFileError: a file that is not a whole run.
    """
    runs: dict[str, Run] = {}
    for path in paths:
        stem = Path(path).stem[:80].encode(errors="backslashreplace").decode()
        name, number = stem, 2
        while name in runs:
            name, number = f"{stem}-{number}", number + 1
        runs[name] = Run.load(path)
    return runs


def shipped_runs() -> list[Path]:
    """The run that comes with diffviz, if it is there."""
    path = Path(shipped_weights()).parent / "sprites.nc"
    return [path] if path.exists() else []


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at once, so that a second server is refused here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError, TypeError) as error:  # the last two for what is no name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{host} port {port} cannot be used: {reason}; try --port") from None


def _own_names() -> list[str]:
    """The name of this machine, and its address on the network it would send through."""
    names = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # a datagram socket: nothing is sent
        names.append(str(probe.getsockname()[0]))
    return [*names, socket.gethostname().lower()]
