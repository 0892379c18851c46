"""A run as one HTML file: pictures first, then numbers and figures, in every language.

The page makes no request, and its policy forbids them. Scripts run only when their hash stands in
the policy, so that a name from outside stays text even where an escape was forgotten.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from latex2mathml.converter import convert
from markupsafe import Markup

from diffviz import figures
from diffviz.diagnosis.arms import arm_kinds, exact_kind
from diffviz.diagnosis.bands import band
from diffviz.diagnosis.numbers import key_numbers, mark_times, noise_readings
from diffviz.diagnosis.sentences import (
    TABLE,
    indexed,
    listed,
    number,
    step_sentences,
    step_table,
    story,
)
from diffviz.diagnosis.verdicts import LEVEL, on_the_way
from diffviz.errors import InputError
from diffviz.figures import theme
from diffviz.files.atomic import replacing
from diffviz.files.catalogue import LANGUAGES, catalogue, class_name, text
from diffviz.play import plane
from diffviz.recording.run import Run
from diffviz.report import embedding
from diffviz.report.data import together
from diffviz.report.embedding import in_languages
from diffviz.report.frames import densities, dots, frames

FIRST = ("mean", "stds", "ks", "staircase", "dial")
REST = ("distance", "histogram", "strips", "diversity", "noise", "schedule")
EQUATIONS = {
    "ddpm": r"x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\left(x_t - "
    r"\frac{1-\alpha_t}{\sqrt{1-\bar\alpha_t}}\,\hat\varepsilon\right) + \lambda\sqrt{\beta_t}\,z",
    "ddim": r"x_{t-1} = \sqrt{\bar\alpha_{t-1}}\,"
    r"\frac{x_t - \sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}"
    r" + \sqrt{1-\bar\alpha_{t-1}}\,\hat\varepsilon",
    "sde": r"dx = \left[f(x,t) - g(t)^2\,\nabla_x\log q_t(x)\right]dt + g(t)\,d\bar{w}",
    "ode": r"dx = \left[f(x,t) - \frac{1}{2}\,g(t)^2\,\nabla_x\log q_t(x)\right]dt",
}
WORDS = ("play", "pause", "scrubber", "language", "theme", "contents")
"""Texts of ``report.page`` that stand in attributes, where the script changes the language."""
MOUNT = """
const box = document.getElementById("plane");
const options = JSON.parse(document.getElementById("plane-options").textContent);
const html = document.documentElement;
const seen = () => ({ language: html.dataset.language, theme: html.dataset.shade });
new IntersectionObserver((entries, near) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  near.disconnect();
  const live = mount(box, options);
  live.set(seen());
  new MutationObserver(() => live.set(seen())).observe(html, {
    attributeFilter: ["data-language", "data-shade"],
  });
}, { rootMargin: "400px 0px" }).observe(box);
"""
"""Shows the live plane when the window comes near it, in the page's language and theme."""
FEW = 32
"""With fewer samples than this the page warns of chance."""
LESSONS = {
    "3-experiment": ("arm",),
    "4-measuring": (
        *("pooled", "between", "ks_distance", "marginal", "residual", "ancestral", "p_value"),
    ),
    "5-why": ("noise_level", "lambda", "score"),
    "6-training": ("band",),
}
"""Page of a lesson, which begins with its number → the terms that it explains."""
NAMED = {"ddpm/beta": "DDPM", "ddpm/posterior": "DDPM (√β̃ₜ)", "ddim(eta=0)": "DDIM"}
"""Rules by the names that a reader knows."""


def write_report(
    run: Run | Mapping[str, Run],
    path: str | Path,
    *,
    language: str = "en",
    title: str | None = None,
    lessons: str | None = None,
) -> None:
    """Write a run to ``path`` as one HTML file that opens anywhere and needs nothing else.

    Several runs, each under its name, are shown arm beside arm. Every language is in the file;
    ``language`` is the one shown first. ``title`` is the heading. ``lessons`` is where the built
    pages of the lessons are, an address or a folder seen from the file; each term then leads to
    its lesson.

    Raises:
        InputError: no such language, runs that cannot be shown together, or the file cannot be
            written.
    """
    page = render(run, language, title, lessons)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render(
    run: Run | Mapping[str, Run],
    language: str = "en",
    title: str | None = None,
    lessons: str | None = None,
) -> str:
    """The page as text."""
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}; allowed are {', '.join(LANGUAGES)}")
    if lessons and not lessons.startswith(("https://", "http://")) and ":" in lessons:
        raise InputError(f"lessons is {lessons!r}; allowed is http(s)://… or a folder")
    runs = {"": run} if isinstance(run, Run) else dict(run)
    run = together(run)
    told = {code: story(run, code) for code in LANGUAGES}
    shown = figures.available(run)
    way = "map" if "map" in shown else "trajectories"
    drawn = {
        name: embedding.figure_json(
            {code: figures.plot(run, name, language=code) for code in LANGUAGES}
        )
        for name in (way, *FIRST, *REST)
        if name in shown
    }
    rows, arms = key_numbers(run), _arms(run)
    scripts = [files("diffviz.figures").joinpath("scrub.js").read_text("utf-8"), asset("page.js")]
    live = plane.module() + MOUNT
    return template("page.html.j2").render(
        run=run,
        runs=runs,
        language=language,
        tags=embedding.TAGS,
        title=title,
        told=told,
        headline=in_languages({code: told[code].headline for code in LANGUAGES}),
        lead=_lead(run, runs),
        policy=policy(*scripts, live),
        style=Markup(asset("page.css")),
        scripts=[Markup(script) for script in scripts],
        live=Markup(live),
        plane=embedding.script_json(plane.options(settings={"particles": 300})),
        plotly=embedding.plotly_packed(),
        arms=arms,
        rows=rows,
        shares=[_share(row) for row in rows],
        few=run.spec.n if run.spec.n < FEW else None,
        table=(table := step_table(run, language)),
        heads=[
            in_languages({code: text(f"story.table.{name}", code) for code in LANGUAGES})
            for name in TABLE
        ],
        residual=_residual(run, rows),
        readings=_readings(run),
        marks=mark_times(run),
        size=int(np.prod(run.spec.sample_shape)),
        first=[name for name in (way, *FIRST) if name in drawn],
        rest=[name for name in REST if name in drawn],
        equations={key: Markup(convert(latex, "block")) for key, latex in EQUATIONS.items()},
        times=run.dataset["t"].values.tolist(),
        terms=[
            (term, _lesson(page, lessons)) for page, terms in LESSONS.items() for term in terms
        ],
        pictures=(pictures := frames(run)),
        view=embedding.script_json(_view(run, language, title, told, table.cells)),
        dots=embedding.script_json(dots(run)),
        figures=embedding.script_json(drawn),
        frames=embedding.script_json(pictures),
        histogram=embedding.script_json(densities(run)),
    )


def _lead(run: Run, runs: Mapping[str, Run]) -> Markup:
    """Which runs these are, in one line."""
    names = dict.fromkeys(one.spec.denoiser for one in runs.values())
    values = {"n": f"{run.spec.n:,}", "steps": run.spec.steps}
    parts = {}
    for code in LANGUAGES:
        words = catalogue(code)
        called = listed([_called(name, run, code) for name in names], code)
        said = [words["report.page.lead"].format(denoiser=called, **values)]
        if len({one.spec.seed for one in runs.values()}) == 1:
            said.append(words["report.page.lead_same"])
        if any(runs):
            key = "report.page.lead_runs" if len(runs) > 1 else "report.page.lead_run"
            said.append(words[key].format(runs=listed(list(runs), code)))
        parts[code] = (" " if code == "en" else "").join(said)
    return in_languages(parts)


def _called(denoiser: str, run: Run, language: str) -> str:
    """A denoiser in everyday words; its own name where there are none."""
    words = catalogue(language)
    if kind := exact_kind(denoiser):
        return words[f"report.page.{kind}"]
    sprites = denoiser.startswith("ContextUnet") and run.spec.sample_shape == (3, 16, 16)
    return words["report.page.sprites"] if sprites else denoiser


def _arms(run: Run) -> list[dict[str, Any]]:
    """What the page calls an arm: its name, its rule and how much of its noise it draws."""
    arms = []
    for i, arm in enumerate(arm_kinds(run)):
        drawn, quiet = "full" if arm.scale == 1 else "part", "free" if arm.scale else "none"
        rule, key = NAMED.get(arm.rule, arm.rule), drawn if arm.drawn else quiet
        said = embedding.both(f"rule.{key}", rule=rule, scale=f"{arm.scale:g}")
        arms.append({"name": arm.name, "rule": said, "colour": theme.colour(i)})
    return arms


def _lesson(page: str, lessons: str | None) -> Markup:
    """The number of a lesson, and the way to it where one is known."""
    n = page[0]
    if lessons is None:
        return embedding.both("page.lesson", n=n)
    link, folder = Markup('<a href="{}/{}/lessons/{}.html">{}</a>'), lessons.rstrip("/")
    words = {code: text("report.page.lesson", code, n=n) for code in LANGUAGES}
    return in_languages(
        {code: link.format(folder, code, page, said) for code, said in words.items()}
    )


def _share(row: Any) -> Markup | str:
    """The percentage with its range; without one for the data themselves."""
    if not np.isfinite(row.share):
        return "–"
    if not np.isfinite(row.share_low + row.share_high):
        return f"{100 * row.share:.0f}"
    parts = {"share": row.share, "low": row.share_low, "high": row.share_high}
    return embedding.both("ends.span", **{key: f"{100 * part:.0f}" for key, part in parts.items()})


def _residual(run: Run, rows: Sequence[Any]) -> dict[str, Any] | None:
    """The residual's D and p on the way; None where it was not measured."""
    way = on_the_way(run)
    if not len(way) or not np.isfinite([row.residual_d for row in rows[:-1]]).any():
        return None
    times = run.dataset["t"].values[way]
    chance = float(np.nanmax(band(run, "residual_ks")[1][way]))
    return {
        "start": int(times[0]),
        "stop": int(times[-1]),
        "chance": chance,
        "close": LEVEL + chance,
        "exact": bool(exact_kind(run.spec.denoiser)),
    }


def _readings(run: Run) -> list[tuple[str, str, list[str]]]:
    """For each arm whose λ can be read: its name, λ, and λ̂ at the marks."""
    marks = np.isin(run.dataset["t"].values, mark_times(run))
    scales = {arm.name: f"{arm.scale:g}" for arm in arm_kinds(run)}
    return [
        (arm, scales[arm], [number(value) for value in values[marks]])
        for arm, values in noise_readings(run).items()
    ]


def _view(
    run: Run,
    language: str,
    title: str | None,
    told: Mapping[str, Any],
    cells: list[list[list[str]]],
) -> dict[str, Any]:
    """What the script of the page reads."""
    pictures = ("map", "trajectories", *FIRST, *REST)
    return {
        "language": language,
        "tags": embedding.TAGS,
        "title": title,
        "headlines": {code: told[code].headline for code in LANGUAGES},
        "arms": run.arms,
        "colours": [theme.colour(i) for i in range(len(run.arms))],
        "times": run.dataset["t"].values.tolist(),
        "cells": cells,
        "config": theme.CONFIG,
        "narrow": theme.NARROW,
        "text": theme.TEXT,
        "words": {
            code: {key: catalogue(code)[f"report.page.{key}"] for key in WORDS}
            for code in LANGUAGES
        },
        "sentences": {
            code: {name: indexed(step_sentences(run, name, code)) for name in pictures}
            for code in LANGUAGES
        },
    }


def policy(*scripts: str) -> str:
    """The Content-Security-Policy of a page that runs these scripts and plotly.js."""
    allowed = " ".join(f"'{embedding.digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed} '{embedding.plotly_digest()}'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
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
    environment.globals.update(
        both=embedding.both,
        in_languages=in_languages,
        kind=lambda name: in_languages({code: class_name(name, code) for code in LANGUAGES}),
        number=number,
        languages=LANGUAGES,
        words=lambda key, code: catalogue(code)[f"report.{key}"],
    )
    return environment.get_template(name)
