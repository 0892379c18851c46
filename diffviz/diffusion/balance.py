r"""Noise and score in balance: the density of x_t where both are scaled, next to q(x_t).

A step with the noise scaled by λ and the score by c,

    x_s = (x_t − c·ε̂·(1 − α_t)/√(1 − ᾱ_t))/√α_t + λ·√β_t·z,

is the reverse process dx = [f − c·g²·∇log q_t(x)]dt + λ·g·dw, where noise and score balance, and
every x_t has the law q(x_t), when c = (1 + λ²)/2: (λ = 1, c = 1) is DDPM, (λ = 0, c = ½) the
probability flow, and (λ = 0, c = 1), the full score without its noise, is neither
(arXiv 2206.00364, eq. 6). For one Gaussian the law stays Gaussian and is followed in closed form;
for several, a fixed set of particles is followed, the same for every λ and c.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtri, softmax

from diffviz.diffusion.gaussian import gaussian_trajectory
from diffviz.diffusion.rules import Arm, LinearRule, coefficient_table, ddpm
from diffviz.diffusion.schedule import NoiseSchedule

Array = NDArray[np.float64]

PARTICLES = 2000
SLICES = 51
BINS = np.linspace(-4.0, 4.0, 161)
"""Middles of the cells in which densities are given."""
SMOOTHED = 1.6
"""Cells over which the particles are spread."""


@dataclass(frozen=True)
class Pulled(LinearRule):
    """`ddpm` with ``pull`` = c times its ε̂."""

    pull: float

    @property
    def name(self) -> str:
        """``ddpm/beta, c = PULL``."""
        return f"ddpm/beta, c = {self.pull:g}"

    def coefficients(self, schedule: NoiseSchedule, t: int, s: int) -> tuple[float, float, float]:
        """(a, c·b, σ) with a, b and σ those of `ddpm` on ``schedule``."""
        a, b, std = ddpm().coefficients(schedule, t, s)
        return a, self.pull * b, std


class Law(NamedTuple):
    """Data Σ_k weights_k N(means_k, stds_k²) on the line."""

    means: tuple[float, ...]
    stds: tuple[float, ...]
    weights: tuple[float, ...]


LAWS = {
    "gaussian": Law((2.0,), (0.5,), (1.0,)),
    "mixture": Law((-1.0, 1.5), (0.2, 0.3), (0.7, 0.3)),
}


class ScaledDensity(NamedTuple):
    """``density`` and ``marginal``, the right one, are (SLICES, bins) at the times ``t``.

    Attributes:
        t: from T to 0.
        density, marginal: in x; at t = 0 of the end points and of the data.
        std, right_std: of the end points and of the data.
        distance: ½∫|p − q|dx between their densities, 0 the same and 1 apart.
        shares, right_shares: of each mode, the nearest in units of its std.
    """

    t: NDArray[np.int64]
    density: Array
    marginal: Array
    std: float
    right_std: float
    distance: float
    shares: tuple[float, ...]
    right_shares: tuple[float, ...]


def balanced_score(noise_scale: float) -> float:
    """The score coefficient that balances λ times the noise: (1 + λ²)/2."""
    return (1 + noise_scale**2) / 2


def scaled_density(
    schedule: NoiseSchedule, law: Law, noise_scale: float, score: float
) -> ScaledDensity:
    """The law of x_t from N(0, 1) at T down to 0, with λ = ``noise_scale`` and c = ``score``."""
    t = schedule.times(min(SLICES - 1, schedule.T))
    width = float(BINS[1] - BINS[0])
    means, stds = np.array(law.means), np.array(law.stds)
    bars = schedule.alpha_bars[t][:, None, None]
    modes = _normal(BINS[:, None], np.sqrt(bars) * means, bars * stds**2 + 1 - bars)
    marginal = modes @ np.array(law.weights)
    spread = np.dot(law.weights, stds**2 + (means - np.dot(law.weights, means)) ** 2)
    data = marginal[-1]
    if len(means) == 1:
        arm = Arm("scaled", Pulled(score), noise_scale)
        exact = gaussian_trajectory(schedule, arm, law.means[0], law.stds[0])
        center, spreads = exact.mean[::-1][t], exact.std[::-1][t]
        # Not narrower than a cell, so that the mass of a thin law is still seen.
        variance = np.maximum(spreads, width / 2)[:, None] ** 2
        density = _normal(BINS, center[:, None], variance)
        std, shares = float(exact.std[-1]), (1.0,)
    else:
        x = _particles(schedule, law, noise_scale, score)[t]
        density = _histogram(x)
        data = gaussian_filter1d(data, SMOOTHED, mode="constant")
        nearest = (np.abs(x[-1][:, None] - means) / stds).argmin(axis=1)
        std = float(x[-1].std())
        shares = tuple((np.bincount(nearest, minlength=len(means)) / PARTICLES).tolist())
    distance = float(0.5 * np.abs(density[-1] - data).sum() * width)
    right = float(np.sqrt(spread))
    return ScaledDensity(t, density, marginal, std, right, distance, shares, law.weights)


def _normal(x: Array, mean: Array | float, variance: Array | float) -> Array:
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def _particles(schedule: NoiseSchedule, law: Law, noise_scale: float, score: float) -> Array:
    """x_t of the particles for every t, (T+1, PARTICLES)."""
    x = np.empty((schedule.T + 1, PARTICLES))
    x[schedule.T] = ndtri((np.arange(PARTICLES) + 0.5) / PARTICLES)
    arms, z = [Arm("scaled", Pulled(score), noise_scale)], _noise(schedule.T)
    means, squares = np.array(law.means)[:, None], np.square(law.stds)[:, None]
    table = coefficient_table(arms, schedule, schedule.times())[:, 0]
    for t, (a, b, std) in zip(range(schedule.T, 0, -1), table, strict=True):
        bar = schedule.alpha_bars[t]
        variance = bar * squares + 1 - bar
        offset = (x[t] - np.sqrt(bar) * means) / variance
        weight = softmax(
            np.log(law.weights)[:, None] - (np.log(variance) + offset**2 * variance) / 2, 0
        )
        eps = np.sqrt(1 - bar) * (weight * offset).sum(axis=0)
        x[t - 1] = a * x[t] + b * eps + std * z[t]
    return x


@lru_cache(maxsize=2)
def _noise(T: int) -> Array:
    return np.random.default_rng(0).standard_normal((T + 1, PARTICLES))


def _histogram(x: Array) -> Array:
    """Density per row of ``x`` (slices, particles) on ``BINS``, smoothed."""
    width = BINS[1] - BINS[0]
    cell = np.clip(np.rint((x - BINS[0]) / width), 0, len(BINS) - 1).astype(np.int64)
    flat = cell + np.arange(len(x))[:, None] * len(BINS)
    counts = np.bincount(flat.ravel(), minlength=len(x) * len(BINS)).reshape(len(x), -1)
    return gaussian_filter1d(counts / (x.shape[1] * width), SMOOTHED, mode="constant")
