r"""What is wrong with a sampler: from its behaviour and its steps to findings.

The behaviour decides whether anything is an error. The steps say which term, index or table does
it. Causes come before their consequences, and what a cause explains is not said again.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.identify.behaviour import LATE, OFF, SEEN, SPREAD, Behaviour
from diffviz.identify.faults import explain
from diffviz.identify.rules import MULTISTEP, Expected, Levels, Rule, expect, multistep
from diffviz.identify.steps import COARSE, Steps

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
CAUSES = ("time-off-by-one", "time-of-another-state", "schedule-mismatch", "step-skipped")
"""A known rule at other times or tables than are told."""
SEVERITY = {
    "x0-clipped": "warning", "not-linear": "warning", "time-ends-early": "warning",
    "time-starts-late": "information", "half-precision": "information",
}  # fmt: skip
"""Of findings that do not by themselves mean wrong samples; of all others it is error."""
VISIBLE = {
    "noise-missing", "noise-scale", "noise-last-step", "eps-coefficient", "x-coefficient", "bias",
    "schedule-mismatch", "time-off-by-one", "step-skipped", "time-ends-early", "half-tables",
    "time-index-wraps", "time-order", "time-of-another-state", "not-linear",
}  # fmt: skip
"""What the law of the states sees if it does any harm."""
AGAIN = 0.9
"""From this correlation on, the noise of a loop that behaves is one that was used before."""
CLIPPED = 0.2
"""From this share of the calls with many values at the largest one on, x_t itself is clipped."""
OF_ROUNDING = {"x0-clipped", "noise-not-normal", "noise-correlated"}
"""What states of half precision look like."""
TERMS = ("x-coefficient", "eps-coefficient", "noise-scale")
LAST = {
    "x-coefficient", "eps-coefficient", "noise-scale", "noise-last-step", "schedule-mismatch",
    "time-off-by-one",
}  # fmt: skip
"""What may look wrong of a last step that does not end at 0."""
END_BESIDE = 0.05
"""|log| of the end's std, and its signal, beside those of first-order rules."""
ALONE = 0.03
"""One of two terms is off alone if the other is off by less than this share."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The steps beside the rule that they are closest to.

    Attributes:
        steps, near: what was measured, and the rule.
        ways: every way to read the told times.
        shift: by how much the told times are beside those of the levels.
    """

    steps: Steps
    near: Expected
    ways: tuple[Levels, ...]
    shift: float = 0.0

    @property
    def exact(self) -> bool:
        """Every step is the known rule's, to what chance and rounding allow."""
        odd = self.steps.memory | self.steps.clipped | self.steps.partly | self.steps.bent
        return not (odd.any() or self.shift or off(self.steps, self.near).any())


@np.errstate(divide="ignore", invalid="ignore")
def judge(
    law: Behaviour, seen: Measured | None, schedule: NoiseSchedule
) -> tuple[tuple[Finding, ...], Behaviour, str | None, Expected | None]:
    """(findings, the behaviour, the rule or None, what it says); errors and causes come first."""
    rule: str | None = None
    shown: Expected | None = None
    broken = _broken(law, schedule)
    found = _against(law, seen) or ([] if broken else _order(law, schedule))
    if law.behaves and law.point is not None and law.point.cost < max(law.point.off):
        seen = None  # some steps were taken back, so one state is not made of the one before
    if seen is not None:
        more, law, rule, shown = _of_steps(law, seen, schedule)
        if found or broken:
            more = [item for item in more if (item.id in VISIBLE) == bool(broken)]
        found = [*found, *more]
    elif law.behaves and law.kind == "noise":
        found.append(_unnamed(law, schedule))
    if broken:
        # What came before it may say why.
        causes = [item for item in found if item.id in (*TERMS, *CAUSES, "time-order")]
        found = [*causes, *broken]
    else:
        found = _settled(law, found, schedule)
        found = [*_given(law, schedule), *found, *_about(law, seen, rule, schedule)]
    order = {"error": 0, "warning": 1, "information": 2}
    return tuple(sorted(found, key=lambda item: order[item.severity])), law, rule, shown


# ------------------------------------------------------------------ of the law alone


def _span(law: Behaviour, schedule: NoiseSchedule, first: int = 0) -> tuple[int, int]:
    """(time at a call, time at the last one), on the schedule."""
    reading = law.reading or law.ways[0]
    times = np.array(law.point.told if law.point and law.point.told else law.lab.loop.times)
    index = np.nan_to_num(reading.path.places(times, schedule), posinf=schedule.T)
    return round(float(index[min(first, len(index) - 1)])), round(float(index[-1]))


def _broken(law: Behaviour, schedule: NoiseSchedule) -> list[Finding]:
    """Values that are not finite: no law, no step."""
    loop, point = law.lab.loop, law.point
    answer = law.reading.answer if law.reading is not None else "eps"
    start = float(law.ways[0].path.levels(loop.times[:1])[0][0])
    broken = loop.broken if loop.broken is not None else point.broken if point else None
    on = law.ways[0].path.index is not None
    empty = answer == "eps" and on and start < (1e-6 if broken is not None else 1e-12)
    if law.behaves or (broken is None and not empty):
        return []
    value = loop.times[-1] if broken is None else broken
    t = round(float(law.ways[0].path.places(np.array([value]), schedule)[0]))
    found = []
    if empty:
        found.append(Finding("zero-terminal-snr", "error", "", (schedule.T, schedule.T)))
    if (eps := float(torch.finfo(loop.start.dtype).eps)) > COARSE:
        info = {"found": eps}
        found.append(Finding("half-precision", "error", "", _span(law, schedule), info))
    if broken is not None:
        found.append(Finding("nonfinite", "information" if found else "error", "", (t, t)))
    return found


def _order(law: Behaviour, schedule: NoiseSchedule) -> list[Finding]:
    """Times that do not fall, or lie on no part of the schedule."""
    if law.behaves:
        return []
    times, path = law.lab.loop.times, law.ways[0].path
    places = times * schedule.T
    if len(times) > 0.9 * schedule.T and np.allclose(places, np.rint(places), atol=1e-3):
        path = next((way.path for way in law.ways if way.path.name == "fraction"), path)
    index = path.places(times, schedule)
    first, last = round(float(index[0])), round(float(index[-1]))
    counts = path.name in ("index", "index0", "fraction")
    if (index < -1e-6).any() and counts:
        i = int(np.flatnonzero(index < -1e-6)[0])
        evidence = {"found": float(index[i]), "read": float(index[i] + schedule.T + 1)}
        return [Finding("time-index-wraps", "error", "", (round(index[i]),) * 2, evidence)]
    change = np.diff(index)
    # A second call a step, of a corrector or of a second-order rule, is told a time again.
    mostly = len(index) > 1 and (np.sign(change).sum() >= 0 and not (change < 0).mean() > 0.4)
    if len(index) > 2 and counts and (mostly or last >= first or (change > 0).mean() > 0.4):
        i = int(np.argmax(change >= 0))
        evidence = {"before": float(times[i]), "after": float(times[i + 1])}
        return [Finding("time-order", "error", "", (first, last), evidence)]
    if first > schedule.T + 1 and counts:
        named: dict[str, float | str] = {"name": f"{first} steps", "found": float(first)}
        named["expected"] = float(schedule.T)
        return [Finding("schedule-mismatch", "error", "", (first, last), named)]
    return []


def _against(law: Behaviour, seen: Measured | None) -> list[Finding]:
    """Times that rise past 1, as only a flow's may, in steps that are no flow's: x + b m."""
    reading, times = law.reading, law.lab.loop.times
    if law.behaves or seen is None or reading is None or reading.path.name != "flow":
        return []
    if len(times) < 3 or times[-1] <= 1.5 or (np.diff(times) < 0).any():
        return []
    if np.median(np.abs(seen.steps.coefficients[:, 1] - 1)) < 1e-3:
        return []
    told = {"before": float(times[0]), "after": float(times[1])}
    return [Finding("time-order", "error", "", (round(times[0]), round(times[-1])), told)]


def _settled(law: Behaviour, found: list[Finding], schedule: NoiseSchedule) -> list[Finding]:
    """Severities by what the behaviour says, and its own words where it is off."""
    if law.behaves:
        harmless = "warning" if law.effect > 0.005 else "information"
        return [
            replace(item, severity=harmless)
            if item.id in VISIBLE and item.severity == "error"
            else item
            for item in found
        ]
    found = [
        replace(item, severity="error") if item.id == "not-linear" else item for item in found
    ]
    clear = {*CAUSES, *TERMS, "time-order", "noise-missing", "start-not-normal", "half-precision"}
    if law.lab.loop.clipped > CLIPPED:
        found = [item for item in found if item.id != "not-linear"]
        found = [Finding("x-clipped", "error", "", _span(law, schedule)), *found]
    elif law.kind == "noise" and not {item.id for item in found} & clear:
        found = [*_elsewhere(law, schedule), *found]
    return found + _law(law, schedule)


def _elsewhere(law: Behaviour, schedule: NoiseSchedule) -> list[Finding]:
    """The times told are not those of the states, and nothing else is wrong."""
    found = law.elsewhere()
    if found is None:
        return []
    way, trace = found
    ratio = np.array(trace.b) / np.maximum(np.array(trace.a), 1e-12)
    own = np.interp(ratio, schedule.sigma, np.arange(schedule.T + 1))
    told = way.path.places(np.array(trace.told), schedule)
    apart = np.abs(own - told) * (np.array(trace.a) > 0.2)  # before, a level tells no time
    i = int(np.argmax(apart))
    if apart[i] < 1:
        return []
    evidence = {"found": float(own[i]), "t": float(told[i])}
    span = round(float(told.max())), round(float(told.min()))
    return [Finding("time-of-another-state", "error", "", span, evidence)]


def _law(law: Behaviour, schedule: NoiseSchedule, first: int | None = None) -> list[Finding]:
    """What is off, in the words of the law: from which call on, and by how much."""
    point, first = law.point, law.first if first is None else first
    if point is None or not point.told:
        return []
    if first is not None:
        b, a = np.array(point.b)[first:], np.array(point.a)[first:]
        level, signal = np.array(point.level)[first:], np.array(point.signal)[first:]
        ratio = level / np.maximum(b, 1e-12)
        told = {"t": float(point.told[first])}
        if np.abs(signal[0] - a[0]) * 0.5 > abs(level[0] - b[0]):
            told |= {"found": float(signal[0]), "expected": float(a[0])}
            return [Finding("signal-off", "error", "", _span(law, schedule, first), told)]
        inner = ratio[b > 0.1 * b.max()]
        inner = inner if inner.size else ratio[:1]
        low = ratio[0] < 1
        told |= {"found": float(ratio[0]), "last": float(inner.min() if low else inner.max())}
        identity = "level-low" if low else "level-high"
        return [Finding(identity, "error", "", _span(law, schedule, first), told)]
    if point.end is not None and point.total > OFF:
        told = {"signal": float(point.end.signal), "found": float(point.end.noise)}
        last = _span(law, schedule)[1]
        return [Finding("end-off", "error", "", (last, 0), told)]
    if law.half is not None and law.half.wrong_end and law.half.end is not None:
        told = {"found": float(law.half.end.noise), "expected": law.half.spread}
        return [Finding("spread-off", "error", "", _span(law, schedule), told)]
    return []


def _unnamed(law: Behaviour, schedule: NoiseSchedule) -> Finding:
    """A rule without a name here is right, or a little off."""
    if law.point is not None and law.point.cost > SEEN:
        found = _law(law, schedule, int(np.argmax(law.point.counted)))
        if found:
            return replace(found[0], severity="warning")
    return Finding("rule-unnamed", "information", "", _span(law, schedule))


def _given(law: Behaviour, schedule: NoiseSchedule) -> list[Finding]:
    """The noise of a picture that the loop starts from, beside what the first call is told."""
    if law.kind != "given" or law.point is None or not law.point.told:
        return []
    first = _span(law, schedule)[0]
    held, told = law.noise_of_start(), law.point.b[0]
    chance = 3.5 / np.sqrt(14 * math.prod(law.lab.loop.shape))
    if abs(np.log(max(held, 1e-9) / told)) <= 0.001 + chance:
        return []
    sigma = held / np.sqrt(max(1 - held**2, 1e-9))
    t = float(np.interp(sigma, schedule.sigma, np.arange(schedule.T + 1)))
    severity = "warning" if law.behaves else "error"
    evidence = {"t": float(first), "found": t, "held": held, "expected": told}
    return [Finding("start-level", severity, "", (first, first), evidence)]


def _spread(law: Behaviour, seen: Measured | None, schedule: NoiseSchedule) -> list[Finding]:
    """The end of s = ½ is beside those of all first-order rules on the same levels."""
    half = law.half
    if not law.behaves or half is None or half.end is None or law.pictures or len(half.off) < 16:
        return []
    noise, fresh = None, seen is None
    if seen is not None:
        known = np.isfinite(seen.steps.floor)
        fresh = bool(np.median(seen.steps.std / seen.near.levels.size_then) > 0.3)
        if len(known) == len(half.told) and known.mean() > 0.5:
            noise, fresh = np.where(known, seen.steps.std, np.nan), True
    signals, stds = half.first_order(noise)
    kept = slice(None) if fresh else slice(3)
    n = math.prod(law.lab.loop.shape)
    signals, stds = np.append(signals[kept], 1.0), np.append(stds[kept], half.spread)
    by = 4 / math.sqrt(2 * n) + END_BESIDE
    square = float(law.lab.mean.double().square().sum()) * (half.spread / SPREAD) ** 2
    apart = 4 * half.end.noise / math.sqrt(square) + END_BESIDE
    low, high = stds.min() * math.exp(-by), stds.max() * math.exp(by)
    right = signals.min() - apart < half.end.signal < signals.max() + apart
    if low < half.end.noise < high and right:
        return []
    told = {"found": float(half.end.noise), "expected": half.spread}
    return [Finding("spread-off", "warning", "", _span(law, schedule), told)]


def _about(
    law: Behaviour, seen: Measured | None, rule: str | None, schedule: NoiseSchedule
) -> list[Finding]:
    """What is worth knowing of a loop, right or wrong."""
    found, span = [], _span(law, schedule)
    if law.lab.loop.ending.kind == "nothing":
        found.append(Finding("nothing-returned", "information", "", (span[1], 0)))
    elif law.pictures:
        found.append(Finding("pictures-returned", "information", "", (span[1], 0)))
        path, times = law.reading and law.reading.path, law.lab.loop.times
        if path and path.name in ("index", "index0") and len(times) > 1:
            last, one = path.places(times[-1:], schedule)[0], times[-2] - times[-1]
            if one == 1 and last == 2:  # the pictures hide the noise that is left
                early = Finding("time-ends-early", "warning", "", (2, 2), {"found": 1.0})
                found.append(early)
    found += _spread(law, seen, schedule)
    bar = math.sqrt(schedule.alpha_bars[-1])
    on = law.reading is not None and law.reading.path.index is not None
    if on and law.kind == "noise" and bar > LATE and law.point and law.point.a[0] > bar - 1e-6:
        T = schedule.T
        told = {"found": bar}
        found.append(Finding("terminal-mismatch", "warning", "", (T, T), told))
    if law.fixed:
        found.append(Finding("seed-fixed", "information", "", span))
    largest = float(schedule.alphas[1:].min() ** -0.5)
    if rule is not None and rule.startswith("ddpm") and law.behaves and largest > 10:
        t = 1 + int(np.argmin(schedule.alphas[1:]))
        found.append(Finding("step-amplifies", "information", "", (t, t), {"found": largest}))
    return found


# ------------------------------------------------------------------ of the steps


def off(steps: Steps, near: Expected) -> Mask:
    """(S, 4): a, b, the bias and σ that are off at a step, or at all steps taken together.

    Under a correct sampler the scores of the steps are independent, so Σz/√S is one too: a
    small factor that no step shows alone shows in all of them.
    """
    score = near.scores(steps)

    def together(rows: Mask) -> Mask:
        total = (np.clip(score, -5, 5) * rows).sum(axis=0)
        return np.abs(total / np.sqrt(np.maximum(rows.sum(axis=0), 1))) > steps.threshold

    single = np.abs(score) > steps.threshold
    noisy = ((near.numbers[:, 2] > 0) & steps.noisy & steps.sane)[:, None]
    # If those that show something by themselves are all there is, the others are right.
    clear = np.abs(score) > 3
    every = noisy & together(noisy & np.ones((1, 4), bool))
    few = every & clear & ~together(noisy & ~clear)
    return single | np.where(few.any(axis=0), few, every)


def _finding(near: Expected, identity: str, mask: Mask, **evidence: float | str) -> Finding:
    """The finding about the steps of ``mask``, with the name of the closest rule."""
    index = np.rint(near.levels.index).astype(int)[: len(mask)][mask]
    severity = SEVERITY.get(identity, "error")
    shown = {"rule": near.name, **evidence}
    return Finding(identity, severity, "", (int(index.max()), int(index.min())), shown)


def _of_steps(
    law: Behaviour, seen: Measured, schedule: NoiseSchedule
) -> tuple[list[Finding], Behaviour, str | None, Expected | None]:
    """What the coefficients, the noise and the start say; a cause that shows is a fault."""
    steps, near = seen.steps, seen.near
    found, rule, shown = _terms_and_causes(law, seen, schedule)
    if np.allclose(steps.coefficients[-1], [0, 1, 0, 0, 0], atol=1e-6) and not steps.noisy[-1]:
        # Whatever the rule, a last step that leaves x as it is does not lead to the data.
        end = np.arange(len(steps)) == len(steps) - 1
        told = round(float(near.levels.index[-1]), 2)
        one = round(told), round(told)
        found = [item for item in found if item.id not in LAST or item.t_range != one]
        found = [item for item in found if item.id != "time-ends-early"]
        if law.behaves:
            found = [i for i in found if i.id not in TERMS or abs(_ratio(i) - 1) > 0.01]
        found = [_finding(near, "time-ends-early", end, found=told), *found]
    # Times that are no whole numbers may stand for levels that nobody here knows.
    whole = np.array_equal(steps.told, np.rint(steps.told))
    sure = CAUSES if whole else ("time-off-by-one", "step-skipped")
    if any(item.id in sure for item in found):
        law = replace(law, caused=True)
    every = np.ones(len(steps), dtype=bool)
    if seen.shift:
        found = [_finding(near, "time-off-by-one", every, shift=seen.shift), *found]
    if law.kind == "noise":
        start = _start(law, steps, near, schedule)
        first = [
            item
            for item in start
            if not law.caused and (item.id == "start-not-normal" or item.severity == "error")
        ]
        found = [*first, *found, *(item for item in start if item not in first)]
    ids = {item.id for item in found}
    if steps.clipped.any() and not steps.partly.all() and "not-linear" not in ids:
        found.append(_finding(near, "x0-clipped", steps.clipped))
    if steps.precision > COARSE:
        half = _finding(near, "half-precision", every, found=steps.precision)
        found = [half, *(i for i in found if i.id not in VISIBLE | OF_ROUNDING)]
    found = _ends_early(law, seen, found, schedule)
    if not law.behaves:
        # What is hardly off, or in a few steps only, is hardly the cause.
        late = [
            item for item in found
            if (item.id in TERMS and abs(_ratio(item) - 1) < 0.01)
            or (item.id in ("noise-correlated", "noise-shared-in-batch") and _few(item, seen))
        ]  # fmt: skip
        late.sort(key=_apart, reverse=True)
        return [*(item for item in found if item not in late), *late], law, rule, shown
    # A single step, a little off, as float32 leaves it where a table is near its end.
    found = [item for item in found if item.id not in TERMS or not _slight(item)]
    terms = [item for item in found if item.id in TERMS]
    if len(terms) > 1 or (rule is None and not terms and not any(i.id in VISIBLE for i in found)):
        # Nothing that a single change would explain, and right all the same.
        found = [item for item in found if item.id not in (*TERMS, "bias")]
        found = [
            replace(item, severity="information") if item.id == "noise-last-step" else item
            for item in found
        ]
        return [*found, _unnamed(law, schedule)], law, None, shown
    return found, law, rule, shown


def _terms_and_causes(
    law: Behaviour, seen: Measured, schedule: NoiseSchedule
) -> tuple[list[Finding], str | None, Expected | None]:
    """What the steps do wrong, the rule, and what it says of every step."""
    steps, near = seen.steps, seen.near
    noise = _noise_law(law, steps, near)
    mostly = steps.bent.mean() > 0.5 or steps.partly.any() or not noise
    if steps.bent.any() and mostly and (not noise or noise[0].id == "noise-not-normal"):
        return [_finding(near, "not-linear", steps.bent)], None, near
    if steps.memory.mean() > 0.2:
        return _with_memory(law, seen, noise)
    wrong = off(steps, near)
    if steps.partly.any():
        wrong[:, 2:] = False
    rule: str | None = near.name
    found = _twice(seen, wrong)
    if found:
        return found, rule, near
    bent = [_finding(near, "not-linear", steps.partly)] if steps.partly.any() else []
    if not wrong.any():
        return [*noise, *bent], None if bent else rule, near
    shown = near
    left = wrong[:, 3]
    if wrong[:, [0, 1, 3]].any():
        best = explain(steps, near, schedule)
        near = shown = best.base
        rule, wrong = near.name, off(steps, near)
        if best.cause:
            rows = np.asarray(wrong[:, [0, 1, 3]].any(axis=1))
            found.append(
                _finding(near, best.cause, rows if rows.any() else ~rows, **best.evidence)
            )
            valid = np.ones(len(steps), bool) if best.valid is None else best.valid
            wrong = off(steps, best.expected) & valid[:, None]
            wrong[:, :2] = False
            left, near = wrong[:, 3], best.expected
        elif not bent or best.clean:
            found += _terms(steps, near, wrong)
            left = wrong[:, 3]
            if wrong[:, :2].any(axis=1).mean() > 0.5:
                rule = None
    if steps.partly.any():
        return [*found, *bent], None, shown
    uneven = bool(noise) and noise[0].id == "noise-not-normal"
    sizes = [] if uneven else _noise_size(steps, near, left)
    if any(item.id == "noise-missing" for item in sizes):
        rule = rule and rule.split("/")[0]
    biased = wrong[:, 2]
    if biased.any() and not uneven:
        found.append(_finding(near, "bias", biased, **_gap(steps, near, 2, biased)))
    terms = [item for item in (*found, *sizes) if item.id in TERMS]
    ratios = [_ratio(item) for item in terms]
    found = [*found, *sizes]
    if len(terms) > 1 and max(ratios) - min(ratios) < 0.25 * abs(ratios[0] - 1):
        # One factor on the whole step is said once.
        found = [item for item in found if item not in terms[1:]]
    elif not law.behaves and len(terms) == len(found):
        most = max(map(_size, found), default=0.0)
        found = sorted(
            (item for item in found if _size(item) > 0.1 * most), key=_size, reverse=True
        )
    return [*noise, *found], rule, shown


def _with_memory(
    law: Behaviour, seen: Measured, noise: list[Finding]
) -> tuple[list[Finding], str | None, Expected | None]:
    """A rule with a memory: the known one, or one without a name."""
    steps, near = seen.steps, seen.near
    unused = steps.memory & (np.abs(steps.coefficients[:, 2]) < 5 * steps.errors[:, 2] + 1e-6)
    if unused.mean() > 0.5:
        return (
            [_finding(near, "eps-coefficient", unused, **_gap(steps, near, 1, unused))],
            None,
            None,
        )
    solved = multistep(steps, seen.ways)
    if solved is None:
        return noise, None, None
    levels, good = solved
    shown, wrong, last = expect(Rule("ddim"), levels), ~good, len(good) - 1
    a, b = steps.coefficients[last, 1:3]
    if np.flatnonzero(wrong).tolist() == [last] and abs(a - 1) < 1e-4 and abs(b) < 1e-4:
        # A last step that leads to the level it starts from leaves x as it is.
        told = {"found": float(levels.index[last])}
        return [_finding(shown, "time-ends-early", wrong, **told)], MULTISTEP, None
    if law.behaves or not wrong.any():
        return [], MULTISTEP, None
    return (
        [_finding(shown, "x-coefficient", wrong, term="x_t", **_gap(steps, shown, 0, wrong))],
        MULTISTEP,
        None,
    )


def _twice(seen: Measured, wrong: Mask) -> list[Finding]:
    """Steps of a known rule that are told each time more than once."""
    times = seen.steps.times
    same = np.flatnonzero(np.diff(times) == 0)
    if len(same) < 0.3 * len(times) or wrong[:, :2].any(axis=1).mean() > 0.1:
        return []
    told = {"before": float(times[same[0]]), "after": float(times[same[0] + 1])}
    return [_finding(seen.near, "time-order", np.ones(len(times), bool), **told)]


def _forms(near: Expected, of_x: Array, of_m: Array) -> list[tuple[tuple[str, str], Array]]:
    """A step in the terms (x, m), (x̂_0, ε̂) and (x̂_0, x), each (2, S).

    x_s = A·x_t + B·ε̂ is also (A·a)·x̂_0 + (B + A·b)·ε̂ and −(B·a/b)·x̂_0 + (A + B/b)·x_t.
    """
    a, b = np.sqrt(near.levels.now), np.sqrt(1 - near.levels.now)
    A, B = near.levels.plain(of_x, of_m)
    return [
        (("x_t", "ε̂"), np.stack([of_x, of_m])),
        (("x̂_0", "ε̂"), np.stack([A * a, B + A * b])),
        (("x̂_0", "x_t"), np.stack([-B * a / b, A + B / b])),
    ]


def shares_of(steps: Steps, near: Expected, rows: Mask) -> list[float]:
    """In each form, how much the term that is less off is off, as a share of the other."""
    measured = _forms(near, steps.coefficients[:, 1], steps.coefficients[:, 2])
    wanted = _forms(near, near.numbers[:, 0], near.numbers[:, 1])
    found = []
    for (names, these), (_, right) in zip(measured, wanted, strict=True):
        weight = np.array([0.5 if name == "x̂_0" else 1.0 for name in names])
        away = np.median(np.abs(these - right)[:, rows], axis=1) * weight
        found.append(float(np.nan_to_num(away.min() / max(away.max(), 1e-300), nan=np.inf)))
    return found


def _terms(steps: Steps, near: Expected, wrong: Mask) -> list[Finding]:
    """Which term is off, in the form in which only one is."""
    rows = np.asarray(wrong[:, :2].any(axis=1))
    if not rows.any():
        return []
    shares = shares_of(steps, near, rows)
    # In DDIM's own formula, where it is one; in the first that says it in one term.
    order = (1, 0, 2) if near.rule.name == "ddim" else (0, 1, 2)
    k = next((k for k in order if shares[k] < ALONE), 0)
    names, found = _forms(near, steps.coefficients[:, 1], steps.coefficients[:, 2])[k]
    right, out = _forms(near, near.numbers[:, 0], near.numbers[:, 1])[k][1], []
    away = np.median(np.abs(found - right)[:, rows], axis=1)
    for j, name in enumerate(names):
        mask = rows if k else wrong[:, j]
        if not mask.any() or (k and 2 * away[j] < away[1 - j]):
            continue
        identity = "eps-coefficient" if name == "ε̂" else "x-coefficient"
        told = _numbers(near.levels.index, found[j], right[j], mask)
        out.append(_finding(near, identity, mask, term=name, **told))
    if len(out) == 2:
        # A factor on the whole mean moves both; it is said once.
        ratio = (found / right)[:, rows]
        if float(np.median(np.abs(ratio[1] / ratio[0] - 1))) < 0.02:
            out = out[:1]
    return out


def _numbers(index: Array, found: Array, right: Array, mask: Mask) -> dict[str, float]:
    """The numbers of the step where it shows most, and the median ratio over all."""
    i = int(np.argmax(np.where(mask, np.nan_to_num(np.abs(found - right)), -1)))
    with np.errstate(all="ignore"):
        ratio = float(np.median((found / right)[mask]))
    return {
        "t": float(index[i]),
        "found": float(found[i]),
        "expected": float(right[i]),
        "ratio": ratio,
    }


def _gap(steps: Steps, near: Expected, which: int, mask: Mask) -> dict[str, float]:
    """The numbers of a, b, the bias or σ. Of σ, of the step with the median ratio."""
    zero = np.zeros(len(steps))
    values = (*steps.coefficients[:, 1:3].T, steps.coefficients[:, 0], steps.std)[which]
    target = (*near.numbers[:, :2].T, zero, near.numbers[:, 2])[which]
    told = _numbers(near.levels.index, values, target, mask)
    if which == 3 and np.isfinite(told["ratio"]):
        with np.errstate(all="ignore"):
            i = int(np.nanargmin(np.where(mask, np.abs(values / target - told["ratio"]), np.nan)))
        told |= {
            "t": float(near.levels.index[i]),
            "found": float(values[i]),
            "expected": float(target[i]),
        }
    return told


def _noise_size(steps: Steps, near: Expected, wrong: Mask) -> list[Finding]:
    std, target = steps.std, near.numbers[:, 2]
    wanted = target > 0
    missing = wrong & wanted & (std < 0.02 * target)
    if missing.sum() > 0.8 * wanted.sum() and missing.any():
        return [
            _finding(
                near, "noise-missing", missing, measure="std", **_gap(steps, near, 3, missing)
            )
        ]
    found = []
    last = np.arange(len(wrong)) == len(wrong) - 1
    extra = wrong & ~wanted & last
    rest = wrong & ~extra
    if rest.any():
        told = _gap(steps, near, 3, rest)
        found.append(_finding(near, "noise-scale", rest, measure="std", **told))
    if extra.any() and not (rest & ~wanted).any():
        found.append(_finding(near, "noise-last-step", extra, **_gap(steps, near, 3, extra)))
    return found


def _apart(item: Finding) -> float:
    """By what part a number is off where it is off most."""
    found, expected = (float(item.evidence.get(key, 0.0)) for key in ("found", "expected"))
    return abs(found - expected) / max(abs(expected), 1e-9)


def _ratio(item: Finding) -> float:
    ratio = float(item.evidence.get("ratio", math.nan))
    if not math.isfinite(ratio):
        found, expected = float(item.evidence["found"]), float(item.evidence["expected"])
        ratio = found / expected if expected else math.inf
    return ratio if math.isfinite(ratio) else 1e9


def _few(item: Finding, seen: Measured) -> bool:
    index = seen.near.levels.index
    inside = (index <= item.t_range[0]) & (index >= item.t_range[1])
    return bool(inside.mean() < 0.1)


def _slight(item: Finding) -> bool:
    return abs(_ratio(item) - 1) <= 1e-4 and item.t_range[0] == item.t_range[1]


def _size(item: Finding) -> float:
    """How far a term is off, for their order."""
    if item.id == "noise-missing":
        return 50.0
    if item.id not in TERMS:
        return {"bias": 0.5}.get(item.id, 1.0)
    ratio = _ratio(item)
    return abs(math.log(max(abs(ratio), 1e-9))) + (ratio < 0)


def _ends_early(
    law: Behaviour, seen: Measured, found: list[Finding], schedule: NoiseSchedule
) -> list[Finding]:
    """Nothing is off but the last step, and it leaves the noise of a level above 0."""
    index = seen.near.levels.index
    last = (round(float(index[-1])),) * 2
    these = [item for item in found if item.id in LAST]
    end = law.point.end if law.point is not None else None
    if not these or any(item.t_range != last for item in these) or end is None:
        return found
    if end.noise < 1e-4 or abs(end.signal - 1) > 0.05:
        return found
    if index[-1] < 2 and seen.steps.noisy[-1]:
        return found  # noise in the last step
    place = float(np.interp(end.noise, schedule.sigma, np.arange(schedule.T + 1)))
    mask = np.arange(len(index)) == len(index) - 1
    early = _finding(seen.near, "time-ends-early", mask, found=round(place, 2))
    return [early, *(item for item in found if item.id not in LAST)]


# ------------------------------------------------------------------ of the noise


def _noise_law(law: Behaviour, steps: Steps, near: Expected) -> list[Finding]:
    """Whether the leftover is fresh N(0, 1) in every value; one cause, the broadest."""
    noise, threshold = steps.noise, steps.threshold
    batch, grid = (
        np.nan_to_num([getattr(n, name) for n in noise]) for name in ("batch_score", "grid_score")
    )
    shared, correlated = batch > threshold, grid > threshold
    if shared.any() or correlated.any():
        return [_together(steps, near, shared, correlated)]
    again, value = steps.returning()
    # A right step that goes back to a state before the last call's brings a part of its noise.
    if again.any() and (abs(value) > AGAIN or not law.behaves):
        return [_finding(near, "noise-reused-across-steps", again, found=value)]
    uneven = np.array([n.ks_p for n in noise]) < 2 * ndtr(-threshold)
    uneven |= steps.noisy & _moments_off(steps)
    if not uneven.any():
        return []
    seen = [n for n, wrong in zip(noise, uneven, strict=True) if wrong]
    bias = steps.coefficients[uneven, 0] / np.maximum(steps.std[uneven], 1e-300)
    evidence = {
        "found": float(np.median([n.ks for n in seen])),
        "kurtosis": float(np.median([n.kurtosis for n in seen])),
        "bias": float(np.median(bias)),
    }
    return [_finding(near, "noise-not-normal", uneven, **evidence)]


def _together(steps: Steps, near: Expected, shared: Mask, correlated: Mask) -> Finding:
    """Dependence along one axis, which leaves fewer independent values for another's test.

    The axis is the one along which all slices go together, or else the one that shows most.
    """
    either, noise = shared | correlated, steps.noise

    def median(name: str, mask: Mask) -> float:
        values = [getattr(n, name) for n, there in zip(noise, mask, strict=True) if there]
        return float(np.median(values)) if values else 0.0

    found = median("batch", shared), median("grid", correlated)
    together = abs(median("batch_mean", either)), abs(median("grid_mean", either))
    scores = median("batch_score", either), median("grid_score", either)
    batch, grid = together if max(together) > 0.3 else scores
    if shared.any() and (batch >= grid or not correlated.any()):
        return _finding(near, "noise-shared-in-batch", shared, found=found[0])
    return _finding(near, "noise-correlated", correlated, found=found[1])


def _moments_off(steps: Steps) -> bool:
    """Skewness or excess kurtosis of all noises together, against N(0, 1).

    Of n values they have mean 0 and −6/(n + 1), and for large n variance 6/n and 24/n.
    """
    n = steps.values
    there = [noise for noise in steps.noise if np.isfinite(noise.kurtosis)]
    if n * len(there) < 5000:
        return False
    skewness = np.mean([noise.skewness for noise in there])
    kurtosis = np.mean([noise.kurtosis for noise in there]) + 6 / (n + 1)
    total = n * len(there)
    scores = abs(skewness) / np.sqrt(6 / total), abs(kurtosis) / np.sqrt(24 / total)
    return bool(max(scores) > steps.threshold)


def _start(law: Behaviour, steps: Steps, near: Expected, schedule: NoiseSchedule) -> list[Finding]:
    """x_T is N(0, 1), or as wide as the level it stands for; its values are independent."""
    start, mean, n = steps.start, steps.start_mean, steps.values
    levels, found = near.levels, []
    size, bar = float(levels.size[0]), float(levels.now[0])
    widths = [size, size * math.sqrt(1 - bar)]
    if not levels.vp:
        widths = widths[::-1]
    spread = 2 / (9 * max(n - 1, 1))
    wide = min(
        max(
            abs(mean) * math.sqrt(n) / width,
            abs((start.std / width) ** (2 / 3) - (1 - spread)) / math.sqrt(spread),
        )
        for width in widths
    )
    together = max(np.nan_to_num(start.batch_score), np.nan_to_num(start.grid_score))
    uneven = not start.there or start.ks_p < 2 * ndtr(-steps.threshold)
    first = np.arange(len(steps)) == 0
    offs = [0.0] if law.point is None or law.behaves else law.point.off
    slight = max(offs) > 4 * max(offs[0], 0.01)  # what is off later does not come from it
    if (wide > steps.threshold and not slight) or together > steps.threshold or uneven:
        correlation = start.batch if start.batch_score >= start.grid_score else start.grid
        evidence = {
            "mean": mean, "std": start.std, "expected": widths[0],
            "ks": float(np.nan_to_num(start.ks, nan=1.0)),
            "correlation": float(np.nan_to_num(correlation, nan=1.0)),
        }  # fmt: skip
        found.append(_finding(near, "start-not-normal", first, **evidence))
    T, index = schedule.T, levels.index
    if index[0] < T and levels.reading.path.name in ("index", "index0", "fraction", "function"):
        share = np.sqrt(schedule.alpha_bars[[int(index[0]), T]])
        evidence = {"t": float(index[0]), "found": share[0], "expected": share[1], "T": float(T)}
        late = _finding(near, "time-starts-late", first, **evidence)
        wrong = share[0] - share[1] > LATE and law.lacking > LATE
        found.append(replace(late, severity="error") if wrong else late)
    return found
