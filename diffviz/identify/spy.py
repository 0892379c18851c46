r"""Watching somebody's sampler from the side of its model.

A sampler must call its model with (x_t, t). Between two calls it turned x_t and the answer m_t
into x_s, so the pairs seen at the border hold its update rule. Of every step i the products

    G_i = Σ w wᵀ,   w = (1, x_t, m_t, x_before, m_before, x_start, x_s),

summed over all values, are kept, and nothing else but a few numbers about the leftover r_i of the
regression of x_s on (1, x_t, m_t): the noise that the step injected. Any regression of x_s on some
of the others can be read off G_i later. Memory does not grow with the size of a sample.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import fdtrc, ndtri, stdtr
from torch import Tensor

from diffviz.identify.calls import Answer, Loop, Spy
from diffviz.measure.ks import ks_pvalue, ks_statistic

Array = NDArray[np.float64]

ONE, X, EPS, PREVIOUS_X, PREVIOUS_EPS, START, NEXT = range(7)
SINGLE = [ONE, X, EPS]
DOUBLE = [ONE, X, EPS, PREVIOUS_X, PREVIOUS_EPS]
ROUNDING = 2.0**-24
"""Half a unit in the last place of a float32 near 1."""
SKETCH = 256
"""Values of the noise of every step that are kept, to see it come again."""
PLACES = 512
"""Places at which x_t and m_t themselves are kept, to compare two runs."""


@dataclass(frozen=True, eq=False)
class Noise:
    """What is left of one step's x_s after the regression on (1, x_t, m_t), brought to std 1.

    ``batch`` is the correlation between samples that shows most, ``grid`` that between slices of
    a sample, each with a normal score, and ``batch_mean`` and ``grid_mean`` the mean over all
    pairs; ``bent`` is the score of what is no linear function of x_t and m_t but still depends on
    them; ``sketch`` are its values at fixed random places.
    """

    std: float
    floor: float
    ks: float = math.nan
    ks_p: float = math.nan
    skewness: float = math.nan
    kurtosis: float = math.nan
    batch: float = math.nan
    batch_score: float = math.nan
    grid: float = math.nan
    grid_score: float = math.nan
    batch_mean: float = math.nan
    grid_mean: float = math.nan
    bent: float = math.nan
    sketch: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def there(self) -> bool:
        """There is more than rounding."""
        return self.std > self.floor


@dataclass(frozen=True, eq=False)
class Watched:
    """Everything seen of S steps: ``times`` and ``floating`` as passed, ``grams`` (S, 7, 7).

    A state has ``values`` numbers in ``batch`` samples; ``precision`` is the last place of their
    type. ``start`` is x_T as if it were noise, and its mean; ``broken`` is the time of the last
    call before x was not finite. ``places`` (S + 1, 2, K) are x_t and m_t at K fixed places, the
    last of them x at the end; ``pairs`` is what the comparison with another run says, ``inside``
    the fit that counts where the steps are linear for some values only.
    """

    times: Array
    floating: bool
    grams: Array
    noise: tuple[Noise, ...]
    values: int
    batch: int
    precision: float
    start: Noise = field(default_factory=lambda: Noise(math.nan, math.nan))
    start_mean: float = math.nan
    broken: float | None = None
    places: Array = field(default_factory=lambda: np.zeros((0, 2, 0)))
    pairs: "Pairs | None" = None
    inside: "Fit | None" = None

    @property
    def sane(self) -> NDArray[np.bool_]:
        """Steps from a state that has not grown so far that float32 swallows what they do, (S,).

        The step that makes it grow is one of them.
        """
        size = np.sqrt(self.grams[:, X, X] / self.values)
        return np.logical_and.accumulate(size <= _too_large(self.start, self.start_mean))

    @property
    def noisy(self) -> NDArray[np.bool_]:
        """Steps that leave more than rounding, (S,)."""
        return np.array([noise.there for noise in self.noise], dtype=bool)


@dataclass(frozen=True, eq=False)
class Pairs:
    """What the difference of two runs says of a and b at each step; see `pairing`.

    ``same`` (S,) are the steps that drew the same noise and are linear; for these ``information``
    (S, 2, 2) is the inverse covariance of (a, b), ``product`` (S, 2) that times their estimate.
    ``alike`` (S,) is the normal score of the correlation of both leftovers.
    """

    same: NDArray[np.bool_]
    information: Array
    product: Array
    alike: Array


class Watch(Spy):
    """A model that answers as told and keeps the products of consecutive calls.

    With ``briefly`` only the values at places are kept.
    """

    def __init__(self, answer: Answer, loop: Loop, briefly: bool = False) -> None:
        super().__init__(answer, loop.layout, loop.calls, loop.seconds, loop.shape[0])
        self._briefly = briefly
        self.grams: list[Array] = []
        self.noise: list[Noise] = []
        self.start, self.start_mean = Noise(math.nan, math.nan), math.nan
        self.precision = 2 * ROUNDING
        self._columns: list[Array] = []
        self._rows = np.ones((7, 0))
        self._first: Array | None = None
        self._kept: list[Array] = []
        self._now: Array = np.zeros(0)

    def answered(self, answer: Tensor) -> None:
        """Take in m_t beside x_t."""
        before = self._columns[:2] if self._columns else [np.zeros(self._now.size)] * 2
        self._columns = [self._now, _flat(answer), *before]
        self._keep(*self._columns[:2])

    def _begin(self, x: Tensor) -> None:
        """Take in x_T."""
        self._first = _flat(x)
        self._rows = np.ones((7, x.numel()))
        self.start_mean = float(self._first.mean())
        self.start = _describe((self._first - self.start_mean).reshape(tuple(x.shape)), 0.0)

    def _keep(self, x: Array, m: Array) -> None:
        places = _places(x.size)[:PLACES]
        self._kept.append(np.stack([x[places], m[places]]))

    def see(self, x: Tensor, value: float) -> None:
        """Take in x_s, the state at the next call."""
        if self._first is None:
            self._begin(x)
        else:
            self._step(x)
        self._now = _flat(x)

    def finish(self, end: Tensor | None) -> None:
        """Take in the end, where it is a state."""
        if end is None or self.broken is not None:
            return
        if not bool(torch.isfinite(end).all()):
            self.broken = self.times[-1]
            return
        self._keep(_flat(end), np.zeros(end.numel()))
        self._step(end)

    def _step(self, x: Tensor) -> None:
        if self._briefly or self._first is None:
            return
        rows = self._rows  # one array for all steps: fetching pages costs as much as the sums
        for row, values in zip(rows[1:], [*self._columns, self._first, _flat(x)], strict=True):
            row[:] = values
        tensor = torch.from_numpy(rows)  # whose product minds the number of threads
        gram = (tensor @ tensor.T).numpy()
        coefficients = solve(gram[None], SINGLE).coefficients[0]
        left = rows[NEXT] - coefficients[0]
        for column, coefficient in zip(SINGLE[1:], coefficients[1:], strict=True):
            left -= coefficient * rows[column]
        # The coarser of x_t and x_s: a loop may hand the model a narrower copy of its state.
        self.precision = max(float(torch.finfo(x.dtype).eps), self.precision)
        size = np.sqrt(np.diag(gram)[[X, EPS, NEXT]] / x.numel())
        floor = 4 * self.precision * float(size @ np.append(np.abs(coefficients[1:]), 1.0))
        if size[[0, 2]].max() > _too_large(self.start, self.start_mean):
            floor = math.inf
        self.grams.append(gram)
        noise = _describe(left.reshape(self.shape), floor)
        self.noise.append(replace(noise, bent=_bent(left, rows, SINGLE)) if noise.there else noise)

    def result(self) -> Watched:
        """What was seen so far."""
        return Watched(
            np.array(
                self.times
                if self.broken is not None or self._briefly
                else self.times[: len(self.grams)]
            ),
            self.floating,
            np.array(self.grams).reshape(-1, 7, 7),
            tuple(self.noise),
            math.prod(self.shape),
            self.shape[0] if self.shape else 0,
            self.precision,
            self.start,
            self.start_mean,
            self.broken,
            np.array(self._kept),
        )


def _too_large(start: Noise, mean: float) -> float:
    return 1e3 * max(1.0, abs(mean), start.std)


@dataclass(frozen=True, eq=False)
class Fit:
    """Least squares of x_s on some columns, per step.

    ``coefficients`` (S, columns), their ``covariance``, and the ``std`` (S,) of what is left.
    """

    coefficients: Array
    covariance: Array
    std: Array

    @property
    def errors(self) -> Array:
        """Standard errors of the coefficients, (S, columns)."""
        return np.sqrt(np.maximum(np.einsum("sii->si", self.covariance), 0))


def solve(grams: Array, columns: list[int]) -> Fit:
    """The regression of x_s on ``columns`` from the products of every step (S, 7, 7).

    Columns that are combinations of the others to 1e-5 of their size share their part.
    """
    n = grams[:, ONE, ONE]
    scale = np.sqrt(np.maximum(grams[:, columns, columns], 1e-300))
    normal = grams[:, columns][:, :, columns] / (scale[:, :, None] * scale[:, None, :])
    inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)
    right = grams[:, columns, NEXT] / scale
    scaled = np.einsum("sij,sj->si", inverse, right)
    # One step of refinement: the pseudo-inverse alone leaves an error of condition × 1e-16.
    scaled += np.einsum("sij,sj->si", inverse, right - np.einsum("sij,sj->si", normal, scaled))
    rest = grams[:, NEXT, NEXT] - np.einsum("si,si->s", scaled, right)
    # Less than the rounding of float32 cannot be told from the cancellation in this difference.
    rest = np.maximum(rest, (ROUNDING / 2) ** 2 * grams[:, NEXT, NEXT])
    std = np.sqrt(rest / np.maximum(n - len(columns), 1))
    size = scale[:, :, None] * scale[:, None, :]
    covariance = (std**2)[:, None, None] * inverse / size
    # Nothing is learned about the coefficient of a column that is zero.
    covariance += np.eye(len(columns)) * (1e30 * (scale <= 1e-100))[:, :, None]
    return Fit(scaled / scale, covariance, std)


def _flat(x: Tensor) -> Array:
    """A copy, for a loop may go on to work in place."""
    return x.detach().to("cpu", torch.float64, copy=True).reshape(-1).numpy()


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
    return Noise(
        std,
        floor,
        ks,
        float(ks_pvalue(ks, z.size)),
        float((squares * flat).mean()),
        fourth - 3,
        *axes[0][:2],
        *grid[:2],
        axes[0][2],
        max((found[2] for found in axes[1:]), key=abs, default=0.0),
        sketch=flat[_places(flat.size)[:SKETCH]],
    )


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


def _bent(left: Array, rows: Array, columns: list[int]) -> float:
    """The score of what squares and cubes of x_t and m_t explain of the leftover (n,), R²·n ~ χ².

    The leftover is orthogonal to the ``columns`` 1, x_t, m_t of ``rows``, and if it is noise it is
    independent of every function of them. At most some 10,000 values are looked at.
    """
    every = max(left.size // 10_000, 1)
    one, x, m = rows[:, ::every][columns]
    x, m = (v - v.mean() for v in (x, m))
    m = m - x * ((x @ m) / max(x @ x, 1e-300))
    x, m = (v / max(np.sqrt((v @ v) / v.size), 1e-300) for v in (x, m))
    linear = np.stack([one, x, m])
    bent = np.stack([x * x, x * m, m * m, x * x * x, x * x * m, x * m * m, m * m * m])
    seen = left[::every]
    inverse = np.linalg.pinv(linear @ linear.T, hermitian=True)
    bent = bent - (bent @ linear.T) @ inverse @ linear
    seen = seen - (linear @ seen) @ inverse @ linear
    found = bent @ seen
    explained = found @ np.linalg.pinv(bent @ bent.T, rcond=1e-8, hermitian=True) @ found
    share = min(float(explained / max(seen @ seen, 1e-300)), 1 - 1e-12)
    free = max(seen.size - 10, 1)
    tail = float(fdtrc(7, free, share / (1 - share) * free / 7))
    return float(-ndtri(min(tail, 0.5))) if tail > 1e-300 else 37.0


@cache
def _places(size: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(size)[: max(SKETCH, PLACES)]


def score_threshold(tests: int) -> float:
    """|z| that one of ``tests`` independent normal scores exceeds once in 100,000 runs."""
    return float(-ndtri(0.5e-5 / tests))
