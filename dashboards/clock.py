"""What a browser needs of a run to move through its steps without asking the server again."""

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from diffviz.diagnosis.sentences import Story, step_sentences, step_table, story
from diffviz.figures import theme
from diffviz.figures.map import map_data
from diffviz.recording.run import Run

BYTES = 2_400_000
"""Of all frames together, raw: a page stays below 6 MB."""


@lru_cache(maxsize=64)
def clock(run: Run, language: str, plots: Sequence[str]) -> dict[str, Any]:
    """Times, arms, and as text the numbers and the sentences of every step."""
    table = step_table(run, language)
    return {
        "times": run.dataset["t"].values.tolist(),
        "arms": run.arms,
        "colours": [theme.colour(i) for i in range(len(run.arms))],
        "head": table.head,
        "rows": table.rows,
        "cells": table.cells,
        "sentences": {name: _distinct(step_sentences(run, name, language)) for name in plots},
    }


@lru_cache(maxsize=64)
def told(run: Run, language: str) -> Story:
    """What happened in the run, judged once."""
    return story(run, language)


def _distinct(sentences: Sequence[str]) -> dict[str, list]:
    """Each sentence once, and which of them is said at each step."""
    texts = list(dict.fromkeys(sentences))
    index = {sentence: i for i, sentence in enumerate(texts)}
    return {"texts": texts, "at": [index[sentence] for sentence in sentences]}


@lru_cache(maxsize=16)
def frames(run: Run) -> dict[str, Any] | None:
    """Pictures of the first samples of every arm on their way, as bytes in base64.

    As many frames and samples as ``BYTES`` hold; None for a run without images.
    """
    data = run.dataset
    if "frames" in data:
        x, times = data["frames"].values, data["frame_t"].values
    elif len(run.spec.sample_shape) == 3 and run.spec.sample_shape[0] in (1, 3):
        x = np.clip((data["snapshots"].values[:, :, :8] + 1) * 127.5 + 0.5, 0, 255)
        x, times = x.astype(np.uint8), data["snapshot"].values
    else:
        return None
    kept = x.shape[2]
    while kept > 4 and x[:, :100, :kept].size > BYTES:
        kept -= 2
    x = x[:, :, :kept]
    stride = max(1, -(-x.size // BYTES))
    rows = np.unique(np.append(np.arange(0, x.shape[1], stride), x.shape[1] - 1))
    x = np.ascontiguousarray(x[:, rows])
    return {
        "data": base64.b64encode(x.tobytes()).decode(),
        "times": times[rows].tolist(),
        "arms": x.shape[0],
        "samples": x.shape[2],
        "shape": list(x.shape[3:]),
    }


@lru_cache(maxsize=16)
def cloud(run: Run) -> dict[str, Any] | None:
    """Where the kept samples are in the plane of the data, as the map shows it; or None."""
    shown = map_data(run)
    if shown is None:
        return None
    x = np.ascontiguousarray(shown.x[:, :, :16], dtype="<f4")
    return {
        "data": base64.b64encode(x.tobytes()).decode(),
        "times": shown.t.tolist(),
        "arms": x.shape[0],
        "samples": x.shape[2],
        "panels": [
            dict(zip("xy", theme.axes(a), strict=True), colour=theme.colour(a))
            for a in range(x.shape[0])
        ],
    }
