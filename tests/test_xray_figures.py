"""The pictures of an x-ray: made-up numbers go in, and each trace is traced back to them."""

import json

import numpy as np
import pytest
import xarray as xr

from diffviz.figures.xray import behaviour_figure, xray_figure, xray_noise_figure
from diffviz.files.catalogue import LANGUAGES
from tests.test_figures import COLOURS, DASHES, GREY, Trace, axis, check_traces, words_of

TIMES = np.array([40, 20, 10, 1])
NAMES = ("x", "eps", "bias", "std")


def coefficients(**changed):
    """Four steps in which no number stands twice."""
    count = iter(range(1, 999))
    names = (*NAMES, *(f"{n}_error" for n in NAMES), *(f"expected_{n}" for n in NAMES))
    names += ("previous_eps", "noise_ks", "batch_correlation", "grid_correlation")
    numbers = {n: np.array([next(count) for _ in TIMES]) / 1000 for n in names}
    numbers["step_correlation"] = np.array([np.nan, 0.1, 0.2, 0.3])
    numbers |= {name: np.full(len(TIMES), value) for name, value in changed.items()}
    return xr.Dataset({n: ("step", v) for n, v in numbers.items()} | {"t": ("step", TIMES)})


def line(panel, name, y, index):
    return Trace(panel, name, TIMES, y, COLOURS[index], DASHES[index])


def ribbon(panel, name, y, error, index):
    across, up = np.append(TIMES, TIMES[::-1]), np.append(y - error, (y + error)[::-1])
    return Trace(panel, name, across, up, COLOURS[index], None, "toself")


def told(panel, name, y, fill="none"):
    return Trace(panel, name, TIMES, y, GREY, "dot", fill)


@pytest.mark.parametrize("language", LANGUAGES)
def test_coefficients_stand_beside_the_rule_and_their_differences_below(language):
    """Kills: a swapped panel, errors that are not four standard errors, a sign, another rule."""
    given, w = coefficients(), words_of(language)
    right = []
    for i, name in enumerate(("x", "eps", "std")):
        value, expected, error = (
            given[n].values for n in (name, f"expected_{name}", f"{name}_error")
        )
        for panel, y, rule in ((i, value, expected), (i + 3, value - expected, 0 * expected)):
            right += [ribbon(panel, w["xray.measured"], y, 4 * error, 0)]
            right += [line(panel, w["xray.measured"], y, 0), told(panel, w["xray.rule"], rule)]
    right += [line(1, w["xray.previous"], given["previous_eps"].values, 1)]
    figure = xray_figure(given, language)
    check_traces(figure, right)
    titles = [note.text for note in figure.layout.annotations]
    for panel, name in enumerate(("x", "eps", "std", "x_off", "eps_off", "std_off")):
        first, _, rest = w[f"xray.{name}"].partition("\n")
        assert titles[panel] == f"<b>{first}</b>" + (f"<br>{rest}" if rest else "")
    assert figure.layout.meta["time_axes"] == [axis("x", i) for i in range(6)]
    assert figure.layout.yaxis3.range[0] < 0  # a std is seen from 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_noise_stands_beside_what_is_right(language):
    """1.358/√values, with values = ½ (std/error)². Kills: a shifted bound, correlations
    exchanged, the constant without its errors."""
    given, w = coefficients(), {k[11:]: v for k, v in words_of(language).items() if "xray_n" in k}
    std, error = given["std"].values, given["std_error"].values
    right = [told(0, w["band"], 1.358 * error * np.sqrt(2) / std, "tozeroy")]
    right += [line(0, w["noise"], given["noise_ks"].values, 0)]
    right += [told(panel, w["right"], 0 * std) for panel in (1, 2)]
    for i, name in enumerate(("batch", "grid", "step")):
        right += [line(1, w[name], given[f"{name}_correlation"].values, i + 1)]
    bias, error = given["bias"].values, 4 * given["bias_error"].values
    right += [line(2, w["constant"], bias, 4), ribbon(2, w["constant"], bias, error, 4)]
    figure = xray_noise_figure(given, language)
    check_traces(figure, right)
    titles = [note.text for note in figure.layout.annotations]
    assert titles == [f"<b>{w[name]}</b>" for name in ("ks", "correlations", "bias")]
    assert (figure.layout.yaxis.rangemode, figure.layout.yaxis2.range[1] > 0.3) == ("tozero", True)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("std", [0.0, 0.5])
def test_pictures_say_what_they_cannot_show(std, language):
    """Kills: an empty panel without a word, NaN for a range, rounding blown up to a fault, noise
    that cannot be told called none."""
    rules = {f"expected_{name}": np.nan for name in NAMES}
    given = coefficients(std=std, noise_ks=np.nan, x=1 + 1e-9, x_error=0.0, **rules)
    words = {key: text.replace("\n", "<br>") for key, text in words_of(language).items()}
    first = xray_figure(given, language)
    second = xray_noise_figure(given, language)
    said = [a.text for figure in (first, second) for a in figure.layout.annotations]
    assert said.count(words["xray.no_rule"]) == 3
    assert said.count(words[f"xray_noise.{'unknown' if std else 'none'}"]) == 2
    for figure in (first, second):
        for y in figure.select_yaxes():
            if y.range is not None:
                assert np.isfinite(y.range).all() and y.range[1] - y.range[0] > 1e-3
        json.dumps(json.loads(figure.to_json()), allow_nan=False)
    assert np.diff(first.layout.yaxis.range) == pytest.approx(0.02)


@pytest.mark.parametrize("language", LANGUAGES)
def test_behaviour_is_drawn_beside_what_is_told(language):
    """Of the law of one point. Kills: signal for noise, told for held, the other law of data."""
    count, w = iter(range(1, 99)), words_of(language)
    names = ("level", "signal", "level_told", "signal_told")
    curves = {n: np.array([[next(count) for _ in range(3)] for _ in range(2)]) / 10 for n in names}
    curves["signal"][0, 1] = np.inf
    figure, calls = behaviour_figure(curves, language), [1, 2, 3]
    right = []
    for panel, name in enumerate(("level", "signal")):
        held = np.where(np.isfinite(curves[name][0]), curves[name][0], np.nan)
        right.append(Trace(panel, w["behaviour.held"], calls, held, COLOURS[0]))
        y = curves[f"{name}_told"][0]
        right.append(Trace(panel, w["behaviour.told"], calls, y, GREY, "dot"))
        assert w[f"behaviour.{name}"] in figure.layout.annotations[panel].text
    check_traces(figure, right)
    assert {x.title.text for x in figure.select_xaxes()} == {w["behaviour.call"]}
    assert {y.rangemode for y in figure.select_yaxes()} == {"tozero"}
    assert [t.showlegend for t in figure.data].count(True) == 2
