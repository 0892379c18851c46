"""A page for each script of ``docs/gallery`` in both languages, and an index with small pictures.

The English words are a script's docstring, the Chinese ones stand in ``zh/gallery.toml``. Every
script runs once; what it prints and draws is kept in the cache of the build.
``python docs/gallery_pages.py`` draws the small pictures of the index, with Chromium.
"""

import ast
import io
import json
import os
import runpy
import tomllib
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import plotly.graph_objects as go
from PIL import Image

import diffviz as dv

HERE = Path(__file__).parent.resolve()
SCRIPTS = HERE / "gallery"
SMALL = HERE / "images" / "gallery"
ORDER = ("paired_arms", "three_ks_views", "lost_mode", "noise_dial", "ddim_steps", "classes")
ORDER += ("zero_terminal_snr", "missing_root", "overlay_runs", "own_checkpoint")
ORDER += ("probe_tutorial_loop", "xray_by_hand")
WORDS = {
    "en": (
        "Gallery",
        "The script",
        "Twelve scripts of at most twenty lines, each with its picture. Every one was run for its "
        "page, and the tests check what it claims.",
    ),
    "zh": (
        "示例集",
        "脚本",
        "十二个脚本，每个不超过二十行，各配一幅图。页面上的结果都由脚本运行得到，测试会核对其结论。"
        "代码和它输出的文字是英文。",
    ),
}


@cache
def chinese() -> dict[str, dict[str, str]]:
    """What the Chinese pages say, by name, and under ``figures`` the words in the pictures."""
    return tomllib.loads((HERE / "zh" / "gallery.toml").read_text(encoding="utf-8"))


def words(name: str, language: str) -> tuple[str, str]:
    """Title and paragraph of a page."""
    if language == "zh":
        return chinese()[name]["title"], chinese()[name]["text"].strip()
    docstring = ast.get_docstring(ast.parse(_source(name))) or ""
    title, _, text = docstring.partition("\n\n")
    return title.rstrip("."), text


def _source(name: str) -> str:
    return (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")


def _in_chinese(figure: Any) -> Any:
    """The figure with the English words of its script in Chinese."""
    found = sorted(chinese()["figures"].items(), key=lambda pair: -len(pair[0]))

    def said(text: str) -> str:
        for english, word in found:
            text = text.replace(english, word)
        return text

    figure = go.Figure(figure)
    figure.for_each_trace(lambda trace: trace.update(name=said(trace.name or "")))
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        axis.title.text = said(axis.title.text or "")
    return figure


def _run(name: str) -> tuple[str, Any, Any]:
    """What the script prints, and its figure in both languages."""
    printed = io.StringIO()
    again = {}

    def plot(*of: Any) -> go.Figure:
        figure = dv.figures.plot(*of)
        again[id(figure)] = dv.figures.plot(*of, language="zh")
        return figure

    with redirect_stdout(printed), patch.object(dv, "plot", plot):
        figure = runpy.run_path(str(SCRIPTS / f"{name}.py"))["figure"]
    if not isinstance(figure, go.Figure):
        return printed.getvalue(), figure, figure
    other = _in_chinese(again.get(id(figure), figure))
    return printed.getvalue(), _styled(figure), _styled(other)


def _styled(figure: go.Figure) -> go.Figure:
    if figure.layout.meta is None:  # of the script's own
        from diffviz.figures.theme import FONTS, GRID, colour

        figure.update_layout(colorway=[colour(i) for i in range(6)])
        figure.update_layout(height=380, margin={"t": 40, "r": 10, "b": 60, "l": 70})
        figure.update_layout(legend={"orientation": "h", "y": 1.14}, font={"family": FONTS})
        figure.update_xaxes(gridcolor=GRID, zeroline=False)
        figure.update_yaxes(gridcolor=GRID, zeroline=False)
    return figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)")


def _results(name: str, cache: Path) -> None:
    """Leave the figure as HTML, the printed words and the notebook in the cache."""
    if (cache / f"{name}.ipynb").exists():
        return
    from lesson import Picture, Still

    printed, figure, other = _run(name)
    said = {language: words(name, language)[0] for language in WORDS}
    still = isinstance(figure, Image.Image)
    shown = Still(figure, **said) if still else Picture({"en": figure, "zh": other}, **said)
    (cache / f"{name}.html").write_text(shown._repr_html_(), encoding="utf-8")
    (cache / f"{name}.txt").write_text(printed, encoding="utf-8")
    code = _source(name).split('"""\n\n', 1)[1]
    new = nbformat.v4
    cells = [new.new_markdown_cell("\n\n".join(words(name, "en")), id="words")]
    cells += [new.new_code_cell(f"{code}figure", id="code")]
    notebook = json.dumps(new.new_notebook(cells=cells), ensure_ascii=False, indent=1)
    (cache / f"{name}.ipynb").write_text(notebook, encoding="utf-8")


def write(language: str, cache: Path) -> None:
    """Leave the pages of a language beside its other pages."""
    cache.mkdir(parents=True, exist_ok=True)
    folder = HERE / "gallery" if language == "en" else HERE / "zh" / "gallery"
    folder.mkdir(exist_ok=True)
    gallery, script, lead = WORDS[language]
    cards = []
    for name in ORDER:
        _results(name, cache)
        made, source = (os.path.relpath(place, folder) for place in (cache, SCRIPTS))
        title, text = words(name, language)
        first = _source(name).split('"""\n\n')[0].count("\n") + 3
        _leave(
            folder / f"{name}.md",
            f"# {title}\n\n{text}\n\n"
            f"```{{raw}} html\n:file: {made}/{name}.html\n```\n\n"
            f"```{{literalinclude}} {made}/{name}.txt\n:language: text\n```\n\n"
            f"## {script}\n\n```{{literalinclude}} {source}/{name}.py\n:lines: {first}-\n```\n\n"
            f"{{download}}`{name}.py <{source}/{name}.py>` · "
            f"{{download}}`{name}.ipynb <{made}/{name}.ipynb>`\n",
        )
        picture = os.path.relpath(SMALL / f"{name}.webp", folder)
        cards.append(
            f":::{{grid-item-card}} {title}\n:link: {name}\n:link-type: doc\n"
            f":img-top: {picture}\n:img-alt: {title}\n:::"
        )
    names = "\n".join(ORDER)
    grid = "\n\n".join(["::::{grid} 1 2 3 3\n:gutter: 3", *cards, "::::"])
    tree = f"```{{toctree}}\n:hidden:\n\n{names}\n```"
    _leave(folder / "index.md", f"# {gallery}\n\n{lead}\n\n{grid}\n\n{tree}\n")


def _leave(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def draw_small() -> None:
    """The pictures of the index: figures without words."""
    SMALL.mkdir(exist_ok=True)
    for name in ORDER:
        _, figure, _ = _run(name)
        if isinstance(figure, go.Figure):
            figure.update_layout(showlegend=False, annotations=[], title=None, height=240)
            figure.update_layout(margin={"t": 8, "r": 8, "b": 8, "l": 8})
            figure.update_xaxes(title=None, showticklabels=False)
            figure.update_yaxes(title=None, showticklabels=False)
            figure = Image.open(io.BytesIO(figure.to_image("png", width=400, height=240)))
        figure.resize((400, 240)).save(SMALL / f"{name}.webp", quality=80)


if __name__ == "__main__":
    draw_small()
