"""From the statistics of all blocks to a labelled dataset: names, units, references and bands."""

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
from diffviz.recording.references import bands, references
from diffviz.recording.run import FORMAT, NOTHING, QUANTITIES, SNAPSHOT_UNIT, Run, RunSpec

SHOWN = 16 * 2**20
"""Bytes that the plane and the frames of a block may take, each."""
FRAMES = 250
CLOUD = 400
"""Points of the data in the plane."""

Array = NDArray[np.float64]
Variables = dict[str, tuple[tuple[str, ...], Any, str]]
"""By name: dimensions, values, and what it is."""
RESIDUAL = QUANTITIES.index("residual")
ARM_T, QUANTITY_T = ("arm", "t"), ("arm", "quantity", "t")


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
        answers: the differences that `checks.compare_answers` saw; None where there are none.
    """
    framed = frame_times(times, len(spec.arms), spec.sample_shape)
    shown = snapshot_times(times)
    stats = stats.cut(
        np.flatnonzero(np.isin(times, shown)), np.flatnonzero(np.isin(times, framed))
    )
    bars, names = schedule.alpha_bars[times], [arm["name"] for arm in spec.arms]
    residuals = int(stats.moments.n[:, RESIDUAL, 0].max())
    variables = (
        _curves(stats, law, bars)
        | _noise(stats, schedule.sigma[times], step_std)
        | _samples(stats, spec.sample_shape)
        | references(law, bars)
        | _bands(law, bars, stats.n, math.prod(spec.sample_shape), residuals)
        | _histogram(law, bars)
        | _map(stats, law, bars)
        | _diversity(stats, law)
    )
    variables["reference_noise_level"] = (
        ("t",),
        schedule.sigma[times],
        "the level the denoiser is told",
    )
    if answers is not None:
        for name, value, text in (
            ("repeat", answers[0], "RMS difference of the denoiser's answers to two equal calls"),
            ("batch", answers[1], "the same about one sample when the rest of its batch changes"),
        ):
            text += ", as a share of their RMS"
            variables[f"answer_{name}_difference"] = (("arm",), np.full(len(names), value), text)
    for name in ("beta", "alpha", "alpha_bar"):
        values = getattr(schedule, f"{name}s")
        variables[f"schedule_{name}"] = (("schedule_t",), values, f"{name}_t for every t")
    edges = bin_edges(law)
    coords: Variables = {
        "arm": (("arm",), np.array(names), "way of sampling"),
        "t": (("t",), times, "time, T is noise and 0 is data"),
        "quantity": (("quantity",), np.array(QUANTITIES), "what is measured"),
        "bin": (("bin",), (edges[1:] + edges[:-1]) / 2, "middle of the bin"),
        "snapshot": (("snapshot",), shown, "time of the snapshot"),
        "schedule_t": (("schedule_t",), np.arange(schedule.T + 1), "time, all of 0…T"),
    }
    if stats.frames.size:
        coords["frame_t"] = (("frame",), framed, "time of the frame")
    if law is not None and law.classes:
        coords["class"] = (("class",), np.array(law.classes), "class of the data")
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
    return Run(xr.Dataset(_labelled(variables), _labelled(coords), attributes))


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
    """The times of the frames: up to ``FRAMES`` + 1 of ``times``, evenly; none for no images.

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


# ------------------------------------------------------------------------------ variables


def _curves(stats: BlockStats, law: DataLaw | None, bars: Array) -> Variables:
    moments, n = stats.moments, stats.moments.n
    ks, ks_error = _distances(stats.ks, stats.cells, stats.blocks, [NORMAL] * len(bars))
    marginal, marginal_error = _distances(
        stats.ks_marginal,
        stats.marginal_cells,
        stats.blocks,
        [law.marginal(float(bar)) for bar in bars] if law is not None and stats.blocks > 1 else [],
    )
    p = np.full(ks.shape, np.nan)  # values of x and ε̂ depend on each other
    p[:, RESIDUAL] = ks_pvalue(ks[:, RESIDUAL], n[:, RESIDUAL])
    center = np.full((len(bars), 1), np.nan)
    if law is not None:
        center = np.sqrt(bars)[:, None] * law.mean.reshape(-1)[stats.coordinates]
    square = stats.pixels.m2 / stats.pixels.n + (stats.pixels.mean - center) ** 2
    return {
        "mean": (QUANTITY_T, np.where(n > 0, moments.mean, np.nan), "mean over all coordinates"),
        "std": (QUANTITY_T, moments.std, "standard deviation over all coordinates"),
        "skewness": (QUANTITY_T, moments.skewness, "skewness"),
        "kurtosis": (QUANTITY_T, moments.kurtosis, "excess kurtosis"),
        "ks_normal": (QUANTITY_T, ks, "KS distance D from N(0, 1)"),
        "ks_normal_error": (QUANTITY_T, ks_error, "half-width of the bounds of D, 0 when exact"),
        "ks_normal_p": (QUANTITY_T, p, "KS p-value, where values are independent under the null"),
        "values": (QUANTITY_T, n.astype(np.int64), "number of values behind the statistics"),
        "histogram": (
            (*QUANTITY_T, "bin"),
            stats.histogram,
            "counts; the outer bins reach to infinity",
        ),
        "ks_marginal": (ARM_T, marginal, "KS distance D of x_t from the marginal q(x_t)"),
        "ks_marginal_error": (ARM_T, marginal_error, "half-width of the bounds, 0 when exact"),
        "std_between": (
            ARM_T,
            np.sqrt(stats.pixels.variance.mean(axis=-1)),
            "std between samples, root mean square over coordinates",
        ),
        "std_within": (
            ARM_T,
            np.sqrt(stats.within / stats.n),
            "std within a sample, root mean square over samples",
        ),
        "distance_to_mean": (
            ARM_T,
            np.sqrt(square.mean(axis=-1)),
            "RMS distance per coordinate from x_t to √ᾱ_t times the data's mean",
        ),
    }


def _noise(stats: BlockStats, sigma: Array, step_std: Array) -> Variables:
    """What the steps injected, and the noise level of x_t."""
    step_std = np.where(np.arange(step_std.shape[1]) < stats.ends[:, None], step_std, np.nan)
    laws = [NORMAL] * step_std.shape[1]
    ks, error = _distances(stats.noise_ks, stats.noise_cells, stats.blocks, laws)

    def over_t(values: Array) -> Array:
        """Per arm, with no value at t = 0."""
        return np.pad(values, ((0, 0), (0, 1)), constant_values=np.nan)

    def injected(values: Array) -> Array:
        return over_t(np.where(step_std > 0, values, np.nan))

    return {
        "noise_level": (
            ARM_T,
            stats.moments.std[:, RESIDUAL] * sigma,
            "noise per unit of signal in x_t, measured against its own end point",
        ),
        "noise_std": (
            ARM_T,
            over_t(step_std * stats.noise.std),
            "std of the noise injected in the step that leaves t",
        ),
        "noise_ks": (
            ARM_T,
            injected(ks),
            "KS distance D of the injected noise, scaled to std 1, from N(0, 1)",
        ),
        "noise_ks_error": (ARM_T, injected(error), "half-width of the bounds"),
        "noise_ks_p": (
            ARM_T,
            injected(ks_pvalue(ks, stats.noise.n)),
            "KS p-value of the injected noise",
        ),
    }


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


def _samples(stats: BlockStats, shape: tuple[int, ...]) -> Variables:
    dims = _sample_dims(shape)
    nothing, unit = stats.snapshots == NOTHING, np.float32(SNAPSHOT_UNIT)
    snapshots = np.where(nothing, np.float32(np.nan), stats.snapshots.astype(np.float32) * unit)
    found: Variables = {
        "snapshots": (
            ("arm", "snapshot", "sample", *dims),
            snapshots,
            "x_t at the snapshot times",
        ),
        "samples": (("arm", "sample", *dims), stats.samples, "end points x_0"),
    }
    if stats.frames.size:
        found["frames"] = (
            ("arm", "frame", "frame_sample", *dims),
            stats.frames,
            "x_t of a few samples as pictures, −1 to 1 as 0 to 255",
        )
    return found


def _sample_dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) == 3:
        return ("channel", "height", "width")
    return tuple(f"coordinate_{i}" if len(shape) > 1 else "coordinate" for i in range(len(shape)))


def _bands(law: DataLaw | None, bars: Array, n: int, d: int, residuals: int) -> Variables:
    found: Variables = {}
    for name, ends in bands(law, bars, n, d, residuals).items():
        for end, values in zip(("low", "high"), ends, strict=True):
            text = f"{end} end of the range of {name} in 95 % of right samplers with this n"
            found[f"{name}_{end}"] = (("t",), values, text)
    return found


def _histogram(law: DataLaw | None, bars: Array) -> Variables:
    """What the histogram of x_t is on average, bin by bin."""
    share = np.full((len(bars), BINS), np.nan, np.float32)
    if law is not None:
        inner = bin_edges(law)[1:-1]
        below = np.stack([law.marginal(float(bar)).cdf(inner) for bar in bars])
        share[:] = np.diff(below, prepend=0.0, append=1.0, axis=1)
    return {"reference_histogram": (("t", "bin"), share, "probability of the bin under q(x_t)")}


def _map(stats: BlockStats, law: DataLaw | None, bars: Array) -> Variables:
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
        "map": (
            ("arm", "t", "map_sample", "plane"),
            (stats.plane - center[:, None]).astype(np.float32),
            "x_t less √ᾱ_t times the data's mean, along the data's first principal components",
        ),
        "map_std": (
            ("t", "plane"),
            np.sqrt(bars[:, None] * stds**2 + 1 - bars[:, None]),
            "std of q(x_t) along them",
        ),
        "map_data": (
            ("point", "plane"),
            (cloud - mean) @ directions.T,
            "the data themselves along them, less their mean",
        ),
    }


def _diversity(stats: BlockStats, law: DataLaw | None) -> Variables:
    """What the end points are nearest to; nothing when the data's members are not known."""
    if law is None or law.shares is None:
        return {}
    found: Variables = {
        "nearest_distance": (
            ("arm",),
            stats.nearest.mean,
            "RMS distance per coordinate from an end point to the nearest data, averaged",
        ),
        "distinct_nearest": (
            ("arm",),
            np.where(np.isnan(stats.nearest.mean), np.nan, stats.hits.sum(axis=1)),
            "how many different data are nearest to some end point",
        ),
        "reference_distinct_nearest": (
            (),
            -np.expm1(stats.n * np.log1p(-np.minimum(law.shares, 1 - 1e-12))).sum(),
            "the same, expected of as many random draws from the data",
        ),
    }
    if law.labels is not None and law.classes:
        share = np.bincount(law.labels, law.shares, minlength=len(law.classes))
        found["class_count"] = (("arm", "class"), stats.class_counts, "end points by class")
        found["reference_class_share"] = (("class",), share, "share of the class in the data")
    return found


@cache
def _versions() -> str:
    names = ("diffviz", "torch", "numpy", "scipy")
    found = [f"python {platform.python_version()}"]
    return ", ".join(found + [f"{name} {version(name)}" for name in names])


def _labelled(variables: Variables) -> dict[str, tuple]:
    return {
        name: (dims, values, {"long_name": text, "units": "1"})
        for name, (dims, values, text) in variables.items()
    }
