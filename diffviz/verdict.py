r"""What the steps of a sampler say about it: from coefficients to findings.

Causes come before their consequences, and what a cause explains is not said again. A statistic is
held against its known law under a correct sampler; over all steps and tests together a correct
sampler is blamed at most once in 10,000 runs.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import f as fisher
from scipy.stats import norm

from diffviz.findings import Finding
from diffviz.identification import (
    DOUBLE,
    MULTISTEP,
    SINGLE,
    Expected,
    Levels,
    arrangements,
    closest,
    expect,
    in_form,
    levels_of,
    scores,
    solves_multistep,
)
from diffviz.sampling import Rule, ddim, ddpm
from diffviz.schedule import NoiseSchedule
from diffviz.statistics import ks_pvalue
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
    index_of,
    score_threshold,
    solve,
    time_kinds,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
TESTS_PER_STEP = 14
"""Four coefficients in two excitations, their difference, and the laws of the noise."""


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


def judge(evidence: Evidence) -> tuple[tuple[Finding, ...], str | None]:
    """(findings, the most causal first; the name of the closest rule, or None)."""
    e = evidence
    found: list[Finding] = []
    rule: str | None = e.expected.rule
    for watched in (e.tame, e.wild):
        if watched.broken is not None and len(watched.grams) < len(e.used.grams):
            found.append(_finding(e, "nonfinite", _only(e, len(watched.grams) - 1)))
    if e.clipped.any():
        found.append(_finding(e, "x0-clipped", e.clipped, severity="warning"))
    if e.multistep:
        wrong = e.scores[:, 0] != 0
        if wrong.any():
            found.append(_finding(e, "x-coefficient", wrong, **_gap(e, 0, wrong)))
        return (*found, *_start(e)), rule
    law = _noise_law(e)
    found += law
    if any(finding.id == "noise-reused-across-steps" for finding in law):
        return (*found, *_start(e)), rule
    if e.depends.any():
        found.append(_finding(e, "rule-unknown", e.depends, severity="warning"))
        return (*found, *_start(e)), None
    off = np.abs(e.scores) > e.threshold
    coefficients = off[:, :2].any(axis=1)
    cause = _one_cause(e, off[:, [0, 1, 3]].any(axis=1)) if off[:, [0, 1, 3]].any() else None
    if cause is not None:
        found.append(cause)
        return (*found, *_start(e)), rule
    found += _coefficients(e, off)
    explained = any(finding.id == "noise-not-normal" for finding in law)
    if off[:, 2].any() and not explained:
        found.append(_finding(e, "bias", off[:, 2], **_gap(e, 2, off[:, 2])))
    noise = [] if explained else _noise_size(e, off[:, 3])
    found += noise
    if coefficients.mean() > 0.5:
        rule = None
    elif any(finding.id == "noise-missing" for finding in noise):
        rule = e.expected.rule.split("/")[0]
    return (*found, *_start(e)), rule


def judge_order(watched: Watched, schedule: NoiseSchedule, time: Time) -> Finding | None:
    """What makes a step-by-step comparison impossible: times that do not fall from T to 1."""
    if watched.broken is not None:
        t = round(_index(watched, schedule, time)[len(watched.grams) - 1])
        return (
            Finding("nonfinite", "error", "", (t, t))
            if len(watched.grams)
            else Finding("nonfinite", "error", "", (schedule.T, schedule.T))
        )
    index = _index(watched, schedule, time)
    first, last = round(index[0]), round(index[-1])
    stays = np.flatnonzero(np.diff(index) >= 0)
    if (index < 0).any():
        i = int(np.flatnonzero(index < 0)[0])
        evidence: dict[str, float | str] = {
            "found": float(index[i]),
            "read": index[i] + schedule.T + 1,
        }
        return Finding("time-index-wraps", "error", "", (round(index[i]),) * 2, evidence)
    if stays.size:
        before, after = index[stays[0]], index[stays[0] + 1]
        evidence = {"before": float(before), "after": float(after)}
        severity = "error" if (np.diff(index) > 0).any() else "warning"
        return Finding("time-order", severity, "", (first, last), evidence)
    if first > schedule.T or last < 1:
        for shift in (1, -1):
            moved = levels_of(index + shift, schedule)
            if moved is not None:
                found = closest(watched, schedule, _moved(index + shift, watched))
                table = scores(solve(watched.grams, SINGLE), watched, found)
                if (np.abs(table[:, :2]) < score_threshold(len(table))).all(axis=1).mean() > 0.9:
                    evidence = {"shift": float(-shift)}
                    return Finding("time-off-by-one", "error", "", (first, last), evidence)
    if first > schedule.T + 1:
        evidence = {"name": f"{first} steps", "found": float(first), "expected": float(schedule.T)}
        return Finding("schedule-mismatch", "error", "", (first, last), evidence)
    return None


def _index(watched: Watched, schedule: NoiseSchedule, time: Time) -> Array:
    kind = time_kinds(watched.times, watched.floating, time, schedule)[0]
    return index_of(watched.times, kind, schedule)


def _moved(index: Array, watched: Watched) -> Time:
    places = dict(zip(watched.times.tolist(), index.tolist(), strict=True))
    return lambda value: places[value]


# ------------------------------------------------------------------ what is seen


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
    gap = np.abs(one.coefficients[:n, 1:] - two.coefficients[:, 1:])
    error = np.hypot(one.errors[:n, 1:], two.errors[:, 1:]) * inflation
    size = np.abs(two.coefficients[:, 1:]) + np.abs(two.coefficients[:, 1:]).max()
    off = (gap > 2 * threshold * error + 1e-4 * size).any(axis=1)
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


def _start_correlation(watched: Watched, fit: Fit) -> Array:
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


# ------------------------------------------------------------------ what it means


def _noise_law(e: Evidence) -> list[Finding]:
    """Whether the leftover is fresh N(0, 1) in every value; one cause, the broadest."""
    noise = e.used.noise
    root = np.sqrt(e.used.values)
    batch = np.array([n.batch_score for n in noise]) > e.threshold
    if batch.any():
        value = float(np.nanmedian(np.array([n.batch for n in noise])[batch]))
        return [_finding(e, "noise-shared-in-batch", batch, found=value)]
    again = np.nan_to_num(e.step_correlation)
    reused = (np.abs(again) > 0.5) & (np.abs(again) * root > e.threshold)
    reused &= noise[0].std > noise[0].floor  # else a dependence, but on no noise
    if not reused.any() and e.depends.any():
        again = np.nan_to_num(_start_correlation(e.used, e.fit))
        reused = (again > 0.9) & (again * root > e.threshold)
        reused &= reused.sum() > 0.5 * len(reused)
    if reused.any():
        value = float(np.median(again[reused]))
        return [_finding(e, "noise-reused-across-steps", reused, found=value)]
    grid = np.abs(np.array([n.grid_score for n in noise])) > e.threshold
    if grid.any():
        value = float(np.median(np.array([n.grid for n in noise])[grid]))
        return [_finding(e, "noise-correlated", grid, found=value)]
    law = np.array([n.ks_p for n in noise]) < 2 * norm.sf(e.threshold)
    if law.any():
        value = float(np.median(np.array([n.ks for n in noise])[law]))
        bias = float(np.median((e.fit.coefficients[:, 0] / np.maximum(e.fit.std, 1e-300))[law]))
        return [_finding(e, "noise-not-normal", law, found=value, bias=bias)]
    return []


def _one_cause(e: Evidence, off: Mask) -> Finding | None:
    """A single mistake in the indices or the schedule that explains nearly all that is off."""
    wraps = _wraps(e, off)
    if wraps is not None:
        return wraps
    best: tuple[float, Finding] | None = None
    plain = np.log1p(e.scores**2)[:, [0, 1, 3]].sum(axis=1)
    rules = {e.expected.source, ddpm("beta"), ddpm("posterior")}
    for shift, rule in product((-1, 1, -2, 2), rules):
        table, valid = _shifted(e, rule, shift)
        gain = _gain(plain, table, valid, off, e.threshold)
        if gain > (best[0] if best else 30.0):
            best = gain, _finding(e, "time-off-by-one", off, shift=float(-shift))
    for other, rule in product(_schedules(e, fitted=best is None), rules):
        levels = _elsewhere(e, other)
        if levels is None:
            continue
        table = scores(e.fit, e.used, expect(rule, levels))
        inner = np.arange(len(off)) < len(off) - 1
        gain = _gain(plain, table, inner, off, e.threshold)
        if gain > (best[0] + 1e-9 if best else 30.0):
            bars = float(e.schedule.alpha_bars[-1]), float(other.alpha_bars[-1])
            numbers = {"name": other.name, "found": bars[1], "expected": bars[0]}
            best = gain, _finding(e, "schedule-mismatch", off, **numbers)
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


def _wraps(e: Evidence, off: Mask) -> Finding | None:
    """A last step that leads to an index above t: a negative one, counted from the end."""
    if not off[-1] or off[:-1].any() or e.expected.levels.sigma_form:
        return None
    t = round(e.expected.levels.index[-1])
    a, b = e.fit.coefficients[-1, 1:]
    for s in range(t + 1, e.schedule.T + 1):
        found = ddim(0.0).coefficients(e.schedule, t, s)
        error = 8 * e.fit.errors[-1, 1:] + 1e-5 * (1 + abs(a))
        if abs(found[0] - a) < error[0] and abs(found[1] - b) < error[1]:
            return _finding(
                e, "time-index-wraps", off, found=float(s - e.schedule.T - 1), read=float(s)
            )
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
    # With a and b in order a wrong noise is a wrong noise, not another schedule's.
    if fitted and (np.abs(e.scores[:, :2]) > e.threshold).any():
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


def _coefficients(e: Evidence, off: Mask) -> list[Finding]:
    found = []
    a, b = e.fit.coefficients[:, 1], e.fit.coefficients[:, 2]
    x, eps = off[:, 0], off[:, 1]
    if x.any():
        found.append(_finding(e, "x-coefficient", x, **_gap(e, 0, x)))
        # A factor on the whole mean moves both; it is said once.
        with np.errstate(all="ignore"):
            same = np.abs(b * e.expected.numbers[:, 0] / (a * e.expected.numbers[:, 1]) - 1) < 0.02
        eps = eps & ~(x & same)
    if eps.any():
        found.append(_finding(e, "eps-coefficient", eps, **_gap(e, 1, eps)))
    return found


def _noise_size(e: Evidence, off: Mask) -> list[Finding]:
    std, target = e.fit.std, e.expected.numbers[:, 2]
    wanted = target > 0
    missing = off & wanted & (std < 0.02 * target)
    if missing.sum() > 0.5 * wanted.sum():
        return [_finding(e, "noise-missing", missing, **_gap(e, 3, missing))]
    found = []
    last = np.arange(len(off)) == len(off) - 1
    extra = off & ~wanted & last
    wrong = off & ~extra
    if wrong.any():
        found.append(_finding(e, "noise-scale", wrong, **_gap(e, 3, wrong)))
    if extra.any() and not (wrong & ~wanted).any():
        found.append(_finding(e, "noise-last-step", extra, **_gap(e, 3, extra)))
    return found


def _start(e: Evidence) -> list[Finding]:
    """x_T is N(0, 1), or as wide as the level it stands for; in σ form, σ times that."""
    mean, std, ks = e.wild.start
    n, bar = e.wild.values, float(e.expected.levels.bars[0])
    widths = [1.0, float(np.sqrt(1 - bar))]
    if e.expected.levels.sigma_form:
        widths = [float(np.sqrt((1 - bar) / bar)), float(bar**-0.5)]
    free = max(n - 1, 1)
    spread = 2 / (9 * free)
    worst = []
    for width in widths:
        wide = ((std / width) ** (2 / 3) - (1 - spread)) / np.sqrt(spread)
        worst.append(max(abs(mean) * np.sqrt(n) / width, abs(wide)))
    law = float(ks_pvalue(ks, n)) < 2 * norm.sf(e.threshold)
    if min(worst) <= e.threshold and not law:
        return []
    return [_finding(e, "start-not-normal", _only(e, 0), mean=mean, std=std, ks=ks)]


def _gap(e: Evidence, which: int, off: Mask) -> dict[str, float]:
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


def _only(e: Evidence, step: int) -> Mask:
    return np.arange(len(e.used.grams)) == step


def _finding(
    e: Evidence, identity: str, mask: Mask, severity: str = "error", **evidence: float | str
) -> Finding:
    index = np.rint(e.expected.levels.index).astype(int)[: len(mask)][mask]
    return Finding(
        identity,
        severity,
        "",
        (int(index.max()), int(index.min())),
        {"rule": e.expected.rule, **evidence},
    )
