"""Pictures as files: still ones through Chromium, pages that need nothing else, and films."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.figures import plot
from diffviz.figures.schedule import schedule_figure
from diffviz.figures.theme import CONFIG, NARROW
from diffviz.files.atomic import check_writable, replacing
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

STATIC = (".png", ".svg", ".pdf")
FRAMES = 25
FRAME_SECONDS, LAST_SECONDS = 0.2, 2.0
ARRANGE = """
const plot = document.getElementById("{plot_id}");
let narrow;
const arrange = () => {
  if (narrow === innerWidth < NARROW) return;
  narrow = innerWidth < NARROW;
  const patch = plot.layout.meta[narrow ? "narrow" : "wide"];
  plot.style.height = `${patch.height + TITLE}px`;
  Plotly.relayout(plot, { ...patch, height: null, autosize: true });
};
addEventListener("resize", arrange);
arrange();
"""
"""Stacks the panels of a page that is narrow, and gives the figure's element its height."""
TITLE = 44
"""Pixels for the title above."""


def export(
    name: str,
    run: Run,
    path: Path,
    *,
    language: str = "en",
    theme: str = "light",
    t: int | None = None,
    width: int | None = None,
    height: int | None = None,
) -> None:
    """Draw the picture ``name`` of a run to ``path``; the suffix says how.

    ``.png``, ``.svg`` and ``.pdf`` are still, ``.html`` is interactive, ``.gif`` walks through the
    steps.

    Raises:
        InputError: an unknown name or suffix, a picture that the run has no numbers for, a step
            outside the run, a path that cannot be written, or no browser to draw with.
    """
    _check(path, (*STATIC, ".html", ".gif"))
    times = [t]
    if path.suffix.lower() == ".gif":
        recorded = run.dataset["t"].values
        places = np.unique(np.rint(np.linspace(0, len(recorded) - 1, FRAMES)).astype(int))
        times = recorded[places].tolist()
    figures = []
    for t in times:
        figure = plot(run, name, language=language, theme=theme, t=t)
        key = "title_at" if name == "strips" and t is not None else "title"
        _titled(figure, text(f"figures.{name}.{key}", language, t=t)).update_layout(width=width)
        if height is not None:
            figure.update_layout(height=height)
        figures.append(figure)
    _write(figures, path, language)


def export_schedule(schedule: NoiseSchedule, path: Path, language: str = "en") -> None:
    """Draw a schedule to ``.png``, ``.svg``, ``.pdf`` or ``.html``."""
    _check(path, (*STATIC, ".html"))
    figure = schedule_figure(schedule, language)
    _write([_titled(figure, text("figures.schedule.title", language))], path, language)


def render(figures: Sequence[go.Figure], kind: str, scale: int = 1) -> list[bytes]:
    """All figures as png, svg or pdf, through one browser.

    Raises:
        InputError: there is no browser.
    """
    import kaleido

    # Chromium may be missing, and the server of kaleido warns of options that plotly passes to it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kaleido.start_sync_server(silence_warnings=True)
            return [figure.to_image(kind, scale=scale) for figure in figures]
        except RuntimeError as error:
            if "chrome" not in str(error).lower():
                raise
            raise InputError(
                f"a .{kind} is drawn by Chromium or Chrome, and none was found; write .html"
            ) from None
        finally:
            kaleido.stop_sync_server(silence_warnings=True)


def _check(path: Path, allowed: tuple[str, ...]) -> None:
    if path.suffix.lower() not in allowed:
        raise InputError(f"{path}: ends in {path.suffix!r}; allowed: {', '.join(allowed)}")
    check_writable(path)


def _titled(figure: go.Figure, title: str) -> go.Figure:
    """The figure with its title above."""
    return figure.update_layout(
        title={"text": f"<b>{title}</b>", "x": 0, "xref": "paper", "xanchor": "left"}
        | {"yref": "container", "y": 1, "yanchor": "top", "pad_t": 16, "font_size": 20},
        margin_t=figure.layout.margin.t + TITLE,
        height=figure.layout.height + TITLE,
    )


def _write(figures: Sequence[go.Figure], path: Path, language: str) -> None:
    """One figure, or the frames of a film."""
    kind = path.suffix.lower().removeprefix(".")
    if kind == "html":
        content = _page(figures[0], language).encode()
    elif kind == "gif":
        content = _film([Image.open(io.BytesIO(png)) for png in render(figures, "png")])
    else:
        (content,) = render(figures, kind, scale=2 if kind == "png" else 1)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _page(figure: go.Figure, language: str) -> str:
    """A page that draws the figure, whole without a network and at any width."""
    meta = figure.layout.meta
    for key in ("wide", "narrow"):
        if "margin.t" in meta[key]:
            meta[key]["margin.t"] += TITLE
    script = ARRANGE.replace("NARROW", str(NARROW)).replace("TITLE", str(TITLE))
    # A copy: to_html changes the configuration that it is given.
    page = figure.to_html(config=dict(CONFIG), include_plotlyjs=True, post_script=script)
    head = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    page = page.replace("<head>", f"<head>{head}", 1)
    page = page.replace(
        "<body>", f'<body style="background: {figure.layout.template.layout.paper_bgcolor}">', 1
    )
    return page.replace("<html>", f'<html lang="{language}">', 1)


def _film(images: Sequence[Image.Image]) -> bytes:
    durations = [round(FRAME_SECONDS * 1000)] * (len(images) - 1) + [round(LAST_SECONDS * 1000)]
    buffer = io.BytesIO()
    first, *rest = images
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return buffer.getvalue()
