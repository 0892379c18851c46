r"""What a sampler does, whatever its rule: the law of its states under an exact model.

A sampler tells its model a time, and with it a path point (a, b): the state should be
x = a·x_0 + b·n with n ~ N(0, I). For data N(μ, s²) in every coordinate the exact answer is known,

    D = μ + s²a(x − aμ)/v,   ε̂ = b(x − aμ)/v,   v = a²s² + b²,

and with it at every call the law that the state must have: the signal A (regression of x on μ) is
a, the level L (std of x − Aμ) is √v. At the end they are 1 and s.

What the loop passes as t and what it takes the answer for are found the same way: of all readings,
a path and a kind of answer, the one under which the loop behaves. A reading is dropped at the
first call that is off.

For a point, s = 0, a consistent rule is exact on any grid. s = ½ also feels how the answer depends
on x. Deviations count against data of std ½, so that a level that is off where hardly any noise is
left counts as little as it does in a picture.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.calls import Loop, Randomness, Spy, in_reach
from diffviz.identify.paths import Reading, Time, readings_for

Array = NDArray[np.float64]
SPREAD = 0.5
"""The std of data against which a deviation counts."""
DROP = 0.35
"""A reading is dropped at a call that is off by more. Right ones stay below 0.1."""
MARGIN = 0.05
"""By how much a less likely reading must be better; after one that stays below, none is tried."""
OFF = 0.12
"""A loop misbehaves from here on: right loops of 20 families stay below 0.09."""
SEEN = 0.07
"""A deviation that is worth a warning where no rule explains it."""
END_NOISE = 0.1
"""The std that a point may have at the end. Right loops stop at up to 0.06 by design."""
END_HALF = 0.5
"""|log| of the end's std over that of the data at s = ½, for loops of ``ENOUGH`` calls or more."""
TRIED = 6
"""How many readings are tried with a model that knows the level of a state."""
LATE = 0.2
"""The signal that may be missing at the start."""
ENOUGH = 16
KEPT = 4096
"""Values of every state that are kept to compare two runs."""


# ------------------------------------------------------------------ one run


@dataclass(eq=False)
class Trace:
    """What one run on an exact model has shown, call by call.

    ``off`` is the deviation of a call: |log| of the state's std over the told one, with data of
    std ½ in both, or the signal's distance likewise, whichever is larger.
    """

    spread: float
    told: list[float] = field(default_factory=list)
    a: list[float] = field(default_factory=list)
    b: list[float] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)
    level: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    last: Tensor | None = None
    dropped: bool = False
    broken: float | None = None
    end: "End | None" = None

    @property
    def total(self) -> float:
        """The cost of a whole run, its end included."""
        cost = self.cost
        if self.end is not None:
            # A last step that leaves noise by design is not a reading that is wrong.
            left = self.end.noise if not self.spread else 0.0
            cost = max(
                cost, abs(self.end.signal - 1) * SPREAD, left + OFF if left > END_NOISE else 0.0
            )
            free = self.end.picture or self.end.scaled
            cost = max(cost, 0.0 if free else abs(self.end.shift) - 0.05)
        return cost

    @property
    def beta_over_jumps(self) -> bool:
        """For a point, every level is the one that DDPM's larger variance leaves on these times.

        x_s = √ᾱ_s μ + c (x_t − √ᾱ_t μ) + √(1 − α) z, α = ᾱ_t/ᾱ_s, c = √α (1 − ᾱ_s)/(1 − ᾱ_t)
        (arXiv 2006.11239, eq. 7). Over long jumps that is more noise than a point needs.
        """
        a, b, level = (np.array(v) for v in (self.a, self.b, self.level))
        if self.spread or len(a) < 2 or self.off[0] > OFF or not np.allclose(a**2 + b**2, 1):
            return False
        held = level[0]
        for k in range(len(a) - 1):
            alpha = min((a[k] / a[k + 1]) ** 2, 1.0)
            kept = alpha * (b[k + 1] / b[k]) ** 4
            held = math.sqrt(kept * held**2 + 1 - alpha)
            if abs(math.log(max(level[k + 1], 1e-12) / max(held, 1e-12))) > MARGIN:
                return False
        return True

    def first_order(self, noise: Array | None = None) -> tuple[Array, Array]:
        """(signals, stds) of the end of first-order rules on the told levels, for these data.

        DDIM's, DDPM's with either variance, and x̂_0 with fresh noise; of a loop whose noise is
        known at every step, the last two with that noise. x̂_0 = μ + g·(x − aμ) with
        g = s²a/(a²s² + b²), so that signal and variance follow linear recursions.
        """
        a, b = np.array(self.a), np.array(self.b)
        order = [0, *(i for i in range(1, len(a)) if 0 <= b[i] / a[i] < 0.999 * (b / a)[:i].min())]
        if noise is not None and len(order) != len(noise):
            noise = None
        a, b = np.append(a[order], 1.0), np.append(b[order], 0.0)
        size = np.hypot(a, b)
        signal, variance = np.full(4, self.signal[0]), np.full(4, self.level[0] ** 2)
        for k in range(len(a) - 1):
            g = self.spread**2 * a[k] / ((a[k] * self.spread) ** 2 + b[k] ** 2)
            alpha = min((a[k] / size[k] / (a[k + 1] / size[k + 1])) ** 2, 1.0)
            rest = (b[k + 1] / size[k + 1]) ** 2
            small = (1 - alpha) * rest / (b[k] / size[k]) ** 2
            added = size[k + 1] ** 2 * np.array([0, small, (1 - alpha) * (rest > 0), rest])
            if noise is not None:
                added[2:] = noise[k] ** 2 if np.isfinite(noise[k]) else added[1]
            room = np.maximum(b[k + 1] ** 2 - added, 0)
            room[2] = b[k + 1] ** 2 - size[k + 1] ** 2 * small
            d = np.sqrt(np.maximum(room, 0)) / b[k]
            kept = a[k + 1] * g + d * (1 - a[k] * g)
            clean = 1 - g * a[k] + g * signal
            signal = a[k + 1] * clean + d * (signal - a[k] * clean)
            variance = kept**2 * variance + added
        return signal, np.sqrt(variance)

    @property
    def wrong_end(self) -> bool:
        """The end's std is far from that of the data, after steps enough."""
        if self.end is None or len(self.off) < ENOUGH or not self.spread:
            return False
        return abs(math.log(max(self.end.noise, 1e-9) / self.spread)) > END_HALF

    @property
    def cost(self) -> float:
        """The largest deviation of all calls; infinite for a run that was dropped."""
        if self.dropped or self.broken is not None or not self.off:
            return math.inf
        return float(self.counted.max())

    @property
    def counted(self) -> Array:
        """The deviations, without those of steps that were tried and taken back.

        An adaptive solver that finds a step too long asks again at a time with more noise. If the
        state is right there, what was asked in between has no part in it.
        """
        off, ratio = np.array(self.off), np.array(self.b) / np.maximum(self.a, 1e-12)
        right = np.where(off <= OFF, ratio, 0.0)
        later = np.append(np.maximum.accumulate(right[::-1])[::-1][1:], 0.0)
        return np.where((off > OFF) & (later > 1.001 * ratio), 0.0, off)


@dataclass(frozen=True)
class End:
    """The end x = gain·(μ + noise·n) + shift; ``picture`` where gain and shift map to a range."""

    gain: float
    shift: float
    noise: float
    picture: bool

    @property
    def signal(self) -> float:
        """1 at a right end."""
        return 1.0 if self.picture or self.scaled else self.gain

    @property
    def scaled(self) -> bool:
        """Nothing but the picture times a number, as the latents that a decoder takes."""
        clean = self.noise < 0.02 * abs(self.gain)
        return clean and not self.picture and not 0.9 < self.gain < 1.1 and self.gain > 0


class ExactModel(Spy):
    """The exact model of N(μ, s²) under a reading, which measures every state that it is shown."""

    def __init__(
        self,
        loop: Loop,
        reading: Reading,
        spread: float,
        mean: Tensor,
        *,
        bound: float = math.inf,
        other: Trace | None = None,
        keep: bool = False,
        only: Tensor | None = None,
        least: float = 0.0,
        own: bool = False,
    ) -> None:
        super().__init__(self._exact, loop.layout, loop.calls, loop.seconds, loop.shape[0])
        self.trace = Trace(spread)
        self._reading, self._mean, self._bound, self._keep = reading, mean, bound, keep
        self._other = other
        self._only = None if only is None else only.reshape(-1)
        self._flat = mean.reshape(-1).double()
        if self._only is not None:
            self._flat = self._flat[self._only]
        self._square = float(self._flat @ self._flat)
        self._point = (0.0, 1.0)
        self._least, self._wide, self._own = least, 1.0, own

    def see(self, x: Tensor, value: float) -> None:
        """Measure the state, and end the run where its reading is wrong."""
        trace = self.trace
        a, b = (float(v[0]) for v in self._reading.path.levels(np.array([value])))
        empty = b == 0 and self._reading.answer in ("eps", "score") and 0.0 in trace.b
        if not (math.isfinite(a) and math.isfinite(b)) or empty:
            trace.dropped = True  # ε̂ of the data themselves is asked for again and again
            raise _Dropped
        self._point = a, b
        flat = trace.last = x.reshape(-1).to("cpu", torch.float64, copy=True)
        if self._only is not None and self._only.numel() == flat.numel():
            flat = flat[self._only]
        if flat.numel() != self._flat.numel():
            raise InputError(
                f"the states of the sampler held {self._flat.numel()} values once and "
                f"{flat.numel()} the next time; its runs cannot be compared"
            )
        signal = float(flat @ self._flat) / self._square if self._square > 1e-9 else a
        variance = float(flat @ flat) / flat.numel() - signal**2 * self._square / flat.numel()
        level = math.sqrt(max(variance, 0.0))
        if self._own:
            a, b = self._point = self._held(signal, level)
        if self._keep:
            trace.kept.append(flat[:KEPT].clone())
        if self._other is not None:
            # Of two runs with other noise the difference holds none of what both were given.
            k = len(trace.told)
            if k >= len(self._other.kept):
                raise _Dropped
            apart = flat[:KEPT] - self._other.kept[k]
            level = float(apart.square().mean().sqrt()) / math.sqrt(2)
            signal = a
        trace.told.append(value)
        trace.a.append(a)
        trace.b.append(b)
        trace.signal.append(signal)
        trace.level.append(level)
        trace.off.append(self._deviation(a, b, signal, level, flat.numel()))
        if trace.off[-1] > self._bound:
            trace.dropped = True
            raise _Dropped

    def _deviation(self, a: float, b: float, signal: float, level: float, n: int) -> float:
        spread = self.trace.spread
        # A point counts as data of std ½; other data have their own.
        beside = (a * SPREAD) ** 2 if spread == 0 else 0.0
        told = math.sqrt(b * b + (a * spread) ** 2 + beside)
        if told == 0:
            return 0.0
        held = math.sqrt(level**2 + beside)
        # Half a sampling error of each is taken off four times, so that few values do not count.
        chance = 4 / math.sqrt(2 * n), 4 * level / math.sqrt(max(self._square, 1e-9))
        first = self.trace
        if len(first.told) == 1:
            # A schedule that keeps a part of the data at T is its own fault, not that of a start
            # from N(0, 1); a deterministic loop carries what is too much on.
            normal = a <= self._least + LATE and abs(level - 1) < 0.05
            self._wide = max(level / b, 1.0) if normal else 1.0
        most = math.sqrt((b * self._wide) ** 2 + (a * spread) ** 2 + beside)
        over, under = math.log(max(held, 1e-12) / most), math.log(told / max(held, 1e-12))
        by_level = max(over - chance[0], under - chance[0], 0.0)
        # Pure noise has none of the signal that the first call is told; that is said by itself,
        # and a deterministic loop carries it on as it does the noise.
        missing = max(first.a[0] - first.signal[0], 0.0) * b / max(first.b[0], 1e-12)
        apart = max(signal - a, a - missing - signal, 0.0)
        by_signal = max(apart - chance[1], 0.0) * SPREAD / told
        return max(by_level, by_signal)

    def _held(self, signal: float, level: float) -> tuple[float, float]:
        """The point of the path that a state is nearest to, whatever time is told."""
        most = math.sqrt(max(1 / self._least**2 - 1, 1.0)) if self._least else 1e4
        ratio = np.geomspace(1e-4, most if self._reading.path.index else 1e4, 4000)
        a = self._reading.path.signal(ratio)
        b = ratio * a
        apart = ((a - signal) * SPREAD) ** 2 + (b - level) ** 2
        i = int(np.argmin(apart / (b**2 + (a * SPREAD) ** 2)))
        return float(a[i]), float(b[i])

    def _exact(self, x: Tensor, value: float, floating: bool) -> Tensor:
        a, b = self._point
        spread = self.trace.spread
        mean = self._mean.to(x.device)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance = (a * spread) ** 2 + b * b
        if variance < 1e-24:
            return self._reading.respond(a, b, mean, torch.zeros_like(wide))
        away = wide - a * mean
        x_0 = mean + (spread**2 * a / variance) * away
        return self._reading.respond(a, b, x_0, (b / variance) * away)


class _First(Spy):
    """Ends the run at its first call, with x_T."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(lambda x, value, floating: x, loop.layout, 1, loop.seconds, loop.shape[0])
        self.first = loop.start

    def see(self, x: Tensor, value: float) -> None:
        """Keep it and end."""
        self.first = x.clone()
        raise _Dropped


class _Dropped(BaseException):
    """Ends a run whose reading is wrong."""


def _picture(gain: float, shift: float, low: float, high: float) -> bool:
    """Whether gain·x + shift maps x in (−1, 1), or its own range, to 0…1 or 0…255."""
    if gain <= 0:
        return False
    for top in (1.0, 255.0):
        if abs(gain - top / 2) < 0.01 * top and abs(shift - top / 2) < 0.02 * top:
            return True
        if shift > 0.2 * top and abs(low) < 0.01 * top and abs(high - top) < 0.01 * top:
            return True
    return False


def _end_of(values: Tensor, mean: Tensor) -> End:
    flat, mu = values.reshape(-1).double(), mean.reshape(-1).double()
    centered = mu - mu.mean()
    gain = float(flat @ centered) / float(centered @ centered)
    shift = float(flat.mean() - gain * mu.mean())
    left = flat - gain * mu - shift
    picture = _picture(gain, shift, float(flat.min()), float(flat.max()))
    std = float(left.square().mean().sqrt())
    if not picture:
        std = float((flat - gain * mu).square().mean().sqrt())
    return End(gain, shift, std / max(abs(gain), 1e-3) if picture else std, picture)


# ------------------------------------------------------------------ all runs


class Experiment:
    """Runs of one loop on exact models, each from its own state of the global generators."""

    def __init__(self, loop: Loop, seed: int, randomness: Randomness, bar: float) -> None:
        self.loop, self.seed, self.randomness, self.bar = loop, seed, randomness, bar
        generator = torch.Generator().manual_seed(seed)
        self.mean = (torch.rand(loop.shape, generator=generator) - 0.5).float()
        self._starts = [loop.start]

    def starts(self, count: int = 2) -> list[Tensor]:
        """x_T of runs from other states of the global generators, the first run's before them."""
        while len(self._starts) < count:
            self.randomness.other(1 + len(self._starts))
            model = _First(self.loop)
            with contextlib.suppress(_Dropped):
                self.loop.run(model)
            self._starts.append(model.first)
        return self._starts[:count]

    def run(
        self,
        reading: Reading,
        spread: float = 0.0,
        number: int = 1,
        bound: float = math.inf,
        mean: Tensor | None = None,
        other: Trace | None = None,
        keep: bool = False,
        only: Tensor | None = None,
        own: bool = False,
    ) -> Trace:
        """One run; ``number`` chooses the state of the generators.

        With ``own`` the model answers by the level that the state holds, whatever it is told.
        """
        mean = self.mean if mean is None else mean
        self.randomness.other(number)
        model = ExactModel(
            self.loop, reading, spread, mean, bound=bound, other=other, keep=keep, only=only,
            least=math.sqrt(self.bar), own=own,
        )  # fmt: skip
        try:
            ending = self.loop.run(model)
        except _Dropped:
            ending = None
        trace = model.trace
        trace.broken = model.broken
        if ending is not None:
            if ending.values is not None and not in_reach(ending.values):
                trace.broken = trace.told[-1]
            elif ending.values is not None:
                trace.end = _end_of(ending.values, mean)
                if ending.kind == "picture" and not trace.end.picture:
                    trace.end = None
        return trace


@dataclass(frozen=True, eq=False)
class Behaviour:
    """What a sampler does.

    Attributes:
        lab: where more runs can be made.
        ways: every reading that its times allow.
        reading: the one under which it behaves, or the likeliest; None where none is.
        point, half: the runs for a point, and for s = ½, or 0.2 for loops that clip.
        kind: "noise" for a loop that starts from noise, "given" for one that starts from a noised
            picture of its own, "painted" for one that writes known values into its state.
        known: every step is exactly that of a known rule, so that what is off is its grid.
        caused: every step is exactly that of a known rule at other times or tables than are told.
    """

    lab: Experiment
    ways: tuple[Reading, ...]
    reading: Reading | None = None
    point: Trace | None = None
    half: Trace | None = None
    kind: str = "noise"
    known: bool = False
    caused: bool = False

    def seen_as(
        self, reading: Reading | None, point: Trace | None = None, kind: str = "noise"
    ) -> "Behaviour":
        """The behaviour under one reading, whatever it is."""
        if reading is None:
            return self
        point = self.lab.run(reading) if point is None else point
        half = None
        if kind == "noise":
            half = self.lab.run(reading, 0.5)
            if half.wrong_end and point.total <= OFF:
                # Clipping bends data that reach beyond (−1, 1).
                small = self.lab.run(reading, 0.2, mean=0.4 * self.lab.mean)
                half = half if small.wrong_end else small
        return replace(self, reading=reading, point=point, half=half, kind=kind)

    @property
    def behaves(self) -> bool | None:
        """Whether every call, and the end, hold what is told; None where nothing can be said."""
        if self.reading is None or self.point is None:
            return False if len(self.ways) else None
        if self.point.broken is not None or not self.point.off:
            return False
        ends = self.half is None or not self.half.wrong_end
        if self.known and self.first != 0:
            return self.lacking <= LATE
        most = SEEN if self.caused else OFF
        right = self.point.total <= most or (self.point.beta_over_jumps and not self.caused)
        return right and self.lacking <= LATE and ends

    @property
    def lacking(self) -> float:
        """The signal that the first call is told and pure noise lacks, beyond what it is at T."""
        if self.point is None or self.reading is None or self.kind != "noise":
            return 0.0
        if self.reading.path.index is None:
            return 0.0
        b, level = self.point.b[0], self.point.level[0]
        chance = 4 / math.sqrt(2 * math.prod(self.lab.loop.shape))
        if abs(math.log(max(level, 1e-9) / b)) < chance < abs(math.log(b)):
            return 0.0  # not N(0, 1), but the noise that is told, on a picture that is 0
        least = float(np.sqrt(self.lab.bar))
        return min(self.point.a[0] - self.point.signal[0], self.point.a[0] - least)

    @property
    def first(self) -> int | None:
        """The first call that is off, None if none is."""
        if self.point is None:
            return None
        off = np.flatnonzero(self.point.counted > OFF)
        return int(off[0]) if off.size else None

    @property
    def pictures(self) -> bool:
        """What comes back is no state, but pictures made of it, or nothing."""
        end = self.point.end if self.point is not None else None
        right = self.point is not None and self.point.cost <= OFF
        made = end is not None and (end.picture or (end.scaled and right))
        return made or self.lab.loop.ending.kind != "state"

    @property
    def effect(self) -> float:
        """How much is off, where it behaves: at a call, or of the end."""
        if self.point is None:
            return math.inf
        end = self.point.end
        if end is None:
            return self.point.cost
        return max(self.point.cost, abs(end.signal - 1) * SPREAD, end.noise)

    @property
    def fixed(self) -> bool:
        """Two runs from other states of the global generators begin and end the same."""
        one, two = self.lab.starts()
        return bool(torch.equal(one, two))

    def starts_at(self, way: Reading) -> bool:
        """x_T has about the std that this reading tells the first call."""
        a, b = (float(v[0]) for v in way.path.levels(self.lab.loop.times[:1]))
        told = math.hypot(a * SPREAD, b)
        held = float(self.lab.loop.start.double().std())
        return math.isfinite(told) and abs(math.log(max(held, 1e-9) / max(told, 1e-9))) < 2

    def likeliest(self) -> Reading:
        """The first reading, of ten, with about the least deviation in the median."""
        ways = ([way for way in self.ways if self.starts_at(way)] or list(self.ways))[:10]
        runs = [float(np.median(self.lab.run(way).off or [math.inf])) for way in ways]
        return next(w for w, cost in zip(ways, runs, strict=True) if cost <= min(runs) + OFF)

    def painted(self) -> "Behaviour | None":
        """A loop that paints known values in behaves for data that have these values there.

        Whatever the model answers, with the same noise it paints the same values.
        """
        lab, way = self.lab, self.ways[0]
        one, two = lab.run(way), lab.run(way, mean=-lab.mean)
        if one.last is None or two.last is None or len(one.told) != len(two.told):
            return None
        known = (one.last == two.last).reshape(lab.mean.shape)
        share = float(known.double().mean())
        if not 0.02 < share < 0.98 or float(known.all(dim=0).double().mean()) < share / 2:
            return None  # a mask is one for all samples; values that clipping makes equal are not
        painted = one.last.reshape(lab.mean.shape) / max(one.a[-1], 1e-9)
        if float(painted[known].std()) < 3 * one.b[-1] / max(one.a[-1], 1e-9):
            painted = painted[known].mean()  # nothing but the noise of the last call on grey
        mean = torch.where(known, painted, lab.mean.double()).float()
        best: tuple[float, Behaviour] | None = None
        for way in self.ways[:3]:
            traces = [self.lab.run(way, mean=mean, only=where) for where in (known, ~known)]
            worst = max(traces, key=lambda trace: trace.total)
            if best is None or worst.total < best[0]:
                best = worst.total, replace(self, reading=way, point=worst, kind="painted")
            if worst.total <= OFF:
                break
        return best[1] if best is not None else None

    def elsewhere(self) -> tuple[Reading, Trace] | None:
        """The loop behaves for a model that knows the level of a state and is told none."""
        for way in self.ways[:TRIED]:
            if np.ptp(way.path.signal(np.array([0.1, 10.0]))) == 0:
                continue  # x_0 + σ·n holds x_0 at every level
            trace = self.lab.run(way, own=True)
            if trace.total <= OFF and trace.end is not None and trace.end.noise < END_NOISE:
                return way, trace
        return None

    def noise_of_start(self) -> float:
        """The std of what differs in x_T from run to run."""
        return float(torch.stack(self.lab.starts(8)).double().var(0).mean().sqrt())

    def given(self) -> "Behaviour | None":
        """A loop that starts from a picture of its own: two runs differ by its noise alone."""
        told = float(self.ways[0].path.levels(self.lab.loop.times[:1])[0][0])
        if self.fixed or told < 0.1:
            return None
        below = told > math.sqrt(self.lab.bar) + 0.02
        for count in (8, 64) if below else (8,):  # the more, the less of a picture shows
            starts = torch.stack(self.lab.starts(count)).double().flatten(1)
            starts = starts - starts.mean(1, keepdim=True)
            # What two runs have in common, from all pairs.
            pairs = float(starts.sum(0).square().sum() - starts.square().sum())
            shared = pairs / count / (count - 1) / float(starts.square().mean()) / starts.shape[1]
            if shared > 5 / math.sqrt(count * (count - 1) / 2 * starts.shape[1]):
                break
        else:
            return None
        held = self.noise_of_start()
        first: Behaviour | None = None
        for way in self.ways:
            b = float(way.path.levels(self.lab.loop.times[:1])[1][0])
            if first is not None and abs(math.log(max(held, 1e-9) / max(b, 1e-9))) > DROP:
                continue
            kept = self.lab.run(way, keep=True)
            trace = self.lab.run(way, number=2, other=kept)
            trace.end = None
            seen = replace(self, reading=way, point=trace, kind="given")
            if trace.total <= OFF:
                return seen
            first = first or seen
        return first

    @property
    def table(self) -> xr.Dataset:
        """Told and held signal and level of every call, for both laws, and of the end."""
        return _table(self)


def _table(law: Behaviour) -> xr.Dataset:
    runs = [run for run in (law.point, law.half) if run is not None and run.told]
    count = max((len(run.told) for run in runs), default=0)
    columns = {name: np.full((len(runs), count), np.nan) for name in _COLUMNS}
    for i, run in enumerate(runs):
        a, b = np.array(run.a), np.array(run.b)
        told = np.sqrt((a * run.spread) ** 2 + b**2)
        for name, values in zip(
            _COLUMNS, (run.told, run.signal, a, run.level, told, run.off), strict=True
        ):
            columns[name][i, : len(run.told)] = values
    ends = [run.end for run in runs]
    variables = {
        name: (("law", "call"), values, {"long_name": words, "units": "1"})
        for (name, words), values in zip(_COLUMNS.items(), columns.values(), strict=True)
    }
    end = {
        "end_signal": ("signal of the end, 1 is right", [e.signal if e else np.nan for e in ends]),
        "end_level": ("std of the end", [e.noise if e else np.nan for e in ends]),
    }
    return xr.Dataset(
        {
            **variables,
            **{k: (("law",), v, {"long_name": w, "units": "1"}) for k, (w, v) in end.items()},
        },
        {
            "law": ["point", "spread"][: len(runs)],
            "spread": (("law",), [run.spread for run in runs]),
            "call": np.arange(count),
        },
    )


_COLUMNS = {
    "t_told": "time as the model is told",
    "signal": "signal that the state holds",
    "signal_told": "signal that the model is told",
    "level": "std of the state beside its signal",
    "level_told": "std that the model is told",
    "off": "deviation that counts",
}


def behave(
    loop: Loop,
    schedule: NoiseSchedule,
    time: Time,
    seed: int,
    randomness: Randomness,
    progress: Callable[[str], None] = lambda words: None,
) -> Behaviour:
    """Find the reading under which the loop behaves, and say whether it does.

    Raises:
        InputError: no path fits the told times.
    """
    lab = Experiment(loop, seed, randomness, float(schedule.alpha_bars[-1]))
    wide = float(loop.start.double().std()) > 3
    ways = list(readings_for(loop.times, loop.floating, time, schedule, wide))
    if not ways:
        raise InputError(
            f"the sampler passed times from {loop.times[0]:g} to {loop.times[-1]:g}; "
            f"on the schedule they must fall within 1…T = {schedule.T}; see the argument time"
        )
    law = Behaviour(lab, tuple(ways))
    given = law.given()
    if given is not None:
        return given
    best: tuple[float, Trace, Reading] | None = None
    for way in ways:
        progress(f"{way.path.name}, {way.answer}")
        trace = lab.run(way, bound=DROP if best is None else min(DROP, best[0]))
        cost = trace.total
        # The likelier reading stays unless another one is clearly better.
        if math.isfinite(cost) and (best is None or cost < best[0] - MARGIN):
            best = cost, trace, way
        if best is not None and best[0] < MARGIN:
            break
    change = np.diff(loop.times)
    if best is None and (change < 0).any() and (change > 0).any():
        for way in ways[:TRIED]:
            trace = lab.run(way)
            if trace.total <= OFF:
                best = trace.total, trace, way
                break
    # Fractions i/T of all T count steps, whatever else they are like.
    counts = np.allclose(loop.times * schedule.T, np.rint(loop.times * schedule.T), atol=1e-3)
    counts &= len(loop.times) > 0.9 * schedule.T and best is not None and best[0] > MARGIN
    if counts and best is not None and best[2].path.index is None:
        return law
    if best is not None and best[0] <= OFF:
        seen = law.seen_as(best[2], best[1])
        if seen.half is None or not seen.half.wrong_end:
            return seen
        # A point cannot tell readings apart that differ in what they make of the data's std.
        for way in ways:
            trace = lab.run(way, bound=OFF)
            if way is not best[2] and trace.total <= OFF:
                other = law.seen_as(way, trace)
                if other.behaves:
                    return other
        return seen
    return law.painted() or law
