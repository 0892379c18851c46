"""Strips of x_t: a row per sample of each arm, a column per time; or all samples at one time.

The range is fixed, [−1, 1] → 0…255, for every arm, time and sample, so that a drift of brightness
or contrast can be seen. ``stretched=True`` stretches every channel of every image to its own full
range, as the tutorial does, and hides exactly that.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from diffviz.figures import theme
from diffviz.files.catalogue import text
from diffviz.files.images import data_uri, stretch, to_uint8
from diffviz.recording.run import Run

ACROSS = {"wide": 760, "narrow": 290}
"""Pixels of the page that the sheet of images is drawn for."""
TALLEST = 100
"""Pixels of the page that one image is high at most."""


class StripsData(NamedTuple):
    """``tiles`` is uint8 (A, times, samples, H, W, 3)."""

    arms: list[str]
    t: NDArray[np.int64]
    samples: list[int]
    tiles: NDArray[np.uint8]


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
    tiles = tiles.reshape(*x.shape[:3], *tiles.shape[1:])
    return StripsData(run.arms, recorded[where], chosen, tiles)


def strips_figure(data: StripsData, language: str = "en") -> go.Figure:
    """One picture with its labels outside: arms on the left, times or samples above."""
    one = len(data.t) == 1
    per_arm = 1 if one else len(data.samples)
    tiles = data.tiles if one else data.tiles.swapaxes(1, 2)
    pixels, rows, left = tile_sheet(tiles.reshape(-1, *tiles.shape[2:]), per_arm)
    (height, width), (high, wide) = pixels.shape[:2], tiles.shape[-3:-1]
    columns = [str(i + 1) for i in data.samples] if one else [str(t) for t in data.t]
    above = text("figures.strips.samples", language, t=data.t[0]) if one else ""
    figure = go.Figure()
    figure.add_image(source=data_uri(pixels), x0=0.5, y0=0.5, hoverinfo="skip")
    plain = {"showgrid": False, "showline": False, "zeroline": False, "ticks": ""}
    plain["ticklabelstandoff"] = 5
    figure.update_xaxes(
        tickvals=left + wide / 2,
        ticktext=columns,
        range=[0, width],
        side="top",
        title_text=above or text("figures.common.time", language),
        constrain="domain",
        **plain,
    )
    figure.update_yaxes(
        tickvals=rows.reshape(-1, per_arm).mean(axis=1) + high / 2,
        ticktext=[theme.label(name) for name in data.arms],
        range=[height, 0],
        scaleanchor="x",
        constrain="domain",
        constraintoward="top",
        **plain,
    )
    room = {"t": 62, "b": 12, "l": 12, "r": 16}
    tall = TALLEST * len(rows)
    heights = {
        key: round(min(across * height / width, tall)) + room["t"] + room["b"]
        for key, across in ACROSS.items()
    }
    return figure.update_layout(
        template=theme.TEMPLATES["light"],
        margin=room,
        height=heights["wide"],
        meta={"time_axes": [], **{key: {"height": value} for key, value in heights.items()}},
    )


def tile_sheet(
    tiles: NDArray[np.uint8], per_group: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Tiles (rows, columns, H, W, 3) as one picture, (height, width, 4), with clear gaps.

    The gap after each group of rows is wider. Also gives the first pixels of rows and of columns.
    """
    n_rows, n_columns, high, wide = tiles.shape[:4]
    gap = max(1, wide // 16)
    rows = np.arange(n_rows) * (high + gap) + np.arange(n_rows) // per_group * 2 * gap
    columns = np.arange(n_columns) * (wide + gap)
    pixels = np.zeros((rows[-1] + high, columns[-1] + wide, 4), dtype=np.uint8)
    for r, top in enumerate(rows):
        for c, left in enumerate(columns):
            pixels[top : top + high, left : left + wide, :3] = tiles[r, c]
            pixels[top : top + high, left : left + wide, 3] = 255
    return pixels, rows, columns
