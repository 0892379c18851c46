"""Findings on recorded runs: faults named, right samplers left alone, texts whole."""

import pickle

import numpy as np
import pytest
import torch

from diffviz.diagnosis.findings import Finding, diagnose
from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser, MixtureDenoiser
from diffviz.diffusion.rules import Arm, ddim, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.recording.checks import compare_answers
from diffviz.recording.record import record
from diffviz.recording.run import Run
from tests.made import RIGHT, TIMES, ending, made

SCHEDULE = NoiseSchedule.linear(100, 5e-4, 0.1)
ARMS = (
    Arm("ddpm", ddpm()),
    Arm("posterior", ddpm("posterior")),
    Arm("ddim", ddim(0.0)),
    Arm("half way", ddim(0.5)),
    Arm("z=0", ddpm(), noise_scale=0.0),
    Arm("half", ddpm(), noise_scale=0.5),
    Arm("loud", ddpm(), noise_scale=1.3),
)
CORRECT = ("ddpm", "posterior", "ddim", "half way")


def sprites(count=40):
    rng = np.random.default_rng(3)
    return rng.choice([-1.0, -0.4, 0.3, 1.0], (count, 2, 4, 4)).astype(np.float32)


DENOISERS = {
    "gaussian": lambda: GaussianDenoiser(SCHEDULE, 2.0, 0.5),
    "gaussian image": lambda: GaussianDenoiser(SCHEDULE, np.full((2, 4, 4), -0.5), 0.3),
    "mixture": lambda: MixtureDenoiser(SCHEDULE, [-1.0, 1.5], [0.2, 0.3], [0.7, 0.3]),
    "data set": lambda: DatasetDenoiser(
        SCHEDULE, sprites(), np.repeat([0, 1], 20), classes=("a", "b")
    ),
}


def ids(found, arm, severity=None):
    return [f.id for f in found if f.arm == arm and severity in (None, f.severity)]


@pytest.mark.parametrize("name", DENOISERS)
def test_noise_that_is_missing_or_wrong_is_named(name):
    """Kills: z = 0 taken for DDIM, λ read in the wrong direction, arms mixed up."""
    run = record(DENOISERS[name](), SCHEDULE, arms=ARMS, n=200, seed=1, progress=False)
    found = diagnose(run)
    assert ids(found, "z=0", "error")[0] == "noise-missing"
    assert ids(found, "half", "error")[0] == "noise-scale"
    assert ids(found, "loud", "error")[0] == "noise-scale"
    for arm in CORRECT:
        assert ids(found, arm, "error") == []
    half = next(f for f in found if f.arm == "half" and f.id == "noise-scale")
    assert half.evidence["found"] == pytest.approx(0.5, abs=0.12)  # the residual reads the dial
    assert half.t_range == (90, 20)
    severities = [f.severity for f in found]
    assert severities == sorted(severities, key=["error", "warning", "information"].index)


def test_collapse_needs_both_signs():
    """z = 0 of Gaussian data ends at the mean; DDPM of a point is as narrow and right.

    Kills: a collapse that is judged without the reference.
    """
    broad = record(GaussianDenoiser(SCHEDULE, 2.0, 0.5), SCHEDULE, n=100, progress=False)
    point = record(GaussianDenoiser(SCHEDULE, 2.0, 0.0), SCHEDULE, n=100, progress=False)
    collapse = next(f for f in diagnose(broad) if f.id == "collapse-to-mean")
    assert collapse.arm == "z=0"
    # √ᾱ_T·s²/(ᾱ_T·s² + 1 − ᾱ_T), the closed form of the final std, up to the steps' size
    bar = SCHEDULE.alpha_bars[-1]
    exact = np.sqrt(bar) * 0.25 / (bar * 0.25 + 1 - bar)
    assert collapse.evidence["found"] == pytest.approx(exact, rel=0.3)
    assert "collapse-to-mean" not in [f.id for f in diagnose(point)]


@pytest.mark.parametrize("name", ["gaussian", "data set"])
@pytest.mark.parametrize("known", [True, False])
def test_samples_that_run_away_are_named(name, known):
    """ε̂ with the other sign, whether or not the data are known; of a right one in no arm.

    Kills: an end that is compared with the data at another t, more noise taken for it.
    """
    exact = DENOISERS[name]()

    class Model:
        sample_shape, name = exact.sample_shape, "a function"
        law = exact.law if known else None

        def __init__(self, sign):
            self.sign = sign

        def __call__(self, x, t, context=None):
            return self.sign * exact(x, t, context)

    right = record(Model(1), SCHEDULE, arms=ARMS, n=16, progress=False)
    assert "samples-diverge" not in [f.id for f in diagnose(right)]
    wrong = record(Model(-1), SCHEDULE, arms=ARMS, n=16, progress=False)
    found = [f for f in diagnose(wrong) if f.id == "samples-diverge"]
    assert [f.arm for f in found] == [arm.name for arm in ARMS]
    assert {f.severity for f in found} == {"error" if known else "warning"}
    end = wrong.dataset["samples"].values.astype(np.float64)[0]
    middle = exact.law.mean if known else 0.0
    assert found[0].evidence["found"] == pytest.approx(np.sqrt(np.mean((end - middle) ** 2)))
    assert found[0].t_range[1] == 0


def test_a_lost_mode_is_counted():
    """z = 0 falls into one mode. Kills: the shares of samples and data exchanged."""
    run = record(DENOISERS["mixture"](), SCHEDULE, n=200, seed=0, progress=False)
    found = [f for f in diagnose(run) if f.id == "mode-lost"]
    assert {f.arm for f in found} == {"z=0"}
    assert found[0].evidence["found"] < 0.1
    assert found[0].evidence["expected"] == pytest.approx(0.3)


def test_an_inexact_denoiser_shows_in_the_residual():
    """ε̂ too small by a tenth leaves noise behind. Kills: `residual-off` for λ ≠ 1 only."""
    exact = GaussianDenoiser(SCHEDULE, np.zeros((1, 8, 8)), 0.5)

    class Weak:
        sample_shape, law, name = exact.sample_shape, exact.law, "weak"

        def __call__(self, x, t, context=None):
            return 0.85 * exact(x, t)

    arms = (Arm("ddpm", ddpm()),)
    found = diagnose(record(Weak(), SCHEDULE, arms=arms, n=100, progress=False))
    assert "residual-off" in ids(found, "ddpm", "warning")
    assert ids(diagnose(record(exact, SCHEDULE, arms=arms, n=100, progress=False)), "ddpm") == []


class Around:
    """An exact denoiser with something done to its answer: ``change(answer, x)``."""

    name = "around"

    def __init__(self, exact, change):
        self.exact, self.change = exact, change
        self.sample_shape, self.law = exact.sample_shape, exact.law

    def __call__(self, x, t, context=None):
        return self.change(self.exact(x, t), x)


BAD_ANSWERS = {
    "dropout": (lambda eps, x: torch.nn.functional.dropout(eps, 0.1), ["denoiser-random"]),
    "noise": (lambda eps, x: eps + 0.05 * torch.randn_like(eps), ["denoiser-random"]),
    "batch": (lambda eps, x: eps - 0.5 * x.mean(0), ["denoiser-train-mode"]),
    "both": (
        lambda eps, x: torch.nn.functional.dropout(eps - 0.5 * x.mean(0), 0.1),
        ["denoiser-random", "denoiser-train-mode"],
    ),
}


def without_root(exact, schedule):
    """Exact for x_t = √ᾱ x_0 + (1−ᾱ) ε: then x_t/c has ᾱ' = ᾱ/c² with c² = ᾱ + (1−ᾱ)²."""
    bars = schedule.alpha_bars
    c = np.sqrt(bars + (1 - bars) ** 2)
    other = bars / c**2
    alphas = np.append(1, other[1:] / other[:-1])
    inner = exact(NoiseSchedule(1 - alphas, alphas, other))
    return lambda x, t, context=None: inner(x / float(c[t]), t).clamp(-4, 4)


FORMULA = {
    "gaussian": (lambda s: GaussianDenoiser(s, 2.0, 0.5), 3000, ()),
    "narrow": (lambda s: GaussianDenoiser(s, 0.0, 0.1), 3000, ()),
    "images": (lambda s: DatasetDenoiser(s, sprites()), 64, (2, 4, 4)),
}


@pytest.mark.parametrize(
    "schedule", [SCHEDULE, NoiseSchedule.cosine(100)], ids=["linear", "cosine"]
)
@pytest.mark.parametrize("name", FORMULA)
def test_a_root_missing_in_training_is_named(name, schedule):
    """Kills: the residual asked instead, a dip of any denoiser taken for this one."""
    make, n, shape = FORMULA[name]
    arms = [Arm("ddpm", ddpm()), Arm("posterior", ddpm("posterior")), Arm("z=0", ddpm(), 0.0)]

    def found(denoiser, arms=arms, steps=None):
        run = record(
            denoiser, schedule, arms=arms, n=n, seed=5, steps=steps, sample_shape=shape,
            progress=False,
        )  # fmt: skip
        return [f.arm for f in diagnose(run) if f.id == "perturbation-formula"]

    exact = make(schedule)
    wrong = without_root(make, schedule)
    assert found(wrong) == ["ddpm"]
    assert found(wrong, [arms[0], Arm("ddim", ddim())]) == [""]
    # A network that is merely small leaves up to 0.08 of the variance out, under DDIM.
    mild = lambda x, t, context=None: 0.9 * exact(x, t) + 0.1 * wrong(x, t)  # noqa: E731
    assert found(mild) == found(mild, [Arm("ddim", ddim())]) == []
    for factor in (0.8, 1.0, 1.2):  # wrong at every t alike, or right
        scaled = lambda x, t, context=None, k=factor: k * exact(x, t)  # noqa: E731
        assert found(scaled) == found(scaled, [Arm("ddim", ddim())]) == []
    for steps in (10, 25, 50):  # a right denoiser, with what large steps leave
        assert found(lambda x, t, context=None: exact(x, t), steps=steps) == []


@pytest.mark.parametrize("how", BAD_ANSWERS)
@pytest.mark.parametrize("name", ["gaussian", "gaussian image"])
def test_a_denoiser_that_is_no_function_of_one_sample_is_named(name, how):
    """Dropout, noise, and a mean over the batch, alone and together, of numbers and of images.

    Kills: randomness taken for dependence on the batch, either check left out, global draws
    used up.
    """
    change, wanted = BAD_ANSWERS[how]
    for seed in range(2):
        torch.manual_seed(seed)
        model = Around(DENOISERS[name](), change)
        run = record(model, SCHEDULE, n=16, steps=20, seed=seed, progress=False)
        before = torch.get_rng_state()
        compare_answers(lambda model=model: model, model.sample_shape, 100, seed)
        assert torch.equal(torch.get_rng_state(), before)
        found = [f for f in diagnose(run) if f.id.startswith("denoiser")]
        assert sorted(f.id for f in found) == wanted
        assert {f.arm for f in found} == {""}  # once, not once per arm


@pytest.mark.parametrize("name", DENOISERS)
def test_exact_denoisers_answer_the_same(name):
    """Of every seed and n, to the last of four decimals. Kills: answers to different questions."""
    for n, steps in ((4, 34), (64, 10), (1024, 5)):
        for seed in range(1):
            run = record(DENOISERS[name](), SCHEDULE, n=n, steps=steps, seed=seed, progress=False)
            for what in ("answer_repeat_difference", "answer_batch_difference"):
                assert run.dataset[what].values.tolist() == [0, 0, 0]


def test_a_short_recording_is_not_asked_twice():
    """Its few calls are not made many. Kills: a question whose price is not looked at."""
    calls = []
    model = Around(DENOISERS["gaussian"](), lambda eps, x: calls.append(1) or eps)
    run = record(model, SCHEDULE, n=4, steps=10, progress=False)
    assert len(calls) == 10 and np.isnan(run.dataset["answer_repeat_difference"]).all()


def test_signal_at_the_end_of_the_schedule():
    """√ᾱ_T = 0.08 is worth a word, 0.006 is not. Kills: ᾱ_T compared, or
    told, without its root."""
    for schedule, there in (
        (NoiseSchedule.linear(500), True),
        (NoiseSchedule.linear(1000), False),
    ):
        denoiser = GaussianDenoiser(schedule, 0.0, 1.0)
        run = record(denoiser, schedule, arms=ARMS[:1], n=4, steps=5, progress=False)
        found = [f for f in diagnose(run) if f.id == "terminal-mismatch"]
        assert [f.severity for f in found] == ["information"] * there
        bar = schedule.alpha_bars[-1]
        told = [(f.evidence["found"], f.evidence["alpha_bar"]) for f in found]
        assert told == [(pytest.approx(np.sqrt(bar)), pytest.approx(bar))] * there


def test_a_collapse_is_not_chance():
    """Three samples differ by so little now and then. Kills: collapse without a test of chance."""
    narrow = {"std_between": ("b", ending(0.2)), "distance_to_mean": ("b", 0.7 * RIGHT)}
    for n, there in ((3, False), (200, True)):
        found = diagnose(made(["a", "b"], n=n, **narrow))
        spans = [f.t_range for f in found if (f.id, f.arm) == ("collapse-to-mean", "b")]
        assert spans == [(0, 0)] * there
        assert "collapse-to-mean" not in ids(found, "a")


def test_a_mode_is_lost_below_half_of_its_share():
    """Kills: any significant deviation called a loss; the share of the other class."""
    for counts, there in (
        ([5500, 4500], False),
        ([6500, 3500], False),
        ([8000, 2000], True),
        ([10, 0], False),
    ):
        run = made(["a", "b"], n=sum(counts), class_count=("b", counts))
        found = [f for f in diagnose(run) if f.id == "mode-lost" and f.arm == "b"]
        assert bool(found) == there
        assert not there or (found[0].evidence["mode"], found[0].evidence["found"]) == (
            "other",
            0.2,
        )


def test_d_between_bounds_counts_from_below():
    """Merged blocks know D ± error. Kills: the upper bound taken for the distance."""
    off = np.where((TIMES > 20) & (TIMES < 80), 0.5, 0.01)
    run = made(["a", "b"], ks_marginal=("b", off))
    (found,) = [f for f in diagnose(run) if f.id == "marginal-off"]
    assert (found.arm, found.t_range, found.evidence["found"]) == ("b", (79, 21), 0.5)
    run.dataset["ks_marginal_error"].loc[{"arm": "b"}] = 0.1
    (found,) = [f for f in diagnose(run) if f.id == "marginal-off"]
    assert found.evidence["found"] == 0.4
    run.dataset["ks_marginal_error"].loc[{"arm": "b"}] = 0.4
    assert "marginal-off" not in [f.id for f in diagnose(run)]


def altered(run, **values):
    return Run(run.dataset.assign({k: (run.dataset[k].dims, v) for k, v in values.items()}))


def test_faults_of_the_record_itself():
    """NaN and a wrong start are read from the numbers. Kills: NaN compared as 'not larger'."""
    arms = ARMS[:1]
    run = record(DENOISERS["gaussian"](), SCHEDULE, arms=arms, n=500, progress=False)
    mean = run.dataset["mean"].values.copy()
    mean[0, 0, 60:] = np.nan
    found = diagnose(altered(run, mean=mean))
    assert [(f.id, f.t_range) for f in found if f.arm] == [
        ("nonfinite", (41, 0))
    ]  # the step that gives x_40
    std = run.dataset["std"].values.copy()
    std[0, 0, 0] = 1.4
    assert ids(diagnose(altered(run, std=std)), "ddpm", "error") == ["start-not-normal"]


def test_a_finding_is_a_value():
    """Frozen, hashable, through a pickle and back. Kills: evidence that can be changed."""
    evidence = {"mode": "b", "found": 0.0, "expected": 0.5, "p": 1e-9}
    finding = Finding("mode-lost", "error", "z=0", (0, 0), evidence)
    assert pickle.loads(pickle.dumps(finding)) == finding
    assert len({finding, pickle.loads(pickle.dumps(finding))}) == 1
    with pytest.raises(TypeError):
        finding.evidence["found"] = 1.0
    assert "b makes up 0 of the samples" in finding.message and "(z=0, t = 0)" in finding.message
    late = Finding("residual-off", "warning", "", (90, 20), {"found": 0.5})
    assert "(t = 90…20)" in late.message
    told = late.numbers("zh")
    assert told.pop("message") == late.text("zh")
    assert told == {
        "id": "residual-off",
        "severity": "warning",
        "arm": "",
        "t_range": [90, 20],
        "evidence": {"found": 0.5},
    }
    assert "丢失" in finding.text("zh")
    lost = Finding("mode-lost", "error", "z=0", (0, 0), evidence | {"mode": "hero"})
    assert "英雄 在样本中" in lost.text("zh") and "hero makes up" in lost.message
