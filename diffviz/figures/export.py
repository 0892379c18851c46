"""Pictures as files for slides: plotly figures through a browser, images and films through PIL."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.figures import PICTURES
from diffviz.figures.histogram import histogram_data, histogram_figure
from diffviz.figures.schedule import schedule_data, schedule_figure
from diffviz.figures.strips import animation, grid_image, strip_image, strips_data
from diffviz.figures.theme import CONFIG, themed
from diffviz.files.atomic import check_writable, replacing
from diffviz.files.catalogue import text
from diffviz.recording.run import Run

STATIC = (".png", ".svg", ".pdf")
FRAMES = 25
FRAME_SECONDS = 0.2


def export(
    name: str,
    run: Run,
    path: Path,
    *,
    language: str = "en",
    dark: bool = False,
    t: int | None = None,
    width: int | None = None,
    height: int | None = None,
) -> None:
    """Draw the picture ``name`` of a run to ``path``; the suffix says how.

    ``.png``, ``.svg`` and ``.pdf`` are still, ``.html`` is interactive, ``.gif`` walks through the
    steps. ``strips`` has ``.png`` (over time, or all samples at ``t``) and ``.gif``.

    Raises:
        InputError: an unknown name or suffix, a picture that the run has no numbers for, a step
            outside the run, or no browser to draw with.
    """
    names = ["strips", *PICTURES]
    if name not in names:
        raise InputError(f"picture is {name!r}; allowed: {', '.join(names)}")
    if t is not None and not 0 <= t <= run.schedule.T:
        raise InputError(f"t is {t}; allowed is 0…{run.schedule.T}")
    allowed = (".png", ".gif") if name == "strips" else (*STATIC, ".html", ".gif")
    _check(path, allowed)
    if name == "strips":
        _export_strips(run, path, dark, t)
        return
    drawn = _draw(name, run, language, t)
    title = text(f"figures.{name}.title", language)

    def finish(figure: go.Figure) -> go.Figure:
        figure = themed(figure, dark, title)
        if width is not None:
            figure.update_layout(width=width)
        return figure if height is None else figure.update_layout(height=height)

    if path.suffix.lower() != ".gif":
        _write(finish(drawn), path, language)
        return
    times = run.dataset["t"].values
    chosen = times[np.unique(np.rint(np.linspace(0, len(times) - 1, FRAMES)).astype(int))]
    frames = [finish(_at(name, drawn, run, language, int(t))) for t in chosen]
    images = [Image.open(io.BytesIO(png)) for png in _render(frames, "png")]
    _write_film(images, path)


def export_schedule(schedule: NoiseSchedule, path: Path, language: str = "en") -> None:
    """Draw a schedule to ``.png``, ``.svg``, ``.pdf`` or ``.html``."""
    _check(path, (*STATIC, ".html"))
    figure = schedule_figure(schedule_data(schedule), language)
    _write(themed(figure, False, text("figures.schedule.title", language)), path, language)


def _check(path: Path, allowed: tuple[str, ...]) -> None:
    if path.suffix.lower() not in allowed:
        raise InputError(f"{path}: ends in {path.suffix!r}; allowed: {', '.join(allowed)}")
    check_writable(path)


def _draw(name: str, run: Run, language: str, t: int | None) -> go.Figure:
    if name == "histogram" and t is not None:
        return histogram_figure(histogram_data(run), t, language)
    figure = PICTURES[name](run, language)
    if figure is None:
        raise InputError(f"picture is {name!r}; this run does not hold what it needs")
    return figure if t is None else _with_cursor(figure, t)


def _at(name: str, figure: go.Figure, run: Run, language: str, t: int) -> go.Figure:
    return _draw(name, run, language, t) if name == "histogram" else _with_cursor(figure, t)


def _with_cursor(figure: go.Figure, t: int) -> go.Figure:
    moved = go.Figure(figure)
    moved.update_shapes(x0=t, x1=t, selector={"name": "cursor"})
    return moved


def _write(figure: go.Figure, path: Path, language: str) -> None:
    if path.suffix.lower() == ".html":
        # A copy: to_html changes the configuration that it is given.
        page = figure.to_html(config=dict(CONFIG), include_plotlyjs=True)
        with replacing(path) as temporary:
            page = page.replace("<html>", f'<html lang="{language}">', 1)
            temporary.write_text(page, encoding="utf-8")
        return
    (content,) = _render([figure], path.suffix.lower().removeprefix("."))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _render(figures: list[go.Figure], kind: str) -> list[bytes]:
    """All of them through one browser."""
    import kaleido

    # Chromium may be missing, and the server of kaleido warns of options that plotly passes to it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kaleido.start_sync_server(silence_warnings=True)
            scale = 2 if kind == "png" and len(figures) == 1 else 1
            return [figure.to_image(kind, scale=scale) for figure in figures]
        except RuntimeError as error:
            if "chrome" not in str(error).lower():
                raise
            raise InputError(
                f"a .{kind} is drawn by Chromium or Chrome, and none was found; write .html"
            ) from None
        finally:
            kaleido.stop_sync_server(silence_warnings=True)


def _export_strips(run: Run, path: Path, dark: bool, t: int | None) -> None:
    data = strips_data(run, times=None if t is None else [t])
    if data is None:
        raise InputError("picture is 'strips'; the samples of this run are not images")
    if path.suffix.lower() == ".gif":
        _write_film(animation(strips_data(run, range(16)) or data, dark=dark), path)
        return
    if t is None:
        columns = np.linspace(run.schedule.T, 0, 13).astype(int).tolist()
        data = strips_data(run, times=columns) or data
    image = strip_image(data, dark=dark) if t is None else grid_image(data, 0, dark=dark)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def _write_film(images: Sequence[Image.Image], path: Path) -> None:
    durations = [int(FRAME_SECONDS * 1000)] * len(images)
    durations[-1] = 2000
    with replacing(path) as temporary:
        images[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=list(images[1:]),
            duration=durations,
            loop=0,
        )
