"""A run for other programs: its curves as JSON, and as a table for a spreadsheet.

Histograms, images and the map stay in the run's own file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from diffviz.diagnosis.findings import diagnose
from diffviz.diagnosis.numbers import finite, key_numbers, mark_times
from diffviz.diagnosis.sentences import story
from diffviz.files.atomic import replacing
from diffviz.recording.combine import combine
from diffviz.recording.run import Run

FORMAT = "diffviz-numbers-2"
LARGE = ("bin", "snapshot", "frame", "frame_sample", "map_sample", "plane", "point", "sample")
"""Variables over these dimensions are left out."""


def together(run: Run | Mapping[str, Run]) -> Run:
    """One run as it is; several, each under its name, arm beside arm."""
    if isinstance(run, Run):
        return run
    return combine(run) if len(run) > 1 else next(iter(run.values()))


def report_numbers(run: Run | Mapping[str, Run]) -> dict[str, Any]:
    """All curves of a run or of several, key numbers and findings, as plain JSON values.

    ``coords`` and ``data_vars`` are those of ``xarray.Dataset.to_dict``; ``Dataset.from_dict``
    reads them again. What is not a finite number is None.
    """
    run = together(run)
    light = run.dataset.drop_dims(LARGE, errors="ignore")
    light.attrs = {key: value for key, value in light.attrs.items() if key != "spec"}
    rows = [row._asdict() for row in key_numbers(run)]
    told = story(run, "en")
    return finite(
        {
            "format": FORMAT,
            "spec": json.loads(run.spec.to_json()),
            "headline": told.headline,
            "findings": [finding.numbers() for finding in diagnose(run)],
            "key_numbers": {
                "residual_std_at_t": mark_times(run),
                "arms": [row | {"sentence": told.arms[row["arm"]]} for row in rows[:-1]],
                "data": rows[-1],
            },
            **light.to_dict(),
        }
    )


def write_numbers(run: Run | Mapping[str, Run], path: str | Path) -> None:
    """Write ``report_numbers`` to ``path`` as JSON, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(report_numbers(run), ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def table(run: Run) -> str:
    """The curves as comma-separated text: a row for each arm and t, a column for each variable.

    Of variables with a quantity, ``mean_x`` is the mean of x_t. An empty cell is unknown.
    """
    columns: dict[str, xr.DataArray] = {}
    for name, variable in run.dataset.data_vars.items():
        if set(variable.dims) == {"arm", "quantity", "t"}:
            for quantity in run.dataset["quantity"].values:
                columns[f"{name}_{quantity}"] = variable.sel(quantity=quantity, drop=True)
        elif "t" in variable.dims and set(variable.dims) <= {"arm", "t"}:
            columns[str(name)] = variable
    # A name that a spreadsheet would take for a formula gets an apostrophe.
    arms = [f"'{arm}" if arm[:1] in ("=", "+", "-", "@", "\t", "\r") else arm for arm in run.arms]
    frame = xr.Dataset(columns).assign_coords(arm=arms).to_dataframe(["arm", "t"])
    return frame.to_csv(float_format="%.9g", lineterminator="\r\n")


def write_table(run: Run, path: str | Path) -> None:
    """Write ``table`` to ``path``, UTF-8, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(table(run), encoding="utf-8", newline="")
