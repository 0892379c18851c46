"""Putting data into a page: JSON that cannot end its script, bytes, texts in two languages."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache, partial, reduce
from operator import getitem
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from diffviz.files.catalogue import LANGUAGES, catalogue

TAGS = {"en": "en", "zh": "zh-Hans"}
"""A language of the catalogue, and its tag in HTML."""
_TERM = re.compile(r"\[\[([a-z_]+)(?:\|([^\]]+))?\]\]")
ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def script_json(value: Any) -> Markup:
    """``value`` as JSON for a ``<script type="application/json">``: no character can end it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(ESCAPES))


def packed(data: bytes) -> str:
    """Gzip, then base64; the same bytes at any time."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


@cache
def plotly_packed() -> str:
    """The whole of plotly.js, ``packed``."""
    return packed(get_plotlyjs().encode())


@cache
def plotly_digest() -> str:
    """The hash by which the page's policy knows plotly.js."""
    return digest(get_plotlyjs())


def digest(script: str) -> str:
    """A source of a Content-Security-Policy: the script with this text, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def both(keys: str, tag: str = "span", **values: object) -> Markup:
    """A text of the report, or several one after the other, in every language; values are escaped.

    The page shows one language. ``[[residual]]`` in a text becomes a term that says what it means
    when it is pointed at, and leads to the glossary of the page; ``[[residual|residuals]]`` shows
    another form of the word.
    """
    parts = {}
    for language in LANGUAGES:
        texts = [_TERM.sub(partial(_term, language), _text(k, language)) for k in keys.split()]
        between = " " if language == "en" else ""
        parts[language] = Markup(between.join(texts)).format(**values)
    return in_languages(parts, tag)


def in_languages(parts: Mapping[str, str], tag: str = "span") -> Markup:
    """One element for each language, marked so that the page shows one of them; escaped."""
    return Markup("").join(
        Markup('<{tag} class="in-{language}" lang="{lang}">{part}</{tag}>').format(
            tag=Markup(tag), language=language, lang=TAGS[language], part=escape(part)
        )
        for language, part in parts.items()
    )


def _text(key: str, language: str) -> str:
    return catalogue(language)[f"report.{key}"]


def _term(language: str, found: re.Match) -> str:
    key, shown = found[1], found[2] or found[1]
    meaning = escape(_text(f"terms.{key}", language))
    return f'<a class="term" href="#term-{key}" data-meaning="{meaning}">{shown}</a>'


def figure_json(figures: Mapping[str, go.Figure]) -> dict[str, Any]:
    """One figure in several forms: the first whole, the others as what differs.

    Returns:
        ``figure`` with data and layout, and ``texts``: for each form a list of [path, value].
    """
    plain = {form: json.loads(figure.to_json()) for form, figure in figures.items()}
    for figure in plain.values():
        figure["layout"]["paper_bgcolor"] = "rgba(0,0,0,0)"  # the page's own shows
    first = next(iter(plain.values()))
    differing = {key for other in plain.values() for key in _differences(first, other)}
    changed = sorted(differing, key=repr)
    return {
        "figure": {"data": first["data"], "layout": first["layout"]},
        "texts": {
            form: [[list(path), reduce(getitem, path, figure)] for path in changed]
            for form, figure in plain.items()
        },
    }


def _differences(a: Any, b: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths at which two values differ; below a list of another length the list itself."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [p for key in a for p in _differences(a[key], b[key], (*path, key))]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [p for i, (x, y) in pairs for p in _differences(x, y, (*path, i))]
    return [] if a == b else [path]
