"""The server: Dash's FastAPI backend on uvicorn, with one middleware before every request.

The first page needs the server once per run: images, curves and sentences come as one file, and
moving through time happens in the browser alone. The other pages ask small questions, and what
takes longer, recording, happens in processes of its own (`dashboards.jobs`).
"""

import asyncio
import multiprocessing
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import uvicorn
from dash import Dash
from dash.exceptions import DependencyException
from fastapi import FastAPI, Request, Response

from dashboards.bench import Bench
from dashboards.guard import LOOPBACK, Guard, Receive, Scope, Send
from dashboards.jobs import Jobs, described
from dashboards.layout import PAGES, page
from dashboards.order import MEMORY, SHIPPED
from dashboards.pages import add_data, register
from dashboards.payload import payload
from dashboards.record import record_page
from dashboards.routes import add_routes
from diffviz.errors import InputError
from diffviz.recording.run import Run

INDEX = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}
<meta name="color-scheme" content="light dark"></head>
<body>{%app_entry%}<footer class="machinery">{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""


def create_app(
    runs: Mapping[str, Run],
    *,
    hosts: Sequence[str] = LOOPBACK,
    port: int | None = None,
    token: str | None = None,
    jobs: Jobs | None = None,
) -> Guard:
    """The whole application, for any ASGI server.

    Args:
        runs: what is shown, by the name that a reader chooses it by.
        hosts: names under which the server may be asked.
        port: the only port that a Host header may name; any unless given.
        token: what every request must show; nothing unless given.
        jobs: who records; whoever makes it closes it.
    """
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(server, runs, Jobs() if jobs is None else jobs)
    app = Dash(
        __name__,
        server=server,
        title="diffviz",
        update_title="",
        index_string=INDEX,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )

    @server.exception_handler(DependencyException)
    async def no_such_part(request: Request, error: Exception) -> Response:
        return Response('{"error": "nothing here"}', 404, media_type="application/json")

    app.backend.websocket_capability = False  # no page uses one, and the browser would try
    app.layout = page(record_page())
    register(app)
    add_data(server, Bench(), Bench())

    policy = "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' {' '.join(app.csp_hashes())}",
            "style-src 'self' 'unsafe-inline'",  # plotly and Dash set styles on elements
            "img-src 'self' data: blob:",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "object-src 'none'",
        )
    )

    async def with_pages(scope: Scope, receive: Receive, send: Send) -> None:
        # Every page is the same document; the browser reads the path.
        inner = {**scope, "path": "/"} if scope["path"] in PAGES.values() else scope
        await server(inner, receive, send)

    return Guard(with_pages, hosts, port, token, policy)


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
            name, number = f"{stem} ({number})", number + 1
        runs[name] = Run.load(path)
    return runs


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
        paths: runs that everybody sees.
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
    runs = load_runs(paths)
    models = [*SHIPPED, *described([Path(path) for path in checkpoints])]
    listening = _listen(bare, port)
    local = bare in ("127.0.0.1", "localhost", "::1")
    shown = f"[{bare}]" if ":" in bare else bare
    token = None if local else secrets.token_urlsafe(18)
    anywhere = bare in ("0.0.0.0", "::")
    names = [shown, *(_own_names() if anywhere else ())]
    jobs = Jobs(models, workers=workers, memory=min(MEMORY, _spare_memory() / (workers + 1)))
    app = create_app(runs, hosts=(*LOOPBACK, *names), port=port, token=token, jobs=jobs)
    if token is None:
        print(f"diffviz is at http://{shown}:{port}/  (Ctrl+C ends it)", flush=True)
    else:
        print("Warning: everybody on this network who has the link can open it.", file=sys.stderr)
        for name in names[1:] or names:
            print(f"Join at http://{name}:{port}/?token={token}", flush=True)
    for run in list(runs.values())[:1]:
        Thread(target=payload, args=(run,), daemon=True).start()  # ready when the page asks
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        server_header=False,
        ws="none",
        limit_concurrency=1000,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
    )
    try:
        with suppress(KeyboardInterrupt):
            _Server(config, jobs).run(sockets=[listening])
    finally:
        _end_processes(jobs)


class _Server(uvicorn.Server):
    """Ends jobs before connections: a stream of news would keep its connection open."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs) -> None:
        super().__init__(config)
        self.jobs = jobs

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(_end_processes, self.jobs)
        await super().shutdown(sockets)


def _end_processes(jobs: Jobs) -> None:
    """All of them: those of jobs, and those of benches, for which nobody waits any more."""
    jobs.close()
    for child in multiprocessing.active_children():
        child.terminate()


def _spare_memory() -> float:
    """Bytes that could be taken now; plenty where that is not known."""
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))
    return 4.0 * MEMORY


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends at once; without, an answer waits 40 ms for its end.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)  # at once, so that a second server is told and not believed
    except (OSError, UnicodeError, TypeError) as error:  # the two last are of names that are none
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
