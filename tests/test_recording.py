"""Recorded numbers against exact laws and against the definition, and runs that do not depend on
how their blocks were shared out."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser, MixtureDenoiser
from diffviz.diffusion.gaussian import gaussian_trajectory
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, ddim, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, RunFileError
from diffviz.recording.dataset import frame_times, snapshot_times
from diffviz.recording.record import record
from diffviz.recording.references import bands
from diffviz.recording.run import BANDS, Run

SCHEDULE = NoiseSchedule.linear(40, 1e-3, 0.2)
SHORT = NoiseSchedule.linear(6, 1e-2, 0.6)
GAUSSIAN = GaussianDenoiser(SCHEDULE, 1.0, 0.5)
QUIET = {"progress": False}


def images(n=30, size=4):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


# ------------------------------------------------------------------ numbers by their definition


@settings(max_examples=8)
@given(
    st.floats(-3, 3),
    st.floats(0.05, 2),
    st.integers(5, 50),
    st.floats(0.0, 1.5),
    st.none() | st.floats(0, 1),
    st.integers(0, 2**32 - 1),
    st.none() | st.integers(1, 5),
)
def test_recorded_curves_agree_with_the_exact_recursion(mean, std, T, scale, eta, seed, steps):
    """Mean, std, residual std at every step within |z| < 5.5. Kills: statistics filed one step
    off, a residual against another sample's end, √ᾱ for ᾱ, a z used twice."""
    schedule = NoiseSchedule.linear(T, 1e-3, 0.1)
    arm = Arm("arm", ddpm() if eta is None else ddim(eta), scale)
    exact = gaussian_trajectory(schedule, arm, mean, std, schedule.times(steps))
    given, n = (GaussianDenoiser(schedule, mean, std), schedule), 3000
    run = record(*given, arms=[arm], n=n, seed=seed, steps=steps, **QUIET)
    d = run.dataset.isel(arm=0)
    x, eps, residual = (d.sel(quantity=q) for q in ("x", "eps", "residual"))
    error = exact.std / np.sqrt(n) + 1e-5
    assert (np.abs(x["mean"] - exact.mean) < 5.5 * error).all()
    assert (np.abs(x["std"] - exact.std) < 5.5 * error).all()
    assert (np.abs(d["std_between"] - exact.std) < 5.5 * error).all()
    inner = slice(0, -1)
    for values, expected_mean, expected_std in (
        (eps, exact.eps_mean, exact.eps_std),
        (residual, exact.residual_mean, exact.residual_std),
    ):
        error = expected_std[inner] / np.sqrt(n) + 1e-4
        assert (np.abs(values["mean"][inner] - expected_mean[inner]) < 5.5 * error).all()
        assert (np.abs(values["std"][inner] - expected_std[inner]) < 5.5 * error).all()
    assert np.isnan(residual["std"][-1]) and np.isnan(eps["std"][-1])


@pytest.fixture(scope="module")
def pictures():
    """A run of images in which all samples and all times are kept."""
    denoiser = DatasetDenoiser(SCHEDULE, images(), np.arange(30) % 3, ("a", "b", "c"))
    return denoiser, record(denoiser, SCHEDULE, n=10, **QUIET).dataset


def test_snapshots_are_at_the_tutorials_times():
    """Kills: the last steps, where most is seen, thinned like the others."""
    times = np.arange(500, -1, -1)
    wanted = [t for t in times.tolist() if t % 20 == 0 or t < 8]
    assert snapshot_times(times).tolist() == wanted
    assert snapshot_times(times[::10]).tolist() == times[::10].tolist()  # 51 of them: all


def test_frames_are_at_about_every_second_time():
    """Of 500 steps 250, both ends among them; fewer of large images, none of numbers. Kills: a
    film that jumps, that begins late, or that takes all memory."""
    times = np.arange(500, -1, -1)
    usual = frame_times(times, 3, (3, 16, 16))
    assert (usual[0], usual[-1], len(usual)) == (500, 0, 251)
    assert set(np.diff(usual).tolist()) <= {-1, -2, -3}
    large = frame_times(times, 3, (3, 256, 256))
    assert (large[0], large[-1]) == (500, 0) and len(large) * 9 * 2**16 <= 2**24
    for shape in ((), (2, 4, 4), (16, 16)):
        assert not len(frame_times(times, 3, shape))


def test_the_usual_block_and_what_is_kept_of_it():
    """64 images make a block, and about 49,000 numbers; 256 images are kept. Both decide what a
    run holds. Kills: another size of blocks, so that a seed means another run."""
    images, vectors = np.zeros((3, 16, 16)), np.zeros(3)
    for mean, n, block in ((images, 90, 64), (vectors, 6000, 6000)):
        law = GaussianDenoiser(SHORT, mean, np.ones_like(mean))
        run = record(law, SHORT, arms=DEFAULT_ARMS[:1], n=n, **QUIET)
        assert (run.spec.block, run.dataset.sizes["sample"]) == (block, n)


def test_a_map_of_modes_and_of_none():
    """Modes with their own width; numbers have no plane, nor samples that are no pictures frames.
    Kills: the width of a mode left out of the cloud."""
    mixture = MixtureDenoiser(SHORT, [[-2.0, 0, 0], [2.0, 0, 0]], [0.3, 0.3], [0.5, 0.5])
    data = record(mixture, SHORT, n=300, **QUIET).dataset
    assert data["map"].shape == (3, 7, 256, 2)
    np.testing.assert_allclose(data["map_std"].sel(t=0), [np.sqrt(4.09), 0.3], rtol=1e-6)
    np.testing.assert_allclose(data["map_data"].std("point"), [np.sqrt(4.09), 0.3], rtol=0.1)
    assert "frames" not in data and "map" not in record(GAUSSIAN, SCHEDULE, n=2, **QUIET).dataset


def test_more_coordinates_than_are_followed():
    """Of 5,000 coordinates 4,096 are followed, each beside its own mean. Kills: means, or spreads,
    of the first 4,096 beside values of the chosen ones."""
    size = 5000
    # Few means: the law of one coordinate has as many components as there are.
    mean, std = np.linspace(-3, 3, size).round(), np.where(np.arange(size) < size / 2, 0.1, 1.0)
    data = record(GaussianDenoiser(SHORT, mean, std), SHORT, n=20, **QUIET).dataset
    x_0 = data["samples"].values.astype(np.float64)
    distance = np.sqrt(((x_0 - mean) ** 2).mean(axis=(1, 2)))
    np.testing.assert_allclose(data["distance_to_mean"].sel(t=0), distance, rtol=0.03)
    between = np.sqrt(x_0.var(axis=1, ddof=1).mean(axis=1))
    np.testing.assert_allclose(data["std_between"].sel(t=0), between, rtol=0.03)


def test_bins_reach_as_far_as_the_data_on_both_sides():
    """Kills: bins that are widened on one side only."""
    far = MixtureDenoiser(SHORT, [-20.0, 30.0], [1.0, 1.0], [0.5, 0.5])
    bins = record(far, SHORT, n=2, **QUIET).dataset["bin"].values
    assert -26 < bins[0] < -24 and 34 < bins[-1] < 36
    assert abs(record(GAUSSIAN, SCHEDULE, n=2, **QUIET).dataset["bin"].values[[0, -1]]).max() < 4.5


def test_any_callable_is_recorded_without_references():
    """A plain function has no law: its references are NaN, its curves are not. Kills: a law
    invented for it."""
    run = record(lambda x, t, context=None: x * 0.5, SCHEDULE, n=4, **QUIET)
    assert run.spec.sample_shape == (3, 16, 16)
    for name in ("reference_mean", "ks_marginal", "std_high", "ks_marginal_high"):
        assert np.isnan(run.dataset[name]).all()
    assert np.isfinite(run.dataset["residual_ks_high"][:-1]).all()
    assert np.isfinite(run.dataset["std"].sel(quantity="x")).all()
    assert "distinct_nearest" not in run.dataset and "map" not in run.dataset


def test_the_shape_of_a_number_is_a_shape():
    """Kills: an empty shape taken for none given, so that images are made of numbers."""
    run = record(lambda x, t, context=None: x, SCHEDULE, n=8, sample_shape=(), **QUIET)
    assert run.spec.sample_shape == () and run.dataset["samples"].shape[2:] == ()


def test_what_is_watched_is_what_is_recorded():
    """Kills: a step told too early or twice, quantities swapped, a mean of stds, a watcher that
    draws noise."""
    seen, two = [], GaussianDenoiser(SCHEDULE, [1.0, -1.0], [0.5, 0.1])

    def watch(block, index, recorder):
        seen.append((block, index, recorder.latest()))

    given = {"n": 30, **QUIET}
    watched = record(two, SCHEDULE, watch=watch, **given)
    assert watched == record(two, SCHEDULE, **given)
    assert [place[:2] for place in seen] == [(0, i) for i in range(SCHEDULE.T)]
    data = watched.dataset.isel(t=slice(None, -1))
    kept = {
        "mean": data["mean"].sel(quantity="x"),
        "std": data["std"].sel(quantity="x"),
        "std_between": data["std_between"],
        "ks_normal": data["ks_normal"].sel(quantity="x"),
        "ks_marginal": data["ks_marginal"],
        "eps_std": data["std"].sel(quantity="eps"),
    }
    for name, values in kept.items():
        told = np.array([latest[name] for _, _, latest in seen]).T
        np.testing.assert_array_equal(told, values.transpose("arm", "t").values)
    seen.clear()
    record(two, SCHEDULE, watch=watch, block=15, **given)
    assert [place[0] for place in seen] == [0] * SCHEDULE.T + [1] * SCHEDULE.T


def test_pictures_that_are_watched_are_the_newest_frames(pictures):
    """Kills: the frame of a step before, or of another arm."""
    denoiser, data = pictures
    seen = {}

    def watch(block, index, recorder):
        recorder.latest()
        seen[index] = recorder.pictures().copy()

    record(denoiser, SCHEDULE, n=10, watch=watch, **QUIET)
    for index, shown in seen.items():
        np.testing.assert_array_equal(shown, data["frames"][:, index])


# ------------------------------------------------------------------ references and bands


@pytest.mark.parametrize("n", [2, 6, 24, 64])
def test_every_std_agrees_with_its_reference_where_all_is_noise(n):
    """Unit-Gaussian data of 768 values, t = T: within 4 standard errors, whatever n. Kills: the
    mean of stds, low by 20 % at n = 2; n for n − 1."""
    denoiser = GaussianDenoiser(SHORT, np.zeros((3, 16, 16)), np.ones((3, 16, 16)))
    d = record(denoiser, SHORT, n=n, **QUIET).dataset.sel(t=SHORT.T)
    free = 768 * (n - 1), 768 * n - n, 768 * n - 1
    for name, freedom in zip(("std_between", "std_within", "std"), free, strict=True):
        found = d[name].sel(quantity="x") if name == "std" else d[name]
        ratio = found / d[f"reference_{name}"]
        assert (np.abs(ratio - 1) < 4 / np.sqrt(2 * freedom)).all(), name


LAWS = {
    "number": GaussianDenoiser(SCHEDULE, 2.0, 0.5).law,
    "vector": GaussianDenoiser(SCHEDULE, np.linspace(-1, 1, 8), np.linspace(0.1, 1, 8)).law,
    "modes": MixtureDenoiser(SCHEDULE, [[-1.0, 0], [1.5, 1.0]], [0.2, 0.3], [0.7, 0.3]).law,
    "images": DatasetDenoiser(
        SCHEDULE, np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8) // 2 * 2
    ).law,
}


def share_inside(law, n, runs, times, seed=1):
    """Of ``runs`` right runs, the share inside each band at each of the times, written again."""
    rng, bars, d = (
        np.random.default_rng(seed),
        SCHEDULE.alpha_bars[SCHEDULE.times()],
        law.mean.size,
    )
    found = bands(law, bars, n, d, n * d)
    inside = {name: np.zeros(len(times)) for name in BANDS}
    for k, i in enumerate(times):
        bar, pooled = bars[i], law.marginal(float(bars[i]))
        center = np.sqrt(bar) * law.mean.reshape(-1)
        edges = pooled.edges[np.isfinite(pooled.edges)]
        null = pooled.cdf(edges)
        for _ in range(runs):
            r = rng.standard_normal((n, d))
            x = np.sqrt(bar) * law.draw(n, rng) + np.sqrt(1 - bar) * r
            ordered = np.sort(x, axis=None)
            if pooled.exact:
                ks = scipy.stats.ks_1samp(ordered, pooled.cdf, method="asymp").statistic
            else:
                ks = np.abs(np.searchsorted(ordered, edges) / x.size - null).max()
            values = {
                "mean": x.mean(),
                "std": x.std(ddof=1),
                "std_between": np.sqrt(x.var(axis=0, ddof=1).mean()),
                "std_within": np.sqrt(x.var(axis=1, ddof=1).mean()) if d > 1 else np.nan,
                "distance_to_mean": np.sqrt(((x - center) ** 2).mean()),
                "ks_marginal": ks,
                "residual_std": r.std(ddof=1),
                "residual_ks": scipy.stats.kstest(r.reshape(-1), "norm", method="asymp").statistic,
            }
            for name, value in values.items():
                inside[name][k] += found[f"{name}_low"][i] <= value <= found[f"{name}_high"][i]
    return {name: share / runs for name, share in inside.items() if name != "std_within" or d > 1}


@pytest.mark.parametrize("name", LAWS)
def test_bands_hold_right_runs(name):
    """Each band at three times, 95 % up to the scatter of 240 runs. Kills: a band of the wrong n,
    of one side, without the part of the noise or of the data."""
    for curve, shares in share_inside(LAWS[name], 12, 80, (3, 20, 38)).items():
        assert shares.mean() > 0.90, (curve, shares)
    wide = bands(LAWS[name], SCHEDULE.alpha_bars[::-1], 12, LAWS[name].mean.size, 1000)
    narrow = bands(LAWS[name], SCHEDULE.alpha_bars[::-1], 1200, LAWS[name].mean.size, 100_000)
    for curve in BANDS:
        if curve == "std_within" and name == "number":
            continue
        one, other = (some[f"{curve}_high"] - some[f"{curve}_low"] for some in (wide, narrow))
        assert 8 < one[10] / other[10] < 12.5, curve


@pytest.mark.parametrize("n", [2, 5, 40])
def test_bands_of_gaussian_numbers_are_exact(n):
    """By χ² with n − 1 degrees of freedom, or n about the true mean. Kills: a variance for a std,
    n for n − 1, the scatter of the mean left out."""
    law, bars = LAWS["number"], SCHEDULE.alpha_bars[SCHEDULE.times()]
    found, ends = bands(law, bars, n, 1, n), np.array([[0.025], [0.975]])
    std = np.sqrt(bars * 0.25 + 1 - bars)

    def chi(free):
        return np.sqrt(scipy.stats.chi2.ppf(ends, free) / free)

    before = np.where(bars < 1, 1.0, np.nan)
    for name, right in (
        ("std", std * chi(n - 1)),
        ("std_between", std * chi(n - 1)),
        ("distance_to_mean", std * chi(n)),
        ("residual_std", before * chi(n - 1)),
        ("mean", 2 * np.sqrt(bars) + scipy.stats.norm.ppf(ends) * std / np.sqrt(n)),
    ):
        both = np.stack([found[f"{name}_low"], found[f"{name}_high"]])
        np.testing.assert_allclose(both, right, rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("n", [6, 24, 64])
@pytest.mark.parametrize("name", LAWS)
def test_bands_hold_between_93_and_97_percent_of_right_runs(name, n):
    """1,000 right runs at each of ten times; 1.4 % are the scatter of the share itself."""
    times = (0, 4, 8, 12, 16, 20, 25, 30, 35, 40 - 1)
    for curve, shares in share_inside(LAWS[name], n, 1000, times).items():
        print(name, n, curve, np.round(100 * shares, 1))
        assert shares.min() > 0.915 and shares.max() < 0.985 and 0.935 < shares.mean() < 0.97


def test_references_under_a_label_are_those_of_the_class():
    """For a data set and for a network. Kills: references of all classes under one class's
    samples; one class's samples under references of another."""
    points = np.zeros((6, 2), np.float32)
    points[:3, 0], points[3:, 0] = [1.0, 1.5, 2.0], [-4.0, -3.0, -3.5]
    labels, classes = np.array([0, 0, 0, 1, 1, 1]), ("up", "down")
    exact = DatasetDenoiser(SHORT, points, labels, classes)

    class Network:
        sample_shape, schedule, name, digest = (2,), SHORT, "network", "1"

        def __init__(self, law):
            self.law, self.classes = law, classes

        def __call__(self, x, t, context=None):
            assert context is not None and context.shape == (len(x), 2)
            return exact(x, t, context)

    known = DataLaw.of_images(points, labels, classes)
    moments = dataclasses.replace(known, points=None, labels=None, shares=None)
    for k, label in enumerate(classes):
        own = points[labels == k]
        for denoiser in (exact, Network(known)):
            data = record(denoiser, SHORT, n=40, label=label, **QUIET).dataset
            assert data["reference_mean"].sel(t=0) == pytest.approx(own.mean(), abs=1e-6)
            assert data["reference_std"].sel(t=0) == pytest.approx(own.std(), abs=1e-6)
            ends = data["samples"].sel(arm="ddpm").values[:, 0]
            assert (np.abs(ends[:, None] - own[:, 0]).min(axis=1) < 0.3).all()
            assert data["class_count"].sel({"class": label}).sel(arm="ddpm") == 40
    other = record(Network(moments), SHORT, n=4, label="up", **QUIET).dataset
    assert np.isnan(other["reference_mean"]).all()  # what is known is about all classes


# ------------------------------------------------------------------ seeds, blocks, resuming


def test_every_pair_of_seed_and_block_has_its_own_noise():
    """16 streams, no two alike in x_T or in z. Kills: seed + block, so that seed 0's second block
    is seed 1's first; one seed for all blocks."""
    starts, ends = [], []
    for seed in range(4):
        data = record(GAUSSIAN, SCHEDULE, n=8, block=2, seed=seed, **QUIET).dataset
        starts += data["snapshots"].sel(snapshot=SCHEDULE.T, arm="ddpm").values.tolist()
        ends += data["samples"].sel(arm="ddpm").values.tolist()
    assert len(set(starts)) == 32 and len(set(ends)) == 32


def test_a_denoiser_that_draws_draws_anew_in_every_block():
    """And the same again for the same block. Kills: one draw for all blocks; a draw of the
    worker's."""
    seeds = []

    class Drawing:
        sample_shape, name = (2,), "drawing"

        def restarted(self, seed):
            seeds.append(seed)
            return lambda x, t, context=None: 0.1 * x + (seed % 7) / 70

        def __call__(self, x, t, context=None):
            raise AssertionError("not restarted")

    first = record(Drawing(), SHORT, n=12, block=4, **QUIET)
    used = seeds[:3]
    assert len(set(used)) == 3
    seeds.clear()
    assert record(Drawing(), SHORT, n=12, block=4, **QUIET) == first and seeds[:3] == used


@pytest.mark.parametrize("block", [7, 64])
def test_a_run_depends_on_its_seed_alone(block):
    """Computed elsewhere, see `tests.test_workers`. Kills: a global generator."""
    here = record(GAUSSIAN, SCHEDULE, n=20, block=block, **QUIET)
    torch.manual_seed(5)
    assert here == record(GAUSSIAN, SCHEDULE, n=20, block=block, **QUIET)
    other = record(GAUSSIAN, SCHEDULE, n=20, block=block, seed=1, **QUIET)
    assert not here.dataset.equals(other.dataset)


def test_the_default_dtype_changes_no_run(pictures):
    """Kills: a tensor made without its dtype, in float64 or out of it."""
    denoiser, data = pictures
    torch.set_default_dtype(torch.float64)
    try:
        again = record(denoiser, SCHEDULE, n=10, **QUIET)
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.dataset.equals(data)


class Stopped(Exception):
    pass


def stopped(out, after, **arguments):
    """Record until ``after`` blocks are done."""

    def watch(block, index, recorder):
        if block == after:
            raise Stopped

    with pytest.raises(Stopped):
        record(GAUSSIAN, SCHEDULE, out=out, watch=watch, **arguments, **QUIET)


def test_resume_gives_the_same_run(tmp_path):
    """Stopped after two of four blocks and resumed: equal to undisturbed, and no other file is
    left. Kills: a resume that starts over, counts a block twice, or mixes two runs."""
    out, arguments, seen = tmp_path / "run.nc", {"n": 30, "block": 8}, set()
    stopped(out, 2, **arguments)
    assert not out.exists() and (tmp_path / "run.nc.partial").exists()
    with pytest.raises(InputError, match="holds 2 of 4 blocks"):
        record(GAUSSIAN, SCHEDULE, out=out, **arguments, **QUIET)
    for change, words in (
        ({"seed": 5}, "seed = 0, now it is 5"),
        ({"n": 31}, "n = 30, now it is 31"),
        ({"block": 9}, "block = 8, now it is 9"),
        ({"arms": DEFAULT_ARMS[:2]}, "was recorded with arms"),
    ):
        with pytest.raises(InputError, match=words):
            record(GAUSSIAN, SCHEDULE, resume=True, out=out, **(arguments | change), **QUIET)
    resumed = record(
        GAUSSIAN,
        SCHEDULE,
        resume=True,
        out=out,
        watch=lambda block, index, recorder: seen.add(block),
        **arguments,
        **QUIET,
    )
    assert seen == {2, 3}
    assert resumed == record(GAUSSIAN, SCHEDULE, **arguments, **QUIET) == Run.load(out)
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]


def test_blocks_that_are_not_what_they_say_are_refused(tmp_path):
    """Another number of samples, of blocks, or other sizes under a right seal. Kills: believing an
    unfinished run."""
    from diffviz.recording.partial import load_partial, save_partial

    out, arguments = tmp_path / "run.nc", {"n": 30, "block": 8}
    partial = tmp_path / "run.nc.partial"
    stopped(out, 2, **arguments)
    stats, spec = load_partial(partial)
    for change in (
        {"n": 15},
        {"blocks": 3},
        {"blocks": 4, "n": 32},
        {"ks": stats.ks[:2]},
        {"samples": stats.samples[..., None]},
        {"histogram": stats.histogram[:, :, :5]},
    ):
        save_partial(partial, dataclasses.replace(stats, **change), spec)
        with pytest.raises(RunFileError, match=r"run\.nc\.partial"):
            record(GAUSSIAN, SCHEDULE, resume=True, out=out, **arguments, **QUIET)
    partial.write_bytes(b"something else")
    with pytest.raises(RunFileError, match=r"run\.nc\.partial"):
        record(GAUSSIAN, SCHEDULE, resume=True, out=out, **arguments, **QUIET)
    assert partial.read_bytes() == b"something else"


def test_killed_recording_resumes_to_the_same_bits(tmp_path):
    """A real process, really killed between blocks. Kills: a partial file written in place, a lock
    that a killed process leaves."""
    out, partial = tmp_path / "run.nc", tmp_path / "run.nc.partial"
    command = [sys.executable, "-m", "diffviz.cli", "record", "--denoiser", "gaussian:1,0.5"]
    command += ["--n", "1000", "--block", "50", "--T", "40", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not partial.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists() and not out.exists(), "killed too late to test anything"
    schedule = NoiseSchedule.course(40)
    given = GaussianDenoiser(schedule, 1.0, 0.5), schedule
    resumed = record(*given, n=1000, block=50, out=out, resume=True, **QUIET)
    assert Run.load(out) == resumed == record(*given, n=1000, block=50, **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]


def test_a_finished_run_is_not_recorded_again(tmp_path):
    out = tmp_path / "run.nc"
    first = record(GAUSSIAN, SCHEDULE, n=8, out=out, **QUIET)
    before = out.read_bytes()
    assert record(GAUSSIAN, SCHEDULE, n=8, out=out, resume=True, **QUIET) == first
    assert out.read_bytes() == before
    with pytest.raises(InputError, match="n = 8, now it is 9"):
        record(GAUSSIAN, SCHEDULE, n=9, out=out, resume=True, **QUIET)


def test_two_recordings_into_one_file_are_refused(tmp_path):
    """While the first lives, from the first step on. Kills: two runs of which one is lost."""
    out, refused = tmp_path / "run.nc", []

    def watch(block, index, recorder):
        with pytest.raises(InputError, match="is being written by another recording") as error:
            record(GAUSSIAN, SCHEDULE, n=4, seed=2, out=out, **QUIET)
        refused.append(str(error.value))

    first = record(GAUSSIAN, SCHEDULE, n=4, steps=2, out=out, watch=watch, **QUIET)
    assert len(refused) == 2 and str(out) in refused[0]
    assert Run.load(out) == first
    assert record(GAUSSIAN, SCHEDULE, n=4, seed=2, out=out, **QUIET) == Run.load(out)
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": 2.5}, "n is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"block": 0}, "block is 0"),
        ({"steps": 41}, "steps is 41"),
        ({"arms": []}, "arms are []"),
        ({"arms": [DEFAULT_ARMS[0]] * 2}, "each with its own name"),
        ({"arms": "ddpm"}, "arms is 'ddpm'"),
        ({"arms": {"a": 1}}, "arms is {'a': 1}"),
        ({"arms": DEFAULT_ARMS[0]}, "arms is Arm("),
        ({"arms": None}, "arms is None"),
        ({"label": "hero"}, "class is 'hero'"),
        ({"label": 3}, "class is 3"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"device": 3}, "device is 3"),
        ({"out": "no/such/folder/run.nc"}, "does not exist"),
        ({"out": "."}, "is a folder"),
        ({"out": 3}, "3; allowed is a path"),
        ({"out": b"x"}, "b'x'; allowed is a path"),
        ({"sample_shape": 5}, "sample_shape is 5; allowed"),
        ({"sample_shape": (0,)}, "sample_shape is (0,); allowed"),
        ({"sample_shape": (2.0,)}, "sample_shape is (2.0,); allowed"),
        ({"sample_shape": "ab"}, "sample_shape is 'ab'; allowed"),
        ({"sample_shape": (1,) * 17}, "up to 16 whole numbers"),
        ({"sample_shape": (2**20, 2**20)}, "allowed are 2³² in all"),
        ({"executor": 3}, "executor is 3; allowed is a concurrent.futures.Executor"),
    ],
)
def test_bad_input_is_named_before_any_work(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def never(x, t, context=None):
        raise AssertionError("sampled before the input was checked")

    with pytest.raises(InputError) as error:
        record(never, SCHEDULE, **arguments, **QUIET)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not os.listdir(tmp_path)


def test_data_of_another_shape_than_the_samples_are_named():
    with pytest.raises(InputError, match=r"sample_shape is \(2,\); allowed is \(\)"):
        record(GAUSSIAN, SCHEDULE, sample_shape=(2,), **QUIET)


def test_other_parameters_are_another_run():
    """Kills: a resume that mixes two models, as alike names or no digest would let it."""

    def spec(denoiser=GAUSSIAN, schedule=SCHEDULE, arm=DEFAULT_ARMS[0]):
        return record(denoiser, schedule, arms=[arm], n=2, steps=1, **QUIET).spec

    class Net(torch.nn.Module):
        def __init__(self, w):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(w), requires_grad=False)

        def forward(self, x, t, context=None):
            return self.w * x

    other = NoiseSchedule.linear(SCHEDULE.T, 1e-3, 0.3)
    eta = Arm("x", ddim(0.1234567)), Arm("x", ddim(0.12345674))
    modes = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    wide, tall = (
        MixtureDenoiser(SCHEDULE, means, np.full(len(means), 0.1), np.ones(len(means)))
        for means in (modes, modes.reshape(3, 2))
    )
    uneven = MixtureDenoiser(SCHEDULE, modes, [0.1, 0.1], [0.4, 0.6])
    alphas = dataclasses.replace(SCHEDULE, alphas=SCHEDULE.alphas * 0.999)
    for one, two in (
        ({"denoiser": Net(0.5)}, {"denoiser": Net(0.9)}),
        ({"arm": eta[0]}, {"arm": eta[1]}),
        ({"denoiser": GAUSSIAN}, {"denoiser": GaussianDenoiser(other, 1.0, 0.5)}),
        ({"denoiser": wide}, {"denoiser": uneven}),
        ({"schedule": SCHEDULE}, {"schedule": alphas}),
    ):
        assert spec(**one) != spec(**two) and spec(**one) == spec(**one)
    assert wide.digest != tall.digest


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("linear", "schedule is 'linear'"),
        (None, "schedule is None"),
        (SCHEDULE.with_zero_terminal_snr(), "ε-prediction is undefined"),
    ],
)
def test_a_schedule_that_cannot_be_sampled_is_named(schedule, words):
    with pytest.raises(InputError, match=words):
        record(GAUSSIAN, schedule, **QUIET)
