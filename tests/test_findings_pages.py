"""The pages on findings: one for each id, and each shows a fault that is found."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import diffviz as dv
from diffviz.identify import zoo

FOLDER = Path(__file__).parent.parent / "docs" / "findings"
SHAPE = (16, 3, 8, 8)


def _make():
    """The script that writes the pages."""
    place = importlib.util.spec_from_file_location("findings_make", FOLDER / "make.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


make = _make()
LOOPS = {n: p for n, p in make.PAGES.items() if "loop" in p and "tested" not in p}
RIGHT = sorted({make.texts(page)[0] for page in LOOPS.values()})
SCHEDULE = make.schedule()


def test_every_id_has_a_page_with_the_code_that_was_run():
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


def seen(source):
    torch.manual_seed(0)
    return dv.xray(zoo.sampler(source, SCHEDULE), SCHEDULE, shape=SHAPE).findings


@pytest.mark.parametrize("name", LOOPS)
def test_every_fault_is_found(name):
    """The loop on its page, run again on smaller images.

    Kills: a page whose fault the x-ray no longer sees.
    """
    found = [finding.id for finding in seen(make.texts(LOOPS[name])[1])]
    assert name in found


@pytest.mark.parametrize("loop", range(len(RIGHT)))
def test_no_mended_loop_is_wrong(loop):
    """Kills: a mended line that is wrong itself."""
    assert [f.id for f in seen(RIGHT[loop]) if f.severity == "error"] == [], RIGHT[loop]
