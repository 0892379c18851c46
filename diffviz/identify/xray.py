r"""System identification of any sampler: its update rule, read from outside.

A model that answers m_t with fresh noise in it is put into somebody's loop. If a step of the loop
is linear, x_s = a·x_t + b·m_t + σ·z, the regression of x_s on (x_t, m_t, 1) gives a, b, the bias
and σ with their standard errors, and what is left is the injected noise itself. A multi-step
sampler depends on the call before too.

A second excitation answers so that x̂_0 always lies inside (−1, 1). A loop that clips x̂_0 is linear
there, and only there.

Both runs start from the same state of the global random generators. A loop that draws from these
injects the same noise in both, and their difference tells a and b to rounding; see `pairing`.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, said
from diffviz.identify.evidence import TESTS_PER_STEP, Evidence, look_inside, weigh
from diffviz.identify.judge import judge, judge_order
from diffviz.identify.paired_runs import COARSE, UNKNOWN, Randomness, bends, fitted, pair
from diffviz.identify.rules import Levels, closest
from diffviz.identify.spy import (
    DOUBLE,
    SINGLE,
    Answer,
    Stopped,
    Time,
    Watch,
    Watched,
    end_of,
    index_of,
    score_threshold,
    solve,
    time_kinds,
)
from diffviz.identify.timelimit import time_limit

Array = NDArray[np.float64]
Sampler = Callable[..., object]
MIN_VALUES = 64
"""Fewer values per state than this decide nothing about a step."""
MAX_SECONDS = 1e6
"""More is no limit, and clocks refuse it."""

WILDEST = 50.0
"""How large the first excitation lets x̂_0 become, 1/√ᾱ_T for the usual schedules being 12."""


@dataclass(frozen=True)
class XRay:
    """A sampler seen through.

    Attributes:
        coefficients: one row per step over ``t``: what it did, with errors, and what it should,
            with scores; a score beyond the attribute ``threshold`` is beyond chance.
        rule: the closest known rule, or None.
        time: how t was passed: "index", "index0", "fraction", "sigma", or "function".
        answer: what the model is taken to answer, "eps", "x0" or "v".
        findings: what is wrong, the most causal first; () for a correct sampler.
    """

    coefficients: xr.Dataset
    rule: str | None
    time: str
    answer: str
    findings: tuple[Finding, ...]


def xray(
    sampler: Sampler,
    schedule: NoiseSchedule,
    *,
    shape: tuple[int, ...] = (64, 3, 16, 16),
    seed: int = 0,
    time: Time = "auto",
    seconds: float = 60.0,
) -> XRay:
    """Identify ``sampler(model) -> x_0``, any loop that calls ``model(x, t, ...)``.

    Args:
        sampler: the loop; it runs twice, up to five times if it clips, each time from the same
            state of the global random generators. One with a second required argument is handed
            ``shape``, any other draws a shape of its own choice.
        schedule: what its coefficients should follow.
        shape: (B, *D) of the states.
        seed: of the scripted answers; the sampler's own randomness is left alone.
        time: what it passes as t: "index" (T…1), "index0" (T−1…0), "fraction" (i/T), "sigma", a
            function from that to the index, or "auto".
        seconds: how long one run may take.

    Raises:
        InputError: it never calls the model, changes the shape, raises, returns something that is
            not a state, passes times off the schedule, does not end, or its states are tiny.
    """
    for name, value, most in (("seed", seed, math.inf), ("seconds", seconds, MAX_SECONDS)):
        if not (0 <= value <= most and math.isfinite(value)):
            limit = f" to {most:g}" if math.isfinite(most) else ""
            raise InputError(f"{name} is {value!r}; allowed are finite numbers from 0{limit}")
    limits = 10 * schedule.T + 1000, seconds
    # Not the seed itself: a sampler that seeds its own generator alike would draw the answers.
    word = np.random.SeedSequence([seed, 0x78726179]).generate_state(1, np.uint64)[0]
    noise = torch.Generator().manual_seed(int(word))
    randomness = Randomness()
    wild = watch(sampler, shape, _wild(schedule, time, noise), *limits)
    early = judge_order(wild, schedule, time)
    if early is not None:
        return XRay(_table(wild, schedule), None, "unknown", "eps", (early,))
    if wild.values < MIN_VALUES:
        raise InputError(
            f"the states of the sampler hold {wild.values} values; allowed are {MIN_VALUES} or "
            "more: take a larger batch"
        )
    best = closest(wild, schedule, time)
    levels = best.levels if best.levels.sigma_form else replace(best.levels, answer="eps")

    def again(briefly: bool = False) -> Watched:
        randomness.again()
        return watch(sampler, shape, _tame(wild, levels, noise), *limits, briefly=briefly)

    threshold = score_threshold(TESTS_PER_STEP * len(wild.grams))
    for _ in range(2):
        tame, echo = again(), None
        early = judge_order(tame, schedule, time) if tame.broken is not None else None
        if early is not None:
            return XRay(_table(wild, schedule), None, "unknown", "eps", (early,))
        if len(tame.times) != len(wild.times):
            raise InputError(
                f"the sampler took {len(wild.times)} steps once and {len(tame.times)} steps the "
                "next time; adaptive samplers cannot be compared step by step"
            )
        if wild.values != tame.values:
            raise InputError(
                f"the states of the sampler held {wild.values} values once and {tame.values} the "
                "next time; its runs cannot be compared"
            )
        if max(wild.precision, tame.precision) < COARSE:
            wild = replace(wild, pairs=pair(wild, tame))
            tame = replace(tame, pairs=pair(tame, wild))
            if bends(tame, threshold).any():
                # Clipped outside of (−1, 1), or bent inside too? Another answer from inside tells.
                echo = again(briefly=True)
        if echo is not None and (len(echo.times), echo.values, echo.broken) == (
            len(tame.times),
            tame.values,
            None,
        ):
            tame = replace(tame, pairs=pair(tame, echo))
        else:
            echo = None
        evidence = weigh(schedule, wild, tame, closest(wild, schedule, time), time)
        if echo is None or not bends(tame, threshold).any():
            break
        evidence = look_inside(evidence, echo, time)
        told = _told_otherwise(evidence, levels)
        if told is None:
            break
        levels = told
    findings, rule, evidence = judge(evidence)
    kind = evidence.expected.levels.kind
    return XRay(
        _table(evidence.used, schedule, evidence),
        rule,
        kind if isinstance(kind, str) else "function",
        evidence.expected.levels.answer,
        findings,
    )


def _told_otherwise(e: Evidence, levels: Levels) -> Levels | None:
    """The levels as the loop has them, if answers that suit ``levels`` were clipped for that."""
    inner = e.inner
    if inner is not None and not inner.off[:, :2].any():
        # Right where it is not clipped: only the model is taken to answer something else.
        told = inner.expected.levels
        return None if told.answer == levels.answer else told
    if levels.kind == "sigma" and (levels.sigma_form, levels.answer) != (True, "x0"):
        return replace(levels, sigma_form=True, answer="x0")
    return None


def watch(
    sampler: Sampler,
    shape: tuple[int, ...],
    answer: Answer,
    calls: int,
    seconds: float,
    *,
    briefly: bool = False,
) -> Watched:
    """Run the sampler once on a scripted model and keep what is seen."""
    model = Watch(answer, calls, briefly)
    try:
        with torch.no_grad(), _one_thread(), time_limit(seconds, Stopped):
            end = sampler(model, shape) if _takes_shape(sampler) else sampler(model)
        state = end_of(end, model.shape)
        if not model.times:
            raise InputError(
                "the sampler never called its model; allowed is sampler(model) -> x_0"
            )
        if isinstance(state, np.ndarray):
            state = torch.as_tensor(state)
        if not isinstance(state, Tensor):
            raise InputError(
                f"the sampler returned {type(end).__name__} after its last step at "
                f"t = {model.times[-1]:g}; allowed is a tensor of shape {model.shape}"
            )
        model.see(state, None)
    except Stopped as stopped:
        if model.broken is None:
            why = str(stopped) or f"did not end within {seconds:g} s"
            raise InputError(f"the sampler {why}; {_place(model)}") from None
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"the sampler raised {type(error).__name__}: {said(error)}; {_place(model)}"
        ) from error
    return model.result()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread. More that spin while they wait, beside numpy's own, take twice as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _place(model: Watch) -> str:
    if not model.times:
        return "it had not called its model yet"
    return f"its last call, number {len(model.times)}, was at t = {model.times[-1]:g}"


def _takes_shape(sampler: Sampler) -> bool:
    try:
        parameters = inspect.signature(sampler).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(required) > 1


def _wild(schedule: NoiseSchedule, time: Time, generator: torch.Generator) -> Answer:
    """N(0, 1) in every value, around the exact answer for data N(0, 1), √(1−ᾱ)·x_t.

    The share of x_t keeps the state of order 1, where a bare e would let it grow by 1/√ᾱ_T until
    float32 swallowed the injected noise. Regression takes it out again. Where even that is not
    enough, as for cosine schedules with √ᾱ_T near 0, e is made small.
    """
    seen: list[float] = []

    def answer(x: Tensor, value: float, floating: bool) -> Tensor:
        e = torch.randn(x.shape, generator=generator).to(x)
        seen.append(value)
        kind = time_kinds(np.array(seen), floating, time, schedule)[0]
        if kind == "sigma":
            return e
        index = index_of(np.array([value]), kind, schedule)[0]
        bar = schedule.alpha_bars[int(np.clip(np.rint(index), 0, schedule.T))]
        return min(1.0, WILDEST * float(np.sqrt(bar))) * e + float(np.sqrt(1 - bar)) * x

    return answer


def _tame(wild: Watched, levels: Levels, generator: torch.Generator) -> Answer:
    """The answer that implies x̂_0 uniform in (−0.9, 0.9), independent at every call."""
    bars = dict(zip(wild.times.tolist(), levels.bars.tolist(), strict=True))

    def answer(x: Tensor, value: float, floating: bool) -> Tensor:
        x_0 = (1.8 * torch.rand(x.shape, generator=generator) - 0.9).to(x)
        bar = bars.get(value, 0.5)
        scale = bar**0.5 if levels.sigma_form else 1.0
        eps = (scale * x.double() - bar**0.5 * x_0) / (1 - bar) ** 0.5
        if levels.answer == "x0":
            return x_0
        if levels.answer == "v":
            return (bar**0.5 * eps - (1 - bar) ** 0.5 * x_0).to(x)
        return eps.to(x)

    return answer


def _table(
    watched: Watched, schedule: NoiseSchedule, evidence: Evidence | None = None
) -> xr.Dataset:
    """One row per step. Without evidence, the times as passed and what was done."""
    multistep = evidence is not None and evidence.multistep
    columns = DOUBLE if multistep else SINGLE
    fit = solve(watched.grams, columns) if multistep else fitted(watched)
    steps = len(watched.grams)
    nothing = np.full(steps, np.nan)
    passed = watched.times[:steps]
    index, following = passed, np.append(watched.times[1:], 0.0)[:steps]
    expected, scores = np.full((steps, 3), np.nan), np.full((steps, 4), np.nan)
    correlation = nothing
    rounding = np.zeros((steps, len(columns)))
    if evidence is not None:
        if watched.pairs is not None and not multistep:
            # Known so well that what float32 does to the tables of a loop is what is not known.
            rounding[:, 1:] = watched.pairs.same[:, None] * evidence.expected.floor[:, :2]
        index = evidence.expected.levels.index
        following = np.append(index[1:], 0.0)
        expected, correlation = evidence.expected.numbers, evidence.step_correlation
        scores = evidence.scores
        if not evidence.multistep:
            scores = evidence.scores_of(evidence.expected)
    if np.array_equal(index, np.rint(index)):
        index, following = index.astype(np.int64), following.astype(np.int64)
    variables: dict[str, tuple[Array, str]] = {"s": (following, "time after the step")}
    names = ("bias", "x", "eps", "previous_x", "previous_eps")
    texts = ("constant term", "x_t", "the answer", "the x before", "the answer before")
    for k, (name, words) in enumerate(zip(names, texts, strict=True)):
        there = k < len(columns)
        what = words if name == "bias" else f"coefficient of {words}"
        errors = np.hypot(fit.errors[:, k], rounding[:, k]) if there else nothing
        values = np.where(errors < UNKNOWN, fit.coefficients[:, k], np.nan) if there else nothing
        variables[name] = (values, what)
        variables[f"{name}_error"] = (errors, f"standard error: {what}")
    # Values that share their noise, or that were clipped, do not count.
    alone = watched.values / (1.0 if evidence is None else evidence.inflation**2)
    known = watched.inside is None or fit.errors[:, 1] < UNKNOWN
    std = np.where(known, fit.std, np.nan)
    variables["std"] = (std, "std of what is left, the injected noise")
    free = np.sqrt(2 * max(alone - len(columns), 1.0))
    variables["std_error"] = (std / free, "standard error of it")
    for k, name in enumerate(("x", "eps", "std")):
        variables[f"expected_{name}"] = (expected[:, k], f"{name} by the closest rule")
    for k, name in enumerate(("x", "eps", "bias", "std")):
        words = f"{name} against the rule, as a normal score"
        variables[f"{name}_score"] = (scores[:, k], words)
    for name, field, words in (
        ("noise_ks", "ks", "KS distance D of the injected noise, at std 1, from N(0, 1)"),
        ("noise_ks_p", "ks_p", "its p-value"),
        ("noise_skewness", "skewness", "skewness of the injected noise"),
        ("noise_kurtosis", "kurtosis", "excess kurtosis of it"),
        ("batch_correlation", "batch", "correlation of the noise of samples that shows most"),
        ("batch_score", "batch_score", "as a normal score"),
        ("grid_correlation", "grid", "the same between channels, rows or columns of a sample"),
        ("grid_score", "grid_score", "as a normal score"),
    ):
        # What a multi-step rule takes from the call before, or clipping takes away, is no noise.
        seen = (
            nothing
            if multistep or watched.inside is not None
            else np.array([getattr(n, field) for n in watched.noise])
        )
        variables[name] = (seen, words)
    variables["step_correlation"] = (correlation, "correlation with the noise of the step before")
    variables["passed"] = (passed, "the time as the sampler passed it")
    return xr.Dataset(
        {
            k: (("t",), v, {"long_name": words, "units": "1"})
            for k, (v, words) in variables.items()
        },
        {"t": (("t",), index, {"long_name": "time the step leaves", "units": "1"})},
        {
            "schedule": schedule.name,
            "T": schedule.T,
            "values": watched.values,
            "threshold": score_threshold(TESTS_PER_STEP * max(steps, 1)),
        },
    )
