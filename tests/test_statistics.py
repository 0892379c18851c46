"""Statistics against scipy, and the laws of a monoid."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffviz.measure.ks import (
    CELLS,
    NORMAL,
    Mixture,
    ks_of_counts,
    ks_pvalue,
    ks_quantile,
    ks_statistic,
)
from diffviz.measure.moments import Moments
from diffviz.recording.statistics import count, measure, measure_marginal, sorted_rows

floats = st.floats(-1e3, 1e3, width=32)
samples = hnp.arrays(np.float64, st.integers(1, 60), elements=floats)


def moments_of(x, orders=4):
    """By their definition, over the last axis."""
    mean = x.mean(axis=-1)
    powers = [((x - mean[..., None]) ** k).sum(axis=-1) for k in range(2, orders + 1)]
    return Moments(float(x.shape[-1]), np.stack([mean, *powers]))


def scipy_d(x, cdf="norm"):
    return scipy.stats.kstest(np.asarray(x, dtype=np.float64).reshape(-1), cdf).statistic


EDGES = [0.0, -0.0, 0.5, -3.0, 5e-324, 1e-310, 1e300, -1e300, np.inf, -np.inf, 8.0, -8.0, 9.0]


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(max_dims=3, max_side=20),
        elements=st.floats(-100, 100, width=16) | st.sampled_from([0.0, 0.5, -3.0, 2.0**-9]),
    )
    | hnp.arrays(
        np.float64,
        st.integers(60, 300),
        elements=st.sampled_from(EDGES) | st.floats(allow_nan=False),
        fill=st.sampled_from(EDGES),
    ),
    st.sampled_from([np.float64, np.float32, np.float16, None]),
)
def test_ks_equals_scipy(x, dtype):
    """Any shape, ties, tails, subnormal, huge, infinite, nearly all equal. Kills: D+ alone, i
    instead of i − 1, a difference of infinities, a value on an edge counted left of it."""
    with np.errstate(over="ignore"):
        x = x if dtype is None else x.astype(dtype)
    assert ks_statistic(x) == pytest.approx(scipy_d(x), abs=1e-12)


SHAPES = {
    "normal": lambda z: z,
    "narrow": lambda z: 0.02 * z,
    "one cell": lambda z: 1e-4 * z,
    "wide": lambda z: 5 * z + 3,
    "tanh": lambda z: np.tanh(3 * z),
    "ties": lambda z: np.round(z, 1),
    "on the edges": lambda z: np.rint(z * 512) / 512,
    "beside the edges": lambda z: np.nextafter(np.rint(z * 512) / 512, np.float32(z)),
    "constant": lambda z: np.full_like(z, 0.3),
    "infinite": lambda z: np.where(np.arange(z.size) % 97 == 0, np.inf, z),
    "beyond": lambda z: z + 20,
    "below": lambda z: z - 20,
}


@pytest.mark.parametrize("name", SHAPES)
def test_ks_equals_scipy_on_large_samples(name):
    """Kills: a cell left out that holds the largest distance, a rank off by one in it."""
    for n in (1, 2, 33, 1000, 49_152):
        z = SHAPES[name](np.random.default_rng(n).normal(0.01, 0.99, size=n))
        for x in (z, z.astype(np.float32), z.astype(np.float16)):
            assert ks_statistic(x) == pytest.approx(scipy_d(x), abs=1e-12)
    for whole in (np.arange(-3, 4), np.array([True, False, True])):
        assert ks_statistic(whole) == pytest.approx(scipy_d(whole), abs=1e-12)


def test_ks_of_nan_empty_and_words():
    assert np.isnan(ks_statistic([0.0, np.nan]))
    for wrong in ([], ["a"], [None], np.array([1j])):
        with pytest.raises(ValueError, match="allowed are real numbers"):
            ks_statistic(wrong)


@pytest.mark.parametrize("n", [1, 5, 60, 99, 100, 500, 49_152])
def test_ks_pvalue_against_the_exact_law(n):
    """Kills: Kolmogorov's limit without the correction, 2–9 % off at n = 500; the limit below 100,
    where the exact law is given to all digits."""
    p = np.array([0.9, 0.5, 0.1, 0.05, 0.02])
    d = scipy.stats.kstwo.isf(p, n)
    np.testing.assert_allclose(ks_pvalue(d, n), p, rtol=1e-6 if n < 100 else 0.01)
    assert np.isnan(ks_pvalue(np.nan, n)) and np.isnan(ks_pvalue(0.1, 0))
    assert ks_pvalue(ks_quantile(0.05, n), n) == pytest.approx(0.05, rel=1e-6)


LAWS = {
    "normal": NORMAL,
    "two modes": Mixture(np.array([-1.0, 2.0]), np.array([0.2, 0.5]), np.array([0.3, 0.7])),
    "pixels, noised": Mixture(np.linspace(-1, 1, 40), np.full(40, 0.1), np.full(40, 1 / 40)),
    "pixels": Mixture(np.linspace(-1, 1, 256), np.zeros(256), np.full(256, 1 / 256)),
    "a point": Mixture(np.array([0.5]), np.zeros(1), np.ones(1)),
}


def drawn(law, n, rng):
    k = rng.choice(len(law.weights), n, p=law.weights)
    return (law.locations[k] + law.scales[k] * rng.normal(size=n)).astype(np.float32)


@pytest.mark.parametrize("name", LAWS)
def test_rows_are_compared_each_with_its_own_law(name):
    """D over (arms, times) as scipy has it, or over the edges where a law says so; the laws of the
    times differ. Kills: the law of another time, D without one of its sides, a missing root."""
    rng, law = np.random.default_rng(1), LAWS[name]
    laws = [law, Mixture(law.locations + 0.3, law.scales, law.weights)]
    x = np.stack([[drawn(one, 700, rng) + shift for one in laws] for shift in (0, 0.05)])
    distance, cells = measure_marginal(sorted_rows(torch.from_numpy(x)), laws, True)
    for a, i in np.ndindex(2, 2):
        wide = x[a, i].astype(np.float64)
        expected = scipy_d(wide, laws[i].cdf) if laws[i].exact else None
        if expected is None:
            edges = laws[i].edges[np.isfinite(laws[i].edges)]
            share = (wide[:, None] < edges).mean(axis=0)
            expected = np.abs(share - laws[i].cdf(edges)).max()
        assert distance[a, i].item() == pytest.approx(expected, abs=1e-9)
        assert cells[a, i].sum() == 700


@pytest.mark.parametrize("name", LAWS)
def test_edges_lie_between_the_atoms(name):
    """They rise, none lies on an atom, and a sample that is the law has D near 0. Kills: edges on
    atoms, where rounding decides on which side a pixel counts."""
    law = LAWS[name]
    edges = law.edges[np.isfinite(law.edges)]
    assert len(law.edges) == CELLS - 1 and (np.diff(edges) > 0).all()
    atoms = law.locations[law.scales == 0]
    assert np.abs(edges[:, None] - atoms).min(initial=1) > 1e-3
    if len(atoms):
        x = torch.from_numpy(np.tile(law.locations, 30)[None, None].astype(np.float32))
        for nudge in (0, 1e-4, -1e-4):
            assert measure_marginal(sorted_rows(x + nudge), [law], False)[0].item() < 1e-12
        far = measure_marginal(sorted_rows(x * 0 + 0.77), [law], False)[0].item()
        assert far > 0.7


@given(st.lists(samples, min_size=1, max_size=4), st.sampled_from(["normal", "two modes"]))
def test_merged_counts_bound_the_exact_distance(parts, name):
    """D of the whole lies within the bounds from added counts. Kills: an edge off by one, a value
    on an edge counted on both sides."""
    law = LAWS[name]
    rows = [sorted_rows(torch.from_numpy(part)[None, None]) for part in parts]
    counts = sum(count(row, torch.from_numpy(law.edges))[0, 0].numpy() for row in rows)
    middle, half = ks_of_counts(counts, law)
    assert abs(scipy_d(np.concatenate(parts), law.cdf) - middle) <= half + 1e-12
    assert half <= 1 / CELLS or len(np.concatenate(parts)) < 60


def test_merged_counts_know_the_distance_of_a_large_sample():
    """To half a cell, one part in 2,048. Kills: cells much wider than that."""
    x = np.random.default_rng(1).normal(0.01, 1, size=20_000)
    counts = count(sorted_rows(torch.from_numpy(x)[None, None]), torch.from_numpy(NORMAL.edges))
    middle, half = ks_of_counts(counts[0, 0].numpy(), NORMAL)
    assert half <= 0.51 / CELLS and abs(middle - scipy_d(x)) <= half


@given(st.lists(samples, min_size=1, max_size=5), st.sampled_from([2, 4]))
def test_moments_of_parts_are_moments_of_the_whole(parts, orders):
    """In any grouping, beside nothing as well, and nothing merged has changed. Kills: a wrong term
    of the binomial, the mean of the smaller part, an empty accumulator that is counted."""
    nothing = Moments(np.zeros(()), np.zeros(orders))
    each = [moments_of(part, orders) for part in parts]
    before = [part.sums.copy() for part in each]
    whole = moments_of(np.concatenate(parts), orders)
    scale = max(np.abs(np.concatenate(parts)).max(), 1.0) ** np.arange(1, orders + 1)
    left, right = nothing, nothing
    for part in each:
        left = left.merge(part)
    for part in reversed(each):
        right = part.merge(right)
    for merged in (left, right):
        assert merged.n == whole.n
        np.testing.assert_array_less(np.abs(merged.sums - whole.sums), 1e-10 * whole.n * scale)
    np.testing.assert_array_equal(before, [part.sums for part in each])
    assert nothing.merge(nothing).n == 0 and np.isnan(nothing.mean)


def test_moments_against_scipy():
    """By numpy and by torch from sorted values. Kills: n for n − 1 in the std, no −3 in the
    kurtosis, the third sum for the fourth."""
    x = np.random.default_rng(0).gamma(2.0, size=(3, 500)) + 1e3
    edges = torch.zeros(1, dtype=torch.float64)
    rows = measure(sorted_rows(torch.from_numpy(x)[None]), edges, None)
    for m in (moments_of(x), Moments(500, rows.sums[:, 0].numpy())):
        np.testing.assert_allclose(m.std, x.std(axis=1, ddof=1), rtol=1e-9)
        np.testing.assert_allclose(m.skewness, scipy.stats.skew(x, axis=1), rtol=1e-6)
        np.testing.assert_allclose(m.kurtosis, scipy.stats.kurtosis(x, axis=1), rtol=1e-6)
    constant = moments_of(np.full(5, 2.0))
    assert constant.std == 0 and np.isnan(constant.skewness) and np.isnan(constant.kurtosis)
    assert np.isnan(moments_of(np.ones(1)).std)


@given(st.lists(st.integers(-300, 400), min_size=1))
def test_counts_hold_every_value_once(bins):
    """Values outside go to the outer bins. Kills: dropping them, a bin off by one."""
    middles = torch.tensor(-4.5 + (np.array(bins) + 0.5) * 9 / 128, dtype=torch.float32)
    expected = np.bincount(np.clip(bins, 0, 127), minlength=128)
    edges = torch.linspace(-4.5, 4.5, 129, dtype=torch.float64)[1:-1]
    counts = count(sorted_rows(middles[None, None]), edges)[0, 0].numpy()
    np.testing.assert_array_equal(counts, expected)
