r"""What a recorded loop is: how it writes its states, what its model answers, and its rule.

A loop is read by trying: each way to take its times, states and answers says what a known rule
would make of every (x_t, m_t), and that is held against the x_s that came. A rule fits where
a·x_t + b·m_t leaves no more than the regression of x_s on (1, x_t, m_t) leaves. Nothing here needs
a and b to be seen one by one, so m_t may well be affine in x_t, as for Gaussian data.

Where no rule fits, the answer of a trained model still shows: x_T is nearly all noise, so ε̂ goes
with it and x̂_0 does not; near t = 0 it is the other way round. If that does not show either,
nothing is guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffviz.diffusion.rules import Rule, ddim, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.rules import MULTISTEP, Levels, in_form, levels_of, solves_multistep
from diffviz.identify.spy import EPS, NEXT, ONE, Time, X, index_of, time_kinds

Array = NDArray[np.float64]
ANSWERS = ("eps", "x0", "v")
CLIP = NEXT - 1
"""Where the products hold clip(x̂_0, −1, 1) − x̂_0, or nothing; x_T is not needed here."""
FITS = 2.5
"""The mean of log(1 + excess) that a rule stays below; three coefficients take up log 4 = 1.4."""
TIE = 0.1


@dataclass(frozen=True, eq=False)
class Reading:
    """A recorded loop, understood.

    Attributes:
        levels: where its steps start and end, and how it is written.
        rule: the known rule it follows, or "unknown".
        noise_scale: λ, the std injected over the rule's own, a median over the steps.
        clipped: x̂_0 is held within [−1, 1].
        misfit: how far the steps are from the rule, the mean of log(1 + excess).
        guidance: w_k of the answer used, m_1 + Σ w_k (m_k − m_1).
    """

    levels: Levels
    rule: str
    noise_scale: float
    clipped: bool = False
    misfit: float = 0.0
    guidance: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Recorded:
    """The products of every step, as in `diffviz.identify.spy`, and what goes with them.

    After the seven columns of there come the differences m_k − m_1 of further answers to the same
    x_t, which guidance asks for. ``left`` (S,) is the std that the regression leaves, 0 where that
    is rounding, and ``left_history`` what is left when the call before may help; ``rounding`` is
    the last place of the states.
    """

    times: Array
    floating: bool
    grams: Array
    left: Array
    left_history: Array
    values: int
    rounding: float

    @property
    def std(self) -> Array:
        """Std of every column, (S, columns)."""
        square = np.einsum("sii->si", self.grams) / self.values
        mean = self.grams[:, ONE] / self.values
        return np.sqrt(np.maximum(square - mean**2, 0))

    @property
    def looks_back(self) -> bool:
        """Whether most steps depend on the call before, by an F test of two more columns.

        Noise that is used again does so as well, but then the first step has it too, and nothing
        is left of the others.
        """
        one, two = self.left[1:] ** 2, self.left_history[1:] ** 2
        if not len(one):
            return False
        free = max(self.values - 5, 1)
        with np.errstate(all="ignore"):
            ratio = (one * (free + 2) - two * free) / 2 / two
        again = self.left[0] > 0 and not np.median(two)
        return bool(np.mean((one > 0) & ~(ratio < 50)) > 0.5) and not again


def readings(
    recorded: Recorded, schedule: NoiseSchedule, time: Time, answers: Sequence[str]
) -> list[Levels]:
    """Every way to read times, states and answers, the likeliest first.

    Raises:
        InputError: the times are on no part of the schedule.
    """
    times, found = recorded.times, []
    if (schedule.alpha_bars <= 0).any():
        # ε has no part in x_T then, but x̂_0 and v have; as good as 0 is enough to say so.
        bars = np.maximum(schedule.alpha_bars, 1e-12)
        alphas = np.concatenate([[1.0], bars[1:] / bars[:-1]])
        schedule = NoiseSchedule(1 - alphas, alphas, bars, schedule.name)
    for kind in time_kinds(times, recorded.floating, time, schedule):
        index = index_of(times, kind, schedule)
        between = kind != "sigma" and not np.array_equal(index, np.rint(index))
        for sigma_form in (True, False) if kind == "sigma" else (False,):
            for answer in answers:
                for log in (False, True) if between else (False,):
                    levels = levels_of(index, schedule, kind, sigma_form, answer, log)
                    if levels is not None and not (answer == "v" and sigma_form):
                        found.append(levels)
    if not found:
        raise InputError(
            f"the loop visited {len(times)} times from {times[0]:g} to {times[-1]:g}; allowed are "
            f"times that fall strictly within 1…T = {schedule.T}; see the argument time"
        )
    return found


def read(recorded: Recorded, ways: Sequence[Levels], clipped: bool = False) -> Reading | None:
    """The likeliest way under which the steps are those of a known rule, else None.

    With ``clipped`` the products hold what clipping does, and as much of that is allowed as helps.
    """
    found: list[tuple[int, float, Reading]] = []
    if recorded.looks_back:
        return None
    for place, levels in enumerate(ways):
        for rule in _rules(recorded, levels):
            misfit, scale, spread, guidance = _compare(recorded, levels, rule)
            if misfit < FITS:
                reading = Reading(levels, rule.name, scale, clipped, misfit, guidance)
                found.append((place, spread, reading))
    if not found:
        return None
    least = min(item[2].misfit for item in found)
    found = [item for item in found if item[2].misfit < least + TIE]
    answers = {item[2].levels.answer for item in found}
    if len(answers) > 1:
        # So few values that the steps do not decide.
        likely = _plausible(recorded, [item[2].levels for item in found])
        if likely is None:
            raise InputError(_AMBIGUOUS)
        found = [item for item in found if item[2].levels.answer == likely.answer]
    return min(found, key=lambda item: item[:2])[2]


def read_multistep(recorded: Recorded, ways: Sequence[Levels]) -> Reading | None:
    """The first way under which the steps are those of DPM-Solver++(2M), else None."""
    for levels in ways:
        # Of what the x-ray watches, it asks for the products and the number of values.
        if solves_multistep(recorded, levels)[1].mean() > 0.7:  # type: ignore[arg-type]
            return Reading(levels, MULTISTEP, 1.0)
    return None


def read_unknown(recorded: Recorded, ways: Sequence[Levels]) -> Reading:
    """The likeliest way to read a loop that follows no known rule.

    Raises:
        InputError: what the model answers cannot be told.
    """
    ways = [way for way in ways if way.kind == ways[0].kind]
    if len({way.sigma_form for way in ways}) > 1:
        # x_T is as wide as σ_T, or it has been brought to 1.
        sigma = float(np.sqrt(1 / ways[0].bars[0] - 1))
        wide = sigma < 3 or recorded.std[0, X] > np.sqrt(sigma)
        ways = [way for way in ways if way.sigma_form == wide]
    one = len({way.answer for way in ways}) == 1
    likely = ways[0] if one else _plausible(recorded, ways)
    if likely is None:
        raise InputError(_AMBIGUOUS)
    return Reading(likely, "unknown", 1.0)


def to_convention(levels: Levels, i: int, x: Array, answer: Array) -> tuple[Array, Array]:
    """(x_t, ε̂) in the variance-preserving form from what step i was given."""
    bar = levels.bars[i]
    if levels.sigma_form:
        x = np.sqrt(bar) * x
    if levels.answer == "x0":
        return x, (x - np.sqrt(bar) * answer) / np.sqrt(1 - bar)
    if levels.answer == "v":
        return x, np.sqrt(1 - bar) * x + np.sqrt(bar) * answer
    return x, answer


def clean(levels: Levels, i: int, x: Array, answer: Array) -> Array:
    """x̂_0 of step i."""
    if levels.answer == "x0":
        return answer
    bar = levels.bars[i]
    x, eps = to_convention(levels, i, x, answer)
    # Of v this is √ᾱ x − √(1−ᾱ) v, also where ᾱ = 0.
    if levels.answer == "v":
        return np.sqrt(bar) * x - np.sqrt(1 - bar) * answer
    return (x - np.sqrt(1 - bar) * eps) / np.sqrt(bar)


_AMBIGUOUS = (
    "whether the model answers ε, x_0 or v does not show in the steps; "
    "say answer='eps', 'x0' or 'v'"
)


def _rules(recorded: Recorded, levels: Levels) -> list[Rule]:
    rules: list[Rule] = [ddpm("beta"), ddpm("posterior"), ddim(0.0)]
    full = _numbers(ddim(1.0), levels)[:, 2]
    noisy = np.isfinite(full) & (full > 0)
    if noisy.any():
        eta = float(np.median(recorded.left[noisy] / full[noisy]))
        rules += [ddim(round(eta, 2))] if 0.02 < eta < 0.98 else []
    return rules


def _numbers(rule: Rule, levels: Levels) -> Array:
    """(a, b, σ) of every step in the form the loop is written in, (S, 3)."""
    steps = len(levels.index)
    with np.errstate(all="ignore"):
        found = [rule.coefficients(levels.visited, i, i - 1) for i in range(steps, 0, -1)]
        return in_form(np.array(found), levels, levels.bars, levels.bars_next)


def _compare(
    recorded: Recorded, levels: Levels, rule: Rule
) -> tuple[float, float, float, tuple[float, ...]]:
    """(misfit, λ, how much λ varies from step to step, the weights of further answers)."""
    numbers, n = _numbers(rule, levels), recorded.values
    known = np.isfinite(numbers).all(axis=1)
    numbers, seen = numbers[known], recorded.left[known]
    left = np.where(numbers[:, 2] > 0, seen, 0)  # a step without noise leaves nothing
    grams = _without(recorded.grams[known], CLIP)
    gap = np.zeros(grams.shape[:2])
    gap[:, [X, EPS]], gap[:, NEXT] = -numbers[:, :2], 1.0
    further = slice(NEXT + 1, None)
    rms = np.sqrt(np.maximum(np.einsum("sii->si", grams), 0) / n)
    unit = left**2 + (16 * recorded.rounding * (np.abs(gap) * rms).sum(axis=1)) ** 2
    # x_s − a·x_t − b·m_1 = Σ b w_k (m_k − m_1) + σ·z, least squares over all steps together.
    b = numbers[:, 1]
    normal = np.einsum("s,sjk->jk", b**2 / unit, grams[:, further, further])
    right = np.einsum("s,sij,si->j", b / unit, grams[:, :, further], gap)
    weights = np.linalg.lstsq(normal, right, rcond=1e-12)[0]
    gap[:, further] = -b[:, None] * weights
    square = np.einsum("si,sij,sj->s", gap, grams, gap)
    excess = np.maximum(square - max(n - 3 - len(weights), 1) * left**2, 0) / unit
    misfit, guidance = float(np.log1p(excess).mean()), tuple(weights.tolist())
    noisy = numbers[:, 2] > 0
    if not noisy.any():
        return misfit, 1.0, 0.0, guidance
    ratio = seen[noisy] / numbers[noisy, 2]
    scale = float(np.median(ratio))
    scale = 1.0 if abs(scale - 1) < 0.01 else round(scale, 3)
    return misfit, scale, float(np.abs(ratio - scale).mean()), guidance


def _without(grams: Array, column: int) -> Array:
    """The products of what is left of every column after its regression on one of them."""
    size = grams[:, column, column]
    weight = grams[:, column] / np.where(size > 0, size, 1)[:, None]
    return grams - weight[:, :, None] * grams[:, column][:, None, :]


def _plausible(recorded: Recorded, ways: Sequence[Levels]) -> Levels | None:
    """The way whose answer goes with x_t as that of a trained model does; None if none does.

    The slope of ε on x_t is √(1−ᾱ)/(ᾱs² + 1−ᾱ) for data of variance s², near 1 at ᾱ = 0; that of
    x̂_0 is √ᾱs²/(ᾱs² + 1−ᾱ), near 0 there and near 1 at ᾱ = 1. v is not told from noise.
    """
    grams, n = recorded.grams, recorded.values
    for way in ways:
        ends = [0, -1]
        mean = grams[ends][:, ONE] / n
        covariance = grams[ends][:, X, EPS] / n - mean[:, X] * mean[:, EPS]
        with np.errstate(all="ignore"):
            slope = covariance / recorded.std[ends, X] ** 2
        if way.sigma_form:
            slope = slope / np.sqrt(way.bars[ends])
        if way.answer == "eps" and 0.7 < slope[0] < 1.4 and slope[1] > -0.3:
            return way
        if way.answer == "x0" and abs(slope[0]) < 0.5 and 0.6 < slope[1] < 1.4:
            return way
    return None
