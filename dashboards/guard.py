"""What stands before every request: who may ask, how much, and what an answer may do.

Host    only names that this server was started under, so that no foreign name can be pointed here
Origin  a POST, or a socket, comes from a page of this server or from no page at all
Body    2 MB at most, and JSON
Token   off the loopback interface every request needs it, once in the address, then a cookie
Errors  one line, never a traceback
"""

import asyncio
import hmac
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BODY = 2_000_000
LONGEST_ADDRESS = 4_000
LONGEST_WAIT = 20.0
"""Seconds in which a body has to be there."""
COOKIE = "diffviz-token"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

log = logging.getLogger("diffviz.dashboard")


class Refused(Exception):
    """A request that is not answered: its status and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: what is guarded.
        hosts: names under which the server may be asked, without port.
        port: the only port that a Host header may name; any unless given.
        token: what every request must show; nothing unless given.
        policy: the Content-Security-Policy of every answer.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        hosts: Iterable[str],
        port: int | None,
        token: str | None,
        policy: str,
    ) -> None:
        self.app, self.token, self.port = app, token, port
        self.hosts = {host.lower() for host in hosts}
        self.headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse in one line."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        started = False

        async def sealed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                if message["status"] >= 500 and message["status"] != 503:  # 503 is meant
                    # A callback's body that makes no sense is the fault of whoever sent it.
                    _log_failure(scope, sys.exc_info()[1])
                    status = 400 if scope["method"] == "POST" else 500
                    raise Refused(status, "the request could not be answered")
                started = True
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        try:
            self._check(scope)
            answer = self._join(scope)
            if answer is not None:
                await _respond(send, 303, b"", [*answer, *self.headers])
                return
            if scope["type"] == "http" and scope["method"] == "POST":
                receive = _replayed(await _in_time(_body(receive)), receive)
            await self.app(scope, receive, sealed)
        except Refused as refusal:
            asked = f"{scope.get('method', 'socket')} {scope['path'][:120]!r}"
            log.warning("refused %s: %s", asked, refusal.line)
            if not started:
                await self._refuse(scope, send, refusal)
        except Exception as error:
            _log_failure(scope, error)
            if not started:
                status = 400 if scope.get("method") == "POST" else 500
                await self._refuse(scope, send, Refused(status, "something went wrong here"))

    def _check(self, scope: Scope) -> None:
        headers = _headers(scope)
        host = headers.get("host", "")
        if not self._known(host):
            raise Refused(403, "this host name is not allowed here")
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST_ADDRESS:
            raise Refused(414, f"the address is longer than {LONGEST_ADDRESS} characters")
        method = scope.get("method", "GET")
        if method not in ("GET", "HEAD", "POST"):
            raise Refused(405, "allowed are GET, HEAD and POST")
        origin = headers.get("origin")
        if (method == "POST" or scope["type"] == "websocket") and origin is not None:
            try:
                same = urlsplit(origin).netloc.lower() == host.lower()
            except ValueError:
                same = False
            if not same:
                raise Refused(403, "requests from other pages are not allowed")
        if method == "POST" and not headers.get("content-type", "").startswith("application/json"):
            raise Refused(415, "allowed is JSON")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:12]) > LARGEST_BODY:
            raise Refused(413, f"allowed are {LARGEST_BODY} bytes")

    def _known(self, host: str) -> bool:
        name, colon, port = host.lower().rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host.lower(), ""
        if port and not (port.isascii() and port.isdecimal() and len(port) <= 5):
            return False
        if port and self.port is not None and int(port) != self.port:
            return False
        return name in self.hosts

    def _join(self, scope: Scope) -> list[tuple[bytes, bytes]] | None:
        """Headers that turn the token in the address into a cookie; None for a known guest."""
        if self.token is None:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = query.pop("token", [""])[0]
        if scope.get("method") == "GET" and self._is_token(shown):
            # One slash only, for two would be read as the name of another server; and quoted, for
            # a browser leaves tabs and line ends out.
            place = "/" + quote(scope["path"].lstrip("/\\"))
            place += "?" + urlencode(query, doseq=True) if query else ""
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Lax; Path=/"
            return [(b"location", place.encode()), (b"set-cookie", cookie.encode())]
        # By hand: the library gives the whole header up where another server's cookie is odd.
        pairs = (part.partition("=") for part in _headers(scope).get("cookie", "").split(";"))
        if not any(
            key.strip() == COOKIE and self._is_token(kept.strip()) for key, _, kept in pairs
        ):
            raise Refused(401, "open the link that diffviz dashboard has printed")
        return None

    def _is_token(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), (self.token or "").encode())

    async def _refuse(self, scope: Scope, send: Send, refusal: Refused) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        body = json.dumps({"error": str(refusal)}).encode()
        headers = [(b"content-type", b"application/json"), *self.headers]
        await _respond(send, refusal.status, body, headers)


def _log_failure(scope: Scope, error: BaseException | None) -> None:
    """One line for a request with a body, which may be nonsense; all that is known otherwise."""
    line = " ".join(str(error).split())[:200]
    log.warning("failed inside: %s: %s", type(error).__name__, line)
    if scope.get("method") != "POST":
        log.warning("it was", exc_info=error)


def _headers(scope: Scope) -> dict[str, str]:
    return {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}


async def _in_time(body: Awaitable[bytes]) -> bytes:
    try:
        return await asyncio.wait_for(body, LONGEST_WAIT)
    except TimeoutError:
        raise Refused(408, f"the body took longer than {LONGEST_WAIT:g} seconds") from None


async def _body(receive: Receive) -> bytes:
    """The whole body, which must be JSON and not too large, whatever its header says."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            raise Refused(413, f"allowed are {LARGEST_BODY} bytes")
        if not message.get("more_body"):
            break
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is not a JSON object")
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


async def _respond(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
