"""Several runs as one, arm beside arm, so that every picture can show them together.

They need the same schedule, times, shape and data: then one reference serves all their arms.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from diffviz.errors import InputError
from diffviz.recording.run import Run

REFERENCES = ("reference_mean", "reference_std", "reference_std_between")
AGREE = 0.05
"""References may differ by this: a data set, and a network's summary of a larger one, agree."""


def joined(runs: Mapping[str, Run]) -> Run:
    """One run with the arms of all, each named ``arm · run``; the first gives the references.

    Where they differ in n, the smallest n is said, and as many samples are kept. What only some
    of them know is left out.

    Raises:
        InputError: fewer than two runs, or runs that differ in schedule, times, shape or data.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs)} runs; allowed are two or more")
    (first_name, first), *others = runs.items()
    for name, run in others:
        _check_alike(first_name, first, name, run)
    common = set.intersection(*(set(map(str, run.dataset.variables)) for run in runs.values()))
    kept = {
        name: slice(min(run.dataset.sizes.get(name, 0) for run in runs.values()))
        for name in ("sample", "map_sample", "frame_sample")
    }
    parts, arms = [], []
    for name, run in runs.items():
        names = [f"{arm} · {name}" for arm in run.arms]
        arms += [{**arm, "name": new} for arm, new in zip(run.spec.arms, names, strict=True)]
        data = run.dataset.drop_vars([v for v in run.dataset.variables if v not in common])
        parts.append(data.isel(kept, missing_dims="ignore").assign_coords(arm=names))
    by_arm = [
        part[[name for name, variable in part.data_vars.items() if "arm" in variable.dims]]
        for part in parts
    ]
    dataset = xr.concat(by_arm, "arm", join="override", combine_attrs="override")
    shared = [name for name in parts[0].data_vars if name not in dataset.variables]
    dataset = dataset.merge(parts[0][shared], join="override", combine_attrs="override")
    smallest = min(runs.values(), key=lambda run: run.spec.n).spec
    spec = replace(first.spec, arms=tuple(arms), n=smallest.n, block=smallest.block)
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
