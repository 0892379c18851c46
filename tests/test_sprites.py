"""Laws of the procedural sprites; each names the mutant it kills."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffviz.errors import InputError
from diffviz.sprites.make import ART, CLASSES, SIZE, make_sprites

SEEDS = st.integers(0, 2**70)


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray]:
    return make_sprites(5000, seed=1)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 40), more=st.integers(1, 40))
def test_a_shorter_set_is_the_prefix_of_a_longer_one(seed, n, more):
    """Kills: one generator for the whole set, or n among the words that seed it."""
    images, labels = make_sprites(n, seed)
    longer, longer_labels = make_sprites(n + more, seed)
    assert np.array_equal(images, longer[:n])
    assert np.array_equal(labels, longer_labels[:n])


def test_another_process_draws_the_same_pixels():
    """Kills: a choice through ``hash`` or a set of strings, or the global generator."""
    code = (
        "import hashlib; from diffviz.sprites.make import make_sprites;"
        "print(hashlib.sha256(make_sprites(50, 3)[0].tobytes()).hexdigest())"
    )
    here = hashlib.sha256(make_sprites(50, 3)[0].tobytes()).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert there == here


def test_the_global_generator_is_left_alone():
    """Kills: drawing from ``np.random`` itself."""
    np.random.seed(0)  # noqa: NPY002
    first = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    make_sprites(5)
    assert np.random.random() == first  # noqa: NPY002


@pytest.mark.parametrize(("one", "other"), [(0, 1), (7, 7 + 2**32), (0, 2**32), (5, 5 + 2**64)])
def test_seeds_differ(one, other):
    """Kills: a seed ignored, or cut to 32 or 64 bits.

    Two sprites agree by chance in about one of thousands, so a tenth is far beyond chance.
    """
    a, b = make_sprites(200, one)[0], make_sprites(200, other)[0]
    assert (a == b).all(axis=(1, 2, 3)).mean() < 0.1


def test_a_seed_does_not_run_into_the_next_one():
    """Kills: seeding with seed + i."""
    first = {image.tobytes() for image in make_sprites(300, 10)[0]}
    for other in (11, 15):
        shared = [image.tobytes() in first for image in make_sprites(300, other)[0]]
        assert np.mean(shared) < 0.1


def test_a_long_seed_does_not_hold_the_index():
    """Kills: the words (seed, i) run together, where (10 + k 2³², 0) and (10, k) are the same."""
    images = make_sprites(101, 10)[0]
    for k in range(5, 101, 5):
        assert not np.array_equal(make_sprites(1, 10 + k * 2**32)[0][0], images[k])


@pytest.mark.parametrize("n", [1, 4, 5, 5000, 4999])
def test_classes_are_balanced(n):
    """Kills: a class left out or drawn twice as often; labels off by one."""
    labels = make_sprites(n)[1]
    counts = np.bincount(labels, minlength=len(CLASSES))
    assert len(counts) == len(CLASSES)
    assert counts.max() - counts.min() <= 1


def test_the_form_is_the_promised_one(many):
    """Kills: float images, channels first, int32 labels."""
    images, labels = many
    assert images.dtype == np.uint8 and images.shape == (5000, SIZE, SIZE, 3)
    assert labels.dtype == np.int64 and labels.shape == (5000,)


def test_corners_are_white(many):
    """Kills: a drawing pushed over the edge, rolled round to the other side; a tinted ground."""
    corners = many[0][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all()


def test_the_canvas_border_holds_only_ground_and_outline(many):
    """Kills: a shift of two pixels, which cuts the dark line off and shows colour at the border.

    The lines are the only colours there, so there are at most three beside white.
    """
    images, _ = many
    border = np.concatenate(
        [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1
    ).reshape(-1, 3)
    colours = np.unique(border, axis=0)
    dark = colours[(colours < 255).any(axis=1)]
    assert len(dark) <= 3 and dark.max() < 100


def test_sprites_are_distinct_and_of_many_shapes(many):
    """Kills: jitter, tint, mirroring or parts that are stuck, so that sprites repeat."""
    images, labels = many
    assert len({image.tobytes() for image in images}) >= 0.95 * len(images)
    for label in range(len(CLASSES)):
        own = images[labels == label]
        assert len({image.tobytes() for image in own}) >= 0.95 * len(own)
        ground = (own == 255).all(axis=-1)
        # Fewer than 20 drawings a class, mirrored but not moved, have fewer than 40 shapes.
        assert len({shape.tobytes() for shape in ground}) >= 40


def test_left_and_right_are_equally_likely(many):
    """Kills: mirroring that is stuck, or moves that favour one side.

    Over m sprites a pixel of mean − mirrored mean has a standard deviation of at most 2σ/√m, so
    its root mean square over 768 pixels stays near or below that.
    """
    images, labels = many
    for label in range(len(CLASSES)):
        own = images[labels == label].astype(np.float64)
        scatter = 2 * np.sqrt((own.var(axis=0) / len(own)).mean())
        mean = own.mean(axis=0)
        assert np.sqrt(((mean - mean[:, ::-1]) ** 2).mean()) < 1.5 * scatter


def test_figures_are_framed_alike(many):
    """Kills: a sheet cut at the wrong column, which leaves slivers or drifts off centre."""
    drawn = (many[0] < 255).any(axis=-1)
    area = drawn.mean(axis=(1, 2))
    assert area.min() > 0.2 and area.max() < 0.9
    places = np.arange(SIZE)
    for axis in (1, 2):
        profile = drawn.sum(axis=3 - axis)
        centre = (profile * places).sum(axis=1) / profile.sum(axis=1)
        assert np.abs(centre - (SIZE - 1) / 2).max() < 3


def test_palettes_are_limited(many):
    """Kills: noise on the pixels. Five ramps of three, the line, eye, white and red make 19."""
    counts = [len(np.unique(image.reshape(-1, 3), axis=0)) for image in many[0][:500]]
    assert max(counts) <= 19
    assert min(counts) >= 3


def test_classes_can_be_told_apart(many):
    """Kills: painters swapped or shared between classes.

    The nearest of 4,000 sprites, by pixels, has the right label for nearly all of 200 others;
    chance is one in five.
    """
    images, labels = many
    x = images.reshape(len(images), -1).astype(np.float64)
    train, test = x[:4000], x[4000:4200]
    distance = (train**2).sum(axis=1) - 2 * test @ train.T
    hits = labels[distance.argmin(axis=1)] == labels[4000:4200]
    for label in range(len(CLASSES)):
        assert hits[labels[4000:4200] == label].mean() > 0.9


def test_the_pixels_stay_those_that_the_shipped_network_learned():
    """Kills: a drawing, a colour or a choice that changes under weights that know the old ones."""
    images = make_sprites(3000)[0]
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    assert digest == "2a1c188ea0edefcd3e0e4c86fbab7e24705dc3b07b4f04872c62c1c25b43b76d"


@pytest.mark.parametrize("kind", ["monsters", "food", "spells"])
def test_every_ramp_that_a_drawing_uses_has_colours(kind):
    """Kills: a drawing moved in its sheet but not in its list, so that letters come out white."""
    sheet, colours = ART[kind]["sheet"], ART[kind]["colours"]
    ramps = ("abc", "def", "ghi", "jkl", "mnp")
    bands = [band.split("\n") for band in sheet.strip().split("\n\n")]
    cells = ["".join(rows) for band in bands for rows in zip(*map(str.split, band), strict=True)]
    for cell, (name, options) in zip(cells, colours.items(), strict=True):
        used = [bool(set(ramp) & set(cell)) for ramp in ramps]
        assert used == [k < len(options) for k in range(len(ramps))], name
        assert all(option in ART["ramps"] for one in options for option in one.split())


@pytest.mark.parametrize("n", [0, -1, 1_000_001, 2.0, "3", None, True])
def test_bad_n_is_named(n):
    """Kills: an empty set, a cast by ``int``, an error without the value."""
    with pytest.raises(InputError, match=r"1…1,000,000") as caught:
        make_sprites(n)
    assert repr(n) in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None, False])
def test_bad_seed_is_named(seed):
    """Kills: a random set for ``None``, a cast by ``int``, an error without the value."""
    with pytest.raises(InputError, match=r"integer ≥ 0") as caught:
        make_sprites(2, seed)
    assert repr(seed) in str(caught.value)


def test_numpy_integers_are_integers():
    """Kills: ``isinstance(n, int)`` at the border."""
    assert np.array_equal(make_sprites(np.int64(6), np.uint8(2))[0], make_sprites(6, 2)[0])
