"""The Chinese pages on findings, made from the English ones, which are made by a program as well.

Code, numbers and pictures stay as they are. The quoted message is that of the Chinese catalogue
with the numbers of the English page, and every other paragraph is looked up in ``PHRASES``,
English = Chinese, where ``{}`` stands for anything and ``{0}`` for what stood there. A page is so
never behind its English one: a text without a translation, a message that the catalogue words in
another way, and a translation that no page needs are problems, which
``python docs/chinese_findings.py`` lists.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from diffviz.files.catalogue import catalogue, class_name

HERE = Path(__file__).parent.resolve()
ENGLISH = HERE / "findings"
PHRASES = HERE / "zh" / "findings.toml"
BLOCK = re.compile(r"^```.*?^```$|[^\n].*?(?=\n\n|\n\Z)", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"\{(\w+)(?::[^}]*)?\}")
PLACE = r"(?: \((?P<place>[^()]*)\))?"


def _pattern(template: str, field: re.Pattern, group: str) -> re.Pattern:
    """What reads from a text the parts that were put into its template."""
    parts = re.split(field, template)
    names: list[str] = []
    for i in range(1, len(parts), 2):
        again = parts[i] in names
        names.append(parts[i])
        parts[i] = f"(?P={parts[i]})" if again else group.format(parts[i])
    parts[::2] = [re.escape(part) for part in parts[::2]]
    return re.compile("".join(parts), re.DOTALL)


@cache
def phrases() -> dict[str, dict[str, str]]:
    """Words and paragraphs, English to Chinese."""
    return tomllib.loads(PHRASES.read_text(encoding="utf-8"))


@cache
def _paragraphs() -> list[tuple[str, re.Pattern, str]]:
    return [
        (
            english,
            re.compile("(.+?)".join(map(re.escape, english.split("{}"))), re.DOTALL),
            chinese,
        )
        for english, chinese in phrases()["paragraphs"].items()
    ]


class Page:
    """One page: its Chinese text, and what could not be translated."""

    def __init__(self, name: str, english: str) -> None:
        self.name = name
        self.untranslated: list[str] = []
        self.used: set[str] = set()
        self.text = BLOCK.sub(lambda block: self._block(block[0]), english)

    def _word(self, english: str) -> str:
        chinese = _titles().get(english) or phrases()["words"].get(english)
        if chinese is not None:
            self.used.add(english)
        return chinese or english

    def _block(self, block: str) -> str:
        if block.startswith("```") or re.fullmatch(r"`[^`]*`", block):
            return block
        if block.startswith("|"):
            return self._table(block)
        if block.startswith("> "):
            return f"> {self._message(block[2:])}"
        if block.startswith("# ") and (title := _titles().get(block[2:])):
            return f"# {title}"
        for key, pattern, chinese in _paragraphs():
            if found := pattern.fullmatch(block):
                self.used.add(key)
                return chinese.format(*map(self._word, found.groups()))
        self.untranslated.append(block)
        return block

    def _table(self, english: str) -> str:
        rows = [re.split(r"(?<!\\)\|", line) for line in english.splitlines()]
        return "\n".join("|".join(self._cell(cell) for cell in row) for row in rows)

    def _cell(self, english: str) -> str:
        word = english.strip()
        if re.search("[A-Za-z]{2}", word) and word == self._word(word) and "](" not in word:
            self.untranslated.append(word)
        return english.replace(word, self._word(word)) if word else english

    def _message(self, english: str) -> str:
        """The message with this page's numbers, in the words of the Chinese catalogue."""
        texts, translated = catalogue("en"), catalogue("zh")
        key = f"findings.{self.name}"
        template = f"{re.escape(texts[f'{key}.title'])}{PLACE}. "
        body = _pattern(texts[f"{key}.text"], FIELD, "(?P<{}>.+?)").pattern
        found = re.fullmatch(template.replace(". ", r"\. ") + body, english, re.DOTALL)
        if found is None:
            self.untranslated.append(f"not as the catalogue says it: {english}")
            return english
        values = found.groupdict()
        for name, text in texts.items():
            if name.startswith("findings.measure.") and text == values.get("measure"):
                values["measure"] = translated[name]
        if "mode" in values:
            values["mode"] = class_name(values["mode"], "zh")
        chinese = FIELD.sub(lambda field: values[field[1]], translated[f"{key}.text"])
        title, place = translated[f"{key}.title"], values["place"]
        whole = translated["story.list.finding"]
        return whole.format(title=title, place=place, body=chinese)


@cache
def _titles() -> dict[str, str]:
    """Titles of the findings, English to Chinese."""
    english, chinese = catalogue("en"), catalogue("zh")
    keys = [k for k in english if k.startswith("findings.") and k.endswith(".title")]
    return {english[key]: chinese[key] for key in keys}


def pages() -> Iterator[Page]:
    """All of them."""
    for path in sorted(ENGLISH.glob("*.md")):
        yield Page(path.stem, path.read_text(encoding="utf-8"))


def write(folder: Path) -> None:
    """Leave the Chinese pages in a folder, those that did not change untouched."""
    folder.mkdir(exist_ok=True)
    made = {f"{page.name}.md": page.text for page in pages()}
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def problems() -> Iterator[str]:
    """One line for every text without a translation and every translation without a text."""
    used: set[str] = set()
    for page in pages():
        used |= page.used
        yield from (f"docs/findings/{page.name}.md: {text}" for text in page.untranslated)
    for english in [*phrases()["words"], *phrases()["paragraphs"]]:
        if english not in used:
            yield f"{PHRASES.name}: no page says any more: {english}"


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) or "every page on findings can be read in Chinese")
    sys.exit(bool(found))
