"""Count, mean and central sums, which add up: the moments of a whole from those of its parts."""

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Count n, and ``sums``: the mean and Σ(x − mean)^k for k = 2, or for k = 2, 3, 4.

    A frozen monoid, elementwise over any shape. Sums are merged about the mean of both (Pébay,
    SAND2008-6212, eq. 2.1), which stays accurate for a small spread around a large mean.

    Attributes:
        n: one number for all, or an array of the shape.
        sums: (k, *shape), 2 or 4 of them.
    """

    n: Any
    sums: Array

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both samples together; where one holds nothing, those of the other."""
        n = self.n + other.n
        share = other.n / np.where(n > 0, n, 1)
        apart = other.sums[0] - self.sums[0]
        parts = self._about(-share * apart), other._about((1 - share) * apart)
        mean = self.sums[0] + share * apart
        return Moments(n, np.stack([mean, *(a + b for a, b in zip(*parts, strict=True))]))

    def _about(self, shift: Array) -> list[Array]:
        """Σ(x − mean + shift)^k for each k from 2 on."""
        central = [self.n, 0.0, *self.sums[1:]]
        return [
            sum(comb(k, j) * central[k - j] * shift**j for j in range(k + 1))
            for k in range(2, len(central))
        ]

    @property
    def mean(self) -> Array:
        """The mean; NaN of nothing."""
        return np.where(self.n > 0, self.sums[0], np.nan)

    @property
    def variance(self) -> Array:
        """Σ(x − mean)²/(n − 1), unbiased; NaN below two values."""
        return _ratio(self.sums[1], self.n - 1)

    @property
    def std(self) -> Array:
        """The root of ``variance``."""
        return np.sqrt(self.variance)

    @property
    def skewness(self) -> Array:
        """Third standardised moment (biased, as scipy's default); NaN for a constant sample."""
        return _ratio(_ratio(self.sums[2], self.n), _ratio(self.sums[1], self.n) ** 1.5)

    @property
    def kurtosis(self) -> Array:
        """Excess kurtosis (biased, as scipy's default); NaN for a constant sample."""
        return _ratio(_ratio(self.sums[3], self.n), _ratio(self.sums[1], self.n) ** 2) - 3


def _ratio(a: Array, b: Any) -> Array:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.asarray(b) > 0)
