"""Snapshots of a run as one PNG per arm: a row per snapshot, a column per sample."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffviz.files.images import stretch, to_uint8
from diffviz.recording.run import Run

BUDGET = 1_700_000
"""Raw bytes of all sheets together; noise hardly compresses, and base64 adds a third."""
OPTIONS = ((8, 1), (6, 1), (4, 1), (4, 2), (3, 2), (2, 2), (2, 4), (1, 2), (1, 4))
"""(samples, every how many-th snapshot), best first."""


@dataclass(frozen=True)
class Sheets:
    """Sheets of the arms, as data URIs.

    Attributes:
        times: t of each row.
        height, width: of one image, in pixels.
        samples: columns.
        fixed: range [−1, 1], one per arm.
        stretched: every channel of every image on its own.
    """

    times: list[int]
    height: int
    width: int
    samples: int
    fixed: list[str]
    stretched: list[str]


def is_images(run: Run) -> bool:
    """Whether the samples can be drawn: (1, H, W) or (3, H, W)."""
    shape = run.spec.sample_shape
    return len(shape) == 3 and shape[0] in (1, 3)


def sheets(run: Run) -> Sheets | None:
    """As many samples and snapshots as the budget allows; None for a run without images."""
    if not is_images(run):
        return None
    snapshots = run.dataset["snapshots"].values
    for samples, stride in OPTIONS:
        rows = _rows(snapshots.shape[1], stride)
        x = snapshots[:, rows, :samples]
        if 2 * x.size <= BUDGET:
            break
    coarse = int(np.ceil(np.sqrt(2 * x.size / BUDGET)))  # 1 unless the images are large
    x = x[..., ::coarse, ::coarse]
    return Sheets(
        times=run.dataset["snapshot"].values[rows].tolist(),
        height=x.shape[-2],
        width=x.shape[-1],
        samples=x.shape[2],
        fixed=[_sheet(arm) for arm in x],
        stretched=[_sheet(np.asarray(stretch(arm))) for arm in x],
    )


def _rows(n: int, stride: int) -> NDArray[np.int64]:
    """Every ``stride``-th of n, first and last kept."""
    return np.unique(np.append(np.arange(0, n, stride), n - 1))


def _sheet(x: NDArray[np.floating]) -> str:
    """(rows, columns, C, H, W) as a PNG in a data URI."""
    rows, columns, channels, height, width = x.shape
    tiles = to_uint8(x.reshape(-1, channels, height, width))
    grid = tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    sheet = grid.reshape(rows * height, columns * width, channels)
    picture = Image.fromarray(sheet if channels == 3 else sheet[..., 0])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
