"""Runs laid over each other: the numbers of each stay its own."""

import numpy as np
import pytest

import diffviz as dv
from diffviz.recording.combine import combine

SCHEDULE = dv.NoiseSchedule.linear(30, 1e-3, 0.25)
GAUSSIAN = dv.GaussianDenoiser(SCHEDULE, 1.0, 0.5)


def run(**changes):
    given = {"denoiser": GAUSSIAN, "schedule": SCHEDULE, "n": 20, "progress": False} | changes
    return dv.record(given.pop("denoiser"), given.pop("schedule"), **given)


def test_every_number_stays_with_its_run():
    """Kills: arms out of order, numbers of the first run under the names of the second."""
    parts = {"a": run(), "b": run(seed=1, n=30, arms=dv.DEFAULT_ARMS[:1])}
    both = combine(parts)
    assert both.arms == ["ddpm · a", "z=0 · a", "ddim · a", "ddpm · b"]
    assert [arm["name"] for arm in both.spec.arms] == both.arms
    assert (both.spec.n, both.dataset.sizes["sample"]) == (20, 20)
    for name, part in parts.items():
        for arm in part.arms:
            found = both.dataset.sel(arm=f"{arm} · {name}")
            for variable in ("mean", "ks_marginal", "histogram", "noise_std"):
                np.testing.assert_array_equal(found[variable], part.dataset[variable].sel(arm=arm))
            ends = part.dataset["samples"].sel(arm=arm)[:20]
            np.testing.assert_array_equal(found["samples"], ends)
    for variable in ("reference_std", "schedule_alpha_bar"):
        np.testing.assert_array_equal(both.dataset[variable], parts["a"].dataset[variable])
    for name in ("std_high", "ks_marginal_high"):  # of the run with fewer samples
        np.testing.assert_array_equal(both.dataset[name], parts["a"].dataset[name])
        swapped = combine(dict(reversed(parts.items()))).dataset[name]
        np.testing.assert_array_equal(swapped, parts["a"].dataset[name])
    assert combine(parts) == both == dv.combine(parts)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": 10}, "steps"),
        ({"schedule": dv.NoiseSchedule.cosine(30)}, "schedule"),
        ({"denoiser": dv.GaussianDenoiser(SCHEDULE, [1.0, 1.0], 0.5)}, "shape of a sample"),
        ({"denoiser": dv.GaussianDenoiser(SCHEDULE, 1.2, 0.5)}, "data"),
        ({"denoiser": dv.GaussianDenoiser(SCHEDULE, 9.0, 0.5)}, "range of histograms"),
    ],
)
def test_runs_that_one_reference_cannot_serve_are_refused(change, word):
    """Kills: curves laid over a reference that is not theirs."""
    with pytest.raises(dv.InputError, match=f"a and b differ in {word}"):
        combine({"a": run(), "b": run(**change)})


@pytest.mark.parametrize("wrong", [{}, {"a": run()}, [1, 2], {"a": run(), "b": "run.nc"}])
def test_what_is_no_set_of_runs_is_named(wrong):
    with pytest.raises(dv.InputError, match="allowed are two or more by name"):
        combine(wrong)


def test_pictures_of_runs_stand_beside_each_other(tmp_path):
    """Frames and maps of as many samples as both have, and the run can be saved. Kills: frames of
    the first run under the arms of the second."""
    denoiser = dv.DatasetDenoiser(SCHEDULE, dv.make_sprites(20)[0])
    parts = {"a": run(denoiser=denoiser, n=3), "b": run(denoiser=denoiser, n=5, seed=2)}
    both = combine(parts)
    for name in ("frames", "map"):
        for part in parts:
            found = both.dataset[name].sel(arm=f"z=0 · {part}")
            own = parts[part].dataset[name].sel(arm="z=0")
            cut = {f"{'frame' if name == 'frames' else name}_sample": slice(3)}
            np.testing.assert_array_equal(found, own.isel(cut))
    both.save(tmp_path / "both.nc")
    assert dv.Run.load(tmp_path / "both.nc") == both
