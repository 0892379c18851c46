r"""What the steps of a sampler say about it: from evidence to findings.

Causes come before their consequences, and what a cause explains is not said again.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from diffviz.evidence import Evidence, finding, gap, only, start_correlation
from diffviz.findings import Finding
from diffviz.hypotheses import one_cause
from diffviz.identification import (
    SINGLE,
    closest,
    levels_of,
    scores,
)
from diffviz.schedule import NoiseSchedule
from diffviz.statistics import ks_pvalue
from diffviz.watching import (
    Time,
    Watched,
    index_of,
    score_threshold,
    solve,
    time_kinds,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def judge(evidence: Evidence) -> tuple[tuple[Finding, ...], str | None]:
    """(findings, the most causal first; the name of the closest rule, or None)."""
    e = evidence
    found: list[Finding] = []
    rule: str | None = e.expected.rule
    if e.clipped.any():
        found.append(finding(e, "x0-clipped", e.clipped))
    if e.multistep:
        wrong = e.scores[:, 0] != 0
        if wrong.any():
            found.append(finding(e, "x-coefficient", wrong, **gap(e, 0, wrong)))
        return (*found, *_start(e)), rule
    law = _noise_law(e)
    found += law
    if any(finding.id == "noise-reused-across-steps" for finding in law):
        return (*found, *_start(e)), rule
    if e.depends.any():
        found.append(finding(e, "rule-unknown", e.depends))
        return (*found, *_start(e)), None
    off = np.abs(e.scores) > e.threshold
    coefficients = off[:, :2].any(axis=1)
    main = np.asarray(off[:, [0, 1, 3]].any(axis=1))
    cause = one_cause(e, main) if main.any() else None
    if cause is not None:
        found.append(cause)
        return (*found, *_start(e)), rule
    found += _coefficients(e, off)
    explained = any(finding.id == "noise-not-normal" for finding in law)
    if off[:, 2].any() and not explained:
        found.append(finding(e, "bias", off[:, 2], **gap(e, 2, off[:, 2])))
    noise = [] if explained else _noise_size(e, off[:, 3])
    found += noise
    if coefficients.mean() > 0.5:
        rule = None
    elif any(finding.id == "noise-missing" for finding in noise):
        rule = e.expected.rule.split("/")[0]
    return (*found, *_start(e)), rule


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
        severity = "error" if (np.diff(index) > 0).any() else "warning"
        return Finding("time-order", severity, "", (first, last), evidence)
    if first > schedule.T or last < 1:
        for shift in (1, -1):
            moved = levels_of(index + shift, schedule)
            if moved is not None:
                found = closest(watched, schedule, _moved(index + shift, watched))
                table = scores(solve(watched.grams, SINGLE), watched, found)
                if (np.abs(table[:, :2]) < score_threshold(len(table))).all(axis=1).mean() > 0.9:
                    evidence = {"shift": float(-shift)}
                    return Finding("time-off-by-one", "error", "", (first, last), evidence)
    if first > schedule.T + 1:
        evidence = {"name": f"{first} steps", "found": float(first), "expected": float(schedule.T)}
        return Finding("schedule-mismatch", "error", "", (first, last), evidence)
    return None


def _index(watched: Watched, schedule: NoiseSchedule, time: Time) -> Array:
    kind = time_kinds(watched.times, watched.floating, time, schedule)[0]
    return index_of(watched.times, kind, schedule)


def _moved(index: Array, watched: Watched) -> Time:
    places = dict(zip(watched.times.tolist(), index.tolist(), strict=True))
    return lambda value: places[value]


def _noise_law(e: Evidence) -> list[Finding]:
    """Whether the leftover is fresh N(0, 1) in every value; one cause, the broadest."""
    noise = e.used.noise
    root = np.sqrt(e.used.values)
    batch = np.array([n.batch_score for n in noise]) > e.threshold
    if batch.any():
        value = float(np.nanmedian(np.array([n.batch for n in noise])[batch]))
        return [finding(e, "noise-shared-in-batch", batch, found=value)]
    again = np.nan_to_num(e.step_correlation)
    reused = (np.abs(again) > 0.5) & (np.abs(again) * root > e.threshold)
    # A stochastic multi-step rule may show some of it here and there.
    reused &= (noise[0].std > noise[0].floor) & (
        reused.sum() > 0.5 * np.isfinite(e.step_correlation).sum()
    )
    if not reused.any() and e.depends.any():
        again = np.nan_to_num(start_correlation(e.used, e.fit))
        reused = (again > 0.9) & (again * root > e.threshold)
        reused &= reused.sum() > 0.5 * len(reused)
    if reused.any():
        value = float(np.median(again[reused]))
        return [finding(e, "noise-reused-across-steps", reused, found=value)]
    grid = np.abs(np.array([n.grid_score for n in noise])) > e.threshold
    if grid.any():
        value = float(np.median(np.array([n.grid for n in noise])[grid]))
        return [finding(e, "noise-correlated", grid, found=value)]
    law = np.array([n.ks_p for n in noise]) < 2 * norm.sf(e.threshold)
    if law.any():
        value = float(np.median(np.array([n.ks for n in noise])[law]))
        bias = float(np.median((e.fit.coefficients[:, 0] / np.maximum(e.fit.std, 1e-300))[law]))
        return [finding(e, "noise-not-normal", law, found=value, bias=bias)]
    return []


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
    if missing.sum() > 0.5 * wanted.sum():
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
    """x_T is N(0, 1), or as wide as the level it stands for; in σ form, σ times that."""
    mean, std, ks = e.wild.start
    n, bar = e.wild.values, float(e.expected.levels.bars[0])
    widths = [1.0, float(np.sqrt(1 - bar))]
    if e.expected.levels.sigma_form:
        widths = [float(np.sqrt((1 - bar) / bar)), float(bar**-0.5)]
    free = max(n - 1, 1)
    spread = 2 / (9 * free)
    worst = []
    for width in widths:
        wide = ((std / width) ** (2 / 3) - (1 - spread)) / np.sqrt(spread)
        worst.append(max(abs(mean) * np.sqrt(n) / width, abs(wide)))
    law = float(ks_pvalue(ks, n)) < 2 * norm.sf(e.threshold)
    if min(worst) <= e.threshold and not law:
        return []
    return [finding(e, "start-not-normal", only(e, 0), mean=mean, std=std, ks=ks)]
