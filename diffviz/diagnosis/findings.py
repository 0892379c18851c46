"""Findings: what is wrong with a sampler or a run, in typed form and in words.

A finding says what, how bad, of which arm, when, and with which numbers. Its words stand in the
catalogues. ``error`` is for what makes wrong samples; a correct sampler of an exact denoiser has
none. What a finding says of x_t agrees with `verdicts`; in addition it needs evidence that does
not depend on how many coordinates of a sample are independent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import binom, chi2

from diffviz.diagnosis.arms import ArmKind, arm_kinds
from diffviz.diagnosis.bands import band, curve, reference
from diffviz.diagnosis.verdicts import (
    HALF,
    LEVEL,
    NEARER,
    Verdicts,
    at_least,
    on_the_way,
    verdicts,
)
from diffviz.files.catalogue import class_name, text
from diffviz.recording.run import Run

Array = NDArray[np.float64]
SEVERITIES = ("error", "warning", "information")
LACKING = 0.1
"""Part of the variance of x_t that is missing where a denoiser was trained without the root. Such
denoisers leave out 0.18 to 0.45; a small network leaves out 0.05 with DDPM and 0.08 with DDIM."""
AWAY = 5.0
"""Samples have run away if they are this many times as far from the mean as the data."""

ROUNDING = 1e-6
"""A measured value below this is said to be 0."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        id: stable name, a key of the catalogues.
        severity: "error", "warning" or "information".
        arm: whose it is; "" for all of a run, or for a sampler seen from outside.
        t_range: (first, last) time at which it shows, falling.
        evidence: the numbers and names that the text quotes.
    """

    id: str
    severity: str
    arm: str
    t_range: tuple[int, int]
    evidence: Mapping[str, float | str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence", MappingProxyType(dict(self.evidence)))

    def __reduce__(self) -> tuple:
        return Finding, (self.id, self.severity, self.arm, self.t_range, dict(self.evidence))

    @property
    def message(self) -> str:
        """The text in English."""
        return self.text("en")

    def title(self, language: str) -> str:
        """What it is, in a few words."""
        return text(f"findings.{self.id}.title", language)

    def text(self, language: str) -> str:
        """Where, what is wrong, the numbers, and what to mend."""
        first, last = self.t_range
        where = f"t = {first}" if first == last else f"t = {first}…{last}"
        values: dict[str, float | str] = dict(self.evidence)
        if "measure" in values:
            measure = values["measure"]
            values["measure"] = text(f"findings.measure.{measure}", language)
        if "mode" in values:
            values["mode"] = class_name(str(values["mode"]), language)
        if isinstance(found := values.get("found"), float) and abs(found) < ROUNDING:
            values["found"] = 0.0
        # A term that the rule does not have is no multiple of what it should be.
        absent = self.id == "eps-coefficient" and not np.isfinite(self.evidence.get("ratio", 1.0))
        body = text(f"findings.{self.id}.{'absent' if absent else 'text'}", language, **values)
        if self.arm:
            where = text("story.list.place", language, arm=self.arm, where=where)
        title = self.title(language)
        return text("story.list.finding", language, title=title, place=where, body=body)

    def numbers(self, language: str = "en") -> dict[str, Any]:
        """All of it as plain JSON values."""
        evidence = self.evidence.items()
        return {
            "id": self.id,
            "severity": self.severity,
            "arm": self.arm,
            "t_range": list(self.t_range),
            "evidence": {k: v if isinstance(v, str) else float(v) for k, v in evidence},
            "message": self.text(language),
        }


def diagnose(run: Run) -> list[Finding]:
    """Everything worth saying about a recorded run, the worst first, then by arm and cause."""
    found: list[Finding] = []
    seen = verdicts(run)
    kinds = arm_kinds(run)
    for i, kind in enumerate(kinds):
        arm, data = kind.name, run.dataset.isel(arm=i)
        if arm in run.broken:
            found.append(Finding("nonfinite", "error", arm, (run.broken[arm], 0)))
            continue
        found += _start(data, arm, run.spec.n)
        found += _noise(run, i, kind)
        found += _collapse(run, i, seen)
        found += _divergence(data, arm)
        found += _modes(data, arm)
        found += _marginal(run, i, seen)
    found += _formula(run, kinds)
    found += _terminal(run)
    found += _answers(run)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _start(data: xr.Dataset, arm: str, samples: int) -> Iterator[Finding]:
    """x_T is drawn, so its values are independent and their moments have known errors."""
    x = data.sel(quantity="x").isel(t=0)
    n, mean, std = (float(x[name]) for name in ("values", "mean", "std"))
    gap = max(abs(mean), abs(std - 1), float(x["ks_normal"]) - float(x["ks_normal_error"]))
    # Samples that are the same differ less from each other than all values do.
    shared = max(1 - (float(data["std_between"].values[0]) / max(std, 1e-12)) ** 2, 0.0)
    if (n > 1 and gap > 0.02 + 6 / np.sqrt(n)) or (samples >= 4 and shared > 0.75):
        t = int(data["t"].values[0])
        distance = float(x["ks_normal"])
        evidence = {"mean": mean, "std": std, "expected": 1.0, "ks": distance}
        evidence["correlation"] = shared
        yield Finding("start-not-normal", "error", arm, (t, t), evidence)


def _noise(run: Run, i: int, arm: ArmKind) -> Iterator[Finding]:
    """What the rule was told to do with its noise, and what the residual's std shows of it.

    A deterministic rule has another joint law of (x_0, x_t) with the same marginals, so its
    residual says nothing about its samples. Between 0 and 1, η changes the joint law on purpose.
    """
    way = on_the_way(run)
    if not arm.eta or not len(way):  # deterministic, or of another kind
        return
    middle = float(np.median(curve(run, "residual_std")[i, way]))
    if not np.isfinite(middle):
        return
    evidence: dict[str, float | str] = {
        "found": middle,
        "expected": 1.0,
        "scale": arm.scale,
        "rule": arm.rule,
        "measure": "residual",
    }
    span = _range(run.dataset["t"].values[way])
    low, high = (float(np.median(edge[way])) for edge in band(run, "residual_std"))
    off = not (1 - LEVEL) * low <= middle <= (1 + LEVEL) * high
    if arm.scale < 0.02:
        yield Finding("noise-missing", "error", arm.name, span, evidence)
    elif abs(arm.scale - 1) > LEVEL:
        yield Finding("noise-scale", "error", arm.name, span, evidence)
    elif off and arm.eta == 1:
        yield Finding("residual-off", "warning", arm.name, span, evidence)


def _collapse(run: Run, i: int, seen: Verdicts) -> Iterator[Finding]:
    """Less spread between samples than chance allows, even if all coordinates move together."""
    found, target = curve(run, "std_between")[i], reference(run, "std_between")
    if seen.spread[i, -1] not in ("same", "less") or found[-1] > HALF * target[-1]:
        return
    n, times = run.spec.n, run.dataset["t"].values
    chance = chi2.cdf((n - 1) * (found[-1] / target[-1]) ** 2, n - 1)
    early = times >= 0.5 * times[0]
    part = curve(run, "distance_to_mean")[i] / reference(run, "distance_to_mean")
    least = float(np.min(part[early]))
    if chance < 1e-6 and least < NEARER:
        below = found < NEARER * target
        evidence = {"found": found[-1], "expected": target[-1], "ratio": least}
        yield Finding("collapse-to-mean", "error", run.arms[i], _range(times[below]), evidence)


def _divergence(data: xr.Dataset, arm: str) -> Iterator[Finding]:
    """An end several times as far from the middle as the data, or as x_T where those are unknown.

    Networks are trained on data whose values are about as large as the noise.
    """
    found, reference = data["distance_to_mean"].values, data["reference_distance_to_mean"].values
    if known := bool(np.isfinite(reference[-1])):
        expected = np.maximum(reference, 0.1)
    else:
        x = data.sel(quantity="x")
        variance = x["std"].values ** 2 * (1 - 1 / x["values"].values)
        found, expected = np.sqrt(x["mean"].values ** 2 + variance), np.ones(len(found))
    ratio = found / expected
    if ratio[-1] > AWAY:
        evidence: dict[str, float | str] = {
            "found": float(found[-1]),
            "ratio": float(ratio[-1]),
            "measure": "data" if known else "start",
        }
        severity = "error" if known else "warning"
        yield Finding(
            "samples-diverge", severity, arm, _range(data["t"].values[ratio > AWAY]), evidence
        )


def _modes(data: xr.Dataset, arm: str) -> Iterator[Finding]:
    """Classes that got under half of their share, by a binomial test over all classes."""
    if "class_count" not in data:
        return
    counts, share = data["class_count"].values, data["reference_class_share"].values
    total = int(counts.sum())
    for name, count, part in zip(data["class"].values, counts, share, strict=True):
        p = float(binom.cdf(count, total, part))
        if p < 1e-4 / len(share) and count < 0.5 * part * total:
            evidence = {"mode": str(name), "found": count / total, "expected": float(part), "p": p}
            yield Finding("mode-lost", "error", arm, (0, 0), evidence)


def _marginal(run: Run, i: int, seen: Verdicts) -> Iterator[Finding]:
    """D from q(x_t), beyond what n samples give if all coordinates of one move together."""
    distance, times = at_least(run, "ks_marginal")[i], run.dataset["t"].values
    inner = (times > 0.02 * times[0]) & (times < times[0])
    off = inner & (seen.marginal[i] == "far") & (distance > 3 / np.sqrt(run.spec.n))
    if off.any():
        worst = int(np.nanargmax(np.where(off, distance, -1)))
        evidence = {"found": float(distance[worst]), "t": float(times[worst])}
        yield Finding("marginal-off", "warning", run.arms[i], _range(times[off]), evidence)


def _formula(run: Run, kinds: Sequence[ArmKind]) -> Iterator[Finding]:
    """A denoiser fitted to x_t = √ᾱ x_0 + (1−ᾱ) ε, without the root.

    Under a right rule and a right denoiser Var x_t = ᾱ Var x_0 + 1 − ᾱ, whatever the data. With
    this one x_t is too narrow in the middle, under every rule, but not near T, where 1−ᾱ and its
    root are the same; a denoiser that is wrong by one factor at every t shows it there as well.
    """
    t, bars = run.dataset["t"].values, run.schedule.alpha_bars
    level = 1 - bars[t]
    start, middle = (level >= 0.95) & (level <= 0.985), (level >= 0.2) & (level <= 0.7)
    # With steps larger than this a right denoiser leaves the law as well.
    stride = np.append(1 - bars[t[:-1]] / bars[t[1:]], 0)
    if not start.any() or not middle.any() or stride[middle].max() > 0.08:
        return
    arms, right = {}, 0
    for kind in kinds:
        data = run.dataset.sel(arm=kind.name)
        if kind.eta is None or kind.scale != 1:
            continue
        right += 1
        std, reference = data["std"].sel(quantity="x").values, data["reference_std"].values[-1]
        # Of its own end, unless the last steps ran away.
        end = reference if std[-1] > 3 * reference else std[-1]
        share = std**2 / np.maximum(bars[t] * end**2 + level, 1e-12)
        lacking, before = 1 - share[middle].mean(), 1 - share[start].mean()
        values = float(data["values"].sel(quantity="x").values[0])
        # DDIM forgets nothing, so that what happens near T adds up.
        most = 0.5 if kind.eta == 1 else 0.25
        if lacking > max(LACKING, 4 * np.sqrt(2 / values)) and before < most * lacking:
            arms[kind.name] = {"found": np.sqrt(1 - lacking), "start": np.sqrt(1 - before)}
    if len(arms) < right:
        return
    for arm, evidence in list(arms.items())[:1]:  # the arms share their denoiser
        name = "" if len(arms) == len(run.arms) else arm
        yield Finding("perturbation-formula", "error", name, _range(t[middle]), evidence)


def _terminal(run: Run) -> Iterator[Finding]:
    bar = float(run.schedule.alpha_bars[-1])
    if np.sqrt(bar) > 0.05:
        T = run.schedule.T
        evidence = {"found": float(np.sqrt(bar)), "alpha_bar": bar}
        yield Finding("terminal-mismatch", "information", "", (T, T), evidence)


def _answers(run: Run) -> Iterator[Finding]:
    """ε̂ is a function of the sample and t, up to the rounding of a narrow type."""
    data, first = run.dataset, int(run.dataset["t"].values[0])
    for name, identity, severity in (
        ("answer_repeat_difference", "denoiser-random", "warning"),
        ("answer_batch_difference", "denoiser-train-mode", "error"),
    ):
        if name not in data:
            continue
        differences = data[name].values
        off = [arm for arm, share in zip(run.arms, differences, strict=True) if share > 0.01]
        # The arms of one recording share their denoiser.
        for arm in [""] if len(off) == len(run.arms) else off:
            found = np.max(differences) if arm == "" else data[name].sel(arm=arm)
            evidence = {"found": float(found)}
            yield Finding(identity, severity, arm, (first, first), evidence)


def _range(times: NDArray) -> tuple[int, int]:
    return int(np.max(times)), int(np.min(times))
