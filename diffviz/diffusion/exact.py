r"""Denoisers in closed form: ε̂ = E[ε | x_t] for data whose law is known.

By Tweedie's formula ε̂ = −√(1−ᾱ_t) ∇ log q(x_t); for Gaussian data, mixtures of Gaussians and
finite sets the marginal q(x_t) is again a mixture: nothing is trained, nothing is approximate.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from diffviz.diffusion.denoiser import one_time, tensors_digest
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.files.images import checked_labels, from_uint8

MAX_VALUE = 1e9
"""Of data, whose squares float32 must hold with room to spare."""
PART = 2**20
"""Bytes of the arrays that a denoiser works on at a time; a core's own cache holds as many."""
KEPT = 2**18
"""Numbers that a mixture keeps of each kind that depends on t alone."""


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
        self.schedule = schedule
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
        self._center = self.means.reshape(len(self.means), -1).mean(axis=0)
        self._steps: dict[tuple[torch.dtype, torch.device], list[_Step]] = {}
        self.law = self._law()

    def _law(self) -> DataLaw:
        k, d = len(self.means), int(np.prod(self.sample_shape))
        column = (-1, *[1] * len(self.sample_shape))
        weights = self.weights.reshape(column)
        mean = (weights * self.means).sum(axis=0)
        second = (weights * (self.means**2 + self.stds.reshape(column) ** 2)).sum(axis=0)
        return DataLaw(
            mean=mean,
            std=np.sqrt(np.maximum(second - mean**2, 0)),
            locations=self.means.reshape(-1),
            scales=np.repeat(self.stds, d),
            weights=np.repeat(self.weights / d, d),
            points=self.means.astype(np.float32),
            shares=self.weights,
            labels=np.arange(k),
            classes=tuple(f"mode {_short(mean)}" for mean in self.means),
        )

    def __call__(self, x: Tensor, t: int | Tensor, context: Tensor | None = None) -> Tensor:
        """ε̂ of ``x`` (B, *D) at the one time ``t``."""
        step = self._step(one_time(t, self.schedule.T), x)
        flat = x.reshape(len(x), -1)
        eps = torch.empty_like(flat)
        for rows in _parts(len(x), max(step.pull.shape)):
            y = flat[rows].T.contiguous() - step.center  # (D, rows): the long axis last
            logits = torch.addmm(step.constant, step.pull, y)
            if step.curvature is not None:
                logits.addr_(step.curvature, (y * y).sum(dim=0))
            logits -= logits.amax(dim=0)
            share = logits.to(x.dtype).exp_()
            sums = step.weights @ share
            answer = (y.to(x.dtype) * sums[-2]).sub_(sums[:-2])
            eps[rows] = answer.div_(sums[-1]).T
        return eps.reshape(x.shape)

    def _step(self, t: int, x: Tensor) -> "_Step":
        """What depends on t alone; kept for all t if that is little, as small samples are quick.

        All are made at once: small arrays that stay, made between large ones that go, would keep
        the memory of those from being used again.
        """
        if self.means.size * (self.schedule.T + 1) > KEPT:
            return self._made(self.schedule.alpha_bars[t : t + 1], x)[0]
        key = x.dtype, x.device
        if key not in self._steps:
            self._steps[key] = self._made(self.schedule.alpha_bars, x)
        return self._steps[key][t]

    def _made(self, bars: NDArray[np.float64], x: Tensor) -> list["_Step"]:
        """One for each of ``bars`` (times,)."""
        root, left = np.sqrt(bars)[:, None], 1 - bars[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):  # at t = 0 a mode may be a point
            variances = root**2 * self.stds**2 + left
            pull = root[..., None] * (self.means.reshape(len(self.means), -1) - self._center)
            constant = np.log(self.weights) - pull.shape[-1] / 2 * np.log(variances)
            constant -= (pull**2).sum(axis=-1) / variances / 2
            pull /= variances[..., None]
            sums = np.concatenate(
                [
                    pull.swapaxes(1, 2) * np.sqrt(left)[..., None],
                    (np.sqrt(left) / variances)[:, None],
                    np.ones_like(variances)[:, None],
                ],
                axis=1,
            )
            curvature = -0.5 / variances
        alike = bool((self.stds == self.stds[0]).all())  # then |y|² is the same for all modes
        tables = (
            _wide((root * self._center)[..., None], x).unbind(),
            _wide(pull, x).unbind(),
            _wide(constant[..., None], x).unbind(),
            [None] * len(bars) if alike else _wide(curvature, x).unbind(),
            _like(sums, x).unbind(),
        )
        return [_Step(*row) for row in zip(*tables, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_steps": {}}


class _Step(NamedTuple):
    """log w_k N(x; √ᾱ m_k, v_k I) = constant_k + y·pull_k − |y|²/2v_k about a common centre.

    In float64, up to what all k share; ``curvature`` is −1/2v_k. The rows of ``weights`` give, for
    responsibilities r_k that are not normalised yet, √(1−ᾱ) Σ r_k pull_k, √(1−ᾱ) Σ r_k/v_k and
    Σ r_k, in the dtype of x.
    """

    center: Tensor
    pull: Tensor
    constant: Tensor
    curvature: Tensor | None
    weights: Tensor


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
        self.schedule, self.mean, self.std = schedule, center, spread
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
        variance = _like(alpha_bar * self.std**2 + 1 - alpha_bar, x)
        offset = x - _like(np.sqrt(alpha_bar) * self.mean, x)
        return offset * (float(np.sqrt(1 - alpha_bar)) / variance)


class DatasetDenoiser:
    """The exact denoiser of a finite set, every member equally likely.

    ε̂ = (x − √ᾱ Σ_i w_i x_i)/√(1−ᾱ), w = softmax_i(−‖x − √ᾱ x_i‖²/(2(1−ᾱ))). The set is centred
    and the logits are float64: with uncentred float32 they are off by several units at low noise.
    A context of class weights c draws x_i with probability c_k/N_k, k its class and N_k the number
    of images of that class; the zero vector means no class.

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
        if points.ndim < 1 or points.size == 0:
            raise InputError(f"images have shape {points.shape}; allowed is (N, *D) with N ≥ 1")
        kinds = None if labels is None else checked_labels(labels, len(points), len(classes))
        self.schedule = schedule
        self.sample_shape = points.shape[1:]
        self.classes = tuple(classes)
        self.law = DataLaw.of_images(points.astype(np.float32), kinds, self.classes)
        self.name = f"dataset({name}, N={len(points)})"
        known = {} if kinds is None else {"labels": kinds}
        self.digest = _digest(schedule, images=points, **known)
        self._labels = None if kinds is None else torch.from_numpy(kinds)
        flat = torch.from_numpy(points.reshape(len(points), -1))
        self._center = flat.mean(dim=0)
        self._points = flat - self._center
        self._squares = (self._points**2).sum(dim=1)

    def __call__(self, x: Tensor, t: int | Tensor, context: Tensor | None = None) -> Tensor:
        """ε̂ of ``x`` (B, *D) at the one time ``t``, given class weights (B, K) or (1, K).

        Raises:
            InputError: a context of another shape, or of a set without classes.
        """
        if self._points.device != x.device:
            self._center, self._points, self._squares = (
                tensor.to(x.device) for tensor in (self._center, self._points, self._squares)
            )
        alpha_bar = self.schedule.alpha_bars[one_time(t, self.schedule.T)]
        prior = None if context is None else self._log_prior(context, x)
        root, left = float(np.sqrt(alpha_bar)), max(float(1 - alpha_bar), 1e-12)
        flat = x.reshape(len(x), -1)
        eps = torch.empty_like(flat)
        for rows in _parts(len(x), max(self._points.shape) / 16):  # long rows repay in products
            y = flat[rows].double() - root * self._center
            # −‖y − √ᾱ p_i‖²/2(1−ᾱ) without the part that all i share
            logits = torch.addmm(
                self._squares, y, self._points.T, beta=-alpha_bar / 2 / left, alpha=root / left
            )
            if prior is not None:
                logits += prior[rows]
            nearest = torch.softmax(logits, dim=1) @ self._points
            eps[rows] = (y - root * nearest) / np.sqrt(left)
        return eps.reshape(x.shape)

    def _log_prior(self, context: Tensor, x: Tensor) -> Tensor:
        """Log P(x_i | c) up to a constant, (B, N)."""
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


def _parts(count: int, width: float) -> Iterator[slice]:
    """Slices of a batch whose float64 arrays (slice, width) take at most ``PART`` bytes."""
    length = max(1, int(PART / (8 * width)))
    return (slice(first, first + length) for first in range(0, count, length))


def _numbers(field: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        given = np.asarray(values)
        if given.dtype.kind == "c":
            raise InputError(f"{field} is an array of {given.dtype}; allowed are real numbers")
        array = given.astype(np.float64)  # a copy
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{field} is not an array of numbers") from None
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


def _wide(values: NDArray[np.float64], x: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device=x.device)


def _like(values: NDArray[np.float64], x: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=x.dtype, device=x.device)
