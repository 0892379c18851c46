"""What can be seen of the built pages without a browser: broken links, decks that are too long.

``python docs/check.py`` looks through ``docs/_build/html``; `build` does so at its end. A
browser looks at the rest in ``tests/test_docs_browser.py``.
"""

import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_SLIDES = 20
ADDRESSES = {("a", "href"), ("link", "href"), ("script", "src"), ("img", "src")}


class _Page(HTMLParser):
    """The addresses that a page asks for, the places it has, and its slides."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.addresses: list[tuple[str, str]] = []
        self.places: set[str] = set()
        self.slides = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            if (tag, name) in ADDRESSES and value:
                self.addresses.append((tag, value))
        # A slide is the section with the heading; the one around it is for reveal.js.
        self.slides += tag in ("h1", "h2", "h3")


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def slides(path: Path) -> int:
    """How many slides a deck has."""
    return _read(path).slides


def problems(root: Path) -> Iterator[str]:
    """One line for every link that leads nowhere, resource from outside, and deck too long."""
    for path in sorted(root.rglob("*.html")):
        if "_static" in path.parts:
            continue
        here = path.relative_to(root)
        for tag, address in _read(path).addresses:
            yield from (f"{here}: {why}" for why in _wrong(path, tag, address))
        if here.parts[0] == "slides" and slides(path) > MAX_SLIDES:
            yield f"{here}: {slides(path)} slides; allowed are {MAX_SLIDES}"


def _wrong(path: Path, tag: str, address: str) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        if tag != "a" and parts.scheme != "data":
            yield f"<{tag}> is loaded from outside: {address}"
        return
    target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    if not target.is_file():
        yield f"no such file: {address}"
        return
    place = unquote(parts.fragment)
    if place and target.suffix == ".html" and place not in _read(target).places:
        yield f"no such place: {address}"


if __name__ == "__main__":
    found = list(problems(Path(__file__).parent / "_build" / "html"))
    print("\n".join(found) or "no broken link, no deck too long")
    sys.exit(bool(found))
