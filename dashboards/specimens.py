"""What the X-ray page shows of a loop of the zoo: its lines, its x-ray, and sprites made with it.

It imports torch and samples, so the process that answers pages does not import it.
"""

import base64
import gzip
import json
from functools import cache
from typing import Any

import numpy as np
import torch

from diffviz.diagnosis.numbers import finite
from diffviz.diffusion.checkpoints import load_denoiser
from diffviz.diffusion.exact import DatasetDenoiser
from diffviz.diffusion.names import shipped_weights
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.figures.xray import xray_data, xray_figure, xray_noise_figure
from diffviz.files.catalogue import LANGUAGES
from diffviz.files.images import to_uint8
from diffviz.identify import zoo
from diffviz.identify.xray import xray
from diffviz.report.embedding import figure_json
from diffviz.sprites.make import make_sprites

SHAPE = (32, 3, 16, 16)
"""Of the states that the x-ray looks at."""
SHOWN, SHOWN_BY_NETWORK = 8, 4
"""Samples whose pictures are shown; a network takes its time."""
MOMENTS = 8
"""States of the first of them on its way, its end included."""
SPRITES = 200
"""The data, from which the denoiser is made without training."""


RIGHT = {name: name for name, program in zoo.programs().items() if program.path == "index"}
LOOPS = RIGHT | {fault.name: fault.program for fault in zoo.faults() if fault.program in RIGHT}
"""The right loop of every loop; a right one is its own."""


def _source(name: str) -> str:
    return zoo.mutate(LOOPS[name], *([] if name in RIGHT else [name]))


def menu() -> bytes:
    """Every loop by name, with its fault, its words and its lines, as gzipped JSON."""
    finding = {fault.name: fault.finding for fault in zoo.faults()}
    return _packed(
        [
            {
                "name": name,
                "finding": finding.get(name, ""),
                "title": {code: zoo.title(name, code) for code in LANGUAGES},
                "text": {code: zoo.text(name, code) for code in LANGUAGES},
                "right": right,
                "code": zoo.changes(_source(right), _source(name)),
            }
            for name, right in LOOPS.items()
        ]
    )


def look(name: str) -> bytes:
    """The x-ray of one loop, its findings and its pictures, as gzipped JSON.

    Raises:
        KeyError: there is no loop of this name.
    """
    schedule = _denoiser().schedule
    sampler = zoo.sampler(_source(name), schedule)
    torch.manual_seed(0)
    found = xray(sampler, schedule, shape=SHAPE, seconds=300)
    data = xray_data(found.coefficients)
    return _packed(
        {
            "name": name,
            "rule": found.rule,
            "findings": [
                {
                    "id": finding.id,
                    "severity": finding.severity,
                    "text": {code: finding.text(code) for code in LANGUAGES},
                }
                for finding in found.findings
            ],
            "figures": {
                "xray": figure_json({code: xray_figure(data, code) for code in LANGUAGES}),
                "xray_noise": figure_json(
                    {code: xray_noise_figure(data, code) for code in LANGUAGES}
                ),
            },
            "pictures": [
                _pictures(loop, _denoiser(), SHOWN)
                for loop in ([name] if name in RIGHT else [LOOPS[name], name])
            ],
        }
    )


def network(name: str) -> bytes:
    """What the loop makes with the shipped network, as gzipped JSON.

    Raises:
        KeyError: there is no loop of this name.
    """
    return _packed(_pictures(name, _network(), SHOWN_BY_NETWORK))


def _packed(value: Any) -> bytes:
    text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode(), 6, mtime=0)


@cache
def _denoiser() -> DatasetDenoiser:
    return DatasetDenoiser(NoiseSchedule.linear(), *make_sprites(SPRITES))


@cache
def _network() -> Any:
    return load_denoiser(shipped_weights())


def _pictures(name: str, denoiser: Any, n: int) -> dict[str, Any]:
    """``n`` end points, and the way of the first."""
    schedule = denoiser.schedule
    way: list[tuple[int, np.ndarray]] = []

    def model(x: torch.Tensor, t: int) -> torch.Tensor:
        # A loop that counts wrongly asks for times that there are not.
        way.append((t, x[0].double().numpy()))
        return denoiser(x, min(max(t, 1), schedule.T))

    torch.manual_seed(0)
    with torch.no_grad():
        sampler = zoo.sampler(_source(name), schedule)
        end = sampler(model, (n, *SHAPE[1:])).double().numpy()
    kept = np.unique(np.rint(np.linspace(0, len(way), MOMENTS)[:-1]).astype(int))
    return {
        "name": name,
        "size": SHAPE[-1],
        "times": [*(way[i][0] for i in kept), None],
        "film": _pixels(np.stack([*(way[i][1] for i in kept), end[0]])),
        "end": _pixels(end),
        "finite": bool(np.isfinite(end).all()),
    }


def _pixels(x: np.ndarray) -> str:
    """RGB bytes in base64, −1 black and 1 white; what is not a number is black."""
    return base64.b64encode(to_uint8(np.nan_to_num(x, nan=-1.0)).tobytes()).decode()
