r"""What the steps of a sampler say about it: from evidence to findings.

Causes come before their consequences, and what a cause explains is not said again.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.rules import ddim
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.evidence import Evidence, carried, finding, gap, only, returning
from diffviz.identify.faults import explain
from diffviz.identify.paired_runs import COARSE, crooked, fitted
from diffviz.identify.rules import closest, expect, levels_of, scores
from diffviz.identify.spy import (
    Time,
    Watched,
    index_of,
    score_threshold,
    time_kinds,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
BENT_AS_WELL = ("noise-not-normal", "noise-reused-across-steps")
"""What the leftover of a step looks like that is no linear function."""

WEAK = 0.3
"""A correlation between samples or pixels below this may come of noise that is used again."""


@np.errstate(divide="ignore", invalid="ignore")
def judge(evidence: Evidence) -> tuple[tuple[Finding, ...], str | None, Evidence]:
    """(findings, errors first and among them the most causal; the rule, or None; their evidence).

    The evidence returned is next to what the rule says.
    """
    e = evidence
    found, rule, shown = _steps(e)
    found += _start(e)
    straight = e.clipped & ~e.off[:, :2].any(axis=1)
    if any(item.id == "not-linear" for item in found):
        pass
    elif straight.any() or e.clipped.mean() > 0.5:
        found.append(finding(e, "x0-clipped", e.clipped))
    if e.wild.precision > COARSE:
        every = np.ones(len(e.clipped), dtype=bool)
        found.append(finding(e, "half-precision", every, found=e.wild.precision))
    order = {"error": 0, "warning": 1, "information": 2}
    return tuple(sorted(found, key=lambda item: order[item.severity])), rule, shown


def _steps(e: Evidence) -> tuple[list[Finding], str | None, Evidence]:
    """What the steps do wrong, the rule, and the evidence next to what it says of every step."""
    rule: str | None = e.expected.rule
    if e.multistep:
        wrong = e.scores[:, 0] != 0
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


def judge_order(watched: Watched, schedule: NoiseSchedule, time: Time) -> Finding | None:
    """What makes a step-by-step comparison impossible: times that do not fall from T to 1."""
    if watched.broken is not None:
        # The last times are of the call before NaN came back.
        t = round(_index(watched, schedule, time)[-1]) if len(watched.times) else schedule.T
        return Finding("nonfinite", "error", "", (t, t))
    index = _index(watched, schedule, time)
    first, last = round(index[0]), round(index[-1])
    stays = np.flatnonzero(np.diff(index) >= 0)
    if (index < 0).any():
        i = int(np.flatnonzero(index < 0)[0])
        evidence: dict[str, float | str] = {
            "found": float(index[i]),
            "read": index[i] + schedule.T + 1,
        }
        return Finding("time-index-wraps", "error", "", (round(index[i]),) * 2, evidence)
    if stays.size:
        before, after = index[stays[0]], index[stays[0] + 1]
        evidence = {"before": float(before), "after": float(after)}
        # Up and down in turn: two calls a step, as second-order samplers with churn make them.
        change = np.sign(np.diff(index))
        rises = (change > 0).any() and not (len(index) > 3 and (np.diff(change) != 0).all())
        severity = "error" if rises else "warning"
        return Finding("time-order", severity, "", (first, last), evidence)
    if index[-1] == 0:
        early = _told_the_end(watched, schedule, time)
        if early is not None:
            return early
    if first > schedule.T or last < 1:
        for shift in (1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 10, -10):
            moved = levels_of(index + shift, schedule)
            if moved is not None:
                found = closest(watched, schedule, _moved(index + shift, watched))
                table = scores(fitted(watched), watched, found)
                if (np.abs(table[:, :2]) < score_threshold(len(table))).all(axis=1).mean() > 0.9:
                    evidence = {"shift": float(-shift)}
                    return Finding("time-off-by-one", "error", "", (first, last), evidence)
    if first > schedule.T + 1:
        evidence = {"name": f"{first} steps", "found": float(first), "expected": float(schedule.T)}
        return Finding("schedule-mismatch", "error", "", (first, last), evidence)
    return None


def _told_the_end(watched: Watched, schedule: NoiseSchedule, time: Time) -> Finding | None:
    """Every step is told the time that it ends at, the last one 0, and not where it starts."""
    kind = time_kinds(watched.times, watched.floating, time, schedule)[0]
    if callable(kind):
        return None
    T = schedule.T
    top = {"index": T, "index0": T - 1, "fraction": 1.0, "sigma": schedule.sigma[T]}[kind]
    if watched.times[0] >= top:
        return None
    moved = replace(watched, times=np.append(top, watched.times[:-1]))
    try:
        found = closest(moved, schedule, kind)
    except InputError:
        return None
    right = np.abs(scores(fitted(moved), moved, found)[1:, :2]) < score_threshold(len(moved.times))
    if right.all(axis=1).mean() <= 0.9:
        return None
    told, used = _index(watched, schedule, time), found.levels.index
    evidence: dict[str, float | str] = {"shift": float(np.median((told - used)[1:]))}
    span = (round(used[0]), round(used[-1]))
    return Finding("time-off-by-one", "error", "", span, evidence)


def _index(watched: Watched, schedule: NoiseSchedule, time: Time) -> Array:
    kind = time_kinds(watched.times, watched.floating, time, schedule)[0]
    return index_of(watched.times, kind, schedule)


def _moved(index: Array, watched: Watched) -> Time:
    places = dict(zip(watched.times.tolist(), index.tolist(), strict=True))
    return lambda value: places[value]


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
    law = np.array([n.ks_p for n in noise]) < 2 * norm.sf(e.threshold)
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
    widths = [1.0, float(np.sqrt(1 - bar))]
    if e.expected.levels.sigma_form:
        widths = [float(np.sqrt((1 - bar) / bar)), float(bar**-0.5)]
    spread = 2 / (9 * max(n - 1, 1))
    size = min(
        max(
            abs(mean) * np.sqrt(n) / width,
            abs((start.std / width) ** (2 / 3) - (1 - spread)) / np.sqrt(spread),
        )
        for width in widths
    )
    together = max(np.nan_to_num(start.batch_score), np.nan_to_num(start.grid_score))
    law = not start.there or start.ks_p < 2 * norm.sf(e.threshold)
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
    if index[0] < T and e.expected.levels.kind != "sigma":
        share = np.sqrt(e.schedule.alpha_bars[[int(index[0]), T]])
        evidence = {"t": float(index[0]), "found": share[0], "expected": share[1], "T": float(T)}
        found.append(finding(e, "time-starts-late", only(e, 0), **evidence))
    return found
