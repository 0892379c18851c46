r"""Which known rule made these steps.

Rules are those of `diffviz.diffusion.rules`, evaluated on the visited levels only: these are a
schedule of their own. They are written for the variance-preserving x_t and a model that answers ε.
A loop may instead hold x̄ = x/√ᾱ and pass σ, and its model may answer x̂_0 or
v = √ᾱ ε − √(1−ᾱ) x_0; each is a linear change of (a, b).

A coefficient is judged by its distance from the rule in standard errors, after what float32 tables
may do to the rule itself. Nothing else is tolerated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from diffviz.diffusion.rules import Rule, ddim, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.paired_runs import fitted
from diffviz.identify.spy import (
    EPS,
    NEXT,
    PREVIOUS_EPS,
    PREVIOUS_X,
    ROUNDING,
    Fit,
    Time,
    Watched,
    X,
    index_of,
    score_threshold,
    time_kinds,
)

Array = NDArray[np.float64]
MULTISTEP = "dpm-solver++(2m)"
FITS = 2.0
"""The misfit of (a, b) that a rule stays below; a right one has 1.06 on average."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Where S steps were: their index on the schedule, falling, and how the loop is written.

    Attributes:
        index: the visited index of every step, (S,); the last step ends at 0.
        kind: how the loop passes t.
        sigma_form: the state is x/√ᾱ.
        answer: what the model answers, "eps", "x0" or "v".
        visited: the visited levels as a schedule, S…0.
    """

    index: Array
    kind: Time
    sigma_form: bool
    answer: str
    visited: NoiseSchedule

    @property
    def bars(self) -> Array:
        """ᾱ where every step starts, (S,)."""
        return self.visited.alpha_bars[:0:-1]

    @property
    def bars_next(self) -> Array:
        """ᾱ where every step ends, (S,)."""
        return self.visited.alpha_bars[-2::-1]


@dataclass(frozen=True, eq=False)
class Expected:
    """What a rule says of every step: a, b and σ, and what rounding may do to them, (S, 3)."""

    rule: str
    source: Rule
    levels: Levels
    numbers: Array
    floor: Array


def levels_of(
    index: Array,
    schedule: NoiseSchedule,
    kind: Time = "index",
    sigma_form: bool = False,
    answer: str = "eps",
    log: bool = False,
) -> Levels | None:
    """The levels at ``index``; None where they do not fall strictly within 1…T.

    Between two indices σ is interpolated, or, with ``log``, log σ.
    """
    grid = np.concatenate([[0.0], index[::-1]])
    if not (np.diff(grid) > 0).all() or grid[-1] > schedule.T:
        return None
    whole = grid.astype(np.intp)
    if np.array_equal(whole, grid):
        bars = schedule.alpha_bars[whole]
        with np.errstate(divide="ignore", invalid="ignore"):
            alphas = np.exp(np.diff(np.cumsum(np.log(schedule.alphas))[whole]))
    else:
        places, known = np.arange(schedule.T + 1), schedule.sigma
        sigma = np.interp(grid, places, known)
        if log:
            sigma[1:] = np.exp(np.interp(grid[1:], places[1:], np.log(known[1:])))
        bars = 1 / (1 + sigma**2)
        alphas = bars[1:] / bars[:-1]
    alphas = np.concatenate([[1.0], alphas])
    visited = NoiseSchedule(1 - alphas, alphas, bars, schedule.name)
    return Levels(index, kind, sigma_form, answer, visited)


def writings(levels: Levels) -> list[Levels]:
    """The same levels with α as the schedule has it, and as ᾱ_t/ᾱ_s where that is another one.

    In the course's schedule it is, at t = 1; with the ratio the last step ends at x̂_0.
    """
    bars = levels.visited.alpha_bars
    alphas = np.concatenate([[1.0], bars[1:] / bars[:-1]])
    if np.allclose(alphas, levels.visited.alphas, rtol=1e-9):
        return [levels]
    visited = NoiseSchedule(1 - alphas, alphas, bars, levels.visited.name)
    return [levels, replace(levels, visited=visited)]


def expect(rule: Rule, levels: Levels) -> Expected:
    """The rule at these levels, in the form the loop is written in."""
    numbers = _numbers(rule, levels, levels.visited)
    # A loop may keep α and ᾱ in float32: each entry rounded, and ᾱ accumulated over t steps.
    bars, alphas = levels.visited.alpha_bars, levels.visited.alphas
    steps = np.concatenate([[0.0], levels.index[::-1]])
    # An index between two others was rounded itself, which σ feels a few times over.
    unit = 2 * ROUNDING if np.array_equal(steps, np.rint(steps)) else 16 * ROUNDING
    # A rule that draws noise has 1 − α, which some write as 1 − e^(−2h) with h from log-SNRs.
    tables = 16 if (numbers[:, 2] > 0).any() else 2
    alternating = np.where(np.arange(len(bars)) % 2 == 0, 0, unit)
    changed = [
        (bars * (1 - steps * ROUNDING / 2), alphas),
        (bars * (1 - alternating), alphas),
        (bars * (1 - alternating[::-1] * (bars < 1)), alphas),
        (bars, alphas * (1 - tables * ROUNDING * (alphas < 1))),
    ]
    floor = 4 * ROUNDING * (np.abs(numbers) + np.abs(numbers).max(axis=1, keepdims=True))
    floor[:, 2] *= numbers[:, 2] > 0
    for bar, alpha in changed:
        other = _numbers(rule, levels, NoiseSchedule(1 - alpha, alpha, bar))
        floor += np.abs(other - numbers)
    if rule in (ddpm("beta"), ddpm("posterior")):
        # Through x̂_0 (DDPM, eq. 7), 1 − α_t, rounded, does not quite meet 1 − ᾱ_t and 1 − ᾱ_s.
        # In the last step x̂_0 is all there is, and that ratio its factor.
        floor[:-1, 0] += ROUNDING / (1 - bars[:1:-1])
        floor[-1, :2] += np.abs(numbers[-1, :2]) * ROUNDING / (1 - bars[1])
    return Expected(rule.name, rule, levels, numbers, floor)


def _numbers(rule: Rule, levels: Levels, visited: NoiseSchedule) -> Array:
    steps = len(levels.index)
    found = np.array([numbers_of(rule, visited, i, i - 1) for i in range(steps, 0, -1)])
    now, then = visited.alpha_bars[:0:-1], visited.alpha_bars[-2::-1]
    return in_form(found, levels, now, then)


def numbers_of(rule: Rule, schedule: NoiseSchedule, t: int, s: int) -> tuple[float, float, float]:
    """(a, b, σ) of one step, NaN where a table makes no sense there."""
    try:
        with np.errstate(all="ignore"):
            return rule.coefficients(schedule, t, s)
    except (ValueError, ZeroDivisionError):
        return (np.nan,) * 3


def in_form(numbers: Array, levels: Levels, now: Array, then: Array) -> Array:
    """(a, b, σ) of x_t and ε, rewritten for the state and the answer of the loop."""
    a, b, std = np.array(numbers).T
    if levels.answer == "x0":
        a, b = a + b / np.sqrt(1 - now), -b * np.sqrt(now / (1 - now))
    if levels.answer == "v":
        a, b = a + b * np.sqrt(1 - now), b * np.sqrt(now)
    if levels.sigma_form:
        # With an answer ε or x̂_0 only x itself is scaled, by 1/√ᾱ before and after.
        a, b, std = a * np.sqrt(now / then), b / np.sqrt(then), std / np.sqrt(then)
    return np.stack([a, b, std], axis=1)


def scores(fit: Fit, watched: Watched, expected: Expected, inflation: float = 1.0) -> Array:
    """Normal scores of a, b, the bias and σ against the rule, (S, 4); huge where undefined."""
    free = max(watched.values - 3, 1)
    result = np.zeros((len(fit.std), 4))
    target = np.column_stack([expected.numbers[:, :2], np.zeros(len(fit.std))])
    allowed = np.column_stack([expected.floor[:, :2], np.zeros(len(fit.std))])
    rounding = np.array([noise.floor for noise in watched.noise])
    allowed[:, 2] = np.maximum(rounding, ROUNDING)
    coarse = 4 * (watched.precision - 2 * ROUNDING)  # of half-precision states only
    allowed[:, :2] += coarse * np.abs(expected.numbers).max(axis=1, keepdims=True)
    columns = [1, 2, 0]
    # Roundings may go together instead of averaging out, and tell where x_t and ε̂ are nearly one.
    size = np.sqrt(watched.grams[:, NEXT, NEXT] / watched.values)
    aligned = 2 * ROUNDING * size * np.sqrt(watched.values) / np.maximum(fit.std, 1e-300)
    allowed += aligned[:, None] * fit.errors[:, columns]
    away = fit.coefficients[:, columns] - target
    with np.errstate(all="ignore"):
        errors = fit.errors[:, columns] * inflation + 1e-300
        over = np.maximum(np.abs(away) - allowed, 0) / errors
        result[:, :3] = np.sign(away) * normal_score(over, free)
        alone = max(watched.values / inflation**2 - 3, 1.0)
        result[:, 3] = std_score(fit.std, expected.numbers[:, 2], rounding, expected, alone)
    result = np.clip(np.nan_to_num(result, nan=1e6, posinf=1e6, neginf=-1e6), -1e6, 1e6)
    return result * watched.sane[:, None]


def normal_score(value: Array, free: int) -> Array:
    """The normal score with the tail probability of Student's t; huge ones stay as they are."""
    inside = np.minimum(value, 30.0)
    mapped = -norm.ppf(student.sf(inside, free))
    return np.where(value < 30, mapped, np.maximum(value, 30.0))


def std_score(
    std: Array, target: Array, rounding: Array, expected: Expected, free: float
) -> Array:
    """Wilson and Hilferty's normal score of a variance; for no noise, all or nothing."""
    gap = std - target
    shrunk = target + np.sign(gap) * np.maximum(np.abs(gap) - expected.floor[:, 2] - rounding, 0)
    spread = 2 / (9 * free)
    ratio = np.where(target > 0, shrunk / np.where(target > 0, target, 1), 1)
    score = (np.maximum(ratio, 0) ** (2 / 3) - (1 - spread)) / np.sqrt(spread)
    score = np.where(shrunk == target, 0.0, score)
    return np.where(target > 0, score, np.where(std > rounding + expected.floor[:, 2], 1e6, 0))


def misfit(score: Array) -> tuple[float, float]:
    """(of a and b, of σ): mean log(1 + z²) up to |z| = 30, which no single step decides."""
    inner = np.log1p(np.minimum(np.abs(score), 30) ** 2)
    return float(inner[:, :2].sum(axis=1).mean()), float(inner[:, 3].mean())


def arrangements(watched: Watched, schedule: NoiseSchedule, time: Time) -> Iterator[Levels]:
    """Every way to read the times passed, the likeliest first."""
    for kind in time_kinds(watched.times, watched.floating, time, schedule):
        index = index_of(watched.times, kind, schedule)
        if kind in ("index", "index0") and index.min() < 1:
            continue  # no level lies there
        for sigma_form in (True, False) if kind == "sigma" else (False,):
            for answer in ("eps", "x0", "v"):
                # A loop that passes σ itself needs no second way to interpolate it.
                between = kind != "sigma" and not np.array_equal(index, np.rint(index))
                for log in (False, True) if between else (False,):
                    levels = levels_of(index, schedule, kind, sigma_form, answer, log)
                    if levels is not None and not (answer == "v" and sigma_form):
                        yield from writings(levels)


def rules_for(fit: Fit, levels: Levels, precision: float) -> list[Rule]:
    """DDPM's, DDIM at η = 0 and 1, and at the η that the noise or the coefficients point to."""
    etas = {0.0, 1.0}
    full = _numbers(ddim(1.0), levels, levels.visited)
    none = _numbers(ddim(0.0), levels, levels.visited)
    with np.errstate(all="ignore"):
        inner = full[:, 2] > 0
        by_noise = np.nanmedian((fit.std / full[:, 2])[inner]) if inner.any() else 0.0
        # The coefficient of ε̂ holds √(1−ᾱ_s−η²σ²): from its value back to η.
        rest = np.sqrt(1 - levels.bars_next)
        slope = 1.0 / np.sqrt(levels.bars_next) if levels.sigma_form else 1.0
        direction = (fit.coefficients[:, 2] - none[:, 2 - 1]) / slope + rest
        sigma = full[:, 2] / slope
        squares = (1 - levels.bars_next - direction**2) / sigma**2
        by_direction = np.sqrt(np.nanmedian(squares[inner])) if inner.any() else 0.0
    if levels.answer == "eps":
        for eta, least in ((by_noise, 0.01), (by_direction, 0.25)):
            if np.isfinite(eta) and least < eta < 0.99:
                nice = round(eta * 20) / 20
                etas.add(
                    nice
                    if abs(eta - nice) < min(0.01 + precision, 0.025)
                    else round(float(eta), 3)
                )
    rules: list[Rule] = [ddpm("beta"), ddpm("posterior"), *(ddim(eta) for eta in sorted(etas))]
    # Where ᾱ is the product of α, DDIM at η = 1 is DDPM with β̃; one name for one rule.
    if np.allclose(_numbers(ddpm("posterior"), levels, levels.visited), full, rtol=1e-9, atol=0):
        rules.remove(ddim(1.0))
    return rules


@np.errstate(divide="ignore", invalid="ignore")  # of a step that is no step at all
def closest(watched: Watched, schedule: NoiseSchedule, time: Time) -> Expected:
    """The known rule that the steps are closest to: first by (a, b), among equals by σ.

    Raises:
        InputError: the times are on no part of the schedule.
    """
    fit = fitted(watched)
    precision = 3 / np.sqrt(2 * watched.values * len(fit.std))
    kinds: dict[Time, list[tuple[float, float, Expected]]] = {}
    for levels in arrangements(watched, schedule, time):
        found = kinds.setdefault(levels.kind, [])
        for rule in rules_for(fit, levels, precision):
            expected = expect(rule, levels)
            table = scores(fit, watched, expected)
            # An answer other than ε is believed only of a loop that follows it nearly everywhere.
            bound = score_threshold(len(table))
            off = np.count_nonzero((np.abs(table[:, :2]) > bound).any(axis=1))
            if levels.answer == "eps" or off <= max(1, 0.1 * len(table)):
                inner, outer = misfit(table)
                found.append((inner, outer + 0.5 * (np.abs(table[:, 3]) > bound).any(), expected))
    # The likeliest way to read the times, unless another fits clearly better.
    found = min(
        (items for items in kinds.values() if items),
        key=lambda items: (
            min(item[0] + min(item[1], 1.0) for item in items)
            + 12 / len(fit.std) * list(kinds.values()).index(items)
        ),
        default=[],
    )
    if not found:
        first, last = watched.times[0], watched.times[-1]
        raise InputError(
            f"the sampler passed times from {first:g} to {last:g}; "
            f"on the schedule they must fall within 1…T = {schedule.T}; see the argument time"
        )
    least = min(item[0] for item in found)
    if least < FITS:
        equals = [item for item in found if item[0] <= least + 0.5]
        plain = (ddpm("beta"), ddpm("posterior"))

        def cost(item: tuple[float, float, Expected]) -> float:
            # DDIM must earn its name where DDPM has the same numbers, and a fitted η its freedom.
            # Where no noise is right, the first rule will do.
            source = item[2].source
            freedom = 2.0 if source == ddim(1.0) else 5.0 * (source not in (ddim(0.0), *plain))
            return round(item[0] + min(item[1], 3.0) + freedom / len(fit.std), 4)

        best = min(equals, key=cost)[2]
    else:
        best = min(found, key=lambda item: item[0] + item[1])[2]
    return replace(best, rule=_sigma_name(best.rule)) if best.levels.sigma_form else best


def _sigma_name(rule: str) -> str:
    names = {"ddim(eta=0)": "euler", "ddpm/posterior": "euler-ancestral"}
    return names.get(rule, "euler-ancestral" if rule == "ddim(eta=1)" else rule)


def solves_multistep(watched: Watched, levels: Levels) -> tuple[Array, NDArray[np.bool_]]:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): (what x_s then is, whether it is).

    x_s = (σ_s/σ_t)·x_t + √ᾱ_s(1 − e^{−h})·D, D = (1 + 1/2r)·x̂_0(t) − 1/2r·x̂_0(before), with
    h = λ_s − λ_t, r = h_before/h, λ = log(√ᾱ/√(1−ᾱ)). A step of first order has D = x̂_0(t).
    Rows (S, 7) hold the combination of columns; a step is solved when only rounding is left.
    """
    now, then = levels.bars, levels.bars_next
    with np.errstate(all="ignore"):
        log_snr = np.append(0.5 * np.log(now / (1 - now)), 0.5 * np.log(then[-1] / (1 - then[-1])))
        h = np.diff(log_snr)
        r = np.append(np.nan, h[:-1]) / h
        gain = np.sqrt(then) * -np.expm1(-h)
        keep = np.sqrt((1 - then) / (1 - now))
        extra = np.nan_to_num(1 / (2 * r), posinf=0.0)
    rows, good = np.zeros((len(now), 7)), np.zeros(len(now), dtype=bool)
    for i in range(len(now)):
        for order in (2, 1):
            weight = extra[i] if order == 2 and i > 0 else 0.0
            row = np.zeros(7)
            row[X] = keep[i]
            for sign, bar, x, eps in (
                (1 + weight, now[i], X, EPS),
                (-weight, now[max(i - 1, 0)], PREVIOUS_X, PREVIOUS_EPS),
            ):
                part = sign * gain[i]
                if levels.answer == "x0":
                    row[eps] += part
                elif levels.answer == "v":
                    row[x] += part * np.sqrt(bar)
                    row[eps] -= part * np.sqrt(1 - bar)
                else:
                    row[x] += part / np.sqrt(bar)
                    row[eps] -= part * np.sqrt((1 - bar) / bar)
            if levels.sigma_form:
                before = now[max(i - 1, 0)]
                row[[X, PREVIOUS_X]] *= np.sqrt([now[i], before])
                row /= np.sqrt(then[i])
            gap = np.append(-row[:NEXT], 1.0)
            gram = watched.grams[i]
            left = np.sqrt(max(gap @ gram @ gap, 0) / watched.values)
            size = np.abs(gap) @ np.sqrt(np.diag(gram) / watched.values)
            tables = 8 * ROUNDING * (1 + levels.index[i]) / max(1 - now[i], 1e-12) ** 0.5
            if left <= 16 * ROUNDING * size + tables * np.abs(row[EPS]):
                rows[i], good[i] = row, True
                break
            if order == 1:
                rows[i] = row
    return rows, good
