"""The numbers of a run for other programs, and the few that stand in the report's first table.

Nothing is computed here: values are picked from the run and named.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffviz.files.atomic import replacing
from diffviz.recording.run import Run

FORMAT = "diffviz-numbers-1"
MARKS = (0.9, 0.6, 0.2)
"""The residual's std is read at these fractions of T."""
START, STOP = 0.9, 0.2
"""On the way: from this part of T down to that. Beyond, even a right sampler leaves the theory."""
PICTURES = ("histogram", "snapshots", "samples")
"""Left out of the numbers: they are in the run's own file."""

Array = NDArray[np.float64]


class KeyNumbers(NamedTuple):
    """What an arm came to, or the data. NaN where it is not known.

    Attributes:
        arm: its name; empty for the reference.
        rule: the rule of the sampler and its noise scale λ.
        noise_scale: λ.
        mean, std, std_between: of x_0.
        share_between: ``std_between`` as a part of the data's.
        residual_std: at the times of ``mark_times``.
        marginal_d, marginal_d_t: the largest D against q(x_t) on the way, and where it is; over
            all t ≥ 1 when the run visits no time on the way.
        distinct_nearest: how many different data are nearest to some sample.
    """

    arm: str
    rule: str
    noise_scale: float
    mean: float
    std: float
    std_between: float
    share_between: float
    residual_std: tuple[float, ...]
    marginal_d: float
    marginal_d_t: int | None
    distinct_nearest: float


def on_the_way(run: Run) -> NDArray[np.int64]:
    """Indices of the recorded times with 0.9 T ≥ t ≥ 0.2 T and t ≥ 1."""
    times, T = run.dataset["t"].values, run.schedule.T
    return np.flatnonzero((times >= max(1, STOP * T)) & (times <= START * T))


def mark_times(run: Run) -> list[int]:
    """The recorded times t ≥ 1 nearest to 0.9 T, 0.6 T and 0.2 T, each once."""
    times = run.dataset["t"].values
    noisy = times[times >= 1]
    nearest = [int(noisy[np.abs(noisy - mark * times[0]).argmin()]) for mark in MARKS]
    return list(dict.fromkeys(nearest))


def key_numbers(run: Run) -> list[KeyNumbers]:
    """One row per arm, then one for the data."""
    dataset, end = run.dataset, run.dataset.isel(t=-1)
    reference = float(end["reference_std_between"])
    distinct = "distinct_nearest" in dataset
    way = on_the_way(run) if len(on_the_way(run)) else np.flatnonzero(dataset["t"].values >= 1)
    rows = []
    for i, spec in enumerate(run.spec.arms):
        last = end.isel(arm=i)
        residual = dataset["std"].isel(arm=i).sel(quantity="residual", t=mark_times(run))
        marginal = dataset["ks_marginal"].isel(arm=i).values[way]
        largest = None if np.isnan(marginal).all() else int(np.nanargmax(marginal))
        between = float(last["std_between"])
        rows.append(
            KeyNumbers(
                arm=run.arms[i],
                rule=str(spec.get("rule", "")),
                noise_scale=scale_of(spec),
                mean=float(last["mean"].sel(quantity="x")),
                std=float(last["std"].sel(quantity="x")),
                std_between=between,
                share_between=between / reference if reference > 0 else math.nan,
                residual_std=tuple(map(float, residual.values)),
                marginal_d=math.nan if largest is None else float(marginal[largest]),
                marginal_d_t=None if largest is None else int(dataset["t"][way[largest]]),
                distinct_nearest=float(last["distinct_nearest"]) if distinct else math.nan,
            )
        )
    reference_distinct = float(dataset["reference_distinct_nearest"]) if distinct else math.nan
    rows.append(
        KeyNumbers(
            arm="",
            rule="",
            noise_scale=math.nan,
            mean=float(end["reference_mean"]),
            std=float(end["reference_std"]),
            std_between=reference,
            share_between=1.0 if reference > 0 else math.nan,
            residual_std=tuple(1.0 for _ in mark_times(run)),
            marginal_d=math.nan,
            marginal_d_t=None,
            distinct_nearest=reference_distinct,
        )
    )
    return rows


def scale_of(arm: dict[str, Any]) -> float:
    """The noise scale λ of an arm's specification, NaN when it is not known."""
    value = arm.get("noise_scale")
    return math.nan if value is None else float(value)


def report_numbers(run: Run) -> dict[str, Any]:
    """All curves and key numbers of a run as plain JSON values; what is not a number is None.

    ``coordinates`` and ``variables`` map a name to ``dims``, ``meaning`` and nested ``values``;
    histograms and images stay in the run's own file.
    """
    dataset = run.dataset
    numbers: dict[str, Any] = {
        "format": FORMAT,
        "spec": json.loads(run.spec.to_json()),
        "made_by": {
            str(name): value.item() if isinstance(value, np.generic) else value
            for name, value in dataset.attrs.items()
            if name not in ("spec", "format", "Conventions", "title")
        },
        "key_numbers": {
            "residual_std_at_t": mark_times(run),
            "arms": [row._asdict() for row in key_numbers(run)[:-1]],
            "reference": key_numbers(run)[-1]._asdict(),
        },
    }
    for group, names in (("coordinates", dataset.coords), ("variables", dataset.data_vars)):
        numbers[group] = {
            str(name): {
                "dims": list(map(str, dataset[name].dims)),
                "meaning": str(dataset[name].attrs.get("long_name", "")),
                "values": dataset[name].values.tolist(),
            }
            for name in names
            if name not in PICTURES
        }
    return finite(numbers)


def finite(value: Any) -> Any:
    """The same with None for every float that JSON cannot write."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_numbers(run: Run, path: str | Path) -> None:
    """Write ``report_numbers`` to ``path`` as JSON, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(report_numbers(run), ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def leaves_joint_law(rule: str) -> bool:
    """Whether the rule of that name is DDIM below η = 1.

    It has the right marginals, and another joint law of (x_0, x_t) than the forward process on
    purpose.
    """
    return rule.startswith("ddim") and rule != "ddim(eta=1)"
