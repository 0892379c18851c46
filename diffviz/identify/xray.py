r"""What a sampler does, whatever its rule, and by which rule: read from outside.

First its behaviour: the loop is run on exact models of known data, and at every call its state is
held against what the model was told; see `diffviz.identify.behaviour`. That decides whether it is
right.

Then its steps, x_s = a·x_t + b·m_t + σ·z: a model that answers with fresh noise in it is put into
the loop, and two runs tell a, b and σ; see `diffviz.identify.steps`. Where a step is not linear,
another two answer so that x̂_0 lies inside (−1, 1): a loop that clips x̂_0 is linear there.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.behaviour import MARGIN, Behaviour, behave
from diffviz.identify.calls import Loop, Randomness, open_loop
from diffviz.identify.faults import cheapest
from diffviz.identify.judge import CLIPPED, Measured, judge, shares_of
from diffviz.identify.paths import Reading, Time
from diffviz.identify.rules import Expected, Levels, closest, levels_along
from diffviz.identify.steps import (
    TESTS_PER_STEP,
    UNKNOWN,
    Recorder,
    Steps,
    merge,
    score_threshold,
    settle,
)

Array = NDArray[np.float64]
Sampler = Callable[..., object]
MIN_VALUES = 64
"""Fewer values per state than this decide nothing about a step."""
MAX_SECONDS = 1e6
"""More is no limit, and clocks refuse it."""
INSIDE = 0.6
PLAIN = ("eps", "x0", "v", "flow", "score")
LEAST = 1e-3
"""Of b in an answer: at b = 0 the answer x̂_0 would be x itself."""
TRIES = 6
"""How many readings are tried to find one under which the steps are linear."""
LARGEST = 50.0
"""How large the first excitation lets x̂_0 become, 1/√ᾱ_T for the usual schedules being 12."""


@dataclass(frozen=True)
class XRay:
    """What the x-ray says of a sampler.

    Attributes:
        coefficients: one row per step over ``t``: what it did, with errors, and what it should,
            with scores; a score beyond the attribute ``threshold`` is beyond chance.
        rule: the closest known rule, or None.
        behaves: whether its states hold what the model is told, whatever the rule; None where
            that cannot be told.
        behaviour: told and held signal and level over ``call``, for both laws of data.
        path: what the told times stand for: "index" (T…1), "index0" (T−1…0), "fraction", "scaled",
            "sigma", "sigma-scaled", "flow", "log-snr", "log-sigma", "signal" (√ᾱ or ᾱ), "noise"
            (√(1−ᾱ) or 1−ᾱ), "angle" (a = cos t) or "function".
        answer: what the model is taken to answer, "eps", "x0", "v", "-v", "flow", "score" or "F".
        findings: what is wrong, the most causal first; no error for a correct sampler.
    """

    coefficients: xr.Dataset
    rule: str | None
    behaves: bool | None
    behaviour: xr.Dataset
    path: str
    answer: str
    findings: tuple[Finding, ...]

    @property
    def time(self) -> str:
        """How t is passed, as for the argument ``time`` of `xray`."""
        return "sigma" if self.path.startswith("sigma") else self.path


def xray(
    sampler: Sampler,
    schedule: NoiseSchedule,
    *,
    shape: tuple[int, ...] = (64, 3, 16, 16),
    seed: int = 0,
    time: Time = "auto",
    seconds: float = 60.0,
    model: str | None = None,
) -> XRay:
    """Say what ``sampler(model) -> x_0`` does, any loop that calls ``model(x, t, ...)``.

    Args:
        sampler: the loop; it runs some five to fifteen times. Further required arguments are
            filled by their names: a shape, a batch size, an image size, a device, a step count.
        schedule: of the network.
        shape: (B, *D) of the states, where the sampler leaves the choice.
        seed: of the scripted answers; the global random generators are left as they were.
        time: what it passes as t: "index" (T…1), "index0" (T−1…0), "fraction" (i/T), "sigma",
            "flow", a function from that to the index, or "auto".
        seconds: how long one run may take, looked at in every call of the model.
        model: for a method of an object, the attribute that holds its network.

    Raises:
        InputError: it never calls the model, raises, does not end, its states are tiny, or the
            times that it passes fit no path. The line says what to write.
    """
    for name, value, most in (("seed", seed, math.inf), ("seconds", seconds, MAX_SECONDS)):
        if not (0 <= value <= most and math.isfinite(value)):
            limit = f" to {most:g}" if math.isfinite(most) else ""
            raise InputError(f"{name} is {value!r}; allowed are finite numbers from 0{limit}")
    # Not the seed itself: a sampler that seeds its own generator alike would draw the answers.
    words = np.random.SeedSequence([seed, 0x78726179]).generate_state(2, np.uint64)
    noise = torch.Generator().manual_seed(int(words[0]))
    randomness = Randomness()
    try:
        loop = open_loop(sampler, shape, schedule.T, seconds, model)
        if math.prod(loop.shape) < MIN_VALUES:
            raise InputError(
                f"the states of the sampler hold {math.prod(loop.shape)} values; allowed are "
                f"{MIN_VALUES} or more: take a larger batch"
            )
        with _progress() as progress:
            law = behave(loop, schedule, time, int(words[1] >> np.uint64(1)), randomness, progress)
            if law.behaves is False:
                loop, law = _unpacking(loop, law, schedule, time, randomness)
            progress("coefficients")
            seen = examine(loop, law, schedule, noise, randomness)
            law, seen = _likelier(loop, law, seen, schedule, noise, randomness)
            if seen is not None:
                # Which index a loop counts from shows in its coefficients only.
                law = (
                    law.seen_as(seen.near.levels.reading)
                    if law.reading is None
                    else replace(law, reading=seen.near.levels.reading)
                )
                if seen.exact and law.kind == "noise":
                    law = replace(law, known=True)
            if law.reading is None:
                law = law.seen_as(law.likeliest())
        findings, law, rule, shown = judge(law, seen, schedule)
    finally:
        randomness.again()
    reading = law.reading
    assert reading is not None
    table = _table(law, seen, shown, schedule)
    path, answer = reading.path.name, reading.answer
    return XRay(table, rule, law.behaves, law.table, path, answer, findings)


def _likelier(
    loop: Loop,
    law: Behaviour,
    seen: Measured | None,
    schedule: NoiseSchedule,
    generator: torch.Generator,
    randomness: Randomness,
) -> tuple[Behaviour, Measured | None]:
    """A loop that hardly behaves under a less likely answer may be a wrong one of the likeliest.

    It is, if all steps are those of a known rule but for one term.
    """
    first = law.ways[0]
    if not law.behaves or law.reading is None or law.point is None or seen is None or seen.exact:
        return law, seen
    if law.reading.answer == first.answer or law.point.cost <= MARGIN or law.kind != "noise":
        return law, seen
    other = examine(loop, replace(law, reading=first), schedule, generator, randomness)
    if other is None or not other.steps.exact.all():
        return law, seen
    if min(shares_of(other.steps, other.near, np.ones(len(other.steps), bool))) > 1e-3:
        return law, seen
    return law.seen_as(first), other


def _unpacking(
    loop: Loop, law: Behaviour, schedule: NoiseSchedule, time: Time, randomness: Randomness
) -> tuple[Loop, Behaviour]:
    """The loop as one that takes the first item of a tuple, if it behaves so."""
    other = replace(loop, layout=replace(loop.layout, packed=True))
    try:
        seen = behave(other, schedule, time, law.lab.seed, randomness)
    except InputError:
        return loop, law
    return (other, seen) if seen.behaves else (loop, law)


class _progress:
    """One line on a terminal, gone at the end."""

    def __enter__(self) -> Callable[[str], None]:
        return self._say if sys.stderr.isatty() else lambda words: None

    def _say(self, words: str) -> None:
        sys.stderr.write(f"\r\033[Kx-ray: {words}")
        sys.stderr.flush()

    def __exit__(self, *error: object) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


# ------------------------------------------------------------------ two answers


class Excitation:
    """Answers with fresh noise in them, under a reading.

    ε̂ = b·x + w·e at a² + b² = 1 is the exact answer for data N(0, 1) and noise e beside it. The
    share of x keeps the state of order 1, where a bare e would let it grow by 1/√ᾱ_T until float32
    swallowed the injected noise; regression takes it out again. Where even that is not enough, as
    for schedules with √ᾱ_T near 0, w is small. With ``inside``, x̂_0 is uniform in ±``INSIDE``.
    """

    def __init__(self, reading: Reading, generator: torch.Generator, inside: bool = False) -> None:
        self._reading, self._generator, self._inside = reading, generator, inside
        self.last: Tensor | None = None

    def __call__(self, x: Tensor, value: float, floating: bool) -> Tensor:
        """The answer at a told time; its x̂_0 is kept as ``last``."""
        a, b = (float(v[0]) for v in self._reading.path.levels(np.array([value])))
        b = max(b, LEAST) if math.isfinite(a + b) else 1.0
        a = a if math.isfinite(a) else 0.0
        size = max(math.hypot(a, b), 1e-12)
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        draw = torch.rand if self._inside else torch.randn
        e = draw(x.shape, generator=self._generator).to(x)
        if self._inside:
            x_0 = INSIDE * (2 * e - 1)
            eps = (x - a * x_0) / max(b, 1e-12)
        else:
            share = min(size / a, LARGEST) if a > 0 else LARGEST
            eps = (b * x / size + share * a * e) / size
            x_0 = (a * x / size - share * b * e) / size
        self.last = x_0
        return self._reading.respond(a, b, x_0, eps)


def ways_of(law: Behaviour, steps: Steps, schedule: NoiseSchedule) -> tuple[list[Levels], float]:
    """The levels of told times under the reading found, or else under every likely one.

    Also by how much the told times are beside the schedule, where only that explains them.
    """
    reading = law.reading
    readings = list(law.ways) if reading is None else [reading]
    if reading is not None and reading.path.name in ("index", "index0"):
        names = ("index", "index0")  # which one shows in the coefficients only
        readings = [w for w in law.ways if w.answer == reading.answer and w.path.name in names]
    readings = [way for way in readings if way.answer in PLAIN] or readings
    told, count = steps.told, len(steps)
    found = [one for way in readings for one in levels_along(way, told, schedule, count)]
    if found:
        return found, 0.0
    for way in (way for way in law.ways if way.path.index is not None and way.answer == "eps"):
        for shift in (1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 10, -10):
            moved = way.path.moved(shift, schedule)
            found = list(levels_along(replace(way, path=moved), told, schedule, count))
            if found:
                return found, float(-shift)
    return [], 0.0


def _unlike(ways: Sequence[Reading]) -> list[Reading]:
    """The likeliest readings whose answers are not nearly the same."""
    found: dict[tuple[str, str], Reading] = {}
    for way in ways:
        found.setdefault((way.path.name.removesuffix("0"), way.answer), way)
    names: list[str] = []
    ranks = []
    for name, _ in found:
        ranks.append(names.count(name))
        names.append(name)
    order = sorted(range(len(ranks)), key=lambda i: ranks[i])  # one answer of every path first
    return [list(found.values())[i] for i in order[:TRIES]]


def _known(steps: Steps) -> tuple[float, float]:
    """The share of the steps that are known to rounding, and of those that are not clipped too."""
    known = (steps.exact | steps.memory) & steps.sane
    return round(float(known.mean()), 1), float((known & ~steps.clipped).mean())


def examine(
    loop: Loop,
    law: Behaviour,
    schedule: NoiseSchedule,
    generator: torch.Generator,
    randomness: Randomness,
) -> Measured | None:
    """What two runs say of every step; None where consecutive calls are no linear steps."""

    def run(reading: Reading, inside: bool) -> Steps | None:
        one: Recorder | None = None
        for _ in range(2):
            randomness.again()
            answer = Excitation(reading, generator, inside)
            recorder = Recorder(answer, loop, one)
            try:
                ending = loop.run(recorder)
            except InputError:
                return None  # the behaviour, which was seen, decides
            if ending is not None:
                # Of pictures made after the last step, that step is taken for right.
                plain = ending.kind == "state" and not law.pictures
                recorder.finish(ending.values if plain else answer.last)
            if one is not None:
                return recorder.result()
            one = recorder
        return None

    if law.kind == "painted" or (law.behaves is False and loop.clipped > CLIPPED):
        return None
    # A solver with steps of its own may never end on answers that are no smooth function.
    loop = replace(loop, calls=min(loop.calls, 4 * len(loop.times) + 100))
    steps: Steps | None = None
    tried = [law.reading] if law.reading else _unlike(law.ways)
    for reading in tried:  # answers that suit another reading may be clipped, or x run away
        wide = run(reading, False)
        if wide is None or not len(wide):
            continue
        inside = None if (wide.exact | wide.memory).all() else run(reading, True)
        found = settle(wide if inside is None else merge(wide, inside))
        if steps is None or _known(found) > _known(steps):
            steps = found
        odd = steps.clipped | steps.partly | steps.bent | ~steps.sane
        if odd.mean() < 0.1:
            break
    if steps is None:
        return None
    ways, shift = ways_of(law, steps, schedule)
    near = closest(steps, ways) if law.reading else cheapest(steps, ways, schedule)
    if near is None:
        return None
    bias, a, b = steps.coefficients[-1, :3]
    wanted = near.numbers[-1, :2] / 2
    if abs(bias - 0.5) < 0.02 and np.allclose([a, b], wanted, rtol=0.02, atol=2e-3):
        # (x + 1)/2 of the end, pictures for the screen: the step before that is judged.
        coefficients = steps.coefficients.copy()
        coefficients[-1] = 2 * coefficients[-1] - np.array([1, 0, 0, 0, 0])
        last = replace(steps.noise[-1], std=2 * steps.noise[-1].std)
        steps = replace(steps, coefficients=coefficients, noise=(*steps.noise[:-1], last))
    return Measured(steps, near, tuple(ways), shift)


# ------------------------------------------------------------------ the table

COLUMNS = {
    "noise_ks": ("ks", "KS distance D of the injected noise, at std 1, from N(0, 1)"),
    "noise_ks_p": ("ks_p", "its p-value"),
    "noise_skewness": ("skewness", "skewness of the injected noise"),
    "noise_kurtosis": ("kurtosis", "excess kurtosis of it"),
    "batch_correlation": ("batch", "correlation of the noise of samples that shows most"),
    "batch_score": ("batch_score", "as a normal score"),
    "grid_correlation": ("grid", "the same between channels, rows or columns of a sample"),
    "grid_score": ("grid_score", "as a normal score"),
}
TERMS = {
    "bias": "constant term",
    "x": "coefficient of x_t",
    "eps": "coefficient of the answer",
    "previous_x": "coefficient of the x before",
    "previous_eps": "coefficient of the answer before",
    "std": "std of what is left, the injected noise",
}


def _table(
    law: Behaviour, seen: Measured | None, shown: Expected | None, schedule: NoiseSchedule
) -> xr.Dataset:
    """One row per step; where calls are no steps, the told times and no coefficients."""
    assert law.reading is not None
    told = law.point.told if law.point is not None else law.lab.loop.times
    times = np.array(told) if seen is None else seen.steps.times
    places = law.reading.path.places
    index = places(times, schedule) if seen is None else seen.near.levels.index
    count = len(times)
    following = np.append(index[1:], 0.0)
    if np.array_equal(index, np.rint(index)):
        index, following = index.astype(np.int64), following.astype(np.int64)
    found = {} if seen is None else _measured(seen.steps, shown)
    texts = {
        **TERMS,
        **{f"{name}_error": f"standard error: {words}" for name, words in TERMS.items()},
        **{f"expected_{name}": f"{name} by the closest rule" for name in ("x", "eps", "std")},
        **{
            f"{name}_score": f"{name} against the rule, as a normal score"
            for name in ("x", "eps", "bias", "std")
        },
        **{name: words for name, (_, words) in COLUMNS.items()},
        "step_correlation": "correlation with the noise of the step before",
    }
    variables: dict[str, tuple[NDArray, str]] = {
        "s": (following, "time after the step"),
        "passed": (times, "the time as the sampler passed it"),
        **{k: (found.get(k, np.full(count, np.nan)), words) for k, words in texts.items()},
    }
    return xr.Dataset(
        {
            k: (("t",), v, {"long_name": words, "units": "1"})
            for k, (v, words) in variables.items()
        },
        {"t": (("t",), index, {"long_name": "time the step leaves", "units": "1"})},
        {
            "schedule": schedule.name,
            "T": schedule.T,
            "values": math.prod(law.lab.loop.shape) if seen is None else seen.steps.values,
            "threshold": score_threshold(TESTS_PER_STEP * max(count, 1)),
        },
    )


def _measured(steps: Steps, shown: Expected | None) -> dict[str, Array]:
    """Coefficients, errors, what the rule says, and the noise, of every step."""
    found: dict[str, Array] = {}
    used = 5 if steps.memory.any() else 3
    for k, name in enumerate(list(TERMS)[:used]):
        errors = steps.errors[:, k]
        if shown is not None and k in (1, 2):
            # Known so well that what float32 does to the tables of a loop is what is not known.
            errors = np.hypot(errors, steps.exact * shown.floor[:, k - 1])
        found[f"{name}_error"] = errors
        found[name] = np.where(errors < UNKNOWN, steps.coefficients[:, k], np.nan)
    # Values that share their noise do not count.
    alone = steps.values / steps.together**2
    found["std"] = np.where(steps.partly, np.nan, steps.std)
    found["std_error"] = found["std"] / np.sqrt(2 * max(alone - used, 1.0))
    if shown is not None:
        for k, name in enumerate(("x", "eps", "std")):
            found[f"expected_{name}"] = shown.numbers[:, k]
        for k, name in enumerate(("x", "eps", "bias", "std")):
            found[f"{name}_score"] = shown.scores(steps)[:, k]
    for name, (column, _) in COLUMNS.items():
        found[name] = np.array([getattr(noise, column) for noise in steps.noise])
    found["step_correlation"] = steps.before()
    return found
