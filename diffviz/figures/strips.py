"""Pictures of x_t itself: strips over time, grids of samples, and frames of an animation.

The range is fixed, [−1, 1] → 0…255, for every arm, time and sample, so that a drift of brightness
or contrast can be seen. ``stretched=True`` stretches every channel of every image to its own full
range, as the tutorial does, and hides exactly that.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from diffviz.figures.theme import PAPER, TEXT
from diffviz.files.images import stretch, to_uint8
from diffviz.recording.run import Run

GAP = 2


class StripsData(NamedTuple):
    """``tiles`` is uint8 (A, times, samples, H, W, 3)."""

    arms: list[str]
    t: NDArray[np.int64]
    samples: list[int]
    tiles: NDArray[np.uint8]
    stretched: bool


def is_image(run: Run) -> bool:
    """Whether a sample is an image, (3, H, W) or (1, H, W)."""
    shape = run.spec.sample_shape
    return len(shape) == 3 and shape[0] in (1, 3)


def strips_data(
    run: Run,
    samples: Sequence[int] = range(8),
    times: Sequence[int] | None = None,
    stretched: bool = False,
) -> StripsData | None:
    """Tiles of the ``samples`` that were kept, at the snapshots nearest to ``times``.

    All snapshots unless times are given. None when the samples are not images.
    """
    if not is_image(run) or "snapshots" not in run.dataset:
        return None
    recorded, kept = run.dataset["snapshot"].values, run.dataset.sizes["sample"]
    chosen = [i for i in samples if 0 <= i < kept]
    where = np.arange(len(recorded))
    if times is not None:
        where = np.array([int(np.abs(recorded - t).argmin()) for t in times], dtype=int)
    x = run.dataset["snapshots"].values[:, where][:, :, chosen]
    flat = x.reshape(-1, *run.spec.sample_shape)
    tiles = to_uint8(stretch(flat) if stretched else flat)
    tiles = np.repeat(tiles, 3 // tiles.shape[-1], axis=-1)  # grey to RGB
    return StripsData(
        run.arms,
        recorded[where],
        chosen,
        tiles.reshape(*x.shape[:3], *tiles.shape[1:]),
        stretched,
    )


def strip_image(
    data: StripsData, sample: int = 0, scale: int = 4, labels: bool = True, dark: bool = False
) -> Image.Image:
    """One sample (its place in ``data.samples``): a row per arm, a column per time.

    PIL's own font has Latin letters only; ask for no labels and write them yourself otherwise.
    """
    tiles = data.tiles[:, :, sample]
    return _table(tiles, data.arms, [f"t={t}" for t in data.t], scale, labels, dark)


def grid_image(
    data: StripsData, time: int = -1, scale: int = 4, labels: bool = True, dark: bool = False
) -> Image.Image:
    """All samples at one time (its place in ``data.t``): a row per arm, a column per sample."""
    tiles = data.tiles[:, time]
    return _table(tiles, data.arms, [f"#{i}" for i in data.samples], scale, labels, dark)


def animation(
    data: StripsData, columns: int = 4, scale: int = 4, labels: bool = True, dark: bool = False
) -> list[Image.Image]:
    """One frame per time: the arms side by side, each a grid of its samples.

    Save with ``frames[0].save(path, save_all=True, append_images=frames[1:], duration=…)``.
    """
    frames = []
    font = ImageFont.load_default(14)
    for i, t in enumerate(data.t):
        blocks = [_grid(tiles[i], columns, scale) for tiles in data.tiles]
        width, height = blocks[0].size
        head = 44 if labels else 0
        pitch = width + 16
        size = (pitch * len(blocks) - 16 + 2 * GAP, head + height + 2 * GAP)
        frame = Image.new("RGB", size, PAPER[dark])
        draw = ImageDraw.Draw(frame)
        for a, block in enumerate(blocks):
            frame.paste(block, (GAP + a * pitch, head + GAP))
            if labels:
                name = _fitted(data.arms[a], width, font)
                draw.text((GAP + a * pitch, 24), name, TEXT[dark], font)
        if labels:
            draw.text((GAP, 4), f"t = {t}", TEXT[dark], font)
        frames.append(frame)
    return frames


def _grid(tiles: NDArray[np.uint8], columns: int, scale: int) -> Image.Image:
    n, height, width = tiles.shape[:3]
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    step_x, step_y = width * scale + GAP, height * scale + GAP
    picture = Image.new("RGB", (columns * step_x - GAP, rows * step_y - GAP), "#808080")
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        picture.paste(_enlarged(tile, scale), (column * step_x, row * step_y))
    return picture


def _enlarged(tile: NDArray[np.uint8], scale: int) -> Image.Image:
    return Image.fromarray(np.repeat(np.repeat(tile, scale, axis=0), scale, axis=1))


def _table(
    tiles: NDArray[np.uint8],
    rows: list[str],
    columns: list[str],
    scale: int,
    labels: bool,
    dark: bool,
) -> Image.Image:
    """Tiles (rows, columns, H, W, 3) with names beside and above."""
    height, width = tiles.shape[2] * scale, tiles.shape[3] * scale
    font = ImageFont.load_default(14)
    limit = 160
    names = [_fitted(name, limit, font) for name in rows]
    left = int(max(font.getlength(name) for name in names)) + 12 if labels else 0
    top = (24 if labels else 0) + GAP
    step_x, step_y = width + GAP, height + GAP
    size = (left + len(columns) * step_x + GAP, top + len(rows) * step_y)
    picture = Image.new("RGB", size, PAPER[dark])
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, top - GAP, size[0], size[1]), fill="#808080")
    for r, row in enumerate(tiles):
        for c, tile in enumerate(row):
            picture.paste(_enlarged(tile, scale), (left + c * step_x + GAP, top + r * step_y))
        if labels:
            middle = top + r * step_y + height // 2
            draw.text((4, middle), names[r], TEXT[dark], font, anchor="lm")
    if labels:
        every = max(1, int(np.ceil((max(map(font.getlength, columns)) + 8) / step_x)))
        for c in range(0, len(columns), every):
            draw.text((left + c * step_x + GAP, 5), columns[c], TEXT[dark], font)
    return picture


def _fitted(name: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The name on one line, cut to the width."""
    name = " ".join(name.split())
    while len(name) > 1 and font.getlength(name) > width:
        name = name[:-2] + "…"
    return name
