"""The invariants of the noise schedule, for every constructor and every range."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError

lengths = st.integers(1, 400)
ends = st.tuples(st.floats(1e-6, 0.4), st.floats(1e-6, 0.4)).map(sorted)


@st.composite
def schedules(draw):
    T, (start, end) = draw(lengths), draw(ends)
    return draw(
        st.sampled_from(
            [
                NoiseSchedule.linear(T, start, end),
                NoiseSchedule.scaled_linear(T, start, end),
                NoiseSchedule.cosine(T),
                NoiseSchedule.from_betas(np.random.default_rng(T).uniform(start, end, T)),
            ]
        )
    )


@given(schedules())
def test_exact_schedules_hold_every_invariant(s):
    """Kills: cumprod from index 0 on, cumsum of β, ᾱ_0 ≠ 1, a constructor off by one."""
    assert s.alpha_bars[0] == 1
    assert ((s.betas[1:] > 0) & (s.betas[1:] < 1)).all()
    np.testing.assert_allclose(s.alpha_bars[1:], s.alpha_bars[:-1] * s.alphas[1:], rtol=1e-12)
    np.testing.assert_array_equal(s.alphas, 1 - s.betas)
    assert (np.diff(s.alpha_bars) < 0).all()
    assert (np.diff(s.snr[1:]) < 0).all() and np.isinf(s.snr[0])
    assert s.violations() == []


@given(schedules())
def test_posterior_variance_is_at_most_beta(s):
    """β̃_t ≤ β_t, equal to Var(x_{t−1} | x_t, x_0) by Bayes' rule. Kills: ᾱ_t and ᾱ_{t−1} swapped,
    which would make β̃ ≥ β."""
    tilde = s.posterior_variance[1:]
    assert (tilde <= s.betas[1:] * (1 + 1e-12)).all()
    # precision of x_{t−1} = precision of the step's likelihood + precision of q(x_{t−1} | x_0)
    t = np.arange(2, s.T + 1)
    precision = s.alphas[t] / s.betas[t] + 1 / (1 - s.alpha_bars[t - 1])
    np.testing.assert_allclose(tilde[1:], 1 / precision, rtol=1e-7)
    assert tilde[0] == 0 and np.isnan(s.posterior_variance[0])


@given(schedules())
def test_scaling_factors_mean_what_the_tutorial_says(s):
    """S1·(x − S2·ε̂) + S3·z with the true ε gives the mean of q(x_{t−1} | x_t, x_0), DDPM eq. 7.
    Kills: S2 without the root, S1 with ᾱ."""
    t = np.arange(2, s.T + 1)
    x_0, eps = 0.7, -1.3
    bar, previous = s.alpha_bars[t], s.alpha_bars[t - 1]
    x_t = np.sqrt(bar) * x_0 + np.sqrt(1 - bar) * eps
    mean = (np.sqrt(previous) * s.betas[t] * x_0 + np.sqrt(s.alphas[t]) * (1 - previous) * x_t) / (
        1 - bar
    )
    np.testing.assert_allclose(s.S1[t] * (x_t - s.S2[t] * eps), mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(s.S3[1:] ** 2, s.betas[1:], rtol=1e-12)


@given(schedules(), st.data())
def test_step_lists_fall_to_zero_and_never_wrap(s, data):
    """Kills: range(T, 0, −T//n), which ends at a negative index when T % n ≠ 0."""
    steps = data.draw(st.integers(1, s.T))
    times = s.times(steps)
    assert times[0] == s.T and times[-1] == 0 and len(times) == steps + 1
    assert (np.diff(times) < 0).all()
    gaps = -np.diff(times)
    assert gaps.max() - gaps.min() <= 1
    even = s.T - s.T / steps * np.arange(steps + 1)
    assert np.abs(times - even).max() <= 0.5  # rounded, not cut


def test_course_quirk_is_kept_by_name_and_reported():
    """ᾱ_1 = α_0 α_1. Kills: a "course" that quietly mends it."""
    s = NoiseSchedule.course()
    betas = np.linspace(1e-4, 0.02, 501)
    np.testing.assert_array_equal(s.betas, betas)
    np.testing.assert_allclose(s.alpha_bars[1:], np.exp(np.cumsum(np.log(1 - betas)))[1:], 1e-12)
    (problem,) = s.violations()
    assert "t = 1" in problem and "0.9999" in problem
    assert NoiseSchedule.linear().violations() == []


def test_cosine_is_the_papers():
    """arXiv 2102.09672 eq. 17. Kills: cos without the square."""
    s = NoiseSchedule.cosine(1000)
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(s.alpha_bars[:990], (f / f[0])[:990], rtol=1e-9)
    assert s.betas.max() == s.betas[-1] == 0.999  # clipped, there


def test_a_schedule_by_name_is_the_constructors():
    """Kills: a default of its own, an end of β that is dropped, T exchanged for β."""
    for kind, made in (
        ("course", NoiseSchedule.course),
        ("linear", NoiseSchedule.linear),
        ("scaled-linear", NoiseSchedule.scaled_linear),
    ):
        assert NoiseSchedule.named(kind) == made(500)
        assert NoiseSchedule.named(kind, 70, 0.01, 0.3) == made(70, 0.01, 0.3)
        assert NoiseSchedule.named(kind, beta_end=0.3) == made(500, beta_end=0.3)
    assert NoiseSchedule.named("cosine", 60) == NoiseSchedule.cosine(60)


def test_defaults_are_those_of_the_papers():
    """DDPM's T = 1000 cut to the tutorial's 500; latent diffusion's β. Kills: the β of another
    paper, √β for β."""
    for made, T, first, last in (
        (NoiseSchedule.linear(), 500, 1e-4, 0.02),
        (NoiseSchedule.course(), 500, 1e-4 + (0.02 - 1e-4) / 500, 0.02),
        (NoiseSchedule.scaled_linear(), 1000, 0.00085, 0.012),
    ):
        assert made.T == T
        np.testing.assert_allclose(made.betas[[1, -1]], [first, last], rtol=1e-12)


def test_zero_terminal_snr():
    """ᾱ_T = 0 exactly, ᾱ_1 unchanged, and it says what that costs. Kills: no shift."""
    s = NoiseSchedule.linear()
    z = s.with_zero_terminal_snr()
    assert z.alpha_bars[-1] == 0
    np.testing.assert_allclose(z.alpha_bars[1], s.alpha_bars[1], rtol=1e-12)
    np.testing.assert_allclose(z.alpha_bars[1:], z.alpha_bars[:-1] * z.alphas[1:], atol=1e-15)
    assert any("ε-prediction" in problem for problem in z.violations())


MUTANTS = {
    "ᾱ_0": lambda s: {"alpha_bars": np.concatenate([[0.9], s.alpha_bars[1:]])},
    "not finite": lambda s: {"betas": np.where(np.arange(s.T + 1) == 3, np.nan, s.betas)},
    "β_t > 0": lambda s: {"betas": np.where(np.arange(s.T + 1) == 3, -0.1, s.betas)},
    "β_t < 1": lambda s: {"betas": np.where(np.arange(s.T + 1) == 3, 1.5, s.betas)},
    "ᾱ_t = ᾱ_(t−1)·α_t": lambda s: {"alpha_bars": s.alpha_bars * 0.99 ** np.arange(s.T + 1)},
    "SNR": lambda s: {"alpha_bars": np.sort(s.alpha_bars)},
    "falling SNR, fails at t = 5": lambda s: {
        "alpha_bars": np.where(np.arange(s.T + 1) == 5, s.alpha_bars[4], s.alpha_bars)
    },
    "α_t = 1 − β_t": lambda s: {"alphas": np.sqrt(1 - s.betas)},
    "0 ≤ ᾱ_t ≤ 1": lambda s: {"alpha_bars": s.alpha_bars - 0.9},
}


@pytest.mark.parametrize("words", MUTANTS)
def test_violations_name_what_is_broken(words):
    """Each broken array is reported in its own words. Kills: a check left out."""
    s = NoiseSchedule.linear(20)
    broken = dataclasses.replace(s, **MUTANTS[words](s))
    assert any(words in problem for problem in broken.violations())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NoiseSchedule.linear(0), "T is 0"),
        (lambda: NoiseSchedule.linear(1.5), "T is 1.5"),
        (lambda: NoiseSchedule.cosine(10**9), "T is 1000000000"),
        (lambda: NoiseSchedule.course(True), "T is True"),
        (lambda: NoiseSchedule.linear(beta_end=1.0), "beta_end 1.0"),
        (lambda: NoiseSchedule.linear(beta_start=float("nan")), "beta_start is nan"),
        (lambda: NoiseSchedule.linear(beta_start=0.5, beta_end=0.1), "beta_start is 0.5"),
        (lambda: NoiseSchedule.from_betas([0.1, 1.0]), "t = 2 is 1"),
        (lambda: NoiseSchedule.named("sine"), "schedule is 'sine'; allowed: course"),
        (lambda: NoiseSchedule.named("cosine", 5, 0.1), "beta_start with the cosine schedule"),
        (lambda: NoiseSchedule.from_betas([0.1, np.nan]), "t = 2 is nan"),
        (lambda: NoiseSchedule.from_betas([]), "T is 0"),
        (lambda: NoiseSchedule.from_betas("many"), "betas is 'many'"),
        (lambda: NoiseSchedule.cosine(offset=-1), "offset is -1"),
        (lambda: NoiseSchedule.linear(10).times(11), "steps is 11"),
        (lambda: NoiseSchedule.linear(10).times(0), "steps is 0"),
        (lambda: NoiseSchedule(np.ones(3), np.ones(2), np.ones(3)), "alphas has shape (2,)"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_arrays_are_frozen():
    """Kills: handing out the array itself."""
    betas = np.full(5, 0.1)
    s = NoiseSchedule.from_betas(betas)
    with pytest.raises(ValueError, match="read-only"):
        s.betas[0] = 1
    betas[:] = 0.9
    assert s.betas[1] == 0.1
    assert s == NoiseSchedule.from_betas([0.1] * 5) != NoiseSchedule.from_betas([0.2] * 5)
