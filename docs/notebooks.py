"""Each lesson as a notebook that runs from top to bottom, with nothing hidden.

``python docs/notebooks.py FOLDER`` writes ``1-noising.ipynb`` … for both languages into
``FOLDER/en/notebooks`` and ``FOLDER/zh/notebooks``. The first cell of a page, ``from lesson import
*``, becomes the text of ``_ext/notebook_helpers.py``, so that a notebook needs diffviz alone. The
numbers in the prose are those that the page shows; they are taken from the cells that ran for it.
"""

import ast
import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.resolve()
SOURCES = {"en": HERE, "zh": HERE / "zh"}
PART = re.compile(r"^```\{code-cell\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\{n\}`(\w+)(?::([^`]*))?`")
FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
FENCE = re.compile(r"^:::.*$\n?|^:\w+: .*$\n?", re.MULTILINE)
PLANE = re.compile(r"^:::\{plane\}.*?^:::$", re.MULTILINE | re.DOTALL)
LIVE = {
    "en": '(Live on the page; here: `dv.play()`, after `pip install "diffviz[notebook]"`.)',
    "zh": '（网页上可实时操作；这里先 `pip install "diffviz[notebook]"`，再用 `dv.play()`。）',
}
FORMULA = re.compile(r"\$\$(?: \((\w+)\))?$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)[^)]*\)")


def numbers(folder: Path) -> dict[str, dict[str, object]]:
    """What the cells of each page have put under a name, by the stem of the page."""
    from jupyter_cache import get_cache

    found: dict[str, dict[str, object]] = {}
    cache = get_cache(str(folder))
    for record in cache.list_cache_records():
        notebook = cache.get_cache_bundle(record.pk).nb
        values = found.setdefault(Path(record.uri).stem, {})
        for cell in notebook.cells:
            for output in cell.get("outputs", ()):
                name = output.get("metadata", {}).get("scrapbook", {}).get("name")
                data = output.get("data", {})
                text = data.get("application/papermill.record/text/plain") or data.get(
                    "text/plain"
                )
                if name and text:
                    values[name] = ast.literal_eval(text)
    return found


@cache
def equations() -> dict[str, int]:
    """The number of each formula that has a label, as the pages count them."""
    found = {}
    for page in (HERE / "lessons").glob("[0-9]*.md"):
        ends = FORMULA.findall(page.read_text(encoding="utf-8"))
        found |= {label: number for number, label in enumerate(ends, 1) if label}
    return found


def _tag(label: str | None) -> str:
    return rf"\tag{{{equations()[label]}}}$$" if label else "$$"


def notebook(text: str, language: str, values: Mapping[str, object]) -> dict[str, Any]:
    """The page ``text`` as a notebook; a number without a value keeps its name."""
    helpers = (HERE / "_ext" / "notebook_helpers.py").read_text(encoding="utf-8")
    helpers = helpers.replace('LANGUAGE = "en"', f'LANGUAGE = "{language}"')
    cells: list[tuple[str, str]] = []
    pieces = PART.split(FRONT.sub("", text))
    for i, piece in enumerate(pieces):
        if i % 2:
            code = re.sub(r"^:tags:.*\n", "", piece.strip("\n") + "\n").strip()
            before, star, after = code.partition("from lesson import *\n")
            if star:
                cells.append(("code", helpers.strip()))
                code = (before + after).strip()
            if code:
                cells.append(("code", code))
        elif piece.strip():
            prose = NUMBER.sub(lambda found: _written(found, values), piece)
            prose = PLANE.sub(LIVE[language], prose)
            prose = LINK.sub("]", FENCE.sub("", prose))
            prose = FORMULA.sub(lambda found: _tag(found[1]), prose)
            prose = re.sub(r"\{eq\}`(\w+)`", lambda found: f"({equations()[found[1]]})", prose)
            cells.append(("markdown", prose.strip()))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [_cell(number, *cell) for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(number: int, kind: str, source: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
    cell |= {"source": source}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _written(found: re.Match[str], values: Mapping[str, object]) -> str:
    name, style = found.groups()
    return format(values[name], style or "") if name in values else name


def write(folder: Path, cache: Path | None = None) -> None:
    """All lessons, in both languages."""
    values = numbers(cache) if cache is not None else {}
    for language, source in SOURCES.items():
        target = folder / language / "notebooks"
        target.mkdir(parents=True, exist_ok=True)
        for page in sorted((source / "lessons").glob("[0-9]*.md")):
            made = notebook(page.read_text(encoding="utf-8"), language, values.get(page.stem, {}))
            words = json.dumps(made, ensure_ascii=False, indent=1)
            (target / f"{page.stem}.ipynb").write_text(words, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
