r"""Watching somebody's sampler from the side of its model.

A sampler must call its model with (x_t, t). Between two calls it turned x_t and the answer m_t
into x_s, so the pairs seen at the border hold its update rule. Of every step i the products

    G_i = Σ w wᵀ,   w = (1, x_t, m_t, x_before, m_before, x_start, x_s),

summed over all values, are kept, and nothing else but a few numbers about the leftover r_i of the
regression of x_s on (1, x_t, m_t): the noise that the step injected. Any regression of x_s on some
of the others can be read off G_i later. Memory does not grow with the size of a sample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import f as fisher
from scipy.stats import norm
from scipy.stats import t as student
from torch import Tensor

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.measure.ks import ks_pvalue, ks_statistic

Array = NDArray[np.float64]
Time = str | Callable[[float], float]
Answer = Callable[[Tensor, float, bool], Tensor]

ONE, X, EPS, PREVIOUS_X, PREVIOUS_EPS, START, NEXT = range(7)
SINGLE = [ONE, X, EPS]
DOUBLE = [ONE, X, EPS, PREVIOUS_X, PREVIOUS_EPS]
ROUNDING = 2.0**-24
"""Half a unit in the last place of a float32 near 1."""
X_NAMES = ("x", "sample", "x_t", "hidden_states")
T_NAMES = ("t", "timestep", "timesteps", "sigma", "time")
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


class Stopped(BaseException):
    """Ends a sampler from inside or from outside; no handler of a sampler should hold it."""


class Watch(torch.nn.Module):
    """A model that answers as told and keeps the products of consecutive calls.

    Repeated calls with one x and t, and a batch of two equal halves, as guidance makes them, get
    one answer and count once. With ``briefly`` only the values at places are kept.
    """

    def __init__(self, answer: Answer, calls: int, briefly: bool = False) -> None:
        super().__init__()
        self._briefly = briefly
        # Loops ask a model for its parameters to learn the device.
        self.nothing = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self._answer, self._calls = answer, calls
        self.times: list[float] = []
        self.floating = False
        self.grams: list[Array] = []
        self.noise: list[Noise] = []
        self.shape: tuple[int, ...] = ()
        self.start, self.start_mean = Noise(math.nan, math.nan), math.nan
        self.broken: float | None = None
        self.precision = 2 * ROUNDING
        self._whole: Tensor | None = None
        self._x: Tensor | None = None
        self._last: Tensor | None = None
        self._columns: list[Array] = []
        self._rows = np.ones((7, 0))
        self._first: Array | None = None
        self._kept: list[Array] = []

    def forward(self, *arguments: object, **keywords: object) -> object:
        """The scripted answer to (x, t); whatever else is passed is context and ignored."""
        x, t = called_with(arguments, keywords)
        try:
            value, floating = passed_time(t)
        except InputError as error:
            last = f"after t = {self.times[-1]:g}" if self.times else "at its first call"
            raise InputError(f"{error}; {last}") from None
        if isinstance(x, np.ndarray):
            answer = self.forward(torch.as_tensor(x), t)
            return answer.numpy() if isinstance(answer, Tensor) else answer
        if not isinstance(x, Tensor) or x.ndim == 0 or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) and x.ndim else type(x).__name__
            raise InputError(
                f"the sampler passed x of type {kind} at t = {value:g}; allowed are batches of "
                "floating-point numbers"
            )
        whole, x = x, first_half(x)
        if len(self.times) == 1 and len(x) == 2 * self.shape[0] and self._whole is not None:
            self._begin(self._whole, self.times[0])  # all samples of x_T were the same
        again = self._x is not None and value == self.times[-1] and torch.equal(x, self._x)
        if self._last is None or not again:
            self.see(x, value)
            if len(self.times) >= self._calls:
                raise Stopped(f"called its model {self._calls} times and did not end")
            self.floating |= floating
            self._last = self._answer(x, value, self.floating)
            if not self.times:
                self._whole = whole.detach().clone()
            self.times.append(value)
            self._x = x.detach().clone()
            before = self._columns[:2] if self._columns else [np.zeros(x.numel())] * 2
            self._columns = [_flat(x), _flat(self._last), *before]
            self._keep(*self._columns[:2])
        answer = self._last.repeat(len(whole) // len(x), *[1] * (x.ndim - 1))
        # As the models of diffusers answer: a tuple when asked for one, and an attribute.
        # No view: one would hold its base, which holds it, for ever.
        answer.sample = answer.clone()  # type: ignore[attr-defined]
        return (answer,) if keywords.get("return_dict") is False else answer

    def _begin(self, x: Tensor, value: float) -> None:
        """Take in x_T; a second time if its equal halves were not those of guidance."""
        self.shape = tuple(x.shape)
        self._first = _flat(x)
        self._rows = np.ones((7, x.numel()))
        self.start_mean = float(self._first.mean())
        self.start = _describe((self._first - self.start_mean).reshape(self.shape), 0.0)
        if self._last is not None:
            self._last = self._last.repeat(2, *[1] * (x.ndim - 1))
            self._columns = [self._first, _flat(self._last), *[np.zeros(x.numel())] * 2]
            self._kept = []
            self._keep(*self._columns[:2])

    def _keep(self, x: Array, m: Array) -> None:
        places = _places(x.size)[:PLACES]
        self._kept.append(np.stack([x[places], m[places]]))

    def see(self, x: Tensor, value: float | None) -> None:
        """Take in x_s, the state at the next call or, with no time, the end of the sampler."""
        where = "at the end" if value is None else f"at t = {value:g}"
        if value is None and self.times and len(x) == 2 * self.shape[0]:
            x = first_half(x)  # samples that never differed looked like a guided batch
        if self.times and tuple(x.shape) != self.shape:
            raise InputError(
                f"the sampler changed the shape of x from {self.shape} to {tuple(x.shape)} {where}"
            )
        if not bool(torch.isfinite(x).all()):
            self.broken = self.times[-1] if self.times else value
            raise Stopped
        if not self.times:
            self._begin(x, value or 0.0)
        if self._x is None or self._first is None:
            return
        if value is None:
            self._keep(_flat(x), np.zeros(x.numel()))
        if self._briefly:
            return
        rows = self._rows  # one array for all steps: fetching pages costs as much as the sums
        for row, values in zip(rows[1:], [*self._columns, self._first, _flat(x)], strict=True):
            row[:] = values
        gram = rows @ rows.T
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


def called_with(
    arguments: Sequence[object], keywords: Mapping[str, object]
) -> tuple[object, object]:
    """The state and the time of a call, by place or by the names that models give them."""
    found: list[object] = []
    for place, names in enumerate((X_NAMES, T_NAMES)):
        named = [keywords[name] for name in names if name in keywords]
        if len(arguments) > place:
            found.append(arguments[place])
        elif named:
            found.append(named[0])
        else:
            raise InputError(
                f"the loop called its model without {names[0]}; allowed is model(x, t, ...), "
                f"or a keyword of {', '.join(names)}"
            )
    return found[0], found[1]


def end_of(end: object, shape: tuple[int, ...]) -> object:
    """x_0 in what a sampler returns: of a list the last state, else the first.

    The tutorial's loops return (x_0, all states); others a list of states, or a dict of results.
    """
    if isinstance(end, Mapping):
        end = tuple(end.values())
    if not isinstance(end, tuple | list) or not end:
        return end
    states = [item for item in end if getattr(item, "shape", None) == shape] or list(end[:1])
    return states[-1] if isinstance(end, list) else states[0]


def passed_time(t: object) -> tuple[float, bool]:
    """(value, whether it is a float) of a time passed as a number or a tensor of any shape."""
    if isinstance(t, Tensor | np.ndarray | np.generic):
        values = torch.as_tensor(t).detach().to("cpu").reshape(-1)
        if values.numel() == 0 or not bool((values == values[0]).all()):
            raise InputError(f"the times of one call differ or are none: {values.tolist()[:4]}")
        return _finite(float(values[0])), values.is_floating_point()
    if isinstance(t, int | float) and not isinstance(t, bool):
        return _finite(float(t)), isinstance(t, float)
    raise InputError(f"the sampler passed {t!r} as t; allowed are numbers and tensors")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise InputError(f"the sampler passed {value} as t; allowed are finite numbers")
    return value


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
    if floating and times.min() >= 0 and times.max() <= 1 + 10 / schedule.T:
        on_grid = np.allclose(times * schedule.T, np.rint(times * schedule.T), atol=1e-3)
        if on_grid or times.max() <= 1:
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
    tail = float(student.sf(t, n - 1)) * len(r)
    pair = float(norm.isf(min(tail, 0.5))) if tail > 1e-300 else max(37.0, t)
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
    tail = float(fisher.sf(share / (1 - share) * free / 7, 7, free))
    return float(norm.isf(min(tail, 0.5))) if tail > 1e-300 else 37.0


@cache
def _places(size: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(size)[: max(SKETCH, PLACES)]


def score_threshold(tests: int) -> float:
    """|z| that one of ``tests`` independent normal scores exceeds once in 100,000 runs."""
    return float(norm.isf(0.5e-5 / tests))
