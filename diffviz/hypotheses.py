"""Single mistakes in the indices or the schedule that put many coefficients off at once."""

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from diffviz.evidence import Evidence, finding
from diffviz.findings import Finding
from diffviz.identification import (
    Levels,
    expect,
    in_form,
    levels_of,
    scores,
)
from diffviz.sampling import Rule, ddim, ddpm
from diffviz.schedule import NoiseSchedule
from diffviz.watching import (
    index_of,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def one_cause(e: Evidence, off: Mask) -> Finding | None:
    """A single mistake in the indices or the schedule that explains nearly all that is off."""
    last = _last_step(e, off)
    # With a and b in order a wrong noise is a wrong noise, and nothing else.
    if last is not None or not (np.abs(e.scores[:, :2]) > e.threshold).any():
        return last
    best: tuple[float, Finding] | None = None
    plain = np.log1p(e.scores**2)[:, [0, 1, 3]].sum(axis=1)
    rules = {e.expected.source, ddpm("beta"), ddpm("posterior")}
    for shift, rule in product((-1, 1, -2, 2), rules):
        table, valid = _shifted(e, rule, shift)
        gain = _gain(plain, table, valid, off, e.threshold)
        if gain > (best[0] if best else 30.0):
            best = gain, finding(e, "time-off-by-one", off, shift=float(-shift))
    for other, rule in product(_schedules(e, fitted=best is None), rules):
        levels = _elsewhere(e, other)
        if levels is None:
            continue
        table = scores(e.fit, e.used, expect(rule, levels))
        inner = np.arange(len(off)) < len(off) - 1
        gain = _gain(plain, table, inner, off, e.threshold)
        if gain > (best[0] + 1e-9 if best else 30.0):
            bars = float(e.schedule.alpha_bars[-1]), float(other.alpha_bars[-1])
            best = (
                gain,
                finding(
                    e, "schedule-mismatch", off, name=other.name, found=bars[1], expected=bars[0]
                ),
            )
    return best[1] if best else None


def _gain(plain: Array, table: Array, valid: Mask, off: Mask, threshold: float) -> float:
    """How much better another reading explains the steps; 0 unless nearly all is explained."""
    left = (np.abs(table[:, [0, 1, 3]]) > threshold).any(axis=1)
    if not (off & valid).any() or (left & valid).sum() > 0.1 * (off & valid).sum():
        return 0.0
    other = np.log1p(table**2)[:, [0, 1, 3]].sum(axis=1)
    return float((plain - other)[valid].sum())


def _shifted(e: Evidence, rule: Rule, shift: int) -> tuple[Array, Mask]:
    """The scores if every step used the coefficients of t + shift, where those exist."""
    levels = e.expected.levels
    now = np.rint(levels.index).astype(int) + shift
    then = np.append(now[1:], max(shift, 0))
    valid = (now >= 1) & (now <= e.schedule.T) & (then >= 0) & (then < now)
    numbers = e.expected.numbers.copy()
    bars = e.schedule.alpha_bars
    for i in np.flatnonzero(valid):
        found = np.array([rule.coefficients(e.schedule, int(now[i]), int(then[i]))])
        numbers[i] = in_form(found, levels, bars[[now[i]]], bars[[then[i]]])[0]
    # Whether the step that ends at 0 has noise is decided by the loop, not by the tables.
    valid[-1] = False
    valid &= then > 0
    return scores(e.fit, e.used, replace(e.expected, numbers=numbers)), valid


def _last_step(e: Evidence, off: Mask) -> Finding | None:
    """A last step that ends above 0: at an index above t, a negative one counted from the end."""
    levels = e.expected.levels
    t = round(levels.index[-1])
    if not off[-1] or off[:-1].any() or levels.sigma_form or t != levels.index[-1]:
        return None
    for s in (s for s in range(1, e.schedule.T + 1) if s != t):
        rule = e.expected.source if s < t else ddim(0.0)
        ends = e.schedule.alpha_bars[[t]], e.schedule.alpha_bars[[s]]
        found = in_form(np.array([rule.coefficients(e.schedule, t, s)]), levels, *ends)[0]
        error = 8 * e.fit.errors[-1, 1:] + 1e-5 * (1 + abs(found[0]))
        if (np.abs(found[:2] - e.fit.coefficients[-1, 1:]) < error).all():
            last = np.arange(len(off)) == len(off) - 1
            if s < t:
                return finding(e, "time-ends-early", last, found=float(s))
            wrapped = float(s - e.schedule.T - 1)
            return finding(e, "time-index-wraps", last, found=wrapped, read=float(s))
    return None


def _schedules(e: Evidence, fitted: bool) -> list[NoiseSchedule]:
    """The usual schedules, and the linear one that explains the steps best."""
    T = e.schedule.T
    known = [
        NoiseSchedule.linear(T),
        NoiseSchedule.course(T),
        NoiseSchedule.cosine(T),
        NoiseSchedule.scaled_linear(T),
        NoiseSchedule.linear(1000),
        NoiseSchedule.cosine(1000),
        NoiseSchedule.scaled_linear(1000),
        NoiseSchedule.linear(T, min(0.1 / T, 0.4), min(20 / T, 0.9)),
    ]
    if fitted:
        ends = _fitted(e)
        known += [] if ends is None else [ends]
    return [other for other in known if other != e.schedule]


def _fitted(e: Evidence) -> NoiseSchedule | None:
    """The linear schedule whose two ends explain the steps best."""

    def linear(ends: Array) -> NoiseSchedule:
        low, high = np.exp(np.clip(ends, -16, -0.1))
        return NoiseSchedule.linear(e.schedule.T, float(min(low, high)), float(high))

    def residuals(ends: Array) -> Array:
        levels = _elsewhere(e, linear(ends))
        assert levels is not None
        table = scores(e.fit, e.used, expect(e.expected.source, levels))
        return np.sqrt(np.log1p(table[:, [0, 1, 3]] ** 2)).ravel()

    start = np.log(np.maximum(e.schedule.betas[[1, -1]], 1e-7))
    if _elsewhere(e, linear(start)) is None:
        return None
    return linear(least_squares(residuals, start, diff_step=1e-3, max_nfev=40).x)


def _elsewhere(e: Evidence, other: NoiseSchedule) -> Levels | None:
    levels = e.expected.levels
    index = index_of(e.used.times, levels.kind, other)
    if other.T != e.schedule.T and levels.kind != "fraction":
        return None
    if not np.array_equal(index, np.rint(index)):
        return None
    return levels_of(index, other, levels.kind, levels.sigma_form, levels.answer)
