r"""What the live plane is given: laws of data, schedules, presets, texts; and a page to stand in.

A law is Σ_k w_k N(m_k, s_k² I) in the plane. Everything here ends as JSON for ``plane.js``.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from diffviz.diagnosis.verdicts import FURTHER, NEARER, PULLED
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.files.catalogue import LANGUAGES, catalogue

Array = NDArray[np.float64]

HUES = {"ddpm": "#1a7fc4", "z0": "#d55e00", "ddim": "#009e73", "own": "#7d5cf5"}
"""The arms, and the colour of each."""
ARMS = tuple(HUES)
SCHEDULES = ("course", "linear", "cosine")
STEPS = 500
"""The T whose β ends at 0.02; see `schedule`."""
MAX_T = 1000
MAX_POINTS = 256
"""Points or modes of a law."""
DRAWN = 0.1
"""Std of the Gaussian that stands on each point drawn by hand."""
LIMITS = {
    "less": NEARER,
    "more": FURTHER,
    "pulled": PULLED,
    "mode": 0.5,
    "wrong": 0.3,
    "steps": 40,
}
"""When a sentence is true: the thresholds of `diffviz.diagnosis.verdicts`, and three for what
only the plane can say. They hold for distance, std and width, in parts of what is right. A mode
with less than ``mode`` of its share has lost points; ``wrong`` is the part of the points that
should be in another mode. With fewer than ``steps`` steps, an error of a sampler in balance is
put down to them."""
RANGES = {
    "T": (1, MAX_T, 1),
    "seed": (0, 999_999, 1),
    "particle": (0, 10**6, 1),
    "scale": (0, 1.5, 10**6),
    "pull": (0, 2, 10**6),
}
"""What a number may be: from, to, in how many parts of 1."""
KEPT = ("law", "T", "schedule", "seed", "scale", "pull", "arms", "view", "glass", "particle")
"""What the address keeps, next to the preset and the points."""
_CHARTS = {"distance": 1.5, "std": 1.5, "width": 1.5, "ks": 1, "modes": 1, "misplaced": 1}
"""The numbers, and the top of the chart of each."""


@dataclass(frozen=True)
class Law:
    """Σ_k weights_k N(means_k, stds_k² I): means (K, 2), stds (K,), weights (K,) of sum 1."""

    means: tuple[tuple[float, float], ...]
    stds: tuple[float, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, means: Array, stds: Array | float, weights: Array | None = None) -> "Law":
        """From arrays; one std for all and equal weights, unless given."""
        k = len(means)
        shares = np.full(k, 1 / k) if weights is None else weights / np.sum(weights)
        return cls(
            tuple((float(x), float(y)) for x, y in means),
            tuple(np.broadcast_to(stds, k).tolist()),
            tuple(shares.tolist()),
        )


_SPRITES = (
    (0.75, 0.12, 0.53, 0.200), (0.15, -0.89, 0.38, 0.133), (-0.03, 1.42, 0.54, 0.102),
    (-0.92, 0.37, 0.49, 0.090), (-1.20, -0.85, 0.37, 0.089), (-0.43, -0.51, 0.26, 0.068),
    (-0.40, -1.28, 0.30, 0.063), (1.69, 0.46, 0.19, 0.038), (0.93, -1.06, 0.28, 0.034),
    (-1.80, 0.96, 0.27, 0.034), (1.62, -0.29, 0.29, 0.031), (-1.36, 1.44, 0.32, 0.024),
    (1.07, 1.50, 0.25, 0.022), (-0.98, 2.11, 0.36, 0.020), (0.85, -0.49, 0.09, 0.015),
    (0.30, -0.07, 0.09, 0.011), (0.45, 0.68, 0.06, 0.009), (0.52, -1.90, 0.12, 0.006),
    (-2.63, -0.67, 0.25, 0.006), (2.12, 2.14, 0.06, 0.005),
)  # fmt: skip
"""(x, y, std, weight): fitted by expectation maximisation to the first two principal components
of ``make_sprites(2000)``, each divided by its std."""


def _circle(k: int, radius: float) -> Array:
    angle = 2 * np.pi * np.arange(k) / k
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _spiral(k: int) -> Array:
    angle = np.sqrt(np.linspace(0.06, 1, k)) * 3.2 * np.pi
    return (angle / angle[-1] * 1.9)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _face() -> Array:
    smile = np.pi * np.linspace(1.15, 1.85, 12)
    mouth = 1.3 * np.stack([np.cos(smile), np.sin(smile)], axis=1)
    eyes = np.array(
        [(x + dx, 0.75 + dy) for x in (-0.6, 0.6) for dx in (0, 0.1) for dy in (0, 0.1)]
    )
    return np.concatenate([mouth, eyes])


@cache
def laws() -> dict[str, Law]:
    """The laws to choose from, by name; ``drawn`` is what drawing begins with."""
    sprites = np.array(_SPRITES)
    side = np.array([-1.5, 0.0, 1.5])
    return {
        "two": Law(((-1.0, -0.3), (1.5, 0.5)), (0.25, 0.3), (0.7, 0.3)),
        "gaussian": Law(((1.2, 0.6),), (0.5,), (1.0,)),
        "ring": Law.of(_circle(24, 1.6), 0.16),
        "grid": Law.of(np.array([(x, y) for y in side for x in side]), 0.2),
        "spiral": Law.of(_spiral(40), 0.1),
        "sprites": Law.of(sprites[:, :2], sprites[:, 2], sprites[:, 3]),
        "drawn": Law.of(_face(), DRAWN),
    }


@dataclass(frozen=True)
class Preset:
    """Where the plane starts. ``scale`` and ``pull`` are λ and c of the arm ``own``."""

    law: str = "two"
    arms: tuple[str, ...] = ("ddpm", "z0", "ddim")
    T: int = STEPS
    schedule: str = "course"
    scale: float = 0.0
    pull: float = 0.5
    glass: bool = False


PRESETS = {
    "noise": Preset(),
    "works": Preset(arms=("z0", "ddim")),
    "blurs": Preset(law="sprites", arms=("ddpm", "z0")),
    "mean": Preset(law="gaussian"),
    "balance": Preset(law="grid", arms=("ddpm", "z0", "own")),
    "coarse": Preset(T=10),
    "glass": Preset(T=20, glass=True),
    "noising": Preset(law="ring", arms=("ddpm",)),
    "draw": Preset(law="drawn"),
}
"""Two of them are misconceptions: ``works`` (no noise at all works) and ``blurs`` (the noise only
blurs)."""


STATE = {
    "seed": 1,
    "particles": 1000,
    "particle": 0,
    "speed": 1,
    "view": "beside",
    "contours": True,
    "mean": True,
    "ellipse": True,
    "paths": True,
    "score": False,
}
"""What else a reader can choose, as it is at first. ``particle`` is the one under the glass;
``view`` is beside or over."""


def schedule(kind: str, T: int) -> NoiseSchedule:
    """The schedule of the plane, as strong for any T as its namesake is for T = 500.

    ``course`` and ``linear``: β_t = 1 − (1 − β'_t)^(500/T) with β' of `NoiseSchedule.course` or
    `linear`, so that ᾱ_T is about 0.006 for every T; the same as the namesake at T = 500.
    ``cosine`` is `NoiseSchedule.cosine`.

    Raises:
        InputError: another kind, or T outside 1…10,000.
    """
    if kind not in SCHEDULES:
        raise InputError(f"schedule is {kind!r}; allowed: {', '.join(SCHEDULES)}")
    if kind == "cosine":
        return NoiseSchedule.cosine(T)
    base = NoiseSchedule.course(T) if kind == "course" else NoiseSchedule.linear(T)
    betas = 1 - (1 - base.betas) ** (STEPS / T)
    bars: Array = np.cumprod(1 - betas).astype(np.float64)
    bars[0] = 1
    return NoiseSchedule(betas, 1 - betas, bars, f"{kind}(T={T})")


@cache
def _texts(language: str) -> dict[str, dict[str, str]]:
    """{table: {name: text}} of the topic ``play``."""
    texts: dict[str, dict[str, str]] = {}
    for key, value in catalogue(language).items():
        topic, table, name = (*key.split("."), "", "")[:3]
        if key == f"play.{table}.{name}" and topic == "play":
            texts.setdefault(table, {})[name] = value
    return texts


def options(
    preset: str = "noise",
    language: str = "en",
    *,
    theme: str = "auto",
    address: bool = False,
    settings: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """What ``mount`` is given: state, laws, presets, texts of both languages, page; plain data.

    Args:
        preset: one of `PRESETS`.
        language: "en" or "zh".
        theme: "light", "dark", or "auto", which follows the page and the system.
        address: keep the state in the address of the page.
        settings: fields of `Preset` and of `STATE` in place of the preset's, and ``t``, the time
            step to begin at (T unless given).

    Raises:
        InputError: an unknown preset or language.
    """
    if preset not in PRESETS:
        raise InputError(f"preset is {preset!r}; allowed: {', '.join(PRESETS)}")
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}; allowed: {', '.join(LANGUAGES)}")
    chosen, changes = asdict(PRESETS[preset]), dict(settings or {})
    named = "" if chosen.keys() & changes.keys() else preset
    drawn = {"points": laws()["drawn"].means}
    shown = {"preset": named, "language": language, "theme": theme}
    return {
        "state": {**STATE, **chosen, **drawn, **changes, **shown},
        "address": address,
        "laws": {name: asdict(law) for name, law in laws().items()},
        "presets": {name: asdict(choice) for name, choice in PRESETS.items()},
        "limits": LIMITS,
        "ranges": RANGES,
        "schedules": SCHEDULES,
        "kept": (*KEPT, "preset", "points"),
        "hues": HUES,
        "drawn": DRAWN,
        "css": _file("plane.css") + "".join(f".{arm}{{--c:{HUES[arm]}}}" for arm in ARMS),
        "html": page(laws(), SCHEDULES),
        "texts": {name: _texts(name) for name in LANGUAGES},
    }


def page(laws: Iterable[str], schedules: Iterable[str]) -> str:
    """The page with these laws and schedules to choose from; texts stand as {table.name}."""
    lists = {"presets": list(PRESETS), "arms": list(ARMS), "charts": _CHARTS}
    html = jinja2.Template(_file("plane.html.j2"))
    return html.render(laws=laws, schedules=schedules, **lists)


def module() -> str:
    """The text of plane.js, for a page to load."""
    return _file("plane.js")


def _file(name: str) -> str:
    return files("diffviz.play").joinpath(name).read_text(encoding="utf-8")


def as_json(value: object) -> str:
    """JSON that may stand inside a <script> element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def plane_html(chosen: Mapping[str, object], identifier: str = "plane") -> str:
    """A piece of HTML that shows the plane, from a file as from a server, and loads nothing.

    ``chosen`` are `options`, ``identifier`` is the id of its element on the page. A page whose
    content security policy forbids inline scripts serves plane.js itself and calls ``mount``.
    """
    name, data = as_json(identifier), as_json(f"{identifier}-options")
    return (
        f'<div id="{identifier}" class="diffviz-plane"></div>\n'
        f'<script type="application/json" id="{identifier}-options">{as_json(chosen)}</script>\n'
        f'<script type="module">\n{module()}\n'
        f"mount(document.getElementById({name}), "
        f"JSON.parse(document.getElementById({data}).textContent));\n</script>\n"
    )
