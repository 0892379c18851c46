r"""What a told time may stand for: a path point (a, b) of x = a·x_0 + b·n, and an answer.

A reading is a path and what the model is taken to answer. `readings_for` lists all that told times
allow, the likeliest first.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError

Array = NDArray[np.float64]
Points = tuple[Array, Array]
Time = str | Callable[[float], float]
TIMES = ("index", "index0", "fraction", "sigma", "flow")
ANSWERS = ("eps", "x0", "v", "-v", "flow", "score", "F")
BEYOND = 1.5
"""The time of a flow, of which 1 is the end, up to which a solver may ask."""
DATA_STD = 0.5
"""Of the data for which the answer F of 2206.00364 is of std 1."""


@dataclass(frozen=True, eq=False)
class Path:
    """How a told time stands for a path point.

    Attributes:
        name: "index", "index0", "fraction", "scaled", "sigma", "sigma-scaled", "flow", "log-snr",
            "log-sigma", "signal", "noise", "angle" or "function".
        levels: (a, b) of told times.
        index: the place on the schedule of told times; None for paths that need no schedule.
        signal: a as a function of b/a, whatever the times are.
    """

    name: str
    levels: Callable[[Array], Points]
    index: Callable[[Array], Array] | None = None
    signal: Callable[[Array], Array] = field(default=lambda ratio: (1 + ratio**2) ** -0.5)

    def moved(self, shift: float, schedule: NoiseSchedule) -> "Path":
        """The path at places that are ``shift`` further on."""
        place = self.index
        assert place is not None
        return _on_schedule(self.name, schedule, lambda t: place(t) + shift)

    def places(self, times: Array, schedule: NoiseSchedule) -> Array:
        """The place on the schedule of told times; by b/a where the path needs no schedule."""
        times = np.asarray(times, float)
        if self.index is not None:
            return _whole(np.asarray(self.index(times), float))
        a, b = self.levels(times)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.nan_to_num(b / a, nan=0.0, posinf=np.inf)
        return np.interp(ratio, schedule.sigma, np.arange(schedule.T + 1))


@dataclass(frozen=True, eq=False)
class Reading:
    """A path, and what the model is taken to answer.

    ``answer`` is "eps", "x0", "v" ((a·ε − b·x_0)/√(a² + b²)), "-v", "flow" (dx/dt along the told
    time), "score", or "F" (b·x_0/s − a·ε·s of 2206.00364, for data of std s = ``DATA_STD``).
    ``rising`` is whether the told times rise.
    """

    path: Path
    answer: str
    rising: bool = False

    def respond(self, a: float, b: float, x_0: Tensor, eps: Tensor) -> Tensor:
        """The answer that says x̂_0 and ε̂ at the path point (a, b)."""
        if self.answer == "eps":
            return eps
        if self.answer == "x0":
            return x_0
        if self.answer == "score":
            return -eps / max(b, 1e-12)
        if self.answer == "flow":
            return x_0 - eps if self.rising else eps - x_0
        if self.answer == "F":
            return b * x_0 / DATA_STD - a * DATA_STD * eps
        v = (a * eps - b * x_0) / math.hypot(a, b)
        return -v if self.answer == "-v" else v

    def noise(self, a: Array, b: Array) -> Points:
        """(e_x, e_m) in ε̂ = e_x·x + e_m·m, for a state x and an answer m at (a, b)."""
        square = a * a + b * b
        size, zero, one = np.sqrt(square), np.zeros_like(a), np.ones_like(a)
        if self.answer == "eps":
            return zero, one
        if self.answer == "x0":
            return 1 / b, -a / b
        if self.answer == "score":
            return zero, -b
        if self.answer == "flow":
            return 1 / (a + b), (-a if self.rising else a) / (a + b)
        if self.answer == "F":
            variance = b * b + (DATA_STD * a) ** 2
            return b / variance, -DATA_STD * a / variance
        return b / square, (-a if self.answer == "-v" else a) * size / square


def bars_at(index: Array, schedule: NoiseSchedule) -> Array:
    """ᾱ at places on the schedule; between two indices log σ is interpolated."""
    places = np.clip(np.asarray(index, float), 0, schedule.T)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, schedule.T)
    share, sigma = places - low, schedule.sigma
    with np.errstate(all="ignore"):
        between = np.exp((1 - share) * np.log(sigma[low]) + share * np.log(sigma[high]))
        linear = (1 - share) * sigma[low] + share * sigma[high]
        between = np.where((low == 0) | ~np.isfinite(between), linear, between)
        found = 1 / (1 + between**2)
    return np.where(share < 1e-9, schedule.alpha_bars[low], found)


def _whole(places: Array) -> Array:
    near = np.rint(places)
    return np.where(np.abs(places - near) < 1e-3, near, places)


def _on_schedule(name: str, schedule: NoiseSchedule, index: Callable[[Array], Array]) -> Path:
    def levels(times: Array) -> Points:
        bars = bars_at(_whole(np.asarray(index(np.asarray(times, float)))), schedule)
        return np.sqrt(bars), np.sqrt(1 - bars)

    return Path(name, levels, index)


def _linear(name: str, schedule: NoiseSchedule, factor: float, shift: float) -> Path:
    return _on_schedule(name, schedule, lambda t: t * factor + shift)


def _of_sigma(name: str, sigma: Callable[[Array], Array], scaled: float) -> Path:
    """The path of x_0 + σ·n, or of that over √(``scaled``² + σ²)."""

    def signal(ratio: Array) -> Array:
        return 1 / np.sqrt(scaled**2 + ratio**2) if scaled else np.ones_like(ratio)

    def levels(t: Array) -> Points:
        found = sigma(np.asarray(t, float))
        return signal(found), found * signal(found)

    return Path(name, levels, signal=signal)


def _sigmas(wide: bool) -> list[Path]:
    both = [_of_sigma("sigma", lambda t: t, 0.0), _of_sigma("sigma-scaled", lambda t: t, 1.0)]
    return both if wide else both[::-1]


def _flows(high: float, rising: bool) -> Iterator[Path]:
    """Straight lines. A solver of varying steps may ask beyond the end, and interpolate back."""
    for scale in (1.0, 1000.0):
        if scale / 100 < high <= scale * (BEYOND if rising else 1.0001):

            def levels(t: Array, scale: float = scale) -> Points:
                return (t / scale, 1 - t / scale) if rising else (1 - t / scale, t / scale)

            yield Path("flow", levels, signal=lambda ratio: 1 / (1 + ratio))


def _circle(times: Array, rising: bool) -> Iterator[Path]:
    """√ᾱ or ᾱ; √(1−ᾱ) or 1−ᾱ; the angle whose cosine and sine they are."""
    high = float(times.max())
    if rising and high <= 1:
        yield Path("signal", lambda t: (t, np.sqrt(np.maximum(1 - t**2, 0))))
        yield Path("signal", lambda t: (np.sqrt(t), np.sqrt(np.maximum(1 - t, 0))))
    elif not rising:
        if high <= 1:
            yield Path("noise", lambda t: (np.sqrt(np.maximum(1 - t, 0)), np.sqrt(t)))
            yield Path("noise", lambda t: (np.sqrt(np.maximum(1 - t**2, 0)), t))
        if high <= math.pi / 2 + 1e-6:
            yield Path("angle", lambda t: (np.cos(t), np.sin(t)))


def _logarithms(rising: bool) -> Iterator[Path]:
    """Log σ, a quarter of it, or log-SNR as a whole or by half, of either form of the state."""
    for factor in (-0.5, -1.0) if rising else (1.0, 4.0, 0.5):
        for scaled in (True, False):

            def sigma(t: Array, factor: float = factor) -> Array:
                return np.exp(np.clip(factor * t, -30, 30))

            yield _of_sigma("log-snr" if rising else "log-sigma", sigma, float(scaled))
    if not rising:
        yield _of_sigma("log-sigma", lambda t: np.exp(np.clip(4 * t, -30, 30)), DATA_STD)


def paths_for(
    times: Array, floating: bool, time: Time, schedule: NoiseSchedule, wide: bool = False
) -> Iterator[Path]:
    """The paths that told times may stand for, the likeliest first.

    Args:
        times: as told.
        floating: whether they are no integers.
        time: one of ``TIMES``, a function to the index, or "auto".
        schedule: of the network.
        wide: whether x_T is much wider than 1.

    Raises:
        InputError: ``time`` is not known.
    """
    T, low, high = schedule.T, float(times.min()), float(times.max())
    rising = len(times) > 1 and times[-1] > times[0]
    index = _linear("index", schedule, 1.0, 0.0)
    index0 = _linear("index0", schedule, 1.0, 1.0)
    fraction = _linear("fraction", schedule, T, 0.0)
    if callable(time):
        yield _on_schedule(
            "function", schedule, lambda t: np.array([float(time(v)) for v in np.atleast_1d(t)])
        )
        return
    if time != "auto":
        if time not in TIMES:
            raise InputError(f"time is {time!r}; allowed are 'auto', {TIMES}, or a function")
        given = {"index": index, "index0": index0, "fraction": fraction}
        if time in given:
            yield given[time]
        else:
            yield from _sigmas(wide) if time == "sigma" else _flows(high, rising)
        return
    whole = np.array_equal(times, np.rint(times))
    counted = whole and (
        not floating or (len(times) > 2 and bool((np.abs(np.diff(times)) == 1).all()))
    )
    if low < 0:
        if not whole:
            if high <= 1 + 10 / T and not rising:
                yield fraction
            yield from _logarithms(rising)
        if not rising or whole:
            yield index0
        return
    if rising and counted:
        yield index0 if low <= 0 else index
        yield index if low <= 0 else index0
        return
    if rising:
        yield from _flows(high, rising)
        yield from _circle(times, rising)
        if high <= 1:
            yield fraction
        if high > 1:
            yield from _logarithms(rising)
        return
    if floating and high <= 1 + 10 / T:
        yield fraction
        yield from _flows(high, rising)
        yield from _sigmas(wide)
        yield _linear("scaled", schedule, T - 1, 1.0)
        yield from _circle(times, rising)
        yield from _logarithms(rising)
        return
    places = [index, index0]
    if whole and high < T and (low <= 0 or high == T - 1):
        places = [index0] if low <= 0 else [index0, index]
    elif not whole:
        places = [index0, index]
    if wide or not whole:
        yield from _sigmas(wide)
    for path in places:
        if high <= T - (path.name == "index0") + 1e-6:
            yield path
    if high > T or not whole:
        for factor in (1000 / T, 999 / T, 4.0):
            for shift in (1.0, 0.0):
                fits = len(set(times.tolist())) - 1 <= high / factor + shift <= T + 1e-6
                if fits and factor != 1:
                    yield _linear("scaled", schedule, 1 / factor, shift)
    if floating and high <= 1000:
        yield from _flows(high, rising)
    if not wide and whole and floating:
        yield from _sigmas(wide)
    if not whole and high < 8:
        yield from _circle(times, rising)
        yield from _logarithms(rising)
    if high > T:  # a little off the schedule, or for another one
        yield index


def readings_for(
    times: Array, floating: bool, time: Time, schedule: NoiseSchedule, wide: bool = False
) -> Iterator[Reading]:
    """Every reading, the likeliest first."""
    rising = len(times) > 1 and bool(times[-1] > times[0])
    for path in paths_for(times, floating, time, schedule, wide):
        order: tuple[str, ...] = ("eps", "v", "x0", "-v", "score")
        if path.name == "flow":
            order = ("flow", "x0", "eps", "v")
        elif path.name in ("sigma", "sigma-scaled"):
            order = ("x0", "eps", "score", "v")
        elif path.name == "log-sigma":
            order = (*order, "F")
        for answer in order:
            yield Reading(path, answer, rising)
