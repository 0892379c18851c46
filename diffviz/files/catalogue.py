"""What users read on screen, in every language: ``locales/<language>/<topic>.toml``.

A key is ``topic.table.name``; its text may hold ``{fields}`` for ``str.format``. Every language
has the same keys with the same fields (held by a test), and no sentence stands twice in the code.
"""

import tomllib
from functools import cache
from importlib.resources import files

LANGUAGES = ("en", "zh")


@cache
def catalogue(language: str) -> dict[str, str]:
    """All texts of a language, keyed ``topic.table.name``."""
    texts: dict[str, str] = {}
    for file in sorted(files("diffviz.files").joinpath("locales", language).iterdir(), key=str):
        if file.name.endswith(".toml"):
            topic = file.name.removesuffix(".toml")
            texts |= _flat(tomllib.loads(file.read_text(encoding="utf-8")), topic)
    return texts


def _flat(table: dict, prefix: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in table.items():
        key = f"{prefix}.{name}"
        texts |= _flat(value, key) if isinstance(value, dict) else {key: value.strip()}
    return texts


def text(key: str, language: str, **values: object) -> str:
    """The text of ``key`` with its fields filled in."""
    return catalogue(language)[key].format(**values)


def class_name(name: str, language: str) -> str:
    """A class in words: of our own sprites, ``mode 3``, ``class 3``; others keep their name."""
    kind, space, which = name.partition(" ")
    if space and kind not in ("mode", "class"):
        return name
    return catalogue(language).get(f"figures.class.{kind}", kind) + space + which
