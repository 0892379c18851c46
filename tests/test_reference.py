"""The reference pages: names are explained, modules and commands exist."""

import ast
import importlib
import importlib.util
import inspect
import re
import runpy
import shlex
import textwrap
from pathlib import Path

import click
import pytest

import diffviz as dv
from diffviz import cli

DOCS = Path(__file__).parent.parent / "docs"
HOWTO = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.glob("**/howto/*.md"))
HOWTO += ["../README.md", "../README.zh.md"]


def _read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


# ---------------------------------------------------------------- names


def _documented() -> set[str]:
    pages = "".join(p.read_text(encoding="utf-8") for p in (DOCS / "api").glob("*.md"))
    return {name.split(".")[-1] for name in re.findall(r"^\.\. auto\w+:: (\S+)", pages, re.M)}


def test_every_public_name_is_on_a_page():
    """Kills: a new name that nobody documents."""
    assert set(dv.__all__) <= _documented()


def _callables():
    """(name, what is called, its docstring) of all public functions and methods."""
    for name in dv.__all__:
        thing = getattr(dv, name)
        if inspect.isclass(thing):
            words = inspect.getdoc(thing) or ""
            first = inspect.getdoc(thing.__init__) or "" if "__init__" in vars(thing) else ""
            if "__init__" in vars(thing) and not issubclass(thing, Exception):
                yield f"{name}(…)", thing.__init__, words + first
            for method, value in vars(thing).items():
                value = getattr(value, "__func__", value)
                if inspect.isfunction(value) and not method.startswith("_"):
                    yield f"{name}.{method}", value, inspect.getdoc(value) or ""
        elif inspect.isfunction(thing):
            yield name, thing, inspect.getdoc(thing) or ""


@pytest.mark.parametrize("name", dv.__all__)
def test_a_public_name_says_what_it_is(name):
    """Kills: a name without a docstring, or with one that only repeats the name."""
    thing = getattr(dv, name)
    if isinstance(thing, tuple):
        home = importlib.import_module("diffviz.diffusion.rules")
        after = inspect.getsource(home).split(f"\n{name} = ", 1)[1]
        assert re.search(r'^(?:\)\n)?"""\w', after, re.M), f"{name} has no words below it"
        return
    words = inspect.getdoc(thing) or ""
    assert len(words) > 40 and not words.startswith(f"{name}("), words


@pytest.mark.parametrize("name, called, words", [pytest.param(*c, id=c[0]) for c in _callables()])
def test_parameters_and_errors_are_explained(name, called, words):
    """Kills: a parameter that no docstring names, an error that is raised and not announced."""
    assert words, f"{name} has no docstring"
    parameters = [
        p.name
        for p in inspect.signature(called).parameters.values()
        if p.name not in ("self", "cls") and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    # As a word, or with an index, as x of x_t. One alone, which all is about, needs no name.
    unnamed = [p for p in parameters if not re.search(rf"(?<![^\W_]){p}(?![^\W_])", words)]
    assert len(parameters) == 1 or not unnamed, unnamed
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(called)))
    except OSError:  # made by dataclass
        return
    raised = {
        getattr(getattr(node.exc, "func", None), "id", None)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None
    } & {"InputError", "CheckpointError", "RunFileError", "ValueError", "AssertionError"}
    assert not raised or "Raises:" in words, f"{name} raises {raised} and does not say so"


# ---------------------------------------------------------------- pages


def test_the_architecture_has_every_module():
    """Kills: a new module that no reader finds."""
    page = _read("architecture.md")
    root = Path(cli.__file__).parents[1]
    for path in [*root.glob("diffviz/**/*.py"), *root.glob("dashboards/**/*.py")]:
        if path.stem != "__init__":
            assert f"`{path.name}`" in page, f"{path.relative_to(root)} is nowhere on the page"


# ---------------------------------------------------------------- commands


def _blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", _read(page), re.MULTILINE | re.DOTALL)


def _command(words: list[str]) -> None:
    """Fails unless the program has this command with these options."""
    command = cli.cli if hasattr(cli, "cli") else cli.main
    assert isinstance(command, click.Group)
    found = command.commands[words[1]]
    known = {flag for p in found.params for flag in (*p.opts, *p.secondary_opts)}
    given = [word.split("=")[0] for word in words[2:] if re.match(r"--?[A-Za-z]", word)]
    assert set(given) <= known, f"{set(given) - known} in: {shlex.join(words)}"


@pytest.mark.parametrize("page", HOWTO)
def test_commands_and_code_of_a_recipe_exist(page):
    """Kills: a renamed option or command, code that is no Python, a name that is not there."""
    for block in _blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if words[:1] == ["diffviz"]:
                _command(words)
    for block in _blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "dv":
                assert node.attr in dv.__all__
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("diffviz"):
                home = importlib.import_module(str(node.module))
                assert all(hasattr(home, alias.name) for alias in node.names)


def test_the_sampler_of_the_recipe_has_the_fault_that_the_page_names():
    script = runpy.run_path(str(DOCS / "howto" / "my_sampler.py"))
    seen = dv.xray(script["sample"], script["schedule"])
    assert seen.rule == "ddpm/beta" and seen.time == "index"
    assert seen.findings[0].id == "noise-scale" and seen.behaves is False
