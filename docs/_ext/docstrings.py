"""Docstrings for autodoc: shapes and formulas in them are text, not markup.

``(B, *D)`` is no emphasis, ``|F_n − F|`` no substitution and ``ᾱ_(t−1)`` no reference. Runs before
napoleon, and leaves literals alone.
"""

import re
from typing import Any

from sphinx.application import Sphinx

MARKUP = re.compile(r"(?<=[(, ])\*(?=[A-Za-z])|\||_(?=[({\s]|$)|(?<![\w`:])`(?=[A-Za-z_.]+`)")
LITERAL = re.compile(r"(``.*?``)")


def plain(line: str) -> str:
    """The line with a backslash before what would be read as markup."""
    parts = LITERAL.split(line)
    return "".join(p if i % 2 else MARKUP.sub(r"\\\g<0>", p) for i, p in enumerate(parts))


def _escape(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [plain(line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _escape, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
