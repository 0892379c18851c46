# Needs: pip install diffviz. The names below draw the pictures of this lesson.
import numpy as np
import plotly.graph_objects as go
import torch

import diffviz as dv
from diffviz.diffusion.names import shipped, shipped_weights
from diffviz.figures.schedule import schedule_figure
from diffviz.figures.strips import StripsData, strips_figure
from diffviz.files.catalogue import class_name
from diffviz.files.images import to_uint8

LANGUAGE = "en"


def _word(words):
    return words if isinstance(words, str) else words[("en", "zh").index(LANGUAGE)]


def put(**numbers):
    """The numbers that the text quotes."""
    print({k: round(v, 4) if isinstance(v, float) else v for k, v in numbers.items()})


def draw(figure, **caption):
    return figure(LANGUAGE)


def picture(name, run):
    if isinstance(run, dv.NoiseSchedule):
        return schedule_figure(run, LANGUAGE)
    return dv.plot(run, name, language=LANGUAGE)


def strip(data, *, en, zh):
    return strips_figure(data, LANGUAGE)


def tiles(images, rows, times=(), *, at=0, en, zh):
    """Images (rows, columns, 3, H, W) in [-1, 1] as a table, in the fixed range."""
    rows = [class_name(row, LANGUAGE) for row in rows]
    flat = images.reshape(-1, *images.shape[2:]).astype(np.float32)
    pixels = to_uint8(flat)
    pixels = pixels.reshape(*images.shape[:2], *pixels.shape[1:])
    if len(times):
        data = StripsData(list(rows), np.asarray(times), [0], pixels[:, :, None], False)
    else:
        samples = list(range(images.shape[1]))
        data = StripsData(list(rows), np.array([at]), samples, pixels[:, None], False)
    figure = strips_figure(data, LANGUAGE)
    if len(times) and times[0] == 0:
        figure.update_xaxes(title_text=_word(("t (data → noise)", "t（数据 → 噪声）")))
    return figure


def lines(x, curves, y, *, x_title=None, log="", reference=None, markers=False, zero=True):
    """Curves over time, or over something else with a title of its own."""
    figure = go.Figure()
    for name, values in curves.items():
        dash = "dot" if name == reference else None
        figure.add_scatter(
            x=x,
            y=values,
            name=_word(name),
            line_dash=dash,
            mode="lines+markers" if markers else "lines",
        )
    figure.update_xaxes(title_text=_word(x_title or ("time step t", "时间步 t")))
    if x_title is None:
        figure.update_xaxes(autorange="reversed")
    figure.update_yaxes(title_text=_word(y))
    figure.update_xaxes(type="log" if "x" in log else "linear")
    figure.update_yaxes(type="log" if "y" in log else "linear")
    return figure


def shipped_network():
    return dv.load_denoiser(shipped_weights())


def course_run():
    """The run that comes with diffviz: the three default arms with the shipped network."""
    return dv.Run.load(shipped("sprites.nc"))
