"""What Sphinx needs to know about these pages.

- ``:::{short}``: what to remember of a section; on a slide, all that is said.
- a fourth heading is a solution, folded away until it is asked for.
- ``{n}`name:.2f` `` shows a number that a cell of the page has put there (`lesson.put`).
- ``:::{made} page.md 2``: what a program has written there, in Chinese words (`translations`).
- ``{english}`words <page>` `` on a Chinese page leads to a page that is in English only.
- in Chinese a line break in the source is no space (`Join`).
- ``arXiv 2006.11239``, "lesson four" and the first use of each of the `words` are links (`Links`).
- formulas are MathML, nothing to load, nothing to run, and have numbers (`Numbers`).
- with the builder ``revealjs`` every lesson becomes a deck (`Deck`).
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from myst_nb.ext.glue.roles import PasteTextRole
from sphinx.addnodes import pending_xref, toctree
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective, SphinxRole
from translations import HERE, in_words, joined, made, words

PICTURES = ('class="picture"', 'class="still"')
LESSONS = "lessons/"
COURSE = sorted(path.stem for path in (HERE / "lessons").glob("[1-9]*.md"))
COUNTED = ("one", "two", "three", "four", "five", "six", "seven")
LESSON = {
    name: f"lessons/{page}"
    for page, word in zip(COURSE, COUNTED, strict=True)
    for name in (word, page[0])
}
TEX = {
    r"\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}": "√((1−ᾱ_t)/ᾱ_t)",
    r"\sqrt{1-\bar\alpha_t}": "√(1−ᾱ_t)",
    r"\sqrt{\bar\alpha_t}": "√ᾱ_t",
    r"\hat\varepsilon": "ε̂",
    r"\nabla_x\log": "∇ log",
    r"\sigma": "σ",
    r"\lambda": "λ",
    "_{t-1}": "ₜ₋₁",
    "_t": "ₜ",
    "_0": "₀",
}
"""What stands in the formulas of the page ``words``."""


class solution(nodes.General, nodes.Element):
    """A section that is folded away; its first child is its title."""


class speaker_notes(nodes.General, nodes.Element):
    """What only the speaker sees of a slide."""


class Short(SphinxDirective):
    """What to remember, in a frame."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """One container."""
        frame = nodes.container(classes=["short"])
        self.state.nested_parse(self.content, self.content_offset, frame)
        return [frame]


class Made(SphinxDirective):
    """What a program has written into an English page, here in other words."""

    required_arguments = 1
    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The same tables and paragraphs."""
        page, *number = self.arguments
        self.env.note_dependency(str(HERE / page))
        text = in_words(made(page, *map(int, number)), words(self.content))
        return self.parse_text_to_nodes(text)


class English(SphinxRole):
    """A link from a Chinese page to an English one."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The path is counted from the root of the English pages."""
        words, _, page = self.text.partition(" <")
        up = "../" * (self.env.docname.count("/") + 1)
        uri = f"{up}en/{page.rstrip('>')}.html"
        return [nodes.reference(words, words, refuri=uri, internal=True)], []


class Join(SphinxTransform):
    """A line that ends between Chinese characters is no space."""

    default_priority = 850

    def apply(self, **kwargs: Any) -> None:
        """In Chinese pages only."""
        if not self.app.tags.has("zh"):
            return
        for text in list(self.document.findall(nodes.Text)):
            parent = text.parent
            if isinstance(parent, nodes.FixedTextElement | nodes.literal | nodes.raw):
                continue
            # A line break of the source may be a node of its own, so its neighbours count too.
            place = parent.index(text)
            before = parent[place - 1].astext()[-1:] if place else ""
            after = parent[place + 1].astext()[:1] if place + 1 < len(parent) else ""
            parent.replace(text, nodes.Text(joined(before, text.astext(), after)))


class Numbers(SphinxTransform):
    """The formulas of a page are numbered in their order, with a label or without."""

    default_priority = 840

    def apply(self, **kwargs: Any) -> None:
        """``{eq}`label` `` shows the number on any page."""
        labels = self.env.get_domain("math").data["objects"]
        for number, block in enumerate(self.document.findall(nodes.math_block), 1):
            block["number"] = number
            if block.get("label"):
                labels[block["label"]] = (self.env.docname, number)


class Links(SphinxTransform):
    """Papers, lessons and, where it is first used, each word of the page ``words``."""

    default_priority = 855
    settled = (nodes.FixedTextElement, nodes.literal, nodes.raw, nodes.reference, nodes.title)
    settled += (nodes.math, pending_xref)

    def apply(self, **kwargs: Any) -> None:
        """In all text that is not code, a heading or a link already."""
        here, uri = self.env.docname, self.app.builder.get_relative_uri
        if here == "words":
            for number, row in enumerate(self.document.findall(nodes.row)):
                row[0]["ids"].append(f"word-{number}")
        explained = here.startswith((LESSONS, "questions", "article")) and here[-5:] != "index"
        shown = self.app.builder.name != "revealjs"
        glossary = self._glossary() if explained and shown else {}
        words = "|".join(sorted(glossary, key=len, reverse=True)) or "(?!)"
        lesson, word = r"lessons? (?P<lesson>\w+)", rf"\b(?P<word>{words})[sd]?\b"
        if self.app.tags.has("zh"):
            lesson, word = r"第 (?P<lesson>\d) 课", f"(?P<word>{words})(?!长)"  # 时间步长
        paper = r"arXiv[ :](?P<paper>\d{4}\.\d{4,5})"
        pattern = re.compile("|".join((paper, lesson, word)), re.IGNORECASE)
        for text in list(self.document.findall(nodes.Text)):
            if any(isinstance(node, self.settled) for node in _above(text)):
                continue
            new, end = [], 0
            for found in pattern.finditer(whole := text.astext()):
                paper, lesson, word = (
                    (found[k] or "").lower() for k in ("paper", "lesson", "word")
                )
                if paper:
                    target = {"refuri": f"https://arxiv.org/abs/{paper}"}
                elif word in glossary:
                    number, meaning = glossary.pop(word)
                    target = {"refuri": f"{uri(here, 'words')}#word-{number}"}
                    target |= {"reftitle": meaning, "internal": True, "classes": ["word"]}
                elif LESSON.get(lesson, here) != here:
                    target = {"refuri": uri(here, LESSON[lesson]), "internal": True}
                else:
                    continue
                new += [nodes.Text(whole[end : found.start()])]
                new += [nodes.reference(found[0], found[0], **target)]
                end = found.end()
            if new:
                text.parent.replace(text, [*new, nodes.Text(whole[end:])])

    def _glossary(self) -> dict[str, tuple[int, str]]:
        """Of each word its row, counted from the head of the table, and its meaning."""
        page = self.env.doc2path("words")
        self.env.note_dependency(page)
        rows = re.findall(r"^\| \*\*(.+?)\*\*[^|]*\| (.*) \|$", _read(page), re.MULTILINE)
        return {word.lower(): (i, _plain(said)) for i, (word, said) in enumerate(rows, 1)}


def _above(node: nodes.Node) -> Iterator[nodes.Node]:
    while (node := node.parent) is not None:
        yield node


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _plain(said: str) -> str:
    """Markdown with formulas as text for a tooltip."""
    for tex, letter in TEX.items():
        said = said.replace(tex, letter)
    return re.sub(r"[$*`]|\\,", "", said)


class Fold(SphinxTransform):
    """Sections of the fourth level become solutions."""

    default_priority = 860

    def apply(self, **kwargs: Any) -> None:
        """In the lessons only."""
        if not self.env.docname.startswith(LESSONS):
            return
        for section in list(self.document.findall(nodes.section)):
            if _depth(section) == 4:
                section.replace_self(solution("", *section.children))


class Deck(SphinxTransform):
    """A lesson as slides.

    The first slide has the title and what stands in ``short`` before the first section. Every
    section is a slide: its ``short``, formulas, tables and first picture are shown, its text is
    for the speaker. A section with more pictures is several slides. An exercise shows its text,
    and its solution is for the speaker.
    """

    default_priority = 870

    def apply(self, **kwargs: Any) -> None:
        """Only for the builder of slides."""
        if self.app.builder.name != "revealjs":
            return
        for node in list(self.document.findall(pending_xref)):
            target = str(node.get("reftarget", ""))
            if node.get("refdomain") != "math" and not target.startswith(("lesson", "0", "1")):
                node.replace_self(nodes.inline("", node.astext()))
        if next(self.document.findall(toctree), None) is not None:
            return
        for top in [n for n in self.document.children if isinstance(n, nodes.section)]:
            sections = [n for n in top.children if isinstance(n, nodes.section)]
            for section in sections:
                top.remove(section)
            first, *more = _slides(top, spoken=True)
            top.children = []
            top += [*first.children, *more]
            for section in sections:
                inner = [n for n in section.children if isinstance(n, nodes.section)]
                for exercise in inner:
                    section.remove(exercise)
                if not inner or len(section.children) > 1:
                    top += _slides(section, spoken=True)
                for exercise in inner:
                    one = section[0].astext().removesuffix("s")
                    exercise[0].insert(0, nodes.Text(f"{one} "))
                    top += _slides(exercise, spoken=False)


def _slides(section: nodes.section, spoken: bool) -> list[nodes.section]:
    """One slide, or one per picture; ``spoken`` text is for the speaker.

    A table or two formulas leave no room for a picture, which is then shown with the ``short`` on
    the next slide; a tall picture leaves no room for words.
    """
    title, *blocks = section.children
    notes, shown, pictures = speaker_notes(), [], []
    for block in blocks:
        if isinstance(block, solution):
            notes += nodes.paragraph("", "", nodes.strong("", block[0].astext()))
            notes += [n for n in block.children[1:] if isinstance(n, _SPOKEN)]
        elif _is_cell(block):
            pictures += _pictures(block)
        elif spoken and isinstance(block, _SPOKEN):
            notes += block
        elif not isinstance(block, nodes.comment | nodes.target):
            shown.append(block)
    short = [block for block in shown if "short" in block.get("classes", ())]
    rest = [block for block in shown if block not in short]
    first = pictures[:1] if pictures and not _tall(pictures[:1]) else []
    if first and sum(map(_size, rest)) > 1:  # no room for both
        contents = [[*rest, *(block.deepcopy() for block in short)], [*short, *first]]
    else:
        contents = [[*shown, *first]]
    pictures = pictures[len(first) :]
    slides = []
    for content in [*contents, *([picture] for picture in pictures)]:
        suffix = f"-{len(slides) + 1}" if slides else ""
        slide = nodes.section(ids=[f"{name}{suffix}" for name in section["ids"]])
        slide += [title.deepcopy(), *content]
        slides.append(slide)
    if len(notes):
        slides[0] += notes
    return slides


def _size(block: nodes.Element) -> int:
    """How many formulas a block has; a table counts for two."""
    kinds = (nodes.math_block, nodes.table)
    return sum(1 + isinstance(n, nodes.table) for n in block.findall() if isinstance(n, kinds))


def _tall(pictures: list[nodes.Element]) -> bool:
    raw = "".join(n.astext() for picture in pictures for n in picture.findall(nodes.raw))
    return any(int(height) > 520 for height in re.findall(r"min-height:(\d+)px", raw))


_SPOKEN = (nodes.paragraph, nodes.bullet_list, nodes.enumerated_list, nodes.definition_list)


def _is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def _pictures(cell: nodes.Element) -> list[nodes.Element]:
    """Those outputs of a cell that are pictures."""
    found = []
    for output in cell.findall(nodes.container):
        if output.get("nb_element") == "mime_bundle":
            raw = "".join(n.astext() for n in output.findall(nodes.raw))
            if any(mark in raw for mark in PICTURES):
                found.append(output)
    return found


def _depth(section: nodes.section) -> int:
    node, depth = section, 0
    while node is not None:
        depth += isinstance(node, nodes.section)
        node = node.parent
    return depth


# -------------------------------------------------------------------- HTML


def _visit_solution(self: Any, node: solution) -> None:
    words = node.children[0].astext()
    self.body.append(f'<details class="solution"><summary>{words}</summary>\n')
    node.children = node.children[1:]


def _depart_solution(self: Any, node: solution) -> None:
    self.body.append("</details>\n")


def _visit_notes(self: Any, node: speaker_notes) -> None:
    self.body.append('<aside class="notes">\n')


def _depart_notes(self: Any, node: speaker_notes) -> None:
    self.body.append("</aside>\n")


def _visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(convert(node.astext(), "inline"))
    raise nodes.SkipNode


def _visit_math_block(self: Any, node: nodes.math_block) -> None:
    formula = convert(node.astext(), "block")
    number = f'<span class="number">({node["number"]})</span>' if node["number"] else ""
    place = "".join(f' id="{name}"' for name in node["ids"][:1])
    self.body.append(f'<div class="formula"{place}>{formula}{number}</div>\n')
    raise nodes.SkipNode


def _other_language(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Where this page is in the other language, and as slides; what it says first."""
    first = next(doctree.findall(nodes.paragraph), None) if doctree is not None else None
    if first is not None:
        said = escape(" ".join(first.astext().split())[:160])
        context["metatags"] = (
            f'{context.get("metatags", "")}<meta name="description" content="{said}">'
        )
    here, there = ("zh", "en") if app.tags.has("zh") else ("en", "zh")
    folder = app.srcdir.parent if here == "zh" else app.srcdir / "zh"
    up = "../" * (pagename.count("/") + 1)
    page = pagename if (folder / f"{pagename}.md").exists() else "index"
    context["other_language"] = {"en": "English", "zh": "中文"}[there]
    context["other_page"] = f"{up}{there}/{page}.html"
    if pagename.startswith(LESSONS):
        context["slides"] = {"en": "Slides", "zh": "幻灯片"}[here]
        context["slides_page"] = f"{up}slides/{here}/{pagename}.html"
        lesson = pagename.removeprefix(LESSONS)
        if lesson[0].isdigit():
            context["notebook"] = f"{up}{here}/notebooks/{lesson}.ipynb"


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("short", Short)
    app.add_directive("made", Made)
    app.add_role("n", PasteTextRole())
    app.add_role("english", English())
    app.add_node(
        solution,
        html=(_visit_solution, _depart_solution),
        revealjs=(_visit_solution, _depart_solution),
    )
    app.add_node(
        speaker_notes, html=(_visit_notes, _depart_notes), revealjs=(_visit_notes, _depart_notes)
    )
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    app.add_transform(Join)
    app.add_transform(Numbers)
    app.add_transform(Links)
    app.add_transform(Fold)
    app.add_transform(Deck)
    app.connect("html-page-context", _other_language)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
