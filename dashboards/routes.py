"""Addresses that the scripts ask: words and runs, and the jobs of whoever asks.

A run has a number, or the unguessable name of the job that made it; no path comes from a browser.
A browser is known by a cookie that its scripts cannot read, and sees no job but its own.

News of a job come as server-sent events: a plain answer that goes on, over the same connection,
cookie and checks as any other, taken up again by the browser itself when it breaks. A websocket,
Dash's or our own, would bring a second protocol and a second set of checks for messages that only
ever go one way.
"""

import asyncio
import gzip
import json
import logging
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from plotly.offline import get_plotlyjs

from dashboards.jobs import Jobs
from dashboards.order import Refused, order
from dashboards.pages import KINDS, dial, dial_figures
from dashboards.payload import pack, payload
from diffviz.errors import InputError
from diffviz.figures import theme
from diffviz.figures.live import live_figure
from diffviz.files.catalogue import LANGUAGES, catalogue
from diffviz.recording.combine import combine
from diffviz.recording.run import Run
from diffviz.report.embedding import TAGS, figure_json

log = logging.getLogger("diffviz.dashboard")

GUEST = "diffviz-guest"
"""The cookie that says whose jobs are whose."""
GUEST_WORD = re.compile(r"[A-Za-z0-9_-]{32}")
MOST_STREAMS, MOST_STREAMS_OWN = 400, 8
BEAT = 0.25
"""Seconds between two looks for news."""
KINDS_OF_FILES = {
    "run": ("nc", "application/x-netcdf"),
    "csv": ("csv", "text/csv; charset=utf-8"),
    "png": ("png", "image/png"),
    "html": ("html", "text/html; charset=utf-8"),
}


def add_routes(server: FastAPI, runs: Mapping[str, Run], jobs: Jobs) -> None:
    """All of them."""
    shown = {str(i + 1): named for i, named in enumerate(runs.items())}
    _add_pages(server)
    _add_runs(server, shown, jobs)
    _add_jobs(server, jobs)

    @server.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "runs": len(runs), "jobs": jobs.counts()}

    @server.exception_handler(404)
    async def missing(request: Request, error: Exception) -> Response:
        return _json({"error": "nothing here"}, 404)


# ------------------------------------------------------------------ pages


def _add_pages(server: FastAPI) -> None:
    @server.get("/data/plotly.js")
    def plotly() -> Response:
        return _packed(_plotly(), "text/javascript", "public, max-age=604800")

    @server.get("/data/dial/{law}")
    def dial_picture(law: str) -> Response:
        if law not in ("gaussian", "mixture"):
            return _json({"error": "no such law"}, 404)
        return _packed(gzip.compress(json.dumps(dial_figures(law)).encode(), 6))

    @server.get("/data/dial/{law}/{noise}/{score}")
    def setting(law: str, noise: str, score: str) -> Response:
        try:
            asked = {"law": law, "noise": float(noise), "score": float(score)}
        except ValueError:
            asked = {}
        answer = dial(asked)
        return _json(answer, 404 if answer is None else 200)


# ------------------------------------------------------------------ runs


def _add_runs(server: FastAPI, shown: Mapping[str, tuple[str, Run]], jobs: Jobs) -> None:
    def names(owner: str) -> list[dict[str, str]]:
        given = [{"id": number, "name": name} for number, (name, _) in shown.items()]
        return [*given, *jobs.runs(owner)]

    @server.get("/data/start")
    def start(request: Request) -> Response:
        begun = _start() | {"runs": names(guest(request))}
        begun["models"] = [
            {
                "id": m.id,
                "name": m.name,
                "kind": m.kind,
                "classes": m.classes,
                "T": m.T,
                "n": m.n,
            }
            for m in jobs.models
        ]
        answer = _packed(gzip.compress(json.dumps(begun).encode(), 6))
        if not guest(request):
            _welcome(answer)
        return answer

    @server.get("/data/runs")
    async def listed(request: Request) -> Response:
        return _json(names(guest(request)))

    @server.get("/data/run/{key}")
    def run(key: str, request: Request) -> Response:
        if key in shown:
            return _packed(payload(shown[key][1]))
        made = jobs.file(key, guest(request), "payload")
        if made is None:
            return _json({"error": "no such run"}, 404)
        return _packed(made.read_bytes())

    one_pair = asyncio.Semaphore(1)  # joining computes for a second or two, so one at a time

    @server.get("/data/run/{key}/{other}")
    async def pair(key: str, other: str, request: Request) -> Response:
        owner = guest(request)
        if key == other or not (known(key, owner) and known(other, owner)):
            return _json({"error": "no such pair"}, 404)
        try:
            async with one_pair:
                return _packed(await run_in_threadpool(pair_of, key, other, owner))
        except InputError as error:  # an answer to a question, not a failure
            return _json({"error": str(error)})

    def known(key: str, owner: str) -> bool:
        return key in shown or jobs.file(key, owner, "run") is not None

    @lru_cache(maxsize=8)
    def pair_of(key: str, other: str, owner: str) -> bytes:
        found = [shown.get(one) or jobs.run(one, owner) for one in (key, other)]
        if None in found:
            raise InputError("a run that has been removed meanwhile")
        (name, first), (second_name, second) = (part for part in found if part is not None)
        if second_name == name:
            second_name += " (2)"
        return pack(combine({name: first, second_name: second}))


# ------------------------------------------------------------------ jobs


def _add_jobs(server: FastAPI, jobs: Jobs) -> None:
    streams: Counter[str] = Counter()

    async def answered(request: Request, do: Callable[[dict[str, Any], str], Any]) -> Response:
        """What ``do`` makes of the JSON object that was sent, or one line on why not."""
        asked, owner = await request.json(), guest(request)
        fresh = "" if owner else secrets.token_urlsafe(24)
        try:
            answer = _json(await run_in_threadpool(do, asked, owner or fresh))
        except Refused as refusal:
            log.warning("refused an order: %s", refusal)
            answer = _json({"wrong": refusal.told()}, 422)
        if fresh:
            _welcome(answer, fresh)
        return answer

    @server.post("/data/jobs/estimate")
    async def estimate(request: Request) -> Response:
        def priced(asked: dict[str, Any], owner: str) -> Any:
            try:
                meant = order(asked, jobs.models)
                seconds, memory = jobs.price(meant)
            except Refused as refusal:  # an answer to a question, not a failure
                return {"wrong": refusal.told()}
            return {"seconds": seconds, "memory": memory, "T": meant.T, "steps": meant.steps}

        return await answered(request, priced)

    @server.post("/data/jobs")
    async def submit(request: Request) -> Response:
        def taken(asked: dict[str, Any], owner: str) -> Any:
            return jobs.view(jobs.submit(order(asked, jobs.models), owner))

        return await answered(request, taken)

    @server.post("/data/jobs/{key}/cancel")
    async def cancel(key: str, request: Request) -> Response:
        done = await run_in_threadpool(jobs.cancel, key, guest(request))
        return _json({"cancelled": True}) if done else _json({"error": "no such job"}, 404)

    @server.get("/data/jobs")
    async def listed(request: Request) -> Response:
        return _json(jobs.news(guest(request), {}))

    @server.get("/data/jobs/stream")
    async def stream(request: Request) -> Response:
        owner = guest(request)
        if streams[owner] >= MOST_STREAMS_OWN or streams.total() >= MOST_STREAMS:
            return _json({"error": "too many open pages"}, 429)

        async def news() -> AsyncIterator[str]:
            seen: dict[str, Any] = {}
            streams[owner] += 1
            try:
                yield "retry: 2000\n\n"
                quiet = 0.0
                while not jobs.closing:
                    found = jobs.news(owner, seen)
                    if found is not None:
                        yield f"data: {json.dumps(found)}\n\n"
                    elif quiet >= 15:
                        yield ": still here\n\n"
                    quiet = 0.0 if found is not None or quiet >= 15 else quiet + BEAT
                    await asyncio.sleep(BEAT)
            finally:
                streams[owner] -= 1
                if not streams[owner]:
                    del streams[owner]

        kept = {"cache-control": "no-store"}
        return StreamingResponse(news(), media_type="text/event-stream", headers=kept)

    @server.get("/data/jobs/{key}/figure")
    def figure(key: str, request: Request) -> Response:
        job = jobs.find(key, guest(request))
        if job is None or job.facts is None:
            return _json({"error": "no such job, or it has not begun"}, 404)
        facts = job.facts
        names = [name for name, _, _ in facts["rules"]]
        made = {
            code: live_figure(names, facts["T"], facts["reference"], code) for code in LANGUAGES
        }
        return _json(figure_json(made))

    @server.get("/data/jobs/{key}/file/{name}")
    def file(key: str, name: str, request: Request) -> Response:
        job, path = jobs.find(key, guest(request)), jobs.file(key, guest(request), name)
        if job is None or path is None or name not in KINDS_OF_FILES:
            return _json({"error": "no such file"}, 404)
        suffix, kind = KINDS_OF_FILES[name]
        plain = re.sub(r"[^A-Za-z0-9.=+-]+", "-", job.name).strip("-")
        return FileResponse(
            path,
            media_type=kind,
            filename=f"{plain}.{suffix}",
            headers={"cache-control": "private, no-store"},
        )


# ------------------------------------------------------------------ answers


def guest(request: Request) -> str:
    """Who asks; empty for a browser that has not been here."""
    word = request.cookies.get(GUEST, "")
    return word if GUEST_WORD.fullmatch(word) else ""


def _welcome(answer: Response, word: str | None = None) -> None:
    answer.set_cookie(
        GUEST,
        word or secrets.token_urlsafe(24),
        max_age=30_000_000,
        httponly=True,
        samesite="strict",
    )


@cache
def _start() -> dict[str, Any]:
    """What the scripts need before any run: words, and how figures are drawn."""
    return {
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
        "colours": list(theme.COLOURS),
        "config": {**theme.CONFIG, "displayModeBar": False},
        "narrow": theme.NARROW,
        "text": {"light": theme.TEXT[False], "dark": theme.TEXT[True]},
    }


@cache
def _plotly() -> bytes:
    return gzip.compress(get_plotlyjs().encode(), 6, mtime=0)


def _json(value: Any, status: int = 200) -> Response:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    headers = {"cache-control": "no-store"}
    return Response(text, status, media_type="application/json", headers=headers)


def _packed(
    body: bytes, kind: str = "application/json", keep: str = "private, no-cache"
) -> Response:
    return Response(
        body, media_type=kind, headers={"content-encoding": "gzip", "cache-control": keep}
    )
