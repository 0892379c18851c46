r"""Readings of steps that follow no known rule as it is: what single mistake would make them?

A reading says what a, b and σ of every step would be. Its cost is what it leaves unexplained,
Σ z²/2 over the scores of all steps, and a price for what it was free to choose. The cheapest
wins, as in model selection by a description length; a mistake that is constant or sits in an
index therefore wins over one that is a number of its own at every step.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, least_squares

from diffviz.diffusion.rules import Rule, ddim, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.evidence import Evidence
from diffviz.identify.paired_runs import UNKNOWN
from diffviz.identify.rules import (
    Expected,
    expect,
    in_form,
    levels_of,
    numbers_of,
    rules_for,
    writings,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
PRICE = 3.0
"""Of one free number. A whole column of them costs 2 a step."""
NULL = 0.5
"""E z²/2 of a score that is right."""
ANYTHING = 10.0
"""Of a step that a reading leaves out."""
SHIFTS = (-1, 1, -2, 2, -3, 3, -4, 4, -5, 5, -10, 10)
BOUNDS = -16.0, -0.05
"""Of the logarithm of a fitted β."""
FEW = 0.2
"""The share of steps that may each end somewhere of its own."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read the steps.

    Attributes:
        rule: what the steps are compared with in words.
        expected: a, b and σ of every step under this reading.
        cause: the finding that it amounts to; "" if the coefficients are just off.
        evidence: of that finding.
        price: for what was chosen freely.
        free: which of a and b are numbers of their own at every step.
        valid: steps that the reading speaks about.
    """

    rule: Expected
    expected: Expected
    cause: str = ""
    evidence: Mapping[str, float | str] = field(default_factory=dict)
    price: float = 0.0
    free: tuple[int, ...] = ()
    valid: Mask | None = None


def explain(e: Evidence) -> Reading:
    """The reading with the least cost."""
    precision = e.used.values**-0.5
    rules = [e.expected]
    for levels in writings(e.expected.levels):
        sources = [source for source in rules_for(e.fit, levels, precision) if source != ddim(1.0)]
        found = [expect(source, levels) for source in sources]
        rules += [rule for rule in found if not np.array_equal(rule.numbers, rules[0].numbers)]
    readings = [reading for rule in rules for reading in _coefficients(e, rule)]
    readings += [reading for rule in rules for reading in _indices(e, rule)]
    readings += [reading for rule in rules for reading in _schedules(e, rule)]
    readings += [reading for rule in rules for reading in _ends_early(e, rule)]
    readings += [reading for rule in rules for reading in _half_tables(e, rule)]
    return min(readings, key=lambda reading: _cost(e, reading))


def _cost(e: Evidence, reading: Reading) -> float:
    valid = np.ones(len(e.fit.std), dtype=bool) if reading.valid is None else reading.valid
    table = e.scores_of(reading.expected)
    mean = _loss(table[:, :2])
    mean[:, list(reading.free)] = NULL
    if reading.cause:
        # What is wrong with the tables must show in a and b; a wrong noise is a wrong noise.
        plain = _loss(e.scores_of(reading.rule)[:, :2])
        wrong = (np.abs(table[:, :2]) > e.threshold).any(axis=1)
        if (plain - mean)[valid].sum() < 2 * PRICE or (wrong & valid).sum() > 0.1 * valid.sum():
            return float("inf")
    # The noise is as the rule has it, or off by a factor, or anything.
    factor = _factor(e.fit.std, reading.expected.numbers[:, 2])
    numbers = reading.expected.numbers * np.array([1, 1, factor])
    scaled = e.scores_of(replace(reading.expected, numbers=numbers))
    noise = min(
        float(_loss(table[valid, 3]).sum()),
        float(_loss(scaled[valid, 3]).sum()) + PRICE,
        (NULL + 1.9) * float(valid.sum()) if not reading.cause else np.inf,
    )
    left_out = ANYTHING * float((~valid).sum())
    return float(mean[valid].sum()) + noise + reading.price + left_out


def _loss(score: Array) -> Array:
    """Half the square z²/2 up to |z| = 4, from there on only logarithmic."""
    size = np.maximum(np.abs(score), 4)
    return np.minimum(score**2, 16) / 2 + 8 * np.log(size / 4)


def _factor(found: Array, target: Array) -> float:
    """The k in found ≈ k·target, by the median over the steps where there is a target."""
    there = target != 0
    return float(np.median(found[there] / target[there])) if there.any() else 1.0


def _coefficients(e: Evidence, rule: Expected) -> Iterator[Reading]:
    """As the rule says; off by a factor; or a and b each anything at all."""
    a, b = e.fit.coefficients[:, 1], e.fit.coefficients[:, 2]
    steps = len(a)
    yield Reading(rule, rule)
    over_x = _factor(a, rule.numbers[:, 0])
    over_eps = _factor(b, rule.numbers[:, 1])
    if rule.source == ddim(0.0):
        # Noise of the size of DDIM's on top of the whole direction, which leaves no room for it.
        full = expect(ddim(1.0), rule.levels).numbers[:, 2]
        numbers = np.column_stack([rule.numbers[:, :2], full * _factor(e.fit.std, full)])
        yield Reading(rule, replace(rule, numbers=numbers), price=PRICE)
    for factors in ((1, over_eps, 1), (over_x, 1, 1), (over_x,) * 3):
        changed = replace(rule, numbers=rule.numbers * np.array(factors))
        yield Reading(rule, changed, price=PRICE)
    wrong = np.abs(e.scores_of(rule)) > e.threshold
    off = wrong[:, [0, 1, 3]].any(axis=1)
    if 0 < off.mean() <= FEW:
        # A rule whose noise alone is off there says more than one with other coefficients too.
        price = PRICE * int(wrong[:, :2].any(axis=1).sum())
        yield Reading(rule, rule, price=price, valid=np.asarray(~off))
    for free in ((1,), (0,), (0, 1)):
        yield Reading(rule, rule, price=2.0 * len(free) * steps, free=free)


def _indices(e: Evidence, rule: Expected) -> Iterator[Reading]:
    """Coefficients of other times than those that the model is told."""
    levels, T = rule.levels, e.schedule.T
    if levels.form != "vp" or not np.array_equal(levels.index, np.rint(levels.index)):
        return
    now = levels.index.astype(int)
    then = np.append(now[1:], 0)
    inner = np.arange(len(now)) < len(now) - 1
    for shift in SHIFTS:
        told = {"shift": float(-shift)}
        # Whether the step that ends at 0 has noise is decided by the loop, not by the tables.
        valid = inner & (now + shift >= 1) & (now + shift <= T) & (then + shift > 0)
        if valid.any():
            moved = _at(e, rule, now + shift, then + shift, valid)
            yield Reading(rule, moved, "time-off-by-one", told, PRICE * abs(shift), valid=valid)
        valid = inner & (then + shift > 0) & (then + shift < now)
        if valid.any() and abs(shift) == 1:
            moved = _at(e, rule, now, then + shift, valid)
            yield Reading(rule, moved, "time-off-by-one", told, 2 * PRICE, valid=valid)
    stride = int(now[0] - then[0])
    for width in {1, stride // 2, 2 * stride} if (now - then > 1).any() else set():
        # By one, or by the stride of a list of another length.
        ends = np.maximum(now - width, 0)
        if width and (ends != then)[inner].any():
            i = int(np.argmax(ends != then))
            moved = _at(e, rule, now, ends, now > 0)
            told = {"t": float(now[i]), "found": float(ends[i]), "expected": float(then[i])}
            yield Reading(rule, moved, "step-skipped", told, PRICE)
    yield from _elsewhere(e, rule, now, then)


def _ends_early(e: Evidence, rule: Expected) -> Iterator[Reading]:
    """A last step to some level above 0, on the schedule or not; or to where it starts."""
    off = np.flatnonzero((np.abs(e.scores_of(rule)[:, :2]) > e.threshold).any(axis=1))
    last = len(e.fit.std) - 1
    if off.tolist() != [last]:
        return
    start = float(rule.levels.bars[last])

    def numbers(end: float) -> Array:
        """The step from ᾱ = ``start`` to ``end``, which has two levels of its own."""
        alphas = np.array([1.0, end, start / end])
        two = NoiseSchedule(1 - alphas, alphas, np.cumprod(alphas))
        with np.errstate(all="ignore"):
            found = np.array([numbers_of(rule.source, two, 2, 1)])
            return in_form(found, rule.levels, np.array([start]), np.array([end]))[0]

    sigma = ((1 - start) / start) ** 0.5

    def miss(share: float) -> float:
        return float(numbers(1 / (1 + (share * sigma) ** 2))[1] - e.fit.coefficients[last, 2])

    if miss(1e-6) * miss(1 + 1e-6) < 0:
        end = brentq(miss, 1e-6, 1 + 1e-6, xtol=1e-14) * sigma
        own = e.schedule.alpha_bars[1] / e.schedule.alphas[1]
        if e.used.noisy[last] and abs(1 / (1 + end**2) - own) < 1e-5:
            return  # the course's own last step, with noise
        table = rule.numbers.copy()
        table[last] = numbers(1 / (1 + end**2))
        t = float(np.interp(end, e.schedule.sigma, np.arange(e.schedule.T + 1)))
        moved = replace(rule, numbers=table)
        yield Reading(rule, moved, "time-ends-early", {"found": round(t, 2)}, 2 * PRICE)


def _elsewhere(
    e: Evidence, rule: Expected, now: NDArray[np.int_], then: NDArray[np.int_]
) -> Iterator[Reading]:
    """A few steps that do not end where the next begins, each fitted by an end of its own."""
    table = e.scores_of(rule)
    off = np.flatnonzero((np.abs(table[:, :2]) > e.threshold).any(axis=1))
    if not 0 < len(off) <= max(1, FEW * len(now)):
        return
    ends = then.copy()
    numbers = rule.numbers.copy()
    for i in off.tolist():
        best = e.threshold
        # A last step that leads to the level it starts from leaves x as it is.
        known = {then[i]} if i == len(now) - 1 else {then[i], now[i]}
        for s in (s for s in range(e.schedule.T + 1) if s not in known):
            source = rule.source if s < now[i] else ddim(0.0)
            found = _form(e, rule, source, int(now[i]), s)
            error = e.fit.errors[i, 1:] * e.inflation + rule.floor[i, :2] + 2e-6
            away = float((np.abs(found[:2] - e.fit.coefficients[i, 1:]) / error).max())
            if away < best:
                best, ends[i], numbers[i] = away, s, found
        if ends[i] == then[i]:
            return
    moved = replace(rule, numbers=numbers)
    i, price = int(off[0]), PRICE * (1 + len(off))
    if ends[i] > now[i]:
        told = {"found": float(ends[i] - e.schedule.T - 1), "read": float(ends[i])}
        yield Reading(rule, moved, "time-index-wraps", told, price)
    elif i == len(now) - 1:
        yield Reading(rule, moved, "time-ends-early", {"found": float(ends[i])}, price)
    elif (ends[off] > then[off]).all():
        told = {"t": float(now[i]), "found": float(ends[i]), "expected": float(then[i])}
        yield Reading(rule, moved, "step-skipped", told, price)


def _form(e: Evidence, rule: Expected, source: Rule, t: int, s: int) -> Array:
    bars = e.schedule.alpha_bars
    numbers = np.array([numbers_of(source, e.schedule, t, s)])
    with np.errstate(all="ignore"):
        return in_form(numbers, rule.levels, bars[[t]], bars[[s]])[0]


def _at(
    e: Evidence, rule: Expected, now: NDArray[np.int_], then: NDArray[np.int_], valid: Mask
) -> Expected:
    numbers = rule.numbers.copy()
    for i in np.flatnonzero(valid):
        numbers[i] = _form(e, rule, rule.source, int(now[i]), int(then[i]))
    return replace(rule, numbers=numbers)


def _schedules(e: Evidence, rule: Expected) -> Iterator[Reading]:
    """The schedule that the steps themselves imply, and the usual ones closest to it."""
    levels = rule.levels
    implied = _implied(e, rule)
    if implied is None or levels.answer != "eps":
        return
    alphas, errors = implied
    others = int((alphas != levels.visited.alphas[1:]).sum())
    if others < 3 or alphas.min() > 1 - 1e-6:  # one or two steps, or no noise, are no schedule
        return
    product = np.exp(np.log(alphas).cumsum())
    bars = np.concatenate([[1.0], product * _first_share(e, rule, alphas)])
    visited = NoiseSchedule(
        np.append(0, 1 - alphas),
        np.append(1, alphas),
        bars,
        f"β = {1 - alphas[0]:.3g}…{1 - alphas[-1]:.3g}",
    )
    own = expect(rule.source, replace(levels, visited=visited))
    near = _on_schedule(e, bars[:0:-1])
    if near is not None and np.ptp(near - levels.index) > 1:
        there = levels_of(near, e.schedule, levels.kind, levels.form, levels.answer)
        if there is not None:
            moved = expect(rule.source, replace(there, index=levels.index))
            where = {"found": float(near[0]), "t": float(levels.index[0])}
            yield Reading(rule, moved, "time-of-another-state", where, 2 * PRICE)
    told: dict[str, float | str] = {"expected": float(e.schedule.alpha_bars[-1])}
    yield Reading(
        rule, own, "schedule-mismatch",
        {**told, "name": visited.name, "found": float(bars[-1])}, 2.5 * others,
    )  # fmt: skip
    # Of as many steps as this one, or as the loop takes.
    places: list[tuple[int, Array]] = [(e.schedule.T, levels.index)]
    if len(alphas) != e.schedule.T:
        places.append((len(alphas), np.arange(float(len(alphas)), 0.0, -1.0)))
    for T, index in places:
        for other, numbers in _families(e, T, index[::-1], product, errors):
            there = levels_of(index, other, levels.kind, levels.form, levels.answer)
            if there is not None and other != e.schedule:
                there = replace(there, index=levels.index)
                found = {**told, "name": other.name, "found": float(other.alpha_bars[-1])}
                # Two families may have the same β; then the one nearer to the schedule given.
                price = (
                    numbers * PRICE
                    + 2 * ANYTHING * (T != e.schedule.T)
                    + 0.1 * abs(np.log(other.betas[-1] / e.schedule.betas[-1]))
                )
                price += 0.3 * (other.name.split("(")[0] != e.schedule.name.split("(")[0])
                yield Reading(rule, expect(rule.source, there), "schedule-mismatch", found, price)


def _on_schedule(e: Evidence, bars: Array) -> Array | None:
    """The times of the schedule that have these ᾱ, if all of them do."""
    known = np.log(e.schedule.sigma[1:])
    with np.errstate(all="ignore"):
        index = 1 + np.interp(0.5 * np.log((1 - bars) / bars), known, np.arange(e.schedule.T))
    whole = np.rint(index)
    return whole if (np.abs(index - whole) < 0.2).mean() > 0.9 else None


def _half_tables(e: Evidence, rule: Expected) -> Iterator[Reading]:
    """The tables of a loop in half precision: ᾱ rounded, or multiplied up from α rounded."""
    levels = rule.levels
    if not np.array_equal(levels.index, np.rint(levels.index)) or levels.form != "vp":
        return
    places = np.concatenate([[0], levels.index[::-1].astype(int)])
    for name in ("float16", "bfloat16"):
        kind = getattr(torch, name)
        rounded = torch.tensor(e.schedule.alpha_bars).to(kind).double().numpy()
        alphas = (1 - torch.tensor(e.schedule.betas).to(kind)).to(kind)
        product = torch.cumprod(alphas, 0).double().numpy()
        for table in (rounded, product):
            bars = np.append(1.0, table[places[1:]])
            if (bars <= 0).any():
                continue
            steps = np.append(1.0, bars[1:] / bars[:-1])
            visited = NoiseSchedule(1 - steps, steps, bars, name)
            moved = expect(rule.source, replace(levels, visited=visited))
            yield Reading(rule, moved, "half-tables", {"name": name}, 2 * PRICE)


def _first_share(e: Evidence, rule: Expected, alphas: Array) -> float:
    """What ᾱ holds beside the product of the ``alphas``, 1…S: in the course's schedule an α_0.

    By b = −(1 − α)/√(α(1 − ᾱ)) of DDPM; 1 where it does not tell.
    """
    if rule.source not in (ddpm("beta"), ddpm("posterior")):
        return 1.0
    b, error = e.fit.coefficients[::-1, 2], e.fit.errors[::-1, 2]
    with np.errstate(all="ignore"):
        bars = 1 - (1 - alphas) ** 2 / (alphas * b**2)
        unknown = 2 * (1 - bars) * error / np.abs(b) / bars
        share = bars / np.cumprod(alphas)
        known = unknown < 1e-3
    return float(np.median(share[known])) if known.sum() >= 3 else 1.0


def _implied(e: Evidence, rule: Expected) -> tuple[Array, Array] | None:
    """(α of every step, from the last one up, its error): by whichever of a, b and σ tells best.

    The rule's own wherever that may be it.
    """
    if rule.levels.form != "vp":
        return None
    a, b = e.fit.coefficients[::-1, 1], e.fit.coefficients[::-1, 2]
    std, errors = e.fit.std[::-1], e.fit.errors[::-1]
    alphas, unknown, bar = np.zeros(len(a)), np.zeros(len(a)), 1.0
    for i, wanted in enumerate(rule.numbers[::-1, 2]):
        with np.errstate(all="ignore"):
            found = [(2 * errors[i, 1], a[i] ** -2)]
            if wanted and rule.source in (ddpm("beta"), ddpm("posterior")):
                beta = std[i] ** 2
                if rule.source == ddpm("posterior"):
                    # β̃ = β(1 − ᾱ_s)/(1 − ᾱ_s(1 − β)), solved for β.
                    beta = beta * (1 - bar) / (1 - bar - bar * beta)
                found.append((beta * np.sqrt(2 / e.used.values), 1 - beta))
                if errors[i, 2] < 0.01 * errors[i, 1]:
                    # b = −(1 − α)/√(α(1 − αᾱ_s)), solved for α.
                    square = b[i] ** 2
                    half = (1 + square / 2) / (1 + square * bar)
                    alpha = half - np.sqrt(half**2 - 1 / (1 + square * bar))
                    found.append(((1 - alpha) * errors[i, 2] / abs(b[i]), alpha))
            elif wanted:
                return None
        known = [(error, alpha) for error, alpha in found if np.isfinite([error, alpha]).all()]
        error, alpha = min(known) if known and a[i] > 0 else (UNKNOWN, 0.0)
        own = rule.levels.visited.alphas[i + 1]
        near = abs(alpha - own) < e.threshold * error + 1e-4 * (1 - own)
        unknown[i] = error
        alphas[i] = own if near else np.clip(alpha, 1e-6, 1 - 1e-9)
        bar *= alphas[i]
    return alphas, unknown


def _families(
    e: Evidence, T: int, index: Array, bars: Array, errors: Array
) -> Iterator[tuple[NoiseSchedule, int]]:
    """Usual schedules of T steps near those steps, and how many numbers were fitted.

    The steps end at ``index``, rising, and have the product ``bars`` of their α up to there, with
    the ``errors`` of each α. Steps are compared, not ᾱ, for the course's ᾱ is not quite the
    product of its α.
    """
    yield NoiseSchedule.linear(T), 1
    yield NoiseSchedule.course(T), 1
    yield NoiseSchedule.cosine(T), 1
    yield NoiseSchedule.scaled_linear(T), 1
    start = np.log(np.clip(e.schedule.betas[[1, -1]], 1e-6, 0.9))
    target = np.diff(np.log(np.maximum(bars, 1e-300)), prepend=0.0)
    scale = errors + 1e-6 * np.abs(target)
    makers: tuple[Callable[[int, float, float], NoiseSchedule], ...] = (
        NoiseSchedule.linear,
        NoiseSchedule.scaled_linear,
        NoiseSchedule.course,
    )
    for make in makers:

        def other(ends: Array, make: Callable = make) -> NoiseSchedule:
            low, high = np.exp(np.clip(ends, *BOUNDS))
            return make(T, float(min(low, high)), float(high))

        def residual(ends: Array, other: Callable = other) -> Array:
            found = other(ends)
            logs = np.log(np.maximum(found.alpha_bars, 1e-300))
            there = np.diff(np.interp(index, np.arange(T + 1), logs), prepend=0.0)
            if index[0] == 1:
                there[0] = np.log(found.alphas[1])
            return (there - target) / scale

        try:
            fitted = least_squares(
                residual, start, diff_step=1e-5, ftol=1e-15, xtol=1e-12, gtol=1e-15, max_nfev=60
            )
        except (InputError, ValueError):
            continue
        if fitted.x.max() > BOUNDS[0] + 1:  # there is noise
            yield other(fitted.x), 2
