r"""Denoisers in closed form: ε̂ = E[ε | x_t] for data whose law is known.

By Tweedie's formula ε̂ = −√(1−ᾱ_t) ∇ log q(x_t). For Gaussian data, mixtures of Gaussians and
finite sets the marginal q(x_t) is again a mixture: nothing is trained, nothing is approximate.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from diffviz.diffusion.denoiser import one_time, tensors_digest
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule, check_schedule
from diffviz.errors import InputError, check_array
from diffviz.files.images import from_uint8

MAX_VALUE = 1e9
"""Of data; float32 must hold their squares with room to spare."""
PART = 2**20
"""Bytes of the arrays that a denoiser works on at a time; they fit in a core's cache."""
LEAST = 1e-12
"""Variance that stands in for 0, of a point at t = 0."""


class GaussianDenoiser:
    """The exact denoiser of N(mean, std² I), or of independent coordinates with their own std.

    ε̂ = √(1−ᾱ)(x − √ᾱ mean)/(ᾱ std² + 1 − ᾱ), affine in x.

    Args:
        schedule: gives ᾱ_t.
        mean: a number, or an array of any shape D.
        std: a number ≥ 0, or an array of shape D.

    Raises:
        InputError: values that are not finite, a negative std, shapes that do not fit.
    """

    def __init__(self, schedule: NoiseSchedule, mean: ArrayLike, std: ArrayLike) -> None:
        center, spread = _numbers("mean", mean), _numbers("std", std)
        if (spread < 0).any():
            raise InputError(f"std is {spread.tolist()}; allowed is std ≥ 0")
        if spread.ndim and spread.shape != center.shape:
            raise InputError(f"mean has shape {center.shape} and std {spread.shape}; not the same")
        self.schedule, self.mean, self.std = check_schedule(schedule), center, spread
        self.sample_shape = center.shape
        self.name = f"gaussian({_short(center)}, {_short(spread)})"
        self.digest = _digest(schedule, mean=center, std=spread)
        self.classes: tuple[str, ...] = ()
        wide = np.broadcast_to(spread, center.shape)
        self.law = DataLaw(
            mean=center,
            std=wide,
            locations=center.reshape(-1),
            scales=wide.reshape(-1),
            weights=np.full(center.size, 1 / center.size),
        )

    def __call__(self, x: Tensor, t: int | Tensor, context: Tensor | None = None) -> Tensor:
        """ε̂ of ``x`` (B, *D) at the one time ``t``."""
        alpha_bar = self.schedule.alpha_bars[one_time(t, self.schedule.T)]
        variance = torch.as_tensor(alpha_bar * self.std**2 + 1 - alpha_bar).to(x)
        offset = x - torch.as_tensor(np.sqrt(alpha_bar) * self.mean).to(x)
        return offset * (float(np.sqrt(1 - alpha_bar)) / variance)


class MixtureDenoiser:
    r"""The exact denoiser of Σ_k w_k N(m_k, s_k² I).

    ε̂ = √(1−ᾱ) Σ_k r_k(x) (x − √ᾱ m_k)/v_k with v_k = ᾱ s_k² + 1 − ᾱ and responsibilities
    r_k ∝ w_k N(x; √ᾱ m_k, v_k I).

    Args:
        schedule: gives ᾱ_t.
        means: (K,) for numbers, (K, *D) for vectors.
        stds: (K,), s_k ≥ 0.
        weights: (K,), positive; they are scaled to sum to 1.

    Raises:
        InputError: shapes that differ in K, a negative std, a weight that is not positive.
    """

    def __init__(
        self, schedule: NoiseSchedule, means: ArrayLike, stds: ArrayLike, weights: ArrayLike
    ) -> None:
        self.schedule = check_schedule(schedule)
        self.means, self.stds = _numbers("means", means), _numbers("stds", stds)
        shares = _numbers("weights", weights)
        if self.means.ndim < 1 or not (
            self.stds.shape == shares.shape == self.means.shape[:1] != (0,)
        ):
            raise InputError(
                f"means {self.means.shape}, stds {self.stds.shape} and weights {shares.shape}; "
                "allowed are (K, *D), (K,) and (K,)"
            )
        if (self.stds < 0).any() or (shares <= 0).any():
            raise InputError(
                f"stds are {self.stds.tolist()} and weights {shares.tolist()}; "
                "allowed are stds ≥ 0 and weights > 0"
            )
        self.weights = shares / shares.sum()
        self.sample_shape = self.means.shape[1:]
        modes = "; ".join(
            f"{weight:.3g}·N({_short(mean)}, {std:g}²)"
            for mean, std, weight in zip(self.means, self.stds, self.weights, strict=True)
        )
        self.name = f"mixture({modes})"
        self.digest = _digest(schedule, means=self.means, stds=self.stds, weights=self.weights)
        self.classes: tuple[str, ...] = ()
        self.law = _law_of(self.means, self.stds, self.weights)
        self._components = _Components(self.means, self.stds)
        self._prior = torch.from_numpy(np.log(self.weights))

    def __call__(self, x: Tensor, t: int | Tensor, context: Tensor | None = None) -> Tensor:
        """ε̂ of ``x`` (B, *D) at the one time ``t``."""
        alpha_bar = float(self.schedule.alpha_bars[one_time(t, self.schedule.T)])
        prior = self._prior.to(x.device).expand(len(x), -1)
        return self._components.answer(x, alpha_bar, prior)


class DatasetDenoiser:
    """The exact denoiser of a finite set, every member equally likely.

    ε̂ = (x − √ᾱ Σ_i w_i x_i)/√(1−ᾱ), w = softmax_i(−‖x − √ᾱ x_i‖²/(2(1−ᾱ))), a mixture of
    points. A context of class weights c draws x_i with probability c_k/N_k, k its class and N_k
    the number of images of that class; the zero vector means no class.

    Args:
        schedule: gives ᾱ_t.
        images: (N, *D) floats, or uint8 (N, H, W, C), which become [−1, 1].
        labels: (N,) class of each image, when there are classes.
        classes: the names that the labels index.
        name: what to call the set.

    Raises:
        InputError: an empty set, values that are not finite real numbers, labels that are not
            one index of a class for each image.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        images: NDArray[np.generic],
        labels: NDArray[np.integer] | None = None,
        classes: Sequence[str] = (),
        name: str = "images",
    ) -> None:
        images = np.asarray(images)
        if images.dtype == np.uint8 and images.ndim == 4:
            images = from_uint8(images.astype(np.uint8, copy=False))
        points = _numbers("images", images)
        self.schedule = check_schedule(schedule)
        self.law = DataLaw.of_images(points, labels, classes)
        self.classes, kinds = self.law.classes, self.law.labels
        self.sample_shape = points.shape[1:]
        self.name = f"dataset({name}, N={len(points)})"
        known = {} if kinds is None else {"labels": kinds}
        self.digest = _digest(schedule, images=points, **known)
        self._labels = None if kinds is None else torch.from_numpy(kinds)
        self._components = _Components(points, np.zeros(len(points)))

    def __call__(self, x: Tensor, t: int | Tensor, context: Tensor | None = None) -> Tensor:
        """ε̂ of ``x`` (B, *D) at the one time ``t``, given class weights (B, K) or (1, K).

        Raises:
            InputError: a context of another shape, or of a set without classes.
        """
        alpha_bar = float(self.schedule.alpha_bars[one_time(t, self.schedule.T)])
        return self._components.answer(x, alpha_bar, self._prior(context, x))

    def _prior(self, context: Tensor | None, x: Tensor) -> Tensor:
        """Log P(x_i | c) up to a constant, (B, N) or what expands to it."""
        if context is None:
            return torch.zeros(1, 1, dtype=torch.float64, device=x.device).expand(len(x), 1)
        count = len(self.classes)
        if self._labels is None:
            raise InputError("context is given; allowed is None, the images have no classes")
        if tuple(context.shape) not in ((len(x), count), (1, count)):
            raise InputError(
                f"context has shape {tuple(context.shape)}; allowed is ({len(x)}, {count})"
            )
        sizes = torch.bincount(self._labels, minlength=count).clamp(min=1)
        each = (context.double().cpu() / sizes)[:, self._labels]
        each[each.sum(dim=1) == 0] = 1
        return each.log().to(x.device).expand(len(x), -1)


class _Components:
    """Σ_k N(m_k, s_k² I), centred and in float64.

    Logits from |a|² + |b|² − 2ab in uncentred float32 are off by several units at low noise.
    """

    def __init__(self, means: NDArray[np.float64], stds: NDArray[np.float64]) -> None:
        flat = torch.from_numpy(means.reshape(len(means), -1))
        self.center = flat.mean(dim=0)
        self.points = flat - self.center
        self.squares, self.variances = (self.points**2).sum(dim=1), torch.from_numpy(stds**2)

    def answer(self, x: Tensor, alpha_bar: float, prior: Tensor) -> Tensor:
        """ε̂ of ``x`` (B, *D), given the log of the weights ``prior`` (B, K).

        Raises:
            InputError: the samples have another size than the data.
        """
        center, points, squares, own = (
            part.to(x.device) for part in (self.center, self.points, self.squares, self.variances)
        )
        root, left = alpha_bar**0.5, max(1 - alpha_bar, LEAST)
        v = (alpha_bar * own + left)[:, None]
        constant = -alpha_bar / 2 * squares[:, None] / v - points.shape[1] / 2 * v.log()
        alike = bool((own == own[0]).all())  # then |y|² is the same for all
        flat = x.flatten(1) if x.ndim > 1 else x[:, None]
        if flat.shape[1] != points.shape[1]:
            raise InputError(
                f"x has shape {tuple(x.shape)}, {flat.shape[1]} values a sample; the data have "
                f"{points.shape[1]}"
            )
        eps = torch.empty_like(flat)
        # The float64 arrays take at most PART bytes; matrix products gain from long rows.
        length = max(1, 2 * PART // max(points.shape))
        for first in range(0, len(x), length):
            rows = slice(first, first + length)
            y = flat[rows].T.double() - root * center[:, None]  # (D, rows): the long axis last
            logits = (points @ y).mul_(root / v).add_(constant).add_(prior[rows].T)
            if not alike:
                logits -= (y**2).sum(dim=0) / (2 * v)
            share = torch.softmax(logits, dim=0).div_(v)
            answer = y.mul_(share.sum(dim=0)).sub_(points.T @ share, alpha=root)
            eps[rows] = answer.mul_(left**0.5).T
        return eps.reshape(x.shape)


def _law_of(
    means: NDArray[np.float64], stds: NDArray[np.float64], weights: NDArray[np.float64]
) -> DataLaw:
    """The law of a mixture; its modes are the points, each a class of its own."""
    d = int(np.prod(means.shape[1:]))
    column = (-1, *[1] * (means.ndim - 1))
    mean = (weights.reshape(column) * means).sum(axis=0)
    second = (weights.reshape(column) * (means**2 + stds.reshape(column) ** 2)).sum(axis=0)
    return DataLaw(
        mean=mean,
        std=np.sqrt(np.maximum(second - mean**2, 0)),
        locations=means.reshape(-1),
        scales=np.repeat(stds, d),
        weights=np.repeat(weights / d, d),
        points=means.astype(np.float32),
        shares=weights,
        labels=np.arange(len(means)),
        classes=tuple(f"mode {_short(mean)}" for mean in means),
    )


def _numbers(field: str, values: ArrayLike) -> NDArray[np.float64]:
    array = check_array(field, values)
    if not np.isfinite(array).all():
        raise InputError(f"{field} holds a value that is not finite")
    if np.abs(array).max(initial=0) > MAX_VALUE:
        largest = array.flat[np.abs(array).argmax()]
        raise InputError(f"{field} holds {largest:g}; allowed is ±{MAX_VALUE:g}")
    return array


def _short(value: NDArray[np.float64]) -> str:
    return f"{value:g}" if value.ndim == 0 else f"{value.shape}-array"


def _digest(schedule: NoiseSchedule, **arrays: NDArray[np.generic]) -> str:
    """SHA-256 of all that an exact denoiser's answers depend on, names and shapes included."""
    parts = {"alpha_bars": schedule.alpha_bars, **arrays}
    return tensors_digest({name: torch.tensor(array) for name, array in parts.items()})
