"""The probe: nothing changes, and the run is an ordinary one."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffviz.diagnosis.findings import diagnose
from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser
from diffviz.diffusion.rules import Arm, ddim, ddpm
from diffviz.diffusion.sampler import sample
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.probe import Probe
from diffviz.recording.record import record
from diffviz.recording.run import Run
from tests import zoo

T = 60
COURSE = NoiseSchedule.course(T, 1e-3, 0.16)


def as_tutorial(denoiser):
    """model(x, t, c=None) with t = i/T in any shape."""

    def model(x, t, c=None):
        return denoiser(x, round(float(torch.as_tensor(t).reshape(-1)[0]) * T))

    model.law = denoiser.law
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


def told(kind, denoiser, stretch=1.0):
    """A model that answers in another form; ``stretch`` > 1 lets x̂_0 leave [−1, 1]."""
    bars = denoiser.schedule.alpha_bars

    def model(x, t, c=None):
        bar = bars[int(t)]
        x_0 = stretch * (x - (1 - bar) ** 0.5 * denoiser(x, int(t))) / bar**0.5
        if stretch > 1:
            x_0 = x_0 + 0.05 * torch.tanh(37 * x)  # else x̂_0 is the same number for all of a batch
        eps = (x - bar**0.5 * x_0) / (1 - bar) ** 0.5
        return {"eps": eps, "x0": x_0, "v": bar**0.5 * eps - (1 - bar) ** 0.5 * x_0}[kind]

    model.law = denoiser.law
    return model


def loop(kind, rule, n=None, clip=False, ask=lambda model, x, t: model(x, t)):
    """Any linear rule over n steps, for a model that answers in any form."""

    def sampler(model, schedule, shape):
        x, times = torch.randn(shape), schedule.times(n).tolist()
        for t, s in pairwise(times):
            bar, m = schedule.alpha_bars[t], ask(model, x, t)
            x_0 = {
                "eps": (x - (1 - bar) ** 0.5 * m) / bar**0.5,
                "x0": m,
                "v": bar**0.5 * x - (1 - bar) ** 0.5 * m,
            }[kind]
            x_0 = x_0.clamp(-1, 1) if clip else x_0
            eps = (x - bar**0.5 * x_0) / (1 - bar) ** 0.5
            a, b, std = rule.coefficients(schedule, t, s)
            x = a * x + b * eps + std * torch.randn_like(x)
        return x

    return sampler


EXACT = NoiseSchedule.linear(T, 1e-3, 0.16)


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize("rule", [ddpm(), ddim(0.0)], ids=lambda rule: rule.name)
@pytest.mark.parametrize("clip", [False, True])
def test_what_the_model_answers(kind, rule, clip):
    """The run holds ε̂ and x_t whatever the loop's form. Kills: an answer kept as it came."""
    denoiser = dataset(EXACT)
    torch.manual_seed(0)
    probe = Probe(told(kind, denoiser, 1.3 if clip else 1.0), EXACT)
    run = probe.finish(loop(kind, rule, 20, clip)(probe, EXACT, (100, 1, 4, 4)))
    read = probe.reading
    assert (read.rule, read.levels.answer, read.clipped) == (rule.name, kind, clip)
    assert run.spec.arms[0]["noise_scale"] == 1.0
    torch.manual_seed(0)
    same = Probe(told("eps", denoiser, 1.3 if clip else 1.0), EXACT, answer="eps")
    want = same.finish(loop("eps", rule, 20, clip)(same, EXACT, (100, 1, 4, 4)))
    for name in ("mean", "std", "ks_marginal", "noise_std"):
        np.testing.assert_allclose(run.dataset[name], want.dataset[name], atol=1e-3, rtol=1e-3)


def in_sigma(denoiser, denoised):
    """A model of (x̄, σ) with x̄ = x/√ᾱ, exact at the levels of the schedule and between them."""

    def model(x, sigma):
        level = float(sigma.reshape(-1)[0])
        bar = 1 / (1 + level**2)
        one = NoiseSchedule(np.array([0, 1 - bar]), np.array([1, bar]), np.array([1, bar]))
        eps = DatasetDenoiser(one, denoiser.law.points)(x * bar**0.5, 1)
        return x - level * eps if denoised else eps

    model.law = denoiser.law
    return model


@pytest.mark.parametrize("denoised", [True, False])
@pytest.mark.parametrize("ancestral", [True, False])
def test_a_loop_in_sigma(denoised, ancestral):
    """k-diffusion's x̄ becomes x_t, of std 1 at T. Kills: levels rounded to the schedule."""
    torch.manual_seed(0)
    probe = Probe(in_sigma(dataset(EXACT), denoised), EXACT)
    sampler = zoo.sigma_form(n=20, ancestral=ancestral, denoised=denoised)
    run = probe.finish(sampler(EXACT, (100, 1, 4, 4))(probe))
    read = probe.reading
    assert (read.rule, read.levels.kind, read.levels.sigma_form, read.levels.answer) == (
        "ddpm/posterior" if ancestral else "ddim(eta=0)",
        "sigma",
        True,
        "x0" if denoised else "eps",
    )
    levels = zoo.sigmas(EXACT, 20)
    np.testing.assert_allclose(run.schedule.alpha_bars[::-1], 1 / (1 + levels**2), rtol=1e-6)
    assert run.dataset["t"].values.tolist() == list(range(20, -1, -1))
    x = run.dataset["std"].sel(arm="probe", quantity="x")
    assert float(x[0]) == pytest.approx(1, abs=0.05)
    assert float(run.dataset["ks_marginal"].max()) < 0.1
    assert [f.message for f in diagnose(run) if f.severity == "error"] == []


def test_sigma_form_without_its_noise():
    torch.manual_seed(0)
    probe = Probe(in_sigma(dataset(EXACT), True), EXACT)
    sampler = zoo.sigma_form(n=20, ancestral=True, drop=True)
    run = probe.finish(sampler(EXACT, (100, 1, 4, 4))(probe))
    assert diagnose(run)[0].id == "noise-missing"


def doubled(model, x, t):
    first, second = model(torch.cat([x, x]), t).chunk(2)
    return first + 3 * (second - first)


def twice(model, x, t):
    first, second = model(x, t), model(x, t)
    return first + 3 * (second - first)


@pytest.mark.parametrize("ask", [doubled, twice], ids=["doubled batch", "two calls"])
@pytest.mark.parametrize("rule", [ddpm(), ddim(0.0)], ids=lambda rule: rule.name)
def test_guidance(ask, rule):
    """The answer recorded is the one that the loop used.

    Kills: guidance recorded as twice as many samples, or one of the two answers taken for it.
    """
    one, other, calls = dataset(EXACT), DatasetDenoiser(EXACT, dataset().law.points[:9]), []

    def model(x, t):
        if len(x) == 200:
            return torch.cat([one(x[:100], t), other(x[100:], t)])
        calls.append(t)
        return (other if calls.count(t) == 2 else one)(x, t)

    torch.manual_seed(0)
    probe = Probe(model, EXACT)
    run = probe.finish(loop("eps", rule, ask=ask)(probe, EXACT, (100, 1, 4, 4)))
    assert run.spec.n == 100
    assert run.spec.arms[0] == {"name": "probe", "rule": rule.name, "noise_scale": 1.0}
    assert probe.reading.guidance == pytest.approx((3.0,), abs=1e-4 if rule == ddim(0.0) else 0.5)


def test_a_multistep_loop():
    """It adds no noise. Kills: what the call before explains, taken for noise."""
    torch.manual_seed(0)
    probe = Probe(dataset(EXACT), EXACT)
    run = probe.finish(zoo.multistep(15)(EXACT, (100, 1, 4, 4))(probe))
    assert run.spec.arms[0]["rule"] == "dpm-solver++(2m)"
    assert float(run.dataset["noise_std"].max()) == 0


def test_a_corrector_is_part_of_its_step():
    """Heun asks twice at one level; the second goes on. Kills: the trial kept."""
    levels, denoiser = zoo.sigmas(EXACT, 12), in_sigma(dataset(EXACT), True)
    torch.manual_seed(0)
    probe, x = Probe(denoiser, EXACT, time="sigma", answer="x0"), torch.randn(50, 1, 4, 4)
    x, kept = x * levels[0], []
    for now, then in pairwise(levels):
        kept.append(x)
        slope = (x - probe(x, torch.tensor([now]))) / now
        trial = x + slope * (then - now)
        if then > 0:
            slope = (slope + (trial - probe(trial, torch.tensor([then]))) / then) / 2
        x = x + slope * (then - now)
    run = probe.finish(x)
    assert run.spec.steps == 12
    want = [float(x.std()) / (1 + s**2) ** 0.5 for x, s in zip(kept, levels[:-1], strict=True)]
    seen = run.dataset["std"].sel(arm="probe", quantity="x")[:-1]
    np.testing.assert_allclose(seen, want, rtol=1e-3)


class Output:
    def __init__(self, sample):
        self.sample = sample


@pytest.mark.parametrize(
    "wrap",
    [lambda e: e, lambda e: (e, None), lambda e: {"sample": e}, Output, lambda e: [e]],
    ids=["tensor", "tuple", "dict", "object", "list"],
)
def test_the_answer_is_handed_on_as_it_is(wrap):
    """Kills: another object than the model's own, a model that can no longer be asked."""
    answers = []

    class Model:
        training, n_cfeat = False, 5

        def eval(self):
            return self

        def __call__(self, sample, timestep, *, encoder_hidden_states, return_dict=True):
            answers.append(wrap(0.1 * sample))
            return answers[-1]

    probe = Probe(Model(), EXACT, answer="eps")
    probe.eval()
    assert (probe.training, probe.n_cfeat) == (False, 5)
    with pytest.raises(AttributeError):
        _ = probe.nothing
    for t in (60, 30):
        x = torch.randn(4, 1, 4, 4)
        assert probe(x, t, encoder_hidden_states=None) is answers[-1]
    x = torch.randn(4, 1, 4, 4)
    assert probe(sample=x, timestep=10, encoder_hidden_states=None) is answers[-1]
    assert probe.finish((x, ["something else"])).dataset["t"].values.tolist() == [60, 30, 10, 0]


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["eps", "x0", "v"]),
    rule=st.sampled_from([ddpm(), ddpm("posterior"), ddim(0.0), ddim(0.7)]),
    n=st.sampled_from([None, 7]),
    clip=st.booleans(),
    ask=st.sampled_from([lambda model, x, t: model(x, t), doubled, twice]),
    batch=st.integers(1, 4),
)
@settings(max_examples=15)
def test_nothing_changes_whatever_the_loop(seed, kind, rule, n, clip, ask, batch):
    """The same bits, and the generator where it would be. Kills: any draw, any change of a bit."""
    model, sampler = told(kind, dataset(EXACT)), loop(kind, rule, n, clip, ask)
    ends = []
    for asked in (model, Probe(model, EXACT)):
        torch.manual_seed(seed)
        ends.append((sampler(asked, EXACT, (batch, 1, 4, 4)), torch.randn(4)))
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])


def test_memory_stays_bounded(monkeypatch):
    """What is over the bound lies in a file. Kills: a list of all states, a step misread."""
    runs = []
    for bound in (2**26, 2**12):
        monkeypatch.setattr("diffviz.identify.probe.MEMORY", bound)
        torch.manual_seed(0)
        probe = Probe(dataset(EXACT), EXACT)
        end = zoo.ddim(0.0)(EXACT, (20, 1, 4, 4))(probe)
        assert probe._tape._file._rolled == (bound < 2 * 60 * 4 * 20 * 16)
        runs.append(probe.finish(end))
    assert runs[0].dataset.drop_attrs().identical(runs[1].dataset.drop_attrs())


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
    with pytest.raises(InputError, match="visited 3 times from 60 to 55; allowed are times"):
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
    with pytest.raises(InputError, match="x or the answer is not finite at t = 0"):
        probe.finish(torch.full((4, 1, 4, 4), float("nan")))
    with pytest.raises(InputError, match="the model answered NoneType at t = 60"):
        Probe(lambda x, t: None, COURSE)(torch.randn(4, 1, 4, 4), 60)
    with pytest.raises(InputError, match="answer is 'noise'; allowed are 'auto', eps, x0, v"):
        Probe(gaussian(), COURSE, answer="noise")
    with pytest.raises(InputError, match="loop called its model without t; allowed is model"):
        Probe(gaussian(), COURSE)(torch.randn(4, 1, 4, 4))
    with pytest.raises(
        InputError, match=r"loop passed torch.int64 \(3,\) as x; allowed is a float"
    ):
        Probe(gaussian(), COURSE)(torch.arange(3), 60)
    probe = Probe(gaussian(), COURSE)
    with pytest.raises(InputError, match="passed t = 60 in all of its 3 calls"):
        probe.finish(calls(probe, 60, 60, 60))
    probe = Probe(gaussian(), COURSE)
    calls(probe, *every)
    with pytest.raises(InputError, match="x_0 is NoneType; allowed is a tensor"):
        probe.finish(None)
    probe = Probe(gaussian(), COURSE)
    with pytest.raises(InputError, match="asked more than 8 times about one x at t = 60"):
        calls(probe, *[60] * 9, x=torch.randn(4, 1, 4, 4))


def test_an_answer_that_does_not_show_is_refused():
    """Random answers in a loop of no known rule. Kills: a guess."""
    for answer in ("auto", "v"):
        torch.manual_seed(0)
        probe = Probe(lambda x, t: torch.randn_like(x), COURSE, answer=answer)
        end = calls(probe, 60, 40, 20)
        if answer == "v":
            assert probe.finish(end).spec.arms[0]["rule"] == "unknown"
            continue
        with pytest.raises(InputError, match="whether the model answers ε, x_0 or v does not"):
            probe.finish(end)
