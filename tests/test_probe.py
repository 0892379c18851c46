"""The probe: nothing changes, and the run is an ordinary one."""

import numpy as np
import pytest
import torch

from diffviz.denoisers.exact import DatasetDenoiser, GaussianDenoiser
from diffviz.errors import InputError
from diffviz.findings import diagnose
from diffviz.probe import Probe
from diffviz.recording import record
from diffviz.run import Run
from diffviz.sampling import Arm, ddim, ddpm, sample
from diffviz.schedule import NoiseSchedule
from tests import zoo

T = 60
COURSE = NoiseSchedule.course(T, 1e-3, 0.16)


def as_tutorial(denoiser):
    """model(x, t, c=None) with t = i/T in any shape."""

    def model(x, t, c=None):
        return denoiser(x, round(float(torch.as_tensor(t).reshape(-1)[0]) * T))

    model.data = denoiser.data
    return model


def gaussian(schedule=COURSE):
    return GaussianDenoiser(schedule, np.full((1, 4, 4), 2.0), 0.5)


def dataset(schedule=COURSE):
    rng = np.random.default_rng(0)
    return DatasetDenoiser(schedule, rng.choice([-1, -0.5, 1], (30, 1, 4, 4)).astype(np.float32))


@pytest.mark.parametrize("denoiser", [gaussian(), dataset()], ids=["gaussian", "data set"])
def test_the_two_loops_of_the_tutorial(denoiser):
    """`noise-missing` for the second only. Kills: both read alike when ε̂ is affine in x_t."""
    found = {}
    for add_noise in (True, False):
        torch.manual_seed(1)
        probe = Probe(as_tutorial(denoiser), COURSE)
        loop = zoo.tutorial(add_noise)(COURSE, (100, 1, 4, 4), context=torch.zeros(100, 5))
        run = probe.finish(loop(probe)[0])
        found[add_noise] = [f.id for f in diagnose(run) if f.severity == "error"]
        assert run.arms == ["probe"]
        assert run.spec.arms[0]["rule"] == "ddpm/beta"
        assert run.spec.arms[0]["noise_scale"] == float(add_noise)
    assert found[True] == []
    assert found[False][0] == "noise-missing"


def test_nothing_changes():
    """Same bits with and without, and the generator where it would be.

    Kills: a random number drawn, a state kept by reference or changed in place.
    """

    def in_place(model):
        x = torch.randn(6, 1, 4, 4)
        for i in range(T, 0, -1):
            eps = model(x, i)
            a, b, std = ddpm().coefficients(COURSE, i, i - 1)
            x.mul_(a).add_(b * eps).add_(std * torch.randn_like(x))
        return x

    ends = []
    probe = Probe(dataset(), COURSE)
    for model in (dataset(), probe):
        torch.manual_seed(5)
        ends.append((in_place(model), torch.randn(4)))
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])
    run = probe.finish(ends[1][0])
    # Kept by reference, all states would be the last one.
    assert float(run.dataset["std"].sel(quantity="x", t=T)[0]) == pytest.approx(1, abs=0.3)
    assert np.array_equal(run.dataset["samples"].values[0], ends[1][0].numpy())


def test_a_probe_sees_what_recording_sees():
    """On our own loop the run has the numbers of `record`, noise included.

    Kills: a step off by one between x_t and ε̂, the leftover not scaled to std 1.
    """
    denoiser, arms = gaussian(), (Arm("ddpm", ddpm()),)
    own = record(denoiser, COURSE, arms=arms, n=64, seed=3, progress=False).dataset
    words = np.random.SeedSequence([3, 0]).generate_state(2, np.uint32)
    generator = torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
    x_T = torch.randn((64, 1, 4, 4), generator=generator)
    probe = Probe(denoiser, COURSE)
    for step in sample(probe_as_denoiser(probe), COURSE, x_T, generator, arms=arms):
        end = step.x_next
    seen = probe.finish(end[0]).dataset
    for name in ("mean", "std", "ks_normal", "std_between", "distance_to_mean", "ks_marginal"):
        assert np.allclose(seen[name], own[name], atol=1e-6, equal_nan=True), name
    # Three regression coefficients are taken out of 1,024 values of z.
    assert np.allclose(seen["noise_std"], own["noise_std"], rtol=0.02, equal_nan=True)
    assert np.allclose(seen["noise_ks"], own["noise_ks"], atol=0.04, equal_nan=True)
    assert seen.sizes == own.sizes


def probe_as_denoiser(probe):
    return lambda x, t, context: probe(x, t)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [20, None])
def test_rules_and_subsequences(eta, n):
    """Kills: times of a jump taken for single steps, a deterministic rule taken for z = 0."""
    schedule = NoiseSchedule.linear(T, 1e-3, 0.16)
    torch.manual_seed(0)
    probe = Probe(dataset(schedule), schedule)
    run = probe.finish(zoo.ddim(eta, n=n)(schedule, (100, 1, 4, 4))(probe))
    want = "ddpm/posterior" if eta == 1 else ddim(eta).name
    assert (run.spec.arms[0]["rule"], run.spec.arms[0]["noise_scale"]) == (want, 1.0)
    assert run.dataset["t"].values.tolist() == schedule.times(n).tolist()
    assert [f.message for f in diagnose(run) if f.severity == "error"] == []


def test_a_doubled_batch_is_one_batch():
    """Kills: guidance recorded as twice as many samples."""
    model = as_tutorial(dataset())
    probe = Probe(model, COURSE)

    def guided(x, t):
        plain, given = probe(torch.cat([x, x]), t, c=None).chunk(2)
        return plain + 2 * (given - plain)

    torch.manual_seed(0)
    run = probe.finish(zoo.tutorial()(COURSE, (20, 1, 4, 4))(guided)[0])
    assert run.spec.n == 20
    assert run.spec.arms[0]["rule"] == "ddpm/beta"


def test_a_run_that_can_be_saved(tmp_path):
    """Kills: a spec that is not JSON."""
    torch.manual_seed(0)
    probe = Probe(gaussian(), COURSE)
    run = probe.finish(zoo.ddim(0.0, n=10)(COURSE, (8, 1, 4, 4))(probe))
    run.save(tmp_path / "probe.nc")
    assert Run.load(tmp_path / "probe.nc") == run


def calls(probe, *times, x=None):
    for t in times:
        probe(torch.randn(4, 1, 4, 4) if x is None else x, t)
    return torch.randn(4, 1, 4, 4)


def test_any_falling_times_can_be_visited():
    """Spaced unevenly, as diffusers' schedulers do. Kills: times made up from their number."""
    probe = Probe(gaussian(), COURSE)
    run = probe.finish(calls(probe, 60, 50, 10))
    np.testing.assert_array_equal(run.dataset["t"], [60, 50, 10, 0])


def test_what_cannot_be_recorded():
    """Each in one line. Kills: a run with times that were never visited."""
    every = range(T, 0, -1)
    with pytest.raises(InputError, match="never called"):
        Probe(gaussian(), COURSE).finish(torch.zeros(4, 1, 4, 4))
    probe = Probe(gaussian(), COURSE)
    with pytest.raises(InputError, match="visited 3 times from 60 to 55; allowed are integers"):
        probe.finish(calls(probe, 60, 50, 55))
    probe = Probe(gaussian(), COURSE)
    calls(probe, *every)
    with pytest.raises(
        InputError, match=r"x_0 has shape \(3, 1, 4, 4\); allowed is \(4, 1, 4, 4\)"
    ):
        probe.finish(torch.zeros(3, 1, 4, 4))
    probe = Probe(gaussian(), COURSE)
    calls(probe, 60)
    with pytest.raises(InputError, match=r"x has shape \(2, 1, 4, 4\) at t = 59"):
        probe(torch.randn(2, 1, 4, 4), 59)
    probe = Probe(gaussian(), COURSE)
    calls(probe, *every)
    with pytest.raises(InputError, match="x is not finite at t = 0"):
        probe.finish(torch.full((4, 1, 4, 4), float("nan")))
    with pytest.raises(InputError, match="the model answered NoneType at t = 60"):
        Probe(lambda x, t: None, COURSE)(torch.randn(4, 1, 4, 4), 60)
