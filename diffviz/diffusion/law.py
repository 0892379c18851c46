"""What is known about the data, and so about the marginal q(x_t) at every noise level.

x_t = √ᾱ x_0 + √(1−ᾱ) ε. One coordinate of x_t, drawn at random, follows a mixture of Gaussians
whenever one coordinate of x_0 does, so its CDF is known for Gaussian data, for mixtures, and for
any finite set of images: 8-bit pixels have at most 256 values, each an atom of scale 0. Nothing
has to be forward-noised and no second sample adds its own scatter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffviz.errors import InputError, check_array, check_names
from diffviz.files.images import checked_labels
from diffviz.measure.ks import SIMPLE, Mixture

Array = NDArray[np.float64]
MAX_ATOMS = 1022


@dataclass(frozen=True, eq=False)
class DataLaw:
    """Moments of the data per coordinate, the law of one coordinate, and the modes or images.

    Attributes:
        mean: mean of x_0, shape D (the sample's shape).
        std: standard deviation of each coordinate of x_0 between samples, shape D.
        locations, scales, weights: the pooled law of one coordinate of x_0,
            Σ_k weights_k N(locations_k, scales_k²), each (K,).
        points: the images, or the means of the modes, (N, *D); None when only moments are known.
        shares: probability of each point, (N,).
        labels: the class of each point, (N,).
        classes: the names that the labels index.
    """

    mean: Array
    std: Array
    locations: Array
    scales: Array
    weights: Array
    points: NDArray[np.float32] | None = None
    shares: Array | None = None
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of_images(
        cls,
        images: NDArray[np.floating],
        labels: NDArray[np.integer] | None = None,
        classes: Sequence[str] = (),
    ) -> "DataLaw":
        """The law of a finite set of ``images`` (N, *D), every member equally likely.

        ``labels`` (N,) index ``classes``, when there are any.

        More than 1,022 different pixel values are gathered into as many equally filled atoms.

        Raises:
            InputError: no real numbers, no images, or labels that are not one class each.
        """
        images = check_array("images", images).astype(np.float32)
        if images.ndim < 1 or not images.size:
            raise InputError(f"images have shape {images.shape}; allowed is (N, *D) with N ≥ 1")
        classes = check_names("classes", classes)
        kinds = None if labels is None else checked_labels(labels, len(images), len(classes))
        values, counts = np.unique(images, return_counts=True)
        if len(values) > MAX_ATOMS:
            parts = np.array_split(np.sort(images, axis=None).astype(np.float64), MAX_ATOMS)
            values = np.array([part.mean() for part in parts])
            counts = np.array([len(part) for part in parts])
        return cls(
            mean=images.mean(axis=0, dtype=np.float64),
            std=images.std(axis=0, dtype=np.float64),
            locations=values.astype(np.float64),
            scales=np.zeros(len(values)),
            weights=counts / counts.sum(),
            points=images,
            shares=np.full(len(images), 1 / len(images)),
            labels=kinds,
            classes=classes,
        )

    def only(self, label: int) -> "DataLaw":
        """The law of one class. Needs points and labels.

        Raises:
            InputError: no point is of that class.
        """
        assert self.points is not None and self.labels is not None
        mask = self.labels == label
        if not mask.any():
            raise InputError(f"class is {self.classes[label]!r}; no image is of that class")
        return DataLaw.of_images(self.points[mask], self.labels[mask], self.classes)

    def moments(self, alpha_bars: ArrayLike) -> dict[str, Array]:
        """Mean and spread of q(x_t), each over the shape of ``alpha_bars``; NaN where not known.

        ``mean`` √ᾱ μ, and √(ᾱ·v + 1 − ᾱ) for ``std``, v the variance pooled over coordinates;
        ``std_between``, v the mean over coordinates of the variance between samples, and with it
        ``distance_to_mean``, the RMS distance per coordinate to √ᾱ μ; ``std_within``, v the mean
        over samples of the variance within one, with d − 1.
        """
        bars = np.asarray(alpha_bars, dtype=np.float64)
        center = self.weights @ self.locations
        pooled = self.weights @ (self.scales**2 + (self.locations - center) ** 2)
        between = (self.std**2).mean()
        variances = {
            "std": pooled,
            "std_between": between,
            "std_within": self._variance_within,
            "distance_to_mean": between,
        }
        stds = {name: np.sqrt(bars * v + 1 - bars) for name, v in variances.items()}
        return {"mean": np.sqrt(bars) * center, **stds}

    @cached_property
    def _variance_within(self) -> float:
        """Mean of the variance within one sample of x_0; NaN where it is not known."""
        if not self.sampled or self.mean.size < 2:
            return float("nan")
        if self.points is None:
            return float(self.mean.var(ddof=1) + (self.std**2).mean())
        rows = self.points.reshape(len(self.points), -1)
        within = rows.var(axis=1, ddof=1, dtype=np.float64) + self.point_scales**2
        return float(self.shares_of_points @ within)

    @property
    def sampled(self) -> bool:
        """Whether the law is known whole: modes, images, or independent Gaussian coordinates."""
        if self.points is not None:
            return self.shares is not None
        return len(self.scales) == self.mean.size and bool((self.scales > 0).all())

    @property
    def shares_of_points(self) -> Array:
        """``shares``, which sum to 1."""
        assert self.shares is not None
        return self.shares / self.shares.sum()

    @cached_property
    def point_scales(self) -> Array:
        """Std of the data about each point, (N,)."""
        assert self.points is not None
        if not self.scales.any():
            return np.zeros(len(self.points))
        return self.scales.reshape(len(self.points), -1)[:, 0]

    def few_points(self, count: int) -> tuple[Array, Array, Array]:
        """(points (count, d), their shares, their scales): all, or a fixed choice of ``count``."""
        assert self.points is not None
        shares, chosen = self.shares_of_points, np.arange(len(self.points))
        if len(chosen) > count:
            chosen = np.sort(np.random.default_rng(0).choice(len(chosen), count, replace=False))
        flat = self.points[chosen].reshape(len(chosen), -1).astype(np.float64)
        return flat, shares[chosen] / shares[chosen].sum(), self.point_scales[chosen]

    @cached_property
    def principal(self) -> tuple[Array, Array]:
        """(values (k,), vectors (d, k)) of the covariance of the points, the largest last.

        Of all points where a sample has up to 1,022 values, else of as many points.
        """
        assert self.points is not None
        d = self.mean.size
        if d <= MAX_ATOMS:
            total = np.zeros((d, d))
            center, shares = self.mean.reshape(-1), self.shares_of_points
            for rows in np.array_split(np.arange(len(shares)), max(1, len(shares) // 1024)):
                apart = self.points[rows].reshape(len(rows), -1) - center
                total += apart.T @ (shares[rows, None] * apart)
            return np.linalg.eigh(total)
        few, shares, _ = self.few_points(MAX_ATOMS)
        apart = (few - shares @ few) * np.sqrt(shares)[:, None]
        values, vectors = np.linalg.eigh(apart @ apart.T)
        kept = values > 1e-9 * values[-1]
        return values[kept], apart.T @ vectors[:, kept] / np.sqrt(values[kept])

    @cached_property
    def plane(self) -> tuple[Array, Array] | None:
        """(directions (2, d), std of x_0 along each) of the first two principal components.

        The largest entry of a direction is positive. None for numbers, and where only moments are
        known.
        """
        d = self.mean.size
        if d < 2 or not self.sampled:
            return None
        if self.points is None:
            axes = np.sort(np.argsort(-self.std.reshape(-1), kind="stable")[:2])
            return np.eye(d)[axes], self.std.reshape(-1)[axes]
        values, vectors = self.principal
        directions = np.eye(d)[:2]
        directions[: min(2, len(values))] = vectors.T[::-1][:2]
        for row in directions:
            row *= np.sign(row[np.abs(row).argmax()]) or 1.0
        variances = np.zeros(2)
        variances[: min(2, len(values))] = np.maximum(values[::-1][:2], 0)
        return directions, np.sqrt(variances + self.shares_of_points @ self.point_scales**2)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """``n`` draws from the data (n, d), flat, with ``rng``; for a law that is known whole."""
        if self.points is None:
            noise = rng.standard_normal((n, self.mean.size))
            return self.mean.reshape(-1) + self.std.reshape(-1) * noise
        which = rng.choice(len(self.points), n, p=self.shares_of_points)
        flat = self.points[which].reshape(n, -1).astype(np.float64)
        scales = self.point_scales[which, None]
        return flat + scales * rng.standard_normal(flat.shape) if scales.any() else flat

    @cached_property
    def _components(self) -> tuple[Array, Array, Array]:
        """(locations, scales, weights) of the pooled law, each pair once, in rising order."""
        pairs, group = np.unique(self.locations + 1j * self.scales, return_inverse=True)
        weights = np.bincount(group, self.weights).astype(np.float64)
        return pairs.real, pairs.imag, weights

    def marginal(self, alpha_bar: float) -> Mixture:
        """The law of one coordinate of x_t, pooled over coordinates, with ᾱ_t = ``alpha_bar``.

        More than ``SIMPLE`` components are thinned: those of one scale whose locations lie within
        a quarter of it are gathered, mean and variance kept, which changes the CDF by less than
        1e-4.
        """
        locations, scales, weights = self._components
        shifts = np.sqrt(alpha_bar) * locations
        scales = np.sqrt(alpha_bar * scales**2 + 1 - alpha_bar)
        if alpha_bar == 1 or len(shifts) <= SIMPLE:
            return Mixture(shifts, scales, weights)
        cells = np.floor(shifts * 4 / scales) + 1j * scales
        _, group = np.unique(cells, return_inverse=True)
        gathered = np.bincount(group, weights).astype(np.float64)
        means: Array = np.bincount(group, weights * shifts) / gathered
        spread = np.bincount(group, weights * (shifts - means[group]) ** 2) / gathered
        square = np.bincount(group, weights * scales**2) / gathered
        return Mixture(means, np.sqrt(square + spread), gathered)
