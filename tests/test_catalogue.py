"""The texts that users read: the same in every language, all of them in use, none missing."""

import re
import string
from pathlib import Path

import pytest

from diffviz.files.catalogue import LANGUAGES, catalogue, text

ROOT = Path(__file__).parents[1]
SOURCES = {
    path: path.read_text(encoding="utf-8")
    for folder in ("diffviz", "dashboards")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".j2", ".js", ".html")
}
KEYS = sorted(catalogue(LANGUAGES[0]))
PATTERN = re.compile(r"""(["'])((?:[\w-]|\.|\{[^{}"']*\})+)\1""")


def fields(sentence):
    return sorted({name for _, name, _, _ in string.Formatter().parse(sentence) if name})


def patterns():
    """Every quoted name with a dot, as a regular expression; {…} stands for one name.

    In a template, "a." ~ b ~ ".c" is the same as f"a.{b}.c".
    """
    found = set()
    for source in SOURCES.values():
        source = re.sub(r"""["'] ~ ([\w.]+) ~ ["']""", r"{\1}", source)
        source = re.sub(r"""([\w.]+) ~ (["'])\.""", r"\2{\1}.", source)
        source = re.sub(r"""(\.)["'] ~ ([\w.]+)""", r'\1{\2}"', source)
        for _, name in PATTERN.findall(source):
            parts = re.split(r"\{[^{}]*\}", name)
            if "." in name and any(re.search(r"[a-z]", part) for part in parts):
                found.add(r"([\w-]+)".join(map(re.escape, parts)))
    return [re.compile(pattern) for pattern in found]


def named(part):
    """Whether a name that fills a place in a pattern is itself written somewhere."""
    return any(re.search(rf"""["']{re.escape(part)}["']""", s) for s in SOURCES.values())


def test_languages_have_the_same_keys():
    """Kills: a sentence added in one language only."""
    for language in LANGUAGES[1:]:
        assert set(catalogue(language)) == set(KEYS), language


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_whole_and_have_the_same_fields(language):
    """Kills: an empty text, a field renamed or lost in translation, a brace left open."""
    for key in KEYS:
        sentence = catalogue(language)[key]
        assert sentence.strip(), key
        assert fields(sentence) == fields(catalogue("en")[key]), key
        assert all(field.isidentifier() for field in fields(sentence)), key


def test_chinese_is_chinese():
    """Kills: an English sentence left standing in the Chinese catalogue.

    A text that is one symbol or name, such as N(0, 1) or DDPM, may be the same in both.
    """
    chinese = catalogue("zh")
    for key in KEYS:
        words = re.findall(r"[A-Za-z]{2,}", re.sub(r"<[^>]*>|\{[^}]*\}", "", catalogue("en")[key]))
        if len(words) > 3:
            assert re.search(r"[一-鿿]", chinese[key]), key


def test_every_text_is_used():
    """Kills: a sentence left behind when its place has gone, and a misspelt key."""
    known = patterns()

    def used(key):
        for name in (key, key.removeprefix("report.")):  # the page's own words leave it out
            for pattern in known:
                match = pattern.fullmatch(name)
                if match and all(named(part) for part in match.groups()):
                    return True
        return False

    assert [key for key in KEYS if not used(key)] == []


def test_every_key_that_is_written_out_exists():
    """Kills: a key in the code that no catalogue has, found only when a reader gets there."""
    call = re.compile(r"""\btext\(\s*["']((?:[\w-]+\.)+[\w-]+)["']""")
    written = {key for source in SOURCES.values() for key in call.findall(source)}
    assert len(written) > 20
    assert written - set(KEYS) == set()


def test_every_picture_has_a_title_and_a_caption():
    """Kills: a picture without a word about what it shows."""
    from diffviz.figures import NAMES

    for name in NAMES:
        assert {f"figures.{name}.title", f"figures.{name}.caption"} <= set(KEYS)


def test_fields_are_filled_in():
    """Kills: a text returned with its braces."""
    assert text("figures.dial.setting", "en", value="0.5") == "λ = 0.5"
    with pytest.raises(KeyError):
        text("figures.dial.setting", "en")
