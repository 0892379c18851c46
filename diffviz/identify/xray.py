r"""What a sampler does, whatever its rule, and by which rule: read from outside.

First its behaviour: the loop is run on exact models of known data, and at every call its state is
held against what the model was told; see `diffviz.identify.behaviour`. That decides whether it is
right.

Then its coefficients. A model that answers m_t with fresh noise in it is put into the loop. If a
step is linear, x_s = a·x_t + b·m_t + σ·z, the regression of x_s on (x_t, m_t, 1) gives a, b, the
bias and σ with their standard errors, and what is left is the injected noise itself. A multi-step
sampler depends on the call before too. A second excitation answers so that x̂_0 always lies inside
(−1, 1): a loop that clips x̂_0 is linear there, and only there.

Both runs start from the same state of the global random generators. A loop that draws from these
injects the same noise in both, and their difference tells a and b to rounding; see
`diffviz.identify.paired_runs`.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.behaviour import Behaviour, Reading, Time, behave, respond
from diffviz.identify.calls import Loop, Randomness, open_loop
from diffviz.identify.evidence import TESTS_PER_STEP, Evidence, look_inside, weigh
from diffviz.identify.judge import judge
from diffviz.identify.paired_runs import COARSE, UNKNOWN, bends, pair
from diffviz.identify.rules import Levels, closest, levels_along, levels_of, place_of
from diffviz.identify.spy import DOUBLE, SINGLE, Watch, Watched, score_threshold, solve

Array = NDArray[np.float64]
Sampler = Callable[..., object]
MIN_VALUES = 64
"""Fewer values per state than this decide nothing about a step."""
MAX_SECONDS = 1e6
"""More is no limit, and clocks refuse it."""
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
            "sigma", "sigma-scaled", "flow", "log-snr", "signal" or "function".
        answer: what the model is taken to answer, "eps", "x0", "v", "-v", "flow" or "score".
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
            if not law.behaves:
                loop, law = _unpacking(loop, law, schedule, time, randomness)
            progress("coefficients")
            evidence = examine(loop, law, schedule, noise, randomness)
            if law.reading is not None and evidence is not None and evidence.ways:
                # Which index a loop counts from shows in its coefficients only.
                law = replace(law, reading=evidence.expected.levels.reading or law.reading)
            if law.reading is None:
                found = None if evidence is None else evidence.expected.levels.reading
                law = law.seen_as(found or law.likeliest())
            if evidence is not None and evidence.exact and law.kind == "noise":
                law = replace(law, known=True)
        findings, rule, evidence = judge(law, evidence, schedule)
    finally:
        randomness.again()
    reading = law.reading
    assert reading is not None
    return XRay(
        _table(evidence, law, schedule), rule, law.behaves, law.table, reading.path.name,
        reading.answer, findings,
    )  # fmt: skip


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


# ------------------------------------------------------------------ two excitations


class Excitation:
    """Answers with fresh noise in them, under a reading.

    ε̂ = b·x + w·e at a² + b² = 1 is the exact answer for data N(0, 1) and noise e beside it. The
    share of x keeps the state of order 1, where a bare e would let it grow by 1/√ᾱ_T until float32
    swallowed the injected noise; regression takes it out again. Where even that is not enough, as
    for schedules with √ᾱ_T near 0, w is small. With ``inside``, x̂_0 is uniform in (−0.9, 0.9).
    """

    def __init__(self, reading: Reading, generator: torch.Generator, inside: bool = False) -> None:
        self._reading, self._generator, self._inside = reading, generator, inside
        self.last: Tensor | None = None

    def __call__(self, x: Tensor, value: float, floating: bool) -> Tensor:
        """The answer at a told time; its x̂_0 is kept as ``last``."""
        a, b = (float(v[0]) for v in self._reading.path.levels(np.array([value])))
        b = max(b, 0.0) if math.isfinite(a + b) else 1.0
        a = a if math.isfinite(a) else 0.0
        size = max(math.hypot(a, b), 1e-12)
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        draw = torch.rand if self._inside else torch.randn
        e = draw(x.shape, generator=self._generator).to(x)
        if self._inside:
            x_0 = 1.8 * e - 0.9
            eps = (x - a * x_0) / max(b, 1e-12)
        else:
            share = min(size / a, LARGEST) if a > 0 else LARGEST
            eps = (b * x / size + share * a * e) / size
            x_0 = (a * x / size - share * b * e) / size
        self.last = x_0
        return respond(self._reading, a, b, x_0, eps)


def steps_of(law: Behaviour, times: Array, schedule: NoiseSchedule) -> list[Levels]:
    """The levels of told times under the reading found, or else under every likely one.

    Which index a loop counts from shows in its coefficients only.
    """
    reading = law.reading
    readings = list(law.ways) if reading is None else [reading]
    if reading is not None and reading.path.name in ("index", "index0"):
        names = ("index", "index0")
        readings = [w for w in law.ways if w.answer == reading.answer and w.path.name in names]
    readings = [way for way in readings if way.answer in ("eps", "x0", "v", "flow")] or readings
    return [levels for way in readings for levels in levels_along(way, times, schedule)]


def _shifted(law: Behaviour, times: Array, schedule: NoiseSchedule) -> tuple[list[Levels], float]:
    """Levels a little beside the told ones, where these are off the schedule, and by how much."""
    for way in (way for way in law.ways if way.path.index is not None and way.answer == "eps"):
        index = place_of(way, times, schedule)
        for shift in (1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 10, -10):
            levels = levels_of(index + shift, schedule, way.path.name)
            if levels is not None:
                return [replace(levels, reading=way)], float(-shift)
    return [], 0.0


def examine(
    loop: Loop,
    law: Behaviour,
    schedule: NoiseSchedule,
    generator: torch.Generator,
    randomness: Randomness,
) -> Evidence | None:
    """What regression says of every step; None where consecutive calls are no steps."""

    def run(reading: Reading, inside: bool, briefly: bool = False) -> Watched:
        randomness.again()
        answer = Excitation(reading, generator, inside)
        watch = Watch(answer, loop, briefly)
        ending = loop.run(watch)
        if ending is not None:
            # Of pictures made after the last step, that step is taken for right.
            plain = ending.kind == "state" and not law.pictures
            watch.finish(ending.values if plain else answer.last)
        return watch.result()

    if law.kind == "painted":
        return None
    reading = law.reading or replace(law.ways[0], answer=law.ways[0].answer)
    one = run(reading, False)
    ways, shift = steps_of(law, one.times, schedule), 0.0
    if one.broken is not None or not len(one.grams):
        return None
    if not ways:
        ways, shift = _shifted(law, one.times, schedule)
    if not ways:
        return None
    best = closest(one, ways)
    if law.reading is None:
        levels = best.levels.reading
        assert levels is not None
        plain = best.levels.form == "vp"
        reading = replace(levels, answer="eps") if plain else levels
    threshold = score_threshold(TESTS_PER_STEP * len(one.grams))
    for _ in range(2):
        two, three = run(reading, True), None
        if two.broken is not None or len(two.grams) != len(one.grams):
            return None
        if max(one.precision, two.precision) < COARSE:
            one = replace(one, pairs=pair(one, two))
            two = replace(two, pairs=pair(two, one))
            if bends(two, threshold).any():
                # Clipped outside of (−1, 1), or bent inside too? Another answer from inside tells.
                three = run(reading, True, briefly=True)
        if three is not None and (len(three.times), three.broken) == (len(two.times), None):
            two = replace(two, pairs=pair(two, three))
        else:
            three = None
        evidence = weigh(schedule, one, two, closest(one, ways), ways)
        evidence = replace(evidence, shift=shift)
        if three is None or not bends(two, threshold).any():
            break
        evidence = look_inside(evidence, three)
        other = _taken_otherwise(evidence, reading) if law.reading is None else None
        if other is None:
            break
        reading = other
    return evidence


def _taken_otherwise(e: Evidence, reading: Reading) -> Reading | None:
    """The reading as the loop has it, if answers that suit ``reading`` were clipped for that."""
    inner = e.inner
    if inner is not None and not inner.off[:, :2].any():
        # Right where it is not clipped: only the model is taken to answer something else.
        found = inner.expected.levels.reading
        return None if found is None or found.answer == reading.answer else found
    if reading.path.name.startswith("sigma") and reading.answer != "x0":
        return replace(reading, answer="x0")
    return None


COLUMNS = (
    ("noise_ks", "ks", "KS distance D of the injected noise, at std 1, from N(0, 1)"),
    ("noise_ks_p", "ks_p", "its p-value"),
    ("noise_skewness", "skewness", "skewness of the injected noise"),
    ("noise_kurtosis", "kurtosis", "excess kurtosis of it"),
    ("batch_correlation", "batch", "correlation of the noise of samples that shows most"),
    ("batch_score", "batch_score", "as a normal score"),
    ("grid_correlation", "grid", "the same between channels, rows or columns of a sample"),
    ("grid_score", "grid_score", "as a normal score"),
)


def _table(evidence: Evidence | None, law: Behaviour, schedule: NoiseSchedule) -> xr.Dataset:
    """One row per step; where calls are no steps, the told times and no coefficients."""
    variables: dict[str, tuple[Array, str]] = {}
    if evidence is None:
        passed = np.array(law.point.told if law.point is not None else law.lab.loop.times)
        assert law.reading is not None
        index = place_of(law.reading, passed, schedule)
        values = math.prod(law.lab.loop.shape)
    else:
        passed, index = evidence.used.times, evidence.expected.levels.index
        values = evidence.used.values
    steps = len(index)
    following = np.append(index[1:], 0.0)[:steps]
    if np.array_equal(index, np.rint(index)):
        index, following = index.astype(np.int64), following.astype(np.int64)
    variables["s"] = (following, "time after the step")
    variables["passed"] = (passed[:steps], "the time as the sampler passed it")
    found = _measured(evidence) if evidence is not None else {}
    names = ["bias", "x", "eps", "previous_x", "previous_eps", "std"]
    words = ("constant term", "coefficient of x_t", "coefficient of the answer",
             "coefficient of the x before", "coefficient of the answer before",
             "std of what is left, the injected noise")  # fmt: skip
    texts = dict(zip(names, words, strict=True))
    texts |= {f"{name}_error": f"standard error: {texts[name]}" for name in names}
    texts |= {f"expected_{name}": f"{name} by the closest rule" for name in ("x", "eps", "std")}
    texts |= {
        f"{name}_score": f"{name} against the rule, as a normal score"
        for name in ("x", "eps", "bias", "std")
    }
    texts |= {name: words for name, _, words in COLUMNS}
    texts["step_correlation"] = "correlation with the noise of the step before"
    for name, meaning in texts.items():
        variables[name] = (found.get(name, np.full(steps, np.nan)), meaning)
    return xr.Dataset(
        {
            k: (("t",), v, {"long_name": words, "units": "1"})
            for k, (v, words) in variables.items()
        },
        {"t": (("t",), index, {"long_name": "time the step leaves", "units": "1"})},
        {
            "schedule": schedule.name,
            "T": schedule.T,
            "values": values,
            "threshold": score_threshold(TESTS_PER_STEP * max(steps, 1)),
        },
    )


def _measured(e: Evidence) -> dict[str, Array]:
    """Coefficients, errors, what the rule says, and the noise, of every step."""
    used = e.used
    columns = DOUBLE if e.multistep else SINGLE
    fit = solve(used.grams, columns) if e.multistep else e.fit
    found = {}
    for k, name in enumerate(("bias", "x", "eps", "previous_x", "previous_eps")[: len(columns)]):
        errors = fit.errors[:, k]
        if used.pairs is not None and not e.multistep and k:
            # Known so well that what float32 does to the tables of a loop is what is not known.
            errors = np.hypot(errors, used.pairs.same * e.expected.floor[:, k - 1])
        found[f"{name}_error"] = errors
        found[name] = np.where(errors < UNKNOWN, fit.coefficients[:, k], np.nan)
    # Values that share their noise, or that were clipped, do not count.
    alone = used.values / e.inflation**2
    known = used.inside is None or fit.errors[:, 1] < UNKNOWN
    found["std"] = np.where(known, fit.std, np.nan)
    found["std_error"] = found["std"] / np.sqrt(2 * max(alone - len(columns), 1.0))
    for k, name in enumerate(("x", "eps", "std")):
        found[f"expected_{name}"] = e.expected.numbers[:, k]
    scores = e.scores if e.multistep else e.scores_of(e.expected)
    for k, name in enumerate(("x", "eps", "bias", "std")):
        found[f"{name}_score"] = scores[:, k]
    if not e.multistep and used.inside is None:
        # What a multi-step rule takes from the call before, or clipping takes away, is no noise.
        for name, field, _ in COLUMNS:
            found[name] = np.array([getattr(noise, field) for noise in used.noise])
    found["step_correlation"] = e.step_correlation
    return found
