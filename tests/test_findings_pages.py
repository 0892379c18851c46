"""The pages on findings: one for each id, and each shows a fault that is found."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import torch

import diffviz as dv

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "findings"
CATALOGUE = ROOT / "diffviz" / "files" / "locales" / "en" / "findings.toml"
IDS = [name for name in tomllib.loads(CATALOGUE.read_text("utf-8")) if name != "measure"]


@pytest.fixture
def make(monkeypatch):
    """The script that writes the pages."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("faults", "make"):
        monkeypatch.delitem(importlib.sys.modules, name, raising=False)
    return importlib.import_module("make")


def test_every_id_has_a_page():
    """A new finding needs a fault in docs/findings/faults.py, and its page.

    Kills: an id without a page, a picture that is missing or large.
    """
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"index"}
    assert pages >= set(IDS), "run: python docs/findings/make.py"
    listed = (FOLDER / "index.md").read_text("utf-8")
    for name in IDS:
        text = (FOLDER / f"{name}.md").read_text("utf-8")
        assert f"`{name}`" in text and f"]({name}.md)" in listed
        (picture,) = re.findall(r"!\[.*?\]\((images/.*?\.png)\)", text)
        assert (FOLDER / picture).stat().st_size <= 30_000


def test_every_fault_is_found_and_mended(make):
    """The code on the pages, run again on smaller images.

    Kills: a page whose fault the x-ray no longer sees, a mended line that is wrong itself.
    """
    shape = (16, 3, 8, 8)
    wrong = {}
    for name in IDS:
        fault = make.SEEN_IN_CODE.get(name)
        if fault is None:
            continue
        torch.manual_seed(0)
        seen = dv.xray(make.sampler_of(fault.wrong, fault.tables), make.schedule(), shape=shape)
        if name not in (ids := [finding.id for finding in seen.findings]):
            wrong[name] = ids
    assert wrong == {}
    for base in {fault.base for fault in make.SEEN_IN_CODE.values()}:
        seen = dv.xray(make.sampler_of(base), make.schedule(), shape=shape)
        assert [f.id for f in seen.findings if f.severity == "error"] == [], base


def test_the_code_on_a_page_is_the_code_that_was_run(make):
    """Kills: a page left behind by its fault."""
    for name, fault in {**make.SEEN_IN_CODE, **make.SEEN_IN_RUNS}.items():
        if name in IDS:
            text = (FOLDER / f"{name}.md").read_text("utf-8")
            assert f"```python\n{fault.wrong}```" in text, name
            assert fault.why in text, name
