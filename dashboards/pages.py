"""The pages that ask the server: the noise dial, a schedule, and the x-ray of a loop.

A question is one small JSON object from the browser, so every value in it is checked. An answer
is JSON, kept for the next who asks the same. The dial is asked at every move of a slider, by a
plain address, which takes half as long as a callback; the schedule is a Dash callback. An x-ray
is computed in a process of its own (`bench`).
"""

import asyncio
import base64
import json
import math
import re
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import Any

import numpy as np
from dash import ClientsideFunction, Dash, Input, Output
from fastapi import FastAPI, Response

from dashboards.bench import Bench
from diffviz.diagnosis.numbers import finite
from diffviz.diffusion.dial import (
    LAWS,
    SLICES,
    balanced_score,
    dial_density,
)
from diffviz.diffusion.forward import forward_data
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.figures.density import density_figure
from diffviz.figures.schedule import schedule_data, schedule_figure
from diffviz.files.catalogue import LANGUAGES
from diffviz.files.images import from_uint8, to_uint8
from diffviz.report.embedding import figure_json
from diffviz.sprites.make import make_sprites

STORES = ("schedule-asked", "schedule-answer", "schedule-shown")
KINDS: dict[str, Callable[..., NoiseSchedule]] = {
    "course": NoiseSchedule.course,
    "linear": NoiseSchedule.linear,
    "cosine": NoiseSchedule.cosine,
    "scaled-linear": NoiseSchedule.scaled_linear,
}
LARGEST_T = 4000
SPRITES, OFFERED = 200, 24
"""Sprites that there are, and those of them that can be chosen."""
SURE, LIKELY, NO_IDEA = 0.99, 0.5, 0.1
"""Probability of the right sprite, twice, and the part of all sprites that are candidates."""
SHOWN = 10
"""How many times of the forward process are shown."""
TERMINAL = 0.02
"""√ᾱ_T up to this is called a fair start."""
WORKS, MOSTLY = 0.075, 0.12
"""Distances from the law of the data that are called right, and nearly right."""

LOOP_NAME = re.compile("[a-z0-9-]{1,60}")

Question = dict[str, Any]


def register(app: Dash) -> None:
    """Ask for a schedule on the server, draw it in the browser."""
    asked, answer, shown = STORES
    app.callback(Output(answer, "data"), Input(asked, "data"))(schedule)
    app.clientside_callback(
        ClientsideFunction("diffviz", "schedule"), Output(shown, "data"), Input(answer, "data")
    )


def add_data(server: FastAPI, bench: Bench, painter: Bench) -> None:
    """``/data/sprites`` are the sprites to choose from, ``/data/xray`` is the menu of loops.

    ``/data/xray/{name}`` is what is seen of one loop.
    ``/data/xray/{name}/network`` has a process of its own, ``painter``: it takes much longer, and
    nobody should wait for it who only looks at the next loop.
    """

    async def answer(asked: Future[bytes]) -> Response:
        try:
            body = await asyncio.wrap_future(asked)
        except KeyError:
            return Response('{"error": "no such loop"}', 404, media_type="application/json")
        except BrokenProcessPool:
            line = '{"error": "the process that computes has ended; ask again"}'
            return Response(line, 503, media_type="application/json")
        headers = {"content-encoding": "gzip", "cache-control": "private, no-cache"}
        return Response(body, media_type="application/json", headers=headers)

    @server.get("/data/sprites")
    def sprites() -> Response:
        return Response(_offered(), media_type="application/json")

    @server.get("/data/xray")
    async def menu() -> Response:
        return await answer(bench.menu())

    @server.get("/data/xray/{name}")
    async def look(name: str) -> Response:
        if not LOOP_NAME.fullmatch(name):
            return Response('{"error": "no such loop"}', 404, media_type="application/json")
        return await answer(bench.look(name))

    @server.get("/data/xray/{name}/network")
    async def network(name: str) -> Response:
        if not LOOP_NAME.fullmatch(name):
            return Response('{"error": "no such loop"}', 404, media_type="application/json")
        return await answer(painter.network(name))


def dial(asked: Question) -> dict[str, Any] | None:
    """The law of x_t at one setting; None for a question that makes no sense.

    ``{law, noise, score}`` with 0 ≤ noise ≤ 1.5 and ½ ≤ score ≤ 1, rounded to 0.05.
    """
    if not isinstance(asked, dict):
        return None
    noise, score = _number(asked.get("noise")), _number(asked.get("score"))
    law = asked.get("law")
    if law not in ("gaussian", "mixture") or noise is None or score is None:
        return None
    steps = (round(min(max(noise, 0), 1.5) * 20), round(min(max(score, 0.5), 1) * 20))
    return _dial(law, *steps)


@lru_cache(maxsize=800)
def _dial(law: str, noise_steps: int, score_steps: int) -> dict[str, Any]:
    noise, score = noise_steps / 20, score_steps / 20
    data = dial_density(_course(), LAWS[law], noise, score)
    return {
        "law": law,
        "noise": noise,
        "score": score,
        "rows": SLICES,
        "density": base64.b64encode(data.density.T.astype("<f4").tobytes()).decode(),
        "std": data.std,
        "std_right": data.right_std,
        "share": min(data.shares) if len(data.shares) > 1 else None,
        "share_right": min(data.right_shares),
        "balance": balanced_score(noise),
        "verdict": _verdict(data.distance, data.std / data.right_std, data.shares),
    }


def _verdict(distance: float, spread: float, shares: tuple[float, ...]) -> str:
    if distance < WORKS:
        return "works"
    if min(shares) < 0.02:
        return "lost"
    if distance < MOSTLY:
        return "mostly"
    return "narrow" if spread < 0.95 else "wide" if spread > 1.05 else "shifted"


@lru_cache(maxsize=2)
def dial_figures(law: str) -> dict[str, Any]:
    """The dial's picture in every language, drawn once; later only its densities change."""
    data = dial_density(_course(), LAWS[law], 1.0, 1.0)
    return figure_json({code: density_figure(data, code) for code in LANGUAGES})


@lru_cache(maxsize=1)
def _course() -> NoiseSchedule:
    return NoiseSchedule.course()


def schedule(asked: Question | None) -> dict[str, Any] | None:
    """Picture, checks and the forward process of a schedule, or what is ``wrong`` with it.

    ``{kind, T, first, last, sprite}``; T at most 4,000, the ends of β ignored by cosine. What is
    wrong is one word, "T" or "beta"; the page has a sentence for each.
    """
    if not isinstance(asked, dict):
        return None
    kind, T, sprite = asked.get("kind"), _number(asked.get("T")), _number(asked.get("sprite"))
    if kind not in list(KINDS) or T is None or int(T) != T or not 1 <= T <= LARGEST_T:
        return {"wrong": "T"}
    first, last = _number(asked.get("first")), _number(asked.get("last"))
    if kind != "cosine" and (first is None or last is None):
        return {"wrong": "beta"}
    ends = () if kind == "cosine" else (first, last)
    try:
        return json.loads(_schedule(kind, int(T), ends, int(sprite or 0) % OFFERED))
    except InputError:
        return {"wrong": "beta"}


@lru_cache(maxsize=64)
def _schedule(kind: str, T: int, ends: tuple[float, ...], sprite: int) -> str:
    made = KINDS[kind](T, *ends)
    data = schedule_data(made)
    root = float(np.sqrt(made.alpha_bars[-1]))
    answer = {
        "name": made.name,
        "figure": figure_json({code: schedule_figure(data, code) for code in LANGUAGES}),
        "checks": _checks(made),
        "terminal": {"value": f"{root:.3g}", "good": root <= TERMINAL},
        "forward": _forward(made, sprite),
    }
    return json.dumps(finite(answer))


def _checks(made: NoiseSchedule) -> list[dict[str, Any]]:
    """Each law with the first t and the number that ``violations`` names; None where it holds."""
    broken = made.violations()
    starts = {"bar0": "ᾱ_0", "beta": "β_t", "product": "ᾱ_t = ᾱ", "falling": "ᾱ_t <"}
    found: list[dict[str, Any]] = []
    for law, start in starts.items():
        said = next((line for line in broken if line.startswith(start)), None)
        when = re.search(r"t = (\d+)", said or "")
        value = re.search(r"(?:ratio is|β =|ᾱ_0 =) ([\d.e+-]*\d)", said or "")
        found.append(
            {
                "law": law,
                "broken": said
                and {"t": when and int(when[1]), "value": value[1] if value else None},
            }
        )
    return found


def _forward(made: NoiseSchedule, sprite: int) -> dict[str, Any]:
    """One sprite at ``SHOWN`` times, as RGB bytes, and who could still tell which it was."""
    times = np.unique(np.rint(made.T * np.linspace(0, 1, SHOWN)).astype(int))
    data = forward_data(made, from_uint8(_sprites()), sprite, times, seed=sprite)
    x = to_uint8(data.x)
    return {
        "times": times.tolist(),
        "size": x.shape[1],
        "pixels": base64.b64encode(x.tobytes()).decode(),
        "bars": [f"{bar:.3g}" for bar in data.alpha_bar],
        "guesses": [
            _guess(sure, left) for sure, left in zip(data.sure, data.candidates, strict=True)
        ],
        "candidates": [round(left) for left in data.candidates],
    }


def _guess(sure: float, candidates: float) -> str:
    if sure >= SURE:
        return "bob"
    if sure >= LIKELY:
        return "probably"
    return "few" if candidates < NO_IDEA * SPRITES else "nobody"


@lru_cache(maxsize=1)
def _offered() -> bytes:
    """The sprites that can be chosen, as RGB bytes, in JSON."""
    images = _sprites()[:OFFERED]
    pixels = base64.b64encode(images.tobytes()).decode()
    return json.dumps({"size": images.shape[1], "n": OFFERED, "pixels": pixels}).encode()


@lru_cache(maxsize=1)
def _sprites() -> np.ndarray:
    return make_sprites(SPRITES)[0]


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < 1e9 and math.isfinite(value) else None
