"""The pictures of an x-ray's coefficients, and of the forward process."""

import json

import numpy as np
import pytest
import torch

import diffviz as dv
from diffviz.figures.xray import xray_data, xray_figure, xray_noise_figure
from diffviz.files.catalogue import catalogue
from diffviz.identify import zoo
from diffviz.identify.xray import xray

SHAPE = (16, 3, 8, 8)


def seen(program, *faults):
    schedule = dv.NoiseSchedule.linear(40, 2.5e-3, 0.25)
    torch.manual_seed(0)
    sampler = zoo.sampler(zoo.mutate(program, *faults), schedule)
    return schedule, xray(sampler, schedule, shape=SHAPE)


def test_the_curves_are_the_coefficients_beside_the_rule():
    """Kills: a swapped panel, errors that are not four standard errors, a shifted bound of D."""
    schedule, found = seen("ddpm", "half-noise")
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


@pytest.mark.parametrize("name", [("ddim",), ("ddpm", "upwards")])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_pictures_say_what_they_cannot_show(name, language):
    """Kills: an empty panel without a word, NaN for a range, rounding blown up to a fault."""
    _, found = seen(*name)
    data = xray_data(found.coefficients)
    words = catalogue(language)
    first, second = xray_figure(data, language), xray_noise_figure(data, language)
    said = [a.text for figure in (first, second) for a in figure.layout.annotations]
    if name[0] == "ddim":
        assert said.count(words["figures.xray_noise.none"]) == 2
    else:
        assert said.count(words["figures.xray.no_rule"]) == 3
    for figure in (first, second):
        for axis in figure.select_yaxes():
            if axis.range is not None:
                assert np.isfinite(axis.range).all() and axis.range[1] - axis.range[0] > 1e-3
        json.dumps(json.loads(figure.to_json()), allow_nan=False)
