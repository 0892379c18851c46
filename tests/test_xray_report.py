"""An x-ray as JSON and as a page: the numbers are its own, and names from outside stay text."""

import json
import re

import numpy as np
import pytest
import torch

import diffviz as dv
from diffviz.errors import InputError
from diffviz.files.catalogue import LANGUAGES
from diffviz.identify import zoo
from diffviz.report.xray import write_xray_numbers, write_xray_report, xray_numbers
from tests import cases

SHAPE = (16, 3, 4, 4)
HOSTILE = '</script><img src=x onerror="window.hacked = 1">:{name} {{ 7*7 }}'


@pytest.fixture(scope="module")
def seen():
    """The x-rays of a right loop, of a wrong one, and of one that goes upwards."""
    schedule = dv.NoiseSchedule.linear(40, 2.5e-3, 0.4)

    def of(source):
        torch.manual_seed(0)
        return dv.xray(zoo.sampler(source, schedule), schedule, shape=SHAPE)

    right = zoo.programs()["ddpm"].source
    return of(right), *(of(zoo.mutate("ddpm", name)) for name in ("half-noise", "upwards"))


def test_json_holds_the_whole_verdict(seen, tmp_path):
    """Kills: findings only, steps without errors or theory, NaN that JSON does not have."""
    for xray in seen:
        write_xray_numbers(xray, tmp_path / "x.json")
        read = json.loads((tmp_path / "x.json").read_text("utf-8"))
        assert read == xray_numbers(xray)
        assert (read["rule"], read["time"], read["answer"]) == (xray.rule, xray.time, xray.answer)
        assert [f["id"] for f in read["findings"]] == [f.id for f in xray.findings]
        for name in ("t", *xray.coefficients.data_vars):
            values = np.array(read["steps"][name]["values"], dtype=float)
            assert np.array_equal(values, xray.coefficients[name].values, equal_nan=True), name
    wrong = xray_numbers(seen[1])
    steps = {
        name: np.array(wrong["steps"][name]["values"], dtype=float) for name in wrong["steps"]
    }
    assert np.allclose(steps["std"][:-1] / steps["expected_std"][:-1], 0.5, atol=0.1)
    score = np.abs(steps["std_score"])[:-1]
    assert (score > wrong["about"]["threshold"]).all()
    assert (np.abs(steps["x_score"]) < wrong["about"]["threshold"]).all()


def test_findings_and_curves_speak_of_one_rule():
    """Kills: curves beside the rule first thought of, and a finding about another."""
    schedule = dv.NoiseSchedule.linear(40, 2.5e-3, 0.4)
    faults = {
        "half-score": "expected_eps",
        "0.25 of the noise": "expected_std",
        "0.99 of x": "expected_x",
    }
    for name, column in faults.items():
        torch.manual_seed(0)
        sampler = zoo.sampler(cases.WRONG[name][1], schedule)
        xray = dv.xray(sampler, schedule, shape=SHAPE)
        told = xray.findings[0].evidence
        assert float(xray.coefficients[column].sel(t=told["t"])) == told["expected"], name


def test_a_page_says_it_in_every_language_and_escapes_names(seen, tmp_path):
    """Kills: a finding in one language only, a name that becomes markup."""
    for xray in seen:
        write_xray_report(xray, tmp_path / "x.html", name=HOSTILE)
        page = (tmp_path / "x.html").read_text("utf-8")
        _check_steps(page, xray.coefficients)
        assert "<img" not in page and "{{ 7*7 }}" in page and ">49" not in page
        for finding in xray.findings:
            assert all(finding.title(language) in page for language in LANGUAGES)
            assert f"<code>{finding.id}</code>" in page
    with pytest.raises(InputError, match="language is 'fr'"):
        write_xray_report(seen[0], tmp_path / "x.html", language="fr")


def _check_steps(page, data):
    """Every number under its head. Kills: columns swapped, a rule beside another coefficient,
    digits that are needed cut."""
    tables = re.findall(r'<table class="numbers">.*?<tbody>(.*?)</tbody>', page, re.S)
    rows = re.findall(r"<tr>(.*?)</tr>", "".join(tables), re.S)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in rows]
    names = ["t", "s"]
    for name in ("x", "eps", "bias", "std"):
        names += [name, f"{name}_error"] + [f"expected_{name}"] * (name != "bias")
    names += ["noise_ks", "batch_correlation"]
    for column, name in enumerate(names):
        found = [float(row[column].replace("–", "nan").replace("−", "-")) for row in cells]
        if cells:
            rough = name.endswith(("_error", "_ks", "_correlation"))
            rtol = 0.06 if rough else 1e-5
            np.testing.assert_allclose(found, data[name].values, rtol=rtol, err_msg=name)


@pytest.mark.browser
def test_the_page_opens_offline_and_changes_its_language(seen, tmp_path, browser):
    """Kills: a request, a script that the policy stops, a plot or title of the other language."""
    write_xray_report(seen[1], tmp_path / "x.html", name=HOSTILE)
    page, trouble = browser.new_page(viewport={"width": 1280, "height": 800}), []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "request",
        lambda r: r.url.startswith(("file:", "data:", "blob:")) or trouble.append(r.url),
    )
    page.goto((tmp_path / "x.html").as_uri())
    page.wait_for_selector("html[data-ready]", state="attached", timeout=100_000)
    panel = "() => document.querySelector('[data-figure=xray] .annotation').textContent"
    english = page.evaluate(panel)
    page.click("[data-set-language=zh]")
    page.wait_for_function(f"before => ({panel})() !== before", arg=english)
    assert page.title().endswith(" 的 X 光透视 · diffviz")
    assert page.is_visible(".verdict.error .in-zh") and not page.is_visible(".verdict .in-en")
    page.set_viewport_size({"width": 360, "height": 740})
    # Plots follow the window a moment later, more of one on a busy machine.
    page.wait_for_function("document.documentElement.scrollWidth <= 360", timeout=60_000)
    assert page.evaluate("window.hacked") is None and trouble == []
    page.close()
