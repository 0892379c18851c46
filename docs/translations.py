"""Which Chinese pages are missing or behind their English ones.

``docs/zh/PATH.md`` translates ``docs/PATH.md`` and says in its front matter which text it
translates, by the SHA-256 of that file::

    translates: 3f0c…

``python docs/translations.py`` lists what is not in step; ``python docs/translations.py --stamp
PATH…`` writes the digest into those pages after they were translated. Code cells are the same in
both languages, to the letter: they run once for both.

What a program writes into a page, from ``<!-- made by … -->`` to ``<!-- end -->``, does not count.
The Chinese page takes it over by the directive ``made``, whose lines say what becomes of words in
it, English = Chinese. The pages on findings are made as a whole: `chinese_findings`.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent.resolve()
ENGLISH_ONLY = ("api/*",)
"""Made of docstrings: the program speaks English in its code."""
MADE_AS_A_WHOLE = ("findings/*", "gallery/*")
MADE = re.compile(r"(?<=<!-- made by ).*?(?=<!-- end -->)", re.DOTALL)
TAKEN = re.compile(r"^:::\{made\} (\S+) ?(\d*)\n(.*?)^:::$", re.MULTILINE | re.DOTALL)
STAMP = re.compile(r"^translates: ?(.*)$", re.MULTILINE)
BREAK = re.compile(r"(?<=[，。；：、！？（）“”])\n|(?<=[一-鿿])\n(?=[一-鿿“（，。；：、！？])")
CELL = re.compile(r"^```\{code-cell\}.*?^```$", re.MULTILINE | re.DOTALL)


def english_pages() -> list[str]:
    """Paths of all English pages, from ``docs/``."""
    paths = (p.relative_to(HERE).as_posix() for p in HERE.rglob("*.md"))
    return sorted(p for p in paths if not p.startswith(("zh/", "_")))


def pages_to_translate() -> list[str]:
    """Those that must be there in Chinese."""
    rules = (*ENGLISH_ONLY, *MADE_AS_A_WHOLE)
    return [p for p in english_pages() if not any(fnmatch(p, rule) for rule in rules)]


def digest(path: str) -> str:
    """What the translation of ``path`` must be stamped with."""
    text = (HERE / path).read_text(encoding="utf-8")
    return sha256(MADE.sub("", text).encode()).hexdigest()


def made(path: str, number: int = 1) -> str:
    """What a program has written into the English page, the first, second, … time."""
    return MADE.findall((HERE / path).read_text(encoding="utf-8"))[number - 1].partition("\n")[2]


def joined(before: str, text: str, after: str) -> str:
    """The text without its line breaks between Chinese characters, of which two may be outside."""
    whole, start = before + text + after, len(before)
    breaks = {found.start() for found in BREAK.finditer(whole)}
    return "".join(whole[i] for i in range(start, start + len(text)) if i not in breaks)


def words(lines: Iterable[str]) -> dict[str, str]:
    """The pairs of a directive ``made``."""
    return {
        english: chinese for english, _, chinese in (x.partition(" = ") for x in lines) if english
    }


def in_words(text: str, pairs: Mapping[str, str]) -> str:
    """The text with the words exchanged."""
    for english, chinese in pairs.items():
        text = text.replace(english, chinese)
    return text


def cells(text: str) -> list[str]:
    """The code cells of a page, options included."""
    return CELL.findall(text)


def problems() -> Iterator[str]:
    """One line for every page that is not in step."""
    wanted = pages_to_translate()
    for path in wanted:
        chinese = HERE / "zh" / path
        if not chinese.exists():
            yield f"docs/zh/{path} is missing"
            continue
        text = chinese.read_text(encoding="utf-8")
        stamp = STAMP.search(text)
        if stamp is None or stamp[1] != digest(path):
            yield (
                f"docs/zh/{path} translates another text than docs/{path} has now; "
                f"bring it up to date, then: python docs/translations.py --stamp {path}"
            )
        if cells(text) != cells((HERE / path).read_text(encoding="utf-8")):
            yield f"the code cells of docs/zh/{path} are not those of docs/{path}"
        for source, number, lines in TAKEN.findall(text):
            for english in words(lines.splitlines()):
                if english not in made(source, int(number or 1)):
                    yield f"docs/zh/{path}: docs/{source} says no more: {english}"
    for page in sorted((HERE / "zh").rglob("*.md")):
        path = page.relative_to(HERE / "zh").as_posix()
        if path not in wanted and not any(fnmatch(path, rule) for rule in MADE_AS_A_WHOLE):
            yield f"docs/zh/{path} translates no page"


def stamp(path: str) -> None:
    """Write the digest of the English page into the front matter of the Chinese one."""
    page = HERE / "zh" / path
    text = page.read_text(encoding="utf-8")
    line = f"translates: {digest(path)}"
    if STAMP.search(text):
        text = STAMP.sub(line, text, count=1)
    elif text.startswith("---\n"):
        text = f"---\n{line}\n{text[4:]}"
    else:
        text = f"---\n{line}\n---\n\n{text}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stamp"]:
        for name in sys.argv[2:] or pages_to_translate():
            stamp(name)
    found = list(problems())
    print("\n".join(found) or "every page is in step")
    sys.exit(bool(found))
