r"""Sampling loops as people write them, right ones, and the faults that people make in them.

A right loop is a short source text, ``def sample(model, shape)``. It finds T and the tables
``beta``, ``alpha``, ``alpha_bar`` and ``sigma`` = √(1/ᾱ − 1), indexed by t, besides ``torch`` and
``pairwise``, and draws from torch's global generator. A fault is a list of pairs (right text,
wrong text); with it the loop differs from the right one by these lines alone. The lines that
readers see are the lines that run.

Nothing here imports torch before a loop is made, so that pages can list loops without it.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.files.catalogue import text as catalogue_text

Named = TypeVar("Named")
Sampler = Callable[[Callable[..., Any], tuple[int, ...]], Any]
"""``sample(model, shape) -> x_0``."""
_START = "    x = torch.randn(shape)\n"
_DOWN = "def sample(model, shape):\n" + _START + "    for t in range(T, 0, -1):\n"
_STRIDE = _START + "    times = list(range(T, 0, -T // 50)) + [0]\n"
_STRIDE = "def sample(model, shape):\n" + _STRIDE + "    for t, s in pairwise(times):\n"
_X_0 = "        x_0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()\n"
_LEVELS = """\
def sample(model, shape):
    low, high = sigma[1] ** (1 / 7), sigma[T] ** (1 / 7)
    levels = [*(high + torch.linspace(0, 1, 40) * (low - high)) ** 7, 0 * low]
    x = torch.randn(shape) * levels[0]
    for now, then in pairwise(levels):
"""


@dataclass(frozen=True)
class Program:
    """A right loop.

    Attributes:
        name: of the loop, also in the catalogues.
        rules: the names of its update rule; () where it has none.
        source: its text.
        path: how it passes t, "index", "sigma" (its states are x/√ᾱ) or "flow"
            (x_t = (1−t)·x_0 + t·n).
        answer: what it takes its model's answer for, "eps", "x0" or "flow" (n − x_0).
    """

    name: str
    rules: tuple[str, ...]
    source: str
    path: str = "index"
    answer: str = "eps"


@dataclass(frozen=True)
class Fault:
    """One mistake: ``edits`` are pairs (right text, wrong text) in the source of ``program``.

    ``finding`` is the id of what the x-ray must say first.
    """

    name: str
    program: str
    finding: str
    edits: tuple[tuple[str, str], ...]


_POSTERIOR = ("ddpm/posterior", "ddim(eta=1)", "euler-ancestral")
_PROGRAMS = (
    Program(
        "ddpm",
        ("ddpm/beta",),
        _DOWN
        + """\
        eps = model(x, t)
        z = torch.randn_like(x) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x
""",
    ),
    Program(
        "ddpm-posterior",
        _POSTERIOR,
        _DOWN
        + """\
        eps = model(x, t)
        z = torch.randn_like(x) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + (beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])).sqrt() * z
    return x
""",
    ),
    Program(
        "through-x0",
        _POSTERIOR,
        _DOWN
        + "        eps = model(x, t)\n"
        + _X_0
        + """\
        z = torch.randn_like(x) if t > 1 else 0
        of_x_0 = alpha_bar[t - 1].sqrt() * beta[t] / (1 - alpha_bar[t])
        of_x = alpha[t].sqrt() * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        variance = beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        x = of_x_0 * x_0 + of_x * x + variance.sqrt() * z
    return x
""",
    ),
    Program(
        "ddim",
        ("ddim(eta=0)", "euler"),
        _STRIDE
        + "        eps = model(x, t)\n"
        + _X_0
        + """\
        x = alpha_bar[s].sqrt() * x_0 + (1 - alpha_bar[s]).sqrt() * eps
    return x
""",
    ),
    Program(
        "ddim-with-noise",
        _POSTERIOR,
        _STRIDE
        + "        eps = model(x, t)\n"
        + _X_0
        + """\
        share = (1 - alpha_bar[s]) / (1 - alpha_bar[t])
        std = (share * (1 - alpha_bar[t] / alpha_bar[s])).sqrt()
        direction = (1 - alpha_bar[s] - std**2).clamp(min=0).sqrt() * eps
        x = alpha_bar[s].sqrt() * x_0 + direction + std * torch.randn_like(x)
    return x
""",
    ),
    Program(
        "dpm-solver-2m",
        ("dpm-solver++(2m)",),
        _STRIDE.replace("    for t", "    old, last = None, 1.0\n    for t")
        + "        eps = model(x, t)\n"
        + _X_0
        + """\
        half_log_snr = (alpha_bar[s] / (1 - alpha_bar[s]).clamp(min=1e-20)).log() / 2
        h = half_log_snr - (alpha_bar[t] / (1 - alpha_bar[t])).log() / 2
        more = 0 if old is None or s == 0 else h / last / 2
        best = x_0 if old is None else (1 + more) * x_0 - more * old
        shrink = ((1 - alpha_bar[s]) / (1 - alpha_bar[t])).sqrt()
        x = shrink * x + alpha_bar[s].sqrt() * -torch.expm1(-h) * best
        old, last = x_0, h
    return x
""",
    ),
    Program(
        "euler",
        ("euler", "ddim(eta=0)"),
        _LEVELS
        + """\
        x_0 = model(x, now)
        slope = (x - x_0) / now
        x = x + slope * (then - now)
    return x
""",
        "sigma",
        "x0",
    ),
    Program(
        "euler-ancestral",
        _POSTERIOR,
        _LEVELS
        + """\
        x_0 = model(x, now)
        up = then * (1 - (then / now) ** 2).sqrt()
        down = then**2 / now
        x = x + (x - x_0) / now * (down - now) + up * torch.randn_like(x)
    return x
""",
        "sigma",
        "x0",
    ),
    Program(
        "heun",
        (),
        _LEVELS
        + """\
        slope = (x - model(x, now)) / now
        trial = x + slope * (then - now)
        if then > 0:
            slope = (slope + (trial - model(trial, then)) / then) / 2
        x = x + slope * (then - now)
    return x
""",
        "sigma",
        "x0",
    ),
    Program(
        "flow",
        (),
        """\
def sample(model, shape):
    x = torch.randn(shape)
    for t, s in pairwise(torch.linspace(1, 0, 101)):
        velocity = model(x, t)
        x = x + (s - t) * velocity
    return x
""",
        "flow",
        "flow",
    ),
)
_Z = "torch.randn_like(x) if t > 1 else 0"
_STD = "beta[t].sqrt() * z"
_ROOT = "(1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()"
_LOOP = "    for t in range"
_OTHER = """\
    beta = torch.linspace(1e-4, 0.03, T + 1, dtype=torch.float64)
    alpha, alpha_bar = 1 - beta, (1 - beta).cumprod(0)
"""
_FAULTS: dict[str, tuple[tuple[str, ...], ...]] = {
    # name, finding, then right text and wrong text, as often as needed
    "ddpm": (
        ("no-noise", "noise-missing", _Z, "0"),
        ("half-noise", "noise-scale", f"+ {_STD}", f"+ 0.5 * {_STD}"),
        ("variance-for-std", "noise-scale", _STD, "beta[t] * z"),
        ("forward-noise", "noise-scale", _STD, "(1 - alpha_bar[t]).sqrt() * z"),
        ("noise-in-the-last-step", "noise-last-step", _Z, "torch.randn_like(x)"),
        ("uniform-noise", "noise-not-normal", "randn_like(x)", "rand_like(x)"),
        ("one-noise-for-all-samples", "noise-shared-in-batch", "like(x)", "like(x[:1])"),
        ("one-noise-for-all-channels", "noise-correlated", "like(x)", "like(x[:, :1])"),
        ("noise-drawn-once", "noise-reused-across-steps",
         _LOOP, f"    noise = torch.randn(shape)\n{_LOOP}", "torch.randn_like(x) if", "noise if"),
        ("seeded-in-every-step", "noise-reused-across-steps",
         "        z = ", "        torch.manual_seed(0)\n        z = "),
        ("root-missing", "eps-coefficient", _ROOT, "(1 - alpha_bar[t])) / alpha[t].sqrt()"),
        ("alpha-for-alpha-bar", "eps-coefficient", _ROOT, _ROOT.replace("alpha_bar", "alpha")),
        ("wrong-sign", "eps-coefficient", "x - eps", "x + eps"),
        ("half-score", "eps-coefficient", "x - eps", "x - 0.5 * eps"),
        ("not-rescaled", "x-coefficient", " / alpha[t].sqrt()", ""),
        ("divided-by-alpha", "x-coefficient", " / alpha[t].sqrt()", " / alpha[t]"),
        ("constant-added", "bias", _STD, f"{_STD} + 0.01"),
        ("model-told-another-time", "time-off-by-one", "model(x, t)", "model(x, t + 1)"),
        ("tables-off-by-one", "time-off-by-one",
         "        mean = ", "        t = min(t + 1, T)\n        mean = "),
        ("upwards", "time-order", "range(T, 0, -1)", "range(1, T + 1)"),
        ("every-second-time", "step-skipped", "range(T, 0, -1)", "range(T - 1, 0, -2)"),
        ("starts-late", "time-starts-late", "range(T,", "range(T - T // 5,"),
        ("stops-before-the-end", "time-ends-early", "range(T, 0,", "range(T, 1,"),
        ("another-schedule", "schedule-mismatch", _LOOP, _OTHER + _LOOP),
        ("uniform-start", "start-not-normal", "torch.randn(shape)", "torch.rand(shape)"),
        ("state-clipped", "x-clipped", _STD, f"{_STD}\n        x = x.clamp(-1, 1)"),
        ("half-precision", "half-precision", "(shape)", "(shape).bfloat16()",
         _STD, f"{_STD}\n        x = x.bfloat16()"),
        ("division-by-zero", "eps-coefficient", _ROOT, _ROOT.replace("[t])", "[t - 1])", 1)),
    ),
    "through-x0": (
        ("clipped", "x0-clipped", "        z =", "        x_0 = x_0.clamp(-1, 1)\n        z ="),
        ("mean-for-sample", "noise-missing", " + variance.sqrt() * z", ""),
        ("weights-exchanged", "eps-coefficient",
         "of_x_0 * x_0 + of_x * x", "of_x * x_0 + of_x_0 * x"),
    ),
    "ddim": (
        ("ddim-root-missing", "eps-coefficient",
         "(1 - alpha_bar[s]).sqrt() * eps", "(1 - alpha_bar[s]) * eps"),
        ("direction-lost", "eps-coefficient", " + (1 - alpha_bar[s]).sqrt() * eps", ""),
        ("old-level-kept", "x-coefficient",
         "alpha_bar[s].sqrt() * x_0", "alpha_bar[t].sqrt() * x_0"),
        ("steps-wrap", "time-index-wraps", "list(range(T, 0, -T // 50)) + [0]",
         "range(T, -16, -16)"),
        ("ends-above-zero", "time-ends-early", "+ [0]", "+ [1]"),
    ),
    "ddim-with-noise": (
        ("ddim-noise-dropped", "noise-missing", " + std * torch.randn_like(x)", ""),
        ("ddim-too-noisy", "noise-scale", "(1 - alpha_bar[s] - std**2)", "(1 - alpha_bar[s])"),
    ),
    "euler": (
        ("last-level-twice", "time-ends-early", "0 * low]", "low**7]"),
        ("start-not-scaled", "start-not-normal", " * levels[0]", ""),
    ),
    "euler-ancestral": (("goes-down-alone", "noise-missing", " + up * torch.randn_like(x)", ""),),
    "flow": (("flow-turned-round", "eps-coefficient", "x + (s - t)", "x - (s - t)"),),
}  # fmt: skip


def fault(program: str, name: str, finding: str, *texts: str) -> Fault:
    """A fault from its texts, right and wrong by turns."""
    return Fault(name, program, finding, tuple(zip(texts[::2], texts[1::2], strict=True)))


def programs() -> dict[str, Program]:
    """The right loops by name."""
    return {program.name: program for program in _PROGRAMS}


def faults(program: str | None = None) -> tuple[Fault, ...]:
    """The faults of one right loop, or of all."""
    return tuple(
        fault(name, *texts)
        for name, found in _FAULTS.items()
        for texts in found
        if program in (None, name)
    )


def mutate(program: str | Program, *wrong: Fault | str) -> str:
    """The source of a right loop with some faults in it.

    Raises:
        InputError: no such loop or fault, or a right text that does not stand there exactly once.
    """
    if isinstance(program, str):
        program = _named(program, programs(), "loop")
    source = program.source
    for item in wrong:
        known = {one.name: one for one in faults(program.name)}
        found = _named(item, known, f"fault of {program.name}") if isinstance(item, str) else item
        for right, instead in found.edits:
            if source.count(right) != 1:
                raise InputError(
                    f"{right!r} stands {source.count(right)} times in the loop {program.name} "
                    f"where {found.name} changes it; it must stand there once"
                )
            source = source.replace(right, instead)
    return source


def _named(name: str, known: dict[str, Named], what: str) -> Named:
    if name not in known:
        raise InputError(f"{name!r} is no {what}; allowed are {', '.join(known)}")
    return known[name]


def sampler(source: str, schedule: NoiseSchedule) -> Sampler:
    """``sample(model, shape)`` of a source, on the tables of a schedule."""
    import torch

    tables = {
        "beta": schedule.betas,
        "alpha": schedule.alphas,
        "alpha_bar": schedule.alpha_bars,
        "sigma": schedule.sigma,
    }
    names: dict[str, Any] = {name: torch.tensor(table) for name, table in tables.items()}
    names |= {"torch": torch, "pairwise": pairwise, "T": schedule.T}
    exec(source, names)
    return names["sample"]


def changes(right: str, wrong: str) -> list[tuple[str, str]]:
    """The lines of both as (sign, line): " " in both, "-" in the right one, "+" in the wrong."""
    lines = difflib.ndiff(right.splitlines(), wrong.splitlines())
    return [(line[0], line[2:]) for line in lines if line[0] != "?"]


def title(name: str, language: str) -> str:
    """What a loop or a fault is, in a few words."""
    return catalogue_text(f"zoo.{name}.title", language)


def text(name: str, language: str) -> str:
    """What a loop does, or what is wrong with it."""
    return catalogue_text(f"zoo.{name}.text", language)
