"""Several runs as one, arm beside arm, so that every picture can show them together.

They need the same schedule, times, shape and data: then one reference serves all their arms.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from diffviz.errors import InputError
from diffviz.recording.run import BANDS, Run

REFERENCES = ("reference_mean", "reference_std", "reference_std_between")
AGREE = 0.05
"""References may differ by this: a data set, and a network's summary of a larger one, agree."""


def combine(runs: Mapping[str, Run]) -> Run:
    """One run with the arms of all, each named ``arm · run``.

    Where they differ in n, the smallest n is said, with the bands of that run, and as many samples
    are kept. Other references are those of the first. What only some of them know is left out.

    Raises:
        InputError: no mapping of two runs or more, or runs that differ in schedule, times, shape
            or data.
    """
    whole = isinstance(runs, Mapping) and all(isinstance(run, Run) for run in runs.values())
    if not whole or len(runs) < 2:
        raise InputError(
            f"runs is {runs!r:.80}; allowed are two or more by name, as {{'a': run, 'b': other}}"
        )
    (first_name, first), *others = runs.items()
    for name, run in others:
        _check_alike(first_name, first, name, run)
    common = set.intersection(*(set(map(str, run.dataset.variables)) for run in runs.values()))
    sizes = {
        name: slice(min(run.dataset.sizes.get(name, 0) for run in runs.values()))
        for name in ("sample", "map_sample", "frame_sample")
    }
    parts, arms = [], []
    for name, run in runs.items():
        names = [f"{arm} · {name}" for arm in run.arms]
        arms += [{**arm, "name": new} for arm, new in zip(run.spec.arms, names, strict=True)]
        data = run.dataset.drop_vars([v for v in run.dataset.variables if v not in common])
        data = data.isel(sizes, missing_dims="ignore").assign_coords(arm=names)
        parts.append(data[[v for v in data.data_vars if "arm" in data[v].dims]])
    dataset = xr.concat(parts, "arm", join="override", combine_attrs="override")
    shared = [v for v in first.dataset.data_vars if v in common and v not in dataset.variables]
    dataset = dataset.merge(first.dataset[shared], join="override", combine_attrs="override")
    smallest = min(runs.values(), key=lambda run: run.spec.n)
    ends = [f"{name}_{end}" for name in BANDS for end in ("low", "high")]
    dataset = dataset.assign({v: smallest.dataset[v].variable for v in ends})
    said = smallest.spec
    spec = replace(first.spec, arms=tuple(arms), n=said.n, block=said.block)
    return Run(dataset.assign_attrs(first.dataset.attrs, spec=spec.to_json()))


def _check_alike(first_name: str, first: Run, name: str, run: Run) -> None:
    """One line on what keeps the two apart, if anything does."""
    ours, theirs = first.spec, run.spec
    for what, a, b in (
        ("schedule", ours.schedule_digest, theirs.schedule_digest),
        ("steps", first.dataset["t"].values.tolist(), run.dataset["t"].values.tolist()),
        ("shape of a sample", ours.sample_shape, theirs.sample_shape),
        ("range of histograms", *(r.dataset["bin"].values.tolist() for r in (first, run))),
    ):
        if a != b:
            raise InputError(f"{first_name} and {name} differ in {what}; it must be the same")
    for reference in REFERENCES:
        apart = np.abs(first.dataset[reference].values - run.dataset[reference].values)
        if np.nanmax(apart, initial=0) > AGREE:
            raise InputError(f"{first_name} and {name} differ in data; it must be the same")
