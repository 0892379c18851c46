"""The x-ray against samplers whose rule and faults are known."""

import gc
import random
import signal
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffviz.diffusion.rules import ddim, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.xray import xray
from diffviz.testing import assert_sampler
from tests import zoo

SHAPE = (16, 3, 8, 8)
T = 100


def schedule_for(name, T=T):
    return NoiseSchedule.course(T) if "tutorial" in name else NoiseSchedule.linear(T)


def look(name, make, seed=0, shape=SHAPE, schedule=None):
    schedule = schedule or schedule_for(name)
    torch.manual_seed(seed)
    return xray(make(schedule, shape), schedule, seed=seed)


@pytest.mark.parametrize("name", zoo.FAULTY)
def test_every_fault_is_named_first(name):
    """Kills: any test of the verdict left out, weakened, or put after one of its consequences."""
    want, make = zoo.FAULTY[name]
    seen = look(name, make)
    assert seen.findings, f"nothing found; rule {seen.rule}"
    assert seen.findings[0].id == want, [f.message for f in seen.findings]
    assert all(f.text("en") and f.text("zh") for f in seen.findings)  # every field has its value


@pytest.mark.parametrize("name", zoo.CORRECT)
def test_correct_samplers_are_named_and_not_blamed(name):
    """Kills: a threshold without its correction, a floor that ignores float32 tables."""
    rules, make = zoo.CORRECT[name]
    for seed in range(2):
        seen = look(name, make, seed)
        assert [f.message for f in seen.findings] == []
        assert seen.rule in rules


@pytest.mark.parametrize(
    "schedule",
    [
        NoiseSchedule.course(T),
        NoiseSchedule.cosine(T),
        NoiseSchedule.scaled_linear(80, 0.01, 0.2),
        NoiseSchedule.linear(45, 1e-3, 0.3),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "name", ["ddpm, float32 tables", "ddim(eta=0.5)", "euler ancestral, eps", "dpm-solver++(2m)"]
)
def test_other_schedules(schedule, name):
    """σ_T from 2.5 to 20,000. Kills: a state that grows until float32 swallows its noise."""
    rules, make = zoo.CORRECT[name]
    seen = look(name, make, schedule=schedule)
    assert (seen.findings, seen.rule in rules) == ((), True)


@pytest.mark.parametrize(("scale", "found"), [(1.0, []), (0.9, ["noise-scale"])])
def test_alphas_that_are_ratios_of_the_course_are_right_too(scale, found):
    """The course's ᾱ_1 is not its α_1, and a loop that takes α_t = ᾱ_t/ᾱ_{t−1} ends at x̂_0.

    Kills: only one of the two last steps allowed.
    """
    schedule = NoiseSchedule.course(T)
    bars = torch.tensor(schedule.alpha_bars, dtype=torch.float32)

    def sampler(model):
        x = torch.randn(SHAPE)
        for i in range(T, 0, -1):
            alpha = bars[i] / bars[i - 1]
            eps = model(x, i)
            x = (x - (1 - alpha) / (1 - bars[i]).sqrt() * eps) / alpha.sqrt()
            if i > 1:
                x = x + scale * (1 - alpha).sqrt() * torch.randn_like(x)
        return x

    torch.manual_seed(0)
    seen = xray(sampler, schedule)
    assert ([f.id for f in seen.findings], seen.rule) == (found, "ddpm/beta")


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("ddpm, index", []),
        ("no noise", ["noise-missing"]),
        ("one noise for the whole batch", ["noise-shared-in-batch"]),
        ("5 % more noise", ["noise-scale"]),
    ],
)
def test_rows_of_numbers(name, want):
    """States without pixels. Kills: shared rows taken for columns that go together."""
    seen = look(name, (zoo.CORRECT | zoo.FAULTY)[name][1], shape=(400, 8))
    assert [f.id for f in seen.findings][:1] == want


def _steps(schedule, change=lambda numbers: numbers, draw=torch.randn_like):
    """DDPM in float64 with its (a, b, σ) changed."""

    def sampler(model):
        x = torch.randn(SHAPE)
        for i in range(schedule.T, 0, -1):
            a, b, std = change(ddpm("beta").coefficients(schedule, i, i - 1))
            x = (a * x.double() + b * model(x, i).double() + std * draw(x)).float()
        return x

    return sampler


def test_noise_that_comes_again_hides_nothing():
    """Both runs draw the same noise, so a and b are known to rounding under it, from the second
    step on. Kills: the noise of one run taken for an error."""
    schedule = NoiseSchedule.linear(T)
    torch.manual_seed(3)
    seen = xray(_steps(schedule), schedule).coefficients
    true = np.array([ddpm("beta").coefficients(schedule, i, i - 1) for i in range(T, 0, -1)])
    for k, name in enumerate(("x", "eps")):
        away, error = np.abs(seen[name].values - true[:, k]), seen[f"{name}_error"].values
        assert (away[1:] < 1e-6).all() and (away < 4 * error).all()
        assert (error[1:] < 2e-4).all()  # noise alone leaves 0.0005 to 0.02


LINEAR = NoiseSchedule.linear(60, 1e-3, 0.1)


def through_x0(clip=False, noise=torch.randn_like, end=lambda x: x, hand=lambda x: x):
    """DDPM written as x̂_0 and the posterior mean, every table in float32."""

    def sampler(model):
        b, a, ab = (
            torch.tensor(v, dtype=torch.float32)
            for v in (LINEAR.betas, LINEAR.alphas, LINEAR.alpha_bars)
        )
        x = torch.randn(SHAPE)
        for i in range(60, 0, -1):
            x0 = (x - (1 - ab[i]).sqrt() * model(hand(x), i).float()) / ab[i].sqrt()
            x0 = x0.clamp(-1, 1) if clip else x0
            mean = b[i] * ab[i - 1].sqrt() / (1 - ab[i]) * x0
            mean = mean + (1 - ab[i - 1]) * a[i].sqrt() / (1 - ab[i]) * x
            x = mean + b[i].sqrt() * noise(x) * (i > 1)
        return end(x)

    return sampler


def seeded(x):
    torch.manual_seed(42)
    return torch.randn_like(x)


def half_of_them(x):
    return torch.cat([torch.randn_like(x[:8]), torch.zeros_like(x[8:])])


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, []),
        ({"hand": lambda x: x.half()}, ["half-precision"]),
        ({"clip": True}, ["x0-clipped"]),
        ({"clip": True, "noise": torch.rand_like}, ["noise-not-normal", "x0-clipped"]),
        ({"clip": True, "noise": seeded}, ["noise-reused-across-steps", "x0-clipped"]),
        ({"noise": half_of_them}, ["noise-not-normal"]),
        ({"end": lambda x: 5000 * x}, ["x-coefficient"]),
        ({"end": torch.zeros_like}, ["x-coefficient"]),
    ],
)
def test_a_fault_among_roundings_and_clipping(changes, want):
    """Kills: 1 − ᾱ_1 in float32 taken for a coefficient; the rounding of what the model is handed
    for noise; a fault hidden by clipping; samples without noise that share their errors; a last
    step that is not looked at because x grew in it; a singular covariance."""
    for seed in range(2):
        torch.manual_seed(seed)
        found = [f.id for f in xray(through_x0(**changes), LINEAR, seed=seed).findings]
        assert found == want or (want == ["x-coefficient"] and found[0] == want[0]), seed


def test_images_for_the_screen_are_no_error():
    """(x + 1)/2 of the last state is how images are shown; another map is a fault. Kills: an error
    for every loop that returns images in [0, 1]; a change of range inside the loop let pass."""
    for end, severity in ((lambda x: (x + 1) / 2, "warning"), (lambda x: (x + 1) / 3, "error")):
        torch.manual_seed(0)
        found = xray(through_x0(end=end), LINEAR).findings
        assert {(f.id, f.severity) for f in found} == {
            ("x-coefficient", severity),
            ("bias", severity),
        }


def test_noise_in_the_last_step_of_the_course():
    """Its α_1 is not ᾱ_1/ᾱ_0, and with noise at t = 1 both leave that step out. Kills: the other
    writing preferred, which makes two coefficients wrong as well."""
    schedule = NoiseSchedule.course(60, 1e-3, 0.1)

    def sampler(model):
        x = torch.randn(SHAPE)
        for i in range(60, 0, -1):
            a, b, _ = ddpm().coefficients(schedule, i, i - 1)
            x = a * x + b * model(x, i) + schedule.betas[i] ** 0.5 * torch.randn_like(x)
        return x

    for seed in range(3):
        torch.manual_seed(seed)
        found = [f.id for f in xray(sampler, schedule, seed=seed).findings]
        assert found == ["noise-last-step"]


def test_noise_that_goes_round_in_the_batch():
    """Drawn once, and every step hands it to another sample: x_t holds it, so the samples seem to
    go together, weakly. Kills: the consequence named for its cause."""
    schedule = NoiseSchedule.linear(60, 1e-3, 0.3)

    def sampler(model):
        x, bank = torch.randn(SHAPE), torch.randn(SHAPE)
        for i in range(60, 0, -1):
            a, b, std = ddpm().coefficients(schedule, i, i - 1)
            x = a * x + b * model(x, i) + std * bank.roll(i, 0)
        return x

    for seed in range(5):
        torch.manual_seed(seed)
        seen = xray(sampler, schedule)
        assert [f.id for f in seen.findings] == ["noise-reused-across-steps"]
        assert seen.rule == "ddpm/beta"


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (lambda n: (n[0], n[1] / n[0], n[2]), "eps-coefficient"),  # not divided by √α
        (lambda n: (n[0] * 1.0001, n[1], n[2]), "x-coefficient"),
        (lambda n: (n[0], n[1] * 0.999, n[2]), "eps-coefficient"),
    ],
)
def test_faults_smaller_than_the_noise(change, want):
    """Kills: a comparison of the two runs that is left out."""
    schedule = NoiseSchedule.linear(T)
    torch.manual_seed(0)
    seen = xray(_steps(schedule, change), schedule)
    assert [f.id for f in seen.findings] == [want]


@pytest.mark.parametrize("scale", [1.0, 0.9])
def test_noise_of_a_generator_that_goes_on(scale):
    """Other noise in the second run. Kills: a difference of runs believed without a look."""
    schedule = NoiseSchedule.linear(T)
    generator = torch.Generator().manual_seed(0)
    draw = lambda x: scale * torch.randn(x.shape, generator=generator)  # noqa: E731
    seen = xray(_steps(schedule, draw=draw), schedule)
    assert [f.id for f in seen.findings] == [[], ["noise-scale"]][scale < 1]
    assert seen.rule == "ddpm/beta"
    assert (seen.coefficients.x_error[:-1] > 1e-4).all()


def test_betas_that_are_clipped():
    """A schedule that leaves the right one at a few steps only. Kills: each of a, b and σ taken
    for a mistake of its own."""
    schedule = NoiseSchedule.cosine(50)
    other = NoiseSchedule.from_betas(np.minimum(schedule.betas[1:], 0.3))
    torch.manual_seed(0)
    seen = xray(_steps(other), schedule)
    assert ([f.id for f in seen.findings], seen.rule) == (["schedule-mismatch"], "ddpm/beta")


def test_an_answer_that_is_kept_for_ever():
    """Kills: what comes again at every step taken for noise."""
    schedule = NoiseSchedule.linear(40, 2.5e-3, 0.4)

    def sampler(model):
        x, kept = torch.randn(SHAPE), None
        for i in range(40, 0, -1):
            a, b, std = ddpm("beta").coefficients(schedule, i, i - 1)
            answer = model(x, i)
            kept = answer if kept is None else kept
            x = a * x + b * kept + std * torch.randn_like(x)
        return x

    torch.manual_seed(0)
    assert [f.id for f in xray(sampler, schedule).findings] == ["eps-coefficient"]


def test_states_that_change_their_size_between_runs():
    """Kills: a comparison of two runs that breaks off with an error of numpy."""
    sizes, schedule = iter([4, 5, 6]), NoiseSchedule.linear(20)

    def sampler(model):
        x = torch.randn(next(sizes), 3, 4, 4)
        for i in range(20, 0, -1):
            a, b, _ = ddim(0.0).coefficients(schedule, i, i - 1)
            x = a * x + b * model(x, i)
        return x

    with pytest.raises(InputError, match="held 192 values once and 240 the next time"):
        xray(sampler, schedule)


def test_no_answer_is_held():
    """Each is free when its step is over, so memory does not grow with T. Kills: an answer that
    holds a view of itself, which no collector frees."""
    schedule, held = NoiseSchedule.linear(20), []

    def sampler(model):
        x = torch.randn(SHAPE)
        for i in range(20, 0, -1):
            answer = model(x, i)
            held.extend([weakref.ref(answer), weakref.ref(answer.sample)])
            a, b, _ = ddim(0.0).coefficients(schedule, i, i - 1)
            x = a * x + b * answer
        return x

    gc.disable()
    try:
        xray(sampler, schedule)
    finally:
        gc.enable()
    assert [answer() for answer in held] == [None] * 80


def test_half_precision_states():
    """Rounding to bfloat16 is not a fault. Kills: a floor for float32 only."""
    schedule = NoiseSchedule.linear(50, 1e-3, 0.2)

    def sampler(model):
        x = torch.randn(SHAPE).bfloat16()
        for i in range(50, 0, -1):
            a, b, _ = ddim(0.0).coefficients(schedule, i, i - 1)
            x = a * x + b * model(x, i)
        return x

    torch.manual_seed(0)
    seen = xray(sampler, schedule)
    assert seen.rule == "ddim(eta=0)"
    assert [(f.id, f.severity) for f in seen.findings] == [("half-precision", "information")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", zoo.CORRECT)
def test_false_alarms_over_1000_seeds(name):
    """1,000 seeds of every correct sampler; errors are family-wise, one run in 100,000.

    Two alarms of one sampler have a chance of 5e-5, and more than 5 of all together one of 1e-6.
    """
    make = zoo.CORRECT[name][1]
    course = "tutorial" in name
    schedule = (NoiseSchedule.course if course else NoiseSchedule.linear)(40, 2.5e-3, 0.4)
    alarms = []
    for seed in range(1000):
        seen = look(name, make, seed, (8, 1, 4, 4), schedule)
        alarms += [(seed, f.id) for f in seen.findings if f.severity == "error"]
    assert len(alarms) <= 1, alarms


@pytest.mark.parametrize(
    ("rule", "make", "steps"),
    [
        (ddpm("beta"), zoo.ddpm(), None),
        (ddpm("posterior"), zoo.ddpm(std=zoo.posterior), None),
        (ddim(0.5), zoo.ddim(0.5), None),
        (ddim(0.0), zoo.ddim(0.0, n=20), 20),
    ],
)
def test_coefficients_are_those_of_the_rule(rule, make, steps):
    """Within 4 standard errors, and to 1e-6 where nothing is drawn.

    Kills: an x-ray that looks them up instead of measuring them, errors without the 1/√n, the
    feedback of the scripted answer left in the coefficient of x.
    """
    schedule = NoiseSchedule.linear(T)
    torch.manual_seed(0)
    table = xray(make(schedule, SHAPE), schedule).coefficients
    times = schedule.times(steps)
    pairs = zip(times[:-1].tolist(), times[1:].tolist(), strict=True)
    truth = np.array([rule.coefficients(schedule, t, s) for t, s in pairs])
    assert np.array_equal(table["t"], times[:-1]) and np.array_equal(table["s"], times[1:])
    for k, name in enumerate(("x", "eps", "std")):
        gap = np.abs(table[name].values - truth[:, k])
        assert (gap < np.maximum(4.2 * table[f"{name}_error"].values, 1e-6)).all(), name
        quiet = truth[:, 2] == 0
        assert (gap[quiet] < 1e-6).all(), name


@settings(max_examples=6, deadline=None)
@given(last=st.floats(0.022, 0.03), noisy=st.booleans(), seed=st.integers(0, 2**20))
def test_coefficients_beside_clipping(last, noisy, seed):
    """An x̂_0 made with the α of another schedule is clipped even for answers from inside; what the
    loop does to values that are not clipped is known to rounding all the same, with noise and
    without. Kills: the plane of the clipped values taken for that of the others; a regression over
    both; the noise taken from clipped values, or its error from all."""
    other = NoiseSchedule.linear(T, 1e-4, last)

    rule = ddpm("posterior") if noisy else ddim(0.0)
    make = zoo.clipping(zoo.unit) if noisy else zoo.ddim(0.0, clip=zoo.unit)
    loop = make(other, SHAPE)
    torch.manual_seed(seed)
    seen = xray(loop, NoiseSchedule.linear(T), seed=seed)
    assert [f.id for f in seen.findings] == ["schedule-mismatch", "not-linear"]
    truth = np.array([rule.coefficients(other, t, t - 1) for t in range(T, 0, -1)])
    table = seen.coefficients
    for k, name in enumerate(("x", "eps")):
        gap = np.abs(table[name].values - truth[:, k])
        assert np.nanmax(gap) < 2e-5 and np.isfinite(gap).mean() > 0.5
    if noisy:
        gap = table["std"].values[:-1] - truth[:-1, 2]
        assert np.nanmax(np.abs(gap) / table["std_error"].values[:-1]) < 5
    assert np.isnan(table["noise_ks"]).all()  # clipping is in what the regression leaves over


@pytest.mark.parametrize("rule", [ddpm("beta"), ddpm("posterior"), ddim(0.5)])
def test_errors_are_standard_errors(rule):
    """Where the noise of the two runs differs. Kills: errors too small or too large by a half."""
    schedule = NoiseSchedule.linear(T)
    generator = torch.Generator().manual_seed(0)

    def sampler(model):
        x = torch.randn(SHAPE)
        for i in range(T, 0, -1):
            a, b, std = rule.coefficients(schedule, i, i - 1)
            x = a * x + b * model(x, i) + std * torch.randn(SHAPE, generator=generator)
        return x

    table = xray(sampler, schedule).coefficients
    truth = np.array([rule.coefficients(schedule, t, t - 1) for t in range(T, 0, -1)])
    for k, name in enumerate(("x", "eps", "std")):
        noisy = truth[:, 2] > 0
        scores = ((table[name] - truth[:, k]) / table[f"{name}_error"]).values[noisy]
        assert np.abs(scores).max() < 4.2
        assert 0.75 < scores.std() < 1.25


def test_any_linear_step_is_read_off():
    """Coefficients that no rule has: x-ray measures, it does not recognise. Kills: a look-up."""
    schedule = NoiseSchedule.linear(10, 1e-3, 0.3)
    rng = np.random.default_rng(5)
    a, b, c, sigma = rng.uniform(0.5, 1.2, (4, 11))

    def sampler(model):
        x = torch.randn(SHAPE)
        for i in range(10, 0, -1):
            e = model(x, i)
            x = float(a[i]) * x - float(b[i]) * e + float(c[i]) + sigma[i] * torch.randn(SHAPE)
        return x

    torch.manual_seed(3)
    seen = xray(sampler, schedule)
    for name, truth in (("x", a), ("eps", -b), ("bias", c), ("std", sigma)):
        gap = seen.coefficients[name] - truth[10:0:-1]
        assert (np.abs(gap / seen.coefficients[f"{name}_error"]) < 4).all(), name


@pytest.mark.parametrize(
    ("kind", "passed"),
    [
        ("index", lambda i, T: i),
        ("index0", lambda i, T: torch.tensor([i - 1])),
        ("fraction", zoo.fraction),
        (lambda value: value / 3 + 1, lambda i, T: torch.full((4, 1, 1, 1), 3.0 * (i - 1))),
    ],
)
def test_every_way_to_pass_the_time(kind, passed):
    """Kills: a convention off by one, a tensor of some rank refused."""
    schedule = NoiseSchedule.linear(T)
    torch.manual_seed(0)
    seen = xray(zoo.ddpm(passed=passed)(schedule, SHAPE), schedule, time=kind)
    assert (seen.rule, seen.findings) == ("ddpm/beta", ())
    assert seen.coefficients["t"].values.tolist() == list(range(T, 0, -1))


def test_a_wrong_convention_is_off_by_one():
    """T−1…0 passed to a model that counts T…1. Kills: a convention guessed against orders."""
    schedule = NoiseSchedule.linear(T)
    torch.manual_seed(0)
    sampler = zoo.ddpm(passed=lambda i, T: i - 1)(schedule, SHAPE)
    assert xray(sampler, schedule, time="index").findings[0].id == "time-off-by-one"
    assert xray(sampler, schedule).findings == ()


def test_the_sampler_keeps_its_own_randomness():
    """Both runs draw what one would have drawn by itself, and so does what comes after.

    Kills: answers drawn from a global generator, a second run from another state.
    """
    schedule = NoiseSchedule.linear(20, 5e-3, 0.4)
    ends = []

    def sampler(model):
        x = zoo.ddpm(noise=lambda x, i, s: torch.randn_like(x))(schedule, SHAPE)(model)
        ends.append((torch.randn(3).tolist(), np.random.rand(), random.random()))  # noqa: NPY002
        return x

    def seed():
        torch.manual_seed(11)
        np.random.seed(11)  # noqa: NPY002
        random.seed(11)

    seed()
    xray(sampler, schedule, seed=11)
    after = torch.randn(3).tolist(), np.random.rand(), random.random()  # noqa: NPY002
    seed()
    sampler(lambda x, t: x)
    assert ends == [ends[0]] * 3
    assert after == (torch.randn(3).tolist(), np.random.rand(), random.random())  # noqa: NPY002


def test_guidance_does_not_hide_the_rule():
    """Doubled batch or two calls a step: one call. Kills: the second half taken for data."""
    schedule = NoiseSchedule.linear(T)

    def doubled(model):
        def guided(x, i):
            plain, given = model(torch.cat([x, x]), torch.full((2 * len(x),), i), c=1).chunk(2)
            return plain + 3.0 * (given - plain)

        return zoo.ddpm()(schedule, SHAPE)(guided)

    def twice(model):
        def guided(x, i):
            plain = model(x, i)
            return plain + 3.0 * (model(x, i, "a prompt") - plain)

        return zoo.ddpm()(schedule, SHAPE)(guided)

    for sampler in (doubled, twice):
        torch.manual_seed(0)
        seen = xray(sampler, schedule)
        assert (seen.rule, seen.findings, len(seen.coefficients["t"])) == ("ddpm/beta", (), T)


def test_a_second_argument_is_the_shape():
    """Kills: ``shape`` without effect."""
    schedule = NoiseSchedule.linear(20, 5e-3, 0.4)
    shapes = []

    def sampler(model, shape):
        shapes.append(shape)
        return zoo.ddpm()(schedule, shape)(model)

    torch.manual_seed(0)
    assert xray(sampler, schedule, shape=(8, 1, 6, 6)).findings == ()
    assert shapes == [(8, 1, 6, 6)] * 2


def loop(end=None, change=None):
    def sampler(model):
        x = torch.randn(4, 2)
        for i in range(20, 0, -1):
            x = 0.9 * x + 0.1 * model(x, i)
            if change is not None and i == 7:
                x = change(x)
        return x if end is None else end(x)

    return sampler


def endless(model):
    x = torch.randn(4, 2)
    while True:
        x = 0.5 * x + 0.1 * model(x, 3)


def forever(model):
    x = model(torch.randn(4, 2), 3)
    while True:
        x = x + 1


def asleep(model):
    time.sleep(600)


def catching(model):
    try:
        return endless(model)
    except Exception:
        return torch.zeros(4, 2)


def stubborn(model):
    while True:
        try:
            model(torch.randn(4, 2), 3)
            time.sleep(0.01)
        except BaseException:
            pass


def deaf(model):
    while True:
        try:
            time.sleep(600)
        except BaseException:
            model(torch.randn(4, 2), 3)


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (lambda model: torch.zeros(4, 2), "never called its model"),
        (loop(end=lambda x: None), "returned NoneType after its last step at t = 1"),
        (loop(end=lambda x: x[:2]), r"from \(4, 2\) to \(2, 2\) at the end"),
        (loop(change=lambda x: x[:3]), r"from \(4, 2\) to \(3, 2\) at t = 6"),
        (
            loop(change=lambda x: 1 / 0),
            r"raised ZeroDivisionError: .*; its last call, number 14, was at t = 7",
        ),
        (lambda model: 1 / 0, "raised ZeroDivisionError: .* had not called its model yet"),
        (lambda model: model(torch.zeros(4, 2), "noon"), "passed 'noon' as t"),
        (lambda model: model(torch.zeros(4, 2), torch.tensor([1, 2])), "differ"),
        (loop(), "hold 8 values; allowed are 64 or more"),
        (endless, "called its model 1200 times and did not end"),
        (catching, "called its model 1200 times and did not end"),
        (forever, "within 1 s; its last call, number 1, was at t = 3"),
        (stubborn, "within 1 s; its last call"),
        (deaf, "within 1 s; its last call"),
        (asleep, "within 1 s; it had not called its model yet"),
        (loop(change=lambda x: x.int()), "x of type torch.int32 at t = 6"),
        (lambda model: model(torch.zeros(()), 3), "x of type Tensor"),
        (lambda model: model(None, 3), "x of type NoneType at t = 3"),
        (lambda model: model(torch.zeros(4, 2), float("nan")), "passed nan as t"),
    ],
)
def test_no_sampler_at_all(sampler, words):
    """One clear line that names the step. Kills: a traceback, a hang, a stop that is swallowed."""
    with pytest.raises(InputError, match=words) as caught:
        xray(
            sampler,
            NoiseSchedule.linear(20, 5e-3, 0.4),
            seconds=1 if "within 1 s" in words else 60,
        )
    assert "\n" not in str(caught.value)


def test_the_limit_holds_in_a_thread_and_leaves_no_alarm():
    """Kills: a limit by signals only, a handler or a timer that stays behind."""
    schedule = NoiseSchedule.linear(20, 5e-3, 0.4)
    before = signal.getsignal(signal.SIGALRM)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(xray, forever, schedule, seconds=0.5)
        with pytest.raises(InputError, match=r"within 0\.5 s; its last call, number 1"):
            late.result(timeout=60)
    with pytest.raises(InputError, match=r"within 0\.5 s"):
        xray(forever, schedule, seconds=0.5)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_loop_may_treat_the_model_as_a_module():
    """``eval``, the device of its parameters, ``.sample``, a tuple. Kills: a bare function."""
    schedule = NoiseSchedule.linear(20, 5e-3, 0.4)

    def sampler(model):
        model.eval()
        device = next(model.parameters()).device
        answers = (
            lambda x, i: model(x.to(device), torch.tensor(i - 1)).sample,
            lambda x, i: model(x, timestep_cond=None, t=i - 1, return_dict=False)[0],
        )
        return zoo.ddpm()(schedule, SHAPE)(lambda x, i: answers[i % 2](x, i))

    torch.manual_seed(0)
    assert (xray(sampler, schedule).rule, xray(sampler, schedule).findings) == ("ddpm/beta", ())


def test_a_loop_in_numpy():
    """Kills: arrays refused, or answered with tensors."""
    schedule, rng = NoiseSchedule.linear(20, 5e-3, 0.4), np.random.default_rng(0)

    def sampler(model):
        x = rng.standard_normal(SHAPE)
        for i in range(20, 0, -1):
            a, b, std = ddpm().coefficients(schedule, i, i - 1)
            x = a * x + b * model(x, i) + std * rng.standard_normal(SHAPE)
        return x

    assert (xray(sampler, schedule).rule, xray(sampler, schedule).findings) == ("ddpm/beta", ())


@settings(max_examples=15)
@given(scale=st.floats(0.3, 2.0), seed=st.integers(0, 2**20))
def test_the_noise_dial_is_read(scale, seed):
    """λ read from outside is λ, blamed when it is not 1. Kills: σ compared as a variance."""
    schedule = NoiseSchedule.linear(20, 5e-3, 0.4)
    torch.manual_seed(seed)
    sampler = zoo.ddpm(std=lambda b, a, ab, i: scale * b[i].sqrt())(schedule, SHAPE)
    seen = xray(sampler, schedule, seed=seed)
    ratio = (seen.coefficients["std"] / np.sqrt(schedule.betas[20:0:-1]))[:-1]
    assert abs(float(ratio.mean()) - scale) < 0.02 * scale
    if abs(scale - 1) > 0.15:
        assert seen.findings[0].id == "noise-scale"


def test_assert_sampler_says_what_is_wrong():
    """Kills: an assertion that passes whatever is found, or on another rule."""
    schedule = NoiseSchedule.linear(T)
    torch.manual_seed(0)
    assert_sampler(zoo.ddpm()(schedule, SHAPE), schedule)
    assert_sampler(zoo.ddim(1.0)(schedule, SHAPE), schedule, rule="ddim(eta=1)")
    with pytest.raises(AssertionError, match=r"not ddpm/beta:\n  noise-missing: The noise is"):
        assert_sampler(zoo.ddpm(std=lambda b, a, ab, i: 0)(schedule, SHAPE), schedule)
    with pytest.raises(AssertionError, match=r"not ddpm/beta:\n  variance-posterior-vs-beta"):
        assert_sampler(zoo.ddpm(std=zoo.posterior)(schedule, SHAPE), schedule)
    with pytest.raises(AssertionError, match=r"follows ddim\(eta=0\)"):
        assert_sampler(zoo.ddim(0.0)(schedule, SHAPE), schedule)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of diffusers itself
def test_diffusers():
    """Schedulers of Hugging Face diffusers are recognised as what they say they are."""
    diffusers = pytest.importorskip("diffusers")
    common = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    schedule = NoiseSchedule.linear(1000)

    def run(name, steps, options=None, **step):
        def sampler(model, shape):
            scheduler = getattr(diffusers, name)(**common, **(options or {}))
            scheduler.set_timesteps(steps)
            x = torch.randn(shape) * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                answer = model(scheduler.scale_model_input(x, t), t)
                x = scheduler.step(answer, t, x, **step).prev_sample
            return x

        torch.manual_seed(0)
        seen = xray(sampler, schedule, shape=(32, 3, 8, 8))
        return seen.rule, [f.id for f in seen.findings]

    free = {"clip_sample": False}
    small, large = (
        {**free, "variance_type": "fixed_small"},
        {**free, "variance_type": "fixed_large"},
    )
    assert run("DDPMScheduler", 1000, small) == ("ddpm/posterior", [])
    assert run("DDPMScheduler", 50, large) == ("ddpm/beta", [])
    assert run("DDPMScheduler", 50, {"clip_sample": True})[1] == ["x0-clipped"]
    assert run("DDIMScheduler", 50, free) == ("ddim(eta=0)", [])
    assert run("DDIMScheduler", 50, free, eta=0.5) == ("ddim(eta=0.5)", [])
    assert run("DDIMScheduler", 50, free, eta=1.0) == ("ddpm/posterior", [])
    assert run("EulerAncestralDiscreteScheduler", 30) == ("ddpm/posterior", [])
    assert run("DPMSolverMultistepScheduler", 20) == ("dpm-solver++(2m)", [])
