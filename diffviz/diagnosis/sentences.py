"""What happened in a run, in sentences: for a whole run, and for each step of a picture.

The numbers are judged in `verdicts`; here their words are looked up in the catalogue and joined.
All texts are plain: a page has to escape them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffviz.diagnosis.arms import arm_kinds
from diffviz.diagnosis.bands import CURVES, band, curve, reference
from diffviz.diagnosis.numbers import noise_readings
from diffviz.diagnosis.verdicts import LESS, LEVEL, Codes, Verdicts, on_the_way, verdicts
from diffviz.files.catalogue import class_name, text
from diffviz.recording.run import Run

ENOUGH = 8
"""A class is called lost if an arm has no sample in it and another has at least this many."""
SENTENCES = 2
"""Of an arm; the most important come first."""
MOST = 0.1
"""Part of the steps on the way that may be off by chance."""
CLAUSES = {
    "map": ("spread", "distance"),
    "strips": ("spread",),
    "trajectories": ("spread", "distance"),
    "mean": ("mean",),
    "stds": ("spread", "pooled"),
    "distance": ("distance",),
    "ks": ("marginal", "joint"),
    "dial": ("noise",),
    "staircase": ("noise",),
    "histogram": ("pooled",),
}
"""Picture → the verdicts that are said beside it; of others nothing is said."""
TABLE = ("mean", "std", "std_between", "residual_std", "ks_normal", "ks_marginal", "residual_ks")


@dataclass(frozen=True)
class Story:
    """A run in a few words.

    Attributes:
        headline: what happened, in one sentence.
        arms: arm → how its samples end, and how they came there.
        noise: arm → how much noise its x_t held on the way, which is why.
    """

    headline: str
    arms: dict[str, str]
    noise: dict[str, str]


@dataclass(frozen=True)
class StepTable:
    """The numbers of every step as text: ``cells[step][row][column]``.

    Rows are the arms, then the data, then the range in which a right sampler stays.
    """

    head: list[str]
    rows: list[str]
    cells: list[list[list[str]]]


def story(run: Run, language: str) -> Story:
    """What happened, read from the numbers of this run alone."""
    broken, seen = run.broken, verdicts(run)
    ends, arms, noise, pulled = {}, {}, {}, []
    for i, arm in enumerate(run.arms):
        if arm in broken:
            ends[arm] = "broken"
            arms[arm] = text("story.end.broken", language, t=broken[arm])
            noise[arm] = text("story.cause.unknown", language)
            continue
        ends[arm] = seen.spread[i, -1] or ("single" if run.spec.n < 2 else "unknown")
        parts = [text(f"story.end.{ends[arm]}", language)]
        if way := _way(run, seen, i):
            pulled.append(arm)
            parts.append(text(f"story.way.{way}", language))
        parts += _kinds(run, i, language)
        if (off := seen.mean[i, -1]).startswith("far"):
            parts.append(text(f"story.end.{off}", language))
        arms[arm] = joined(parts[:SENTENCES], "sentences", language)
        noise[arm] = text(f"story.cause.{_noise(run, seen, i)}", language)
    return Story(_headline(ends, pulled, language), arms, noise)


def step_sentences(run: Run, picture: str, language: str) -> list[str]:
    """One text for each recorded t: which arms do what; "" where there is nothing to say."""
    seen, names = verdicts(run), run.arms
    said = [_said(kind, getattr(seen, kind), names, language) for kind in CLAUSES.get(picture, ())]
    steps = range(run.dataset.sizes["t"])
    return [joined([part[i] for part in said if part[i]], "sentences", language) for i in steps]


def indexed(sentences: Sequence[str]) -> tuple[list[str], list[int]]:
    """Each sentence once, and which of them is said at each step."""
    place = {said: i for i, said in enumerate(dict.fromkeys(sentences))}
    return list(place), [place[sentence] for sentence in sentences]


def step_table(run: Run, language: str) -> StepTable:
    """Mean, stds and distances of every step, with what is right beside them."""
    rows = [*run.arms, *(text(f"story.table.{row}", language) for row in ("data", "band"))]
    columns = []
    for name in TABLE:
        values = [[number(v) for v in arm] for arm in curve(run, name)]
        known = CURVES[name].reference is not None
        right = [number(v) if known else "–" for v in reference(run, name)]
        low, high = band(run, name)
        edges = zip(low, high, strict=True)
        span = [f"{number(a)} … {number(b)}"
                if math.isfinite(a) else "–" for a, b in edges]  # fmt: skip
        columns.append([*values, right, span])
    steps = range(run.dataset.sizes["t"])
    cells = [[[column[r][i] for column in columns] for r in range(len(rows))] for i in steps]
    return StepTable([text(f"story.table.{name}", language) for name in TABLE], rows, cells)


def number(value: float) -> str:
    """A number for a sentence: two decimals, or two digits when it is small."""
    if not math.isfinite(value):
        return "–"
    small = 0 < abs(value) < 0.0995
    return (f"{value:#.2g}" if small else f"{value:.2f}").replace("-", "−")


def joined(parts: Sequence[str], pair: str, language: str) -> str:
    """The parts one after the other, two by two by the template ``story.list.PAIR``."""
    said = parts[0] if parts else ""
    for part in parts[1:]:
        said = text(f"story.list.{pair}", language, a=said, b=part)
    return said


def listed(names: Sequence[str], language: str) -> str:
    """Names as a list in a sentence."""
    if len(names) < 2:
        return "".join(names)
    return joined([joined(names[:-1], "comma", language), names[-1]], "and", language)


def _headline(ends: dict[str, str], pulled: Sequence[str], language: str) -> str:
    """The first of these that any arm does; the last two need all of them."""
    for key in ("broken", "same", "less", "more"):
        if arms := [arm for arm, end in ends.items() if end == key]:
            return text(f"story.headline.{key}", language, arms=listed(arms, language))
    if pulled:
        return text("story.headline.pulled", language, arms=listed(pulled, language))
    key = "like" if set(ends.values()) == {"like"} else "other"
    return text(f"story.headline.{key}", language)


def _way(run: Run, seen: Verdicts, arm: int) -> str:
    """Whether x_t came close to the mean of the data on the way, and where it went then."""
    window = on_the_way(run)
    pulled = window[seen.distance[arm, window] == "pulled"]
    if not len(pulled):
        return ""
    part = curve(run, "distance_to_mean")[arm] / reference(run, "distance_to_mean")
    closest = pulled[part[pulled].argmin()]
    return "left" if part[-1] > 2 * part[closest] else "stays"


def _kinds(run: Run, arm: int, language: str) -> list[str]:
    """Kinds of data that the arm lacks and another has, and members that it repeats."""
    said = []
    if "class_count" in run.dataset:
        counts = run.dataset["class_count"].values
        lost = np.flatnonzero((counts[arm] == 0) & (counts.max(axis=0) >= ENOUGH))
        if lost.size:
            best = int(counts[:, lost[0]].argmax())
            there = [k for k in lost if counts[best, k] >= ENOUGH][:3]
            names = [class_name(str(run.dataset["class"].values[k]), language) for k in there]
            values = {"names": listed(names, language), "other": run.arms[best]}
            said.append(text("story.end.lost", language, **values))
    if "distinct_nearest" in run.dataset:
        found = float(run.dataset["distinct_nearest"].values[arm])
        expected = float(run.dataset["reference_distinct_nearest"])
        if found <= min(LESS * expected, expected - 3):
            said.append(text("story.end.repeated", language, n=run.spec.n))
    return said


def _noise(run: Run, seen: Verdicts, arm: int) -> str:
    """The noise on the way, of most of its steps."""
    window = on_the_way(run)
    codes = seen.noise[arm, window]
    if len(window) < 2 or (codes == "").any():
        return "unknown"
    share = {code: float(np.mean(codes == code)) for code in ("less", "more", "free")}
    kind = arm_kinds(run)[arm]
    if share["free"] > MOST:
        return "part" if kind.drawn else "silent"
    if share["less"] <= MOST and share["more"] <= MOST:
        return "kept"
    reading = noise_readings(run).get(kind.name)
    if reading is not None and np.abs(reading[window] - kind.scale).max() <= LEVEL:
        return "dial"
    return "less" if share["more"] <= MOST else "more" if share["less"] <= MOST else "other"


def _said(kind: str, codes: Codes, names: Sequence[str], language: str) -> list[str]:
    """Per step one sentence for each word that occurs, with its arms."""
    found: dict[tuple[str, ...], str] = {}
    for step in map(tuple, codes.T.tolist()):
        if step not in found:
            words = [word for word in dict.fromkeys(step) if word]
            parts = []
            for word in words:
                arms = [name for name, code in zip(names, step, strict=True) if code == word]
                parts.append(text(f"story.{kind}.{word}", language, arms=listed(arms, language)))
            found[step] = joined(parts, "sentences", language)
    return [found[step] for step in map(tuple, codes.T.tolist())]
