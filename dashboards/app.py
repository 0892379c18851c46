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

from dashboards import downloads, shell, stage
from dashboards.jobs import Jobs
from dashboards.security import LOOPBACK, policy, secure
from dashboards.shelf import Shelf
from diffviz.diffusion.names import shipped_weights
from diffviz.errors import InputError
from diffviz.recording.run import Run

HERE = Path(__file__).parent
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}
<meta name="color-scheme" content="light dark"></head>
<body>{%app_entry%}<footer class="machinery">{%config%}{%scripts%}{%renderer%}</footer></body>
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
    shelf = Shelf(runs, jobs.folder)
    server = Flask("dashboards", static_folder=None)
    server.config.update(SHELF=shelf, JOBS=jobs)
    secure(server, hosts, port, token)
    downloads.add(server, shelf)
    app = Dash(
        "dashboards",
        server=server,
        title="diffviz",
        update_title=None,
        index_string=INDEX,
        assets_folder=str(_assets(jobs.folder)),
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
    # Asked at every answer: pages add their inline scripts with the first request.
    server.config["POLICY"] = lambda: policy(app.csp_hashes())
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
        checkpoints: weights that may be recorded with, beside those that come with diffviz.
        workers: recordings at a time; the others wait.

    Raises:
        InputError: a run or a checkpoint cannot be read, a number is out of range, or the host
            is blank, which would be every address.
    """
    bare = host.strip("[] \t")
    if not bare:
        raise InputError(f"host is {host!r}; allowed is an address or name, as 127.0.0.1")
    if not 1 <= port <= 65535:
        raise InputError(f"port is {port!r}; allowed are the integers 1…65535")
    if not 1 <= workers <= 64:
        raise InputError(f"workers is {workers!r}; allowed are the integers 1…64")
    runs = load_runs(paths or shipped_runs())
    listening = _listen(bare, port)
    local = bare in ("127.0.0.1", "localhost", "::1")
    shown = f"[{bare}]" if ":" in bare else bare
    token = None if local else secrets.token_urlsafe(18)
    names = [shown, *(_own_names() if bare in ("0.0.0.0", "::") else ())]
    with Jobs(checkpoints, workers=workers) as jobs:
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

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""

    def version_string(self) -> str:
        """No version: it is nobody's business."""
        return "diffviz"


def load_runs(paths: Sequence[str | Path]) -> dict[str, Run]:
    """Runs by the names of their files, which are made different where they are not.

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


def _assets(folder: Path) -> Path:
    """The dashboard's own assets and the shared scripts, in one folder that Dash can serve."""
    made = folder / "assets"
    shutil.copytree(HERE / "assets", made, dirs_exist_ok=True)
    for package, name in SHARED:
        with suppress(ModuleNotFoundError, FileNotFoundError):
            (made / name).write_bytes(files(package).joinpath(name).read_bytes())
    return made


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends at once; without, an answer waits 40 ms for its end.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)  # at once, so that a second server is refused here
    except (OSError, UnicodeError, TypeError) as error:  # the last two for what is no name
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{host} port {port} cannot be used: {reason}; try --port") from None
    return listening


def _own_names() -> list[str]:
    """The name of this machine, and its address on the network it would send through."""
    names = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # a datagram socket: nothing is sent
        names.append(str(probe.getsockname()[0]))
    return [*names, socket.gethostname().lower()]
