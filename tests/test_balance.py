"""Scaled noise and score with their densities, and the forward process of one image."""

import numpy as np
import pytest
from scipy.stats import norm

import diffviz as dv
from diffviz.diffusion.balance import BINS, LAWS, Law, balanced_score, scaled_density
from diffviz.diffusion.forward import forward_data

SCHEDULE = dv.NoiseSchedule.course(100, 1e-3, 0.1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.3])
def test_the_density_agrees_with_the_exact_recursion(scale):
    """Two derivations, one law, at every slice.
    Kills: ᾱ_t for ᾱ_{t−1}, λ for λ², noise in the last step, slices of other times."""
    data = scaled_density(SCHEDULE, LAWS["gaussian"], scale, 1.0)
    exact = dv.gaussian_trajectory(SCHEDULE, dv.Arm("x", dv.ddpm(), scale), 2.0, 0.5)
    assert data.std == pytest.approx(exact.std[-1], rel=1e-9)
    assert (data.t[0], data.t[-1], len(data.t)) == (100, 0, 51)
    for i, t in enumerate(data.t):
        at, bar = 100 - t, SCHEDULE.alpha_bars[t]
        right = norm.pdf(BINS, exact.mean[at], max(exact.std[at], 0.025))
        np.testing.assert_allclose(data.density[i], right, atol=1e-9)
        forward = norm.pdf(BINS, 2 * np.sqrt(bar), np.sqrt(bar * 0.25 + 1 - bar))
        np.testing.assert_allclose(data.marginal[i], forward, atol=1e-12)
    gap = np.abs(data.density[-1] - data.marginal[-1]).sum() * 0.05 / 2
    assert data.distance == pytest.approx(gap, rel=1e-9)
    assert (data.right_std, data.shares, data.right_shares) == (0.5, (1.0,), (1.0,))


@pytest.mark.parametrize(("scale", "score"), [(1.0, 1.0), (0.0, 0.5), (0.0, 1.0), (0.7, 0.8)])
def test_particles_follow_the_closed_form(scale, score):
    """A Gaussian written as two equal halves goes through particles instead.
    Kills: an error in the table of scores or its interpolation. 2,000 particles leave a standard
    error of 1/√4000 = 1.6 % in a std; four of them are allowed."""
    halves = Law((2.0, 2.0), (0.5, 0.5), (0.5, 0.5))
    exact = scaled_density(SCHEDULE, LAWS["gaussian"], scale, score)
    made = scaled_density(SCHEDULE, halves, scale, score)
    assert made.std == pytest.approx(exact.std, rel=0.065)
    assert made.right_std == 0.5
    means = (made.density * BINS).sum(axis=1) * 0.05
    np.testing.assert_allclose(means, (exact.density * BINS).sum(axis=1) * 0.05, atol=0.1)
    np.testing.assert_allclose(made.density.sum(axis=1) * 0.05, 1, atol=1e-3)


def test_balance_keeps_the_data_and_imbalance_does_not():
    """(λ = 1, c = 1) and (λ = 0, c = ½) end at the data; (λ = 0, c = 1) loses the small mode.
    Kills: a balance of λ, of λ² or without its half; shares of the modes exchanged."""
    course, mixture = dv.NoiseSchedule.course(), LAWS["mixture"]
    assert [balanced_score(v) for v in (0.0, 1.0, 2.0)] == [0.5, 1.0, 2.5]
    for scale in (0.0, 0.5, 1.0):
        data = scaled_density(course, mixture, scale, balanced_score(scale))
        assert data.distance < 0.09
        assert data.shares == pytest.approx((0.7, 0.3), abs=0.04)
    still = scaled_density(course, mixture, 0.0, 1.0)
    assert still.distance > 0.5 and still.shares == (1.0, 0.0)
    assert still.right_std == pytest.approx(np.sqrt(0.7 * 1.04 + 0.3 * 2.34 - 0.25**2))


def test_what_can_still_be_told_follows_bayes():
    """Kills: √ᾱ left out of the distance, σ for σ², log 2 in the number of candidates."""
    images = np.linspace(-1, 1, 5)[:, None, None]
    schedule = dv.NoiseSchedule.cosine(50)
    data = forward_data(schedule, images, 3, [0, 10, 30, 50], seed=2)
    for t, bar, x, sure, left in zip(*data, strict=True):
        assert bar == schedule.alpha_bars[t]
        if t == 0:
            assert (sure, left) == (1, pytest.approx(1)) and x == images[3]
            continue
        density = norm.pdf(x.item(), np.sqrt(bar) * images.ravel(), np.sqrt(1 - bar))
        p = density / density.sum()
        assert sure == pytest.approx(p[3], rel=1e-9)
        assert left == pytest.approx(np.prod(p**-p), rel=1e-9)
    assert data.candidates[-1] > 4.99
