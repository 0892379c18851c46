"""What the cells of the pages use: ``from lesson import *`` in a hidden first cell.

A page is executed once and read in two languages. So a picture holds its texts in both, and the
page (``_static/pictures.js``) shows those of its own; and a number is put under a name, and the
prose of either language shows it by ``{n}`name:.2f` ``.
"""

import base64
import io
import os
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from myst_nb import glue
from PIL import Image

import diffviz as dv
from diffviz.catalogue import LANGUAGES
from diffviz.figures import PICTURES
from diffviz.figures.theme import CONFIG, NARROW, TEXT
from diffviz.report.embedding import figure_json, script_json
from diffviz.specs import shipped_weights

__all__ = [
    "Picture",
    "Still",
    "course_run",
    "draw",
    "dv",
    "np",
    "picture",
    "put",
    "shipped_network",
    "torch",
]

SAMPLES = 24
CACHE = Path(os.environ.get("DIFFVIZ_DOCS_CACHE", "docs/_build/cache/by-hand"))


class Picture:
    """A plotly figure in every language."""

    def __init__(self, figures: Mapping[str, go.Figure]) -> None:
        self.figures = dict(figures)

    def _repr_html_(self) -> str:
        view = figure_json(self.figures) | {"config": CONFIG, "narrow": NARROW}
        view["ink"] = {"light": TEXT[False], "dark": TEXT[True]}
        height = int(self.figures[LANGUAGES[0]].layout.height or 400)
        return (
            f'<div class="picture" style="min-height:{height}px">'
            f'<script type="application/json">{script_json(view)}</script></div>'
        )


class Still:
    """A picture of pixels, and what it shows in words, in every language."""

    def __init__(self, image: Image.Image, **alt: str) -> None:
        if set(alt) != set(LANGUAGES):
            raise ValueError(f"a description is given in {sorted(alt)}; needed: {LANGUAGES}")
        self.image, self.alt = image, alt

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        words = " ".join(f'data-alt-{k}="{escape(v)}"' for k, v in self.alt.items())
        width, height = self.image.size
        return (
            f'<img class="still" alt="{escape(self.alt[LANGUAGES[0]])}" {words} '
            f'width="{width}" height="{height}" src="data:image/png;base64,{data}">'
        )


def draw(figure: Callable[[str], go.Figure]) -> Picture:
    """``figure(language)`` in every language."""
    return Picture({language: figure(language) for language in LANGUAGES})


def picture(name: str, run: dv.Run) -> Picture:
    """One of diffviz's own pictures of a run, as ``diffviz figure`` knows it by name."""
    return draw(lambda language: PICTURES[name](run, language))


def put(**numbers: float | int | str) -> None:
    """Put numbers where the prose of this page finds them, by ``{n}`name:format` ``."""
    for name, value in numbers.items():
        glue(name, value.item() if isinstance(value, np.generic) else value, display=False)


def course_run() -> dv.Run:
    """The comparison of the three default arms with the shipped network, recorded once."""
    path = CACHE / f"course-{SAMPLES}.nc"
    if not path.exists():
        denoiser = shipped_network()
        dv.record(denoiser, denoiser.schedule, n=SAMPLES, seed=0, progress=False, out=path)
    return dv.Run.load(path)


def shipped_network() -> dv.NetworkDenoiser:
    """The network that comes with diffviz, with the schedule it was trained for."""
    return dv.load_denoiser(shipped_weights())
