"""The texts that users read: the same in every language, whole, and in its own manner."""

import re
import string

import pytest

from diffviz.files.catalogue import LANGUAGES, catalogue, class_name, text
from diffviz.sprites.make import CLASSES

KEYS = sorted(catalogue(LANGUAGES[0]))


def fields(sentence):
    return sorted({name for _, name, _, _ in string.Formatter().parse(sentence) if name})


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


CJK = r"[\u4e00-\u9fff]"
AWKWARD = {
    rf"{CJK} +{CJK}": "a space between two characters",
    rf"{CJK}[,.;:?!]": "a Latin mark after a character",
    r"\d %": "a space before the per cent sign",
    r" …|[^…]…$|\.\.\.": "half an ellipsis",
    "合并标准差": "the std within groups; 总标准差 is meant",
    "捷径": "快捷连接",
    "摘要": "哈希",
    "占数据的": "与数据之比",
    "不变式": "约束",
    "视角": "检验",
    "被告知": "告诉…的",
}


def test_chinese_is_written_as_chinese_is():
    """Kills: spaces and marks of another script, words that mean something else."""
    for key, sentence in catalogue("zh").items():
        plain = re.sub(r"<[^>]*>", "", re.sub(r"\{[^}]*\}", "x", sentence))
        if key == "dashboard.record.numbers_help":  # it quotes what is to be typed
            plain = re.sub("“[^”]*”", "", plain)
        for pattern, why in AWKWARD.items():
            assert not re.search(pattern, plain), f"{key}: {why}: {plain}"


def test_every_picture_has_a_title_and_a_caption():
    """Kills: a picture without a word about what it shows."""
    from diffviz.figures import NAMES

    for name in NAMES:
        assert {f"figures.{name}.title", f"figures.{name}.caption"} <= set(KEYS)


def test_classes_have_names_in_every_language():
    """Kills: a class of the sprites that stays English, a foreign name that is changed."""
    named = [class_name(name, "zh") for name in (*CLASSES, "mode -1.5", "class 3")]
    assert all(re.match("[一-鿿]", name) for name in named) and len(set(named)) == len(named)
    assert [class_name(name, "en") for name in CLASSES] == list(CLASSES)
    assert class_name("mode -1.5", "zh") == "模式 -1.5"
    for foreign in ("<b> x", "food pyramid", "heroes"):
        assert class_name(foreign, "zh") == foreign


def test_fields_are_filled_in():
    """Kills: a text returned with its braces."""
    assert text("figures.dial.setting", "en", value="0.5") == "λ = 0.5"
    with pytest.raises(KeyError):
        text("figures.dial.setting", "en")
