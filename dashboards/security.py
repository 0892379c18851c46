"""What stands before every request: who may ask, how much, and what an answer may do.

Host    only names under which this server was started, so that no foreign name can point here
Origin  a POST comes from a page of this server, and is JSON of 2 MB at most
Token   off the loopback interface every request needs it: once in the address, then as a cookie
Answer  a Content-Security-Policy without foreign sources; a callback body that makes no sense is
        answered with 400 and one line, never with a traceback

The port is part of the cookie's name: cookies of one host are shared by all its ports, and two
dashboards would sign each other out.
"""

import gzip
import hmac
import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from urllib.parse import SplitResult, urlencode, urlsplit

from dash.exceptions import DependencyException
from flask import Flask, Response, abort, jsonify, redirect, request
from werkzeug.exceptions import HTTPException

LARGEST_BODY = 2_000_000
LONGEST_ADDRESS = 4_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PACKED = ("text/", "application/javascript", "application/json", "image/svg")
"""What is compressed on its way; files to download and pictures are not."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
POLICY = (
    "default-src 'self'; script-src 'self' {scripts}; "
    "style-src 'self' 'unsafe-inline'; "  # Dash, Mantine and plotly set styles on elements
    "img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "object-src 'none'"
)
log = logging.getLogger("diffviz.dashboard")


def secure(server: Flask, hosts: Iterable[str], port: int | None, token: str | None) -> None:
    """Put all checks before every request of ``server``. Call it before Dash adds its own.

    Args:
        server: what is guarded. ``config["SCRIPTS"]`` gives the hashes of its inline scripts.
        hosts: names under which the server may be asked, without port.
        port: of the server; part of the cookie's name.
        token: what every request must show; nothing unless given.
    """
    known = {host.strip("[]").lower() for host in hosts}
    cookie = f"diffviz-{port or 0}"
    server.config.update(MAX_CONTENT_LENGTH=LARGEST_BODY, SCRIPTS=tuple)

    @server.before_request
    def check() -> Response | None:
        if _split(f"//{request.host}").hostname not in known:
            abort(403, "this host name is not allowed here")
        if len(request.full_path) > LONGEST_ADDRESS:
            abort(414, f"the address is longer than {LONGEST_ADDRESS} characters")
        if request.method not in ("GET", "HEAD", "POST"):
            abort(405, "allowed are GET, HEAD and POST")
        if request.method == "POST":
            origin = request.headers.get("Origin")
            if origin is not None and _split(origin).netloc.lower() != request.host.lower():
                abort(403, "requests from other pages are not allowed")
            if request.mimetype != "application/json":
                abort(415, "allowed is JSON")
            request.get_data(cache=True)  # 413 for what is too long
        return None if token is None else _check_token(token, cookie)

    @server.after_request
    def seal(response: Response) -> Response:
        if request.method == "POST" and response.status_code >= 500:
            response = _refusal(400, "this request makes no sense here")
        response.headers.update(HEADERS)
        policy = POLICY.format(scripts=" ".join(server.config["SCRIPTS"]()))
        response.headers["Content-Security-Policy"] = policy
        return _packed(response)

    @server.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        if isinstance(error, HTTPException):
            if 300 <= (error.code or 0) < 400:
                return error.get_response()  # type: ignore[return-value]
            return _refusal(error.code or 500, str(error.description))
        if isinstance(error, DependencyException):
            return _refusal(404, "there is nothing here")
        # A callback's body that makes no sense is the fault of whoever sent it.
        posted = request.method == "POST"
        log.warning("failed: %.200r", error, exc_info=not posted)
        return _refusal(400 if posted else 500, "this could not be answered")


def _check_token(token: str, cookie: str) -> Response | None:
    """Refuse, let pass, or turn the token in the address into a cookie."""

    def right(shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), token.encode())

    if request.method == "GET" and right(request.args.get("token", "")):
        rest = [pair for pair in request.args.items(multi=True) if pair[0] != "token"]
        # One slash only: two would be read as the name of another server.
        place = "/" + request.path.lstrip("/\\") + (f"?{urlencode(rest)}" if rest else "")
        answer = redirect(place, 303)
        answer.set_cookie(cookie, token, httponly=True, samesite="Lax")
        return answer  # type: ignore[return-value]
    if not right(request.cookies.get(cookie, "")):
        abort(401, "open the link that diffviz dashboard has printed")
    return None


def _refusal(status: int, line: str) -> Response:
    response = jsonify(error=line)
    response.status_code = status
    return response


def _split(address: str) -> SplitResult:
    with suppress(ValueError):
        return urlsplit(address)
    return urlsplit("")


def _packed(response: Response) -> Response:
    """Compressed where it is text; what is the same for everybody, only once."""
    wanted = "gzip" in request.headers.get("Accept-Encoding", "")
    if not wanted or response.status_code != 200 or "Content-Encoding" in response.headers:
        return response
    if not response.mimetype.startswith(PACKED) or request.path.startswith("/download/"):
        return response
    response.direct_passthrough = False
    if len(body := response.get_data()) > 1500:
        # Scripts, and large answers as the frames of a run, are the same for a whole class.
        fixed = request.method == "GET" and request.path.startswith(("/_dash-comp", "/assets/"))
        pack = _once if fixed or len(body) > 1_000_000 else gzip.compress
        response.set_data(pack(body, 6 if fixed else 2))
        response.headers.update({"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
    return response


_once = lru_cache(maxsize=128)(gzip.compress)
