r"""What the steps of a sampler say about it: from evidence to findings.

Causes come before their consequences, and what a cause explains is not said again.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.rules import ddim
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.identify.behaviour import LATE, OFF, Behaviour
from diffviz.identify.evidence import Evidence, carried, finding, gap, only, returning
from diffviz.identify.faults import explain
from diffviz.identify.paired_runs import COARSE, crooked, fitted
from diffviz.identify.rules import expect, place_of, size_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
BENT_AS_WELL = ("noise-not-normal", "noise-reused-across-steps")
"""What the leftover of a step looks like that is no linear function."""

WEAK = 0.3
"""A correlation between samples or pixels below this may come of noise that is used again."""


@np.errstate(divide="ignore", invalid="ignore")
def judge(
    law: Behaviour, evidence: Evidence | None, schedule: NoiseSchedule
) -> tuple[tuple[Finding, ...], str | None, Evidence | None]:
    """(findings, errors first and among them the most causal; the rule, or None; the evidence).

    The evidence returned is next to what the rule says. Whether something is an error, the
    behaviour decides: what the law of the states can see and does not is none.
    """
    rule: str | None = None
    found = _broken(law, schedule)
    if found:
        return tuple(found), None, None
    if evidence is not None:
        found, rule, evidence = _of_steps(law, evidence)
    elif law.behaves is False:
        found = _order(law, schedule)
    if evidence is None and law.behaves and law.kind == "noise":
        found.append(_unnamed(law, schedule))
    found = _settled(law, found, schedule)
    found = [*_given(law, schedule), *found, *_about(law, rule, schedule)]
    order = {"error": 0, "warning": 1, "information": 2}
    return tuple(sorted(found, key=lambda item: order[item.severity])), rule, evidence


def _of_steps(law: Behaviour, e: Evidence) -> tuple[list[Finding], str | None, Evidence]:
    """What the coefficients, the noise and the start say."""
    found, rule, shown = _steps(e)
    if e.shift:
        found = [finding(e, "time-off-by-one", ~np.zeros_like(e.clipped), shift=e.shift), *found]
    if law.kind == "noise":
        found += _start(e)
    straight = e.clipped & ~e.off[:, :2].any(axis=1)
    if any(item.id == "not-linear" for item in found):
        pass
    elif straight.any() or e.clipped.mean() > 0.5:
        found.append(finding(e, "x0-clipped", e.clipped))
    if e.wild.precision > COARSE:
        every = np.ones(len(e.clipped), dtype=bool)
        half = finding(e, "half-precision", every, found=e.wild.precision)
        found = [half, *(i for i in found if i.id not in VISIBLE and i.id != "x0-clipped")]
    found = _ends_early(law, e, found)
    if law.behaves and not e.multistep:
        # A single step, a little off, as float32 leaves it where a table is near its end.
        found = [item for item in found if item.id not in TERMS or abs(_ratio(item) - 1) > 1e-4
                 or item.t_range[0] != item.t_range[1]]  # fmt: skip
        rest = [item for item in found if item.id in VISIBLE]
        terms = [item for item in rest if item.id in TERMS]
        ratios = [_ratio(item) for item in terms]
        if len(terms) > 1 and max(ratios) - min(ratios) < 0.25 * abs(ratios[0] - 1):
            # One factor on the whole step is said once.
            found = [item for item in found if item not in terms[1:]]
            terms = terms[:1]
        unknown = any(item.id == "rule-unknown" for item in rest)
        if len(terms) > 1 or unknown:
            # Nothing that a single change would explain, and right all the same.
            keep = ("not-linear", "time-ends-early")
            found = [item for item in found if item.id not in VISIBLE or item.id in keep]
            last = [item for item in rest if item.id == "noise-last-step"]
            last = [replace(item, severity="information") for item in last]
            return [*found, *last, _unnamed(law, e.schedule)], None, shown
    if not law.behaves:
        found = [*_largest_first(found), *_balance(shown)]
    return found, rule, shown


SEEN = 0.07
"""A deviation that is worth a warning where no rule explains it."""
VISIBLE = {
    "noise-missing", "noise-scale", "noise-last-step", "eps-coefficient", "x-coefficient", "bias",
    "schedule-mismatch", "time-off-by-one", "step-skipped", "time-ends-early", "half-tables",
    "time-index-wraps", "time-order", "time-of-another-state", "rule-unknown", "not-linear",
}  # fmt: skip
"""What the law of the states sees if it does any harm."""


LAST = {"x-coefficient", "eps-coefficient", "noise-scale", "noise-last-step", "schedule-mismatch"}
"""What may look wrong of a last step that does not end at 0."""


def _ends_early(law: Behaviour, e: Evidence, found: list[Finding]) -> list[Finding]:
    """Nothing is off but the last step, and it leaves the noise of a level above 0."""
    index = e.expected.levels.index
    last = (round(float(index[-1])),) * 2
    these = [item for item in found if item.id in LAST]
    end = law.point.end if law.point is not None else None
    if not these or any(item.t_range != last for item in these) or end is None:
        return found
    if end.noise < 1e-4 or index[-1] < 2 or abs(end.signal - 1) > 0.05:
        return found
    place = float(np.interp(end.noise, e.schedule.sigma, np.arange(e.schedule.T + 1)))
    early = finding(e, "time-ends-early", only(e, len(index) - 1), found=round(place, 2))
    return [early, *(item for item in found if item.id not in LAST)]


def _balance(e: Evidence) -> list[Finding]:
    """A step of DDIM in its own terms, √ᾱ_s·x̂_0 + d·ε̂ + σ·z, where d² + σ² is not 1 − ᾱ_s."""
    levels = e.expected.levels
    now, then = levels.bars, levels.bars_next
    a, b, std = e.fit.coefficients[:, 1], e.fit.coefficients[:, 2], e.fit.std
    if levels.answer != "eps" or levels.form != "vp" or (levels.index[:1] - len(a) < 1).all():
        return []
    if np.mean(np.abs(a / np.sqrt(then / now) - 1) < 1e-3) < 0.9:
        return []
    d, wanted = b + a * np.sqrt(1 - now), 1 - then
    off = np.abs(d**2 + std**2 - wanted)
    i = int(np.argmax(off))
    if off[i] < 0.01:
        return []
    told = {"t": float(levels.index[i]), "found": float(d[i]), "std": float(std[i])}
    told |= {"expected": float(wanted[i]), "sum": float(d[i] ** 2 + std[i] ** 2)}
    return [replace(finding(e, "ddim-balance", only(e, i), **told), severity="information")]


TERMS = ("x-coefficient", "eps-coefficient", "noise-scale")


def _largest_first(found: list[Finding]) -> list[Finding]:
    """Of several terms that are off the one that is off most, and none that is off little."""
    sizes = {
        item.id: abs(math.log(max(abs(_ratio(item)), 1e-9))) + (_ratio(item) < 0)
        for item in found
        if item.id in TERMS
    }
    if len(sizes) < 2:
        return found
    most = max(sizes.values())
    kept = [item for item in found if item.id not in sizes or sizes[item.id] > 0.1 * most]
    place = {"noise-last-step": 1.0, "bias": 0.5}
    return sorted(kept, key=lambda item: place.get(item.id, -sizes.get(item.id, math.inf)))


def _ratio(item: Finding) -> float:
    ratio = float(item.evidence.get("ratio", math.nan))
    if not math.isfinite(ratio):
        found, expected = float(item.evidence["found"]), float(item.evidence["expected"])
        ratio = found / expected if expected else math.inf
    return ratio if math.isfinite(ratio) else 1e9


def _unnamed(law: Behaviour, schedule: NoiseSchedule) -> Finding:
    """A rule without a name here is right, or a little off."""
    if law.point is not None and law.point.cost > SEEN:
        off = _law(law, schedule, int(np.argmax(law.point.off)))
        if off:
            return replace(off[0], severity="warning")
    return Finding("rule-unnamed", "information", "", _span(law, schedule))


def _span(law: Behaviour, schedule: NoiseSchedule, first: int = 0) -> tuple[int, int]:
    """(time at a call, time at the last one), on the schedule."""
    reading = law.reading or law.ways[0]
    times = np.array(law.point.told if law.point and law.point.told else law.lab.loop.times)
    index = np.nan_to_num(place_of(reading, times, schedule), posinf=schedule.T)
    return round(float(index[min(first, len(index) - 1)])), round(float(index[-1]))


def _broken(law: Behaviour, schedule: NoiseSchedule) -> list[Finding]:
    """Values that are not finite: no law, no step."""
    loop = law.lab.loop
    point = law.point
    answer = law.reading.answer if law.reading is not None else "eps"
    empty = float(law.ways[0].path.levels(loop.times[:1])[0][0]) < 1e-6
    broken = loop.broken if loop.broken is not None else point.broken if point else None
    empty = empty and answer == "eps" and law.ways[0].path.index is not None
    if law.behaves or (broken is None and not empty):
        return []
    value = loop.times[-1] if broken is None else broken
    t = round(float(place_of(law.ways[0], np.array([value]), schedule)[0]))
    half = loop.start.dtype in (torch.float16, torch.bfloat16)
    found = []
    if empty:
        found.append(Finding("zero-terminal-snr", "error", "", (schedule.T, schedule.T)))
    if half:
        info = {"found": float(torch.finfo(loop.start.dtype).eps)}
        found.append(Finding("half-precision", "error", "", _span(law, schedule), info))
    if broken is not None:
        severity = "information" if found else "error"
        found.append(Finding("nonfinite", severity, "", (t, t)))
    return found


def _order(law: Behaviour, schedule: NoiseSchedule) -> list[Finding]:
    """Times that do not fall, or lie on no part of the schedule."""
    times = law.lab.loop.times
    index = place_of(law.ways[0], times, schedule)
    place = law.ways[0].path.index
    index = np.asarray(place(times), float) if place is not None else index
    first, last = round(float(index[0])), round(float(index[-1]))
    if (index < 0).any() and law.ways[0].path.name in ("index", "index0"):
        i = int(np.flatnonzero(index < 0)[0])
        evidence = {"found": float(index[i]), "read": float(index[i] + schedule.T + 1)}
        return [Finding("time-index-wraps", "error", "", (round(index[i]),) * 2, evidence)]
    stays = np.flatnonzero(np.diff(index) >= 0)
    # A second call a step, of a corrector or of a second-order rule, is told a time again.
    down = len(index) > 1 and index[-1] < index[0]
    path = law.ways[0].path.name
    turned = (path in ("index", "index0") and (np.diff(index) > 0).any()) or not down
    if stays.size and turned and path != "log-snr":
        evidence = {"before": float(times[stays[0]]), "after": float(times[stays[0] + 1])}
        return [Finding("time-order", "error", "", (first, last), evidence)]
    if first > schedule.T + 1:
        named: dict[str, float | str] = {"name": f"{first} steps", "found": float(first)}
        named["expected"] = float(schedule.T)
        return [Finding("schedule-mismatch", "error", "", (first, last), named)]
    return []


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
    found = [item for item in found if item.id != "rule-unknown"]
    clipped = law.lab.loop.clipped > 0.5
    if clipped:
        found = [item for item in found if item.id != "not-linear"]
        found = [Finding("x-clipped", "error", "", _span(law, schedule)), *found]
    return found + _law(law, schedule)


def _law(law: Behaviour, schedule: NoiseSchedule, first: int | None = None) -> list[Finding]:
    """What is off, in the words of the law: from which call on, and by how much."""
    point, first = law.point, law.first if first is None else first
    if point is None or not point.told:
        return []
    if first is not None:
        b, a = np.array(point.b)[first:], np.array(point.a)[first:]
        level, signal = np.array(point.level)[first:], np.array(point.signal)[first:]
        ratio = level / np.maximum(b, 1e-12)
        missing = np.abs(signal[0] - a[0]) * 0.5
        told = {"t": float(point.told[first])}
        if missing > abs(level[0] - b[0]):
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


def _given(law: Behaviour, schedule: NoiseSchedule) -> list[Finding]:
    """The noise of a picture that the loop starts from, beside what the first call is told."""
    if law.kind != "given" or law.point is None or not law.point.told:
        return []
    span = _span(law, schedule)
    held, told = law.noise_of_start(), law.point.b[0]
    chance = 3.5 / np.sqrt(14 * math.prod(law.lab.loop.shape))
    if abs(np.log(max(held, 1e-9) / told)) <= 0.001 + chance:
        return []
    t = float(
        np.interp(
            held / np.sqrt(max(1 - held**2, 1e-9)), schedule.sigma, np.arange(schedule.T + 1)
        )
    )
    severity = "warning" if law.behaves else "error"
    evidence = {"t": float(span[0]), "found": t, "held": held, "expected": told}
    return [Finding("start-level", severity, "", (span[0],) * 2, evidence)]


def _about(law: Behaviour, rule: str | None, schedule: NoiseSchedule) -> list[Finding]:
    """What is worth knowing of a loop, right or wrong."""
    found, span = [], _span(law, schedule)
    ending = law.lab.loop.ending.kind
    if ending == "nothing":
        found.append(Finding("nothing-returned", "information", "", (span[1], 0)))
    elif law.pictures:
        found.append(Finding("pictures-returned", "information", "", (span[1], 0)))
    if law.fixed:
        found.append(Finding("seed-fixed", "information", "", span))
    if rule is not None and rule.startswith("ddpm") and law.behaves:
        largest = float(schedule.alphas[1:].min() ** -0.5)
        if largest > 10:
            evidence = {"found": largest}
            t = 1 + int(np.argmin(schedule.alphas[1:]))
            found.append(Finding("step-amplifies", "information", "", (t, t), evidence))
    return found


def _steps(e: Evidence) -> tuple[list[Finding], str | None, Evidence]:
    """What the steps do wrong, the rule, and the evidence next to what it says of every step."""
    rule: str | None = e.expected.rule
    if e.multistep:
        wrong = e.scores[:, 0] != 0
        last = len(wrong) - 1
        a, b = fitted(e.used).coefficients[last, 1:3]
        if np.flatnonzero(wrong).tolist() == [last] and abs(a - 1) < 1e-4 and abs(b) < 1e-4:
            # A last step that leads to the level it starts from leaves x as it is.
            told = {"found": float(e.expected.levels.index[last])}
            return [finding(e, "time-ends-early", wrong, **told)], rule, e
        found = [finding(e, "x-coefficient", wrong, **gap(e, 0, wrong))] if wrong.any() else []
        return found, rule, e
    law = _noise_law(e)
    bent = np.nan_to_num([noise.bent for noise in e.used.noise]) > e.threshold
    if e.clipped.any() and [item.id for item in law] == ["noise-not-normal"]:
        bent |= e.clipped & e.used.noisy
    if e.used.pairs is not None:
        bent &= ~e.used.pairs.same  # two runs agree to rounding: what is left over is noise
    # A rule with a memory leaves over what is no noise, and may look bent here and there.
    bent &= bent.sum() >= 0.5 * e.depends.sum()
    mostly = False
    again = any(item.id == "noise-reused-across-steps" for item in law)
    if e.tame.pairs is not None and (again or not e.depends.any()):
        seen = crooked(e.tame.pairs, e.threshold)[: len(bent)]
        bent[: len(seen)] |= seen
        mostly = seen.mean() > 0.5
    if again:
        unused = _unused(e)
        if unused.mean() > 0.5:  # what comes again is an answer that was kept
            return [finding(e, "eps-coefficient", unused, **gap(e, 1, unused))], None, e
    if bent.any() and (not law or law[0].id in BENT_AS_WELL or mostly):
        # What is left over of a bent step is no noise.
        curved = finding(e, "not-linear", bent)
        found, shown = _inside(e.inner) if e.inner is not None else ([], e)
        return [*found, curved], None, shown if found else e
    if again:
        return law, rule, e
    # Two runs whose difference is a and b alone hold nothing of the calls before, which differed.
    depends = e.depends if e.used.pairs is None else e.depends & ~e.used.pairs.same
    if depends.any():
        return [*law, finding(e, "rule-unknown", depends)], None, e
    off = e.off
    if not off.any():
        return law, rule, e
    found, shown = [], e
    if off[:, [0, 1, 3]].any():
        reading = explain(e)
        e = shown = replace(e, expected=reading.rule, scores=e.scores_of(reading.rule))
        rule, off = reading.rule.rule, e.off
        if reading.cause:
            off = np.asarray(e.off[:, [0, 1, 3]].any(axis=1))
            found.append(finding(e, reading.cause, off if off.any() else ~off, **reading.evidence))
            e = replace(e, expected=reading.expected, scores=e.scores_of(reading.expected))
            valid = np.ones_like(off) if reading.valid is None else reading.valid
            off = e.off & valid[:, None]
            off[:, :2] = False
        else:
            found += _coefficients(e, off)
            if off[:, :2].any(axis=1).mean() > 0.5:
                rule = None
    noise = [] if law and law[0].id == "noise-not-normal" else _noise_size(e, off[:, 3])
    if any(item.id == "noise-missing" for item in noise):
        rule = rule and rule.split("/")[0]
    if off[:, 2].any() and not (law and law[0].id == "noise-not-normal"):
        found.append(finding(e, "bias", off[:, 2], **gap(e, 2, off[:, 2])))
    if _maps_to_unit(e, off):
        found = [replace(item, severity="warning") for item in found]
    return [*law, *found, *noise], rule, shown


def _maps_to_unit(e: Evidence, off: Mask) -> bool:
    """Nothing is off but the end, which is (x + 1)/2: images for the screen, in [0, 1]."""
    if off[:-1, :3].any() or not off[-1, 2]:
        return False
    bias, a, b = e.fit.coefficients[-1]
    wanted = np.append(e.expected.numbers[-1, :2] / 2, 0.5)
    return bool(np.allclose([a, b, bias], wanted, rtol=1e-3, atol=1e-4))


def _inside(e: Evidence) -> tuple[list[Finding], Evidence]:
    """What a and b do wrong where the steps are linear, and the evidence next to the rule.

    Nothing is said of the noise: of which values it is known may depend on it.
    """
    if not e.off[:, :2].any():
        return [], e
    reading = explain(e)
    shown = replace(e, expected=reading.rule, scores=e.scores_of(reading.rule))
    off = shown.off[:, :2]
    if not off.any():
        return [], e
    if reading.cause:
        steps = np.asarray(off.any(axis=1))
        return [finding(shown, reading.cause, steps, **reading.evidence)], shown
    return _coefficients(shown, shown.off), shown


def _noise_law(e: Evidence) -> list[Finding]:
    """Whether the leftover is fresh N(0, 1) in every value; one cause, the broadest."""
    noise = e.used.noise
    batch, grid = (
        np.nan_to_num([getattr(n, name) for n in noise]) for name in ("batch_score", "grid_score")
    )
    shared, correlated = batch > e.threshold, grid > e.threshold
    again, value = returning(e)
    # Noise that comes again is in x_t already; a regression on x_t then ties samples together.
    ties = np.nan_to_num([[n.batch, n.grid] for n in noise])[shared | correlated]
    weak = np.abs(ties).max(initial=0.0) < WEAK
    if (shared.any() or correlated.any()) and not (again.any() and weak):
        return [_together(e, shared, correlated)]
    first = np.abs(e.scores_of(expect(ddim(0.0), e.expected.levels))[0, :2])
    if e.depends.any() and not e.used.noise[0].there and (first < e.threshold).all():
        # A rule with a memory, which has none yet: its first step is DDIM's. Noise that comes
        # again from the seed of x_T bends the first step.
        return []
    before = np.nan_to_num(e.step_correlation)
    often = np.abs(before) > 0.5
    alone = e.depends.any() and carried(e)[e.depends].mean() > 0.9
    if not again.any() and (often.mean() > 0.5 or alone):
        again = e.depends | (often & (np.abs(before) * np.sqrt(e.used.values) > e.threshold))
        value = float(np.median(before[again])) if again.any() else 0.0
    if again.any():
        return [finding(e, "noise-reused-across-steps", again, found=value)]
    law = np.array([n.ks_p for n in noise]) < 2 * ndtr(-e.threshold)
    law |= e.used.noisy & _moments_off(e)
    if law.any():
        seen = [n for n, wrong in zip(noise, law, strict=True) if wrong]
        bias = e.fit.coefficients[law, 0] / np.maximum(e.fit.std[law], 1e-300)
        evidence = {
            "found": float(np.median([n.ks for n in seen])),
            "kurtosis": float(np.median([n.kurtosis for n in seen])),
            "bias": float(np.median(bias)),
        }
        return [finding(e, "noise-not-normal", law, **evidence)]
    return []


def _unused(e: Evidence) -> Mask:
    """Steps that do nothing with the answer that they were given."""
    found, errors = e.fit.coefficients[:, 2], e.fit.errors[:, 2]
    return (np.abs(found) < 5 * errors) & (np.abs(e.expected.numbers[:, 1]) > 10 * errors)


def _together(e: Evidence, shared: Mask, correlated: Mask) -> Finding:
    """Dependence along one axis, which leaves fewer independent values for another's test.

    The axis is the one along which all slices go together, or else the one that shows most.
    """
    off, noise = shared | correlated, e.used.noise

    def median(name: str, mask: Mask) -> float:
        values = [getattr(n, name) for n, there in zip(noise, mask, strict=True) if there]
        return float(np.median(values)) if values else 0.0

    found = median("batch", shared), median("grid", correlated)
    together = abs(median("batch_mean", off)), abs(median("grid_mean", off))
    scores = median("batch_score", off), median("grid_score", off)
    batch, grid = together if max(together) > 0.3 else scores
    if shared.any() and (batch >= grid or not correlated.any()):
        return finding(e, "noise-shared-in-batch", shared, found=found[0])
    return finding(e, "noise-correlated", correlated, found=found[1])


def _moments_off(e: Evidence) -> bool:
    """Skewness or excess kurtosis of all noises together, against N(0, 1).

    Of n values they have mean 0 and −6/(n + 1), and for large n variance 6/n and 24/n.
    """
    n = e.used.values
    there = [noise for noise in e.used.noise if np.isfinite(noise.kurtosis)]
    if n * len(there) < 5000:
        return False
    skewness = np.mean([noise.skewness for noise in there])
    kurtosis = np.mean([noise.kurtosis for noise in there]) + 6 / (n + 1)
    total = n * len(there)
    return bool(
        max(abs(skewness) / np.sqrt(6 / total), abs(kurtosis) / np.sqrt(24 / total)) > e.threshold
    )


def _coefficients(e: Evidence, off: Mask) -> list[Finding]:
    found = []
    a, b = e.fit.coefficients[:, 1], e.fit.coefficients[:, 2]
    x, eps = off[:, 0], off[:, 1]
    if x.any():
        found.append(finding(e, "x-coefficient", x, **gap(e, 0, x)))
        # A factor on the whole mean moves both; it is said once.
        with np.errstate(all="ignore"):
            same = np.abs(b * e.expected.numbers[:, 0] / (a * e.expected.numbers[:, 1]) - 1) < 0.02
        eps = eps & ~(x & same)
    if eps.any():
        found.append(finding(e, "eps-coefficient", eps, **gap(e, 1, eps)))
    return found


def _noise_size(e: Evidence, off: Mask) -> list[Finding]:
    std, target = e.fit.std, e.expected.numbers[:, 2]
    wanted = target > 0
    missing = off & wanted & (std < 0.02 * target)
    if missing.sum() > 0.8 * wanted.sum():
        return [finding(e, "noise-missing", missing, measure="std", **gap(e, 3, missing))]
    found = []
    last = np.arange(len(off)) == len(off) - 1
    extra = off & ~wanted & last
    wrong = off & ~extra
    if wrong.any():
        found.append(finding(e, "noise-scale", wrong, measure="std", **gap(e, 3, wrong)))
    if extra.any() and not (wrong & ~wanted).any():
        found.append(finding(e, "noise-last-step", extra, **gap(e, 3, extra)))
    return found


def _start(e: Evidence) -> list[Finding]:
    """x_T is N(0, 1), or as wide as the level it stands for; in σ form, σ times that.

    Its values are independent, as those of every other noise.
    """
    start, mean = e.wild.start, e.wild.start_mean
    n, bar = e.wild.values, float(e.expected.levels.bars[0])
    size = float(size_of(np.array([bar]), e.expected.levels.form)[0])
    widths = [size, size * float(np.sqrt(1 - bar))]
    if e.expected.levels.form == "sigma":
        widths = widths[::-1]
    spread = 2 / (9 * max(n - 1, 1))
    size = min(
        max(
            abs(mean) * np.sqrt(n) / width,
            abs((start.std / width) ** (2 / 3) - (1 - spread)) / np.sqrt(spread),
        )
        for width in widths
    )
    together = max(np.nan_to_num(start.batch_score), np.nan_to_num(start.grid_score))
    law = not start.there or start.ks_p < 2 * ndtr(-e.threshold)
    found = []
    if max(size, together) > e.threshold or law:
        correlation = start.batch if start.batch_score >= start.grid_score else start.grid
        evidence = {
            "mean": mean,
            "std": start.std,
            "expected": widths[0],
            "ks": float(np.nan_to_num(start.ks, nan=1.0)),
            "correlation": float(np.nan_to_num(correlation, nan=1.0)),
        }
        found.append(finding(e, "start-not-normal", only(e, 0), **evidence))
    index, T = e.expected.levels.index, e.schedule.T
    if index[0] < T and e.expected.levels.kind in ("index", "index0", "fraction", "function"):
        share = np.sqrt(e.schedule.alpha_bars[[int(index[0]), T]])
        evidence = {"t": float(index[0]), "found": share[0], "expected": share[1], "T": float(T)}
        late = finding(e, "time-starts-late", only(e, 0), **evidence)
        wrong = share[0] - share[1] > LATE
        found.append(replace(late, severity="error") if wrong else late)
    return found
