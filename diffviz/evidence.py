r"""The evidence of two excitations: what was seen of every step, next to the closest rule.

A statistic is held against its known law under a correct sampler. Over all steps and tests
together, a correct sampler passes the threshold at most once in 10,000 runs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as fisher
from scipy.stats import norm

from diffviz.findings import Finding
from diffviz.identification import (
    DOUBLE,
    MULTISTEP,
    SINGLE,
    Expected,
    arrangements,
    closest,
    scores,
    solves_multistep,
)
from diffviz.sampling import Rule, ddim
from diffviz.schedule import NoiseSchedule
from diffviz.watching import (
    NEXT,
    ONE,
    PREVIOUS_EPS,
    PREVIOUS_X,
    START,
    Fit,
    Time,
    Watched,
    X,
    score_threshold,
    solve,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
TESTS_PER_STEP = 14
"""Four coefficients in two excitations, their difference, and the laws of the noise."""
WARNINGS = ("x0-clipped", "rule-unknown", "time-ends-early")
"""Findings that do not by themselves mean wrong samples."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that the verdict rests on.

    Attributes:
        wild, tame, used: both excitations, and the one whose numbers are judged.
        fit, expected, scores: of the one that is used; scores (S, 4) of a, b, bias, σ.
        clipped: steps that answer differently to the two excitations.
        depends: steps that depend on the call before.
        step_correlation: of the noise with that of the step before.
        multistep: the dependence is a deterministic multi-step rule's.
        threshold: the score that counts.
    """

    schedule: NoiseSchedule
    wild: Watched
    tame: Watched
    used: Watched
    fit: Fit
    expected: Expected
    scores: Array
    clipped: Mask
    depends: Mask
    step_correlation: Array
    multistep: bool
    threshold: float


def weigh(
    schedule: NoiseSchedule, wild: Watched, tame: Watched, best: Expected, time: Time
) -> Evidence:
    """Decide which excitation to judge by, and compare it with the rule closest to it."""
    steps = len(wild.grams)
    threshold = score_threshold(TESTS_PER_STEP * steps)
    noisy = wild.noise[0].std > wild.noise[0].floor
    depends = _depends(wild, threshold)
    shared = any(noise.batch_score > threshold for noise in wild.noise)
    if depends.any() and not noisy:
        solved = _multistep(wild, schedule, time)
        if solved is not None:
            fit = solve(wild.grams, SINGLE)
            wrong = np.where(solved[1], 0.0, 1e6)
            table = np.column_stack([wrong, wrong, np.zeros(steps), np.zeros(steps)])
            nothing = np.zeros(steps, dtype=bool)
            correlation = np.full(steps, np.nan)
            return Evidence(
                schedule, wild, tame, wild, fit, solved[0], table, nothing, depends, correlation,
                True, threshold,
            )  # fmt: skip
    inflation = float(np.sqrt(wild.batch)) if shared else 1.0
    clipped = np.zeros(steps, dtype=bool)
    if not _depends(tame, threshold).any():
        clipped = _clipped(wild, tame, threshold, inflation)
    used = tame if clipped.any() else wild
    expected = closest(used, schedule, time) if clipped.any() else best
    fit = solve(used.grams, SINGLE)
    return Evidence(
        schedule, wild, tame, used, fit, expected, scores(fit, used, expected, inflation), clipped,
        _depends(used, threshold), _step_correlation(used, fit), False, threshold,
    )  # fmt: skip


def _depends(watched: Watched, threshold: float) -> Mask:
    """Steps whose leftover the call before explains, by the F test of two more columns."""
    one, two = solve(watched.grams, SINGLE).std, solve(watched.grams, DOUBLE).std
    free = max(watched.values - 5, 1)
    floor = np.array([noise.floor for noise in watched.noise])
    with np.errstate(all="ignore"):
        ratio = ((one**2 * (free + 2) - two**2 * free) / 2) / two**2
    p = fisher.sf(np.nan_to_num(ratio, nan=0.0, posinf=1e300), 2, free)
    return (p < 2 * norm.sf(threshold)) & (one > 20 * floor) & (np.arange(len(one)) > 0)


def _multistep(
    watched: Watched, schedule: NoiseSchedule, time: Time
) -> tuple[Expected, Mask] | None:
    """(what DPM-Solver++(2M) says, in the regression's terms; where it holds), if it does."""
    for levels in arrangements(watched, schedule, time):
        rows, good = solves_multistep(watched, levels)
        if good.mean() > 0.7:
            grams = watched.grams.copy()
            grams[:, NEXT, :NEXT] = grams[:, :NEXT, NEXT] = np.einsum(
                "sij,sj->si", watched.grams[:, :NEXT, :NEXT], rows[:, :NEXT]
            )
            implied = solve(grams, DOUBLE).coefficients
            numbers = np.column_stack([implied[:, 1], implied[:, 2], np.zeros(len(good))])
            rule: Rule = ddim(0.0)
            return Expected(MULTISTEP, rule, levels, numbers, np.zeros_like(numbers)), good
    return None


def _clipped(wild: Watched, tame: Watched, threshold: float, inflation: float) -> Mask:
    """Steps whose coefficients differ between the excitations, beyond errors and rounding."""
    one, two = solve(wild.grams, SINGLE), solve(tame.grams, SINGLE)
    n = len(two.std)
    gap = one.coefficients[:n, 1:] - two.coefficients[:, 1:]
    covariance = (one.covariance[:n] + two.covariance)[:, 1:, 1:] * inflation**2
    rounding = 1e-5 * np.abs(two.coefficients[:, 1:]).max(axis=1)
    covariance += (rounding**2)[:, None, None] * np.eye(2)
    square = np.einsum("si,sij,sj->s", gap, np.linalg.inv(covariance), gap)
    # The leftover of a clipped step is not independent of x, hence the factor.
    off = square > 2 * threshold**2
    off &= wild.sane[:n] & tame.sane
    return np.concatenate([off, np.zeros(len(one.std) - n, dtype=bool)])


def _step_correlation(watched: Watched, fit: Fit) -> Array:
    """Correlation of each step's leftover with the last one's; NaN where there is none."""
    grams, found = watched.grams, np.full(len(watched.grams), np.nan)
    for i in range(1, len(grams)):
        if (
            min(
                watched.noise[i].std / watched.noise[i].floor,
                watched.noise[i - 1].std / watched.noise[i - 1].floor,
            )
            > 20
        ):
            now, before = np.zeros(7), np.zeros(7)
            now[NEXT], now[SINGLE] = 1, -fit.coefficients[i]
            before[X], before[[ONE, PREVIOUS_X, PREVIOUS_EPS]] = 1, -fit.coefficients[i - 1]
            found[i] = _correlation(now, before, grams[i])
    return found


def start_correlation(watched: Watched, fit: Fit) -> Array:
    """Correlation of each step's leftover with what of x_T is in neither x_t nor the answer."""
    grams, found = watched.grams, np.full(len(watched.grams), np.nan)
    for i in range(2, len(grams)):
        if watched.noise[i].std > 20 * watched.noise[i].floor:
            now, start = np.zeros(7), np.zeros(7)
            now[NEXT], now[SINGLE] = 1, -fit.coefficients[i]
            known = grams[i][np.ix_(SINGLE, SINGLE)]
            start[START] = 1
            start[SINGLE] = -np.linalg.lstsq(known, grams[i][SINGLE, START], rcond=None)[0]
            found[i] = _correlation(now, start, grams[i])
    return found


def _correlation(a: Array, b: Array, gram: Array) -> float:
    square = (a @ gram @ a) * (b @ gram @ b)
    return float((a @ gram @ b) / np.sqrt(square)) if square > 0 else float("nan")


def gap(e: Evidence, which: int, off: Mask) -> dict[str, float]:
    """The numbers of the step where it shows most, and the median ratio over all."""
    columns = (
        e.fit.coefficients[:, 1],
        e.fit.coefficients[:, 2],
        e.fit.coefficients[:, 0],
        e.fit.std,
    )
    values = columns[which]
    zero = np.zeros(len(values))
    target = (*e.expected.numbers[:, :2].T, zero, e.expected.numbers[:, 2])[which]
    score = np.abs(e.scores[:, which]) * off
    i = int(np.argmax(np.minimum(score, 1e5) + np.abs(values - target) * off))
    with np.errstate(all="ignore"):
        ratio = float(np.median((values / target)[off]))
    t = float(e.expected.levels.index[i])
    return {"found": float(values[i]), "expected": float(target[i]), "ratio": ratio, "t": t}


def only(e: Evidence, step: int) -> Mask:
    """The mask of one step."""
    return np.arange(len(e.used.grams)) == step


def finding(e: Evidence, identity: str, mask: Mask, **evidence: float | str) -> Finding:
    """The finding about the steps of ``mask``, with the name of the closest rule."""
    index = np.rint(e.expected.levels.index).astype(int)[: len(mask)][mask]
    severity = "warning" if identity in WARNINGS else "error"
    shown = {"rule": e.expected.rule, **evidence}
    return Finding(identity, severity, "", (int(index.max()), int(index.min())), shown)
