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
    np.testing.assert_allclose(mean, np.sqrt(bars[times]) * x_0, atol=1e-9)
    np.testing.assert_allclose(variance, 1 - bars[times], atol=1e-9)


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


@given(
    st.floats(-3, 3),
    st.floats(0.05, 2),
    st.integers(2, 60),
    st.floats(0, 1.5),
    st.none() | etas,
    st.integers(0, 10**6),
    st.integers(1, 20),
)
def test_sampling_follows_the_exact_recursion(mean, std, T, scale, eta, seed, steps):
    """Means and stds of 4,000 trajectories, |z| < 5.5. Kills: x for mean, a z used twice."""
    schedule = NoiseSchedule.linear(T, 1e-3, 0.1)
    times = schedule.times(min(steps, T))
    arm = Arm("arm", ddpm() if eta is None else ddim(eta), scale)
    exact = gaussian_trajectory(schedule, arm, mean, std, times)
    n = 4000
    walked = run_arms(GaussianDenoiser(schedule, mean, std), schedule, (arm,), n, seed, times)
    for i, step in enumerate(walked):
        x = step.x_next[0].double()
        error = exact.std[i + 1] / math.sqrt(n) + 1e-5
        assert abs(x.mean().item() - exact.mean[i + 1]) < 5.5 * error
        assert abs(x.std().item() - exact.std[i + 1]) < 5.5 * error


# Derived in float64 from the recursion alone, for N(2, 0.5²) under the tutorial's schedule: the
# two closed forms below need no table of remembered numbers.
def test_z_zero_maps_the_start_to_its_conditional_mean():
    """In the limit of fine steps z = 0 ends with std √ᾱ_T s²/(ᾱ_T s² + 1 − ᾱ_T) (the tower
    property). Kills: half the score coefficient, which would keep the data's std."""
    schedule = NoiseSchedule.linear(5000, 1e-5, 0.002)
    bar, s = schedule.alpha_bars[-1], 0.5
    limit = np.sqrt(bar) * s**2 / (bar * s**2 + 1 - bar)
    end = gaussian_trajectory(schedule, Arm("z=0", ddpm(), 0.0), 2.0, s)
    assert end.std[-1] == pytest.approx(limit, rel=0.01)
    assert end.mean[-1] == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.2])
def test_the_residual_reads_the_noise_dial(scale):
    """Away from both ends. Kills: a residual taken about another trajectory's end."""
    schedule = NoiseSchedule.course()
    exact = gaussian_trajectory(schedule, Arm("dial", ddpm(), scale), 2.0, 0.5)
    window = (exact.t <= 300) & (exact.t >= 100)
    np.testing.assert_allclose(exact.residual_std[window], scale, rtol=0.05)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ddpm("fixed"), "variance is 'fixed'"),
        (lambda: ddim(1.5), "eta is 1.5"),
        (lambda: ddim(math.nan), "eta is nan"),
        (lambda: Arm("", ddpm()), "name of an arm"),
        (lambda: Arm("a", "ddpm"), "rule of arm 'a'"),
        (lambda: Arm("a", ddpm(), -0.1), "noise scale of arm 'a' is -0.1"),
        (lambda: Arm("a", ddpm(), math.inf), "noise scale of arm 'a' is inf"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, t, c=None: torch.full_like(x, math.nan) if t == 7 else x, "finite at t = 7"),
        (lambda x, t, c=None: x[:, :1] if t == 7 else x, "shape (6, 1) at t = 7"),
        (lambda x, t, c=None: None if t == 7 else x, "NoneType at t = 7"),
    ],
)
def test_an_unusable_answer_names_the_step(answer, words):
    schedule = NoiseSchedule.linear(10)
    steps = sample(answer, schedule, torch.zeros(2, 2), torch.Generator())
    with pytest.raises(InputError) as error:
        list(steps)
    assert words in str(error.value)
