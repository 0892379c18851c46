"""A procedural data set of 16×16 game sprites in five classes.

Sprite i of a seed is a function of (seed, i) alone: the words w_1, w_2, … of
``SeedSequence(seed, spawn_key=(i,))`` choose, each modulo the number of choices, the drawing, its
parts, its colours, its mirroring and its place. Its class is i mod 5. All arithmetic is in
integers and NumPy promises that the words stay the same, so every platform draws the same pixels.

The drawings themselves are in ``art.toml`` beside this file.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffviz.errors import InputError

ART = tomllib.loads(files("diffviz.sprites").joinpath("art.toml").read_text("utf-8"))
CLASSES: tuple[str, ...] = ("hero", "non-hero", "food", "spell", "side-facing")
SIZE = 16
MAX_SPRITES = 1_000_000

Grid = NDArray[np.uint8]  # indices into LETTERS, 0 where nothing is drawn
Words = Iterator[int]
Drawn = tuple[Grid, Sequence[str]]  # the outlined grid, and the colours that each ramp may have
Painter = Callable[[Words], Drawn]
Choice = TypeVar("Choice")

LETTERS = ".abcdefghijklmnpoxwr"
OUTLINE = LETTERS.index("o")
WORDS = 32  # more than any sprite needs


def _rgb(*colours: int) -> NDArray[np.int64]:
    """Colours 0xRRGGBB as rows, (len, 3)."""
    return np.array([[c >> 16, c >> 8 & 255, c & 255] for c in colours], dtype=np.int64)


RAMPS = {name: _rgb(*shades) for name, shades in ART["ramps"].items()}
OUTLINES = _rgb(0x2B2238, 0x3B2430, 0x1F2A44)
FIXED = _rgb(0x231C30, 0xFFFFFF, 0xE0404C)  # x, w, r
TINTS = (-8, 0, 8)


def make_sprites(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw sprites 0…n−1 of ``seed``.

    Returns:
        images (n, 16, 16, 3) on white, and labels (n,) in 0…4 that index ``CLASSES``.

    Raises:
        InputError: ``n`` is not an integer in 1…1,000,000, or ``seed`` is not an integer ≥ 0.
    """
    if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= MAX_SPRITES:
        raise InputError(f"n = {n!r}; allowed is an integer in 1…{MAX_SPRITES:,}")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"seed = {seed!r}; allowed is an integer ≥ 0")
    images = np.empty((int(n), SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(int(n), dtype=np.int64) % len(CLASSES)
    for i, label in enumerate(labels.tolist()):
        sequence = np.random.SeedSequence(int(seed), spawn_key=(i,))
        words = iter(sequence.generate_state(WORDS).tolist())
        grid, ramps = PAINTERS[label](words)
        images[i] = _palette(ramps, words)[_place(grid, words)]
    return images, labels


# ---------------------------------------------------------------- drawings


def _cells(sheet: str, top: int = 0, left: int = 0) -> list[Grid]:
    """The drawings of a sheet, each on an empty canvas, clear of the border its line needs."""
    grids = []
    for band in sheet.strip().split("\n\n"):
        for rows in zip(*(line.split() for line in band.split("\n")), strict=True):
            part = np.array([[LETTERS.index(letter) for letter in row] for row in rows])
            grid = np.zeros((SIZE, SIZE), dtype=np.uint8)
            grid[1 + top : 1 + top + part.shape[0], 1 + left : 1 + left + part.shape[1]] = part
            grids.append(grid)
    return grids


def _outlined(grid: Grid) -> Grid:
    """The grid with the dark line on every empty pixel beside, above or below a drawn one."""
    near = np.zeros(grid.shape, dtype=bool)
    for axis in (0, 1):
        for step in (-1, 1):
            near |= np.roll(grid, step, axis) > 0
    return np.where((grid == 0) & near, np.uint8(OUTLINE), grid)


def _over(front: Grid, back: Grid) -> Grid:
    return np.where(front > 0, front, back)


def _people(heads: str, bodies: str) -> list[Grid]:
    """Every head on every body, with one line around the two."""
    trunks = _cells(bodies, top=8)
    return [_outlined(_over(head, trunk)) for head in _cells(heads) for trunk in trunks]


PEOPLE: Mapping[str, str] = ART["people"]
HEROES = _people(PEOPLE["front_heads"], PEOPLE["front_bodies"])
WALKERS = _people(PEOPLE["side_heads"], PEOPLE["side_bodies"])
ITEMS = [_outlined(item) for item in _cells(PEOPLE["items"], top=1, left=10)]
SHIELDS = [_outlined(shield) for shield in _cells(PEOPLE["shields"], top=7)]
BURDENS = [_outlined(burden) for burden in _cells(PEOPLE["burdens"])]

# ---------------------------------------------------------------- choices

PERSON = [PEOPLE[part] for part in ("skin", "hair", "clothes", "trim", "metal")]


def _pick(options: Sequence[Choice], words: Words) -> Choice:
    return options[next(words) % len(options)]


def _hero(words: Words) -> Drawn:
    grid = _over(_pick(HEROES, words), _pick(ITEMS, words))
    return _over(_pick(SHIELDS, words), grid), PERSON


def _walker(words: Words) -> Drawn:
    return _over(_pick(WALKERS, words), _pick(BURDENS, words)), PERSON


def _thing(kind: Mapping[str, Any]) -> Painter:
    """A painter that picks one drawing of the sheet of that kind."""
    grids = [_outlined(grid) for grid in _cells(kind["sheet"])]
    drawn: list[Drawn] = list(zip(grids, kind["colours"].values(), strict=True))
    return lambda words: _pick(drawn, words)


PAINTERS: tuple[Painter, ...] = (
    _hero,
    _thing(ART["monsters"]),
    _thing(ART["food"]),
    _thing(ART["spells"]),
    _walker,
)


def _place(grid: Grid, words: Words) -> Grid:
    """The grid mirrored or not, and moved by at most a pixel each way within the canvas."""
    if next(words) % 2:
        grid = grid[:, ::-1]
    for axis in (0, 1):
        step = _pick((-1, 0, 1), words)
        edge = grid.take((0 if step < 0 else SIZE - 1,), axis=axis)
        if step and not edge.any():
            grid = np.roll(grid, step, axis)
    return grid


def _palette(ramps: Sequence[str], words: Words) -> NDArray[np.uint8]:
    """The colour of each of ``LETTERS``, (19, 3): one tint per ramp keeps its shades in tune."""
    palette = np.full((len(LETTERS), 3), 255, dtype=np.int64)
    for k, names in enumerate(ramps):
        tint = [_pick(TINTS, words) for _ in range(3)]
        palette[3 * k + 1 : 3 * k + 4] = RAMPS[_pick(names.split(), words)] + np.array(tint)
    palette[OUTLINE] = OUTLINES[next(words) % len(OUTLINES)]
    palette[OUTLINE + 1 :] = FIXED
    return np.clip(palette, 0, 255).astype(np.uint8)
