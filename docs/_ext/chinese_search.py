"""Search in Chinese pages: every two neighbouring characters are a word, as is a Latin word.

No dictionary is needed, and the page splits what a reader types in the same way.
"""

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.search import SearchLanguage

HAN = "\u4e00-\u9fff"
SPLITTER = """
function splitQuery(query) {
  const words = query.match(/[\\u4e00-\\u9fff]+|[a-zA-Z0-9_]+/g) || [];
  return words.flatMap((word) => /^[\\u4e00-\\u9fff]{3,}$/.test(word)
    ? Array.from({ length: word.length - 1 }, (_, i) => word.slice(i, i + 2)) : [word]);
}
"""


class ChineseSearch(SearchLanguage):
    """Pairs of characters."""

    lang = "zh"
    language_name = "Chinese"
    js_splitter_code = SPLITTER

    def split(self, input: str) -> list[str]:
        """Pairs of Han characters and Latin words."""
        found = []
        for word in re.findall(rf"[{HAN}]+|[a-zA-Z0-9_]+", input):
            pairs = [word[i : i + 2] for i in range(len(word) - 1)]
            found += pairs if re.match(rf"[{HAN}]{{3,}}$", word) else [word]
        return found

    def stem(self, word: str) -> str:
        """As the page does: small letters."""
        return word.lower()


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_search_language(ChineseSearch)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
