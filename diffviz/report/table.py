"""The curves of a run as a table for a spreadsheet: one row per arm and step, comma-separated.

A column is a variable of the run; of those with a quantity, ``mean_x`` is the mean of x_t. What
q(x_t) says stands in the columns that begin with ``reference_``. An empty cell is unknown.
"""

import csv
import io
from pathlib import Path

import numpy as np

from diffviz.files.atomic import replacing
from diffviz.recording.run import Run


def write_table(run: Run, path: str | Path) -> None:
    """Write the table to ``path``, UTF-8, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(table(run), encoding="utf-8", newline="")


def table(run: Run) -> str:
    """The table as text."""
    dataset, shape = run.dataset, (len(run.arms), run.dataset.sizes["t"])
    columns = {}
    for name, variable in dataset.data_vars.items():
        dims = set(variable.dims)
        if dims == {"arm", "quantity", "t"}:
            for quantity in dataset["quantity"].values:
                part = variable.sel(quantity=quantity).transpose("arm", "t")
                columns[f"{name}_{quantity}"] = part.values
        elif dims in ({"arm", "t"}, {"t"}):
            ordered = variable.transpose(..., "t").values
            columns[str(name)] = np.broadcast_to(ordered, shape)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["arm", "t", *columns])
    for a, arm in enumerate(run.arms):
        for i, t in enumerate(dataset["t"].values.tolist()):
            cells = (values[a, i] for values in columns.values())
            rows.writerow([_plain(arm), t, *("" if c != c else f"{c:.9g}" for c in cells)])
    return text.getvalue()


def _plain(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name
