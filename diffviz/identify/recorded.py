r"""What a recorded loop is: how it passes t, what its model answers, and its rule.

The loop has run once, with a real model, so that the answer m_t may well be affine in x_t and the
coefficients cannot be seen one by one. Every reading of its times and answers turns (x_t, m_t)
into the variance-preserving x_t and ε̂. A rule fits under a reading where A·x_t + B·ε̂ leaves no
more of x_s than the regression of x_s on (1, x_t, ε̂) leaves.

Where no rule fits, the answer of a trained model still shows: x_T is nearly all noise, so ε̂ goes
with it and x̂_0 does not; near t = 0 it is the other way round. If that does not show either,
nothing is guessed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.paths import Time, readings_for
from diffviz.identify.rules import MULTISTEP, Levels, Rule, levels_along, second_order
from diffviz.identify.steps import least_squares

Array = NDArray[np.float64]
PLACES = 1024
"""Values of every state by which a loop is identified."""
FITS = 2.5
"""The mean of log(1 + excess) that a rule stays below; three coefficients take up log 4 = 1.4."""
TIE = 0.1
_AMBIGUOUS = (
    "whether the model answers ε, x_0 or v does not show in the steps; "
    "say answer='eps', 'x0' or 'v'"
)


@dataclass(frozen=True, eq=False)
class Recorded:
    """A loop of S steps at K places: ``x`` (S+1, K), its end the last, ``answers`` (S, A, K).

    Of A answers to one state the second and further are differences from the first. ``rounding``
    is the last place of the states.
    """

    times: Array
    floating: bool
    x: Array
    answers: Array
    rounding: float

    def used(self, weights: Sequence[float]) -> Array:
        """The answers with guidance, m_1 + Σ w_k·(m_k − m_1), (S, K)."""
        return self.answers[:, 0] + np.einsum("k,ski->si", np.array(weights), self.answers[:, 1:])


@dataclass(frozen=True, eq=False)
class Understood:
    """A recorded loop, understood.

    Attributes:
        levels: the path points, and how the loop is written.
        rule: the known rule that it follows, or "unknown".
        noise_scale: λ, the std injected over the rule's own, a median over the steps.
        clipped: x̂_0 is held within [−1, 1].
        misfit: how far the steps are from the rule, the mean of log(1 + excess).
        guidance: w_k of the answer used, m_1 + Σ w_k·(m_k − m_1).
        noise_in: what injected noise is sought in: what the regression on this call ("step") or on
            the calls before too ("history") leaves; "none" where the rule has none.
    """

    levels: Levels
    rule: str
    noise_scale: float = 1.0
    clipped: bool = False
    misfit: float = 0.0
    guidance: tuple[float, ...] = ()
    noise_in: str = "step"


def left_over(columns: Array, target: Array, rounding: float) -> tuple[Array, Array]:
    """(what ``columns`` (…, C, K) leave of ``target`` (…, K), its std; 0 where it is rounding)."""
    left = target - np.einsum("...c,...ck->...k", least_squares(columns, target), columns)
    count, values = columns.shape[-2:]
    std = np.sqrt((left**2).sum(-1) / max(values - count, 1))
    size = np.sqrt((target**2).mean(-1) + (columns[..., 1:, :] ** 2).mean(-1).sum(-1))
    return left, np.where(std > 4 * rounding * size, std, 0.0)


def understand(
    seen: Recorded, schedule: NoiseSchedule, time: Time, answers: Sequence[str]
) -> Understood:
    """How the loop is written and which rule it follows.

    Raises:
        InputError: the times are on no path, or what the model answers cannot be told.
    """
    wide = float(seen.x[0].std()) > 3
    ways = [
        levels
        for reading in readings_for(seen.times, seen.floating, time, schedule, wide)
        if reading.answer in answers
        for levels in levels_along(reading, seen.times, schedule)
        if (np.diff(levels.now) > 0).all()
    ]
    if not ways:
        raise InputError(
            f"the loop visited {len(seen.times)} times from {seen.times[0]:g} to "
            f"{seen.times[-1]:g}; allowed are times that fall strictly within 1…T = "
            f"{schedule.T}; see the argument time"
        )
    for clipped in (False, True):
        tried = [
            (place, spread, found)
            for place, levels in enumerate(ways)
            for spread, found in _fitting(seen, levels, clipped)
        ]
        if tried:
            return _likeliest(seen, tried)
    weights = _weights(seen)
    used = seen.used(weights)
    for levels in ways:
        if _multistep(seen, levels, used) > 0.7:
            return Understood(levels, MULTISTEP, guidance=weights, noise_in="none")
    one = len({w.reading.answer for w in ways}) == 1
    levels = ways[0] if one else _plausible(seen, ways, used)
    noise_in = "history" if _columns(seen)[2] else "step"
    return Understood(levels, "unknown", guidance=weights, noise_in=noise_in)


@np.errstate(all="ignore")
def _fitting(seen: Recorded, levels: Levels, clipped: bool) -> Iterator[tuple[float, Understood]]:
    """(how much λ varies, the loop understood so) of the rules that fit under one reading."""
    weights = _weights(seen) if clipped else ()
    x = seen.x[:-1] / levels.size[:, None]
    following = seen.x[1:] / levels.size_then[:, None]
    steps = slice(None)
    # With guidance the answer that is clipped is not known before the weights are.
    eps = levels.noise(steps, seen.x[:-1], seen.used(weights) if clipped else seen.answers[:, 0])
    more = np.zeros((len(x), 0, x.shape[1]))
    if clipped:
        clean = levels.clean(steps, x, eps)
        if not (np.abs(clean) > 1).any():
            return
        eps = levels.noise_of(steps, x, clean.clip(-1, 1))
    elif seen.answers.shape[1] > 1:
        zero = np.zeros_like(x)
        parts = [levels.noise(steps, zero, part) for part in seen.answers[:, 1:].swapaxes(0, 1)]
        more = np.stack(parts, axis=1)
    columns = np.concatenate([np.stack([np.ones_like(x), x, eps], 1), more], 1)
    left = left_over(columns, following, seen.rounding)[1]
    tables = levels.now, levels.then, levels.alpha
    rules = [Rule("ddpm/beta"), Rule("ddpm/posterior"), Rule("ddim")]
    full = Rule("ddim", 1.0).numbers(*tables)[:, 2]
    if (noisy := full > 0).any():
        eta = float(np.median(left[noisy] / full[noisy]))
        rules += [Rule("ddim", round(eta, 2))] if 0.02 < eta < 0.98 else []
    for rule in rules:
        numbers = rule.numbers(*tables)
        known = np.isfinite(numbers).all(1)
        a, b, std = numbers[known].T
        kept = np.where(std > 0, left[known], 0)  # a step without noise leaves nothing
        rms = np.sqrt([(v[known] ** 2).mean(-1) for v in (x, eps, following)])
        unit = kept**2 + (16 * seen.rounding * (np.abs([a, b, np.ones_like(a)]) * rms).sum(0)) ** 2
        gap = following[known] - a[:, None] * x[known] - b[:, None] * eps[known]
        guidance = weights
        if more.shape[1]:
            # x_s − a·x_t − b·ε̂ = Σ b·w_k·(ε̂_k − ε̂) + σ·z, least squares over all steps together.
            further = b[:, None, None] * more[known] / np.sqrt(unit)[:, None, None]
            rows = further.swapaxes(0, 1).reshape(more.shape[1], -1)
            found = least_squares(rows, (gap / np.sqrt(unit)[:, None]).reshape(-1))
            gap = gap - b[:, None] * np.einsum("k,ski->si", found, more[known])
            guidance = tuple(found.tolist())
        values = x.shape[1]
        free = max(values - 3 - more.shape[1], 1)
        excess = np.maximum((gap**2).sum(-1) - free * kept**2, 0) / unit
        misfit = float(np.log1p(excess).mean()) if len(excess) else np.inf
        if misfit < FITS:
            ratio = left[known][std > 0] / std[std > 0]
            scale = float(np.median(ratio)) if ratio.size else 1.0
            chance = 5 / np.sqrt(2 * values * max(ratio.size, 1))  # of a median, four times
            scale = 1.0 if abs(scale - 1) < max(0.01, chance) else round(scale, 3)
            spread = float(np.abs(ratio - scale).mean()) if ratio.size else 0.0
            yield spread, Understood(levels, str(rule), scale, clipped, misfit, guidance)


def _likeliest(seen: Recorded, tried: list[tuple[int, float, Understood]]) -> Understood:
    least = min(found.misfit for _, _, found in tried)
    best = [item for item in tried if item[2].misfit < least + TIE]
    if len({found.levels.reading.answer for _, _, found in best}) > 1:
        # So few values that the steps do not decide.
        likely = _plausible(seen, [found.levels for _, _, found in best], seen.answers[:, 0])
        best = [item for item in best if item[2].levels.reading.answer == likely.reading.answer]
    return min(best, key=lambda item: item[:2])[2]


def _columns(seen: Recorded) -> tuple[Array, Array, bool]:
    """What x_s is made of, (S, C, K), x_s, and whether the calls before are among it.

    A rule whose first step, which has no call before it, adds no noise adds none at all.
    """
    now = np.concatenate([seen.x[:-1, None], seen.answers], 1)
    one = np.concatenate([np.ones_like(now[:, :1]), now], 1)
    if left_over(one[:1], seen.x[1:2], seen.rounding)[1][0]:
        return one, seen.x[1:], False
    return np.concatenate([one[1:], now[:-1]], 1), seen.x[2:], True


def _weights(seen: Recorded) -> tuple[float, ...]:
    """Of the further answers to one state, where no rule says them: b·w_k over b, a median."""
    count = seen.answers.shape[1]
    if count < 2:
        return ()
    columns, target, _ = _columns(seen)
    found = least_squares(columns, target)
    with np.errstate(all="ignore"):
        return tuple(np.nanmedian(found[:, 3 : 2 + count] / found[:, 2:3], axis=0).tolist())


def _multistep(seen: Recorded, levels: Levels, used: Array) -> float:
    """The share of steps of DPM-Solver++(2M), of either order."""
    now = np.stack([seen.x[:-1], used], 1)
    columns = np.concatenate([now, np.roll(now, 1, axis=0)], 1)
    least = np.inf
    for rows in second_order(levels):
        left = seen.x[1:] - np.einsum("sc,sck->sk", rows, columns)
        size = np.sqrt((np.square(rows)[..., None] * columns**2).sum(1).mean(-1))
        least = np.minimum(least, np.sqrt((left**2).mean(-1)) / size)
    return float((np.nan_to_num(least, nan=np.inf) < 64 * seen.rounding).mean())


def _plausible(seen: Recorded, ways: Sequence[Levels], used: Array) -> Levels:
    """The way whose answer goes with x_t as that of a trained model does.

    The slope of ε on x_t is √(1−ᾱ)/(ᾱs² + 1−ᾱ) for data of variance s², near 1 at ᾱ = 0; that of
    x̂_0 is √ᾱs²/(ᾱs² + 1−ᾱ), near 0 there and near 1 at ᾱ = 1. v is not told from noise.

    Raises:
        InputError: there is none.
    """
    for way, answer in product(ways, ("eps", "x0", "flow")):
        if way.reading.answer != answer:
            continue
        x, m = seen.x[[0, -2]] / way.size[[0, -1], None], used[[0, -1]]
        slope = [np.cov(p, q)[0, 1] / max(p.var(), 1e-300) for p, q in zip(x, m, strict=True)]
        if answer == "eps" and 0.7 < slope[0] < 1.4 and slope[1] > -0.3:
            return way
        if answer == "x0" and abs(slope[0]) < 0.5 and 0.6 < slope[1] < 1.4:
            return way
        turned = -1 if way.reading.rising else 1
        if answer == "flow" and 0.5 < turned * slope[0] < 1.4 and turned * slope[1] < -0.4:
            return way
    raise InputError(_AMBIGUOUS)
