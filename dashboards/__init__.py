"""The dashboard: arrangement of runs, figures and words in a browser, and nothing else.

The first page needs the server once per run: images, curves and sentences come as one file, and
moving through time happens in the browser alone. The two other pages ask Dash callbacks.

Dash's FastAPI backend on uvicorn serves it. Its websocket callbacks can show a recording while it
runs, which the Flask backend cannot, and one middleware (`guard`) stands before every request.
"""

import gzip
import json
import logging
import secrets
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import uvicorn
from dash import Dash
from fastapi import FastAPI, Request, Response
from plotly.offline import get_plotlyjs

from dashboards.guard import LOOPBACK, Guard, Receive, Scope, Send
from dashboards.layout import PAGES, page
from dashboards.pages import KINDS, dial_figures, register
from dashboards.payload import payload
from diffviz.catalogue import LANGUAGES, catalogue
from diffviz.errors import InputError
from diffviz.figures import theme
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
    app.layout = page()
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
    made: dict[str, bytes] = {}
    making = Lock()

    @server.get("/health")
    async def health() -> dict[str, str | int]:
        return {"status": "ok", "runs": len(runs)}

    @server.get("/data/start")
    def start() -> Response:
        names = [{"id": number, "name": name} for number, (name, _) in runs.items()]
        return _packed(gzip.compress(json.dumps(_start(names)).encode(), 6))

    @server.get("/data/plotly.js")
    def plotly() -> Response:
        return _packed(_plotly(), "text/javascript", "public, max-age=604800")

    @server.get("/data/run/{number}")
    def run(number: str) -> Response:
        if number not in runs:
            return Response('{"error": "no such run"}', 404, media_type="application/json")
        with making:
            if number not in made:
                made[number] = payload(runs[number][1])
        return _packed(made[number])

    @server.get("/data/dial/{law}")
    def dial(law: str) -> Response:
        if law not in ("gaussian", "mixture"):
            return Response('{"error": "no such law"}', 404, media_type="application/json")
        return _packed(gzip.compress(json.dumps(dial_figures(law)).encode(), 6))

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
    uvicorn.run(
        app, host=bare, port=port, lifespan="off", log_level="warning", server_header=False
    )


def _own_names() -> list[str]:
    """Names and addresses under which others may know this machine."""
    import socket

    name = socket.gethostname()
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    except OSError:
        addresses = set()
    wrapped = (f"[{address}]" if ":" in address else address for address in addresses)
    return [*sorted(wrapped), name.lower()]
