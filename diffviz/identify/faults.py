r"""Steps that follow no known rule as it is: which single change of a rule would make them?

A hypothesis says what a, b and σ of every step would be. Its cost is what it leaves unexplained,
Σ z²/2 over the scores of all steps, and a price for what it was free to choose. The cheapest
wins, as in model selection by a description length; a mistake that is constant or sits in an
index therefore wins over one that is a number of its own at every step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.paths import bars_at
from diffviz.identify.rules import (
    Expected,
    Levels,
    Rule,
    closest,
    expect,
    levels_along,
    rules_for,
)
from diffviz.identify.steps import Steps

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
PRICE = 3.0
"""Of one free number. A whole column of them costs 2 a step."""
NULL = 0.5
"""E z²/2 of a score that is right."""
ANYTHING = 10.0
"""Of a step that a hypothesis leaves out."""
FEW = 0.2
"""The share of steps that may each end somewhere of its own."""
START = 10.0
"""The price of a reading that tells another level than x_T has."""
BESIDE = 0.1
"""|log| of two stds that are not the same."""
TABLE_SHIFTS = (-1, 1, -2, 2, -3, 3, -4, 4, -5, 5, -10, 10)


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One way to explain the steps.

    Attributes:
        base: the rule that they are compared with in words.
        expected: a, b and σ of every step under this hypothesis.
        cause: the finding that it amounts to; "" if the coefficients are just off.
        evidence: of that finding.
        price: for what was chosen freely.
        free: which of a and b are numbers of their own at every step.
        valid: steps that it speaks about.
        clean: it changes the rule by one number.
    """

    base: Expected
    expected: Expected
    cause: str = ""
    evidence: Mapping[str, float | str] = field(default_factory=dict)
    price: float = 0.0
    free: tuple[int, ...] = ()
    valid: Mask | None = None
    clean: bool = False


Maker = Callable[[Steps, Expected, NoiseSchedule], Iterator[Hypothesis]]


@np.errstate(all="ignore")
def cheapest(steps: Steps, ways: Sequence[Levels], schedule: NoiseSchedule) -> Expected | None:
    """The rule, of those at all these levels, that a single change makes the steps of.

    A reading whose first level is not that of x_T has a price, and every less likely path.
    """
    found: list[tuple[float, Expected, float]] = []
    names: list[str] = []
    for levels in ways:
        near = closest(steps, [levels])
        if near is None:
            continue
        path = levels.reading.path.name
        names += [path] * (path not in names)
        width = levels.size[0], levels.size[0] * np.sqrt(1 - levels.now[0])
        apart = min(abs(np.log(max(steps.start.std, 1e-9) / max(w, 1e-9))) for w in width)
        likely = names.index(path) * PRICE + START * (levels.reading.answer == "score")
        tried = [near] if near.rule == Rule("ddim") else [near, expect(Rule("ddim"), levels)]
        for base in tried:
            best = explain(steps, base, schedule, (_factors, _one_term, _indices))
            cost, price = _cost(steps, best), likely
            if apart > BESIDE:  # only steps that fit well excuse a start that does not
                price += START if cost < 1.5 * len(steps) else START + ANYTHING * len(steps)
            found.append((cost + price, best.base, price))
    found.sort(key=lambda item: item[0])
    if found and found[0][0] > 1.5 * len(steps):
        for cost, base, price in [one for one in found if one[1].rule == Rule("ddim")][:4]:
            others = [_cost(steps, one) + price for one in _own(steps, base, schedule)]
            found += [(min(one, cost), base, price) for one in others]
        found.sort(key=lambda item: item[0])
    return found[0][1] if found else None


@np.errstate(all="ignore")
def explain(
    steps: Steps, base: Expected, schedule: NoiseSchedule, makers: Sequence[Maker] = ()
) -> Hypothesis:
    """The hypothesis with the least cost."""
    bases, along = [base], levels_along(base.levels.reading, steps.told, schedule, len(steps))
    for levels in () if makers else along:
        for rule in rules_for(steps, levels):
            if rule not in (base.rule, Rule("ddim", 1.0)):
                bases.append(expect(rule, levels))
    tried = [
        found
        for one in bases
        for make in makers or (_factors, _one_term, _indices, _elsewhere, _own, _tables)
        for found in make(steps, one, schedule)
    ]
    return min(tried, key=lambda found: _cost(steps, found))


def _cost(steps: Steps, found: Hypothesis) -> float:
    valid = np.ones(len(steps), dtype=bool) if found.valid is None else found.valid
    table = found.expected.scores(steps)
    mean = _loss(table[:, :2])
    mean[:, list(found.free)] = NULL
    if found.cause:
        # What is wrong with the tables must show in a and b; a wrong noise is a wrong noise.
        plain = _loss(found.base.scores(steps)[:, :2])
        wrong = (np.abs(table[:, :2]) > steps.threshold).any(axis=1)
        if (plain - mean)[valid].sum() < 2 * PRICE or (wrong & valid).sum() > 0.1 * valid.sum():
            return float("inf")
        mean = np.minimum(mean, ANYTHING)
    # The noise is as the rule has it, or off by a factor, or anything.
    factor = _factor(steps.std, found.expected.numbers[:, 2])
    scaled = _times(found.expected, 1, 1, factor).scores(steps)
    noise = min(
        float(_loss(table[valid, 3]).sum()),
        float(_loss(scaled[valid, 3]).sum()) + PRICE,
        (NULL + 1.9) * float(valid.sum()) if not found.cause else np.inf,
    )
    left_out = ANYTHING * float((~valid).sum())
    return float(mean[valid].sum()) + noise + found.price + left_out


def _loss(score: Array) -> Array:
    """Half the square z²/2 up to |z| = 4, from there on only logarithmic."""
    size = np.maximum(np.abs(score), 4)
    return np.minimum(score**2, 16) / 2 + 8 * np.log(size / 4)


def _factor(found: Array, target: Array) -> float:
    """The k in found ≈ k·target, by the median over the steps where there is a target."""
    there = target != 0
    return float(np.median(found[there] / target[there])) if there.any() else 1.0


def _times(expected: Expected, *factors: float) -> Expected:
    return replace(expected, numbers=expected.numbers * np.array(factors))


def _factors(steps: Steps, base: Expected, schedule: NoiseSchedule) -> Iterator[Hypothesis]:
    """As the rule says; off by a factor; or a and b each anything at all."""
    yield Hypothesis(base, base)
    over_x = _factor(steps.coefficients[:, 1], base.numbers[:, 0])
    over_m = _factor(steps.coefficients[:, 2], base.numbers[:, 1])
    if base.rule == Rule("ddim"):
        # Noise of the size of DDIM's on top of the whole direction, which leaves no room for it.
        full = expect(Rule("ddim", 1.0), base.levels).numbers[:, 2]
        numbers = np.column_stack([base.numbers[:, :2], full * _factor(steps.std, full)])
        yield Hypothesis(base, replace(base, numbers=numbers), price=PRICE)
    for factors in ((1, over_m, 1), (over_x, 1, 1), (over_x,) * 3):
        yield Hypothesis(base, _times(base, *factors), price=PRICE, clean=True)
    wrong = np.abs(base.scores(steps)) > steps.threshold
    off = wrong[:, [0, 1, 3]].any(axis=1)
    if 0 < off.mean() <= FEW:
        # A rule whose noise alone is off there says more than one with other coefficients too.
        price = PRICE * int(wrong[:, :2].any(axis=1).sum())
        yield Hypothesis(base, base, price=price, valid=np.asarray(~off))
    for free in ((1,), (0,), (0, 1)):
        yield Hypothesis(base, base, price=2.0 * len(free) * len(steps), free=free)


def _one_term(steps: Steps, base: Expected, schedule: NoiseSchedule) -> Iterator[Hypothesis]:
    """One of x̂_0, x_t and ε̂ has a factor of its own in every step; the other term is right."""
    levels, none = base.levels, np.zeros(len(steps))
    a, b = np.sqrt(levels.now), np.sqrt(1 - levels.now)
    error = steps.errors[:, 1:3] * steps.together + base.floor[:, :2] + 1e-12
    away = steps.coefficients[:, 1:3] - base.numbers[:, :2]
    for of_x, of_eps in ((none + 1, -b), (none + a, none), (none, none + 1)):
        along = levels.form(np.column_stack([of_x / a, of_eps / a, none]))[:, :2]
        size = (away * along / error**2).sum(1) / (along**2 / error**2).sum(1)
        numbers = base.numbers.copy()
        numbers[:, :2] += np.nan_to_num(size)[:, None] * along
        yield Hypothesis(base, replace(base, numbers=numbers), price=2.0 * len(steps))


def _own(steps: Steps, base: Expected, schedule: NoiseSchedule) -> Iterator[Hypothesis]:
    """The rule on levels of its own, which lead from x_T to the data, and are not those told.

    The last step ends at the data; the level at which a step starts is the one that gives its a
    and b, and the step before ends there.
    """
    levels, count = base.levels, len(steps)
    signal = levels.reading.path.signal
    if (levels.vp and levels.reading.answer == "eps") or base.rule != Rule("ddim"):
        return
    if steps.exact.mean() < 0.9 or count > 500:
        return
    error = steps.errors[:, 1:3] * steps.together + 1e-6
    ratio, numbers = np.zeros(count + 1), base.numbers.copy()

    def at(i: int, tried: Array) -> tuple[Array, Array]:
        """(how far off, the numbers) of step i from these levels b/a."""
        now, then = 1 / (1 + tried**2), np.full(len(tried), 1 / (1 + ratio[i + 1] ** 2))
        size = signal(tried) * np.sqrt(1 + tried**2)
        size_then = signal(ratio[i + 1 : i + 2]) * np.sqrt(1 + ratio[i + 1] ** 2)
        there = replace(
            levels, now=now, then=then, alpha=now / then, size=size,
            size_then=np.full(len(tried), size_then[0]),
        )  # fmt: skip
        row = there.form(base.rule.numbers(now, then, now / then))
        off = (((row[:, :2] - steps.coefficients[i, 1:3]) / error[i]) ** 2).sum(1)
        return np.nan_to_num(off, nan=np.inf), row

    for i in reversed(range(count)):
        low, high = max(np.log(max(ratio[i + 1], 1e-9)), -9.0), 14.0
        for size in (200, 40, 40, 40, 40):
            grid = np.linspace(low, high, size)
            off, rows = at(i, np.exp(grid))
            best = int(np.argmin(off))
            low, high = grid[max(best - 1, 0)], grid[min(best + 1, size - 1)]
        ratio[i], numbers[i] = np.exp(grid[best]), rows[best]
    told = np.sqrt((1 - levels.now) / levels.now)
    first = ratio[0] * float(signal(ratio[:1])[0])
    apart = np.abs(first - min(levels.size[0], 1e6)) / first
    if apart > 0.02 and abs(np.log(steps.start.std / first)) > 0.02:
        return
    places = np.arange(schedule.T + 1)
    found, there = (np.interp(v, schedule.sigma, places) for v in (ratio[:-1], told))
    i = int(np.argmax(np.abs(found - there)))
    if abs(found[i] - there[i]) < 1:
        return
    evidence = {"found": float(found[i]), "t": float(there[i])}
    price = 1.9 * count
    yield Hypothesis(
        base, replace(base, numbers=numbers), "time-of-another-state", evidence, price
    )


def _moved(base: Expected, now: Array, then: Array, alpha: Array | None = None) -> Expected:
    """The rule with other tables, in the form that the told levels give the state."""
    alpha = now / then if alpha is None else alpha
    levels = replace(base.levels, now=now, then=then)
    return replace(base, numbers=levels.form(base.rule.numbers(now, then, alpha)))


def _indices(steps: Steps, base: Expected, schedule: NoiseSchedule) -> Iterator[Hypothesis]:
    """Coefficients of other times than those that the model is told."""
    levels, S = base.levels, len(steps)
    last = np.arange(S) == S - 1
    for k in (1, -1):  # the time of the step before or after in the loop's own list
        if S < 4:
            break
        now, then = np.roll(levels.now, k), np.roll(levels.then, k)
        size, size_then = np.roll(levels.size, k), np.roll(levels.size_then, k)
        known = np.arange(S) >= 1 if k == 1 else np.arange(S) < S - 1
        other = replace(levels, now=now, then=then, size=size, size_then=size_then)
        moved = replace(base, numbers=other.form(base.rule.numbers(now, then, now / then)))
        shift = -k * max(1.0, float(np.median(np.abs(np.diff(levels.index)))))
        yield Hypothesis(
            base, moved, "time-off-by-one", {"shift": shift}, 2 * PRICE - ANYTHING, valid=known
        )
    if not (levels.vp and levels.whole):
        return
    T, bars = schedule.T, schedule.alpha_bars
    places = levels.index.astype(int)
    ends = np.array([np.argmin(np.abs(bars - then)) for then in levels.then])

    def at(start: Array, end: Array) -> Expected:
        start, end = np.clip(start, 0, T).astype(int), np.clip(end, 0, T).astype(int)
        logs = np.cumsum(np.log(schedule.alphas))
        course = not np.array_equal(levels.alpha, levels.now / levels.then)
        alpha = np.exp(logs[start] - logs[end]) if course else None
        return _moved(base, bars[start], bars[end], alpha)

    for k in TABLE_SHIFTS:
        # Whether the step that ends at 0 has noise is decided by the loop, not by the tables.
        good = ~last & (places + k >= 1) & (places + k <= T) & (ends + k > 0)
        if good.any():
            told, price = {"shift": float(-k)}, PRICE * abs(k) ** 0.5
            moved = at(places + k, ends + k)
            yield Hypothesis(base, moved, "time-off-by-one", told, price, valid=good)
        good = ~last & (ends + k > 0) & (ends + k < places)
        if good.any() and abs(k) == 1:
            moved = at(places, ends + k)
            yield Hypothesis(
                base, moved, "time-off-by-one", {"shift": float(-k)}, 2 * PRICE, valid=good
            )
    if S < 2:
        return
    stride = int(places[0] - ends[0])
    # Where a deterministic step ends, by √(ᾱ_s/ᾱ_t).
    reached = bars[places] * steps.coefficients[:, 1] ** 2
    seen = int(np.median(places - np.argmin(np.abs(bars - reached[:, None]), axis=1)))
    for width in {0, 1, stride // 2, 2 * stride, max(seen, 0)} - {stride}:
        to = np.maximum(places - width, 0)
        if (to != ends)[~last].any() and (width or base.rule == Rule("ddim")):
            i = int(np.argmax(to != ends))
            told = {"t": float(places[i]), "found": float(to[i]), "expected": float(ends[i])}
            yield Hypothesis(base, at(places, to), "step-skipped", told, PRICE)


def _elsewhere(steps: Steps, base: Expected, schedule: NoiseSchedule) -> Iterator[Hypothesis]:
    """A few steps that do not end where the next begins, each with an end of its own."""
    levels, last = base.levels, len(steps) - 1
    off = np.flatnonzero((np.abs(base.scores(steps)[:, :2]) > steps.threshold).any(axis=1))
    if not 0 < len(off) <= max(1, FEW * len(steps)):
        return
    if not (levels.vp and levels.whole):
        return
    bars, every = schedule.alpha_bars, np.arange(schedule.T + 1)
    now, ends = levels.index.astype(int), np.zeros(len(steps), dtype=int)
    numbers = base.numbers.copy()
    for i in off.tolist():
        start = np.full(len(every), bars[now[i]])
        size = np.ones(len(every))
        there = replace(levels, now=start, then=bars, size=size, size_then=size)
        found = there.form(base.rule.numbers(start, bars, start / bars))
        back = there.form(Rule("ddim").numbers(start, bars, start / bars))
        found = np.where((every < now[i])[:, None], found, back)
        error = steps.errors[i, 1:3] * steps.together + base.floor[i, :2] + 2e-6
        away = (np.abs(found[:, :2] - steps.coefficients[i, 1:3]) / error).max(axis=1)
        away[np.argmin(np.abs(bars - levels.then[i]))] = np.inf
        if i < last:
            away[now[i]] = np.inf  # a last step that ends where it starts leaves x as it is
        ends[i] = int(np.nanargmin(away))
        if not away[ends[i]] < steps.threshold:
            return
        numbers[i] = found[ends[i]]
    moved, price = replace(base, numbers=numbers), PRICE * (1 + len(off))
    i = int(off[0])
    if ends[i] > now[i]:
        told = {"found": float(ends[i] - schedule.T - 1), "read": float(ends[i])}
        yield Hypothesis(base, moved, "time-index-wraps", told, price)
    elif i == last:
        yield Hypothesis(base, moved, "time-ends-early", {"found": float(ends[i])}, price)
    elif (bars[ends[off]] < levels.then[off]).all() or (bars[ends[off]] > levels.then[off]).all():
        wanted = float(np.argmin(np.abs(bars - levels.then[i])))
        told = {"t": float(now[i]), "found": float(ends[i]), "expected": wanted}
        yield Hypothesis(base, moved, "step-skipped", told, price)


def _tables(steps: Steps, base: Expected, schedule: NoiseSchedule) -> Iterator[Hypothesis]:
    """Another schedule: in half precision, at other times of this one, a usual one, or its own."""
    levels = base.levels
    if not levels.vp or levels.reading.answer != "eps":
        return
    if levels.whole:
        yield from _half(base, schedule)
    alphas, errors = _implied(steps, base)
    others = int((alphas != levels.now / levels.then).sum())
    if others < 3 or alphas.min() > 1 - 1e-6 or len(set(levels.now.tolist())) < len(alphas):
        return
    bars: Array = np.asarray(np.cumprod(alphas[::-1])[::-1] * _share(steps, base, alphas), float)
    own = _moved(base, bars, np.append(bars[1:], 1.0), alphas)
    # Times of this schedule, but not those told.
    with np.errstate(all="ignore"):
        logs = 0.5 * np.log((1 - bars) / bars)
        place = 1 + np.interp(logs, np.log(schedule.sigma[1:]), np.arange(schedule.T))
    near = np.rint(place)
    if (np.abs(place - near) < 0.2).mean() > 0.9 and np.ptp(near - levels.index) > 1:
        there = schedule.alpha_bars[near.astype(int)]
        if (np.diff(there) > 0).all():
            where: dict[str, float | str] = {"found": float(near[0]), "t": float(levels.index[0])}
            moved = _moved(base, np.asarray(there, float), np.append(there[1:], 1.0))
            yield Hypothesis(base, moved, "time-of-another-state", where, 2 * PRICE)
    told: dict[str, float | str] = {"expected": float(schedule.alpha_bars[-1])}
    name = f"β = {1 - alphas[-1]:.3g}…{1 - alphas[0]:.3g}"
    found = {**told, "name": name, "found": float(bars[0])}
    yield Hypothesis(base, own, "schedule-mismatch", found, 2.5 * others)
    # Usual ones of as many steps as this one, or as the loop takes.
    places = [(schedule.T, levels.index)]
    if len(alphas) != schedule.T:
        places.append((len(alphas), np.arange(float(len(alphas)), 0.0, -1.0)))
    for T, index in places:
        for other, count in _families(schedule, T, index, alphas, errors):
            if other == schedule:
                continue
            there = bars_at(index, other)
            alpha = there / np.append(there[1:], 1.0)
            if index[-1] == 1 and abs(other.alpha_bars[1] / other.alphas[1] - 1) > 1e-9:
                alpha[-1] = other.alphas[1]
            moved = _moved(base, there, np.append(there[1:], 1.0), alpha)
            price = count * PRICE + 2 * ANYTHING * (T != schedule.T)
            # Two families may have the same β; then the one nearer to the schedule given.
            price += 0.1 * abs(np.log(other.betas[-1] / schedule.betas[-1]))
            price += 0.3 * (other.name.split("(")[0] != schedule.name.split("(")[0])
            found = {**told, "name": other.name, "found": float(other.alpha_bars[-1])}
            yield Hypothesis(base, moved, "schedule-mismatch", found, price)


def _half(base: Expected, schedule: NoiseSchedule) -> Iterator[Hypothesis]:
    """ᾱ rounded, multiplied up from α rounded, or its roots rounded."""
    places = base.levels.index.astype(int)
    end = np.append(places[1:], 0)
    for name in ("float16", "bfloat16"):
        kind = getattr(torch, name)

        def narrow(table: Array, kind: torch.dtype = kind) -> Array:
            return torch.tensor(table).to(kind).double().numpy()

        alphas = (1 - torch.tensor(schedule.betas).to(kind)).to(kind)
        tables = [narrow(schedule.alpha_bars), torch.cumprod(alphas, 0).double().numpy()]
        for table in tables:
            bars = np.append(1.0, table[1:])
            if (bars[places] > 0).all():
                moved = _moved(base, bars[places], bars[end])
                yield Hypothesis(base, moved, "half-tables", {"name": name}, 2 * PRICE)
                moved = _moved(base, bars[places], bars[end], base.levels.alpha)
                yield Hypothesis(base, moved, "half-tables", {"name": name}, 2 * PRICE)


def _implied(steps: Steps, base: Expected) -> tuple[Array, Array]:
    """(α of every step, its error) by a = 1/√α, the rule's own wherever that may be it.

    Where a is not known well, as of the first step, σ and b of DDPM say more.
    """
    a, wider = steps.coefficients[:, 1], steps.together
    found, error = a**-2, 2 * steps.errors[:, 1] * np.abs(a) ** -3 * wider
    known = base.levels.alpha
    if base.rule.name == "ddpm/beta":
        by_noise = 1 - steps.std**2
        unsure = steps.std**2 * np.sqrt(2 / steps.values) * wider
        better = (unsure < error) & (base.numbers[:, 2] > 0)
        found, error = np.where(better, by_noise, found), np.where(better, unsure, error)
    near = np.abs(found - known) < steps.threshold * error + 1e-4 * (1 - known) + 2e-7
    near |= ~np.isfinite(found + error) | (a <= 0)
    error = np.where(np.isfinite(error), error, 1.0)
    return np.where(near, known, np.clip(found, 1e-6, 1 - 1e-9)), error


def _share(steps: Steps, base: Expected, alphas: Array) -> float:
    """What ᾱ holds beside the product of the ``alphas``: in the course's schedule an α_0.

    By b = −(1 − α)/√(α(1 − ᾱ)) of DDPM; 1 where it does not tell.
    """
    if not base.rule.name.startswith("ddpm"):
        return 1.0
    b, error = steps.coefficients[:, 2], steps.errors[:, 2]
    bars = 1 - (1 - alphas) ** 2 / (alphas * b**2)
    known = 2 * (1 - bars) * error / np.abs(b) / bars < 1e-3
    share = bars / np.cumprod(alphas[::-1])[::-1]
    return float(np.median(share[known])) if known.sum() >= 3 else 1.0


def _families(
    schedule: NoiseSchedule, T: int, index: Array, alphas: Array, errors: Array
) -> Iterator[tuple[NoiseSchedule, int]]:
    """Usual schedules of T steps with these α at ``index``, and how many numbers were fitted."""
    makers = (NoiseSchedule.linear, NoiseSchedule.scaled_linear, NoiseSchedule.course)
    for make in (*makers, NoiseSchedule.cosine):
        yield make(T), 1
    target = np.log(alphas)
    scale = errors / alphas + 1e-6 * np.abs(target) + 1e-9
    start = np.log(np.clip(schedule.betas[[1, -1]], 1e-6, 0.9))
    grid = np.arange(T + 1)
    for make in makers:

        def other(ends: Array, make=make) -> NoiseSchedule:  # type: ignore[no-untyped-def]
            low, high = np.exp(np.clip(ends, -16.0, -0.05))
            return make(T, float(min(low, high)), float(high))

        def residual(ends: Array, other=other) -> Array:  # type: ignore[no-untyped-def]
            found = other(ends)
            logs = np.interp(index, grid, np.log(np.maximum(found.alpha_bars, 1e-300)))
            there = logs - np.append(logs[1:], 0.0)
            if index[-1] == 1:
                there[-1] = np.log(found.alphas[1])
            return (there - target) / scale

        try:
            fitted = least_squares(
                residual, start, diff_step=1e-5, ftol=1e-15, xtol=1e-12, gtol=1e-15, max_nfev=60
            )
        except (InputError, ValueError):
            continue
        if fitted.x.max() > -15:  # there is noise
            yield other(fitted.x), 2
