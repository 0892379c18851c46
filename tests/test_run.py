"""The run file: what comes back is what went in, or a clear refusal."""

import json

import numpy as np
import pytest
import xarray as xr

from diffviz.diffusion.exact import DatasetDenoiser
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, RunFileError
from diffviz.files.atomic import sealing
from diffviz.recording.record import record
from diffviz.recording.run import VARIABLES, Run, RunSpec, check_run

SCHEDULE = NoiseSchedule.course(12, 1e-3, 0.3)


@pytest.fixture(scope="module")
def run():
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    denoiser = DatasetDenoiser(SCHEDULE, images, np.arange(9) % 2, ("even", "odd"))
    return record(denoiser, SCHEDULE, n=5, progress=False)


def test_load_of_save_is_the_run(run, tmp_path):
    """Every variable to the bit, coordinates, attributes, the schedule with its quirk. Kills:
    lossy packing, NaN turned to a fill value, names turned to bytes."""
    run.save(tmp_path / "run.nc")
    loaded = Run.load(tmp_path / "run.nc")
    assert loaded == run and loaded.dataset.identical(run.dataset)
    assert loaded.schedule == SCHEDULE and loaded.spec == run.spec
    assert loaded.dataset["snapshots"].dtype == np.float32


def test_plain_xarray_opens_it_and_names_everything(run, tmp_path):
    run.save(tmp_path / "run.nc")
    with xr.open_dataset(tmp_path / "run.nc") as d:
        assert list(d["arm"].values) == ["ddpm", "z=0", "ddim"]
        assert list(d["quantity"].values) == ["x", "eps", "residual"]
        assert d["t"].values[0] == 12 and d["t"].values[-1] == 0
        for name, variable in d.variables.items():
            assert variable.attrs.get("long_name"), name
            assert variable.attrs.get("units") == "1", name
        assert d["mean"].dims == ("arm", "quantity", "t")
        assert d["histogram"].dims == ("arm", "quantity", "t", "bin")
        assert d["snapshots"].dims == ("arm", "snapshot", "sample", "channel", "height", "width")
        assert d["samples"].dims == ("arm", "sample", "channel", "height", "width")
        assert json.loads(d.attrs["spec"])["seed"] == 0
        for word in ("diffviz", "torch", "numpy", "created"):
            assert word in d.attrs["versions"] + " ".join(d.attrs)


def test_spec_survives_json_and_wrong_ones_are_named(run):
    """Kills: a negative seed, a number in words, an arm without a rule, an entry of another
    version."""
    text = run.spec.to_json()
    assert RunSpec.from_json(text) == run.spec
    for change in (
        {"seed": -1},
        {"seed": 1.5},
        {"n": 0},
        {"n": "5"},
        {"n": True},
        {"block": 2**63},
        {"steps": None},
        {"sample_shape": [3, 0]},
        {"sample_shape": 3},
        {"arms": []},
        {"arms": [{"name": "a", "rule": "ddpm/beta"}]},
        {"arms": [{"name": 1, "rule": "ddpm/beta", "noise_scale": 1.0}]},
        {"arms": [{"name": "a", "rule": "ddpm/beta", "noise_scale": -1.0}]},
        {"arms": [{"name": "a", "rule": "ddpm/beta", "noise_scale": float("nan")}]},
        {"denoiser": None},
        {"label": 3},
        {"temperature": 1},
    ):
        with pytest.raises(RunFileError, match="its specification has") as error:
            RunSpec.from_json(json.dumps(json.loads(text) | change))
        assert next(iter(change)) in str(error.value) and "\n" not in str(error.value)
    for wrong in ("", "[]", "3", "{", "[" * 10_000, "{}"):
        with pytest.raises(RunFileError, match="its specification"):
            RunSpec.from_json(wrong)


def test_every_changed_bit_is_noticed(run, tmp_path):
    """Before anything is parsed. Kills: a digest of a part, a digest that is not compared."""
    path = tmp_path / "run.nc"
    run.save(path)
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(whole), 200):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(position % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(RunFileError) as error:
            Run.load(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    html = tmp_path / "page.nc"
    html.write_text("<!doctype html><p>not found")
    other = tmp_path / "other.nc"
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(other, engine="h5netcdf")
    for path in (html, other, tmp_path, tmp_path / "missing.nc"):
        with pytest.raises(RunFileError) as error:
            Run.load(path)
        assert str(path) in str(error.value)


def resealed(dataset, path):
    """A file with a right seal, whoever made it."""
    with sealing(path) as temporary:
        temporary.write_bytes(bytes(dataset.to_netcdf(engine="h5netcdf")))


def test_a_sealed_run_of_something_else_is_named(run, tmp_path):
    """Variables taken away, renamed, turned or resized; names and times no figure can rely on; the
    format of another version. Kills: trusting a digest that anybody can compute; times of
    snapshots that were not visited; bins that fall."""
    run.save(tmp_path / "whole.nc")
    whole = Run.load(tmp_path / "whole.nc").dataset
    spec, changed = whole.attrs["spec"], []
    changed += [whole.drop_vars(name) for name in whole.variables if name in VARIABLES]
    changed += [
        whole.rename({"arm": "limb"}),
        whole.isel(t=slice(1)),
        whole.isel(arm=slice(2)),
        whole.transpose(),
        whole.assign_attrs(format="diffviz-run-1"),
        whole.assign_attrs(spec="{}"),
        whole.assign_attrs(spec=spec.replace('"n": 5', '"n": -5')),
        whole.assign_attrs(spec=spec.replace('"n": 5', '"n": 4')),  # of 5 that are kept
        whole.assign_attrs(spec=spec.replace('"ddpm"', '"other"')),
        whole.assign(mean=whole["mean"].astype(str)),
        whole.assign(map=whole["map"].isel(plane=0)),
        whole.assign(frames=whole["frames"].isel(width=slice(2)).rename(width="w")),
        whole.assign_coords(t=whole["t"].values[::-1]),
        whole.assign_coords(t=whole["t"].values + 1),
        whole.assign_coords(bin=whole["bin"].values[::-1]),
        whole.assign_coords(snapshot=whole["snapshot"].values + 100),
        whole.assign_coords(snapshot=whole["snapshot"].values[::-1]),
        whole.assign_coords(frame_t=("frame", whole["frame_t"].values + 100)),
        whole.assign_coords(quantity=["eps", "x", "residual"]),
        whole.assign_coords(schedule_t=whole["schedule_t"].values + 1),
        whole.drop_attrs(),
    ]
    for k, dataset in enumerate(changed):
        with pytest.raises(RunFileError) as error:
            check_run(Run(dataset))
        assert "\n" not in str(error.value), k
    for dataset in (changed[0], changed[-2]):
        resealed(dataset, tmp_path / "other.nc")
        with pytest.raises(RunFileError) as error:
            Run.load(tmp_path / "other.nc")
        assert str(tmp_path / "other.nc") in str(error.value)
    for content in (b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        with sealing(tmp_path / "other.nc") as temporary:
            temporary.write_bytes(content)
        with pytest.raises(RunFileError):
            Run.load(tmp_path / "other.nc")


def test_a_run_of_the_format_before_is_one_clear_line(run, tmp_path):
    resealed(run.dataset.assign_attrs(format="diffviz-run-1"), tmp_path / "old.nc")
    with pytest.raises(
        RunFileError, match=r"its format is 'diffviz-run-1' .* record the run again"
    ):
        Run.load(tmp_path / "old.nc")


@pytest.mark.parametrize("path", [3, None, b"run.nc", ["run.nc"]])
def test_a_path_of_another_type_is_named(run, path):
    with pytest.raises(InputError, match="allowed is a path"):
        run.save(path)
    with pytest.raises(RunFileError, match="a run is a"):
        Run.load(path)
