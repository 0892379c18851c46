"""An x-ray as one HTML file for people, and as JSON for programs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from diffviz.diagnosis.numbers import finite
from diffviz.errors import InputError
from diffviz.figures import theme
from diffviz.figures.xray import behaviour_figure, xray_figure, xray_noise_figure
from diffviz.files.atomic import replacing
from diffviz.files.catalogue import LANGUAGES, text
from diffviz.report import embedding
from diffviz.report.embedding import in_languages
from diffviz.report.page import asset, policy, template

if TYPE_CHECKING:  # an x-ray needs torch, a page about it does not
    from diffviz.identify.xray import XRay

FORMAT = "diffviz-xray-2"
COLUMNS = ("x", "eps", "bias", "std")


def xray_numbers(seen: "XRay", language: str = "en") -> dict[str, Any]:
    """The whole verdict as plain JSON values; what is not a number is None.

    ``rule``, ``behaves``, ``path``, ``time`` and ``answer`` are those of the x-ray, ``findings`` a
    list of objects, ``about`` the schedule, the number of values per state and the score that
    counts. ``calls`` maps each column of ``XRay.behaviour`` to its ``meaning`` and one value per
    call for each law of data, ``steps`` those of ``XRay.coefficients`` to one value per step.
    """
    data = seen.coefficients
    return finite(
        {
            "format": FORMAT,
            "rule": seen.rule,
            "behaves": seen.behaves,
            "path": seen.path,
            "time": seen.time,
            "answer": seen.answer,
            "findings": [finding.numbers(language) for finding in seen.findings],
            "about": data.attrs,
            "calls": {
                str(name): {
                    "meaning": str(variable.attrs.get("long_name", name)),
                    "values": variable.values.tolist(),
                }
                for name, variable in seen.behaviour.variables.items()
            },
            "steps": {
                str(name): {
                    "meaning": str(data[name].attrs["long_name"]),
                    "values": data[name].values.tolist(),
                }
                for name in ("t", *data.data_vars)
            },
        }
    )


def write_xray_numbers(seen: "XRay", path: str | Path, language: str = "en") -> None:
    """Write ``xray_numbers`` to ``path`` as JSON, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    content = json.dumps(xray_numbers(seen, language), ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8")


def write_xray_report(
    seen: "XRay", path: str | Path, *, name: str = "", language: str = "en"
) -> None:
    """Write what was seen of the sampler called ``name`` to ``path`` as one HTML file.

    Findings, curves against the rule and every step's numbers are in it, in every language;
    ``language`` is the one shown first. The page makes no request.

    Raises:
        InputError: no such language, or the file cannot be written.
    """
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}; allowed are {', '.join(LANGUAGES)}")
    page = _render(seen, name, language)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _render(seen: "XRay", name: str, language: str) -> str:
    data, script = seen.coefficients, asset("xray.js")
    figures = {}
    if seen.behaviour.sizes.get("call") and seen.behaviour.sizes.get("law"):
        names = ("level", "level_told", "signal", "signal_told")
        curves = {key: seen.behaviour[key].values for key in names}
        drawings = {code: behaviour_figure(curves, code) for code in LANGUAGES}
        figures["behaviour"] = embedding.figure_json(drawings)
    if np.isfinite(data["x"]).any():
        for key, draw in (("xray", xray_figure), ("xray_noise", xray_noise_figure)):
            figures[key] = embedding.figure_json({code: draw(data, code) for code in LANGUAGES})
    key = "xray.title" if name else "xray.title_plain"
    titles = {code: text(f"report.{key}", code, name=name) + " · diffviz" for code in LANGUAGES}
    view = {
        "language": language,
        "titles": titles,
        "tags": embedding.TAGS,
        "config": theme.CONFIG,
        "text": theme.TEXT,
        "narrow": theme.NARROW,
        "words": {
            code: {key: text(f"report.page.{key}", code) for key in ("language", "theme")}
            for code in LANGUAGES
        },
        "figures": figures,
    }
    return template("xray.html.j2").render(
        seen=seen,
        name=name,
        title=titles[language],
        language=language,
        tags=embedding.TAGS,
        policy=policy(script),
        style=Markup(asset("page.css")),
        script=Markup(script),
        plotly=embedding.plotly_packed(),
        findings=[
            (finding, in_languages({code: finding.text(code) for code in LANGUAGES}, "p"))
            for finding in seen.findings
        ],
        captions={
            key: [
                in_languages({code: text(f"figures.{key}.{part}", code) for code in LANGUAGES})
                for part in ("title", "caption")
            ]
            for key in figures
        },
        about=data.attrs,
        steps=_steps(data) if "xray" in figures else [],
        view=embedding.script_json(view),
    )


def _steps(data: xr.Dataset) -> list[list[str]]:
    """Per step its times, then each coefficient, its error and what the rule says, as text."""
    names = ["t", "s"]
    for name in COLUMNS:
        names += [name, f"{name}_error"] + [f"expected_{name}"] * (name != "bias")
    columns = []
    for name in [*names, "noise_ks", "batch_correlation"]:
        digits = 2 if name.endswith(("_error", "_ks", "_correlation")) else 6
        said = [f"{float(value):.{digits}g}".replace("-", "−") for value in data[name].values]
        columns.append([words.replace("nan", "–") for words in said])
    return [list(row) for row in zip(*columns, strict=True)]
