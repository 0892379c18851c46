r"""Watching somebody's sampler from the side of its model.

A sampler must call its model with (x_t, t). Between two calls it turned x_t and the answer m_t
into x_s, so the pairs seen at the border hold its update rule. Of every step i the products

    G_i = Σ w wᵀ,   w = (1, x_t, m_t, x_before, m_before, x_start, x_s),

summed over all values, are kept, and nothing else but a few numbers about the leftover r_i of the
regression of x_s on (1, x_t, m_t): the noise that the step injected. Any regression of x_s on some
of the others can be read off G_i later. Memory does not grow with the size of a sample.
"""

import math
import time as clock
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from diffviz.errors import InputError
from diffviz.schedule import NoiseSchedule
from diffviz.statistics import ks_pvalue, ks_statistic

Array = NDArray[np.float64]
Time = str | Callable[[float], float]
Answer = Callable[[Tensor, float, bool], Tensor]

ONE, X, EPS, PREVIOUS_X, PREVIOUS_EPS, START, NEXT = range(7)
ROUNDING = 2.0**-24
"""Half a unit in the last place of a float32 near 1."""


@dataclass(frozen=True)
class Noise:
    """What is left of one step's x_s after the regression on (1, x_t, m_t).

    ``batch`` is the mean correlation between two samples and ``grid`` the largest correlation
    between neighbours along an axis of the sample; both come with a normal score.
    """

    std: float
    floor: float
    ks: float
    ks_p: float
    batch: float
    batch_score: float
    grid: float
    grid_score: float


@dataclass(frozen=True, eq=False)
class Watched:
    """Everything seen of S steps: ``times`` and ``floating`` as passed, ``grams`` (S, 7, 7).

    A state has ``values`` numbers in ``batch`` samples; ``precision`` is the last place of their
    type. ``start`` is the mean, the std and the KS distance of x_T; ``broken`` is the time of the
    last call before x was not finite.
    """

    times: Array
    floating: bool
    grams: Array
    noise: tuple[Noise, ...]
    values: int
    batch: int
    precision: float
    start: tuple[float, float, float]
    broken: float | None

    @property
    def sane(self) -> NDArray[np.bool_]:
        """Steps before the state has grown so far that float32 swallows what they do, (S,)."""
        size = np.sqrt(self.grams[:, [X, NEXT], [X, NEXT]] / self.values).max(axis=1)
        return np.logical_and.accumulate(size <= 1e3 * max(1.0, *self.start[:2]))


class Stopped(BaseException):
    """Ends a sampler from inside its model; no handler of a sampler should hold it."""


class Watch:
    """A model that answers as told and keeps the products of consecutive calls.

    Repeated calls with one x and t, and a batch of two equal halves, as guidance makes them, get
    one answer and count once.
    """

    def __init__(self, answer: Answer, calls: int, seconds: float) -> None:
        self._answer, self._calls, self._deadline = answer, calls, clock.perf_counter() + seconds
        self._seconds = seconds
        self.times: list[float] = []
        self.floating = False
        self.grams: list[Array] = []
        self.noise: list[Noise] = []
        self.shape: tuple[int, ...] = ()
        self.start: tuple[float, float, float] = (math.nan,) * 3
        self.broken: float | None = None
        self.precision = 2 * ROUNDING
        self._x: Tensor | None = None
        self._last: Tensor | None = None
        self._columns: list[Array] = []
        self._first: Array | None = None

    def __call__(self, x: Tensor, t: object, *arguments: object, **context: object) -> Tensor:
        """The scripted answer to (x, t); whatever else is passed is context and ignored."""
        value, floating = passed_time(t)
        if not isinstance(x, Tensor):
            raise InputError(f"the sampler passed {type(x).__name__} as x at t = {value:g}")
        whole, x = x, first_half(x)
        again = self._x is not None and value == self.times[-1] and torch.equal(x, self._x)
        if self._last is not None and again:
            return self._last.repeat(len(whole) // len(x), *[1] * (x.ndim - 1))
        self.see(x, value)
        if len(self.times) >= self._calls:
            raise Stopped(f"the sampler called its model {self._calls} times and did not end")
        if clock.perf_counter() > self._deadline:
            raise Stopped(
                f"the sampler did not end within {self._seconds:g} s; "
                f"call {len(self.times) + 1} was at t = {value:g}"
            )
        self.floating |= floating
        answer = self._answer(x, value, self.floating)
        self.times.append(value)
        self._x, self._last = x.detach().clone(), answer
        before = self._columns[:2] if self._columns else [np.zeros(x.numel())] * 2
        self._columns = [_flat(x), _flat(answer), *before]
        if self._first is None:
            self._first = self._columns[0]
        return answer.repeat(len(whole) // len(x), *[1] * (x.ndim - 1))

    def see(self, x: Tensor, value: float | None) -> None:
        """Take in x_s, the state at the next call or, with no time, the end of the sampler."""
        where = "at the end" if value is None else f"at t = {value:g}"
        if not self.times:
            self.shape = tuple(x.shape)
        if tuple(x.shape) != self.shape:
            raise InputError(
                f"the sampler changed the shape of x from {self.shape} to {tuple(x.shape)} {where}"
            )
        if not bool(torch.isfinite(x).all()):
            self.broken = self.times[-1] if self.times else value
            raise Stopped("not finite")
        if not self.times:
            self.start = _normality(_flat(x))
        if self._x is None or self._first is None:
            return
        rows = np.stack([np.ones(x.numel()), *self._columns, self._first, _flat(x)])
        gram = rows @ rows.T
        kept = [ONE, X, EPS]
        coefficients = solve(gram[None], kept).coefficients[0]
        left = rows[NEXT] - coefficients @ rows[kept]
        self.precision = max(float(torch.finfo(x.dtype).eps), 2 * ROUNDING)
        size = np.sqrt(np.diag(gram)[[X, EPS, NEXT]] / x.numel())
        floor = 4 * self.precision * float(size @ np.append(np.abs(coefficients[1:]), 1.0))
        if size[[0, 2]].max() > 1e3 * max(1.0, *self.start[:2]):
            floor = math.inf
        self.grams.append(gram)
        self.noise.append(_describe(left.reshape(self.shape), floor))

    def result(self) -> Watched:
        """What was seen so far."""
        return Watched(
            np.array(self.times if self.broken is not None else self.times[: len(self.grams)]),
            self.floating,
            np.array(self.grams).reshape(-1, 7, 7),
            tuple(self.noise),
            math.prod(self.shape),
            self.shape[0] if self.shape else 0,
            self.precision,
            self.start,
            self.broken,
        )


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
    return Fit(scaled / scale, (std**2)[:, None, None] * inverse / size, std)


def passed_time(t: object) -> tuple[float, bool]:
    """(value, whether it is a float) of a time passed as a number or a tensor of any shape."""
    if isinstance(t, Tensor | np.ndarray | np.generic):
        values = torch.as_tensor(t).detach().to("cpu").reshape(-1)
        if values.numel() == 0 or not bool((values == values[0]).all()):
            raise InputError(f"the times of one call differ or are none: {values.tolist()[:4]}")
        return float(values[0]), values.is_floating_point()
    if isinstance(t, int | float) and not isinstance(t, bool):
        return float(t), isinstance(t, float)
    raise InputError(f"the sampler passed {t!r} as t; allowed are numbers and tensors")


def first_half(x: Tensor) -> Tensor:
    """One half of a batch that holds every sample twice, in order; any other batch as it is."""
    half = len(x) // 2 if x.ndim else 0
    return x[:half] if half and 2 * half == len(x) and torch.equal(x[:half], x[half:]) else x


KINDS = ("index", "index0", "fraction", "sigma")


def time_kinds(times: Array, floating: bool, time: Time, schedule: NoiseSchedule) -> list[Time]:
    """The conventions that the times passed may follow, the likeliest first.

    Raises:
        InputError: ``time`` is not a known convention.
    """
    if time != "auto":
        if not callable(time) and time not in KINDS:
            raise InputError(f"time is {time!r}; allowed are 'auto', {KINDS}, or a function")
        return [time]
    if floating and times.min() >= 0 and times.max() <= 1:
        on_grid = np.allclose(times * schedule.T, np.rint(times * schedule.T), atol=1e-3)
        return ["fraction"] if on_grid else ["fraction", "sigma"]
    if np.array_equal(times, np.rint(times)):
        if times.max() >= schedule.T:
            return ["index"]
        if times.min() <= 0:
            return ["index0"]
        return ["index0", "index"] if times.max() == schedule.T - 1 else ["index", "index0"]
    return ["sigma", "index0", "index"] if times.max() < 4 * schedule.sigma[-1] else ["index0"]


def index_of(times: Array, kind: Time, schedule: NoiseSchedule) -> Array:
    """The index on the schedule of each time passed; σ between two indices lies between them."""
    if callable(kind):
        index = np.array([float(kind(value)) for value in times])
    elif kind == "sigma":
        index = np.interp(times, schedule.sigma, np.arange(schedule.T + 1))
    else:
        index = {"index": times, "index0": times + 1, "fraction": times * schedule.T}[kind]
    whole = np.rint(index)
    return np.where(np.abs(index - whole) < 1e-3, whole, index) if kind != "sigma" else index


def _flat(x: Tensor) -> Array:
    return x.detach().to("cpu", torch.float64).reshape(-1).numpy()


def _normality(values: Array) -> tuple[float, float, float]:
    mean, std = float(values.mean()), float(values.std())
    return mean, std, ks_statistic((values - mean) / std) if std > 0 else 1.0


def _describe(left: Array, floor: float) -> Noise:
    std = float(left.std())
    if std <= floor or left.size < 8:
        return Noise(std, floor, *[math.nan] * 6)
    z = left / std
    ks = ks_statistic(z)
    batch, samples = len(z), z.reshape(len(z), -1)
    # Σ_d (Σ_b z)²/B is χ² with one degree of freedom per coordinate when samples are independent.
    ratio = float((samples.sum(axis=0) ** 2).mean() / batch)
    spread = 2 / (9 * samples.shape[1])
    batch_score = (ratio ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    grid, grid_score = 0.0, 0.0
    for axis in range(1, z.ndim):
        if z.shape[axis] > 1:
            a, b = (
                np.take(z, range(1, z.shape[axis]), axis),
                np.take(z, range(z.shape[axis] - 1), axis),
            )
            value = float(np.clip((a * b).mean(), -1 + 1e-12, 1 - 1e-12))
            score = math.atanh(value) * math.sqrt(a.size)
            if abs(score) > abs(grid_score):
                grid, grid_score = value, score
    pairs = (ratio - 1) / (batch - 1) if batch > 1 else math.nan
    p = float(ks_pvalue(ks, z.size))
    return Noise(std, floor, ks, p, pairs, batch_score, grid, grid_score)


def score_threshold(tests: int) -> float:
    """|z| that one of ``tests`` independent normal scores exceeds once in 10,000 runs."""
    return float(norm.isf(0.5e-4 / tests))
