"""From a tally to a labelled dataset: names, units, and the reference beside each curve.

A reference is what q(x_t) says, computed from the law of the data. It is NaN where the law is not
known.
"""

import platform
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.measure.statistics import Grid, ks_pvalue, normal_grid
from diffviz.recording.references import bands
from diffviz.recording.run import FORMAT, Run, RunSpec
from diffviz.recording.tally import NOTHING, QUANTITIES, SNAPSHOT_UNIT, Tally

Array = NDArray[np.float64]
CLOUD = 400
"""Points of the data in the plane."""


def assemble(
    tally: Tally,
    spec: RunSpec,
    schedule: NoiseSchedule,
    times: NDArray[np.int64],
    data: DataLaw | None,
    snapshot_times: NDArray[np.int64],
    frame_times: NDArray[np.int64],
    bin_edges: Array,
    step_std: Array,
    seconds: float,
    answers: tuple[float, float] | None = None,
) -> Run:
    """Name every number of a finished run.

    ``times`` (S+1,) are those visited, and ``step_std`` (A, S) is what each step injected.
    ``answers`` are the differences that `checks` saw; None where there are none.
    """
    bars = schedule.alpha_bars[times]
    arms = [arm["name"] for arm in spec.arms]
    sample_dims = _sample_dims(spec.sample_shape)
    ks, ks_error = _ks(tally.ks, tally.cells, tally.blocks, lambda i: normal_grid())
    marginal = np.full((len(arms), len(times)), np.nan)
    marginal_error = marginal.copy()
    if data is not None:
        grids = [data.marginal_grid(bar) for bar in bars] if tally.blocks > 1 else []
        marginal, marginal_error = _ks(
            tally.ks_marginal, tally.marginal_cells, tally.blocks, lambda i: grids[i]
        )
    noise_ks, noise_ks_error = _ks(
        tally.noise_ks, tally.noise_cells, tally.blocks, lambda i: normal_grid()
    )
    moments, n = tally.moments, tally.moments.n
    residuals = int(n[:, QUANTITIES.index("residual"), 0].max())
    p = ks_pvalue(ks, n)
    p[:, [QUANTITIES.index("x"), QUANTITIES.index("eps")]] = np.nan
    residual_std = moments.std[:, QUANTITIES.index("residual")]
    step_std = np.where(np.arange(len(times) - 1) < tally.ends[:, None], step_std, np.nan)
    injected = step_std > 0
    arm_t, arm_q_t = ("arm", "t"), ("arm", "quantity", "t")

    variables: dict[str, tuple] = {
        "mean": (arm_q_t, np.where(n > 0, moments.mean, np.nan), "mean, pooled over coordinates"),
        "std": (arm_q_t, moments.std, "standard deviation, pooled over coordinates"),
        "skewness": (arm_q_t, moments.skewness, "skewness"),
        "kurtosis": (arm_q_t, moments.kurtosis, "excess kurtosis"),
        "ks_normal": (arm_q_t, ks, "KS distance D from N(0, 1)"),
        "ks_normal_error": (arm_q_t, ks_error, "half-width of the bounds of D, 0 when exact"),
        "ks_normal_p": (arm_q_t, p, "KS p-value, where values are independent under the null"),
        "values": (arm_q_t, n.astype(np.int64), "number of values behind the statistics"),
        "histogram": ((*arm_q_t, "bin"), tally.histogram, "counts; outer bins reach to infinity"),
        "ks_marginal": (arm_t, marginal, "KS distance D of x_t from the marginal q(x_t)"),
        "ks_marginal_error": (arm_t, marginal_error, "half-width of the bounds, 0 when exact"),
        "std_between": (
            arm_t,
            np.sqrt((tally.pixels.std**2).mean(axis=-1)),
            "std between samples, as the root mean square over coordinates",
        ),
        "std_within": (
            arm_t,
            np.sqrt(tally.within / tally.n),
            "std within a sample, as the root mean square over samples",
        ),
        "distance_to_mean": (
            arm_t,
            _distance_to_mean(tally, data, bars),
            "RMS distance per coordinate from x_t to √ᾱ_t times the data's mean",
        ),
        "noise_level": (
            arm_t,
            residual_std * schedule.sigma[times],
            "noise per unit of signal in x_t, measured against its own end point",
        ),
        "noise_std": (
            arm_t,
            np.append(step_std * tally.noise.std, np.full((len(arms), 1), np.nan), axis=1),
            "std of the noise injected in the step that leaves t",
        ),
        "noise_ks": (
            arm_t,
            _where(injected, noise_ks),
            "KS distance D of the injected noise, scaled to std 1, from N(0, 1)",
        ),
        "noise_ks_error": (arm_t, _where(injected, noise_ks_error), "half-width of the bounds"),
        "noise_ks_p": (
            arm_t,
            _where(injected, ks_pvalue(noise_ks, tally.noise.n)),
            "KS p-value of the injected noise",
        ),
        "snapshots": (
            ("arm", "snapshot", "sample", *sample_dims),
            np.where(
                tally.snapshots == NOTHING,
                np.float32(np.nan),
                tally.snapshots.astype(np.float32) * np.float32(SNAPSHOT_UNIT),
            ),
            "x_t at the snapshot times",
        ),
        "samples": (("arm", "sample", *sample_dims), tally.samples, "end points x_0"),
    }
    variables |= _references(data, times, bars, schedule)
    variables |= _diversity(tally, data)
    size = int(np.prod(spec.sample_shape))
    for name, band in bands(data, bars, tally.n, size, residuals).items():
        text = f"of {name.replace('_', ' ')}, the range of 95 % of right samplers with this n"
        variables[f"{name}_low"] = (("t",), band[0], f"lower end, {text}")
        variables[f"{name}_high"] = (("t",), band[1], f"upper end, {text}")
    if data is not None and tally.plane.shape[2]:
        variables |= _map(tally, data, bars)
    if tally.frames.size:
        dims = ("arm", "frame", "frame_sample", *sample_dims)
        text = "x_t of a few samples as pictures, -1 to 1 as 0 to 255"
        variables["frames"] = (dims, tally.frames, text)
    if answers is not None:
        repeat, batch = (np.full(len(arms), difference) for difference in answers)
        variables["answer_repeat_difference"] = (
            ("arm",),
            repeat,
            "RMS difference of the denoiser's answers to one question, as a share of their RMS",
        )
        variables["answer_batch_difference"] = (
            ("arm",),
            batch,
            "the same about one sample when the rest of its batch is exchanged",
        )
    for name, values in (
        ("beta", schedule.betas),
        ("alpha", schedule.alphas),
        ("alpha_bar", schedule.alpha_bars),
    ):
        variables[f"schedule_{name}"] = (("schedule_t",), values, f"{name}_t for every t")
    coords: dict[str, tuple] = {
        "arm": (("arm",), np.array(arms), "way of sampling"),
        "t": (("t",), times, "time, T is noise and 0 is data"),
        "quantity": (("quantity",), np.array(QUANTITIES), "what is described"),
        "bin": (("bin",), (bin_edges[1:] + bin_edges[:-1]) / 2, "middle of the bin"),
        "snapshot": (("snapshot",), snapshot_times, "time of the snapshot"),
        "schedule_t": (("schedule_t",), np.arange(schedule.T + 1), "time, all of 0…T"),
    }
    if tally.frames.size:
        coords["frame_t"] = (("frame",), frame_times, "time of the frame")
    if data is not None and data.classes:
        coords["class"] = (("class",), np.array(data.classes), "class of the data")
    dataset = xr.Dataset(
        {k: (dims, values, _attributes(text)) for k, (dims, values, text) in variables.items()},
        {k: (dims, values, _attributes(text)) for k, (dims, values, text) in coords.items()},
        {
            "format": FORMAT,
            "Conventions": "CF-1.11",
            "title": "Trajectories of a diffusion sampler, described step by step",
            "spec": spec.to_json(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": float(round(seconds, 3)),
            "versions": _versions(),
            "residual_values_per_step": residuals,
            "blocks": tally.blocks,
        },
    )
    return Run(dataset)


@cache
def _versions() -> str:
    names = ("diffviz", "torch", "numpy", "scipy")
    found = [f"python {platform.python_version()}"]
    return ", ".join(found + [f"{name} {version(name)}" for name in names])


def _attributes(long_name: str) -> dict[str, str]:
    return {"long_name": long_name, "units": "1"}


def _sample_dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) == 3:
        return ("channel", "height", "width")
    return tuple(f"coordinate_{i}" if len(shape) > 1 else "coordinate" for i in range(len(shape)))


def _ks(
    exact: Array, cells: NDArray[np.unsignedinteger], blocks: int, grid_at: Callable[[int], Grid]
) -> tuple[Array, Array]:
    """(D, half-width of its bounds): exact in one block, the middle of the bounds in several."""
    if blocks == 1:
        return exact, np.where(np.isnan(exact), np.nan, 0.0)
    middle, half = np.full(cells.shape[:-1], np.nan), np.full(cells.shape[:-1], np.nan)
    for index in np.ndindex(cells.shape[:-1]):
        if cells[index].any():
            low, high = grid_at(index[-1]).ks_bounds(cells[index])
            middle[index], half[index] = (low + high) / 2, (high - low) / 2
    return middle, half


def _where(injected: NDArray[np.bool_], values: Array) -> Array:
    shown = np.where(injected, values, np.nan)
    return np.append(shown, np.full((len(shown), 1), np.nan), axis=1)


def _distance_to_mean(tally: Tally, data: DataLaw | None, bars: Array) -> Array:
    """√(mean over samples and coordinates of (x_t − √ᾱ_t μ)²), from the spread per coordinate."""
    if data is None:
        return np.full(tally.within.shape, np.nan)
    center = np.sqrt(bars)[:, None] * data.mean.reshape(-1)[tally.coordinates]
    square = tally.pixels.m2 / tally.pixels.n + (tally.pixels.mean - center) ** 2
    return np.sqrt(square.mean(axis=-1))


def _map(tally: Tally, data: DataLaw, bars: Array) -> dict[str, tuple]:
    """A few samples in the plane of the data's first two principal components."""
    assert data.plane is not None
    directions, stds = data.plane
    center = np.sqrt(bars)[:, None] * (directions @ data.mean.reshape(-1))
    images = data.points is not None and not data.point_scales.any()
    cloud = data.few_points(CLOUD)[0] if images else data.draw(CLOUD, np.random.default_rng(0))
    return {
        "map": (
            ("arm", "t", "map_sample", "plane"),
            (tally.plane - center[:, None]).astype(np.float32),
            "x_t less √ᾱ_t times the data's mean, along the data's first principal components",
        ),
        "map_std": (
            ("t", "plane"),
            np.sqrt(bars[:, None] * stds**2 + 1 - bars[:, None]),
            "std of q(x_t) along them",
        ),
        "map_data": (
            ("point", "plane"),
            (cloud - data.mean.reshape(-1)) @ directions.T,
            "the data themselves along them, less their mean",
        ),
    }


def _references(
    data: DataLaw | None, times: NDArray[np.int64], bars: Array, schedule: NoiseSchedule
) -> dict[str, tuple]:
    def over_t(statistic: Callable[[DataLaw, float], float]) -> Array:
        return np.array([np.nan if data is None else statistic(data, float(bar)) for bar in bars])

    return {
        "reference_mean": (("t",), over_t(DataLaw.marginal_mean), "mean of q(x_t)"),
        "reference_std": (("t",), over_t(DataLaw.marginal_std), "pooled std of q(x_t)"),
        "reference_std_between": (
            ("t",),
            over_t(DataLaw.marginal_std_between),
            "std of q(x_t) between samples, as its root mean square",
        ),
        "reference_std_within": (
            ("t",),
            over_t(DataLaw.marginal_std_within),
            "std within a sample of q(x_t), as its root mean square",
        ),
        "reference_distance_to_mean": (
            ("t",),
            over_t(DataLaw.distance_to_mean),
            "RMS distance per coordinate of q(x_t) to √ᾱ_t times the data's mean",
        ),
        "reference_noise_level": (("t",), schedule.sigma[times], "the level the denoiser is told"),
    }


def _diversity(tally: Tally, data: DataLaw | None) -> dict[str, tuple]:
    """What the end points are nearest to; nothing when the data's members are not known."""
    if data is None or data.shares is None:
        return {}
    found: dict[str, tuple] = {
        "nearest_distance": (
            ("arm",),
            tally.nearest.mean,
            "RMS distance per coordinate from an end point to the nearest data, averaged",
        ),
        "distinct_nearest": (
            ("arm",),
            np.where(np.isnan(tally.nearest.mean), np.nan, tally.hits.sum(axis=1)),
            "how many different data are nearest to some end point",
        ),
        "reference_distinct_nearest": (
            (),
            -np.expm1(tally.n * np.log1p(-np.minimum(data.shares, 1 - 1e-12))).sum(),
            "the same, expected of as many random draws from the data",
        ),
    }
    if data.labels is not None and data.classes:
        share = np.bincount(data.labels, data.shares, minlength=len(data.classes))
        found["class_count"] = (("arm", "class"), tally.class_counts, "end points by class")
        found["reference_class_share"] = (("class",), share, "share of the class in the data")
    return found
