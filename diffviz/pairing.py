r"""Two runs of one sampler from the same state of the random generators, step by step.

If both drew the same noise, it is not in their difference: with two answers m, m' of the model,

    x_s − x'_s = a·(x_t − x'_t) + b·(m_t − m'_t)

up to rounding, and a and b are known to rounding however large the noise was. A step for which
this does not hold drew other noise, or is no linear function; it keeps what the regression of one
run says of it.
"""

import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffviz.watching import EPS, NEXT, ONE, ROUNDING, SINGLE, Fit, Pairs, Watched, X, solve

Array = NDArray[np.float64]
CLEAR = 20.0
"""How many times its rounding a noise is, for a step to be worth the comparison."""


class Randomness:
    """The state of the global generators of Python, numpy and torch, to be had again."""

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._states: tuple[Any, ...] = (
            random.getstate(),
            np.random.get_state(),  # noqa: NPY002, samplers use it
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if self._cuda else [],
        )

    def again(self) -> None:
        """Put the generators back into that state."""
        python, numpy, host, devices = self._states
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(host)
        if self._cuda:
            torch.cuda.set_rng_state_all(devices)


def pair(one: Watched, two: Watched) -> Pairs:
    """Compare the steps of two runs at the places that were kept of both.

    Of ``two`` these may be all that was kept; its leftover is then taken as that of ``one``.
    """
    steps = min(len(one.grams), len(two.places) - 1)
    apart = one.places[: steps + 1] - two.places[: steps + 1]
    before, after = apart[:steps], apart[1:, 0]  # (S, 2, K) of x_t and m_t, (S, K) of x_s
    noises = zip(one.noise[:steps], (two.noise or one.noise)[:steps], strict=True)
    floor = np.array([first.floor + second.floor for first, second in noises])
    clear = np.array([noise.std for noise in one.noise[:steps]]) > CLEAR * floor
    squares = np.einsum("sik,sjk->sij", before, before)
    product = np.einsum("sik,sk->si", before, after)
    best = np.einsum("sij,sj->si", np.linalg.pinv(squares, rcond=1e-14, hermitian=True), product)
    left = after - np.einsum("si,sik->sk", best, before)
    rms = np.sqrt((left**2).mean(axis=-1))
    size = np.sqrt(one.grams[:steps, NEXT, NEXT] / one.values)
    variance = np.maximum(rms, ROUNDING * np.maximum(size, 1e-30)) ** 2
    same = clear & (rms < floor)
    leftovers = _leftover(one, one, steps), _leftover(two, two if len(two.grams) else one, steps)
    r = np.einsum("sk,sk->s", *map(_unit, leftovers))
    free = one.places.shape[-1] - 2
    alike = np.abs(r) * np.sqrt(free / np.maximum(1 - r**2, 1e-12)) * clear
    rest = (0, len(one.grams) - steps)
    return Pairs(
        np.pad(same, rest),
        np.pad(squares / variance[:, None, None], (rest, (0, 0), (0, 0))),
        np.pad(product / variance[:, None], (rest, (0, 0))),
        np.pad(alike, rest),
    )


def crooked(pairs: Pairs, threshold: float) -> NDArray[np.bool_]:
    """Steps that drew the same noise twice and still differ by more than a and b explain."""
    return (pairs.alike > threshold) & ~pairs.same


def _leftover(run: Watched, known: Watched, steps: int) -> Array:
    """What the regression of the run ``known`` leaves over at the places, (S, K)."""
    coefficients = solve(known.grams[:steps], SINGLE).coefficients
    linear = np.einsum("si,sik->sk", coefficients[:, 1:], run.places[:steps])
    return run.places[1 : steps + 1, 0] - linear - coefficients[:, :1]


def _unit(rows: Array) -> Array:
    centered = rows - rows.mean(axis=-1, keepdims=True)
    return centered / np.maximum(np.sqrt((centered**2).sum(axis=-1, keepdims=True)), 1e-300)


def fitted(watched: Watched) -> Fit:
    """a, b, the bias and σ of every step: by regression, and by the pair where there is one.

    Both are estimates of the same (a, b); they are weighed by their inverse covariances.
    """
    found = solve(watched.grams, SINGLE)
    pairs = watched.pairs
    if pairs is None or not pairs.same.any():
        return found
    same = pairs.same
    gram = watched.grams[same]
    n = gram[:, ONE, ONE]
    own = np.linalg.inv(found.covariance[same][:, 1:, 1:])
    covariance = np.linalg.inv(own + pairs.information[same])
    right = np.einsum("sij,sj->si", own, found.coefficients[same, 1:]) + pairs.product[same]
    slopes = np.einsum("sij,sj->si", covariance, right)
    mean = (gram[:, ONE, NEXT] - np.einsum("si,si->s", slopes, gram[:, ONE, [X, EPS]])) / n
    left = np.zeros((len(gram), NEXT + 1))
    left[:, ONE], left[:, [X, EPS]], left[:, NEXT] = -mean, -slopes, 1
    rest = np.einsum("si,sij,sj->s", left, gram, left)
    std = np.sqrt(np.maximum(rest, 0) / np.maximum(n - len(SINGLE), 1))
    coefficients, errors = found.coefficients.copy(), found.covariance.copy()
    spread = found.std.copy()
    coefficients[same] = np.column_stack([mean, slopes])
    errors[same] = 0.0
    errors[same, 0, 0] = std**2 / n
    errors[same, 1:, 1:] = covariance
    spread[same] = std
    return Fit(coefficients, errors, spread)
