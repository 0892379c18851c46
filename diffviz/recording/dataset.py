"""From the statistics of all blocks to a labelled dataset: values, references and bands."""

import math
import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.measure.ks import NORMAL, Mixture, ks_of_counts, ks_pvalue
from diffviz.recording.block import BINS, BlockStats
from diffviz.recording.references import bands
from diffviz.recording.run import (
    FORMAT,
    NOTHING,
    PICTURES,
    QUANTITIES,
    SNAPSHOT_UNIT,
    VARIABLES,
    Run,
    RunSpec,
)

SHOWN = 16 * 2**20
"""Bytes that the plane and the frames of a block may take, each."""
FRAMES = 250
CLOUD = 400
"""Points of the data in the plane."""
RESIDUAL = QUANTITIES.index("residual")

Array = NDArray[np.float64]
Values = dict[str, Any]
"""By the name of a variable in `run.VARIABLES`."""


def assemble(
    stats: BlockStats,
    spec: RunSpec,
    schedule: NoiseSchedule,
    times: NDArray[np.int64],
    law: DataLaw | None,
    step_std: Array,
    seconds: float,
    answers: tuple[float, float] | None = None,
) -> Run:
    """Name every number of a finished run.

    Args:
        stats: of all blocks.
        spec: of the run.
        schedule: of the run.
        times: (S+1,), those visited.
        law: the law of the data, for the references.
        step_std: (A, S), the std of what each step injected.
        seconds: that it took.
        answers: what `checks.compare_answers` found; None if it was not called.
    """
    shape, bars, edges = spec.sample_shape, schedule.alpha_bars[times], bin_edges(law)
    framed, shown = frame_times(times, len(spec.arms), shape), snapshot_times(times)
    stats = stats.cut(*(np.flatnonzero(np.isin(times, some)) for some in (shown, framed)))
    residuals = int(stats.counts[:, RESIDUAL, 0].max())
    values: Values = {
        "arm": np.array([arm["name"] for arm in spec.arms]),
        "t": times,
        "quantity": np.array(QUANTITIES),
        "bin": (edges[1:] + edges[:-1]) / 2,
        "snapshot": shown,
        "schedule_t": np.arange(schedule.T + 1),
        "schedule_beta": schedule.betas,
        "schedule_alpha": schedule.alphas,
        "schedule_alpha_bar": schedule.alpha_bars,
        "reference_noise_level": schedule.sigma[times],
        "noise_level": stats.moments.std[:, RESIDUAL] * schedule.sigma[times],
        **_curves(stats, law, bars),
        **_noise(stats, step_std),
        **_samples(stats, framed),
        **_references(law, bars),
        **bands(law, bars, stats.n, math.prod(shape), residuals),
        "reference_histogram": _histogram(law, bars, edges),
        **_map(stats, law, bars),
        **_diversity(stats, law),
    }
    if answers is not None:
        for name, value in zip(("repeat", "batch"), answers, strict=True):
            values[f"answer_{name}_difference"] = np.full(len(spec.arms), value)
    attributes = {
        "format": FORMAT,
        "Conventions": "CF-1.11",
        "title": "Trajectories of a diffusion sampler, measured step by step",
        "spec": spec.to_json(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": float(round(seconds, 3)),
        "versions": _versions(),
        "residual_values_per_step": residuals,
        "blocks": stats.blocks,
    }
    variables = {}
    for name, value in values.items():
        dims, text = VARIABLES[name]
        dims = (*dims, *_sample_dims(shape)) if name in PICTURES else dims
        variables[name] = (dims, value, {"long_name": text, "units": "1"})
    dataset = xr.Dataset(variables, attrs=attributes)
    return Run(dataset.set_coords("frame_t") if "frame_t" in dataset else dataset)


def snapshot_times(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The times at which x_t itself is kept: T, every 25th part of it, and t < 8.

    For T = 500 these are the tutorial's: t % 20 == 0, t = 500, t < 8. Up to 64 steps, all of them.
    """
    if len(times) <= 65:
        return times
    T = int(times[0])
    wanted = np.unique(np.concatenate([[T], np.arange(0, T, max(T // 25, 1)), np.arange(8)]))
    nearest = np.abs(times[:, None] - wanted).argmin(axis=0)
    return times[np.unique(nearest)]


def frame_times(times: NDArray[np.int64], arms: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The times of the frames: up to ``FRAMES`` + 1 of ``times``, evenly; for images only.

    Fewer where even one sample of all ``arms``, of this ``shape``, would take too much memory.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        return times[:0]
    count = min(len(times), FRAMES + 1, SHOWN // (arms * math.prod(shape)))
    return times[np.unique(np.rint(np.linspace(0, len(times) - 1, count)).astype(int))]


def bin_edges(law: DataLaw | None) -> Array:
    """Even bins over ±4.5, widened where the data reach further."""
    low, high = -4.5, 4.5
    if law is not None:
        low = min(low, float((law.locations - 4.5 * law.scales).min()))
        high = max(high, float((law.locations + 4.5 * law.scales).max()))
    return np.linspace(low, high, BINS + 1)


def _curves(stats: BlockStats, law: DataLaw | None, bars: Array) -> Values:
    moments, between = stats.moments, stats.between
    normal, marginal = [NORMAL] * len(bars), []
    if law is not None and stats.blocks > 1:
        marginal = [law.marginal(float(bar)) for bar in bars]
    ks, ks_error = _distances(stats.ks, stats.cells, stats.blocks, normal)
    apart, apart_error = _distances(
        stats.ks_marginal, stats.marginal_cells, stats.blocks, marginal
    )
    p = np.full(ks.shape, np.nan)  # values of x and ε̂ depend on each other
    p[:, RESIDUAL] = ks_pvalue(ks[:, RESIDUAL], stats.counts[:, RESIDUAL])
    center = np.full((len(bars), 1), np.nan)
    if law is not None:
        center = np.sqrt(bars)[:, None] * law.mean.reshape(-1)[stats.coordinates]
    square = between.sums[1] / stats.n + (between.mean - center) ** 2
    return {
        "mean": moments.mean,
        "std": moments.std,
        "skewness": moments.skewness,
        "kurtosis": moments.kurtosis,
        "values": stats.counts.astype(np.int64),
        "ks_normal": ks,
        "ks_normal_error": ks_error,
        "ks_normal_p": p,
        "histogram": stats.histogram,
        "ks_marginal": apart,
        "ks_marginal_error": apart_error,
        "std_between": np.sqrt(between.variance.mean(axis=-1)),
        "std_within": np.sqrt(stats.within / stats.n),
        "distance_to_mean": np.sqrt(square.mean(axis=-1)),
    }


def _noise(stats: BlockStats, step_std: Array) -> Values:
    """What the steps injected; nothing is known at t = 0."""
    taken = np.arange(step_std.shape[1]) < stats.ends[:, None]
    std = np.where(taken, step_std, np.nan)
    ks, error = _distances(
        stats.noise_ks, stats.noise_cells, stats.blocks, [NORMAL] * step_std.shape[1]
    )
    injected = {
        "noise_ks": ks,
        "noise_ks_error": error,
        "noise_ks_p": ks_pvalue(ks, stats.drawn.n),
    }
    found = {name: np.where(std > 0, values, np.nan) for name, values in injected.items()}
    found["noise_std"] = std * stats.drawn.std
    end = ((0, 0), (0, 1))
    return {name: np.pad(v, end, constant_values=np.nan) for name, v in found.items()}


def _distances(
    exact: Array, counts: NDArray[np.uint32], blocks: int, laws: list[Mixture]
) -> tuple[Array, Array]:
    """(D, half-width of its bounds) over (…, t): exact in one block, from counts in several."""
    if blocks == 1:
        return exact, np.where(np.isnan(exact), np.nan, 0.0)
    found, half = np.full(counts.shape[:-1], np.nan), np.full(counts.shape[:-1], np.nan)
    for index in np.ndindex(counts.shape[:-1]):
        if counts[index].any():
            found[index], half[index] = ks_of_counts(counts[index], laws[index[-1]])
    return found, half


def _samples(stats: BlockStats, framed: NDArray[np.int64]) -> Values:
    shown = stats.snapshots.astype(np.float32) * np.float32(SNAPSHOT_UNIT)
    shown[stats.snapshots == NOTHING] = np.nan
    found: Values = {"snapshots": shown, "samples": stats.samples}
    return found | {"frames": stats.frames, "frame_t": framed} if stats.frames.size else found


def _sample_dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) == 3:
        return ("channel", "height", "width")
    return tuple(f"coordinate_{i}" if len(shape) > 1 else "coordinate" for i in range(len(shape)))


def _references(law: DataLaw | None, bars: Array) -> Values:
    names = ("mean", "std", "std_between", "std_within", "distance_to_mean")
    known = {} if law is None else law.moments(bars)
    return {f"reference_{name}": known.get(name, np.full(len(bars), np.nan)) for name in names}


def _histogram(law: DataLaw | None, bars: Array, edges: Array) -> NDArray[np.float32]:
    """What the histogram of x_t is on average, bin by bin, (S+1, BINS)."""
    share = np.full((len(bars), BINS), np.nan, np.float32)
    if law is not None:
        below = np.stack([law.marginal(float(bar)).cdf(edges[1:-1]) for bar in bars])
        share[:] = np.diff(below, prepend=0.0, append=1.0, axis=1)
    return share


def _map(stats: BlockStats, law: DataLaw | None, bars: Array) -> Values:
    """A few samples in the plane of the data's first two principal components."""
    if law is None or law.plane is None:
        return {}
    directions, stds = law.plane
    mean = law.mean.reshape(-1)
    center = np.sqrt(bars)[:, None] * (directions @ mean)
    if law.points is not None and not law.point_scales.any():
        cloud = law.few_points(CLOUD)[0]
    else:
        cloud = law.draw(CLOUD, np.random.default_rng(0))
    return {
        "map": (stats.plane - center[:, None]).astype(np.float32),
        "map_std": np.sqrt(bars[:, None] * stds**2 + 1 - bars[:, None]),
        "map_data": (cloud - mean) @ directions.T,
    }


def _diversity(stats: BlockStats, law: DataLaw | None) -> Values:
    """What the end points are nearest to; nothing when the data's members are not known."""
    if law is None or law.shares is None:
        return {}
    missed = stats.n * np.log1p(-np.minimum(law.shares, 1 - 1e-12))
    found: Values = {
        "nearest_distance": stats.nearest / stats.n,
        "distinct_nearest": np.where(np.isnan(stats.nearest), np.nan, stats.hits.sum(axis=1)),
        "reference_distinct_nearest": -np.expm1(missed).sum(),
    }
    if law.labels is not None and law.classes:
        share = np.bincount(law.labels, law.shares, minlength=len(law.classes))
        found["class"] = np.array(law.classes)
        found["class_count"], found["reference_class_share"] = stats.class_counts, share
    return found


@cache
def _versions() -> str:
    names = ("diffviz", "torch", "numpy", "scipy")
    found = [f"python {platform.python_version()}"]
    return ", ".join(found + [f"{name} {version(name)}" for name in names])
