"""What is known about the data, and so about the marginal q(x_t) at every noise level.

x_t = √ᾱ x_0 + √(1−ᾱ) ε. One coordinate of x_t, drawn at random, follows a mixture of Gaussians
whenever one coordinate of x_0 does, so its CDF is exact for Gaussian data, for mixtures, and for
any finite set of images: 8-bit pixels have at most 256 values, each an atom of scale 0. Nothing has
to be forward-noised and no second sample adds its own scatter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

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
        labels: the class of each point, (N,).
        classes: the names that the labels index.
    """

    mean: Array
    std: Array
    locations: Array
    scales: Array
    weights: Array
    points: NDArray[np.float32] | None = None
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

    def distance_to_mean(self, alpha_bar: float) -> float:
        """RMS distance of x_t to √ᾱ μ, per coordinate: √(ᾱ·mean σ² + 1 − ᾱ)."""
        return float(np.sqrt(alpha_bar * (self.std**2).mean() + 1 - alpha_bar))

    def marginal_cdf(self, x: NDArray[np.floating], alpha_bar: float) -> Array:
        """P(one coordinate of x_t ≤ x), float64, of the shape of ``x``."""
        x = np.asarray(x, dtype=np.float64)
        scales = np.sqrt(alpha_bar * self.scales**2 + 1 - alpha_bar)
        shifts = np.sqrt(alpha_bar) * self.locations
        total = np.zeros_like(x)
        for weight, shift, scale in zip(self.weights, shifts, scales, strict=True):
            total += weight * (ndtr((x - shift) / scale) if scale > 0 else x >= shift)
        return total
