r"""The forward process on one image, and how long one can tell which image it was.

x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε with one ε for all t. To an observer who knows all N images, equally
likely at first, and sees x_t, the image i is the right one with probability

    p_i ∝ exp(−‖x_t − √ᾱ_t·x_i‖² / (2·(1 − ᾱ_t))),

which leaves exp(−Σ p_i·log p_i) candidates. No network can do better.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from diffviz.diffusion.schedule import NoiseSchedule

Array = NDArray[np.float64]


class ForwardData(NamedTuple):
    """Over the times ``t`` (N,), rising.

    Attributes:
        t: the times.
        alpha_bar: ᾱ_t.
        x: the image on its way, (N, *D).
        sure: probability of the right image, given x_t.
        candidates: how many images are left, 1 to all.
    """

    t: NDArray[np.int64]
    alpha_bar: Array
    x: Array
    sure: Array
    candidates: Array


def forward_data(
    schedule: NoiseSchedule,
    images: NDArray[np.floating],
    index: int,
    times: Sequence[int] | NDArray[np.int64],
    seed: int = 0,
) -> ForwardData:
    """The image at ``index`` of ``images`` (N, *D) in [−1, 1], noised up to each of ``times``."""
    t = np.asarray(times, dtype=np.int64)
    known = images.astype(np.float64).reshape(len(images), -1)
    noise = np.random.default_rng(seed).standard_normal(known.shape[1])
    bars = schedule.alpha_bars[t][:, None]
    x = np.sqrt(bars) * known[index] + np.sqrt(1 - bars) * noise
    squares = (
        (x**2).sum(axis=1, keepdims=True)
        - 2 * np.sqrt(bars) * (x @ known.T)
        + bars * (known**2).sum(axis=1)
    )
    # At t = 0 only the image itself is at distance 0, and images that equal it.
    chance = softmax(-squares / (2 * np.maximum(1 - bars, 1e-12)), axis=1)
    left = np.exp(entr(chance).sum(axis=1))
    return ForwardData(t, bars[:, 0], x.reshape(-1, *images.shape[1:]), chance[:, index], left)
