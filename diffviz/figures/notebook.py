"""What a run looks like in a notebook: its end points, its key numbers, and how to go on."""

from html import escape

import numpy as np

from diffviz.figures import available
from diffviz.figures.strips import png, strips_data, tile_sheet
from diffviz.figures.theme import colour
from diffviz.recording.run import Run

SAMPLES = 8


def run_html(run: Run) -> str:
    """The run as a piece of HTML without scripts; it follows the page's colours."""
    data, spec = run.dataset.isel(t=-1), run.spec
    strips = strips_data(run, range(SAMPLES), [0])
    mean = data["mean"].sel(quantity="x").values
    between, right = data["std_between"].values, float(data["reference_std_between"])
    share = between / right if right > 0 else np.full(len(between), np.nan)
    rows = ""
    for a, name in enumerate(run.arms):
        image = ""
        if strips is not None:
            source = png(tile_sheet(strips.tiles[a]).pixels)
            style = "height: 40px; image-rendering: pixelated"
            image = f'<td><img alt="" src="{source}" style="{style}"></td>'
        numbers = "".join(f"<td>{_number(v)}</td>" for v in (mean[a], between[a]))
        percent = "–" if np.isnan(share[a]) else f"{share[a]:.0%}"
        rows += (
            f'<tr><th style="text-align: left; color: {colour(a)}">{escape(name)}</th>'
            f"{image}{numbers}<td>{percent}</td></tr>"
        )
    heads = ["", *(["samples"] if strips is not None else [])]
    heads += ["mean", "std between samples", "of the data's"]
    head = "".join(f"<th>{words}</th>" for words in heads)
    pictures = ", ".join(available(run))
    return (
        f"<p>{escape(spec.denoiser)}, {spec.n} samples per arm, {spec.steps} steps, "
        f"seed {spec.seed}. At the end, t = 0:</p>"
        f"<table><tr>{head}</tr>{rows}</table>"
        f'<p><code>run.plot("ks")</code> draws a picture: {pictures}. '
        '<code>dv.write_report(run, "run.html")</code> writes the whole story, '
        "<code>dv.diagnose(run)</code> lists what is wrong, and <code>run.dataset</code> holds "
        "every number.</p>"
    )


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}"
