"""What the X-ray page and the schedule page show, and the process that computes it."""

import gzip
import json
import os
import signal

import numpy as np
import pytest
import torch
from scipy.stats import norm

import diffviz as dv
from diffviz.diffusion.forward import forward_data
from diffviz.figures.xray import xray_data, xray_figure, xray_noise_figure
from diffviz.files.catalogue import catalogue
from diffviz.identify import zoo
from diffviz.identify.xray import xray

bench = pytest.importorskip("dashboards.bench")
from dashboards import specimens  # noqa: E402

SHAPE = (16, 3, 8, 8)


def seen(name, T=40):
    schedule = dv.NoiseSchedule.linear(T)
    torch.manual_seed(0)
    sampler = zoo.sampler(specimens._source(name), schedule)
    return schedule, xray(sampler, schedule, shape=SHAPE)


# -------------------------------------------------------------------- figures


def test_the_curves_are_the_coefficients_beside_the_rule():
    """Kills: a swapped panel, errors that are not four standard errors, a shifted bound of D."""
    schedule, found = seen("half-noise")
    data = xray_data(found.coefficients)
    assert data.t.tolist() == list(range(40, 0, -1))
    np.testing.assert_allclose(data.expected[0], schedule.S1[:0:-1])
    np.testing.assert_allclose(data.expected[1], -(schedule.S1 * schedule.S2)[:0:-1])
    off = (np.abs(data.measured - data.expected) / data.error)[:2, :-1]
    assert off.max() < 5  # 78 z-scores; the last step has no noise, and errors of rounding
    np.testing.assert_allclose(data.measured[2, :-1], 0.5 * schedule.S3[:1:-1], rtol=0.06)
    values = np.prod(SHAPE)
    np.testing.assert_allclose(data.ks_bound[:-1], 1.358 / np.sqrt(values), rtol=0.01)
    figure = xray_figure(data)
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    drawn = np.array(bands[0].y)
    np.testing.assert_allclose(drawn[:40], data.measured[0] - 4 * data.error[0])
    below = next(t for t in figure.data if t.yaxis == "y6" and t.fill is None)
    np.testing.assert_allclose(below.y, data.measured[2] - data.expected[2])
    assert max(below.y[:-1]) < 0


@pytest.mark.parametrize("name", ["ddim", "upwards", "division-by-zero"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_pictures_say_what_they_cannot_show(name, language):
    """Kills: an empty panel without a word, NaN for a range, rounding blown up to a fault."""
    _, found = seen(name)
    data = xray_data(found.coefficients)
    words = catalogue(language)
    first, second = xray_figure(data, language), xray_noise_figure(data, language)
    said = [a.text for figure in (first, second) for a in figure.layout.annotations]
    if name == "ddim":
        assert said.count(words["figures.xray_noise.none"]) == 2
    else:
        assert said.count(words["figures.xray.no_rule"]) == 3
    for figure in (first, second):
        for axis in figure.select_yaxes():
            if axis.range is not None:
                assert np.isfinite(axis.range).all() and axis.range[1] - axis.range[0] > 1e-3
        json.dumps(json.loads(figure.to_json()), allow_nan=False)


# -------------------------------------------------------------------- who could tell


def test_what_can_still_be_told_follows_bayes():
    """Kills: √ᾱ left out of the distance, σ for σ², log 2 in the number of candidates."""
    images = np.linspace(-1, 1, 5)[:, None, None]
    schedule = dv.NoiseSchedule.cosine(50)
    data = forward_data(schedule, images, 3, [0, 10, 30, 50], seed=2)
    for t, bar, x, sure, left in zip(*data, strict=True):
        assert bar == schedule.alpha_bars[t]
        if t == 0:
            assert (sure, left) == (1, pytest.approx(1)) and x == images[3]
            continue
        density = norm.pdf(x.item(), np.sqrt(bar) * images.ravel(), np.sqrt(1 - bar))
        p = density / density.sum()
        assert sure == pytest.approx(p[3], rel=1e-9)
        assert left == pytest.approx(np.prod(p**-p), rel=1e-9)
    assert data.candidates[-1] > 4.99


# -------------------------------------------------------------------- the second process


@pytest.fixture(scope="module")
def bench_():
    made = bench.Bench(idle=60)
    yield made
    made.end()


def test_a_loop_is_seen_through_in_another_process_and_once(bench_):
    """Kills: sampling where pages are answered, the same work for everybody who asks."""
    first, second = bench_.look("ddim"), bench_.look("ddim")
    assert first is second
    answer = json.loads(gzip.decompress(first.result(120)))
    assert answer["findings"] == [] and answer["rule"] == "ddim(eta=0)"
    assert len(answer["pictures"]) == 1
    picture = answer["pictures"][0]
    assert picture["times"][0] == 500 and picture["times"][-1] is None and picture["finite"]
    with pytest.raises(KeyError):
        bench_.look("../../etc").result(60)
    assert set(bench_.answers) == {"ddim"}


def test_after_a_crash_the_next_question_is_answered(bench_):
    """Kills: a page that stays broken when its process was killed."""
    bench_.menu().result(120)
    for process in bench_.pool._processes.values():
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
    menu = None
    for _ in range(3):  # the first may still meet the broken pool
        bench_.answers.clear()
        try:
            menu = bench_.menu().result(120)
            break
        except bench.BrokenProcessPool:
            continue
    assert [loop["name"] for loop in json.loads(gzip.decompress(menu))] == list(specimens.LOOPS)


def test_the_menu_has_every_loop_in_every_language():
    """Kills: a loop without words, a fault shown as right."""
    loops = {loop["name"]: loop for loop in json.loads(gzip.decompress(specimens.menu()))}
    assert list(loops) == list(specimens.LOOPS)
    assert all(set(loop["title"]) == {"en", "zh"} for loop in loops.values())
    assert sum(loop["finding"] != "" for loop in loops.values()) >= 24
