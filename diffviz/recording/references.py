r"""What q(x_t) says about each curve of a run: its reference, and the band of a right sampler.

A reference is a number of the law q(x_t). A run of n samples scatters about it: the band from low
to high holds 95 % of the runs whose x_t are n independent draws from q(x_t). The mean and the
variance of each statistic are exact. Its law is taken as normal for a mean, and for a variance as
a scaled χ² with that mean and variance (Satterthwaite 1946), which is exact for Gaussian numbers.
D lies between 0 and the 95 % point of its law: Kolmogorov's for independent values of one law, and
else that of the largest value of a Gaussian process with the covariance of the empirical CDF.

All is NaN where the law of the data is not known, or only its moments.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from diffviz.diffusion.law import DataLaw
from diffviz.measure.ks import Mixture, component_cdf, ks_quantile
from diffviz.recording.run import BANDS

Array = NDArray[np.float64]
Band = tuple[Array, Array]

NORMAL = 1.959963984540054
"""97.5 % point of N(0, 1)."""
TIMES = 17
"""Times, denser towards 0, at which the law of D is simulated; the rest is interpolated."""
DRAWS = 1000
EDGES = 96
POINTS = 384
"""Data points that stand for all of them in that simulation."""


class Feature(NamedTuple):
    """Moments over the data of f_i = mean_c (p_ic − centre)², for x_0 = p_i + s_i·noise.

    Attributes:
        mean: E f.
        with_scale: E f·s².
        spread: Var(f + s²).
    """

    mean: float
    with_scale: float
    spread: float


class Features(NamedTuple):
    """What the bands need to know about the data, for samples of d values.

    Attributes:
        about_mean, about_level, within: f about the mean per coordinate, about the mean over all
            coordinates, and about the mean of the sample itself (with d − 1).
        scale2, scale4: E s², E s⁴.
        level: variance of the mean of a sample's p_i.
        square: tr(C²)/d² of the covariance C of the p_i; None for independent coordinates.
    """

    d: int
    about_mean: Feature
    about_level: Feature
    within: Feature
    scale2: float
    scale4: float
    level: float
    square: float | None


def bands(law: DataLaw | None, bars: Array, n: int, d: int, residuals: int) -> dict[str, Array]:
    """``*_low`` and ``*_high`` of each curve that has a band, over the times of ᾱ_t = ``bars``.

    Args:
        law: the law of the data.
        bars: (S+1,), of which the last is that of t = 0.
        n: samples, each of ``d`` values.
        d: see ``n``.
        residuals: values behind each number about the residual.
    """
    unknown = np.full(len(bars), np.nan)
    found: dict[str, Band] = dict.fromkeys(BANDS, (unknown, unknown))
    if law is not None and law.sampled:
        found |= _moment_bands(law, bars, n, d)
        found["ks_marginal"] = np.zeros(len(bars)), _ks_high(law, bars, n, d)
    before = np.where(np.arange(len(bars)) < len(bars) - 1, 1.0, np.nan)  # t = 0 has no residual
    low, high = _scaled_chi2(np.ones(1), np.full(1, 2 / max(residuals - 1, 1)))
    found["residual_std"] = before * low, before * high
    found["residual_ks"] = 0 * before, before * ks_quantile(0.05, max(residuals, 1))
    return {
        f"{name}_{end}": values
        for name, band in found.items()
        for end, values in zip(("low", "high"), band, strict=True)
    }


def _moment_bands(law: DataLaw, bars: Array, n: int, d: int) -> dict[str, Band]:
    data = _features(law, d)
    left = 1 - bars
    noise2 = bars * data.scale2 + left  # E v², with v² = ᾱ s² + 1 − ᾱ
    noise4 = bars**2 * data.scale4 + 2 * bars * left * data.scale2 + left**2
    pairs = n * (n - 1) if n > 1 else np.nan

    def mean(feature: Feature) -> Array:
        return bars * feature.mean + noise2

    def variance(feature: Feature, count: int) -> Array:
        """Of the feature of one sample of x_t: between the data, and from noise given x_0."""
        cross = bars * feature.with_scale + left * feature.mean
        return bars**2 * feature.spread + (4 * bars * cross + 2 * noise4) / max(count, 1)

    level = bars * data.level + noise2 / d  # variance of the mean of one sample of x_t
    center = np.sqrt(bars) * (law.weights @ law.locations)
    width = NORMAL * np.sqrt(level / n)
    if data.square is None:
        square = noise4 / d
    else:  # tr(Σ²)/d² of Σ = ᾱ C + E v² I
        square = bars**2 * data.square + (2 * bars * noise2 * data.about_mean.mean + noise2**2) / d
    of_mean = variance(data.about_mean, d)
    pooled = (mean(data.about_level) - level / n) * (n * d / (n * d - 1) if n * d > 1 else np.nan)
    of_pooled = variance(data.about_level, d) / n + (2 * level**2 / pairs if n > 1 else 0)
    within = mean(data.within) if d > 1 else np.full(len(bars), np.nan)
    return {
        "mean": (center - width, center + width),
        "std": _scaled_chi2(pooled, of_pooled),
        "std_between": _scaled_chi2(mean(data.about_mean), of_mean / n + 2 * square / pairs),
        "std_within": _scaled_chi2(within, variance(data.within, d - 1) / n),
        "distance_to_mean": _scaled_chi2(mean(data.about_mean), of_mean / n),
    }


def _scaled_chi2(mean: Array, variance: Array) -> Band:
    """2.5 % and 97.5 % points of the root of mean·χ²_ν/ν that has this variance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        nu = 2 * mean**2 / variance
        low, high = (
            np.where(nu < 1e12, np.sqrt(mean * chdtri(nu, p) / nu), np.sqrt(mean))
            for p in (0.975, 0.025)
        )
    return low, high


def _features(law: DataLaw, d: int) -> Features:
    if law.points is None:  # independent coordinates N(mean_c, std_c²)
        s2, mean = law.std.reshape(-1) ** 2, law.mean.reshape(-1)
        apart = (mean - mean.mean()) ** 2
        level = Feature(float(apart.mean()), float((apart * s2).mean()), 0.0)
        more = d / max(d - 1, 1)
        within = Feature(level.mean * more, level.with_scale * more, 0.0)
        nothing = Feature(0.0, 0.0, 0.0)
        moments = float(s2.mean()), float((s2**2).mean())
        return Features(d, nothing, level, within, *moments, 0.0, None)
    shares, s2 = law.shares_of_points, law.point_scales**2
    sums = np.zeros((3, len(shares)))
    levels = np.zeros(len(shares))
    overall = float(law.weights @ law.locations)
    center = law.mean.reshape(-1)
    for rows in np.array_split(np.arange(len(shares)), max(1, len(shares) // 1024)):
        points = law.points[rows].reshape(len(rows), -1).astype(np.float64)
        levels[rows] = points.mean(axis=1)
        sums[0, rows] = ((points - center) ** 2).mean(axis=1)
        sums[1, rows] = ((points - overall) ** 2).mean(axis=1)
        sums[2, rows] = points.var(axis=1) * d / max(d - 1, 1)

    def feature(values: Array) -> Feature:
        total = values + s2
        spread = shares @ (total - shares @ total) ** 2
        return Feature(float(shares @ values), float(shares @ (values * s2)), float(spread))

    spread = float(shares @ (levels - shares @ levels) ** 2)
    square = float((law.principal[0] ** 2).sum()) / d**2
    moments = float(shares @ s2), float(shares @ s2**2)
    return Features(
        d, feature(sums[0]), feature(sums[1]), feature(sums[2]), *moments, spread, square
    )


def _ks_high(law: DataLaw, bars: Array, n: int, d: int) -> Array:
    """95 % point of D of n·d pooled values from the pooled law."""
    one_law = law.points is None and np.ptp(law.locations) == np.ptp(law.scales) == 0
    if len(law.locations) == 1 or one_law:
        return np.full(len(bars), ks_quantile(0.05, n * d))
    u = np.linspace(0, 1, min(TIMES, len(bars)))
    chosen = np.unique(np.rint((len(bars) - 1) * (1 - u**2)).astype(int))
    rng = np.random.default_rng(0)
    share, given = np.zeros(0), None
    if law.points is not None:
        few, chances, scales = law.few_points(POINTS)
        share = rng.multinomial(n, chances, DRAWS) / n - chances
        given = _GivenPoint(few, scales, np.unique(law.locations))
    noise = rng.standard_normal((DRAWS, EDGES)) / np.sqrt(n)
    high = []
    for bar in bars[chosen]:
        pooled = law.marginal(float(bar))
        edges = _quantiles(pooled)
        table = component_cdf(edges, pooled.locations, pooled.scales)
        cdf = pooled.weights @ table
        inner = np.minimum(cdf[:, None], cdf) - (table * pooled.weights[:, None]).T @ table
        values, vectors = np.linalg.eigh(inner / d)
        deviation = noise @ (vectors * np.sqrt(np.maximum(values, 0))).T
        if given is not None:
            deviation += share @ given.cdf(float(bar), edges)
        high.append(np.quantile(np.abs(deviation).max(axis=1), 0.95))
    # Between two edges D grows by about this much (Siegmund 1979, for a Brownian bridge).
    high = np.array(high) + 0.583 / np.sqrt(EDGES * n * d)
    return np.interp(np.arange(len(bars)), chosen, high)


def _quantiles(law: Mixture) -> Array:
    """``EDGES`` points of about equal mass between them."""
    reach = 4 * law.scales
    grid = np.linspace((law.locations - reach).min(), (law.locations + reach).max(), 2048)
    return np.interp((np.arange(EDGES) + 0.5) / EDGES, law.cdf(grid), grid)


class _GivenPoint:
    """The CDF of one coordinate of x_t, given which of the data (N, d) x_0 lies at."""

    def __init__(self, points: Array, scales: Array, places: Array) -> None:
        self.points, self.scales, self.places = points, scales, places
        self.counts = None
        if not scales.any():  # pixels have few values: how often is enough
            index = np.searchsorted((self.places[1:] + self.places[:-1]) / 2, points)
            rows = [np.bincount(row, minlength=len(self.places)) for row in index]
            self.counts = np.stack(rows) / points.shape[1]

    def cdf(self, bar: float, edges: Array) -> Array:
        """(N, edges) at ᾱ = ``bar``."""
        if self.counts is not None:
            left = np.full(len(self.places), np.sqrt(1 - bar))
            return self.counts @ component_cdf(edges, np.sqrt(bar) * self.places, left)
        scales = np.sqrt(bar * self.scales**2 + 1 - bar)
        rows = zip(np.sqrt(bar) * self.points, scales, strict=True)
        each = [component_cdf(edges, row, np.full(len(row), s)).mean(axis=0) for row, s in rows]
        return np.stack(each)
