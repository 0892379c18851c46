r"""The exact twin of `sample` for Gaussian data: the same arms, and no sampling.

With data N(μ, s²) the denoiser is affine, ε̂ = c(x − √ᾱμ) with c = √(1−ᾱ)/(ᾱs² + 1 − ᾱ), so each
step is affine with slope g = a + bc. From x_T ~ N(0, 1):

    E x_s = g·E x_t − bc√ᾱ_t μ        Var x_s = g²·Var x_t + (λσ)²

and Cov(x_0, x_t) = Var(x_t)·∏g over the steps still to come, which gives the residual
r_t = (x_t − √ᾱ_t x_0)/√(1−ᾱ_t).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffviz.diffusion.rules import Arm, check_arms, coefficient_table
from diffviz.diffusion.schedule import NoiseSchedule, check_schedule
from diffviz.errors import check_number

Array = NDArray[np.float64]


class GaussianTrajectory(NamedTuple):
    """Exact statistics of one arm on Gaussian data, each over the times visited (S+1,)."""

    t: NDArray[np.int64]
    mean: Array
    std: Array
    eps_mean: Array
    eps_std: Array
    residual_mean: Array
    residual_std: Array


@np.errstate(divide="ignore", invalid="ignore")  # at t = 0 a point has no noise to see
def gaussian_trajectory(
    schedule: NoiseSchedule,
    arm: Arm,
    mean: float,
    std: float,
    times: Sequence[int] | NDArray[np.int64] | None = None,
) -> GaussianTrajectory:
    """What `sample` does in distribution when the data are N(mean, std²) and ε̂ is exact.

    One ``arm`` along ``times``, falling from T to 0 on ``schedule``; all of T…0 unless given.
    ``mean`` and ``std`` ≥ 0, μ and s of the module, are those of the data.

    Raises:
        InputError: an argument of another kind, or out of range.
    """
    mean, std = check_number("mean", mean, -1e9, 1e9), check_number("std", std, 0, 1e9)
    arms = check_arms([arm])
    grid = np.asarray(check_schedule(schedule).times() if times is None else times)
    table, bars = coefficient_table(arms, schedule, grid)[:, 0], schedule.alpha_bars[grid]
    answer = np.sqrt(1 - bars) / (bars * std**2 + 1 - bars)
    if std == 0:
        answer[bars == 1] = np.inf
    means, variances, slopes = np.zeros(len(grid)), np.ones(len(grid)), np.ones(len(grid))
    for i, (a, b, sigma) in enumerate(table):
        slopes[i] = a + b * answer[i]
        means[i + 1] = slopes[i] * means[i] - b * answer[i] * np.sqrt(bars[i]) * mean
        variances[i + 1] = slopes[i] ** 2 * variances[i] + sigma**2
    to_end = np.append(np.cumprod(slopes[:-1][::-1])[::-1], 1.0)
    spread = variances - 2 * np.sqrt(bars) * to_end * variances + bars * variances[-1]
    residual_std = np.sqrt(np.maximum(spread, 0) / (1 - bars))
    residual_mean = (means - np.sqrt(bars) * means[-1]) / np.sqrt(1 - bars)
    eps_mean = answer * (means - np.sqrt(bars) * mean)
    eps_std = answer * np.sqrt(variances)
    return GaussianTrajectory(
        grid, means, np.sqrt(variances), eps_mean, eps_std, residual_mean, residual_std
    )
