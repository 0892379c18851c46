"""Statistics against scipy, and the laws of a monoid."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffviz.measure.statistics import (
    CELLS,
    Grid,
    Moments,
    Spread,
    _by_counting,
    _by_sorting,
    histogram,
    ks_distances,
    ks_pvalue,
    ks_statistic,
    normal_grid,
)

floats = st.floats(-1e3, 1e3, width=32)
samples = hnp.arrays(np.float64, st.integers(1, 60), elements=floats)


def scipy_d(x):
    return scipy.stats.kstest(np.asarray(x, dtype=np.float64).reshape(-1), "norm").statistic


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(max_dims=3, max_side=20),
        elements=st.floats(-100, 100, width=16) | st.sampled_from([0.0, 0.5, -3.0]),
    )
)
def test_ks_equals_scipy(x):
    """Any shape, ties and tails. Kills: D+ alone, i instead of i − 1, a bucket left out."""
    assert ks_statistic(x) == pytest.approx(scipy_d(x), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "shape",
    [
        lambda z: z,
        lambda z: 0.02 * z,
        lambda z: 5 * z + 3,
        lambda z: np.tanh(3 * z),
        lambda z: np.round(z, 1),
        lambda z: np.full_like(z, 0.3),
        lambda z: z + 100,
        lambda z: np.where(np.arange(z.size) % 97 == 0, np.inf, z),
        lambda z: np.where(z > 0, 1e30, z),
        lambda z: np.sort(z)[::-1],
    ],
)
def test_ks_equals_scipy_on_large_samples(shape, seed):
    """Sorted or counted, whichever is quicker here: the same bits. Kills: branch and bound that
    leaves out the bucket of the largest distance."""
    z = np.random.default_rng(seed).normal(size=49_152)
    for x in (shape(z), shape(z).astype(np.float32)):
        distance = ks_statistic(x)
        assert distance == pytest.approx(scipy_d(x), abs=1e-12)
        if x.min() < x.max():
            assert distance == _by_sorting(x) == _by_counting(x, x.min(), x.max())


EDGES = [0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e300, -1e300, np.inf, -np.inf, 4.5, -4.5, 9.0, -9.0]


@given(
    hnp.arrays(
        np.float64,
        st.integers(4097, 6000),
        elements=st.sampled_from(EDGES) | st.floats(allow_nan=False),
        fill=st.sampled_from(EDGES),
    ),
    st.sampled_from([np.float64, np.float32, np.float16]),
)
def test_ks_equals_scipy_at_the_ends_of_the_numbers(x, dtype):
    """Subnormal, huge, infinite, nearly all equal. Kills: buckets so narrow that their number per
    unit overflows, a sum of ∞ − ∞."""
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    assert ks_statistic(x) == pytest.approx(scipy_d(x), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 33, 34, 4096, 16_384, 16_385, 400_000])
def test_ks_equals_scipy_at_every_size(n):
    """On both sides of the size from which buckets are used, and for integers and truths."""
    x = np.random.default_rng(n).normal(0.1, 0.9, size=n)
    for values in (x, x.astype(np.float16), np.rint(x * 2).astype(np.int8), x > 0, x[::-1]):
        assert ks_statistic(values) == pytest.approx(scipy_d(values), abs=1e-12)


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([5, 200, 3000]),
    st.integers(0, 2**32 - 1),
)
def test_rows_are_compared_each_with_its_own_null(groups, rows, n, seed):
    """Kills: ranks or values of a row counted to its neighbour; a grid of another group."""
    rng = np.random.default_rng(seed)
    x = rng.normal(rng.normal(size=(groups, rows, 1)), rng.uniform(0.01, 2), (groups, rows, n))
    x = x.astype(np.float32)
    nulls = [scipy.stats.norm(rng.normal(), rng.uniform(0.5, 2)) for _ in range(groups)]
    grids = [Grid.of(null.cdf, null.mean() - 8, null.mean() + 8) for null in nulls]
    distance, filling = ks_distances(x, grids)
    for g, a in np.ndindex(groups, rows):
        wide = x[g, a].astype(np.float64)
        expected = scipy.stats.kstest(wide, nulls[g].cdf).statistic
        assert distance[g, a] == pytest.approx(expected, abs=1e-12)
    assert (filling.sum(axis=-1) == n).all()


def test_ks_of_nan_empty_and_words():
    assert np.isnan(ks_statistic([0.0, np.nan]))
    for wrong in ([], ["a"], [None], np.array([1j])):
        with pytest.raises(ValueError, match="allowed are real numbers"):
            ks_statistic(wrong)


@pytest.mark.parametrize("n", [5, 60, 100, 500, 49_152])
def test_ks_pvalue_against_the_exact_law(n):
    """Kills: Kolmogorov's limit without the correction, 2–9 % off at n = 500."""
    p = np.array([0.9, 0.5, 0.1, 0.05, 0.02])
    d = scipy.stats.kstwo.isf(p, n)
    np.testing.assert_allclose(ks_pvalue(d, n), p, rtol=0.01)
    assert np.isnan(ks_pvalue(np.nan, n)) and np.isnan(ks_pvalue(0.1, 0))


@given(st.lists(samples, min_size=1, max_size=5))
def test_moments_of_parts_are_moments_of_the_whole(parts):
    """Kills: a wrong cross term in any of Pébay's formulas."""
    merged = Moments.empty()
    before = [Moments.of(part) for part in parts]
    for part in before:
        merged = merged.merge(part)
    whole = np.concatenate(parts)
    direct = Moments.of(whole)
    scale = max(np.abs(whole).max(), 1.0)
    for name, power in (("mean", 1), ("m2", 2), ("m3", 3), ("m4", 4)):
        np.testing.assert_allclose(
            getattr(merged, name), getattr(direct, name), atol=1e-10 * len(whole) * scale**power
        )
    assert merged.n == len(whole)
    for part, again in zip(before, parts, strict=True):  # nothing merged has changed
        np.testing.assert_array_equal(part.m4, Moments.of(again).m4)


@given(samples, samples, samples)
def test_merging_is_associative_with_identity(a, b, c):
    """Kills: an empty accumulator that is aliased or counted."""
    x, y, z = (Moments.of(v) for v in (a, b, c))
    left, right = x.merge(y).merge(z), x.merge(y.merge(z))
    scale = max(np.abs(np.concatenate([a, b, c])).max(), 1.0)
    np.testing.assert_allclose(left.m4, right.m4, atol=1e-9 * scale**4 * len(a + 1))
    empty = Moments.empty()
    for side in (empty.merge(x), x.merge(empty)):
        for name in ("n", "mean", "m2", "m3", "m4"):
            np.testing.assert_array_equal(getattr(side, name), getattr(x, name))
    np.testing.assert_array_equal(empty.merge(empty).n, 0)


def test_moments_against_scipy():
    """Kills: n for n − 1 in the std, no −3 in the kurtosis."""
    x = np.random.default_rng(0).gamma(2.0, size=(3, 500)) + 1e4
    m = Moments.of(x)
    np.testing.assert_allclose(m.std, x.std(axis=1, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(m.skewness, scipy.stats.skew(x, axis=1), rtol=1e-6)
    np.testing.assert_allclose(m.kurtosis, scipy.stats.kurtosis(x, axis=1), rtol=1e-6)
    constant = Moments.of(np.full(5, 2.0))
    assert constant.std == 0 and np.isnan(constant.skewness) and np.isnan(constant.kurtosis)
    assert np.isnan(Moments.of(np.ones(1)).std)


@given(hnp.arrays(np.float64, (8, 3), elements=floats), st.integers(1, 7))
def test_spread_of_parts_is_spread_of_the_whole(x, cut):
    """Kills: n for n·m/(n + m) in the cross term."""
    whole = Spread.of(x, axis=0)
    parts = Spread.of(x[:cut], axis=0).merge(Spread.of(x[cut:], axis=0))
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-9)
    np.testing.assert_allclose(parts.m2, whole.m2, atol=1e-7)
    np.testing.assert_allclose(whole.std, x.std(axis=0, ddof=1), atol=1e-9)


@given(st.lists(samples, min_size=1, max_size=4))
def test_merged_counts_bound_the_exact_distance(parts):
    """D of the whole lies within the bounds from added counts, which are less than 1/512 apart
    plus ties. Kills: an edge off by one, < for ≤ at a cell."""
    grid = normal_grid()
    counts = sum(grid.ks(part)[1] for part in parts)
    low, high = grid.ks_bounds(counts)
    exact = ks_statistic(np.concatenate(parts))
    assert low <= exact <= high


def test_no_cell_of_the_normal_grid_weighs_more_than_one_in_1024():
    """So merged D is known to ± one part in 1,024 for a continuous sample."""
    grid = normal_grid()
    edges = np.append(grid.edge_cdf[grid.cell_starts], 1.0)
    assert np.diff(edges).max() <= 1 / 1024
    assert len(grid.cell_starts) <= CELLS
    x = np.random.default_rng(1).normal(size=20_000)
    low, high = grid.ks_bounds(grid.ks(x)[1])
    assert high - low <= 1 / 1024 + 2e-5 + 40 / 20_000


def test_grid_over_edges_is_within_one_bucket():
    """``exact=False`` may fall short by a bucket's mass, never more. Kills: skipping the edges."""
    x = np.random.default_rng(2).normal(0.1, 1, size=5000)
    exact = Grid.of(scipy.stats.norm.cdf, -5, 5)
    coarse = Grid.of(scipy.stats.norm.cdf, -5, 5, buckets=512, exact=False)
    mass = np.diff(coarse.edge_cdf).max()
    assert 0 <= exact.ks(x)[0] - coarse.ks(x)[0] <= mass + 30 / 5000


@given(st.lists(st.integers(-300, 400), min_size=1))
def test_histogram_counts_every_value_once(bins):
    """Values outside go to the outer bins. Kills: dropping them, a bin off by one."""
    middles = (-4.5 + (np.array(bins) + 0.5) * 9 / 128).astype(np.float32)
    expected = np.bincount(np.clip(bins, 0, 127), minlength=128)
    np.testing.assert_array_equal(histogram(middles, -4.5, 4.5, 128), expected)
