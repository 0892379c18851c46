"""What moves through time, as bytes that a page draws: pictures, points and densities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffviz.figures.histogram import histogram_data
from diffviz.figures.map import map_data
from diffviz.recording.run import Run
from diffviz.report.embedding import packed

BUDGET = 2_000_000
"""Characters of all frames together."""
OPTIONS = (
    *((8, 1), (6, 1), (8, 2), (8, 3), (6, 3), (6, 4), (4, 4), (4, 8), (2, 8)),
    *((1, 8), (1, 16), (1, 64)),
)
"""(samples, every how many-th frame), best first."""


def frames(run: Run) -> dict[str, Any] | None:
    """As many samples and frames as the budget allows; None for a run without images.

    ``data`` is uint8 (arm, frame, sample, channel, height, width), packed, ``times`` the t of each
    frame, falling to 0, and ``shape`` (channels, height, width). Only the last frame is exact. In
    the others the three lowest bits are left out, a difference of at most 4/255 that nobody sees,
    because noise in them cannot be compressed.
    """
    if "frames" not in run.dataset:
        return None
    times, x = run.dataset["frame_t"].values, run.dataset["frames"].values
    for samples, stride in OPTIONS:
        rows = np.unique(np.append(np.arange(0, len(times), stride), len(times) - 1))
        kept = x[:, rows, :samples].copy()
        kept[:, :-1] = (kept[:, :-1] & 0xF8) | 4
        if kept.size > 4 * BUDGET:
            continue
        data = packed(kept.tobytes())
        if len(data) <= BUDGET:
            break
    else:  # images so large that not even two of them fit
        coarse = int(np.ceil(np.sqrt(kept.size / (BUDGET / 2))))
        kept = kept[..., ::coarse, ::coarse]
        data = packed(kept.tobytes())
    return {
        "data": data,
        "times": times[rows].tolist(),
        "arms": len(run.arms),
        "samples": kept.shape[2],
        "shape": kept.shape[3:],
    }


def dots(run: Run) -> dict[str, Any]:
    """Positions on the map in stds of q(x_t), (arm, time, sample, 2)."""
    data = map_data(run)
    x = np.empty((0, 0, 0, 2)) if data is None else data.x
    return {"samples": x.shape[2], **_whole(x, 1e-3)}


def densities(run: Run) -> dict[str, Any]:
    """Densities of x_t, of each arm and then of q(x_t), (time, arm, bin)."""
    data = histogram_data(run, "x")
    density = np.concatenate([data.density, data.reference[None]]).swapaxes(0, 1)
    return {"bins": density.shape[2], **_whole(density)}


def _whole(values: NDArray[np.floating], least: float = 1e-9) -> dict[str, Any]:
    """Numbers as int16, packed, in a unit of at least that; the least int16 stands for NaN."""
    known, far = np.isfinite(values), np.iinfo(np.int16)
    unit = max(float(np.max(np.abs(values), where=known, initial=0)) / far.max, least)
    whole = np.where(known, np.rint(np.where(known, values, 0) / unit), far.min)
    return {"unit": unit, "data": packed(whole.astype("<i2").tobytes())}
