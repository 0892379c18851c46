r"""The known rules at the levels that a loop visits, in the loop's own form.

A rule is x_s = A·x_t + B·ε̂ + σ·z for the variance-preserving x_t. A loop may hold another state,
x̄ = x/√ᾱ or (1 − u)·x_0 + u·n, and its model may answer x̂_0, v or dx/dt: each is a linear change
of (A, B). A measured coefficient is judged by its distance from the rule in standard errors, after
what float32 tables may do to the rule itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.identify.paths import Reading
from diffviz.identify.steps import ROUNDING, Steps, score_threshold

Array = NDArray[np.float64]
MULTISTEP = "dpm-solver++(2m)"
FITS = 2.0
"""The misfit of (a, b) that a rule stays below; a right one has 1.06 on average."""
NO_SIGNAL = 1e-14
"""ᾱ where nothing of the data is left; 0 itself has no ratio to the next."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Where S steps were, and how the loop is written.

    Attributes:
        reading: of the told times and of the answer.
        index: the place on the schedule where every step starts, (S,).
        now, then: ᾱ where it starts and ends; a step ends at the next told level below its own.
        alpha: the α of a step for DDPM, ᾱ_t/ᾱ_s but for schedules whose ᾱ is no product.
        size, size_then: √(a² + b²) of the state there.
    """

    reading: Reading
    index: Array
    now: Array
    then: Array
    alpha: Array
    size: Array
    size_then: Array

    @property
    def visited(self) -> NoiseSchedule:
        """The levels as a schedule of their own, S…0."""
        bars = np.append(1.0, self.now[::-1])
        alphas = np.append(1.0, bars[1:] / bars[:-1])
        return NoiseSchedule(1 - alphas, alphas, bars)

    def noise(self, i: int | slice, x: Array, m: Array) -> Array:
        """ε̂ of steps i from the loop's own state and answer."""
        e_x, e_m = self.reading.noise(
            np.sqrt(self.now) * self.size, np.sqrt(1 - self.now) * self.size
        )
        return e_x[i][..., None] * x + e_m[i][..., None] * m

    def clean(self, i: int | slice, x: Array, eps: Array) -> Array:
        """x̂_0 of steps i from the variance-preserving state and ε̂."""
        now = self.now[i][..., None]
        return (x - np.sqrt(1 - now) * eps) / np.sqrt(now)

    def noise_of(self, i: int | slice, x: Array, clean: Array) -> Array:
        """ε̂ of steps i from the variance-preserving state and x̂_0."""
        now = self.now[i][..., None]
        return (x - np.sqrt(now) * clean) / np.sqrt(1 - now)

    @property
    def vp(self) -> bool:
        """The state is the variance-preserving one."""
        return bool(np.allclose(self.size, 1))

    @property
    def whole(self) -> bool:
        """All times are integers of the schedule."""
        return self.reading.path.index is not None and np.array_equal(
            self.index, np.rint(self.index)
        )

    def form(self, numbers: Array) -> Array:
        """(A, B, σ) of the rule as (a, b, σ) of the loop's own x and m, (S, 3)."""
        e_x, e_m = self.reading.noise(
            np.sqrt(self.now) * self.size, np.sqrt(1 - self.now) * self.size
        )
        A, B, std = numbers.T
        then = self.size_then
        return np.stack([then * (A / self.size + B * e_x), then * B * e_m, then * std], 1)

    def plain(self, a: Array, b: Array) -> tuple[Array, Array]:
        """(A, B) of measured (a, b): `form` the other way round."""
        e_x, e_m = self.reading.noise(
            np.sqrt(self.now) * self.size, np.sqrt(1 - self.now) * self.size
        )
        B = b / e_m
        return (a - B * e_x) * self.size / self.size_then, B / self.size_then


@dataclass(frozen=True)
class Rule:
    """A known rule by its name; ``eta`` of DDIM."""

    name: str
    eta: float = 0.0

    def numbers(self, now: Array, then: Array, alpha: Array) -> Array:
        """(A, B, σ) from ᾱ = ``now`` to ``then``, (S, 3); ``alpha`` is DDPM's α of the step."""
        with np.errstate(all="ignore"):
            left, rest = 1 - now, 1 - then
            if self.name in ("ddim", "consistency"):
                std = self.eta * np.sqrt(np.maximum(rest / left * (1 - now / then), 0))
                if self.name == "consistency":  # 2303.01469, algorithm 1: fresh noise on x̂_0
                    std = np.sqrt(rest)
                A = np.sqrt(then / now)
                return np.stack(
                    [A, np.sqrt(np.maximum(rest - std**2, 0)) - A * np.sqrt(left), std], 1
                )
            beta = 1 - alpha
            A, B = alpha**-0.5, -beta / np.sqrt(alpha * left)
            if self.name == "euler-maruyama":  # 2011.13456, of the VP SDE, with ∫β = −log α
                beta = -np.log(alpha)
                A, B = 1 + beta / 2, -beta / np.sqrt(left)
            variance = {
                "ddpm/posterior": beta * rest / left,
                "reverse-diffusion": then * (1 / now - 1 / then),  # algorithm 2 there, of σ
            }.get(self.name, beta)
            return np.stack([A, B, np.where(rest > 0, np.sqrt(np.maximum(variance, 0)), 0.0)], 1)

    def __str__(self) -> str:
        if self.name != "ddim":
            return self.name
        return f"ddim(eta={self.eta:g})"


@dataclass(frozen=True, eq=False)
class Expected:
    """What a rule says of every step in the loop's form, and what rounding does to it, (S, 3)."""

    rule: Rule
    levels: Levels
    numbers: Array
    floor: Array

    @property
    def name(self) -> str:
        """Of the rule; for other states than the variance-preserving one, its name there."""
        name = str(self.rule)
        if self.levels.vp:
            return name
        return {
            "ddim(eta=0)": "euler", "ddpm/posterior": "euler-ancestral",
            "ddim(eta=1)": "euler-ancestral",
        }.get(name, name)  # fmt: skip

    def scores(self, steps: Steps) -> Array:
        """Normal scores of a, b, the bias and σ, (S, 4); huge where undefined."""
        return scores(steps, self.numbers, self.floor)


def levels_along(
    reading: Reading, times: Array, schedule: NoiseSchedule, count: int | None = None
) -> Iterator[Levels]:
    """The levels of (the first ``count``) told times; none where most of them do not fall.

    With α as the schedule has it, and as ᾱ_t/ᾱ_s where that is another one.
    """
    index = reading.path.places(times, schedule)
    a, b = (np.asarray(v, float) for v in reading.path.levels(np.asarray(times, float)))
    on = reading.path.index is not None
    if not on and len(b) > 1 and b[-1] == 0:
        b = np.append(b[:-1], 1e-6 * b[:-1].min())  # a last call that is told the data
    if not np.isfinite(a + b).all() or (b <= 0).any() or (on and index.min() <= 0):
        return
    if on and index.max() > schedule.T + 1e-6:
        return
    size = np.hypot(a, b)
    now = np.maximum(a**2 / size**2, NO_SIGNAL)
    below = [np.flatnonzero(now[i + 1 :] > now[i] * (1 + 1e-12)) for i in range(len(now))]
    step = np.array(
        [i + 1 + found[0] if found.size else len(now) for i, found in enumerate(below)]
    )
    rises = len(now) > 1 and (np.diff(now) < -1e-12 * now[:-1]).mean() > 0.6
    if rises or len(set(now.tolist())) < 0.4 * len(now):
        return
    then, size_then = np.append(now, 1.0)[step], np.append(size, 1.0)[step]
    ratio = now / then
    every = slice(count)

    def part(alpha: Array) -> Levels:
        rows = (index, now, then, alpha, size, size_then)
        return Levels(reading, *(row[every] for row in rows))

    yield part(ratio)
    if on and np.array_equal(index, np.rint(index)):
        with np.errstate(divide="ignore"):
            logs = np.cumsum(np.log(schedule.alphas))
        places = np.append(index, 0).astype(int)
        alpha = np.exp(logs[places[:-1]] - logs[places[step]])
        if not np.allclose(alpha, ratio, rtol=1e-9) and now.min() > NO_SIGNAL:
            yield part(alpha)


def expect(rule: Rule, levels: Levels) -> Expected:
    """The rule at these levels, in the form the loop is written in."""
    now, then, alpha = levels.now, levels.then, levels.alpha
    with np.errstate(all="ignore"):
        numbers = levels.form(rule.numbers(now, then, alpha))
        # A loop may keep α and ᾱ in float32: each entry rounded, and ᾱ accumulated over t steps.
        unit = (2 if levels.whole else 16) * ROUNDING
        # A rule that draws noise has 1 − α, which some write as 1 − e^(−2h) with h from log-SNRs.
        tables = 16 if (numbers[:, 2] > 0).any() else 2
        odd = np.arange(len(now)) % 2 * unit
        drift = levels.index * ROUNDING / 2
        changed = (
            (now * (1 - drift), then * (1 - np.append(drift[1:], 0)), alpha),
            (now * (1 - odd), then * (1 - (unit - odd) * (then < 1)), alpha),
            (now * (1 - (unit - odd)), then * (1 - odd * (then < 1)), alpha),
            (now, then, alpha * (1 - tables * ROUNDING)),
        )
        floor = 4 * ROUNDING * (np.abs(numbers) + np.abs(numbers).max(axis=1, keepdims=True))
        floor[:, 2] *= numbers[:, 2] > 0
        for tables_ in changed:
            other = replace(levels, now=tables_[0], then=tables_[1])
            floor += np.abs(other.form(rule.numbers(*tables_)) - numbers)
        if rule.name.startswith("ddpm"):
            # Through x̂_0 (DDPM, eq. 7), 1 − α_t, rounded, does not quite meet 1 − ᾱ_t and 1 − ᾱ_s.
            # In the last step x̂_0 is all there is, and that ratio its factor.
            floor[:-1, 0] += ROUNDING / (1 - now[:-1])
            floor[-1, :2] += np.abs(numbers[-1, :2]) * ROUNDING / (1 - now[-1])
    return Expected(rule, levels, numbers, np.nan_to_num(floor, nan=np.inf))


@np.errstate(all="ignore")
def scores(steps: Steps, numbers: Array, floor: Array) -> Array:
    """Normal scores of a, b, the bias and σ against (a, b, σ), (S, 4); huge where undefined."""
    wider = steps.together
    free = max(steps.values / wider**2 - 3, 1.0)
    target = np.column_stack([numbers[:, :2], np.zeros(len(steps))])
    allowed = np.column_stack([floor[:, :2], np.maximum(np.minimum(steps.floor, 1.0), ROUNDING)])
    coarse = 4 * (steps.precision - 2 * ROUNDING)  # of half-precision states only
    allowed[:, :2] += coarse * np.abs(numbers).max(axis=1, keepdims=True)
    # Roundings may go together instead of averaging out, and tell where x_t and ε̂ are nearly one.
    columns = [1, 2, 0]
    size = ROUNDING * steps.sizes[:, 2]
    aligned = 2 * size * np.sqrt(steps.values) / np.maximum(steps.std, size / 2 + 1e-300)
    allowed += aligned[:, None] * steps.errors[:, columns]
    away = steps.coefficients[:, columns] - target
    over = np.maximum(np.abs(away) - allowed, 0) / (steps.errors[:, columns] * wider + 1e-300)
    inside = np.minimum(over, 30.0)
    normal = np.where(over < 30, -ndtri(stdtr(free, -inside)), over)
    found = np.zeros((len(steps), 4))
    found[:, :3] = np.sign(away) * normal
    # Wilson and Hilferty's normal score of a variance; for no noise, all or nothing.
    std, wanted, rounding = steps.std, numbers[:, 2], np.minimum(steps.floor, 1e30)
    rest = np.abs(std - wanted) - floor[:, 2] - rounding
    shrunk = wanted + np.sign(std - wanted) * np.maximum(rest, 0)
    spread = 2 / (9 * free)
    score = (np.maximum(shrunk / wanted, 0) ** (2 / 3) - (1 - spread)) / np.sqrt(spread)
    some = np.where(shrunk == wanted, 0.0, score)
    found[:, 3] = np.where(wanted > 0, some, np.where(rest > 0, 1e6, 0.0))
    found[:, 3] *= ~steps.partly
    found = np.clip(np.nan_to_num(found, nan=1e6, posinf=1e6, neginf=-1e6), -1e6, 1e6)
    return found * steps.sane[:, None]


def rules_for(steps: Steps, levels: Levels) -> list[Rule]:
    """DDPM's, DDIM at η = 0 and 1, and at the η that the noise or the coefficients point to."""
    etas = {0.0, 1.0}
    now, then = levels.now, levels.then
    with np.errstate(all="ignore"):
        full = Rule("ddim", 1.0).numbers(now, then, levels.alpha)[:, 2]
        inner = (full > 1e-9) & steps.sane
        if inner.any():
            by_noise = float(np.nanmedian((steps.std / levels.size_then / full)[inner]))
            A, B = levels.plain(steps.coefficients[:, 1], steps.coefficients[:, 2])
            direction = B + A * np.sqrt(1 - now)
            squares = ((1 - then - direction**2) / full**2)[inner]
            by_direction = float(np.sqrt(np.nanmedian(squares)))
            precision = 3 / np.sqrt(2 * steps.values * len(steps))
            for eta, least in ((by_noise, 0.01), (by_direction, 0.25)):
                if np.isfinite(eta) and least < eta < 0.99:
                    nice = round(eta * 20) / 20
                    near = abs(eta - nice) < min(0.01 + precision, 0.025)
                    etas.add(nice if near else round(float(eta), 3))
    rules = [
        Rule("ddpm/beta"),
        Rule("ddpm/posterior"),
        *(Rule("ddim", eta) for eta in sorted(etas)),
    ]
    # Where ᾱ is the product of α, DDIM at η = 1 is DDPM with β̃; one name for one rule.
    one, other = (rule.numbers(now, then, levels.alpha) for rule in (rules[1], Rule("ddim", 1.0)))
    if np.allclose(one, other, rtol=1e-9, atol=0):
        rules.remove(Rule("ddim", 1.0))
    if len(steps) > 1 and steps.noisy[:-1].mean() > 0.5:  # without noise it is a wrong DDIM
        rules.append(Rule("consistency"))
    if not levels.vp:
        rules.append(Rule("reverse-diffusion"))
    elif not levels.whole:
        rules.append(Rule("euler-maruyama"))
    return rules


def misfit(score: Array) -> tuple[float, float]:
    """(of a and b, of σ): mean log(1 + z²) up to |z| = 30, which no single step decides."""
    inner = np.log1p(np.minimum(np.abs(score), 30) ** 2)
    return float(inner[:, :2].sum(axis=1).mean()), float(inner[:, 3].mean())


def closest(steps: Steps, ways: Sequence[Levels]) -> Expected | None:
    """The known rule that the steps are closest to: first by (a, b), among equals by σ."""
    kinds: dict[str, list[tuple[float, float, Expected]]] = {}
    only = len({levels.reading.answer for levels in ways}) == 1
    for levels in ways:
        found = kinds.setdefault(levels.reading.path.name, [])
        plain = levels.reading.answer == ("flow" if levels.reading.path.name == "flow" else "eps")
        for rule in rules_for(steps, levels):
            expected = expect(rule, levels)
            table = expected.scores(steps)
            bound = score_threshold(len(table))
            off = (np.abs(table[:, :2]) > bound).any(axis=1)
            # Another answer than ε is believed only of a loop that follows it nearly everywhere.
            if plain or only or off.sum() <= max(1, 0.1 * len(table)):
                inner, outer = misfit(table)
                found.append((inner, outer + 0.5 * (np.abs(table[:, 3]) > bound).any(), expected))
    # The likeliest way to read the times, unless another fits clearly better.
    names = list(kinds)
    best = min(
        (items for items in kinds.values() if items),
        key=lambda items: (
            min(item[0] + min(item[1], 1.0) for item in items)
            + 12 / len(steps) * names.index(items[0][2].levels.reading.path.name)
        ),
        default=None,
    )
    if best is None:
        return None
    least = min(item[0] for item in best)
    if least >= FITS:
        return min(best, key=lambda item: item[0] + item[1])[2]

    def cost(item: tuple[float, float, Expected]) -> float:
        # DDIM must earn its name where DDPM has the same numbers, and a fitted η its freedom.
        rule = item[2].rule
        freedom = {0.0: 0.0, 1.0: 2.0}.get(rule.eta, 5.0) if rule.name == "ddim" else 0.0
        return round(item[0] + min(item[1], 3.0) + freedom / len(steps), 4)

    return min((item for item in best if item[0] <= least + 0.5), key=cost)[2]


@np.errstate(all="ignore")
def second_order(levels: Levels) -> tuple[Array, Array]:
    """DPM-Solver++(2M) (2211.01095, algorithm 2) in the loop's form: x_s of (x, m, x, m before).

    x_s = (σ_s/σ_t)·x_t + √ᾱ_s(1 − e^{−h})·D, D = (1 + w)·x̂_0(t) − w·x̂_0(before), where
    w = h/(2h_before), h = λ_s − λ_t, λ = log(√ᾱ/√(1−ᾱ)). Also the steps of first order, w = 0.
    """
    now, then = levels.now, levels.then
    h = 0.5 * np.log(then / (1 - then)) - 0.5 * np.log(now / (1 - now))
    gain = np.where(then < 1, np.sqrt(then) * -np.expm1(-h), 1.0) * levels.size_then
    keep = np.sqrt((1 - then) / (1 - now)) * levels.size_then / levels.size
    a, b = np.sqrt(now) * levels.size, np.sqrt(1 - now) * levels.size
    e_x, e_m = levels.reading.noise(a, b)
    clean = np.stack([(1 - b * e_x) / a, -b * e_m / a])  # x̂_0 of x and m
    rows = []
    for w in (np.append(0.0, np.nan_to_num(h[1:] / h[:-1] / 2, posinf=0.0)), np.zeros(len(h))):
        mine, before = (1 + w) * gain * clean, -w * gain * np.roll(clean, 1, axis=1)
        rows.append(np.stack([keep + mine[0], mine[1], *before], 1))
    return rows[0], rows[1]


def multistep(steps: Steps, ways: Sequence[Levels]) -> tuple[Levels, NDArray[np.bool_]] | None:
    """(levels, steps that are so) of a loop that is DPM-Solver++(2M), of either order."""
    for levels in ways:
        good = np.zeros(len(steps), dtype=bool)
        tables = 64 * ROUNDING * (1 + levels.index) / np.sqrt(1 - levels.now)
        for row in second_order(levels):
            away = np.nan_to_num(np.abs(row - steps.coefficients[:, 1:]), nan=np.inf)
            size = np.abs(row).max(axis=1, keepdims=True)
            good |= (away < tables[:, None] * size + 5 * steps.errors[:, 1:]).all(axis=1)
        if good.mean() > 0.7 and steps.memory.any():
            return levels, good
    return None
