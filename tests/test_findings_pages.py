"""The pages on findings: one for each id, and each shows a fault that is found."""

import importlib
import re
from pathlib import Path

import pytest
import torch

import diffviz as dv
from diffviz.identify import zoo

FOLDER = Path(__file__).parent.parent / "docs" / "findings"
SHAPE = (16, 3, 8, 8)


@pytest.fixture
def make(monkeypatch):
    """The script that writes the pages."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(importlib.sys.modules, "make", raising=False)
    return importlib.import_module("make")


def test_every_id_has_a_page_with_the_code_that_was_run(make):
    """A new finding needs a table in docs/findings/pages.toml, and its page.

    Kills: an id without a page, a page left behind by its fault, a picture missing or large.
    """
    assert {path.stem for path in FOLDER.glob("*.md")} == {"index", *make.IDS}
    assert make.PAGES.keys() == set(make.IDS), "run: python docs/findings/make.py"
    listed = (FOLDER / "index.md").read_text("utf-8")
    for name, page in make.PAGES.items():
        text = (FOLDER / f"{name}.md").read_text("utf-8")
        assert f"`{name}`" in text and f"]({name}.md)" in listed and page["why"] in text
        assert make.texts(page)[1].strip() in text, name
        pictures = re.findall(r"!\[.*?\]\((images/.*?\.png)\)", text)
        assert len(pictures) == ("What it does" in text)
        assert all((FOLDER / path).stat().st_size <= make.MAX_BYTES for path in pictures)


def test_every_fault_is_found_and_mended(make):
    """The loops on the pages, run again on smaller images.

    Kills: a page whose fault the x-ray no longer sees, a mended line that is wrong itself.
    """
    wrong, rights = {}, set()
    for name, page in make.PAGES.items():
        if "loop" in page and "tested" not in page:
            right, source = make.texts(page)
            torch.manual_seed(0)
            found = dv.xray(zoo.sampler(source, make.schedule()), make.schedule(), shape=SHAPE)
            rights.add(right)
            if name not in (ids := [finding.id for finding in found.findings]):
                wrong[name] = ids
    assert wrong == {}
    for right in rights:
        found = dv.xray(zoo.sampler(right, make.schedule()), make.schedule(), shape=SHAPE)
        assert [f.id for f in found.findings if f.severity == "error"] == [], right
