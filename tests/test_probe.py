"""The probe: nothing changes, and the run is an ordinary one."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser
from diffviz.diffusion.rules import Arm, ddim, ddpm
from diffviz.diffusion.sampler import sample
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify import zoo
from diffviz.identify.probe import MEMORY, Probe
from diffviz.recording.record import record
from diffviz.recording.run import Run
from tests import cases

T = 60
SHAPE = (100, 1, 4, 4)
COURSE = NoiseSchedule.course(T, 1e-3, 0.16)
EXACT = NoiseSchedule.linear(T, 1e-3, 0.16)
ETA = """\
def sample(model, shape):
    x = torch.randn(shape)
    for t, s in pairwise(TIMES):
        eps = model(x, t)
        share = (1 - alpha_bar[s]) / (1 - alpha_bar[t])
        std = ETA * (share * (1 - alpha_bar[t] / alpha_bar[s])).sqrt()
        x_0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        x = alpha_bar[s].sqrt() * x_0 + (1 - alpha_bar[s] - std**2).sqrt() * eps
        x = x + std * torch.randn_like(x)
    return x
"""


def gaussian(schedule=COURSE):
    return GaussianDenoiser(schedule, np.full((1, 4, 4), 2.0), 0.5)


def dataset(schedule=EXACT):
    rng = np.random.default_rng(0)
    return DatasetDenoiser(schedule, rng.choice([-1, -0.5, 1], (30, 1, 4, 4)).astype(np.float32))


def run_of(source, model, schedule=EXACT, shape=SHAPE, seed=0, end=lambda x: x, **options):
    """(probe, run) of a loop's source."""
    torch.manual_seed(seed)
    probe = Probe(model, schedule, **options)
    return probe, probe.finish(end(zoo.sampler(source, schedule)(probe, shape)))


def errors(probe):
    return [finding.id for finding in probe.findings if finding.severity == "error"]


@pytest.mark.parametrize("denoiser", [gaussian(), dataset(COURSE)], ids=["gaussian", "data set"])
def test_the_two_loops_of_the_tutorial(denoiser):
    """`noise-missing` for the second only. Kills: both read alike when ε̂ is affine in x_t."""

    def model(x, t, c=None):
        return denoiser(x, round(float(torch.as_tensor(t).reshape(-1)[0]) * T))

    model.law = denoiser.law
    for name, noise, first in (
        ("tutorial", 1.0, []),
        ("z = 0 in the tutorial", 0.0, ["noise-missing"]),
    ):
        probe, run = run_of((cases.RIGHT | cases.WRONG)[name][1], model, COURSE)
        assert run.arms == ["probe"]
        assert run.spec.arms[0] == {"name": "probe", "rule": "ddpm/beta", "noise_scale": noise}
        assert errors(probe)[:1] == first


def test_a_loop_that_counts_from_0_asks_a_denoiser_that_counts_from_1():
    """Said, or seen at its first time. Kills: every answer about the state before."""
    source = ETA.replace("ETA", "0.0").replace("model(x, t)", "model(x, torch.tensor([t - 1]))")
    source = source.replace("TIMES", str(EXACT.times().tolist()))
    ends = [
        run_of(source, dataset(), time=time)[1].dataset["samples"] for time in ("auto", "index0")
    ]
    plain = run_of(source.replace("t - 1", "t"), dataset(), time="index")[1].dataset["samples"]
    assert ends[0].equals(ends[1]) and ends[0].equals(plain)


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
    probe = Probe(dataset(COURSE), COURSE)
    for model in (dataset(COURSE), probe):
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
    times = EXACT.times(n).tolist()
    source = ETA.replace("ETA", str(eta)).replace("TIMES", str(times))
    probe, run = run_of(source, dataset())
    want = "ddpm/posterior" if eta == 1 else ddim(eta).name
    assert (run.spec.arms[0]["rule"], run.spec.arms[0]["noise_scale"]) == (want, 1.0)
    assert run.dataset["t"].values.tolist() == times
    assert errors(probe) == []


@pytest.mark.parametrize(
    "told",
    [
        lambda t: t - 1,
        lambda t: torch.tensor(t - 1),
        lambda t: torch.full((100, 1, 1, 1), t - 1),
        lambda t: torch.tensor([t / T]),
        lambda t: (t - 1) * 1000 / T,
    ],
    ids=["from 0", "0-d", "(B, 1, 1, 1)", "fraction", "scaled"],
)
def test_loops_pass_t_as_they_like(told):
    """The run counts T…1. Kills: a loop from 0 read as one that skips T."""
    denoiser, index = dataset(), {}

    def model(x, t):
        return denoiser(x, index[float(torch.as_tensor(t).reshape(-1)[0])])

    for t in range(1, T + 1):
        index[float(torch.as_tensor(told(t)).reshape(-1)[0])] = t
    source = zoo.programs()["ddpm"].source.replace("model(x, t)", "model(x, torch.told(t))")
    torch.told = told
    try:
        _, run = run_of(source, model)
    finally:
        del torch.told
    assert run.dataset["t"].values.tolist() == list(range(T, -1, -1))
    assert run.spec.arms[0]["rule"] == "ddpm/beta"


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


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize("rule", [ddpm(), ddim(0.0)], ids=lambda rule: rule.name)
@pytest.mark.parametrize("clip", [False, True])
def test_what_the_model_answers(kind, rule, clip):
    """The run holds ε̂ and x_t whatever the loop's form. Kills: an answer kept as it came."""
    denoiser = dataset()
    torch.manual_seed(0)
    probe = Probe(told(kind, denoiser, 1.3 if clip else 1.0), EXACT)
    run = probe.finish(loop(kind, rule, 20, clip)(probe, EXACT, (100, 1, 4, 4)))
    read = probe.reading
    assert (read.rule, read.levels.reading.answer, read.clipped) == (rule.name, kind, clip)
    assert run.spec.arms[0]["noise_scale"] == 1.0
    torch.manual_seed(0)
    same = Probe(told("eps", denoiser, 1.3 if clip else 1.0), EXACT, answer="eps")
    want = same.finish(loop("eps", rule, 20, clip)(same, EXACT, (100, 1, 4, 4)))
    for name in ("mean", "std", "ks_marginal", "noise_std"):
        np.testing.assert_allclose(run.dataset[name], want.dataset[name], atol=1e-3, rtol=1e-3)


def at_levels(program, denoiser):
    """The exact model of a program of the zoo, at any level."""

    def model(x, t):
        a, b = (1.0, float(t)) if program.path == "sigma" else (1 - float(t), float(t))
        bar = a * a / (a * a + b * b)
        one = NoiseSchedule(np.array([0, 1 - bar]), np.array([1, bar]), np.array([1, bar]))
        eps = DatasetDenoiser(one, denoiser.law.points)(x / (a * a + b * b) ** 0.5, 1)
        mean = torch.tensor(denoiser.law.points, dtype=x.dtype).reshape(-1, *x.shape[1:]).mean(0)
        x_0 = (x - b * eps) / a if a else mean
        return {"x0": x_0, "eps": eps, "flow": eps - x_0}[program.answer]

    model.law = denoiser.law
    return model


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("euler", "ddim(eta=0)"),
        ("a model of ε", "ddim(eta=0)"),
        ("euler-ancestral", "ddpm/posterior"),
        ("flow", "ddim(eta=0)"),
    ],
)
def test_levels_of_their_own(name, rule):
    """x̄ = x/√ᾱ and (1−t)·x_0 + t·n become x_t, of std 1 at T.

    Kills: levels rounded to the schedule, a flow read as σ, an answer kept as it came.
    """
    base = zoo.programs().get(name) or zoo.Program("", (), "", "sigma", "eps")
    source = cases.RIGHT[name][1]
    probe, run = run_of(source, at_levels(base, dataset()))
    path = probe.reading.levels.reading
    assert (path.path.name, path.answer) == (base.path, base.answer)
    assert run.spec.arms[0] == {"name": "probe", "rule": rule, "noise_scale": 1.0}
    assert run.dataset["t"].values.tolist() == list(range(run.spec.steps, -1, -1))
    if base.path == "sigma":
        levels = (EXACT.sigma[-1] ** (1 / 7), EXACT.sigma[1] ** (1 / 7))
        sigma = (levels[0] + np.linspace(0, 1, 40) * (levels[1] - levels[0])) ** 7
        np.testing.assert_allclose(run.schedule.alpha_bars[:0:-1], 1 / (1 + sigma**2), rtol=1e-5)
    x = run.dataset["std"].sel(arm="probe", quantity="x")
    assert float(x[0]) == pytest.approx(1, abs=0.05)
    assert float(run.dataset["ks_marginal"][:, 1:].max()) < 0.12
    assert errors(probe) == []


def test_sigma_form_without_its_noise():
    program = zoo.programs()["euler-ancestral"]
    probe, _ = run_of(zoo.mutate(program, "goes-down-alone"), at_levels(program, dataset()))
    assert probe.findings[0].id == "noise-missing"


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
    one, other, calls = dataset(), DatasetDenoiser(EXACT, dataset().law.points[:9]), []

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
    _, run = run_of(zoo.programs()["dpm-solver-2m"].source, dataset())
    assert run.spec.arms[0]["rule"] == "dpm-solver++(2m)"
    assert float(run.dataset["noise_std"].max()) == 0


def test_a_corrector_is_part_of_its_step():
    """Heun asks twice at one level; the second goes on. Kills: the trial kept."""
    program, kept = zoo.programs()["heun"], []
    exact = at_levels(program, dataset())

    def model(x, t):
        kept.append((float(t), x))
        return exact(x, t)

    _, run = run_of(program.source, model, time="sigma", answer="x0")
    last = dict(kept)  # of two calls at one level the second
    want = [float(x.std()) / (1 + s**2) ** 0.5 for s, x in last.items()]
    assert run.spec.steps == len(last) == 40
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
    model, sampler = told(kind, dataset()), loop(kind, rule, n, clip, ask)
    ends = []
    for asked in (model, Probe(model, EXACT)):
        torch.manual_seed(seed)
        ends.append((sampler(asked, EXACT, (batch, 1, 4, 4)), torch.randn(4)))
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])


class Network(torch.nn.Module):
    """A module around an exact answer, with a layer that depends on the mode."""

    def __init__(self, exact, layer=torch.nn.Identity):
        super().__init__()
        self.exact, self.layer, self.scale = exact, layer(), torch.nn.Parameter(torch.ones(1))
        self.law = exact.law

    def forward(self, x, t):
        return self.layer(self.scale * self.exact(x, int(t)))


def test_a_probe_of_a_module_is_one():
    """Kills: `model = model.eval()` that drops the probe, parameters of its own, a mode that the
    model does not get, an attribute set on the probe alone."""
    network = Network(dataset(), lambda: torch.nn.Dropout(0.5))
    before = [(name, id(value)) for name, value in network.named_parameters()]
    probe = Probe(network, EXACT)
    assert network.training and isinstance(probe, torch.nn.Module) and isinstance(probe, Probe)
    assert probe.eval() is probe and not network.training and not network.layer.training
    assert probe.to("cpu") is probe and probe.double() is probe
    assert network.scale.dtype == torch.float64 and probe.float() is probe
    assert [(name, id(value)) for name, value in probe.named_parameters()] == before
    probe.guidance, probe.layer = 3, torch.nn.Tanh()
    assert network.guidance == 3 and isinstance(network.layer, torch.nn.Tanh)
    assert (
        probe.layer is network.layer and probe.state_dict().keys() == network.state_dict().keys()
    )
    probe.train()
    assert network.training and probe.training and copy.deepcopy(network).training
    hooked = []
    probe.register_forward_hook(lambda *_: hooked.append(1))
    torch.nn.Sequential(probe)[0].forward(torch.randn(4, 1, 4, 4), 60)
    assert hooked == [1] and probe._calls == 1


@pytest.mark.parametrize(
    ("layer", "train", "want"),
    [
        (torch.nn.Identity, True, None),
        (lambda: torch.nn.BatchNorm2d(1), True, "denoiser-train-mode"),
        (lambda: torch.nn.BatchNorm2d(1), False, None),
        (lambda: torch.nn.Dropout(0.1), True, "denoiser-random"),
        (lambda: torch.nn.Dropout(0.1), False, None),
    ],
)
def test_a_network_in_train_mode(layer, train, want):
    """Found, and neither its buffers nor the generator are moved by it.

    Kills: a normalisation over the batch that nobody sees, running means that the probe moves.
    """
    network = Network(dataset(), layer).train(train)
    torch.manual_seed(0)
    probe = Probe(network, EXACT, answer="eps")
    end = zoo.sampler(zoo.programs()["ddim"].source, EXACT)(probe, (12, 1, 4, 4)).detach()
    buffers = [value.clone() for value in network.buffers()]
    state = torch.get_rng_state()
    probe.finish(end)
    assert torch.equal(torch.get_rng_state(), state) and network.training == train
    assert all(torch.equal(a, b) for a, b in zip(buffers, network.buffers(), strict=True))
    seen = {finding.id for finding in probe.findings} & {"denoiser-train-mode", "denoiser-random"}
    assert seen == ({want} if want else set())


@pytest.mark.parametrize(
    ("program", "fault", "want"),
    [
        ("ddpm", "noise-in-the-last-step", ("noise-last-step", "error")),
        ("ddpm", "half-precision", ("half-precision", "warning")),
        ("ddpm", "half-noise", ("noise-scale", "error")),
    ],
)
def test_faults_of_the_loop(program, fault, want):
    """Kills: a last step that is not looked at, a narrow type that passes."""
    exact = dataset()
    source = zoo.mutate(program, fault)
    probe, _ = run_of(source, lambda x, t: exact(x.float(), t).to(x.dtype), end=torch.Tensor.float)
    assert want in [(finding.id, finding.severity) for finding in probe.findings]


@pytest.mark.parametrize(
    "end",
    [
        lambda x: ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8),
        lambda x: ((x + 1) / 2).clamp(0, 1),
        lambda x: ((x + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy(),
        lambda x: list(
            ((x.permute(0, 2, 3, 1).numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
        ),
    ],
    ids=["uint8", "0…1", "channels last", "list"],
)
def test_pictures_at_the_end(end):
    """Taken back to x_0, and said. Kills: a run whose samples lie in 0…255 or 0…1."""
    source = zoo.programs()["ddim"].source
    _, plain = run_of(source, dataset())
    probe, run = run_of(source, dataset(), end=end)
    np.testing.assert_allclose(
        run.dataset["samples"].values.clip(-1, 1),
        plain.dataset["samples"].values.clip(-1, 1),
        atol=0.006,
    )
    assert run.spec.arms == plain.spec.arms and errors(probe) == []
    assert "pictures-returned" in [finding.id for finding in probe.findings]


def test_data_of_another_range():
    """Data in 0…255 hide under no noise. Kills: pictures at the end suspected instead."""
    points = (dataset().law.points.reshape(30, 1, 4, 4) + 1) * 127.5
    probe, run = run_of(zoo.programs()["ddim"].source, DatasetDenoiser(EXACT, points))
    assert errors(probe)[0] == "data-range"
    assert float(run.dataset["samples"].max()) > 200
    _, run = run_of(zoo.programs()["ddim"].source, DatasetDenoiser(EXACT, points / 255))
    assert -0.1 < float(run.dataset["samples"].min()) < float(run.dataset["samples"].max()) < 1.1


def test_samples_that_run_away_are_of_no_other_range():
    """They lie on both sides of 0. Kills: a loop that diverges told to scale its data."""
    denoiser = dataset()
    probe, run = run_of(zoo.programs()["ddim"].source, lambda x, t: -denoiser(x, t))
    assert float(np.abs(run.dataset["samples"]).max()) > 20
    assert "data-range" not in [finding.id for finding in probe.findings]


def test_memory_stays_bounded(monkeypatch):
    """What is over the bound lies in a file. Kills: a list of all states, a step misread."""
    runs = []
    for bound in (MEMORY, 2**12):
        monkeypatch.setattr("diffviz.identify.probe.MEMORY", bound)
        runs.append(run_of(zoo.programs()["ddim"].source, dataset(), shape=(20, 1, 4, 4))[1])
    assert runs[0].dataset.drop_attrs().identical(runs[1].dataset.drop_attrs())


def test_a_run_that_can_be_saved(tmp_path):
    """Kills: a spec that is not JSON."""
    _, run = run_of(zoo.programs()["ddim"].source, gaussian(), COURSE, (8, 1, 4, 4))
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
    with pytest.raises(InputError, match=r"shape of x from \(4, 1, 4, 4\) to \(3, 1, 4, 4\)"):
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
    with pytest.raises(InputError, match="answer is 'noise'; allowed are 'auto', eps, x0, v, -v"):
        Probe(gaussian(), COURSE, answer="noise")
    with pytest.raises(InputError, match="loop called its model without t; allowed is model"):
        Probe(gaussian(), COURSE)(torch.randn(4, 1, 4, 4))
    with pytest.raises(
        InputError, match=r"loop passed torch.int64 \(3,\) as x; allowed is a float"
    ):
        Probe(gaussian(), COURSE)(torch.arange(3), 60)
    probe = Probe(gaussian(), COURSE)
    calls(probe, T - 1)  # counts from 0
    with pytest.raises(InputError, match=r"30\.5"):
        calls(probe, 30.5)
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
