"""The few numbers of a run that stand in its first tables, and λ read from the residual."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffviz.diagnosis.arms import arm_kinds, is_linear
from diffviz.diagnosis.bands import band, curve, reference
from diffviz.diagnosis.verdicts import on_the_way
from diffviz.recording.run import Run

Array = NDArray[np.float64]
MARKS = (0.9, 0.6, 0.2)
"""The residual's std is read at these fractions of T."""


class KeyNumbers(NamedTuple):
    """What an arm came to, or the data. NaN where it is not known.

    Attributes:
        arm: its name; empty for the data.
        rule, noise_scale: the rule of the sampler and its noise scale λ.
        mean, std, std_between: of x_0.
        share, share_low, share_high: ``std_between`` as a part of the data's, and the range of
            parts that such a value fits.
        residual_std: at the times of ``mark_times``.
        residual_d, residual_p: the largest D of the residual from N(0, 1) on the way, and the
            smallest p-value there times the number of steps looked at.
        marginal_d, marginal_t: the largest D from q(x_t) on the way, and its time; over all t ≥ 1
            when the run visits no time on the way.
        distinct_nearest: how many different data are nearest to some sample.
    """

    arm: str
    rule: str = ""
    noise_scale: float = math.nan
    mean: float = math.nan
    std: float = math.nan
    std_between: float = math.nan
    share: float = math.nan
    share_low: float = math.nan
    share_high: float = math.nan
    residual_std: tuple[float, ...] = ()
    residual_d: float = math.nan
    residual_p: float = math.nan
    marginal_d: float = math.nan
    marginal_t: int | None = None
    distinct_nearest: float = math.nan


def mark_times(run: Run) -> list[int]:
    """The recorded times t ≥ 1 nearest to 0.9 T, 0.6 T and 0.2 T, each once."""
    times = run.dataset["t"].values
    noisy = times[times >= 1]
    nearest = [int(noisy[np.abs(noisy - mark * times[0]).argmin()]) for mark in MARKS]
    return list(dict.fromkeys(nearest))


def key_numbers(run: Run) -> list[KeyNumbers]:
    """One row for each arm, then one for the data."""
    data, times = run.dataset, run.dataset["t"].values
    way = on_the_way(run) if len(on_the_way(run)) else np.flatnonzero(times >= 1)
    marks = np.isin(times, mark_times(run))
    right = float(reference(run, "std_between")[-1])
    low, high = (float(edge[-1]) for edge in band(run, "std_between"))
    distinct = data["distinct_nearest"].values if "distinct_nearest" in data else None
    p = data["ks_normal_p"].sel(quantity="residual").values[:, way]
    rows = []
    for i, arm in enumerate(arm_kinds(run)):
        marginal = curve(run, "ks_marginal")[i, way]
        residual = curve(run, "residual_ks")[i, way]
        at = None if np.isnan(marginal).all() else int(np.nanargmax(marginal))
        between = float(curve(run, "std_between")[i, -1])
        share = between / right if right > 0 else math.nan
        rows.append(
            KeyNumbers(
                arm=arm.name,
                rule=arm.rule,
                noise_scale=arm.scale,
                mean=float(curve(run, "mean")[i, -1]),
                std=float(curve(run, "std")[i, -1]),
                std_between=between,
                share=share,
                share_low=between / high if right > 0 else math.nan,
                share_high=between / low if right > 0 and low > 0 else math.nan,
                residual_std=tuple(map(float, curve(run, "residual_std")[i, marks])),
                residual_d=_largest(residual),
                residual_p=min(1.0, -_largest(-p[i]) * len(way)),
                marginal_d=_largest(marginal),
                marginal_t=None if at is None else int(times[way[at]]),
                distinct_nearest=math.nan if distinct is None else float(distinct[i]),
            )
        )
    mean, std = (float(reference(run, name)[-1]) for name in ("mean", "std"))
    rows.append(
        KeyNumbers(
            "",
            mean=mean,
            std=std,
            std_between=right,
            share=1.0 if right > 0 else math.nan,
            residual_std=(1.0,) * int(marks.sum()),
            distinct_nearest=math.nan
            if distinct is None
            else float(data["reference_distinct_nearest"]),
        )
    )
    return rows


def _largest(values: Array) -> float:
    return math.nan if np.isnan(values).all() else float(np.nanmax(values))


def noise_readings(run: Run) -> dict[str, Array]:
    """λ̂ (N,) of each arm whose noise was scaled, where it can be read exactly.

    With a linear denoiser variances are linear in λ², so that at every t the residual's std r has
    r_λ² = r_0² + λ²(r_1² − r_0²), with r_0 and r_1 those of the same rule without its noise and
    with all of it. Both must be arms of the run. With a network there is no such law, and nothing
    is read.
    """
    if not is_linear(run):
        return {}
    r = curve(run, "residual_std") ** 2
    at = {(arm.rule, arm.scale): i for i, arm in enumerate(arm_kinds(run))}
    readings = {}
    for (rule, scale), i in at.items():
        ends = at.get((rule, 0.0)), at.get((rule, 1.0))
        if scale in (0.0, 1.0) or None in ends:
            continue
        none, full = (r[end] for end in ends if end is not None)
        with np.errstate(divide="ignore", invalid="ignore"):
            readings[run.arms[i]] = np.sqrt(np.maximum((r[i] - none) / (full - none), 0))
    return readings


def finite(value: Any) -> Any:
    """The same for JSON: numpy's numbers as Python's, None for a float that it cannot write."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
