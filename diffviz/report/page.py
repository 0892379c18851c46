"""One HTML file that holds a whole run: words, numbers, images and plots, in every language.

The page asks nothing of any network, and its policy forbids it: scripts run only when their hash
stands in the policy, so text from outside stays text even if an escape were forgotten.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from latex2mathml.converter import convert
from markupsafe import Markup

from diffviz.diagnosis.numbers import finite, key_numbers, mark_times, on_the_way, scale_of
from diffviz.diagnosis.summary import number, paragraphs
from diffviz.errors import InputError
from diffviz.figures import available, plot, theme
from diffviz.figures.histogram import histogram_data
from diffviz.files.atomic import replacing
from diffviz.files.catalogue import LANGUAGES, catalogue
from diffviz.recording.run import Run
from diffviz.report import embedding
from diffviz.report.pictures import Sheets, is_images, sheets

SECTIONS = (
    "ks",
    "dial",
    "stds",
    "mean",
    "distance",
    "histogram",
    "staircase",
    "schedule",
    "diversity",
    "noise",
)
EQUATIONS = {
    "eq_ddpm": r"x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\left(x_t - "
    r"\frac{1-\alpha_t}{\sqrt{1-\bar\alpha_t}}\,\hat\varepsilon\right) + \lambda\sqrt{\beta_t}\,z",
    "eq_ddim": r"x_{t-1} = \sqrt{\bar\alpha_{t-1}}\,"
    r"\frac{x_t - \sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}"
    r" + \sqrt{1-\bar\alpha_{t-1}}\,\hat\varepsilon",
    "eq_sde": r"dx = \left[f(x,t) - g(t)^2\,\nabla_x\log q_t(x)\right]dt + g(t)\,d\bar{w}",
    "eq_ode": r"dx = \left[f(x,t) - \frac{1}{2}\,g(t)^2\,\nabla_x\log q_t(x)\right]dt",
}
WORDS = (
    "title",
    "play",
    "pause",
    "scrubber",
    "speed",
    "language",
    "theme",
    "contents",
    "equations",
)
"""Texts of ``report.page`` that stand in attributes, where the script changes the language."""
LIVE = (
    ("mean", "mean", "x", "reference_mean"),
    ("std", "std", "x", "reference_std"),
    ("std_between", "std_between", None, "reference_std_between"),
    ("residual_std", "std", "residual", None),
    ("ks_normal", "ks_normal", "x", None),
    ("ks_marginal", "ks_marginal", None, None),
    ("ks_residual", "ks_normal", "residual", None),
)
"""Columns of the live table: name, variable, quantity, and the variable that is its reference."""


def write_report(
    run: Run, path: str | Path, *, language: str = "en", title: str | None = None
) -> None:
    """Write the run to ``path`` as one HTML file that opens anywhere and needs nothing else.

    Every language is in the file; ``language`` is the one shown first. ``title`` is the heading.

    Raises:
        InputError: no such language, or the file cannot be written.
    """
    page = render(run, language, title)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render(run: Run, language: str = "en", title: str | None = None) -> str:
    """The page as text."""
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}; allowed are {', '.join(LANGUAGES)}")
    pictures = sheets(run)
    opening = () if pictures is not None else ("trajectories",)
    figures = {name: _in_languages(run, name) for name in (*opening, *SECTIONS)}
    script = asset("page.js")
    return template("page.html.j2").render(
        run=run,
        language=language,
        tags=embedding.TAGS,
        title=title,
        policy=policy(script),
        style=Markup(asset("page.css")),
        script=Markup(script),
        plotly=embedding.plotly_packed(),
        summary=[
            (
                head,
                embedding.in_languages(
                    {code: paragraphs(run, code)[i] for code in LANGUAGES}, "p"
                ),
            )
            for i, head in enumerate(("noise_head", "law_head", "end_head"))
        ],
        arms=_arms(run),
        rows=key_numbers(run),
        marks=mark_times(run),
        way=run.dataset["t"].values[on_the_way(run)].tolist(),
        live=[column[0] for column in LIVE],
        images=is_images(run),
        pictures=pictures,
        sections=[(name, figures[name] is not None) for name in SECTIONS],
        has_trajectories=figures.get("trajectories") is not None,
        equations={key: Markup(convert(latex, "block")) for key, latex in EQUATIONS.items()},
        times=run.dataset["t"].values.tolist(),
        values_in_all=run.spec.n * int(np.prod(run.spec.sample_shape)),
        data=_data(run, language, title, pictures, figures),
        histogram=embedding.packed(_densities(run)),
    )


def _in_languages(run: Run, name: str) -> dict[str, Any] | None:
    """One figure in every language, ready for the page; None when the run lacks it."""
    if name not in available(run):
        return None
    T = int(run.dataset["t"][0])
    return embedding.figure_json(
        {language: plot(run, name, language=language, t=T) for language in LANGUAGES}
    )


def _arms(run: Run) -> list[dict[str, Any]]:
    """What the page calls an arm. λ = 1 is left out where the rule draws no noise anyway."""
    drawn = np.nanmax(run.dataset["noise_std"].values, axis=1, initial=0) > 0
    scales = [scale_of(spec) for spec in run.spec.arms]
    return [
        {
            "name": name,
            "rule": str(spec.get("rule", "")),
            "scale": f"{scale:g}" if scale < 1 or (scale >= 1 and noisy) else "",
            "colour": theme.colour(i),
        }
        for i, (name, spec, scale, noisy) in enumerate(
            zip(run.arms, run.spec.arms, scales, drawn, strict=True)
        )
    ]


def _data(
    run: Run,
    language: str,
    title: str | None,
    pictures: Sheets | None,
    figures: dict[str, Any],
) -> dict[str, Markup]:
    """What the page's script reads, by the id of its element."""
    view = {
        "language": language,
        "tags": embedding.TAGS,
        "title": title,
        "arms": run.arms,
        "times": run.dataset["t"].values.tolist(),
        "live": _live(run),
        "bins": run.dataset.sizes["bin"],
        "config": theme.CONFIG,
        "text": theme.TEXT,
        "narrow": theme.NARROW,
        "words": {
            code: {key: catalogue(code)[f"report.page.{key}"] for key in WORDS}
            for code in LANGUAGES
        },
    }
    images = None if pictures is None else {**pictures.__dict__}
    return {
        "view": embedding.script_json(view),
        "images": embedding.script_json(images),
        "figures": embedding.script_json({k: v for k, v in figures.items() if v is not None}),
    }


def _live(run: Run) -> list[list[list[float | None]]]:
    """Per column and row (the arms, then the data) the values over the steps, 4 digits each."""
    columns = []
    for _, variable, quantity, reference in LIVE:
        values = run.dataset[variable]
        if quantity is not None:
            values = values.sel(quantity=quantity)
        rows = list(values.values)
        rows.append(
            np.full(rows[0].shape, np.nan) if reference is None else run.dataset[reference].values
        )
        columns.append([[float(f"{v:.4g}") for v in row] for row in rows])
    return finite(columns)


def _densities(run: Run) -> bytes:
    """Densities of x_t as float32 (time, arm, bin), little-endian."""
    density = histogram_data(run, "x").density
    return np.ascontiguousarray(density.swapaxes(0, 1)).astype("<f4").tobytes()


def policy(script: str) -> str:
    """The Content-Security-Policy of a page that runs this script and plotly.js."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{embedding.digest(script)}' '{embedding.plotly_digest()}'",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


@cache
def asset(name: str) -> str:
    """The text of a file of this package."""
    return files("diffviz.report").joinpath(name).read_text(encoding="utf-8")


@cache
def template(name: str) -> Any:
    """A template of this package; what is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("diffviz.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(both=embedding.both, number=number, languages=LANGUAGES)
    environment.globals.update(words=lambda key, code: catalogue(code)[f"report.{key}"])
    return environment.get_template(name)
