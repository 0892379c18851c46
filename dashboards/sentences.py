"""What a plot shows at each step, as codes: which arms do what. The words are in the catalogue.

A clause gives every arm at every step one of its keys, or none. On the page one sentence is said
per key that occurs, with its arms and their values. Only thresholds on the run's own numbers
decide, and they are the wider the fewer the samples are, so that a sentence does not claim what
chance alone may do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffviz.diagnosis.verdicts import keeps_noise as leaves_joint_law
from diffviz.figures.strips import is_image
from diffviz.recording.run import Run

Array = NDArray[np.float64]

CLOSE, FAR = 0.1, 0.15
"""D up to the first is close to the marginal, above the second far from it, chance added."""
SAME, LESS, MORE = 0.2, 0.8, 1.25
"""Parts of the right spread between samples."""
PULLED, NEARER, FURTHER = 0.6, 0.9, 1.1
"""Parts of the right distance to the mean."""
DIAL, JOINT = 0.08, 0.05
"""How far the residual may be from what the dial says, and D of the residual from 0."""
MEAN = 0.02
"""How far the mean may be off, beside chance."""
INDEPENDENT = 10
"""As many coordinates of an image are counted as independent at most; its pixels are not."""
END = 0.05
"""Below this part of T even a right sampler leaves the residual's law: no noise comes last."""
BAND = 1.358
"""√n·D stays below this in 95 % of samples of n independent values."""


@dataclass(frozen=True)
class Clause:
    """``codes`` (A, N) index ``keys``; 0 is silence. ``value`` and ``right`` name live numbers."""

    keys: tuple[str, ...]
    codes: NDArray[np.int64]
    value: str
    right: str | None = None


def live(run: Run) -> dict[str, Array]:
    """The numbers that sentences quote: (A, N) per arm, or (N,) for a reference."""
    data = run.dataset
    return {
        "mean": data["mean"].sel(quantity="x").values,
        "pooled": data["std"].sel(quantity="x").values,
        "between": data["std_between"].values,
        "residual": data["std"].sel(quantity="residual").values,
        "naive_d": data["ks_normal"].sel(quantity="x").values,
        "marginal_d": data["ks_marginal"].values,
        "residual_d": data["ks_normal"].sel(quantity="residual").values,
        "distance": data["distance_to_mean"].values,
        "right_mean": data["reference_mean"].values,
        "right_pooled": data["reference_std"].values,
        "right_between": data["reference_std_between"].values,
        "right_distance": data["reference_distance_to_mean"].values,
    }


def clauses(run: Run) -> dict[str, list[Clause]]:
    """Per plot its clauses, in the order in which they are said."""
    now = live(run)
    values = run.dataset["values"]
    # 95 % of samples of as many independent values have a D below this. The pixels of x_t are
    # not independent, so for images it is the least that chance does.
    chance = {
        quantity: BAND / np.sqrt(np.maximum(values.sel(quantity=quantity).values, 1))
        for quantity in ("x", "residual")
    }
    return {
        "trajectories": [_mean(run, now), _stds(run, now)[0]],
        "ks": [_marginal(run, now, chance["x"]), _joint(run, now, chance["residual"])],
        "dial": [_dial(run, now)],
        "stds": _stds(run, now),
        "distance": [_distance(run, now)],
        "mean": [_mean(run, now)],
        "histogram": [
            Clause(("", "spread"), _where(now["pooled"], [(True, 1)]), "pooled", "right_pooled")
        ],
    }


def _where(
    values: Array, cases: Sequence[tuple[NDArray[np.bool_] | bool, int]]
) -> NDArray[np.int64]:
    """The code of the first case that holds; 0 where there is no value."""
    conditions = [np.broadcast_to(np.asarray(condition), values.shape) for condition, _ in cases]
    chosen = np.select(conditions, [code for _, code in cases], 0)
    return np.where(np.isfinite(values), chosen, 0)


def _marginal(run: Run, now: dict[str, Array], chance: Array) -> Clause:
    d = now["marginal_d"]
    # Clean pixels have few values, each with its own share: a jump, beside which any deviation is
    # large. With the least noise on them it is not.
    clean = is_image(run) & (run.dataset["t"].values == 0)
    cases = [
        (d <= chance, 1),
        (d <= CLOSE + chance, 2),
        (clean, 5),
        (d <= FAR + chance, 3),
        (d > FAR + chance, 4),
    ]
    keys = ("", "law_same", "law_close", "law_rough", "law_far", "law_clean")
    return Clause(keys, _where(d, cases), "marginal_d")


def _joint(run: Run, now: dict[str, Array], chance: Array) -> Clause:
    d, near_end, freer = now["residual_d"], _near_end(run), _freer(run)[:, None]
    cases = [(near_end, 1), (d <= JOINT + chance, 2), (freer & (d > 0), 3), (d > 0, 4)]
    keys = ("", "joint_end", "joint_kept", "joint_other", "joint_left")
    return Clause(keys, _where(d, cases), "residual_d")


def _dial(run: Run, now: dict[str, Array]) -> Clause:
    std, near_end = now["residual"], _near_end(run)
    values = run.dataset["values"].sel(quantity="residual").values
    scale = np.array([float(arm["noise_scale"]) for arm in run.spec.arms])[:, None]
    cases = [
        (near_end, 1),
        (scale == 0, 4),
        (_freer(run)[:, None], 5),
        (np.abs(std - scale) <= DIAL + 2 * scale / np.sqrt(2 * np.maximum(values, 1)), 2),
        (std >= 0, 3),
    ]
    keys = ("", "dial_end", "dial_reads", "dial_off", "dial_missing", "dial_other")
    return Clause(keys, _where(std, cases), "residual")


def _stds(run: Run, now: dict[str, Array]) -> list[Clause]:
    between, pooled, chance = now["between"], now["pooled"], _spread_chance(run)
    part = between / now["right_between"]
    less, more = LESS - chance, MORE + chance
    known = [(part < SAME, 1), (part < less, 2), (part > more, 4), (part >= less, 3)]
    keys = ("", "between_same", "between_less", "between_like", "between_more")
    hidden = (part < 0.5) & (pooled / now["right_pooled"] > LESS)
    return [
        Clause(keys, _where(between, known), "between", "right_between"),
        Clause(("", "hidden"), _where(pooled, [(hidden, 1)]), "pooled", "right_pooled"),
    ]


def _distance(run: Run, now: dict[str, Array]) -> Clause:
    part, chance = now["distance"] / now["right_distance"], _spread_chance(run)
    near, far = NEARER - chance, FURTHER + chance
    cases = [(part < PULLED - chance, 1), (part < near, 2), (part > far, 4), (part >= near, 3)]
    keys = ("", "pulled", "nearer", "as_far", "further")
    return Clause(keys, _where(now["distance"], cases), "distance", "right_distance")


def _mean(run: Run, now: dict[str, Array]) -> Clause:
    off = np.abs(now["mean"] - now["right_mean"])
    allowed = MEAN + 3 * _std_of_means(run) / np.sqrt(run.spec.n)
    cases = [(off <= allowed, 1), (off > allowed, 2)]
    return Clause(("", "mean_right", "mean_off"), _where(now["mean"], cases), "mean", "right_mean")


def _std_of_means(run: Run) -> Array:
    """(N,), of the mean of one sample under q(x_t): what is left of the pooled variance."""
    data, d = run.dataset, _coordinates(run)
    within = np.nan_to_num(data["reference_std_within"].values)
    return np.sqrt(np.maximum(data["reference_std"].values ** 2 - within**2 * (d - 1) / d, 0))


def _spread_chance(run: Run) -> float:
    """Twice the relative error that a std of so few samples has."""
    n = max(run.spec.n, 2)
    return float(2 / np.sqrt(2 * (n - 1) * min(_coordinates(run), INDEPENDENT)))


def _coordinates(run: Run) -> float:
    """Values per sample."""
    return float(run.dataset["values"].sel(quantity="x").values.max()) / run.spec.n


def _near_end(run: Run) -> NDArray[np.bool_]:
    return run.dataset["t"].values < END * run.schedule.T


def _freer(run: Run) -> NDArray[np.bool_]:
    """Whether the arm, as it is meant to be, has another joint law than the forward process."""
    arms = run.spec.arms
    free = [leaves_joint_law(str(arm["rule"])) for arm in arms]
    return np.array(free) & np.array([float(arm["noise_scale"]) > 0 for arm in arms])
