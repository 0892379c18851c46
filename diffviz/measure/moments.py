"""Count, mean and central sums of samples, which add up: the moments of a whole from its parts.

Both classes are frozen monoids: ``merge`` is associative, and what is merged does not change.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Count, mean and central sums Σ(x − mean)^k for k = 2, 3, 4, elementwise over any shape.

    Merged by the pairwise formulas of Pébay (SAND2008-6212, eq. 2.1), which stay accurate for a
    small spread around a large mean.
    """

    n: Array
    mean: Array
    m2: Array
    m3: Array
    m4: Array

    @classmethod
    def empty(cls, shape: tuple[int, ...] = ()) -> "Moments":
        """The identity of ``merge``."""
        return cls(*(np.zeros(shape) for _ in range(5)))

    @classmethod
    def of(cls, x: NDArray[np.floating]) -> "Moments":
        """Moments over the last axis of ``x``."""
        values = np.asarray(x, dtype=np.float64)
        mean = values.mean(axis=-1)
        centered = values - mean[..., None]
        sums = ((centered**k).sum(axis=-1) for k in (2, 3, 4))
        return cls(np.full(mean.shape, float(values.shape[-1])), mean, *sums)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both samples together."""
        n = self.n + other.n
        safe = np.where(n > 0, n, 1)
        a, b = self.n / safe, other.n / safe
        delta = np.where((self.n > 0) & (other.n > 0), other.mean - self.mean, 0)
        mean = np.where(self.n > 0, self.mean, other.mean) + b * delta
        m2 = self.m2 + other.m2 + delta**2 * a * b * n
        m3 = (
            self.m3
            + other.m3
            + delta**3 * a * b * (a - b) * n
            + 3 * delta * (a * other.m2 - b * self.m2)
        )
        m4 = (
            self.m4
            + other.m4
            + delta**4 * a * b * (a * a - a * b + b * b) * n
            + 6 * delta**2 * (a * a * other.m2 + b * b * self.m2)
            + 4 * delta * (a * other.m3 - b * self.m3)
        )
        return Moments(n, mean, m2, m3, m4)

    @property
    def std(self) -> Array:
        """Standard deviation with n − 1; NaN below two values."""
        return np.sqrt(_ratio(self.m2, self.n - 1))

    @property
    def skewness(self) -> Array:
        """Third standardised moment (biased, as scipy's default); NaN for a constant sample."""
        return _ratio(_ratio(self.m3, self.n), _ratio(self.m2, self.n) ** 1.5)

    @property
    def kurtosis(self) -> Array:
        """Excess kurtosis (biased, as scipy's default); NaN for a constant sample."""
        return _ratio(_ratio(self.m4, self.n), _ratio(self.m2, self.n) ** 2) - 3


@dataclass(frozen=True)
class Spread:
    """Count n (one number for all), mean and Σ(x − mean)² of each of many coordinates."""

    n: float
    mean: Array
    m2: Array

    @classmethod
    def of(cls, x: NDArray[np.floating], axis: int) -> "Spread":
        """Spread over one axis of ``x``."""
        values = np.asarray(x, dtype=np.float64)
        mean = values.mean(axis=axis, keepdims=True)
        m2 = ((values - mean) ** 2).sum(axis=axis)
        return cls(float(values.shape[axis]), mean.squeeze(axis), m2)

    def merge(self, other: "Spread") -> "Spread":
        """The spread of both samples together; both must hold values."""
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Spread(n, mean, self.m2 + other.m2 + delta**2 * (self.n * other.n / n))

    @property
    def variance(self) -> Array:
        """Σ(x − mean)²/(n − 1), unbiased; NaN below two values."""
        return self.m2 / (self.n - 1) if self.n > 1 else np.full(self.m2.shape, np.nan)


def _ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.asarray(b) > 0)
