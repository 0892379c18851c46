"""What a run looks like in a notebook: its end points, its key numbers, and how to go on.

A notebook cannot be asked for its language, so English comes first and Chinese unfolds below.
"""

from html import escape

import numpy as np

from diffviz.figures import available
from diffviz.figures.strips import strips_data, tile_sheet
from diffviz.figures.theme import colour
from diffviz.files.catalogue import text
from diffviz.files.images import data_uri
from diffviz.recording.run import Run

SAMPLES = 8


def run_html(run: Run) -> str:
    """The run as a piece of HTML without scripts; it follows the page's colours."""
    strips = strips_data(run, range(SAMPLES), [0])
    images = [] if strips is None else [data_uri(tile_sheet(tiles)[0]) for tiles in strips.tiles]
    chinese = _part(run, [], "zh")
    return (
        _part(run, images, "en")
        + f'<details lang="zh-Hans"><summary>中文</summary>{chinese}</details>'
    )


def _part(run: Run, images: list[str], language: str) -> str:
    """One language: what the run is, a row per arm, and how to go on."""
    data, spec = run.dataset.isel(t=-1), run.spec
    mean = data["mean"].sel(quantity="x").values
    between, right = data["std_between"].values, float(data["reference_std_between"])
    rows = ""
    for a, name in enumerate(run.arms):
        share = between[a] / right if right > 0 else np.nan
        cells = [_number(mean[a]), _number(between[a]), "–" if np.isnan(share) else f"{share:.0%}"]
        if images:
            style = "height: 40px; image-rendering: pixelated"
            cells.insert(0, f'<img alt="" src="{images[a]}" style="{style}">')
        head = f'<th style="text-align: left; color: {colour(a)}">{escape(name)}</th>'
        rows += f"<tr>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    names = ("samples",) * bool(images) + ("mean", "between", "share")
    heads = [text(f"figures.notebook.{name}", language) for name in names]
    head = "".join(f"<th>{words}</th>" for words in ("", *heads))
    lead = text("figures.notebook.lead", language, denoiser=escape(spec.denoiser), n=spec.n,
                steps=spec.steps, seed=spec.seed)  # fmt: skip
    how = text("figures.notebook.how", language, pictures=", ".join(available(run)))
    return f"<p>{lead}</p><table><tr>{head}</tr>{rows}</table><p>{how}</p>"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}"
