"""What each arm does at each step, judged once for findings, sentences, report and dashboard.

A verdict needs an effect worth mentioning and evidence for it: a value is compared with a
threshold times the edge of the band in which a right sampler of this n stays (`bands`), not with
the reference itself. The thresholds of all verdicts stand here; `findings` has those of single
findings.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffviz.diagnosis.arms import arm_kinds
from diffviz.diagnosis.bands import band, curve, half_width, reference
from diffviz.diffusion.balance import ScaledDensity
from diffviz.recording.run import Run

Array = NDArray[np.float64]
Codes = NDArray[np.str_]

SAME, HALF, LESS, MORE = 0.3, 0.5, 0.8, 1.25
"""Parts of the right std between samples. Below the first they are almost the same; above the
second nothing is called a collapse."""
PULLED, NEARER, FURTHER = 0.6, 0.9, 1.1
"""Parts of the right distance to the mean of the data."""
CLOSE, FAR = 0.1, 0.15
"""D of x_t from q(x_t): up to the first it is close, above the second far."""
SLIGHT, OFF = 0.05, 0.2
"""Deviations of the mean, in stds of q(x_t)."""
LEVEL = 0.05
"""The residual's std may leave 1 by this, and its D leave 0, as with a good network."""
START, STOP, END = 0.9, 0.2, 0.05
"""Parts of T. "On the way" is from the first down to the second. Below the third, even a right
sampler leaves the law of the residual, because its last step draws no noise."""

DIAL_RIGHT, DIAL_NEARLY = (0.075, 0.05), (0.12, 0.1)
"""Distance from the law of the data, and part of its std, that a setting of the noise dial may be
off by to be called right, and nearly right."""
BALANCED = 0.03
"""A score coefficient further than this from the balance is not called right."""
LOST = 0.02
"""Share of a mode below which it is called lost."""


@dataclass(frozen=True)
class Verdicts:
    """One word for each arm and time, (A, N) each; "" where nothing can be said.

    Attributes:
        spread: point, same, less, like or more: std between samples against the data's.
        distance: pulled, nearer, as_far or further from √ᾱ_t times the mean of the data.
        marginal: close, rough, far or clean (t = 0 of images): x_t against q(x_t).
        mean: right, below, above, far_below or far_above.
        pooled: hidden, where the pooled std looks right although the samples are too alike.
        noise: end, kept, free, less or more: the noise in x_t against what the denoiser is told.
        joint: end, kept, free or left: D of the residual from N(0, 1).
    """

    spread: Codes
    distance: Codes
    marginal: Codes
    mean: Codes
    pooled: Codes
    noise: Codes
    joint: Codes


def verdicts(run: Run) -> Verdicts:
    """Every verdict on the run."""
    between, right = curve(run, "std_between"), reference(run, "std_between")
    low, high = band(run, "std_between")
    known = np.isfinite(between) & np.isfinite(right) & (run.spec.n > 1)
    alike = between < LESS * low
    spread = _first(
        known,
        ("point", right < 1e-9),
        ("same", between < SAME * low),
        ("less", alike),
        ("more", between > MORE * high),
        ("like", True),
    )
    pooled = curve(run, "std") > LESS * reference(run, "std")
    hidden = _first(known & (right > 1e-9), ("hidden", alike & pooled & (between < HALF * right)))
    residual = curve(run, "residual_std")
    low, high = band(run, "residual_std")
    end = run.dataset["t"].values < END * run.schedule.T
    free = np.array([[arm.free] for arm in arm_kinds(run)])
    noise = _first(
        np.isfinite(residual),
        ("end", end),
        ("less", (residual < (1 - LEVEL) * low) & ~free),
        ("more", (residual > (1 + LEVEL) * high) & ~free),
        ("free", (np.abs(residual - 1) > LEVEL) & free),
        ("kept", True),
    )
    d = at_least(run, "residual_ks")
    left = d > LEVEL + band(run, "residual_ks")[1]
    joint = _first(
        np.isfinite(d), ("end", end), ("free", left & free), ("left", left), ("kept", True)
    )
    return Verdicts(spread, _distance(run), _marginal(run), _mean(run), hidden, noise, joint)


def on_the_way(run: Run) -> NDArray[np.int64]:
    """Indices of the recorded times with 0.9 T ≥ t ≥ 0.2 T and t ≥ 1."""
    times, T = run.dataset["t"].values, run.schedule.T
    return np.flatnonzero((times >= max(1, STOP * T)) & (times <= START * T))


def _distance(run: Run) -> Codes:
    distance, (low, high) = curve(run, "distance_to_mean"), band(run, "distance_to_mean")
    return _first(
        np.isfinite(distance) & (reference(run, "distance_to_mean") > 1e-9),
        ("pulled", distance < PULLED * low),
        ("nearer", distance < NEARER * low),
        ("further", distance > FURTHER * high),
        ("as_far", True),
    )


def _marginal(run: Run) -> Codes:
    d, chance = at_least(run, "ks_marginal"), band(run, "ks_marginal")[1]
    # Clean pixels have few values, each with a share of its own: a jump of the distribution
    # function, beside which the smallest deviation counts in full.
    clean = (run.dataset["t"].values == 0) & (len(run.spec.sample_shape) == 3)
    return _first(
        np.isfinite(d),
        ("close", d <= CLOSE + chance),
        ("clean", clean),
        ("far", d > FAR + chance),
        ("rough", True),
    )


def _mean(run: Run) -> Codes:
    mean, (low, high) = curve(run, "mean"), band(run, "mean")
    scale = reference(run, "std") + 1e-3
    return _first(
        np.isfinite(mean) & np.isfinite(low),
        ("far_below", mean < low - OFF * scale),
        ("far_above", mean > high + OFF * scale),
        ("below", mean < low - SLIGHT * scale),
        ("above", mean > high + SLIGHT * scale),
        ("right", True),
    )


def at_least(run: Run, name: str) -> Array:
    """D less the half-width of its bounds: what it is at least, where blocks were merged."""
    return curve(run, name) - half_width(run, name)


def _first(known: NDArray[np.bool_], *cases: tuple[str, NDArray[np.bool_] | bool]) -> Codes:
    """The word of the first case that holds; "" where nothing is known, or no case holds."""
    conditions = [np.broadcast_to(np.asarray(holds), known.shape) for _, holds in cases]
    words = [np.array(word) for word, _ in cases]
    return np.where(known, np.select(conditions, words, ""), "")


def dial_verdict(data: ScaledDensity, off: float) -> str:
    """A setting of the noise dial in a word; its score coefficient is ``off`` the balance."""
    spread = data.std / data.right_std
    for word, (distance, part) in (("works", DIAL_RIGHT), ("nearly", DIAL_NEARLY)):
        if data.distance < distance and abs(spread - 1) < part:
            return word if abs(off) < BALANCED else "nearly"
    if min(data.shares) < LOST:
        return "lost"
    return "narrow" if spread < 0.95 else "wide" if spread > 1.05 else "shifted"
