r"""The evidence of two excitations: what was seen of every step, next to the closest rule.

A statistic is held against its known law under a correct sampler. Over all steps and tests
together, a correct sampler passes the threshold at most once in 100,000 runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, ndtr, stdtrit

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.rules import Rule, ddim
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.identify.paired_runs import crooked, fitted, inside
from diffviz.identify.rules import (
    MULTISTEP,
    Expected,
    Levels,
    closest,
    expect,
    scores,
    solves_multistep,
)
from diffviz.identify.spy import (
    DOUBLE,
    NEXT,
    ONE,
    PREVIOUS_EPS,
    PREVIOUS_X,
    SINGLE,
    Fit,
    Pairs,
    Watched,
    X,
    score_threshold,
    solve,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
TESTS_PER_STEP = 20
"""Four coefficients in two excitations, their difference, dependence and the laws of the noise."""
SEVERITY = {
    "x0-clipped": "warning",
    "not-linear": "warning",
    "rule-unknown": "warning",
    "time-ends-early": "warning",
    "time-starts-late": "information",
    "half-precision": "information",
}
"""Of findings that do not by themselves mean wrong samples; of all others it is error."""


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
        inflation: of the errors of a, b and the bias, where samples share their noise.
        inner: the evidence of those values alone for which the steps are linear, if looked for.
        ways: every way to read the told times.
        shift: by how much the told times are beside those of the levels.
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
    inflation: float = 1.0
    inner: "Evidence | None" = None
    ways: Sequence[Levels] = ()
    shift: float = 0.0

    @property
    def off(self) -> Mask:
        """(S, 4): a, b, the bias and σ that are off at a step, or at all steps taken together.

        Under a correct sampler the scores of the steps are independent, so Σz/√S is one too: a
        small factor that no step shows alone shows in all of them.
        """
        single = np.abs(self.scores) > self.threshold
        noisy = (self.expected.numbers[:, 2] > 0) & self.used.noisy & self.used.sane
        # If those that show something by themselves are all there is, the others are right.
        clear = np.abs(self.scores) > 3
        every = noisy[:, None] & self._together(noisy[:, None] & np.ones((1, 4), bool))
        rest = noisy[:, None] & ~clear
        few = every & clear & ~self._together(rest)
        return single | np.where(few.any(axis=0), few, every)

    @property
    def exact(self) -> bool:
        """Every step is the known rule's, to what chance and rounding allow."""
        apart = self.off.any() or self.depends.any() or self.clipped.any() or bool(self.shift)
        return not apart and not self.multistep

    def _together(self, steps: Mask) -> Mask:
        """(4,): whether the scores of these steps (S, 4) are off taken together."""
        table = np.clip(self.scores, -5, 5) * steps
        total = table.sum(axis=0) / np.sqrt(np.maximum(steps.sum(axis=0), 1))
        return np.abs(total) > self.threshold

    def scores_of(self, expected: Expected) -> Array:
        """(S, 4) against another expectation."""
        return scores(self.fit, self.used, expected, self.inflation)


@np.errstate(divide="ignore", invalid="ignore")
def weigh(
    schedule: NoiseSchedule, wild: Watched, tame: Watched, best: Expected, ways: Sequence[Levels]
) -> Evidence:
    """Decide which excitation to judge by, and compare it with the rule closest to it."""
    steps = len(wild.grams)
    threshold = score_threshold(TESTS_PER_STEP * steps)
    noisy = wild.noise[0].there
    depends = _depends(wild, threshold)
    # What clipping leaves over in the first excitation is no noise.
    shared = any(noise.batch_score > threshold for noise in tame.noise)
    if depends.any() and not noisy:
        solved = _multistep(wild, ways)
        if solved is not None:
            fit = fitted(wild)
            wrong = np.where(solved[1], 0.0, 1e6)
            table = np.column_stack([wrong, wrong, np.zeros(steps), np.zeros(steps)])
            nothing = np.zeros(steps, dtype=bool)
            correlation = np.full(steps, np.nan)
            return Evidence(
                schedule, wild, tame, wild, fit, solved[0], table, nothing, depends, correlation,
                True, threshold, ways=ways,
            )  # fmt: skip
        best = _by_first_step(wild, ways) or best
    inflation = float(np.sqrt(wild.batch)) if shared else 1.0
    clipped = np.zeros(steps, dtype=bool)
    if not _depends(tame, threshold).any():
        clipped = _clipped(wild, tame, threshold, inflation)
    elif wild.pairs is not None and tame.pairs is not None:
        clipped[: len(tame.grams)] = _bent_outside(wild.pairs, tame.pairs, threshold)
    used = tame if clipped.any() else wild
    expected = closest(used, ways) if clipped.any() else best
    fit = fitted(used)
    return Evidence(
        schedule, wild, tame, used, fit, expected, scores(fit, used, expected, inflation), clipped,
        _depends(used, threshold), _step_correlation(used, fit), False, threshold, inflation,
        ways=ways,
    )  # fmt: skip


def look_inside(e: Evidence, echo: Watched) -> Evidence:
    """With the evidence of the values that are clipped neither in ``tame`` nor in ``echo``."""
    found = inside(e.tame, echo)
    if found is None:
        return e
    fit, values = found
    used = replace(e.tame, inside=fit)
    expected = closest(used, e.ways)
    inflation = float(np.sqrt(e.tame.values / values))
    table = scores(fit, used, expected, inflation)
    inner = replace(
        e, used=used, fit=fit, expected=expected, scores=table, inflation=inflation,
        step_correlation=np.full(len(fit.std), np.nan),
    )  # fmt: skip
    return replace(e, inner=inner)


def _depends(watched: Watched, threshold: float) -> Mask:
    """Steps whose leftover the call before explains, by the F test of two more columns."""
    one, two = solve(watched.grams, SINGLE).std, solve(watched.grams, DOUBLE).std
    free = max(watched.values - 5, 1)
    floor = np.array([noise.floor for noise in watched.noise])
    with np.errstate(all="ignore"):
        ratio = ((one**2 * (free + 2) - two**2 * free) / 2) / two**2
    p = fdtrc(2, free, np.clip(np.nan_to_num(ratio, nan=0.0, posinf=1e300), 0, 1e300))
    return (p < 2 * ndtr(-threshold)) & (one > 20 * floor) & (np.arange(len(one)) > 0)


def _multistep(watched: Watched, ways: Sequence[Levels]) -> tuple[Expected, Mask] | None:
    """(what DPM-Solver++(2M) says, in the regression's terms; where it holds), if it does."""
    for levels in ways:
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


def _by_first_step(watched: Watched, ways: Sequence[Levels]) -> Expected | None:
    """How a rule with a memory is written: its first step, which has none yet, is DDIM's."""
    fit = fitted(watched)
    for levels in ways:
        expected = expect(ddim(0.0), levels)
        first = np.abs(scores(fit, watched, expected)[0, :2])
        if (first < score_threshold(2)).all():
            return expected
    return None


def _clipped(wild: Watched, tame: Watched, threshold: float, inflation: float) -> Mask:
    """Steps whose coefficients differ between the excitations, beyond errors and rounding."""
    one, two = solve(wild.grams, SINGLE), solve(tame.grams, SINGLE)
    n = len(two.std)
    gap = one.coefficients[:n, 1:] - two.coefficients[:, 1:]
    covariance = (one.covariance[:n] + two.covariance)[:, 1:, 1:] * inflation**2
    rounding = 1e-5 * np.maximum(np.abs(two.coefficients[:, 1:]).max(axis=1), 1e-3)
    covariance += (rounding**2)[:, None, None] * np.eye(2)
    square = np.einsum("si,sij,sj->s", gap, np.linalg.inv(covariance), gap)
    # The leftover of a clipped step is not independent of x, hence the factor.
    off = square > 2 * threshold**2
    off &= wild.sane[:n] & tame.sane
    if wild.pairs is not None and tame.pairs is not None:
        off &= ~wild.pairs.same[:n]
        off |= _bent_outside(wild.pairs, tame.pairs, threshold)
    return np.concatenate([off, np.zeros(len(one.std) - n, dtype=bool)])


def _bent_outside(wild: Pairs, tame: Pairs, threshold: float) -> Mask:
    """Steps that are linear, by two runs each, inside of (−1, 1) and not beyond."""
    return crooked(wild, threshold)[: len(tame.same)] & tame.same


def _step_correlation(watched: Watched, fit: Fit) -> Array:
    """Correlation of each step's leftover with the last one's; NaN where there is none."""
    grams, found = watched.grams, np.full(len(watched.grams), np.nan)
    clear = np.array([noise.std > 20 * noise.floor for noise in watched.noise])
    for i in range(1, len(grams)):
        if clear[i] and clear[i - 1]:
            now, before = np.zeros(7), _leftover_before(fit, i)
            now[NEXT], now[SINGLE] = 1, -fit.coefficients[i]
            found[i] = _correlation(now, before, grams[i])
    return found


def _leftover_before(fit: Fit, step: int) -> Array:
    """The leftover of the step before as a combination of the columns of this one, (7,)."""
    before = np.zeros(7)
    before[X], before[[ONE, PREVIOUS_X, PREVIOUS_EPS]] = 1, -fit.coefficients[step - 1]
    return before


def carried(e: Evidence) -> Mask:
    """Steps that depend on the call before through nothing but the noise of the step before."""
    found = np.zeros(len(e.depends), dtype=bool)
    for i in np.flatnonzero(e.depends).tolist():
        # The columns (1, x, m, leftover before, x before): the last should add nothing.
        change = np.eye(7)
        change[PREVIOUS_EPS] = _leftover_before(e.fit, i)
        gram = (change @ e.used.grams[i] @ change.T)[None]
        one = solve(gram, [*SINGLE, PREVIOUS_EPS])
        two = solve(gram, [*SINGLE, PREVIOUS_EPS, PREVIOUS_X])
        gain = max(float(one.std[0] ** 2 - two.std[0] ** 2), 0.0) * e.used.values
        # The leftover before is known up to the errors of its own coefficients.
        unknown = float(one.coefficients[0, 3]) * float(e.fit.std[i - 1])
        found[i] = gain < e.threshold**2 * max(float(two.std[0]) ** 2, unknown**2)
    return found


def returning(e: Evidence) -> tuple[Mask, float]:
    """(steps whose noise comes again two or more steps later or was x_T; its correlation)."""
    noises = [e.used.start, *e.used.noise]
    rows = np.array([n.sketch for n in noises if len(n.sketch)])
    there = np.array([len(n.sketch) > 0 for n in noises])
    again = np.zeros(len(noises), dtype=bool)
    if len(rows) < 3 or rows.shape[1] < 32:
        return again[1:], 0.0
    size = np.sqrt((rows**2).sum(axis=1))
    r = rows @ rows.T / (size[:, None] * size)
    n = rows.shape[1]
    t = np.abs(r) * np.sqrt((n - 1) / np.maximum(1 - r**2, 1e-12))
    pairs = len(rows) * (len(rows) - 1) / 2
    seen = (t > -stdtrit(n - 1, ndtr(-e.threshold) / pairs)) & np.triu(np.ones(t.shape, bool), 2)
    again[there] = seen.any(axis=0)
    return again[1:], float(np.median(r[seen])) if seen.any() else 0.0


def _correlation(a: Array, b: Array, gram: Array) -> float:
    square = (a @ gram @ a) * (b @ gram @ b)
    return float((a @ gram @ b) / np.sqrt(square)) if square > 0 else float("nan")


def gap(e: Evidence, which: int, off: Mask) -> dict[str, float]:
    """The numbers of the step where it shows most, and the median ratio over all.

    Of the noise, which has one factor for all steps, those of the step with the median ratio.
    """
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
        ratios = values / target
        ratio = float(np.median(ratios[off]))
        if which == 3 and np.isfinite(ratio):
            i = int(np.nanargmin(np.where(off, np.abs(ratios - ratio), np.nan)))
    t = float(e.expected.levels.index[i])
    return {"found": float(values[i]), "expected": float(target[i]), "ratio": ratio, "t": t}


def only(e: Evidence, step: int) -> Mask:
    """The mask of one step."""
    return np.arange(len(e.used.grams)) == step


def finding(e: Evidence, identity: str, mask: Mask, **evidence: float | str) -> Finding:
    """The finding about the steps of ``mask``, with the name of the closest rule."""
    index = np.rint(e.expected.levels.index).astype(int)[: len(mask)][mask]
    severity = SEVERITY.get(identity, "error")
    shown = {"rule": e.expected.rule, **evidence}
    return Finding(identity, severity, "", (int(index.max()), int(index.min())), shown)
