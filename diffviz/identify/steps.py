r"""What a sampler does at each step, measured: x_s = a·x_t + b·m_t + bias + σ·z.

Between two calls a loop turns its state x_t and the answer m_t into x_s. It runs twice from the
same state of the random generators, with other answers. If it drew the same noise, that is not in
the difference of the two runs,

    x_s − x'_s = a·(x_t − x'_t) + b·(m_t − m'_t),

and a and b are known to rounding however large the noise was. Where this does not hold, the call
before may add its part (a multi-step rule), or the step is linear for most values only (x̂_0 is
clipped), or for none, or the runs drew other noise. Then the regression of one run is what is
known. What x_s holds beside its linear part is the noise itself.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import fdtrc, ndtr, ndtri, stdtr, stdtrit
from torch import Tensor

from diffviz.identify.calls import Answer, Loop, Spy, in_reach
from diffviz.measure.ks import ks_pvalue, ks_statistic

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
ROUNDING = 2.0**-24
"""Half a unit in the last place of a float32 near 1."""
PLACES = 8192
"""Values of every state by which two runs are compared."""
SKETCH = 1024
"""Values of the noise of every step that are kept, to see it come again."""
UNKNOWN = 1e15
"""The error of a coefficient of which nothing is known."""
COARSE = 1e-4
"""The last place of a type in which two runs agree to rounding whatever a step does."""
TESTS_PER_STEP = 20
MOSTLY = 0.5
"""The share of values that a step must be linear for."""
PATIENCE = 10
"""After so many steps in a row that are linear for no such share, only every so many is tried."""


def least_squares(columns: Array, target: Array, weights: Array | None = None) -> Array:
    """The coefficients (…, C) of ``target`` (…, K) on ``columns`` (…, C, K).

    Columns that are combinations of the others to 1e-5 of their size share their part.
    """
    if weights is not None:
        columns, target = columns * weights[..., None, :], target * weights
    size = np.sqrt(np.einsum("...ck,...ck->...c", columns, columns))
    size = np.where(size > 1e-150, size, 1.0)  # a column of zeros gets no part
    rows = columns / size[..., None]
    inverse = np.linalg.pinv(rows @ rows.swapaxes(-1, -2), rcond=1e-11, hermitian=True)
    found: Array = np.zeros_like(size)
    for _ in range(2):  # once more, for the errors of the inverse
        left = target - (found[..., None, :] @ rows)[..., 0, :]
        found = found + (inverse @ (rows @ left[..., None]))[..., 0]
    return found / size


def score_threshold(tests: int) -> float:
    """|z| that one of ``tests`` independent normal scores exceeds once in 100,000 runs."""
    return float(-ndtri(0.5e-5 / tests))


@dataclass(frozen=True, eq=False)
class Noise:
    """What a step adds beside its linear part, brought to std 1.

    ``batch`` is the correlation between samples that shows most, ``grid`` that between slices of
    a sample, each with a normal score and the mean over all pairs; ``sketch`` are its values at
    fixed places. Below ``floor`` it is rounding.
    """

    std: float
    floor: float
    ks: float = math.nan
    ks_p: float = math.nan
    skewness: float = math.nan
    kurtosis: float = math.nan
    batch: float = math.nan
    batch_score: float = math.nan
    batch_mean: float = math.nan
    grid: float = math.nan
    grid_score: float = math.nan
    grid_mean: float = math.nan
    sketch: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def there(self) -> bool:
        """There is more than rounding."""
        return self.std > self.floor


@dataclass(frozen=True, eq=False)
class Steps:
    """What was measured of S steps.

    Attributes:
        told: the times of all calls.
        values, batch, precision: numbers in a state, its samples, the last place of its type.
        coefficients, errors: of (1, x_t, m_t, x before, m before), (S, 5).
        noise: of each step; its ``std`` is σ.
        sizes: RMS of (x_t, m_t, x_s), (S, 3).
        exact: a and b are known from two runs with the same noise.
        memory: the call before has a part in the step.
        clipped: the step is linear for answers with x̂_0 inside (−1, 1) only.
        partly: linear for most values only, and nothing is known of the noise.
        bent: no linear function of x_t and m_t.
        start, start_mean: x_T, as if it were noise.
        broken: the time of the last call before x was not finite.
    """

    told: Array
    values: int
    batch: int
    precision: float
    coefficients: Array
    errors: Array
    noise: tuple[Noise, ...]
    sizes: Array
    exact: Mask
    memory: Mask
    clipped: Mask
    partly: Mask
    bent: Mask
    start: Noise
    start_mean: float
    broken: float | None = None

    def __len__(self) -> int:
        return len(self.coefficients)

    @property
    def times(self) -> Array:
        """The told times at which the steps start."""
        return self.told[: len(self)]

    @cached_property
    def std(self) -> Array:
        """σ of every step."""
        return np.array([noise.std for noise in self.noise])

    @cached_property
    def noisy(self) -> Mask:
        """Steps that add more than rounding."""
        return np.array([noise.there for noise in self.noise], dtype=bool)

    @cached_property
    def floor(self) -> Array:
        """What rounding may leave over of every step."""
        return np.array([noise.floor for noise in self.noise])

    @cached_property
    def threshold(self) -> float:
        """The score that counts, over all tests of all steps."""
        return score_threshold(TESTS_PER_STEP * max(len(self), 1))

    @cached_property
    def sane(self) -> Mask:
        """Steps from a state that has not grown so far that float32 swallows what they do."""
        most = 1e3 * max(1.0, abs(self.start_mean), self.start.std)
        return np.logical_and.accumulate(self.sizes[:, 0] <= most)

    @cached_property
    def together(self) -> float:
        """By how much errors grow where samples share their noise."""
        shared = [n for n in self.noise if n.batch_score > self.threshold and abs(n.batch) > 0.05]
        return math.sqrt(self.batch) if len(shared) > 0.1 * len(self) else 1.0

    def before(self) -> Array:
        """Correlation of each step's noise with that of the step before; NaN where there is none.

        Also seen where the noise comes back as a part of the state before.
        """
        sketches = [
            n.sketch if n.std > 20 * n.floor and len(n.sketch) else None for n in self.noise
        ]
        found = np.full(len(self), np.nan)
        for i in range(1, len(self)):
            one, two = sketches[i - 1], sketches[i]
            if one is not None and two is not None:
                found[i] = float(one @ two / np.sqrt((one @ one) * (two @ two)))
        return found

    def returning(self) -> tuple[Mask, float]:
        """(steps whose noise was drawn before or comes again; how much of it)."""
        noises = [self.start, *self.noise]
        again = np.zeros(len(noises), dtype=bool)
        there = np.array([len(n.sketch) > 0 for n in noises])
        rows = np.array([n.sketch for n in noises if len(n.sketch)])
        if len(rows) < 2 or rows.shape[1] < 32:
            return again[1:], 0.0
        size = np.sqrt((rows**2).sum(axis=1))
        r = np.clip(rows @ rows.T / (size[:, None] * size), -1, 1)
        n = rows.shape[1]
        t = np.abs(r) * np.sqrt((n - 1) / np.maximum(1 - r**2, 1e-12))
        pairs = len(rows) * (len(rows) - 1) / 2
        bound = -stdtrit(n - 1, ndtr(-self.threshold) / pairs)
        seen = (t > bound) & np.triu(np.ones(t.shape, bool), 1)
        # Of each noise the pair that shows most.
        again[there] = (seen | seen.T).any(axis=1)
        best = np.array(
            [max(row[mask], key=abs) for row, mask in zip(r, seen, strict=True) if mask.any()]
        )
        return again[1:], float(np.median(best)) if best.size else 0.0


class Recorder(Spy):
    """A model that answers as told; beside the states of another run it measures the steps."""

    def __init__(self, answer: Answer, loop: Loop, other: "Recorder | None" = None) -> None:
        super().__init__(answer, loop.layout, loop.calls, loop.seconds, loop.shape[0])
        self._other = other
        self.kept: list[Array] = []  # (2, K) of x_t and m_t at places; the end alone
        self.found: list[dict] = []
        self.start, self.start_mean = Noise(math.nan, math.nan), math.nan
        self.precision = 2 * ROUNDING
        self._now: list[Array] = []
        self._missed = 0

    def see(self, x: Tensor, value: float) -> None:
        """Take in the state of a call, which ends the step before."""
        state = _flat(x)
        if self.found or self._now:
            self._step(x, state)
        elif self._other is not None:
            self.start_mean = float(state.mean())
            self.start = _describe((state - self.start_mean).reshape(tuple(x.shape)), 0.0)
        self.precision = max(_precision(x), self.precision)
        self._now = [state, *self._now[:2]]

    def answered(self, answer: Tensor) -> None:
        """Take in m_t beside x_t."""
        m = _flat(answer)
        self._now = [self._now[0], m, *self._now[1:3]]
        places = _places(m.size)
        self.kept.append(np.stack([self._now[0][places], m[places]]))

    def finish(self, end: Tensor | None) -> None:
        """Take in the end, where it is a state."""
        if end is None or self.broken is not None:
            return
        if not in_reach(end):
            self.broken = self.times[-1]
            return
        state = _flat(end)
        self.kept.append(np.stack([state[_places(state.size)], np.zeros(min(state.size, PLACES))]))
        self._step(end, state)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def _step(self, x: Tensor, after: Array) -> None:
        i, other = len(self.found), self._other
        if other is None or i + 1 >= len(other.kept):
            return
        mine, places = self._now, _places(after.size)
        apart = self.kept[i] - other.kept[i]
        change = after[places] - other.kept[i + 1][0]
        past = self.kept[i - 1] - other.kept[i - 1] if i else np.zeros((0, len(places)))
        rms = np.array([math.sqrt(v @ v / v.size) for v in (*mine[:2], after, *mine[2:4])])
        sizes, rms = np.append(rms[:2], rms[3:]), rms[:3]
        unit = 8 * self.precision

        def floor_of(coefficients: Array) -> float:
            used = min(len(coefficients), len(sizes))
            return unit * float(np.abs(coefficients[:used]) @ sizes[:used] + rms[2])

        kind, coefficients = "", np.zeros(4)
        for columns in (apart, np.concatenate([apart, past])) if i else (apart,):
            found = least_squares(columns, change)
            left = change - found @ columns
            if math.sqrt(left @ left / left.size) < floor_of(found):
                kind = "exact" if len(found) == 2 else "memory"
                coefficients[: len(found)] = found
                break
        else:
            on = None
            if self._missed < PATIENCE or i % PATIENCE == 0:
                found, on = _mostly(apart, change, unit * float(rms[2] + rms[0]))
                self._missed = 0 if on is not None else self._missed + 1
            if on is not None:
                kind, coefficients[:2] = "partly", found
                apart, change = apart[:, on], change[on]
                left = change - found @ apart
        # What one run says, and the difference of two, weighed by what each leaves over.
        count = 4 if kind == "memory" else 2
        full = np.stack([np.ones(after.size), *mine[:count]])
        covariance = np.zeros((5, 5))
        if kind == "partly":
            covariance[1:3, 1:3] = _inverse(apart @ apart.T) * max(
                left @ left / left.size, (ROUNDING * rms[2]) ** 2
            )
            rest = after - coefficients[:2] @ full[1:3]
            values = rest[places][on]
            bias, std = float(values.mean()), float(values.std())
            noise = Noise(std, math.inf)
        else:
            if kind:
                best = np.append(0.0, coefficients[:count])
                best[0] = float((after - best @ full).mean())
            else:
                best = least_squares(full, after)
            gram, squares = full @ full.T, np.zeros((count, count))
            if kind:
                difference = np.concatenate([apart, past]) if kind == "memory" else apart
                spread = max(float(left @ left) / left.size, (ROUNDING * max(rms[2], 1e-30)) ** 2)
                squares = difference @ difference.T / spread
            variance = math.inf
            for _ in range(4):  # both runs start from one x_T: only one run says its a
                rest = after - best @ full
                if rest @ rest > 0.9 * variance * rest.size:
                    break
                variance = max(float(rest @ rest) / rest.size, (ROUNDING / 2 * rms[2]) ** 2)
                information = gram / variance
                information[1:, 1:] += squares
                small = _inverse(information)
                best = best + small @ (full @ rest / variance)
            covariance[: count + 1, : count + 1] = small
            bias, coefficients[:count] = float(best[0]), best[1:]
            rest = after - best @ full
            unsure = np.sqrt(np.maximum(np.diag(covariance)[1:3], 0)) * rms[:2]
            floor = floor_of(coefficients) / 2 + float(unsure[unsure < 1].sum())
            noise = _describe(rest.reshape(self.shape), floor)
        bent = False
        if not kind and noise.there:
            most = self._threshold()
            if i:
                longer = np.stack([*full, *mine[2:4]])
                less = after - least_squares(longer, after) @ longer
                gain = float(rest @ rest / max(less @ less, 1e-300)) - 1
                kind = "memory" if gain * rest.size > 2 * most**2 else ""
            if kind:
                noise = Noise(0.0, math.inf)
            bent = _bent(rest, full) > most
            if not kind and not (self.found and self.found[0]["exact"]):
                theirs = other.kept[i + 1][0] - coefficients[:2] @ other.kept[i]
                bent |= _alike(rest[places], theirs, most)
        self.found.append({
            "coefficients": np.append(bias, coefficients), "sizes": rms, "noise": noise,
            "errors": np.sqrt(np.maximum(np.diag(covariance), 0)),
            "exact": kind == "exact", "memory": kind == "memory", "partly": kind == "partly",
            "bent": bent,
        })  # fmt: skip

    def _threshold(self) -> float:
        assert self._other is not None
        return score_threshold(TESTS_PER_STEP * max(len(self._other.times), 1))

    def result(self) -> Steps:
        """What was measured."""
        rows = {name: np.array([row[name] for row in self.found]) for name in _ROWS}
        for name, width in (("coefficients", 5), ("errors", 5), ("sizes", 3)):
            rows[name] = rows[name].reshape(-1, width)
        return Steps(
            np.array(self.times), math.prod(self.shape),
            self.shape[0] if self.shape else 0, self.precision,
            noise=tuple(row["noise"] for row in self.found),
            clipped=np.zeros(len(self.found), dtype=bool),
            start=self.start, start_mean=self.start_mean, broken=self.broken,
            **{k: v.astype(bool) if k in _FLAGS else v for k, v in rows.items()},
        )  # fmt: skip


_FLAGS = ("exact", "memory", "partly", "bent")
_ROWS = ("coefficients", "errors", "sizes", *_FLAGS)


def merge(wide: Steps, inside: Steps) -> Steps:
    """Of every step what was measured with x̂_0 inside (−1, 1), where it is linear there only."""
    n = min(len(wide), len(inside))
    sure = wide.exact | wide.memory
    take = ~sure
    take[n:] = False
    known = inside.exact | inside.memory | inside.partly
    take[:n] &= known[:n]
    other = ~sure & ~take
    other[n:] = False
    # Runs that drew other noise: a step is clipped where its coefficients differ.
    i = np.flatnonzero(other)
    gap = np.abs(wide.coefficients[i, 1:3] - inside.coefficients[i, 1:3])
    error = np.hypot(wide.errors[i, 1:3], inside.errors[i, 1:3]) + 1e-5
    differs = (gap / error > 1.5 * wide.threshold).any(axis=1) | (wide.bent[i] & ~inside.bent[i])
    take[i[differs]] = True
    rows = {}
    for name in ("coefficients", "errors", "sizes", *_FLAGS):
        mine, theirs = getattr(wide, name).copy(), getattr(inside, name)
        mine[:n][take[:n]] = theirs[:n][take[:n]]
        rows[name] = mine
    noise = tuple(inside.noise[k] if take[k] else wide.noise[k] for k in range(len(wide)))
    return replace(wide, noise=noise, clipped=take, **rows)


def settle(steps: Steps) -> Steps:
    """With what two runs say together: a rule with a long memory leaves over what is no noise.

    If the runs drew the same noise in the first step, they did in all; a later step that the call
    before does not explain either depends on more calls than that.
    """
    paired = bool(len(steps) and (steps.exact | steps.partly)[0])
    longer = ~(steps.exact | steps.memory | steps.partly | steps.bent) & paired
    if len(steps) > 2 and (steps.memory | longer)[2:].mean() > 0.2:
        # Both runs start from one x_T, so that the difference does not show its part in the next.
        longer[1:5] = True
    noise = tuple(
        Noise(0.0, math.inf) if long else kept
        for long, kept in zip(longer, steps.noise, strict=True)
    )
    return replace(steps, noise=noise, memory=steps.memory | longer)


def _mostly(apart: Array, change: Array, floor: float) -> tuple[Array, Mask | None]:
    """(slopes, values on that plane) of the plane that most values lie on; None without one.

    By least absolute deviations, reweighted least squares.
    """
    found = least_squares(apart, change)
    for _ in range(30):
        away, before = np.abs(change - found @ apart), found
        found = least_squares(apart, change, 1 / np.sqrt(np.maximum(away, floor / 10)))
        if np.allclose(found, before, 1e-9, 0):
            break
    on = np.abs(change - found @ apart) < 2 * floor
    if on.mean() < MOSTLY or on.sum() < 16:
        return found, None
    found = least_squares(apart[:, on], change[on])
    sizes = np.abs(found) * np.sqrt((apart**2).mean(axis=1))
    # Where x̂_0 is clipped in both runs, x_s holds only one of x_t and m_t.
    if sizes.min() < 100 * floor:
        return found, None
    return found, on


def _inverse(square: Array) -> Array:
    """The inverse; of directions of which nothing is known, a very large one."""
    size = np.sqrt(np.maximum(np.diag(square), 1e-300))
    scaled = square / size[:, None] / size
    values, vectors = np.linalg.eigh(scaled)
    inverse = (vectors / np.maximum(values, 1e-13)) @ vectors.T / size[:, None] / size
    return inverse + np.diag(np.where(np.diag(square) < 1e-90, UNKNOWN**2, 0))


def _alike(one: Array, two: Array, threshold: float) -> bool:
    """Whether what is left over of two runs goes together."""
    one, two = one - one.mean(), two - two.mean()
    both = float((one @ one) * (two @ two))
    r = float(one @ two) / math.sqrt(max(both, 1e-300))
    return abs(r) * math.sqrt((one.size - 2) / max(1 - r * r, 1e-12)) > threshold


def _bent(left: Array, full: Array) -> float:
    """The score of what squares and cubes of x_t and m_t explain of the leftover (n,), R²·n ~ χ².

    If it is noise it is independent of every function of them. At most 10,000 values count.
    """
    every = max(left.size // 10_000, 1)
    one, x, m = full[:3, ::every]
    x, m = (v - v.mean() for v in (x, m))
    m = m - x * ((x @ m) / max(x @ x, 1e-300))
    x, m = (v / max(math.sqrt((v @ v) / v.size), 1e-300) for v in (x, m))
    linear = np.stack([one, x, m])  # orthogonal, of size 1
    more = np.stack([x * x, x * m, m * m, x * x * x, x * x * m, x * m * m, m * m * m])
    seen = left[::every]
    more = more - (more @ linear.T / seen.size) @ linear
    seen = seen - (linear @ seen / seen.size) @ linear
    explained = least_squares(more, seen) @ more
    share = min(float(explained @ explained / max(seen @ seen, 1e-300)), 1 - 1e-12)
    free = max(seen.size - 10, 1)
    tail = float(fdtrc(7, free, share / (1 - share) * free / 7))
    return float(-ndtri(min(tail, 0.5))) if tail > 1e-300 else 37.0


def _precision(x: Tensor) -> float:
    """The last place of a state, which may have been rounded before it was handed on."""
    various = x.dtype == torch.float32 and len(x.reshape(-1)[:256].unique()) > 32
    for kind in (torch.bfloat16, torch.float16):
        if various and torch.equal(x.to(kind).float(), x):
            return float(torch.finfo(kind).eps)
    return float(torch.finfo(x.dtype).eps)


def _flat(x: Tensor) -> Array:
    """A copy, for a loop may go on to work in place."""
    return x.detach().to("cpu", torch.float64, copy=True).reshape(-1).numpy()


@cache
def _places(size: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(size)[:PLACES]


def _describe(left: Array, floor: float) -> Noise:
    """The law of a noise (B, *D) that should be independent N(0, σ²) in every value."""
    std = float(left.std())
    if std <= floor or left.size < 8:
        return Noise(std, floor)
    z = left / std
    flat = z.reshape(-1)
    squares = flat * flat
    ks = ks_statistic(flat)
    fourth = float((squares * squares).mean())
    # Values of unequal spread count as fewer: half of them without noise as half.
    heavy = fourth - 3 > 6 * math.sqrt(24 / z.size)
    axes = [_correlation(z, axis, 3 / fourth if heavy else 1.0) for axis in range(z.ndim)]
    grid = max(axes[1:], key=lambda found: found[1], default=(0.0, 0.0, 0.0))
    mean = max((found[2] for found in axes[1:]), key=abs, default=0.0)
    p, skewness = float(ks_pvalue(ks, z.size)), float((squares * flat).mean())
    sketch = flat[_places(flat.size)[:SKETCH]]
    return Noise(std, floor, ks, p, skewness, fourth - 3, *axes[0], *grid[:2], mean, sketch)


def _correlation(z: Array, axis: int, share: float) -> tuple[float, float, float]:
    """(correlation that shows most, its score, the mean of all) of slices of z along an axis.

    Of k independent slices of n values each, one pair has t = r·√((n − 1)/(1 − r²)) from Student's
    law with n − 1 degrees of freedom, and Σ(slices)²/k over all n is χ²_n. Only a ``share`` of the
    values counts for n.
    """
    slices = np.moveaxis(z, axis, 0).reshape(z.shape[axis], -1)
    k, n = len(slices), slices.shape[1] * share
    if k < 2 or n < 8:
        return 0.0, 0.0, 0.0
    products = slices @ slices.T
    size = np.sqrt(np.diag(products))
    # A slice without noise holds nothing but the errors of the regression, which all have.
    quiet = size < 0.2 * np.sqrt((size**2).mean())
    products[quiet] = products[:, quiet] = 0
    r = (products / np.maximum(size[:, None] * size, 1e-300))[np.triu_indices(k, 1)]
    worst = float(np.clip(r[np.argmax(np.abs(r))], -1 + 1e-12, 1 - 1e-12))
    t = abs(worst) * math.sqrt((n - 1) / (1 - worst**2))
    tail = float(stdtr(n - 1, -t)) * len(r)
    pair = float(-ndtri(min(tail, 0.5))) if tail > 1e-300 else max(37.0, t)
    ratio, spread = float(products.sum()) / slices.size, 2 / (9 * n)
    together = abs(ratio ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    mean = (ratio - 1) / (k - 1)
    return (mean, together, mean) if together > pair else (worst, pair, mean)
