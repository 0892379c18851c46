"""What is known about the data, and so about the marginal q(x_t) at every noise level.

x_t = √ᾱ x_0 + √(1−ᾱ) ε. One coordinate of x_t, drawn at random, follows a mixture of Gaussians
whenever one coordinate of x_0 does, so its CDF is known for Gaussian data, for mixtures, and for
any finite set of images: 8-bit pixels have at most 256 values, each an atom of scale 0. Nothing
has to be forward-noised and no second sample adds its own scatter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from diffviz.statistics import Grid

Array = NDArray[np.float64]
MAX_ATOMS = 1024


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
        """The law of a finite set (N, *D), every member equally likely.

        More than 1,024 different pixel values are gathered into as many equally filled atoms.
        """
        images = np.asarray(images, dtype=np.float32)
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
            labels=None if labels is None else np.asarray(labels, dtype=np.int64),
            classes=tuple(classes),
        )

    def only(self, label: int) -> "DataLaw":
        """The law of one class. Needs points and labels."""
        assert self.points is not None and self.labels is not None
        mask = self.labels == label
        return DataLaw.of_images(self.points[mask], self.labels[mask], self.classes)

    def marginal_mean(self, alpha_bar: float) -> float:
        """Mean of one coordinate of x_t, pooled over coordinates."""
        return float(np.sqrt(alpha_bar) * (self.weights @ self.locations))

    def marginal_std(self, alpha_bar: float) -> float:
        """Std of one coordinate of x_t, pooled: image structure and diversity together."""
        center = self.weights @ self.locations
        variance = self.weights @ (self.scales**2 + (self.locations - center) ** 2)
        return float(np.sqrt(alpha_bar * variance + 1 - alpha_bar))

    def marginal_std_between(self, alpha_bar: float) -> float:
        """Std of x_t between samples, per coordinate, then averaged over coordinates."""
        return float(np.sqrt(alpha_bar * self.std**2 + 1 - alpha_bar).mean())

    def marginal_std_within(self, alpha_bar: float) -> float:
        """Root mean square over samples of the std within one sample of x_t; NaN for a number.

        The pooled second moment about each sample's own mean, with n − 1:
        Σ_c Var + Σ_c (μ_c − μ̄)² less the variance of the sample's mean, known for points only.
        """
        if self.points is None or self.mean.size < 2 or not np.all(self.scales == 0):
            return float("nan")
        within = self.points.reshape(len(self.points), -1).var(axis=1, ddof=1, dtype=np.float64)
        return float(np.sqrt(alpha_bar * within.mean() + 1 - alpha_bar))

    def distance_to_mean(self, alpha_bar: float) -> float:
        """RMS distance of x_t to √ᾱ μ, per coordinate: √(ᾱ·mean σ² + 1 − ᾱ)."""
        return float(np.sqrt(alpha_bar * (self.std**2).mean() + 1 - alpha_bar))

    def marginal_components(self, alpha_bar: float) -> tuple[Array, Array, Array]:
        """(locations, scales, weights) of the pooled law of one coordinate of x_t.

        Components of one scale whose locations lie within an eighth of that scale are gathered,
        mean and variance kept, which changes the CDF by less than 1e-5.
        """
        shifts = np.sqrt(alpha_bar) * self.locations
        scales = np.sqrt(alpha_bar * self.scales**2 + 1 - alpha_bar)
        if scales.min() == 0:
            return shifts, scales, self.weights
        cells = np.stack([np.floor(shifts * 8 / scales), scales])
        _, group = np.unique(cells, axis=1, return_inverse=True)
        weights = np.bincount(group, self.weights).astype(np.float64)
        means: Array = np.bincount(group, self.weights * shifts) / weights
        spread = np.bincount(group, self.weights * (shifts - means[group]) ** 2) / weights
        square = np.bincount(group, self.weights * scales**2) / weights
        return means, np.sqrt(square + spread), weights

    def marginal_grid(self, alpha_bar: float) -> Grid:
        """The grid on which D against q(x_t), pooled over coordinates, is measured.

        With up to 8 smooth components D is exact; with more, or with atoms, it is taken over the
        edges of the grid.
        """
        shifts, scales, weights = self.marginal_components(alpha_bar)

        def cdf(x: Array) -> Array:
            total = np.zeros(len(x))
            for weight, shift, scale in zip(weights, shifts, scales, strict=True):
                total += weight * (ndtr((x - shift) / scale) if scale > 0 else x >= shift)
            return total

        low, high = float((shifts - 5 * scales).min()), float((shifts + 5 * scales).max())
        if scales.min() == 0:  # edges between the atoms, never on them
            low, high = low - 0.01, high + 0.0123
        simple = len(shifts) <= 8 and scales.min() > 0
        return Grid.of(cdf, low, high, buckets=8192 if simple else 1024, exact=simple)
