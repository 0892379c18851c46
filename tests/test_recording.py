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
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, ddim, ddpm
from diffviz.diffusion.sampler import sample
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, RunFileError
from diffviz.recording.record import Recorder, record
from diffviz.recording.run import Run

SCHEDULE = NoiseSchedule.linear(40, 1e-3, 0.2)
GAUSSIAN = GaussianDenoiser(SCHEDULE, 1.0, 0.5)


def images(n=30, size=4):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@settings(max_examples=15)
@given(
    st.floats(-3, 3),
    st.floats(0.05, 2),
    st.integers(5, 50),
    st.floats(0.0, 1.5),
    st.none() | st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_recorded_curves_agree_with_the_exact_recursion(mean, std, T, scale, eta, seed):
    """Mean, std, residual std at every step within |z| < 5.5. Kills: statistics filed one step
    off, a residual against another sample's end, √ᾱ for ᾱ."""
    schedule = NoiseSchedule.linear(T, 1e-3, 0.1)
    arm = Arm("arm", ddpm() if eta is None else ddim(eta), scale)
    exact = gaussian_trajectory(schedule, arm, mean, std)
    n = 3000
    run = record(
        GaussianDenoiser(schedule, mean, std), schedule, arms=[arm], n=n, seed=seed, progress=False
    )
    d = run.dataset.isel(arm=0)
    x, eps, residual = (d.sel(quantity=q) for q in ("x", "eps", "residual"))
    error = exact.std / np.sqrt(n) + 1e-5
    assert (np.abs(x["mean"] - exact.mean) < 5.5 * error).all()
    assert (np.abs(x["std"] - exact.std) < 5.5 * error).all()
    assert (np.abs(d["std_between"] - exact.std) < 5.5 * error).all()
    inner = slice(0, T)
    for values, expected_mean, expected_std in (
        (eps, exact.eps_mean, exact.eps_std),
        (residual, exact.residual_mean, exact.residual_std),
    ):
        error = expected_std[inner] / np.sqrt(n) + 1e-4
        assert (np.abs(values["mean"][inner] - expected_mean[inner]) < 5.5 * error).all()
        assert (np.abs(values["std"][inner] - expected_std[inner]) < 5.5 * error).all()
    assert np.isnan(residual["std"][-1]) and np.isnan(eps["std"][-1])


def walk(denoiser, n, seed=3):
    """All states (S+1, A, n, D), written again from the generator."""
    g = torch.Generator().manual_seed(seed)
    x_T = torch.randn(n, *denoiser.sample_shape, generator=g)
    steps = list(sample(denoiser, SCHEDULE, x_T, g))
    recorder = Recorder(SCHEDULE, SCHEDULE.times(), 3, n, denoiser.sample_shape, data=denoiser.law)
    for step in steps:
        recorder.observe(step)
    tally = recorder.finish(steps[-1].x_next)
    states = np.stack([s.x.numpy() for s in steps] + [steps[-1].x_next.numpy()])
    return steps, states, tally


def test_every_statistic_by_its_definition():
    """On images, against numpy and scipy applied to the states. Kills: pooled, between and within
    swapped; D of another quantity; snapshots out of order; distance without √ᾱ."""
    denoiser = DatasetDenoiser(SCHEDULE, images())
    steps, states, tally = walk(denoiser, 6)
    bars = SCHEDULE.alpha_bars[SCHEDULE.times()]
    flat = states.reshape(*states.shape[:3], -1).astype(np.float64)
    for i in (0, 13, 40):
        for a in range(3):
            x = flat[i, a]
            assert tally.moments.std[a, 0, i] == pytest.approx(x.std(ddof=1), rel=1e-9)
            assert tally.moments.skewness[a, 0, i] == pytest.approx(
                scipy.stats.skew(x, axis=None), rel=1e-6, abs=1e-9
            )
            d = scipy.stats.kstest(x.reshape(-1), "norm").statistic
            assert tally.ks[a, 0, i] == pytest.approx(d, abs=1e-9)
            between = x.std(axis=0, ddof=1).mean()
            assert tally.pixels.std[a, i].mean() == pytest.approx(between, rel=1e-9)
            within = x.var(axis=1, ddof=1).mean()
            assert tally.within[a, i] / tally.n == pytest.approx(within, rel=1e-9)
    for i, step in enumerate(steps):
        eps = step.eps.numpy().astype(np.float64)
        assert tally.moments.mean[0, 1, i] == pytest.approx(eps[0].mean(), abs=1e-9)
        r = (flat[i] - np.sqrt(bars[i]) * flat[-1]) / np.sqrt(1 - bars[i])
        assert tally.moments.std[:, 2, i] == pytest.approx(
            r.reshape(3, -1).std(axis=1, ddof=1), rel=1e-5
        )
        assert tally.noise_ks[i] == pytest.approx(
            scipy.stats.kstest(step.z.numpy().reshape(-1), "norm").statistic, abs=1e-6
        )
    run = record(denoiser, SCHEDULE, n=6, progress=False)
    data = run.dataset
    x_0 = data["samples"].values.reshape(3, 6, -1)
    center = denoiser.law.mean.reshape(-1)
    np.testing.assert_allclose(
        data["distance_to_mean"].sel(t=0), np.sqrt(((x_0 - center) ** 2).mean((1, 2))), rtol=1e-5
    )
    np.testing.assert_allclose(
        data["snapshots"].sel(snapshot=0).values.reshape(3, 6, -1), x_0, atol=2**-12
    )
    assert data["histogram"].sel(quantity="x").sum("bin").values == pytest.approx(6 * 48)


def test_injected_noise_is_measured_where_there_is_some():
    """noise_std follows λ√β_t; z = 0 and DDIM inject nothing and have no KS. Kills: σ of t + 1,
    a KS of what is not there."""
    arms = [*DEFAULT_ARMS, Arm("half", ddpm(), 0.5)]
    d = record(GAUSSIAN, SCHEDULE, arms=arms, n=4000, progress=False).dataset
    expected = np.sqrt(SCHEDULE.betas[SCHEDULE.times()[:-2]])
    np.testing.assert_allclose(d["noise_std"].sel(arm="ddpm")[:-2], expected, rtol=0.06)
    np.testing.assert_allclose(
        d["noise_std"].sel(arm="half"), 0.5 * d["noise_std"].sel(arm="ddpm"), rtol=1e-12
    )
    assert (d["noise_std"].sel(arm=["z=0", "ddim"])[:, :-1] == 0).all()
    assert np.isnan(d["noise_ks"].sel(arm=["z=0", "ddim"])).all()
    assert (d["noise_ks_p"].sel(arm="ddpm")[:-2] > 1e-4).all()
    assert d["noise_std"].sel(arm="ddpm", t=1) == 0  # no noise in the last step


def test_marginal_view_separates_right_from_wrong():
    """Small for DDPM and DDIM, large for z = 0, and exact: D of the end points is scipy's.
    Kills: the law at t for the law at s."""
    run = record(GAUSSIAN, SCHEDULE, n=5000, progress=False)
    d = run.dataset
    ends = d["samples"].values.astype(np.float64)
    for a, arm in enumerate(run.arms):
        expected = scipy.stats.kstest(ends[a], "norm", args=(1.0, 0.5)).statistic
        assert d["ks_marginal"].sel(arm=arm, t=0).item() == pytest.approx(expected, abs=1e-6)
    start = abs(SCHEDULE.alpha_bars[-1]) ** 0.5
    assert start < 0.2  # so that the terminal mismatch stays small
    assert d["ks_marginal"].sel(arm="ddpm").max() < 0.1
    assert d["ks_marginal"].sel(arm="z=0").max() > 0.3


def test_diversity_counts_modes():
    """A mixture under z = 0 loses its small mode; DDPM keeps its share. Kills: labels of another
    order."""
    schedule = NoiseSchedule.course(200, 1e-4, 0.05)
    mixture = MixtureDenoiser(schedule, [-1.0, 1.5], [0.2, 0.3], [0.7, 0.3])
    d = record(mixture, schedule, n=2000, progress=False).dataset
    counts = d["class_count"]
    assert counts.sel(arm="ddpm").values[0] / 2000 == pytest.approx(0.7, abs=0.06)
    assert counts.sel(arm="z=0").values[1] == 0
    assert d["distinct_nearest"].sel(arm="z=0") == 1


@pytest.mark.parametrize("block", [None, 13])
@pytest.mark.parametrize("law", ["gaussian", "mixture", "images"])
def test_a_device_describes_as_the_host_does(monkeypatch, law, block):
    """Sorting by torch against buckets by numpy, every variable of a run. Kills: counts of a
    neighbour's edges, a law of another time, D without one of its sides."""
    import diffviz.recording.record as recording
    from diffviz.recording.block import OnDevice

    denoiser = {
        "gaussian": GAUSSIAN,
        "mixture": MixtureDenoiser(SCHEDULE, [[-1.0, 6.0], [1.5, 0.0]], [0.2, 0.3], [0.7, 0.3]),
        "images": DatasetDenoiser(SCHEDULE, images(size=3)),
    }[law]

    def run():
        return record(denoiser, SCHEDULE, n=40, block=block, progress=False).dataset

    host, made = run(), []

    def on_device(device, *arguments):
        made.append(OnDevice(*arguments, torch.device(device)))
        return made[-1]

    monkeypatch.setattr(recording, "statistics_on", on_device)
    device = run()
    assert made and set(host.variables) == set(device.variables)
    for name, values in host.variables.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(device[name], values, rtol=1e-6, atol=2e-6, err_msg=name)
        elif name == "histogram":  # a value may lie on an edge up to rounding
            assert np.abs(device[name].values - values.values).sum() <= 8
        else:
            assert (device[name] == values).all(), name


@pytest.mark.parametrize("block", [7, 64])
def test_a_run_depends_on_its_seed_alone(block):
    """Computed elsewhere, see `tests.test_workers`. Kills: a global generator."""
    here = record(GAUSSIAN, SCHEDULE, n=50, block=block, progress=False)
    again = record(GAUSSIAN, SCHEDULE, n=50, block=block, progress=False)
    assert here == again
    other = record(GAUSSIAN, SCHEDULE, n=50, block=block, seed=1, progress=False)
    assert not here.dataset.equals(other.dataset)


def test_blocks_add_up_to_the_whole():
    """Statistics of many blocks are those of their samples together. Kills: a mean of means,
    blocks of different size weighted alike."""
    run = record(GAUSSIAN, SCHEDULE, n=50, block=16, progress=False)
    d = run.dataset
    x_0 = d["samples"].values.astype(np.float64)
    at_end = d.sel(t=0, quantity="x")
    np.testing.assert_allclose(at_end["mean"], x_0.mean(1), atol=1e-9)
    np.testing.assert_allclose(at_end["std"], x_0.std(1, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(d["std_between"].sel(t=0), x_0.std(1, ddof=1), rtol=1e-9)
    for a in range(3):
        exact = scipy.stats.kstest(x_0[a], "norm").statistic
        assert abs(at_end["ks_normal"][a] - exact) <= at_end["ks_normal_error"][a] + 1e-9


def test_resume_gives_the_same_run(tmp_path, monkeypatch):
    """Stopped after two of four blocks and resumed: equal to undisturbed, and no partial file is
    left. Kills: a resume that starts over, or counts a block twice."""
    import diffviz.recording.record as recording

    out = tmp_path / "run.nc"
    original, done = recording.record_block, []

    def stop_at_two(job, block, *told):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(block)
        return original(job, block, *told)

    monkeypatch.setattr(recording, "record_block", stop_at_two)
    arguments = {"n": 30, "block": 8, "progress": False, "out": out}
    with pytest.raises(KeyboardInterrupt):
        record(GAUSSIAN, SCHEDULE, **arguments)
    monkeypatch.setattr(recording, "record_block", original)
    assert not out.exists() and (tmp_path / "run.nc.partial").exists()
    with pytest.raises(InputError, match="holds 2 of 4 blocks"):
        record(GAUSSIAN, SCHEDULE, **arguments)
    with pytest.raises(InputError, match="seed = 0, now it is 5"):
        record(GAUSSIAN, SCHEDULE, seed=5, resume=True, **arguments)
    calls = []
    monkeypatch.setattr(recording, "record_block", lambda *a: calls.append(a[1]) or original(*a))
    resumed = record(GAUSSIAN, SCHEDULE, resume=True, **arguments)
    assert calls == [2, 3]
    assert resumed == record(GAUSSIAN, SCHEDULE, n=30, block=8, progress=False) == Run.load(out)
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]


def test_killed_recording_resumes_to_the_same_bits(tmp_path):
    """A real process, really killed between blocks. Kills: a partial file written in place."""
    out = tmp_path / "run.nc"
    command = [sys.executable, "-m", "diffviz.cli", "record", "--denoiser", "gaussian:1,0.5"]
    command += ["--n", "1000", "--block", "100", "--T", "40", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    partial = tmp_path / "run.nc.partial"
    deadline = time.monotonic() + 120
    while not partial.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists() and not out.exists(), "killed too late to test anything"
    subprocess.run([*command, "--resume"], check=True, env=environment, capture_output=True)
    whole = tmp_path / "whole.nc"
    command[-1] = str(whole)
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert Run.load(out) == Run.load(whole)
    assert not partial.exists()


def test_a_finished_run_is_not_recorded_again(tmp_path):
    out = tmp_path / "run.nc"
    first = record(GAUSSIAN, SCHEDULE, n=8, out=out, progress=False)
    before = out.read_bytes()
    assert record(GAUSSIAN, SCHEDULE, n=8, out=out, resume=True, progress=False) == first
    assert out.read_bytes() == before
    with pytest.raises(InputError, match="n = 8, now it is 9"):
        record(GAUSSIAN, SCHEDULE, n=9, out=out, resume=True, progress=False)


def test_the_shape_of_a_number_is_a_shape():
    """Kills: an empty shape taken for none given, so that images are made of numbers."""

    def anything(x, t, context=None):
        return x

    run = record(anything, SCHEDULE, n=8, sample_shape=(), progress=False)
    assert run.spec.sample_shape == () and run.dataset["samples"].shape[2:] == ()


def test_what_is_watched_is_what_is_recorded():
    """Kills: a step told too early or twice, quantities swapped, a watcher that draws noise."""
    seen = []

    def watch(block, index, recorder):
        seen.append((block, index, recorder.latest()))

    given = {"n": 30, "progress": False}
    watched = record(GAUSSIAN, SCHEDULE, watch=watch, **given)
    assert watched == record(GAUSSIAN, SCHEDULE, **given)
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
    record(GAUSSIAN, SCHEDULE, watch=watch, block=15, **given)
    assert [place[0] for place in seen] == [0] * SCHEDULE.T + [1] * SCHEDULE.T


def test_any_callable_is_recorded_without_references():
    """A plain function has no law: its references are NaN, its curves are not. Kills: a law
    invented for it."""
    run = record(lambda x, t, context=None: x * 0.5, SCHEDULE, n=4, progress=False)
    assert run.spec.sample_shape == (3, 16, 16)
    assert np.isnan(run.dataset["reference_mean"]).all()
    assert np.isnan(run.dataset["ks_marginal"]).all()
    assert np.isfinite(run.dataset["std"].sel(quantity="x")).all()
    assert "distinct_nearest" not in run.dataset


def test_a_subset_of_steps_names_the_times_visited():
    d = record(GAUSSIAN, SCHEDULE, n=64, steps=7, progress=False).dataset
    np.testing.assert_array_equal(d["t"], SCHEDULE.times(7))
    np.testing.assert_allclose(
        d["reference_std"], [GAUSSIAN.law.marginal_std(b) for b in SCHEDULE.alpha_bars[d["t"]]]
    )


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
        ({"label": "hero"}, "class is 'hero'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"out": "no/such/folder/run.nc"}, "does not exist"),
        ({"out": "."}, "is a folder"),
        ({"sample_shape": 5}, "sample_shape is 5; allowed"),
        ({"sample_shape": (0,)}, "sample_shape is (0,); allowed"),
        ({"sample_shape": (2.0,)}, "sample_shape is (2.0,); allowed"),
        ({"sample_shape": (2, True)}, "sample_shape is (2, True); allowed"),
        ({"sample_shape": (1,) * 17}, "up to 16 whole numbers"),
        ({"sample_shape": (2**20, 2**20)}, "allowed are 2³² in all"),
        ({"out": "a.nc", "arms": [Arm("a\0", ddpm())]}, "'a\\x00'; a run file can hold"),
        ({"out": "a.nc", "arms": [Arm("\udcff", ddpm())]}, "'\\udcff'; a run file can hold"),
    ],
)
def test_bad_input_is_named_before_any_work(arguments, words):
    def never(x, t, context=None):
        raise AssertionError("sampled before the input was checked")

    with pytest.raises(InputError) as error:
        record(never, SCHEDULE, progress=False, **arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_other_parameters_are_another_run():
    """Kills: a resume that mixes two models, as alike names or no digest would let it."""

    def spec(denoiser=GAUSSIAN, schedule=SCHEDULE, arm=DEFAULT_ARMS[0]):
        return record(
            denoiser, schedule, arms=[arm], n=2, sample_shape=(1,), steps=1, progress=False
        ).spec

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
    alphas = dataclasses.replace(SCHEDULE, alphas=SCHEDULE.alphas * 0.999)
    for one, two in (
        ({"denoiser": Net(0.5)}, {"denoiser": Net(0.9)}),
        ({"arm": eta[0]}, {"arm": eta[1]}),
        ({"denoiser": GAUSSIAN}, {"denoiser": GaussianDenoiser(other, 1.0, 0.5)}),
        ({"schedule": SCHEDULE}, {"schedule": alphas}),
    ):
        assert spec(**one) != spec(**two) and spec(**one) == spec(**one)
    assert wide.digest != tall.digest


def test_a_schedule_that_ends_in_pure_noise_is_refused():
    with pytest.raises(InputError, match="ε-prediction is undefined"):
        record(GAUSSIAN, SCHEDULE.with_zero_terminal_snr(), n=4, progress=False)


def test_a_damaged_partial_file_is_named(tmp_path):
    partial = tmp_path / "run.nc.partial"
    partial.write_bytes(b"something else")
    with pytest.raises(RunFileError, match=r"run\.nc\.partial"):
        record(GAUSSIAN, SCHEDULE, n=4, out=tmp_path / "run.nc", resume=True, progress=False)
    assert partial.read_bytes() == b"something else"
