"""The dashboard: arrangement of runs, figures and words in a browser, and nothing else.

The first page needs the server once per run: images, curves and sentences come as one file, and
moving through time happens in the browser alone. The two other pages ask small questions.

Dash's FastAPI backend on uvicorn serves it. Its websocket callbacks can show a recording while it
runs, which the Flask backend cannot, and one middleware (`guard`) stands before every request.
"""

import gzip
import json
import logging
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn
from dash import Dash
from fastapi import FastAPI, Request, Response
from plotly.offline import get_plotlyjs

from dashboards.guard import LOOPBACK, Guard, Receive, Scope, Send
from dashboards.layout import PAGES, page
from dashboards.pages import KINDS, dial, dial_figures, register
from dashboards.payload import pack, payload
from dashboards.record import record_page
from diffviz.catalogue import LANGUAGES, catalogue
from diffviz.errors import InputError
from diffviz.figures import theme
from diffviz.joining import joined
from diffviz.report.embedding import TAGS
from diffviz.run import Run

log = logging.getLogger("diffviz.dashboard")

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
) -> Guard:
    """The whole application, for any ASGI server.

    Args:
        runs: what is shown, by the name that a reader chooses it by.
        hosts: names under which the server may be asked.
        port: the only port that a Host header may name; any unless given.
        token: what every request must show; nothing unless given.
    """
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_data(server, {str(i + 1): named for i, named in enumerate(runs.items())})
    app = Dash(
        __name__,
        server=server,
        title="diffviz",
        update_title="",
        index_string=INDEX,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.backend.websocket_capability = False  # no page uses one, and the browser would try
    app.layout = page(record_page())
    register(app)

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


def _add_data(server: FastAPI, runs: dict[str, tuple[str, Run]]) -> None:
    """Addresses of what the scripts fetch. A run has a number; no path comes from a browser."""

    @server.get("/health")
    async def health() -> dict[str, str | int]:
        return {"status": "ok", "runs": len(runs)}

    def names() -> list[dict[str, str]]:
        return [{"id": number, "name": name} for number, (name, _) in runs.items()]

    @server.get("/data/start")
    def start() -> Response:
        return _packed(gzip.compress(json.dumps(_start(names())).encode(), 6))

    @server.get("/data/runs")
    def listed() -> Response:
        return Response(json.dumps(names()), media_type="application/json")

    @server.get("/data/plotly.js")
    def plotly() -> Response:
        return _packed(_plotly(), "text/javascript", "public, max-age=604800")

    @server.get("/data/run/{number}")
    def run(number: str) -> Response:
        if number not in runs:
            return Response('{"error": "no such run"}', 404, media_type="application/json")
        return _packed(payload(runs[number][1]))

    @server.get("/data/run/{number}/{other}")
    def pair(number: str, other: str) -> Response:
        if number not in runs or other not in runs or number == other:
            return Response('{"error": "no such pair"}', 404, media_type="application/json")
        try:
            return _packed(_pair(number, other))
        except InputError as error:
            return Response(json.dumps({"error": str(error)}), 409, media_type="application/json")

    @lru_cache(maxsize=8)
    def _pair(number: str, other: str) -> bytes:
        return pack(joined(dict(runs[i] for i in (number, other))))

    @server.get("/data/dial/{law}")
    def dial_picture(law: str) -> Response:
        if law not in ("gaussian", "mixture"):
            return Response('{"error": "no such law"}', 404, media_type="application/json")
        return _packed(gzip.compress(json.dumps(dial_figures(law)).encode(), 6))

    @server.get("/data/dial/{law}/{noise}/{score}")
    def setting(law: str, noise: str, score: str) -> Response:
        try:
            asked = {"law": law, "noise": float(noise), "score": float(score)}
        except ValueError:
            asked = {}
        answer = dial(asked)
        status = 404 if answer is None else 200
        return Response(json.dumps(answer), status, media_type="application/json")

    @server.exception_handler(404)
    async def missing(request: Request, error: Exception) -> Response:
        return Response('{"error": "nothing here"}', 404, media_type="application/json")


def _start(names: list[dict[str, str]]) -> dict[str, Any]:
    """What the scripts need before any run: words, and how figures are drawn."""
    return {
        "runs": names,
        "languages": TAGS,
        "words": {
            code: {
                key: words
                for key, words in catalogue(code).items()
                if key.startswith("dashboard.")
            }
            for code in LANGUAGES
        },
        "kinds": list(KINDS),
        "config": {**theme.CONFIG, "displayModeBar": False},
        "narrow": theme.NARROW,
        "text": {"light": theme.TEXT[False], "dark": theme.TEXT[True]},
    }


@cache
def _plotly() -> bytes:
    return gzip.compress(get_plotlyjs().encode(), 6, mtime=0)


def _packed(
    body: bytes, kind: str = "application/json", keep: str = "private, no-cache"
) -> Response:
    return Response(
        body, media_type=kind, headers={"content-encoding": "gzip", "cache-control": keep}
    )


def load_runs(paths: Sequence[str | Path]) -> dict[str, Run]:
    """Runs by the names of their files, which are made different where they are not.

    Raises:
        RunFileError: a file that is not a whole run.
    """
    runs: dict[str, Run] = {}
    for path in paths:
        name, number = Path(path).stem[:80], 2
        while name in runs:
            name, number = f"{Path(path).stem[:80]} ({number})", number + 1
        runs[name] = Run.load(path)
    return runs


def serve(paths: Sequence[str | Path], host: str = "127.0.0.1", port: int = 8050) -> None:
    """Show the runs at ``paths`` in a browser until interrupted.

    On another host than this machine itself a warning is printed, and a link with a token that
    every request needs.

    Raises:
        InputError: a run cannot be read, or the port is not an integer 1…65535.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"port is {port!r}; allowed are the integers 1…65535")
    runs = load_runs(paths)
    bare = host.strip("[]")
    listening = _listen(bare, port)
    local = bare in ("127.0.0.1", "localhost", "::1")
    shown = f"[{bare}]" if ":" in bare else bare
    token = None if local else secrets.token_urlsafe(18)
    anywhere = bare in ("0.0.0.0", "::")
    names = [shown, *(_own_names() if anywhere else ())]
    app = create_app(runs, hosts=(*LOOPBACK, *names), port=port, token=token)
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
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends at once; without, an answer waits 40 ms for its end.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise InputError(f"{host} port {port} cannot be used: {reason}; try --port") from None
    return listening


def _own_names() -> list[str]:
    """The name of this machine, and its address on the network it would send through."""
    names = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # a datagram socket: nothing is sent
        names.append(str(probe.getsockname()[0]))
    return [*names, socket.gethostname().lower()]
