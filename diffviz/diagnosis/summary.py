"""What happened, in words that the numbers of the run support.

A statement is a key of the catalogue, chosen by thresholds on the run's own numbers, with the arms
it is true of. It is chosen once and said in any language. What happens on the way is read in the
window 0.9 T ≥ t ≥ 0.2 T: near the ends even a right sampler leaves the theory, because the last
step draws no noise.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from diffviz.diagnosis.numbers import leaves_joint_law, on_the_way, scale_of
from diffviz.files.catalogue import catalogue
from diffviz.recording.run import Run

LEVEL = 0.05
"""The residual's std may leave its target by this, and by chance, and still be called kept."""
CLOSE, FAR = 0.1, 0.15
"""D up to the first is close to the marginal, above the second far from it, chance added."""
PULLED = 0.6
"""Below this part of the right distance to the mean, x_t is called pulled to the mean."""
SAME, LESS, MORE = 0.2, 0.8, 1.15
"""Parts of the data's std between samples: almost the same, less varied, more varied."""
MEAN_OFF, MEAN_LEAST = 0.2, 0.02
"""A final mean is worth a sentence when it is the first, in stds of the data, plus the second
away, and more than chance."""
ENOUGH = 8
"""A class is lost when an arm has no sample in it and another arm has at least so many."""

FEW_SAMPLES, FEW_VALUES = 32, 200
"""Below the first, chance is worth a warning; below the second, the way is not judged at all."""
ERRORS, BAND = 3, 1.358
"""Chance: so many standard errors of a mean or a std; of D, this over √n (95 % lie below)."""

Array = NDArray[np.float64]


class Item(NamedTuple):
    """An arm and its numbers, as said in a list."""

    key: str
    values: dict[str, str]


class Statement(NamedTuple):
    """One sentence: a key of ``report.summary`` and what fills its fields."""

    key: str
    items: tuple[Item, ...]
    values: dict[str, str]


def statements(run: Run) -> list[list[Statement]]:
    """Three paragraphs: the noise on the way, the law on the way, the end.

    Arms that stop being finite are named first, and nothing else is said of them.
    """
    whole = run.without_broken()
    said = [_noise(whole), _law(whole), _end(whole)] if whole is not None else [[], [], []]
    return [_broken(run) + said[0], *said[1:]]


def _broken(run: Run) -> list[Statement]:
    return _grouped(
        ("nonfinite", Item("broken", {"arm": arm, "t": str(t)})) for arm, t in run.broken.items()
    )


def paragraphs(run: Run, language: str) -> list[Markup]:
    """The three paragraphs in a language, as escaped HTML; what brackets mean comes last."""
    return [
        _folded([say(statement, language) for statement in paragraph], "sentences", language)
        for paragraph in statements(run)
    ]


def say(statement: Statement, language: str) -> Markup:
    """One statement in a language; names of arms and classes are escaped."""
    texts = catalogue(language)
    parts = [
        Markup(texts[f"report.item.{item.key}"]).format(**item.values) for item in statement.items
    ]
    items = _folded(parts[-1:], "and", language)
    if len(parts) > 1:
        items = _folded([_folded(parts[:-1], "comma", language), parts[-1]], "and", language)
    said = Markup(texts[f"report.summary.{statement.key}"]).format(items=items, **statement.values)
    return Markup("<small>{}</small>").format(said) if statement.key.endswith("gloss") else said


def _folded(parts: list[Markup], pair: str, language: str) -> Markup:
    """The parts joined two by two with the catalogue's ``report.list`` template."""
    joined = parts[0] if parts else Markup()
    for part in parts[1:]:
        joined = Markup(catalogue(language)[f"report.list.{pair}"]).format(a=joined, b=part)
    return joined


def number(value: float) -> str:
    """A number as it is said: two decimals, or two digits when it is small."""
    if not math.isfinite(value):
        return "–"
    small = 0 < abs(value) < 0.0995
    return (f"{value:#.2g}" if small else f"{value:.2f}").replace("-", "−")


def _counted(run: Run, quantity: str, window: NDArray[np.int64]) -> int:
    """How many values of a quantity there are at least, per step of the window; 0 without one."""
    values = run.dataset["values"].sel(quantity=quantity).values[:, window]
    return int(values.min()) if len(window) > 1 else 0


def _grouped(
    found: Iterable[tuple[str, Item]], values: dict[str, str] | None = None
) -> list[Statement]:
    """One statement per key, in the order in which the keys first appear."""
    groups: dict[str, list[Item]] = {}
    for key, item in found:
        groups.setdefault(key, []).append(item)
    return [Statement(key, tuple(items), values or {}) for key, items in groups.items()]


def _noise(run: Run) -> list[Statement]:
    window = on_the_way(run)
    residual = run.dataset["std"].sel(quantity="residual").values[:, window]
    counted = _counted(run, "residual", window)
    if counted < FEW_VALUES or not np.isfinite(residual).all():
        return [Statement("noise_unknown", (), {})]
    level = LEVEL + ERRORS / np.sqrt(2 * counted)
    times = run.dataset["t"].values[window]
    drawn = run.dataset["noise_std"].values
    found = []
    for i, (arm, spec) in enumerate(zip(run.arms, run.spec.arms, strict=True)):
        scale, low, high = scale_of(spec), residual[i].min(), residual[i].max()
        numbers = {"arm": arm, "low": number(low), "high": number(high), "scale": number(scale)}
        path = {"first": number(residual[i, 0]), "last": number(residual[i, -1])}
        # An arrow hides what lies between; it is for those that only fall or rise.
        ends = {numbers["low"], numbers["high"]}
        way = "path" if ends == set(path.values()) and len(ends) > 1 else "range"
        rule = str(spec.get("rule", ""))
        silent = scale > 0 and np.nanmax(np.append(drawn[i], -1)) == 0
        if np.abs(residual[i] - 1).max() <= level:
            key, item = "noise_kept", "one" if numbers["low"] == numbers["high"] else "range"
        elif scale > 0 and np.abs(residual[i] - scale).max() <= level:
            key, item = "noise_dial", "dial"
        elif silent or rule == "ddim(eta=0)":
            key, item = "noise_silent", way
        elif scale == 1 and leaves_joint_law(rule):
            key, item = "noise_part", way
        elif high < 1 + level and residual[i, -1] < 1 - level:
            key, item = "noise_less", way
        elif low > 1 - level and residual[i, -1] > 1 + level:
            key, item = "noise_more", way
        else:
            key, item = "noise_other", "range"
        found.append((key, Item(item, numbers | path)))
    gloss = Statement("noise_gloss", (), {"start": str(times[0]), "stop": str(times[-1])})
    return [*_grouped(found), gloss]


def _law(run: Run) -> list[Statement]:
    window = on_the_way(run)
    marginal = run.dataset["ks_marginal"].values[:, window]
    counted = _counted(run, "x", window)
    if counted < FEW_VALUES or not np.isfinite(marginal).all():
        return [Statement("law_unknown", (), {})]
    times = run.dataset["t"].values
    found = []
    for arm, d in zip(run.arms, marginal, strict=True):
        top = int(d.argmax())
        values = {"arm": arm, "d": number(d[top]), "t": str(times[window[top]])}
        excess = d[top] - BAND / np.sqrt(counted)
        key = "law_close" if excess <= CLOSE else "law_rough" if excess <= FAR else "law_far"
        found.append((key, Item("far" if key == "law_far" else "distance", values)))
    right = run.dataset["reference_distance_to_mean"].values
    pulled, left = [], []
    for arm, distance in zip(run.arms, run.dataset["distance_to_mean"].values, strict=True):
        parts = np.divide(distance, right, out=np.full(len(right), np.nan), where=right > 0)
        at = window[parts[window].argmin()]
        if not parts[at] <= PULLED:
            continue
        pulled.append(
            ("pulled", Item("pulled", _against(arm, distance[at], right[at], times[at])))
        )
        if parts[-1] > 2 * parts[at] and distance[-1] > 2 * distance[at]:
            left.append(("left", Item("end", _against(arm, distance[-1], right[-1], times[-1]))))
    order = ["law_close", "law_rough", "law_far"]
    found.sort(key=lambda pair: order.index(pair[0]))
    return [*_grouped([*found, *pulled, *left]), Statement("law_gloss", (), {})]


def _against(arm: str, value: float, right: float, t: int = 0) -> dict[str, str]:
    return {"arm": arm, "value": number(value), "right": number(right), "t": str(t)}


def _end(run: Run) -> list[Statement]:
    if run.spec.n < 2:
        return [Statement("end_single", (), {})]
    end = run.dataset.isel(t=-1)
    right = float(end["reference_std_between"])
    found = []
    for arm, value in zip(run.arms, end["std_between"].values, strict=True):
        values = _against(arm, value, right)
        if not right > 0:
            key = "end_point" if right == 0 else "end_unknown"
            found.append((key, Item("value", values)))
            continue
        share = value / right
        key = (
            "end_same"
            if share < SAME
            else "end_less"
            if share < LESS
            else "end_like"
            if share <= MORE
            else "end_more"
        )
        found.append((key, Item("share", values | {"share": f"{100 * share:.0f}"})))
    gloss = [Statement("end_gloss", (), {"right": number(right)})] if right > 0 else []
    if run.spec.n < FEW_SAMPLES:
        gloss.insert(0, Statement("end_few", (), {"n": str(run.spec.n)}))
    return [*_grouped(found), *_lost(run), *_repeated(run), *_mean_off(run), *gloss]


def _lost(run: Run) -> list[Statement]:
    if "class_count" not in run.dataset:
        return []
    counts = run.dataset["class_count"].values
    best = counts.argmax(axis=0)
    found = []
    for i, arm in enumerate(run.arms):
        for k in np.flatnonzero((counts[i] == 0) & (counts.max(axis=0) >= ENOUGH)):
            values = {
                "arm": arm,
                "name": str(run.dataset["class"].values[k]),
                "other": run.arms[best[k]],
                "count": str(counts[best[k], k]),
            }
            found.append(("lost", Item("lost", values)))
    return _grouped(found, {"n": str(run.spec.n)})


def _repeated(run: Run) -> list[Statement]:
    if "distinct_nearest" not in run.dataset:
        return []
    expected = float(run.dataset["reference_distinct_nearest"])
    found = [
        ("repeated", Item("repeated", {"arm": arm, "count": str(int(count))}))
        for arm, count in zip(run.arms, run.dataset["distinct_nearest"].values, strict=True)
        if count <= min(LESS * expected, expected - 3)
    ]
    return _grouped(found, {"n": str(run.spec.n), "expected": f"{expected:.0f}"})


def _mean_off(run: Run) -> list[Statement]:
    end = run.dataset.isel(t=-1)
    right, std = float(end["reference_mean"]), float(end["reference_std"])
    chance = ERRORS * float(end["reference_std_between"]) / math.sqrt(run.spec.n)
    allowed = MEAN_OFF * std + MEAN_LEAST + chance
    found = [
        ("mean_off", Item("value", _against(arm, value, right)))
        for arm, value in zip(run.arms, end["mean"].sel(quantity="x").values, strict=True)
        if abs(value - right) > allowed
    ]
    return _grouped(found, {"right": number(right)})
