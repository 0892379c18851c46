"""What the cells of the pages use: ``from lesson import *`` in a hidden first cell.

A page is executed once and read in two languages. So a picture holds its texts in both, and the
page (``_static/pictures.js``) shows those of its own; and a number is put under a name, and the
prose of either language shows it by ``{n}`name:.2f` ``.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
import torch
from myst_nb import glue
from PIL import Image

import diffviz as dv
from diffviz.diffusion.names import shipped, shipped_weights
from diffviz.figures import plot, theme
from diffviz.figures.schedule import schedule_figure
from diffviz.figures.strips import StripsData, strips_figure
from diffviz.figures.theme import CONFIG, NARROW, TEXT
from diffviz.files.catalogue import LANGUAGES, class_name, text
from diffviz.files.images import to_uint8
from diffviz.report.embedding import figure_json, script_json

__all__ = [
    "Picture",
    "Still",
    "course_run",
    "draw",
    "dv",
    "lines",
    "np",
    "picture",
    "put",
    "shipped_network",
    "strip",
    "tiles",
    "torch",
]


class Picture:
    """A plotly figure, and its caption, in every language."""

    def __init__(self, figures: Mapping[str, go.Figure], **alt: str) -> None:
        self.figures, self.alt = dict(figures), alt

    def _repr_html_(self) -> str:
        view = figure_json(self.figures) | {"config": CONFIG, "narrow": NARROW}
        view["ink"] = TEXT
        height = int(self.figures[LANGUAGES[0]].layout.height or 400)
        words = " ".join(f'data-alt-{k}="{escape(v)}"' for k, v in self.alt.items())
        return (
            f'<div class="picture" {words} style="min-height:{height}px">'
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


def draw(figure: Callable[[str], go.Figure], **caption: str) -> Picture:
    """``figure(language)`` in every language, and its caption."""
    return Picture({language: figure(language) for language in LANGUAGES}, **caption)


def picture(name: str, run: dv.Run | dv.NoiseSchedule) -> Picture:
    """One of diffviz's own pictures, by its name as in ``diffviz figure``."""
    said = {language: text(f"figures.{name}.title", language) for language in LANGUAGES}
    if isinstance(run, dv.NoiseSchedule):
        return draw(lambda language: schedule_figure(run, language), **said)
    return draw(lambda language: plot(run, name, language=language), **said)


def put(**numbers: float | int | str) -> None:
    """Put numbers where the prose of this page finds them, by ``{n}`name:format` ``."""
    for name, value in numbers.items():
        glue(name, value.item() if isinstance(value, np.generic) else value, display=False)


def course_run() -> dv.Run:
    """The run that comes with diffviz: the three default arms with the shipped network."""
    return dv.Run.load(shipped("sprites.nc"))


def shipped_network() -> dv.NetworkDenoiser:
    """The network that comes with diffviz, with the schedule it was trained for."""
    return dv.load_denoiser(shipped_weights())


def lines(
    x: Sequence[float] | np.ndarray,
    curves: Mapping[str | tuple[str, str], Sequence[float] | np.ndarray],
    y: tuple[str, str],
    *,
    x_title: tuple[str, str] | None = None,
    log: str = "",
    reference: str | tuple[str, str] | None = None,
    markers: bool = False,
    zero: bool = True,
) -> Picture:
    """Curves over time, or over something else with a title of its own.

    Words are given as (English, Chinese). ``log`` names logarithmic axes, ``"x"``, ``"y"`` or
    ``"xy"``; the curve named ``reference`` is drawn as what theory says; a linear axis shows zero
    unless it should not.
    """
    across = np.asarray(x)

    def figure(language: str) -> go.Figure:
        def word(words: str | tuple[str, str]) -> str:
            return words if isinstance(words, str) else words[LANGUAGES.index(language)]

        plot = theme.panels(
            [""],
            language,
            T=int(across.max()) if x_title is None else None,
            x_titles=() if x_title is None else [word(x_title)],
            y_titles=[word(y)],
        )
        names = [name for name in curves if name != reference]
        if reference is not None:
            values = np.asarray(curves[reference], dtype=np.float64)
            theme.add_reference(plot, 0, across, values, word(reference))
        theme.add_curves(
            plot,
            0,
            across,
            np.array([curves[name] for name in names], dtype=np.float64),
            [word(name) for name in names],
            language,
        )
        if markers:
            plot.update_traces(mode="lines+markers", marker_size=7)
        if "x" in log:
            plot.update_xaxes(type="log", tickvals=across, ticktext=[f"{v:g}" for v in across])
        plot.update_yaxes(type="log" if "y" in log else "linear")
        if zero and "y" not in log:
            plot.update_yaxes(rangemode="tozero")
        return plot

    along = x_title or ("time step t", "时间步 t")
    en, zh = (
        f"{y[0]}, by {along[0].partition(',')[0]}",
        f"{y[1]}随{along[1].partition('，')[0]}的变化",
    )
    return draw(figure, en=en[0].upper() + en[1:] if not en.startswith("ε") else en, zh=zh)


def strip(data: StripsData, *, en: str, zh: str) -> Picture:
    """Images of a run as `strips_data` gives them, and what they show in words."""
    return draw(lambda language: strips_figure(data, language), en=en, zh=zh)


def tiles(
    images: np.ndarray,
    rows: Sequence[str],
    times: Sequence[int] = (),
    *,
    at: int = 0,
    en: str,
    zh: str,
) -> Picture:
    """Images (rows, columns, 3, H, W) in [−1, 1] as a table, in the fixed range.

    A row has a name; a column is a time, or a sample at the time ``at``.
    """
    shape = images.shape
    pixels = to_uint8(images.reshape(-1, *shape[2:]).astype(np.float32))
    pixels = pixels.reshape(*shape[:2], *pixels.shape[1:])
    if not len(times):
        samples = list(range(shape[1]))
        data = StripsData(list(rows), np.array([at]), samples, pixels[:, None], False)
    else:
        data = StripsData(list(rows), np.asarray(times), [0], pixels[:, :, None], False)
    backwards = {"en": "t (data → noise)", "zh": "t（数据 → 噪声）"}

    def figure(language: str) -> go.Figure:
        named = [class_name(row, language) for row in rows]
        drawn = strips_figure(data._replace(arms=named), language)
        if len(times) and times[0] == 0:
            drawn.update_xaxes(title_text=backwards[language])
        return drawn

    return draw(figure, en=en, zh=zh)
