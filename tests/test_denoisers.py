"""The exact denoisers against quadrature, autograd and brute force; the law of the data."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffviz.diffusion.denoiser import Description, describe
from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser, MixtureDenoiser
from diffviz.diffusion.law import MAX_ATOMS, DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.files.images import from_uint8

SCHEDULE = NoiseSchedule.linear(100, 1e-4, 0.08)
times = st.integers(1, 100)


@given(times, st.floats(-3, 3), st.floats(0.05, 2), st.floats(-4, 4))
def test_gaussian_is_the_posterior_mean_by_quadrature(t, mean, std, x):
    """E[ε | x_t] = ∫ ε(x_0) p(x_0) q(x_t | x_0) dx_0 / ∫. Kills: ᾱ for √ᾱ, std for std²."""
    bar = SCHEDULE.alpha_bars[t]

    def weight(x_0):
        log = -((x_0 - mean) ** 2) / (2 * std**2)
        return np.exp(log - (x - np.sqrt(bar) * x_0) ** 2 / (2 * (1 - bar)) - shift)

    grid = np.linspace(mean - 12 * std, mean + 12 * std, 20_001)
    shift = 0.0
    logs = -((grid - mean) ** 2) / (2 * std**2) - (x - np.sqrt(bar) * grid) ** 2 / (2 * (1 - bar))
    shift = logs.max()
    mass = scipy.integrate.simpson(weight(grid), grid)
    eps = (x - np.sqrt(bar) * grid) / np.sqrt(1 - bar)
    expected = scipy.integrate.simpson(eps * weight(grid), grid) / mass
    exact = GaussianDenoiser(SCHEDULE, mean, std)(torch.tensor([x], dtype=torch.float64), t)
    assert exact.item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


def log_marginal(x, t, means, stds, weights):
    """log q(x_t) of a mixture of isotropic Gaussians, up to a constant, differentiable."""
    bar = SCHEDULE.alpha_bars[t]
    variance = torch.tensor(bar * np.square(stds) + 1 - bar)
    square = ((x[:, None] - np.sqrt(bar) * torch.tensor(means)) ** 2).sum(-1)
    d = x.shape[1]
    logs = torch.tensor(np.log(weights)) - square / (2 * variance) - d / 2 * variance.log()
    return torch.logsumexp(logs, dim=1)


@given(times, st.integers(0, 1000), st.integers(1, 4), st.integers(1, 5))
def test_mixture_is_tweedies_formula_by_autograd(t, seed, d, k):
    """ε̂ = −√(1−ᾱ) ∇ log q. Kills: responsibilities without v_k^{−D/2}, or without w_k."""
    rng = np.random.default_rng(seed)
    means, stds = rng.normal(size=(k, d)) * 2, rng.uniform(0.1, 1, k)
    weights = rng.uniform(0.2, 1, k)
    x = torch.tensor(rng.normal(size=(7, d)) * 2, requires_grad=True)
    log_marginal(x, t, means, stds, weights / weights.sum()).sum().backward()
    expected = -np.sqrt(1 - SCHEDULE.alpha_bars[t]) * x.grad
    exact = MixtureDenoiser(SCHEDULE, means, stds, weights)(x.detach(), t)
    torch.testing.assert_close(exact, expected, rtol=1e-9, atol=1e-9)


def test_a_mixture_of_one_is_a_gaussian():
    x = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = MixtureDenoiser(SCHEDULE, [1.5], [0.3], [2.0])
    torch.testing.assert_close(one(x, 40), GaussianDenoiser(SCHEDULE, 1.5, 0.3)(x, 40))


@given(times, st.integers(0, 1000))
def test_dataset_is_a_mixture_of_points_by_autograd(t, seed):
    """Kills: the distance without the factor 2, weights that are not normalised, no centring."""
    rng = np.random.default_rng(seed)
    points = (rng.normal(size=(6, 3)) + 5).astype(np.float32)
    bar = SCHEDULE.alpha_bars[t]
    near = np.sqrt(bar) * points[rng.integers(6, size=8)]
    x = torch.tensor(near + np.sqrt(1 - bar) * rng.normal(size=(8, 3)), requires_grad=True)
    log_marginal(x, t, points.astype(float), np.zeros(6), np.full(6, 1 / 6)).sum().backward()
    expected = -np.sqrt(1 - bar) * x.grad
    exact = DatasetDenoiser(SCHEDULE, points)(x.detach(), t)
    torch.testing.assert_close(exact, expected, rtol=1e-5, atol=1e-5)


def test_dataset_is_accurate_at_low_noise_in_many_dimensions():
    """Float32 logits from |a|² + |b|² − 2ab are off by units here. Kills: float32, no centring."""
    schedule = NoiseSchedule.from_betas([1e-5, 1e-5])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    images[1] = images[0]
    images[1, 0, 0, 0] ^= 1  # two images that differ by one level of one pixel
    denoiser = DatasetDenoiser(schedule, images)
    points = from_uint8(images).astype(np.float64)
    bar = schedule.alpha_bars[1]
    x = np.sqrt(bar) * points[:2] + np.sqrt(1 - bar) * rng.normal(size=(2, 3, 16, 16))
    square = ((x[:, None] - np.sqrt(bar) * points) ** 2).reshape(2, 20, -1).sum(-1)
    w = np.exp(-(square - square.min(1, keepdims=True)) / (2 * (1 - bar)))
    w /= w.sum(1, keepdims=True)
    expected = (x - np.sqrt(bar) * np.einsum("bi,i...->b...", w, points)) / np.sqrt(1 - bar)
    exact = denoiser(torch.tensor(x), 1).numpy()
    np.testing.assert_allclose(exact, expected, atol=2e-3)
    assert 0.01 < w[0, 0] < 0.99


@given(times, st.integers(0, 1000))
def test_moving_the_data_moves_nothing_else(t, seed):
    """ε̂ of x + √ᾱc for data at x_i + c is that of x for data at x_i, also at c = 10⁶. Kills:
    squares of the points themselves instead of their distances from the centre."""
    rng = np.random.default_rng(seed)
    points, bar = rng.normal(size=(6, 3)), SCHEDULE.alpha_bars[t]
    x = np.sqrt(bar) * points + np.sqrt(1 - bar) * rng.normal(size=(6, 3))
    near, far = (
        MixtureDenoiser(SCHEDULE, points + c, np.full(6, 1e-3), np.ones(6))(
            torch.tensor(x + np.sqrt(bar) * c), t
        )
        for c in (0.0, 1e6)
    )
    torch.testing.assert_close(far, near, atol=1e-4, rtol=0)


LAWS = {
    "number": GaussianDenoiser(SCHEDULE, 2.0, 0.5).law,
    "vector": GaussianDenoiser(SCHEDULE, [1.0, -2.0, 0.0], [0.5, 0.1, 1.0]).law,
    "mixture": MixtureDenoiser(SCHEDULE, [[-1.0, 0], [1.5, 2]], [0.2, 0.3], [0.7, 0.3]).law,
    "points": DatasetDenoiser(
        SCHEDULE,  # dark pixels above, bright ones below
        (
            np.arange(48).reshape(4, 4, 3) * 3
            + np.random.default_rng(0).integers(0, 100, (40, 4, 4, 3))
        ).astype(np.uint8),
    ).law,
}


def draw(law, n, rng):
    """Samples of x_0 (n, D), written again from the definition of each law."""
    if law is LAWS["points"]:
        return law.points[rng.integers(len(law.points), size=n)].reshape(n, -1).astype(float)
    if law is LAWS["mixture"]:
        mode = rng.choice(2, size=n, p=[0.7, 0.3])
        means, stds = np.array([[-1.0, 0], [1.5, 2]]), np.array([0.2, 0.3])
        return means[mode] + stds[mode, None] * rng.normal(size=(n, 2))
    mean, std = law.mean.reshape(-1), np.asarray(law.std).reshape(-1)
    return mean + std * rng.normal(size=(n, len(mean)))


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("t", [1, 10, 50, 100])
def test_marginal_statistics_against_simulation(name, t):
    """|z| < 5 for moments, D inside its band. Kills: ᾱ and 1 − ᾱ swapped, std averaged as
    variance, one std for coordinates that have their own, a CDF of one coordinate for the pooled
    one."""
    law, bar, n = LAWS[name], SCHEDULE.alpha_bars[t], 20_000
    rng = np.random.default_rng(5)
    x_0 = draw(law, n, rng)
    x = np.sqrt(bar) * x_0 + np.sqrt(1 - bar) * rng.normal(size=x_0.shape)
    d = x.shape[1]
    scatter = 5 / np.sqrt(n)
    assert abs(x.mean() - law.moments(bar)["mean"]) < scatter * x.std()
    assert x.std() == pytest.approx(law.moments(bar)["std"], rel=2 * scatter)
    between = np.sqrt(x.var(axis=0).mean())
    assert between == pytest.approx(law.moments(bar)["std_between"], rel=scatter)
    distance = np.sqrt(((x - np.sqrt(bar) * law.mean.reshape(-1)) ** 2).mean())
    assert distance == pytest.approx(law.moments(bar)["distance_to_mean"], rel=scatter)
    if d > 1:
        within = np.sqrt(x.var(axis=1, ddof=1).mean())
        assert within == pytest.approx(law.moments(bar)["std_within"], rel=scatter)
    # One coordinate each, drawn at random: independent draws from the pooled law.
    one = x[np.arange(n), rng.integers(d, size=n)]
    elsewhere = law.marginal(SCHEDULE.alpha_bars[60 if t <= 10 else 5])
    near, far = (scipy.stats.kstest(one, q.cdf).statistic for q in (law.marginal(bar), elsewhere))
    assert near < 2.2 / np.sqrt(n) and far > 4 / np.sqrt(n)


def test_the_plane_of_the_data_has_a_side_up():
    """The largest entry of each direction is positive, however the components come out. Kills: a
    map that another machine draws mirrored."""
    for seed in range(6):
        points = np.random.default_rng(seed).normal(size=(30, 5)).astype(np.float32)
        directions, stds = DataLaw.of_images(points).plane
        np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-6)
        assert stds[0] >= stds[1] > 0
        for row in directions:
            assert row[np.abs(row).argmax()] > 0


def test_gathered_components_keep_the_cdf():
    """Within 1e-5 of all 256 atoms. Kills: gathering without the variance inside a group."""
    rng = np.random.default_rng(1)
    law = DataLaw.of_images(from_uint8(rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)))
    x = np.linspace(-3, 3, 301)
    for bar in (0.01, 0.3, 0.9, 0.99):
        direct = scipy.stats.norm.cdf(
            (x[:, None] - np.sqrt(bar) * law.locations) / np.sqrt(1 - bar)
        )
        np.testing.assert_allclose(law.marginal(bar).cdf(x), direct @ law.weights, atol=1e-5)


def test_many_values_become_equally_filled_atoms():
    """Kills: keeping every float as an atom, which makes each step cost seconds."""
    x = np.random.default_rng(2).normal(size=(100, 50)).astype(np.float32)
    law = DataLaw.of_images(x)
    assert len(law.locations) == MAX_ATOMS
    assert law.weights @ law.locations == pytest.approx(x.mean(dtype=np.float64), abs=1e-7)
    assert law.moments(1.0)["std"] == pytest.approx(x.std(dtype=np.float64), rel=1e-3)


IMAGES = np.random.default_rng(4).integers(0, 256, (12, 2, 2, 3), dtype=np.uint8)
KINDS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 0, 0])
CLASSES = ("a", "b", "c")


def pictures(**changed):
    given = {"images": IMAGES, "labels": KINDS, "classes": CLASSES, **changed}
    return DatasetDenoiser(given.pop("schedule", SCHEDULE), **given)


ALL = {
    "gaussian": GaussianDenoiser(SCHEDULE, np.full((3, 2, 2), 0.5), 0.3),
    "mixture": MixtureDenoiser(SCHEDULE, np.zeros((2, 3, 2, 2)), [0.1, 0.2], [1, 2]),
    "dataset": pictures(),
}


@pytest.mark.parametrize("name", ALL)
def test_any_tensor_that_holds_one_time_is_a_time(name):
    """As loops pass it: int, 0-d, (B,), (B, 1, 1, 1), float. Kills: a table indexed by a tensor of
    many, a fraction cut off, a batch of different times answered for the first."""
    denoiser, x = ALL[name], torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = denoiser(x, 7)
    for t in (
        np.int64(7),
        7.0,
        torch.tensor(7),
        torch.full((4,), 7),
        torch.full((4, 1, 1, 1), 7),
        torch.full((1, 1), 7.0),
    ):
        assert torch.equal(denoiser(x, t), expected)
    wrong = [
        True,
        7.5,
        -1,
        101,
        None,
        "7",
        torch.tensor([6, 7]),
        torch.empty(0),
        torch.tensor(0.5),
    ]
    for t in wrong:
        with pytest.raises(InputError, match=r"^t (is|holds) "):
            denoiser(x, t)


def test_digests_see_all_that_changes_answers():
    """Kills: a digest blind to weights, labels, the schedule, or to which number is which."""
    other = NoiseSchedule.linear(100, 1e-4, 0.081)
    made = [
        *(
            GaussianDenoiser(s, m, d)
            for s in (SCHEDULE, other)
            for m, d in ((1, 2), (2, 1), (1, 1))
        ),
        *(
            MixtureDenoiser(s, means, stds, weights)
            for s in (SCHEDULE, other)
            for means, stds, weights in (
                ([0.0, 1], [1, 1], [1, 1]),
                ([0.0, 1], [1, 1], [1, 2]),
                ([0.0, 1], [1, 2], [1, 1]),
                ([0.0, 2], [1, 1], [1, 1]),
                ([[0.0], [1]], [1, 1], [1, 1]),
            )
        ),
        pictures(),
        pictures(schedule=other),
        pictures(images=IMAGES[::-1]),
        pictures(labels=KINDS[::-1]),
        pictures(labels=None, classes=()),
    ]
    assert len({denoiser.digest for denoiser in made}) == len(made)
    assert pictures().digest == pictures().digest


@given(times, st.integers(0, 1000))
def test_a_class_is_the_set_of_its_images(t, seed):
    """One-hot context: that class alone; weights: c_k/N_k each; none or zero: all alike. Kills:
    a context that is dropped, N_k forgotten, the class of another row of the batch."""
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=(3, 3, 2, 2)))
    told = pictures()(x, t, torch.eye(3))
    for k in range(3):
        alone = DatasetDenoiser(SCHEDULE, IMAGES[k == KINDS])
        torch.testing.assert_close(told[k : k + 1], alone(x[k : k + 1], t))
    torch.testing.assert_close(pictures()(x, t, torch.zeros(1, 3)), pictures()(x, t))
    counts = torch.tensor(np.bincount(KINDS))[None].float()  # then every image weighs the same
    torch.testing.assert_close(pictures()(x, t, counts), pictures()(x, t))
    for denoiser, context in ((pictures(), torch.zeros(2, 3)), (pictures(labels=None), None)):
        with pytest.raises(InputError, match="context"):
            denoiser(x, t, torch.zeros(3, 2) if context is None else context)


def test_a_class_without_images_is_named():
    """Kills: a law of nothing, a class that is quietly taken for all."""
    with pytest.raises(InputError, match="class is 'd'; no image is of that class"):
        pictures(classes=(*CLASSES, "d")).law.only(3)


class Declared:
    schedule, sample_shape, name, classes = SCHEDULE, (2,), "mine", ["a", "b"]
    law, digest = GaussianDenoiser(SCHEDULE, [0.0, 1], 1.0).law, "abc"

    def __call__(self, x, t, context=None):
        return x


def test_what_a_denoiser_declares_is_read_and_the_rest_has_defaults():
    """Kills: a part taken for another, a module whose weights are not told apart."""
    found = describe(Declared())
    assert found.schedule is SCHEDULE and found.law is Declared.law
    assert (found.sample_shape, found.name, found.digest) == ((2,), "mine", "abc")
    assert found.classes == ("a", "b")
    plain = describe(lambda x, t: x)
    assert plain == Description(name="function")
    with torch.random.fork_rng():
        one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert describe(one).digest != describe(two).digest and describe(one).name == "Linear"
    assert describe(ALL["dataset"]).classes == CLASSES


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("law", 3), ("name", 7), ("digest", b"x"), ("sample_shape", 5), ("classes", "ab")),
        *(("classes", [1]), ("sample_shape", ["a"])),
    ],
)
def test_a_part_of_another_kind_is_named(part, value):
    """Kills: a name that breaks the file after all was sampled."""
    denoiser = Declared()
    setattr(denoiser, part, value)
    with pytest.raises(InputError, match=f"^the denoiser's {part} is "):
        describe(denoiser)
    with pytest.raises(InputError, match="the denoiser is 3; allowed"):
        describe(3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussianDenoiser(SCHEDULE, 0.0, -1.0), "std is -1"),
        (lambda: GaussianDenoiser(SCHEDULE, np.nan, 1.0), "mean holds a value"),
        (lambda: GaussianDenoiser(SCHEDULE, "two", 1.0), "mean is 'two'"),
        (lambda: GaussianDenoiser(SCHEDULE, [0.0, 1.0], [1.0, 1.0, 1.0]), "not the same"),
        (lambda: MixtureDenoiser(SCHEDULE, [0.0, 1.0], [1.0], [1.0]), "(K, *D)"),
        (lambda: MixtureDenoiser(SCHEDULE, [], [], []), "(K, *D)"),
        (lambda: MixtureDenoiser(SCHEDULE, [0.0], [1.0], [0.0]), "weights > 0"),
        (lambda: DatasetDenoiser(SCHEDULE, np.zeros((0, 3))), "N ≥ 1"),
        (
            lambda: DatasetDenoiser(SCHEDULE, np.zeros((2, 3)), np.zeros(3)),
            "allowed are 2 integers",
        ),
        (lambda: DatasetDenoiser(SCHEDULE, np.full((2, 3), np.inf)), "not finite"),
        (lambda: DatasetDenoiser(SCHEDULE, np.ones((2, 3), complex)), "allowed are real numbers"),
        (
            lambda: MixtureDenoiser(SCHEDULE, [0.0], [1.0], [1.0])(torch.ones(2, 3), 1),
            "x has shape (2, 3), 3 values a sample; the data have 1",
        ),
        (lambda: pictures(labels=KINDS + 1), "labels are 1…3; allowed are 12 integers"),
        (lambda: pictures(labels=KINDS - 1), "labels are -1…1"),
        (lambda: pictures(labels=KINDS / 2), "labels are float64"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value) and "\n" not in str(error.value)
