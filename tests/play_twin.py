r"""The states and numbers of the live plane, computed with `diffviz.sample` in float64.

plane.js must agree: states within 1e-5, numbers within 1e-6, given the same x_T and z.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, softmax

from diffviz.diffusion.balance import Pulled
from diffviz.diffusion.exact import MixtureDenoiser
from diffviz.diffusion.rules import Arm, ddim, ddpm
from diffviz.diffusion.sampler import sample
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.play.plane import Law

Array = NDArray[np.float64]
LEAST = 1e-12
"""Variance that a mode has at least when q(x_t) is evaluated."""


def arms(noise: float = 0.0, pull: float = 0.5) -> tuple[Arm, ...]:
    """ddpm, z0, ddim and own, which has λ = ``noise`` and c = ``pull``."""
    return (
        Arm("ddpm", ddpm()),
        Arm("z0", ddpm(), 0.0),
        Arm("ddim", ddim()),
        Arm("own", Pulled(pull), noise),
    )


class States(NamedTuple):
    """x of A arms at k = 0…T, t = T − k: (A, T + 1, N, 2); the z drawn at each step (T, N, 2)."""

    x: Array
    z: Array


def states(
    law: Law, schedule: NoiseSchedule, x_T: Array, seed: int, ways: Sequence[Arm]
) -> States:
    """Every state of every arm from ``x_T`` (N, 2) on, by `diffviz.sample`."""
    denoiser = MixtureDenoiser(schedule, law.means, law.stds, law.weights)
    start, generator = torch.from_numpy(x_T), torch.Generator().manual_seed(seed)
    steps = list(sample(denoiser, schedule, start, generator, arms=ways))
    x = torch.stack([steps[0].x, *[step.x_next for step in steps]], dim=1)
    return States(x.numpy(), torch.stack([step.z for step in steps]).numpy())


class Numbers(NamedTuple):
    """What the plane says about one arm at one time.

    Attributes:
        distance: √(mean ‖x − √ᾱμ‖²/2), RMS distance to the mean per coordinate.
        std: √(mean over the coordinates of the unbiased variance between particles).
        ks: the larger of the coordinates' D against q(x_t).
        width: √E[Σ_k r_k ‖x − √ᾱ m_k‖²/2v_k], r_k = P(mode k | x_t); 1 where x_t ~ q(x_t).
        shares: mean over the particles of r_k, (K,); it is w_k where x_t ~ q(x_t).
    """

    distance: float
    std: float
    ks: float
    width: float
    shares: Array


def numbers(law: Law, alpha_bar: float, x: Array) -> Numbers:
    """The numbers of particles ``x`` (N, 2) at noise level ᾱ = ``alpha_bar``."""
    weights = np.array(law.weights)
    centers = np.sqrt(alpha_bar) * np.array(law.means)
    variances = np.maximum(alpha_bar * np.square(law.stds) + 1 - alpha_bar, LEAST)
    distance = np.sqrt(np.mean(np.sum((x - weights @ centers) ** 2, axis=1)) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        std = np.sqrt(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=0) / (len(x) - 1.0)))
    rank = np.arange(len(x) + 1) / len(x)
    ks = 0.0
    for axis in (0, 1):
        line = np.sort(x[:, axis])[:, None]
        null = ndtr((line - centers[:, axis]) / np.sqrt(variances)) @ weights
        ks = max(ks, float(np.max(rank[1:] - null)), float(np.max(null - rank[:-1])))
    squares = np.sum((x[:, None] - centers) ** 2, axis=2)
    logits = np.log(weights) - np.log(variances) - squares / variances / 2
    shares = softmax(logits, axis=1)
    width = np.sqrt(np.mean(np.sum(shares * squares / variances / 2, axis=1)))
    return Numbers(float(distance), float(std), ks, float(width), shares.mean(axis=0))


def held(arm: Arm, schedule: NoiseSchedule) -> Array:
    """The noise level that the steps of ``arm`` leave in the state, at t = T…0, (T + 1,).

    For data that are one point, L_s² = (L_t·(a + b/√(1 − ᾱ_t)))² + (λσ)², L_T = √(1 − ᾱ_T). The
    level that the denoiser is told is √(1 − ᾱ_t).
    """
    levels = [float(np.sqrt(1 - schedule.alpha_bars[-1]))]
    for t in range(schedule.T, 0, -1):
        a, b, sigma = arm.rule.coefficients(schedule, t, t - 1)
        kept = levels[-1] * (a + b / np.sqrt(1 - schedule.alpha_bars[t]))
        levels.append(float(np.hypot(kept, arm.noise_scale * sigma)))
    return np.array(levels)
