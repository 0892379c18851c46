"""The gallery: each script is short, uses names that users have, and shows what it claims."""

import ast
import importlib.util
import io
import re
import runpy
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image

import diffviz as dv

GALLERY = Path(__file__).parent.parent / "docs" / "gallery"
SCRIPTS = sorted(path.stem for path in GALLERY.glob("*.py"))
LINES = 20
SLOW = ("classes", "probe_tutorial_loop")


def _residual(run: dv.Run, arm: int = 0):
    return run.dataset["std"].sel(quantity="residual", t=slice(450, 100)).isel(arm=arm).values


FACTS: dict[str, dict[str, Callable[[dict], bool]]] = {
    # what the docstring claims, and how the script's own names show it
    "paired_arms": {
        "recording and recursion agree": lambda s: s["gap"] < 0.05,
        "z = 0 ends in a point": lambda s: abs(s["run"].dataset["std"][1, 0, -1] - 0.0199) < 0.002,
    },
    "noise_dial": {
        "the residual reads λ": lambda s: np.abs(s["residual"] - s["dial"]).max() < 0.04,
        "the spread follows": lambda s: np.abs(s["spread"] / 0.5 - s["dial"]).max() < 0.041,
    },
    "lost_mode": {
        "z = 0 has no sample in it": lambda s: s["share"]["z=0"] == 0,
        "the others have their share": lambda s: all(
            abs(s["share"][arm] - 0.3) < 0.03 for arm in ("ddpm", "ddim")
        ),
        "z = 0 does not end at the mean": lambda s: (
            abs(float(s["run"].dataset["mean"].sel(arm="z=0", quantity="x", t=0)) + 0.981) < 0.01
        ),
    },
    "three_ks_views": {
        "the naive view rejects all": lambda s: float(s["naive"].min()) > 0.7,
        "the marginal view passes DDIM": lambda s: (
            float(s["marginal"].sel(arm="ddim")) < 0.1 < 0.4 < float(s["marginal"].sel(arm="z=0"))
        ),
        "the residual view passes DDPM alone": lambda s: (
            float(s["residual"][0]) < 0.03 < 0.2 < float(s["residual"][1:].min())
        ),
    },
    "xray_by_hand": {
        "the rule is seen": lambda s: s["seen"].rule == "ddpm/beta",
        "the fault is seen, and what it does": lambda s: (
            {f.id for f in s["seen"].findings if f.severity == "error"}
            == {"noise-scale", "level-low"}
            and s["seen"].behaves is False
        ),
    },
    "probe_tutorial_loop": {
        "each loop is known": lambda s: (
            [r.spec.arms[0]["noise_scale"] for r in s["runs"].values()] == [1.0, 0.0]
            and {r.spec.arms[0]["rule"] for r in s["runs"].values()} == {"ddpm/beta"}
        ),
        "only the incorrect one is accused": lambda s: (
            [any(f.severity == "error" for f in dv.diagnose(r)) for r in s["runs"].values()]
            == [False, True]
        ),
    },
    "ddim_steps": {
        "few steps leave too little spread": lambda s: (
            s["distance"]["ddpm/beta"][1] < s["distance"]["ddim(eta=0)"][1] / 4
        ),
        "the start stays in DDIM's end": lambda s: (
            s["distance"]["ddim(eta=0)"][-1] > 10 * s["distance"]["ddpm/beta"][-1]
        ),
    },
    "zero_terminal_snr": {
        "the signal in x_T is carried to the end": lambda s: (
            np.abs(np.array(list(s["end"].values())) - (1.9209, 1.9991)).max() < 0.001
        ),
    },
    "missing_root": {
        "too wide, by the closed form": lambda s: abs(s["std"]["without"] - 0.677) < 0.02,
        "near the data it answers too little": lambda s: all(
            abs(s["trained_without_root"](torch.tensor(x), t))
            < abs(s["right"](torch.tensor(x), t))
            for x in (0.0, 3.0)
            for t in (20, 50, 100)
        ),
        "right with the root": lambda s: abs(s["std"]["with the root"] - 0.5) < 0.015,
    },
    "classes": {
        "the context decides": lambda s: min(s["hits"].values()) >= 4,
    },
    "overlay_runs": {
        "the residual of the second lies higher": lambda s: (
            _residual(s["second"]) > _residual(s["first"]) + 0.01
        ).all(),
    },
    "own_checkpoint": {
        "the tutorial's network is random": lambda s: min(s["gaps"]["course"]) > 0.1,
        "frozen it is not": lambda s: max(s["gaps"]["frozen"]) == 0,
    },
}


def test_every_script_has_its_facts():
    assert sorted(FACTS) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_short_and_says_what_it_shows(script):
    """Kills: a script that grows beyond a slide, or that has no words."""
    source = (GALLERY / f"{script}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    words = ast.get_docstring(tree)
    assert words is not None
    title, _, paragraph = words.partition("\n\n")
    assert title.endswith((".", "?")) and len(paragraph) > 150
    first = tree.body[1].lineno  # after the docstring
    code = [line.strip() for line in source.splitlines()[first - 1 :]]
    assert 5 < len([line for line in code if line and not line.startswith("#")]) <= LINES


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_uses_what_users_have(script):
    """Kills: a private name, or a module that a plain installation lacks."""
    tree = ast.parse((GALLERY / f"{script}.py").read_text(encoding="utf-8"))
    roots = {"numpy", "plotly", "torch", "PIL", "diffviz", "tempfile", "pathlib"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= roots
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.module.split(".")[0] in roots
            assert not any(alias.name.startswith("_") for alias in node.names)
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")


@pytest.mark.parametrize(
    "script",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SCRIPTS],
)
def test_script_shows_what_it_claims(script, capsys):
    """Kills: a docstring that its own numbers contradict."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        names = runpy.run_path(str(GALLERY / f"{script}.py"))
    assert printed.getvalue().strip()
    assert isinstance(names["figure"], go.Figure | Image.Image)
    for claim, holds in FACTS[script].items():
        assert holds(names), claim


def test_the_words_of_a_picture_are_chinese_on_a_chinese_page(monkeypatch):
    """Kills: a figure of the page in English, the same one on both pages, an arm renamed."""
    monkeypatch.syspath_prepend(str(GALLERY.parent))
    import gallery_pages

    for script, names in (
        ("noise_dial", ["t = 100 处残差的标准差", "样本与数据的标准差之比", "λ"]),
        ("lost_mode", ["ddpm", "z=0", "ddim"]),
    ):
        _, english, chinese = gallery_pages._run(script)
        assert [trace.name for trace in chinese.data] == names
        titles = [axis.title.text for axis in (chinese.layout.xaxis, chinese.layout.yaxis)]
        assert re.search("[\u4e00-\u9fff]", "".join(titles))
        assert not re.search("[\u4e00-\u9fff]", "".join(trace.name for trace in english.data))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_script_has_a_page_that_begins_with_its_first_line_of_code(
    language, tmp_path, monkeypatch
):
    """Kills: a script without a page or without Chinese words, a docstring shown as code."""
    spec = importlib.util.spec_from_file_location("pages", GALLERY.parent / "gallery_pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    monkeypatch.setattr(pages, "_results", lambda name, cache: None)  # they run in another test
    monkeypatch.setattr(pages, "HERE", tmp_path)
    (tmp_path / "zh").mkdir()
    words = (GALLERY.parent / "zh" / "gallery.toml").read_text(encoding="utf-8")
    (tmp_path / "zh" / "gallery.toml").write_text(words, encoding="utf-8")
    pages.write(language, tmp_path / "cache")
    folder = tmp_path / ("gallery" if language == "en" else "zh/gallery")
    assert {path.stem for path in folder.glob("*.md")} == {*SCRIPTS, "index"}
    for name in SCRIPTS:
        page = (folder / f"{name}.md").read_text(encoding="utf-8")
        first = int(re.search(r"\.py\n:lines: (\d+)-", page)[1])
        lines = (GALLERY / f"{name}.py").read_text(encoding="utf-8").splitlines()
        assert lines[first - 1].startswith(("import", "from")) and '"""' in lines[first - 3]
        assert bool(re.search("[\u4e00-\u9fff]", page)) == (language == "zh")
