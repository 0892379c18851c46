"""Rules and loop against exact laws: no sampling error where none is needed."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffviz.diffusion.exact import GaussianDenoiser
from diffviz.diffusion.gaussian import gaussian_trajectory
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, ddim, ddpm
from diffviz.diffusion.sampler import sample
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError

etas = st.floats(0, 1)


@st.composite
def grids(draw):
    """A valid schedule and any falling list of its times from T to 0."""
    T = draw(st.integers(2, 60))
    end = draw(st.floats(0.01, 0.3))
    schedule = NoiseSchedule.linear(T, 1e-4, end)
    inner = draw(st.sets(st.integers(1, T - 1)))
    return schedule, np.array([T, *sorted(inner, reverse=True), 0])


def push(rule, schedule, times, mean, variance, answer, scale=1.0):
    """Mean and variance of x along ``times`` when ε̂ = (x − shift_t)·slope_t, exactly."""
    out = [(mean, variance)]
    for t, s in pairwise(times):
        a, b, std = rule.coefficients(schedule, int(t), int(s))
        slope, shift = answer(int(t))
        mean = a * mean + b * slope * (mean - shift)
        variance = (a + b * slope) ** 2 * variance + (scale * std) ** 2
        out.append((mean, variance))
    return np.array(out).T


@given(grids(), etas, st.floats(-3, 3))
def test_ddim_reproduces_the_marginals_of_a_point(grid, eta, x_0):
    """Any η, any time grid: N(√ᾱ_s x_0, 1 − ᾱ_s). Kills: ᾱ_t and ᾱ_s confused, σ left out of
    √(1 − ᾱ_s − σ²), √β for σ."""
    schedule, times = grid
    bars = schedule.alpha_bars

    def answer(t):
        return 1 / np.sqrt(1 - bars[t]), np.sqrt(bars[t]) * x_0

    T = times[0]
    mean, variance = push(ddim(eta), schedule, times, np.sqrt(bars[T]) * x_0, 1 - bars[T], answer)
    np.testing.assert_allclose(mean, np.sqrt(bars[times]) * x_0, atol=1e-12)
    np.testing.assert_allclose(variance, 1 - bars[times], atol=1e-12)


@given(grids())
def test_ddpm_beta_keeps_unit_variance(grid):
    """For N(0, 1) data √β is the exact reverse std at every noisy step, also over jumps.
    Kills: √β̃, a jump that uses β_t alone, noise in the last step."""
    schedule, times = grid
    bars = schedule.alpha_bars
    _, variance = push(ddpm(), schedule, times, 0.0, 1.0, lambda t: (np.sqrt(1 - bars[t]), 0.0))
    np.testing.assert_allclose(variance[:-1], 1, atol=1e-12)
    jump = 1 - bars[times[-2]]
    assert variance[-1] == pytest.approx(1 - jump, abs=1e-12)  # the last step adds none


@given(grids())
def test_posterior_is_exact_for_a_point_and_beta_is_not(grid):
    """√β̃ keeps N(√ᾱ_s x_0, 1 − ᾱ_s) for a point (DDPM, section 3.2). Kills: the variances
    swapped."""
    schedule, times = grid
    bars = schedule.alpha_bars
    start = (0.0, 1 - bars[times[0]])

    def answer(t):
        return 1 / np.sqrt(1 - bars[t]), 0.0

    _, posterior = push(ddpm("posterior"), schedule, times, *start, answer)
    np.testing.assert_allclose(posterior, 1 - bars[times], atol=1e-9)
    if len(times) > 2:
        _, beta = push(ddpm("beta"), schedule, times, *start, answer)
        assert (beta[1:-1] > posterior[1:-1]).all()


@given(grids())
def test_ddim_at_eta_one_is_ddpm_posterior(grid):
    """DDIM section 4.1: η = 1 is the ancestral sampler with β̃. Kills: η in place of η²."""
    schedule, times = grid
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        np.testing.assert_allclose(
            ddim(1.0).coefficients(schedule, t, s),
            ddpm("posterior").coefficients(schedule, t, s),
            rtol=1e-6,
            atol=1e-9,
        )


def test_ddpm_is_the_tutorials_step():
    """Its formula, line by line, in its own float32. Kills: β for √β, a sign."""
    schedule = NoiseSchedule.course()
    g = torch.Generator().manual_seed(1)
    x, eps, z = (torch.randn(4, 3, 16, 16, generator=g) for _ in range(3))
    b_t = (0.02 - 1e-4) * torch.linspace(0, 1, 501) + 1e-4
    a_t = 1 - b_t
    ab_t = torch.cumsum(a_t.log(), dim=0).exp()
    ab_t[0] = 1
    for i in (500, 250, 20, 2, 1):
        expected = (x - eps * ((1 - a_t[i]) / (1 - ab_t[i]).sqrt())) / a_t[i].sqrt()
        expected = expected + b_t.sqrt()[i] * (z if i > 1 else 0)
        mean, std = ddpm()(schedule, x, eps, i, i - 1)
        torch.testing.assert_close(mean + std * z, expected, rtol=1e-4, atol=1e-4)


def run_arms(denoiser, schedule, arms, n, seed=0, times=None):
    g = torch.Generator().manual_seed(seed)
    x_T = torch.randn(n, *denoiser.sample_shape, generator=g)
    return list(sample(denoiser, schedule, x_T, g, arms=arms, times=times))


def test_no_noise_means_the_mean_and_arms_share_start_and_noise():
    """λ = 0 ⇒ x_next == mean to the bit; λ scales one and the same z. Kills: an arm that draws
    for itself, which unpairs them."""
    schedule = NoiseSchedule.course(30)
    arms = (Arm("one", ddpm()), Arm("z=0", ddpm(), 0.0), Arm("half", ddpm(), 0.5))
    steps = run_arms(GaussianDenoiser(schedule, 1.0, 0.5), schedule, arms, 50)
    assert torch.equal(steps[0].x[0], steps[0].x[1])
    for step in steps:
        assert torch.equal(step.x_next[1], step.mean[1]) and step.std[1] == 0
        for arm in (0, 2):
            torch.testing.assert_close(
                step.x_next[arm] - step.mean[arm], float(step.std[arm]) * step.z, atol=1e-5, rtol=0
            )
        assert step.std[2] == 0.5 * step.std[0]
    assert [step.t for step in steps] == list(range(30, 0, -1)) and steps[-1].s == 0
    assert (steps[-1].std == 0).all()  # no noise in the last step


def test_adding_an_arm_changes_no_other_arm():
    """Kills: a generator that the number of arms moves on."""
    schedule = NoiseSchedule.course(20)
    denoiser = GaussianDenoiser(schedule, 1.0, 0.5)
    alone = run_arms(denoiser, schedule, DEFAULT_ARMS[:1], 10)
    among = run_arms(denoiser, schedule, DEFAULT_ARMS, 10)
    assert torch.equal(alone[-1].x_next[0], among[-1].x_next[0])


TABLE = {
    # name: (mean of x_0, std of x_0, then std of x_t and of the residual at t = 450, 300, 100, 20)
    "ddpm": (1.9967, 0.5011, 0.9948, 1.0010, 0.9387, 1.0006, 0.6282, 1.0019, 0.5090, 0.9895),
    "ddpm/posterior": (
        *(1.9967, 0.4948, 0.9947, 1.0008, 0.9381, 0.9994),
        *(0.6254, 0.9887, 0.5038, 0.9194),
    ),
    "z=0": (1.9967, 0.0199, 0.6139, 0.6165, 0.1755, 0.1828, 0.0348, 0.0386, 0.0206, 0.0081),
    "ddpm*0.5": (1.9967, 0.2512, 0.7281, 0.7318, 0.4934, 0.5247, 0.3156, 0.5021, 0.2551, 0.4948),
    "ddpm*1.2": (1.9967, 0.6012, 1.1221, 1.1294, 1.1204, 1.1946, 0.7535, 1.2020, 0.6106, 1.1874),
    "ddim": (1.9209, 0.4990, 0.9962, 0.9400, 0.9403, 0.8083, 0.6276, 0.4094, 0.5074, 0.1075),
    "ddim(eta=1)": (
        *(1.9968, 0.4946, 0.9947, 1.0008, 0.9381, 0.9994),
        *(0.6254, 0.9887, 0.5038, 0.9194),
    ),
}


@pytest.mark.parametrize("text", TABLE)
def test_the_closed_forms_of_the_tutorials_schedule(text):
    """N(2, 0.5²), T = 500, computed apart from this code from the affine recursion, to 4 digits.
    Kills: an index off by one, √β̃ for √β, noise in the last step, a residual about x_t's mean."""
    exact = gaussian_trajectory(NoiseSchedule.course(), Arm.parse(text), 2.0, 0.5)
    found = [exact.mean[-1], exact.std[-1]]
    for t in (450, 300, 100, 20):
        found += [exact.std[500 - t], exact.residual_std[500 - t]]
    np.testing.assert_allclose(found, TABLE[text], atol=6e-5)


@given(st.floats(0.05, 2), st.floats(0.05, 2), st.integers(0, 2))
def test_the_residuals_variance_is_linear_in_the_noises(std, scale, kind):
    """r_λ² = r_0² + λ²(r_1² − r_0²) at every t, whatever the rule. Kills: λ for λ², the noise of
    one step left unscaled."""
    schedule, rule = (
        NoiseSchedule.course(60, 1e-3, 0.1),
        (ddpm(), ddpm("posterior"), ddim(0.7))[kind],
    )
    none, some, all_ = (
        gaussian_trajectory(schedule, Arm("a", rule, c), 2.0, std).residual_std[:-1] ** 2
        for c in (0.0, scale, 1.0)
    )
    np.testing.assert_allclose(some, none + scale**2 * (all_ - none), rtol=1e-9, atol=1e-12)


def test_z_zero_maps_the_start_to_its_conditional_mean():
    """In the limit of fine steps z = 0 ends with std √ᾱ_T s²/(ᾱ_T s² + 1 − ᾱ_T) (the tower
    property). Kills: half the score coefficient, which would keep the data's std."""
    schedule = NoiseSchedule.linear(5000, 1e-5, 0.002)
    bar, s = schedule.alpha_bars[-1], 0.5
    limit = np.sqrt(bar) * s**2 / (bar * s**2 + 1 - bar)
    end = gaussian_trajectory(schedule, Arm("z=0", ddpm(), 0.0), 2.0, s)
    assert end.std[-1] == pytest.approx(limit, rel=0.01)
    assert end.mean[-1] == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ddpm("fixed"), "variance is 'fixed'"),
        (lambda: ddim(1.5), "eta is 1.5"),
        (lambda: ddim(math.nan), "eta is nan"),
        (lambda: Arm("", ddpm()), "name of an arm"),
        (lambda: Arm("a\0", ddpm()), "without NUL"),
        (lambda: Arm("a", ddpm), "rule of arm 'a'"),
        (lambda: Arm("a", Own(), True), "noise scale of arm 'a' is True"),
        (lambda: Arm("a", "ddpm"), "rule of arm 'a'"),
        (lambda: Arm("a", ddpm(), -0.1), "noise scale of arm 'a' is -0.1"),
        (lambda: Arm("a", ddpm(), math.inf), "noise scale of arm 'a' is inf"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)


def test_each_sample_keeps_its_own_class_in_every_arm():
    """ε̂ tells the class that it was asked with. Kills: contexts repeated sample by sample instead
    of arm by arm, contexts of the first arm only."""
    schedule, kinds = NoiseSchedule.linear(4), torch.tensor([2, 0, 1, 1, 2])

    def tells(x, t, context=None):
        return context.argmax(dim=1).to(x)[:, None].expand_as(x)

    start = torch.zeros(5, 3)
    for step in sample(tells, schedule, start, torch.Generator(), context=torch.eye(3)[kinds]):
        for arm in range(3):
            torch.testing.assert_close(step.eps[arm, :, 0], kinds.float())


def test_a_denoiser_cannot_change_the_state():
    """Kills: a state handed out that a model can change in place."""
    schedule = NoiseSchedule.course(12)
    exact = GaussianDenoiser(schedule, 1.0, 0.5)

    def rude(x, t, context=None):
        eps = exact(x, t)
        x.mul_(0)
        return eps

    rude.sample_shape = ()
    one, two = (run_arms(model, schedule, DEFAULT_ARMS, 9)[-1] for model in (exact, rude))
    assert torch.equal(one.x_next, two.x_next)


class Own:
    """A user's rule that is not linear: DDIM on a clipped prediction."""

    name = "own"

    def __init__(self, **changed):
        self.changed = changed

    def coefficients(self, schedule, t, s):
        return self.changed.get("coefficients", ddim().coefficients(schedule, t, s))

    def __call__(self, schedule, x, eps, t, s):
        mean, std = ddim()(schedule, x, eps.clamp(-1, 1), t, s)
        return self.changed.get("mean", lambda mean: mean)(mean), std


def test_a_rule_of_ones_own_is_used_as_it_is():
    """Beside a rule of ours. Kills: coefficients used where the rule computes something else."""
    schedule = NoiseSchedule.course(10)
    arms = (Arm("own", Own()), Arm("ddim", ddim()))
    steps = run_arms(GaussianDenoiser(schedule, 1.0, 0.5), schedule, arms, 50)
    for step in steps:
        a, b, _ = ddim().coefficients(schedule, step.t, step.s)
        torch.testing.assert_close(step.mean[0], a * step.x[0] + b * step.eps[0].clamp(-1, 1))
        torch.testing.assert_close(step.mean[1], a * step.x[1] + b * step.eps[1])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Own(coefficients=(1.0, 2.0)), "has the coefficients (1.0, 2.0)"),
        (Own(coefficients=(1.0, 2.0, math.nan)), "three finite numbers"),
        (Own(coefficients=(1.0, 2.0, -0.1)), "σ ≥ 0"),
        (Own(coefficients="abc"), "has the coefficients 'abc'"),
        (Own(mean=lambda mean: mean[:1]), "gave a mean (1,) at t = 10; allowed is (4,)"),
        (Own(mean=lambda mean: None), "gave a mean NoneType"),
        (Own(mean=lambda mean: 1 / 0), "raised ZeroDivisionError at t = 10"),
    ],
)
def test_a_rule_that_returns_nonsense_is_named(rule, words):
    """Kills: a mean of another batch that is spread over all samples, an IndexError."""
    schedule = NoiseSchedule.course(10)
    with pytest.raises(InputError) as error:
        run_arms(GaussianDenoiser(schedule, 1.0, 0.5), schedule, [Arm("a", rule)], 4)
    assert words in str(error.value) and "arm 'a'" in str(error.value)


# -------------------------------------------------------------------- arms in words

scales = st.floats(0, 1e6)


@given(
    st.sampled_from([ddpm(), ddpm("posterior")]) | etas.map(ddim),
    scales | st.sampled_from([0.0, 1.0, 0.5]),
)
def test_an_arm_is_read_as_it_is_written(rule, scale):
    """parse(str(arm)) is the arm, and str(parse(text)) the text. Kills: a digit lost, an exponent
    that cannot be read, z=0 with the noise of ddpm."""
    arm = Arm("my own name", rule, scale)
    read = Arm.parse(str(arm))
    assert (read.rule, read.noise_scale) == (rule, scale)
    assert read.name == str(read) == str(arm)
    assert Arm.parse(str(read)) == read


def test_the_usual_arms_in_words():
    assert tuple(map(Arm.parse, ("ddpm", " z=0", "ddim"))) == DEFAULT_ARMS
    for arm in (
        Arm("ddpm/posterior", ddpm("posterior")),
        Arm("ddim(eta=0.5)", ddim(0.5)),
        Arm("ddpm*0.5", ddpm(), 0.5),
        Arm("ddim(eta=1)*2", ddim(1.0), 2.0),
    ):
        assert Arm.parse(arm.name) == arm
    assert Arm.parse("ddpm-posterior*2") == Arm.parse("ddpm/posterior*2")
    assert Arm.parse("ddim:0.5") == Arm.parse("ddim(eta=.5)")
    assert str(Arm.parse("ddpm/beta*1.0")) == "ddpm" and str(Arm.parse("ddpm*0")) == "z=0"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "ddpm_posterior",
            "ddim:0.5:1",
            "ddpm/fixed",
            "ddim(eta=2)",
            "ddim(eta=)",
            "ddim:",
            "ddpm*",
        ),
        *("ddpm*-1", "ddpm*nan", "z=0*2", "ddim/beta", "ddpm(eta=1)", "ddpm*1e9", "DDPM", 3, None),
    ],
)
def test_other_words_are_no_arm(text):
    with pytest.raises(InputError) as error:
        Arm.parse(text)
    assert "\n" not in str(error.value) and "allowed" in str(error.value)
