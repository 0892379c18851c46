"""One run as the page needs it: figures in every language, images, numbers, and sentences."""

import base64
import gzip
import json
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from dashboards.sentences import clauses, live
from diffviz.diagnosis.numbers import finite
from diffviz.figures import plot, theme
from diffviz.figures.histogram import histogram_data
from diffviz.figures.trajectories import trajectories_data
from diffviz.files.catalogue import LANGUAGES
from diffviz.recording.run import Run
from diffviz.report.embedding import figure_json
from diffviz.report.pictures import sheets

PLOTS = ("ks", "dial", "histogram", "stds", "distance", "mean")
"""The plots of the first page, in their order."""
MAKING = Lock()
FOLLOWED = 8
"""How many samples can be followed alone, of a run without images."""


def payload(run: Run) -> bytes:
    """The run as gzipped JSON, made once."""
    with MAKING:
        return _packed(run)


def pack(run: Run) -> bytes:
    """The run as gzipped JSON."""
    pictures = sheets(run)
    tracks = trajectories_data(run, FOLLOWED)
    names = PLOTS if tracks is None else ("trajectories", *PLOTS)
    values = {
        "arms": [
            {
                "name": name,
                "rule": str(spec.get("rule", "")),
                "scale": format(spec["noise_scale"], "g"),
                "colour": theme.colour(i),
            }
            for i, (name, spec) in enumerate(zip(run.arms, run.spec.arms, strict=True))
        ],
        "facts": {"denoiser": run.spec.denoiser, "n": run.spec.n, "schedule": run.spec.schedule},
        "times": run.dataset["t"].values.tolist(),
        "images": None if pictures is None else vars(pictures),
        "tracks": None
        if tracks is None
        else {"times": tracks.t.tolist(), "x": _short(np.moveaxis(tracks.x, 1, 0))},
        "figures": {
            name: figure_json(
                {
                    code: plot(run, name, language=code, t=int(run.dataset["t"][0]))
                    for code in LANGUAGES
                }
            )
            for name in names
        },
        "bins": run.dataset.sizes["bin"],
        "densities": _densities(run),
        "live": {name: _short(numbers) for name, numbers in live(run).items()},
        "say": {
            plot: [
                {
                    "keys": clause.keys,
                    "codes": clause.codes.tolist(),
                    "value": clause.value,
                    "right": clause.right,
                }
                for clause in found
            ]
            for plot, found in clauses(run).items()
        },
    }
    text = json.dumps(finite(values), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode(), 6, mtime=0)


_packed = lru_cache(maxsize=32)(pack)


def _short(values: np.ndarray) -> Any:
    """Nested lists of numbers with four digits."""
    return [_short(v) if v.ndim else float(f"{v:.4g}") for v in np.asarray(values)]


def _densities(run: Run) -> str:
    """Densities of x_t as float32 (time, arm, bin), little-endian, in base64."""
    density = histogram_data(run, "x").density.swapaxes(0, 1).astype("<f4")
    return base64.b64encode(np.ascontiguousarray(density).tobytes()).decode()
