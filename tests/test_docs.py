"""The sources of the pages: translations, code cells, numbers, length. `make docs` builds them."""

import ast
import builtins
import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import diffviz as dv

DOCS = Path(__file__).parent.parent / "docs"


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


translations = _load(DOCS / "translations.py")
findings = _load(DOCS / "chinese_findings.py")
LESSONS = [p for p in translations.english_pages() if re.match(r"lessons/\d", p)]
EXECUTED = [*LESSONS, "article.md", "errata.md", "questions.md"]
GIVEN = {"5 %", "5%", "0.05", "0.9", "0.2", "0.7", "0.3", "1.5", "0.5"}
"""What a question sets, or a definition, rather than what was measured."""


def _prose(text: str) -> str:
    """What a reader reads: no front matter, cells, solutions, addresses or inline code."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"\{[a-z]+\}`[^`]*`|`[^`]*`|\$[^$]*\$", " ", text)


def _typed_numbers(prose: str) -> list[str]:
    """Decimals, percentages and integers above 10, but for names of papers and t = T, 0."""
    prose = re.sub(r"arXiv \d{4}\.\d{4,5}", "", prose)
    return re.findall(r"\d+\.\d+|\d{2,},\d+|\d+ ?[%％]|(?<![\w_^{])\d{2,}", prose)


def test_every_page_is_there_in_both_languages_and_in_step():
    assert not list(translations.problems())


def test_a_stale_or_missing_translation_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(translations, "HERE", tmp_path)
    (tmp_path / "zh").mkdir()
    cell = "```{code-cell}\nx = 1\n```\n"
    (tmp_path / "a.md").write_text(f"one\n\n{cell}")
    assert list(translations.problems()) == ["docs/zh/a.md is missing"]
    (tmp_path / "zh" / "a.md").write_text(f"一\n\n{cell}")
    (problem,) = translations.problems()
    assert "another text" in problem
    translations.stamp("a.md")
    assert not list(translations.problems())
    (tmp_path / "a.md").write_text(f"two\n\n{cell}")
    (problem,) = translations.problems()
    assert "another text" in problem
    translations.stamp("a.md")
    page = tmp_path / "zh" / "a.md"
    page.write_text(page.read_text().replace("x = 1", "x = 2"))
    (problem,) = translations.problems()
    assert "code cells" in problem


def test_what_a_program_writes_into_a_page_does_not_make_its_translation_stale(
    tmp_path, monkeypatch
):
    """Kills: a table measured again asks for a translation; a word that has gone is let be."""
    monkeypatch.setattr(translations, "HERE", tmp_path)
    (tmp_path / "zh").mkdir()
    english = "one\n\n<!-- made by it -->\n{}\n<!-- end -->\n"
    (tmp_path / "a.md").write_text(english.format("1 apple"))
    (tmp_path / "zh" / "a.md").write_text("一\n\n:::{made} a.md\napple = 苹果\n:::\n")
    translations.stamp("a.md")
    assert translations.in_words(translations.made("a.md"), {"apple": "苹果"}) == "1 苹果\n"
    (tmp_path / "a.md").write_text(english.format("2 apples"))
    assert not list(translations.problems())
    (tmp_path / "a.md").write_text(english.format("2 pears"))
    (problem,) = translations.problems()
    assert "says no more: apple" in problem
    (tmp_path / "a.md").write_text("two" + english.format("2 apples"))
    (problem,) = translations.problems()
    assert "another text" in problem


def test_the_table_of_schedulers_is_in_chinese_words():
    """Kills: a verdict or a reason that is new in the table and stays English."""
    text = (DOCS / "zh" / "diffusers.md").read_text(encoding="utf-8")
    taken = translations.TAKEN.findall(text)
    assert len(taken) == 2
    for page, number, lines in taken:
        table = translations.made(page, int(number))
        table = translations.in_words(table, translations.words(lines.splitlines()))
        table = re.sub(r"`[^`]*`|\*\*[^*]*\*\*|^\| \w+", "", table, flags=re.MULTILINE)
        names = {"diffusers", "ddpm", "ddim", "beta", "posterior", "eta", "torchsde"}
        assert set(re.findall("[a-z]{3,}", table)) <= names


def test_every_page_on_findings_can_be_read_in_chinese():
    """Kills: a new page without Chinese words, a page behind the catalogue, an unused phrase."""
    assert not list(findings.problems())


def test_a_page_on_a_finding_is_put_into_chinese_and_what_is_new_in_it_is_named():
    """Kills: numbers lost on the way, code that is changed, a paragraph that stays English."""
    text = (DOCS / "findings" / "noise-missing.md").read_text(encoding="utf-8")
    page = findings.Page("noise-missing", text)
    assert not page.untranslated
    assert findings.Page("noise-missing", page.text).untranslated
    code = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    assert code.findall(page.text) == code.findall(text)
    kept = re.compile(r"\d+\.\d+")
    assert kept.findall(page.text) == kept.findall(text)
    new = findings.Page("noise-missing", text + "\nAnd this is new.\n")
    assert new.untranslated == ["And this is new."]
    other = findings.Page("noise-missing", text.replace("but add no noise", "without noise"))
    assert ["not as the catalogue says it" in line for line in other.untranslated] == [True]


def test_the_twelve_questions_lead_to_every_lesson_and_stand_on_the_index():
    """Kills: an answer without a number or a place, a lesson that no answer needs."""
    for source in (DOCS, DOCS / "zh"):
        sections = (source / "questions.md").read_text(encoding="utf-8").split("\n## ")[1:]
        assert [int(re.match(r"\d+", section)[0]) for section in sections] == list(range(1, 13))
        answers = [
            re.search(r"^:::\{dropdown\}.*?^:::$", s, re.M | re.DOTALL)[0] for s in sections
        ]
        assert all("{n}`" in answer and re.search(r"See:|见：", answer) for answer in answers)
        linked = [set(re.findall(r"\]\(lessons/(\d)-", answer)) for answer in answers]
        assert all(linked) and set().union(*linked) == {page[8] for page in LESSONS}
        assert "\nquestions\n" in (source / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", EXECUTED)
def test_measured_numbers_are_computed_not_typed(page):
    """Kills: a measured number typed into the prose of either language."""
    for source in (DOCS / page, DOCS / "zh" / page):
        found = _typed_numbers(_prose(source.read_text(encoding="utf-8")))
        if page not in LESSONS:
            found = [n for n in found if re.search(r"[.%％]", n) and n not in GIVEN]
        assert not found


def test_typed_numbers_are_noticed():
    assert _typed_numbers("a std of 0.056") == ["0.056"]
    assert _typed_numbers("约 20 % 的样本") == ["20 %"]
    assert _typed_numbers("after 500 steps") == ["500"]
    assert not _typed_numbers(_prose("after {n}`steps` of `0.5`, $x_0$, arXiv 2010.02502"))


@pytest.mark.parametrize("page", EXECUTED)
def test_numbers_shown_are_put_and_both_languages_show_the_same(page):
    """Kills: a name that no cell puts; a number that one language leaves out."""
    text = (DOCS / page).read_text(encoding="utf-8")
    put = set()
    for cell in translations.cells(text):
        lines = [x for x in cell.splitlines()[1:-1] if not x.startswith(":")]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "put":
                put |= {keyword.arg for keyword in node.keywords}
    chinese = (DOCS / "zh" / page).read_text(encoding="utf-8")
    shown = [set(re.findall(r"\{n\}`([^`:]*)", source)) for source in (text, chinese)]
    assert shown[0] == shown[1] <= put


@pytest.mark.parametrize("page", EXECUTED)
def test_cells_use_names_that_there_are(page):
    """Kills: a function of diffviz that was renamed, before the long build finds it."""
    for cell in translations.cells((DOCS / page).read_text(encoding="utf-8")):
        lines = [x for x in cell.splitlines()[1:-1] if not x.startswith(":")]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "dv":
                assert node.attr in dv.__all__
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("diffviz"):
                home = importlib.import_module(str(node.module))
                assert all(hasattr(home, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", LESSONS)
def test_a_lesson_has_three_exercises_and_is_read_in_twelve_minutes(page):
    for source, speed in ((DOCS / page, 200), (DOCS / "zh" / page, 350)):
        text = source.read_text(encoding="utf-8")
        assert len(re.findall(r"^### \d", text, re.MULTILINE)) == 3
        assert len(re.findall(r"^#### ", text, re.MULTILINE)) == 3
        prose = _prose(re.sub(r"^#### .*?(?=^#{1,3} |\Z)", "", text, flags=re.M | re.DOTALL))
        words = len(re.findall(r"[\u4e00-\u9fff]" if speed == 350 else r"\w+", prose))
        assert words / speed < 12


@pytest.mark.parametrize("page", LESSONS)
def test_a_notebook_is_whole_python_with_its_imports_in_it(page):
    """Kills: a hidden import, a cell left out, directives of the page in the prose."""
    notebooks = _load(DOCS / "notebooks.py")
    text = (DOCS / page).read_text(encoding="utf-8")
    made = notebooks.notebook(text, "en", {"T": 500})
    code = [cell["source"] for cell in made["cells"] if cell["cell_type"] == "code"]
    bound = set(dir(builtins))
    for source in code:
        names = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)]
        imported = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.alias)]
        bound |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
        bound |= {n.asname or n.name.split(".")[0] for n in imported}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                bound |= {node.name}
            if isinstance(node, ast.arg):
                bound |= {node.arg}
        assert {n.id for n in names} <= bound, source
    prose = "".join(c["source"] for c in made["cells"] if c["cell_type"] == "markdown")
    assert ":::" not in prose and "{n}" not in prose and "code-cell" not in prose
    assert len(code) >= len(translations.cells(text))


def test_the_helpers_of_a_notebook_take_what_those_of_a_page_take():
    """Kills: an argument that a cell gives and a notebook does not know."""
    helpers = ast.parse((DOCS / "_ext" / "notebook_helpers.py").read_text(encoding="utf-8"))
    page = ast.parse((DOCS / "_ext" / "lesson.py").read_text(encoding="utf-8"))

    def names(module):
        return {
            f.name: [a.arg for a in (*f.args.args, *f.args.kwonlyargs)]
            for f in module.body
            if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")
        }

    assert names(helpers) == names(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", LESSONS)
def test_a_notebook_runs_from_top_to_bottom(page, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    made = _load(DOCS / "notebooks.py").notebook((DOCS / page).read_text("utf-8"), "en", {})
    client = nbclient.NotebookClient(nbformat.from_dict(made), timeout=1800)
    client.execute(cwd=str(tmp_path))


def test_a_line_break_in_chinese_is_no_space_and_takes_nothing_with_it():
    """Kills: a full stop that goes with the line break behind it."""
    joined = translations.joined
    assert joined("", "同一幅图。", "\n") == "同一幅图。"
    assert joined("。", "\n", "第") == ""
    assert joined("", "一行\n又一行，\nand one\nmore", "") == "一行又一行，and one\nmore"


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
def test_a_word_is_linked_and_explained_where_it_is_first_used_and_formulas_have_numbers(
    tmp_path, monkeypatch
):
    """Kills: a link in a heading or in code, a second link, a number that is not shown."""
    application = pytest.importorskip("sphinx.application")
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    pages = {
        "index": "# Start\n\n```{toctree}\nwords\nlessons/1-noising\n```\n",
        "words": "# Words\n\n| word | meaning |\n|---|---|\n| **law** | how often $x_t$ is 1 |\n",
        "lessons/1-noising": "# A law\n\n`law` and laws and law, lesson one, [](#equation-b).\n\n"
        "$$a$$\n\n$$b$$ (b)\n\nSee {eq}`b`, arXiv 2010.02502.\n",
    }
    for name, text in pages.items():
        path = tmp_path / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    settings = {
        "extensions": ["myst_nb", "course_pages"],
        "myst_enable_extensions": ["dollarmath"],
        "html_math_renderer": "mathml",
    }
    where = [str(tmp_path / part) for part in ("html", "trees")]
    application.Sphinx(str(tmp_path), None, *where, "html", settings, status=None).build()
    made = (tmp_path / "html" / "lessons" / "1-noising.html").read_text(encoding="utf-8")
    words = re.findall(r'<a class="word[^>]*>\w+</a>', made)
    assert len(words) == 1 and 'title="how often xₜ is 1"' in words[0]
    assert 'href="../words.html#word-1"' in words[0] and words[0].endswith(">laws</a>")
    assert re.findall(r'"number">\((\d)\)<', made) == ["1", "2"]
    assert 'href="#equation-b">(2)</a>' in made and made.count('id="equation-b"') == 1
    assert "https://arxiv.org/abs/2010.02502" in made and "lesson one</a>" not in made


def test_what_the_build_needs_is_declared():
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    declared = {re.split(r"[>=<]", x)[0] for x in project["optional-dependencies"]["docs"]}
    configuration = (DOCS / "conf.py").read_text(encoding="utf-8")
    needed = set(re.findall(r'"(myst_nb|sphinx_\w+)"', configuration))
    assert needed and {name.replace("_", "-") for name in needed} <= declared


def test_a_broken_link_and_a_foreign_script_are_noticed(tmp_path):
    check = _load(DOCS / "check.py")
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1>')
    page = tmp_path / "a.html"
    page.write_text('<a href="b.html#here">b</a><a href="https://x.org">x</a>')
    assert not list(check.problems(tmp_path))
    for link in ("c.html", "b.html#there", "#nowhere"):
        check._read.cache_clear()
        page.write_text(f'<a href="{link}">b</a>')
        assert len(list(check.problems(tmp_path))) == 1
    check._read.cache_clear()
    page.write_text('<script src="https://x.org/a.js"></script>')
    assert len(list(check.problems(tmp_path))) == 1
