"""Every figure: known numbers go in, and each trace that comes out is traced back to them.

The run is made up. Every number in it is another one, so a trace can be drawn in one way only:
its numbers, colour, dash, name, panel, axes and legend all have to be those of its arm.
"""

import base64
import html
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from PIL import Image

import diffviz as dv
from diffviz.diffusion.balance import BINS, LAWS, scaled_density
from diffviz.errors import InputError
from diffviz.figures import CONFIG, NAMES, available, caption, plot, theme
from diffviz.figures.density import density_figure
from diffviz.figures.export import _film, export, export_schedule
from diffviz.figures.histogram import histogram_data, histogram_figure
from diffviz.figures.live import STATISTICS, live_figure
from diffviz.figures.notebook import run_html
from diffviz.figures.schedule import schedule_figure
from diffviz.figures.strips import strips_data, strips_figure
from diffviz.files.catalogue import LANGUAGES, catalogue
from diffviz.recording.run import Run, RunSpec

T = 12
TIMES = np.array([12, 10, 7, 6, 4, 3, 2, 1, 0])
N = len(TIMES)
STRANGE = "<b>half</b> & $x$"
ESCAPED = "&lt;b&gt;half&lt;/b&gt; &amp; &#36;x&#36;"
ARMS = (
    ("ddpm", "ddpm/beta", 1.0),
    ("z=0", "ddpm/beta", 0.0),
    ("ddim", "ddim(eta=0)", 1.0),
    (STRANGE, "ddpm/beta", 0.5),
    ("post", "ddpm/posterior", 0.7),
    ("sixth", "ddim(eta=1)", 1.0),
)
A = len(ARMS)
LABELS = ["ddpm", "z=0", "ddim", ESCAPED, "post", "sixth"]
COLOURS = ["#1a7fc4", "#d55e00", "#009e73", "#7d5cf5", "#d3153b", "#8a7a00", "#c03fc0"]
COLOURS += ["#8c6040", "#2a8f9c", "#e5488b"]
DASHES = ["solid", "dash", "dashdot", "longdash", "longdashdot", "6px 2px 2px 2px", "3px 3px"]
GREY = "#808080"
SCHEDULE = dv.NoiseSchedule.linear(T, 1e-2, 0.3)
QUANTITIES = ["x", "eps", "residual"]


@cache
def made(shape=(1,), linear=True, banded=True):
    """A run in which no number stands twice; samples of ``shape``."""
    count = iter(range(1, 10**7))
    K, bins = 4, 7

    def fill(*sizes):
        n = int(np.prod(sizes))
        return np.array([next(count) for _ in range(n)]).reshape(sizes) / 1000

    q = ("arm", "quantity", "t")
    variables = {name: (q, fill(A, 3, N)) for name in ("mean", "std", "ks_normal")}
    variables["ks_normal_error"] = (q, fill(A, 3, N) / 1000)
    variables["values"] = (q, np.broadcast_to(1000 + 10 * np.arange(N), (A, 3, N)).copy())
    variables["values"][1][:, 2, -1] = 0
    variables["histogram"] = ((*q, "bin"), (1000 * fill(A, 3, N, bins)).astype(int))
    names = ("std_between", "std_within", "distance_to_mean", "noise_level", "noise_std")
    variables |= {name: (("arm", "t"), fill(A, N)) for name in (*names, "ks_marginal")}
    variables["ks_marginal_error"] = (("arm", "t"), np.zeros((A, N)))
    variables["noise_std"][1][[1, 2]] = 0  # z=0 and ddim inject nothing
    # Between none and all of the noise, so that λ̂ can be read.
    variables["std"][1][:, 2] = np.array([1, 0.1, 0.3, 0.5, 0.7, 0.9])[:, None] + fill(A, N) / 1e4
    names = ("mean", "std", "std_between", "std_within", "distance_to_mean", "noise_level")
    variables |= {f"reference_{name}": ("t", fill(N)) for name in names}
    variables["reference_histogram"] = (("t", "bin"), fill(N, bins))
    if banded:
        names = ("mean", "std", "std_between", "std_within", "distance_to_mean", "ks_marginal")
        for name in (*names, "residual_std", "residual_ks"):
            low = fill(N)
            variables |= {f"{name}_low": ("t", low), f"{name}_high": ("t", low + 0.5)}
    dims = [f"sample_{i}" for i in range(len(shape))]
    x = np.sin(fill(A, N, K, *shape) * 1000).astype(np.float32)
    variables["snapshots"] = (("arm", "snapshot", "sample", *dims), x)
    variables["samples"] = (("arm", "sample", *dims), x[:, -1])
    variables |= {"distinct_nearest": ("arm", fill(A)), "nearest_distance": ("arm", fill(A))}
    variables["reference_distinct_nearest"] = ((), fill(1)[0])
    variables["class_count"] = (("arm", "class"), (1000 * fill(A, 2)).astype(int))
    variables["reference_class_share"] = ("class", np.array([0.3001, 0.6999]))
    variables["map"] = (("arm", "t", "sample", "plane"), fill(A, N, K, 2).astype(np.float32))
    variables["map_std"] = (("t", "plane"), 20 + fill(N, 2))
    variables["map_data"] = (("point", "plane"), fill(5, 2))
    for name, values in (
        ("beta", SCHEDULE.betas),
        ("alpha", SCHEDULE.alphas),
        ("alpha_bar", SCHEDULE.alpha_bars),
    ):
        variables[f"schedule_{name}"] = ("schedule_t", values)
    spec = RunSpec(
        denoiser="gaussian(2, 0.5)" if linear else "ContextUnet",
        denoiser_digest="",
        schedule="linear",
        schedule_digest="",
        arms=tuple(dict(zip(("name", "rule", "noise_scale"), arm, strict=True)) for arm in ARMS),
        steps=N - 1,
        n=100,
        block=100,
        seed=0,
        sample_shape=shape,
    )
    coords = {
        "arm": [name for name, _, _ in ARMS],
        "t": TIMES,
        "quantity": QUANTITIES,
        "snapshot": TIMES,
        "bin": np.linspace(-1.5, 1.5, bins),
        "class": ["a", "<i>b</i>"],
    }
    return Run(xr.Dataset(variables, coords, {"spec": spec.to_json()}))


IMAGES = (3, 4, 5)


def without(run, *names):
    return Run(run.dataset.drop_vars(names))


def values(run, name, quantity=None):
    data = run.dataset[name]
    return (data if quantity is None else data.sel(quantity=quantity)).values


# -------------------------------------------------------------------- what has to be drawn


class Trace(NamedTuple):
    """One trace as it has to be: its panel, name, numbers, colour, dash, and filling."""

    panel: int
    name: str
    x: object
    y: object
    colour: str
    dash: str | None = "solid"
    fill: str = "none"


def curves(panel, x, y):
    return [Trace(panel, LABELS[a], x, y[a], COLOURS[a], DASHES[a]) for a in range(len(y))]


def reference(panel, y, words, x=TIMES, dash="dot", fill="none"):
    return [Trace(panel, words, x, y, GREY, dash, fill)]


def band(panel, low, high, words, colour=GREY):
    across, up = np.append(TIMES, TIMES[::-1]), np.append(low, high[::-1])
    return [Trace(panel, words, across, up, colour, None, "toself")]


def recorded(run, words, panel, name, quantity=None, told=None, ranged=None):
    """A statistic with the reference and the band that the run holds for it."""
    low, high = (values(run, f"{ranged or name}_{end}") for end in ("low", "high"))
    drawn = band(panel, low, high, words["common.band"])
    if told:
        drawn += reference(panel, values(run, told), words["common.marginal"])
    return drawn + curves(panel, TIMES, values(run, name, quantity))


def ribbons(run, panel, quantity):
    """Around D that is known between bounds only."""
    middle, error = (values(run, f"ks_normal{end}", quantity) for end in ("", "_error"))
    pairs = zip(middle - error, middle + error, strict=True)
    return [band(panel, *pair, LABELS[a], COLOURS[a]) for a, pair in enumerate(pairs)]


def expected_mean(run, w):
    return recorded(run, w, 0, "mean", "x", "reference_mean")


def expected_distance(run, w):
    return recorded(run, w, 0, "distance_to_mean", None, "reference_distance_to_mean")


def expected_stds(run, w):
    return (
        recorded(run, w, 0, "std", "x", "reference_std")
        + recorded(run, w, 1, "std_between", None, "reference_std_between")
        + recorded(run, w, 2, "std_within", None, "reference_std_within")
    )


def expected_ks(run, w):
    return (
        ribbons(run, 0, "x")
        + curves(0, TIMES, values(run, "ks_normal", "x"))
        + recorded(run, w, 1, "ks_marginal")
        + ribbons(run, 2, "residual")
        + recorded(run, w, 2, "ks_normal", "residual", None, "residual_ks")
    )


def expected_dial(run, w):
    ends, std = [T, 0], values(run, "std", "residual")
    lines = [
        line
        for panel in (0, 1)
        for scale, name in ((0.5, "0.5"), (0.7, "0.7"), (1, "1"))
        for line in reference(panel, [scale, scale], f"λ = {name}", ends)
    ]
    read = np.sqrt((std[3] ** 2 - std[1] ** 2) / (std[0] ** 2 - std[1] ** 2))
    read = [Trace(1, LABELS[3], TIMES, read, COLOURS[3], DASHES[3])]
    return lines + recorded(run, w, 0, "std", "residual", None, "residual_std") + read


def expected_histogram(run, w):
    counts = values(run, "histogram", "x")[:, 3].astype(float)  # t = 6, the middle
    density = counts / counts.sum(axis=-1, keepdims=True) / 0.5  # bins are ½ wide
    bins = run.dataset["bin"].values
    q = values(run, "reference_histogram")[3] / 0.5
    q = reference(0, q, w["common.marginal"], bins)
    return q + curves(0, bins, density)


def expected_noise(run, w):
    pairs = list(pairwise(TIMES))
    kept = np.array([np.prod(SCHEDULE.alphas[s + 1 : t + 1]) for t, s in pairs])
    left = np.array(
        [(1 - SCHEDULE.alpha_bars[s]) / (1 - SCHEDULE.alpha_bars[t]) for t, s in pairs]
    )
    beta, posterior, std = np.sqrt(1 - kept), np.sqrt((1 - kept) * left), values(run, "noise_std")
    times = TIMES[:-1]
    return [
        line
        for panel, unit in ((0, 1.0), (1, beta))
        for line in (
            *reference(panel, beta / unit, "√βₜ", times),
            *reference(panel, posterior / unit, "√β̃ₜ", times, "dashdot"),
            *curves(panel, times, std[:, :-1] / unit),
        )
    ]


def expected_staircase(run, w):
    sigma = np.sqrt((1 - SCHEDULE.alpha_bars) / np.maximum(SCHEDULE.alpha_bars, 1e-300))
    times = TIMES[1:8]  # six steps in the middle of 12 … 1
    told = sigma[times]
    saw_x, saw_y, still = [times[0]], [told[0]], [told[0]]
    for t, s in pairwise(times):
        saw_x += [s, s]
        saw_y += [sigma[s] ** 2 / sigma[t], sigma[s]]  # down, and up by the noise
        still.append(still[-1] * (sigma[s] / sigma[t]) ** 2)
    steps = (("ddpm", saw_x, saw_y), ("still", times, still), ("ddim", times, told))
    positive = values(run, "reference_noise_level")
    return (
        [Trace(0, w[f"staircase.{key}"], x, y, COLOURS[i], DASHES[i])]
        for i, (key, x, y) in enumerate(steps)
    ), (
        reference(1, positive, w["staircase.told"]),
        curves(1, TIMES, values(run, "noise_level")),
    )


def expected_schedule(run, w):
    t, s = np.arange(T, -1, -1), SCHEDULE
    beta = np.append(s.betas[:0:-1], np.nan)
    bars = s.alpha_bars[::-1]
    with np.errstate(divide="ignore"):
        snr = np.where(t > 0, bars / np.where(t > 0, 1 - bars, 1), np.nan)
    root = np.sqrt(1 - bars)
    alpha = 1 - beta
    rows = (
        (0, 0, "βₜ", beta),
        (1, 0, "ᾱₜ", bars),
        (1, 1, "√ᾱₜ", np.sqrt(bars)),
        (1, 2, "αₜ", alpha),
        (2, 0, "SNR", snr),
        (3, 0, "S1", 1 / np.sqrt(alpha)),
        (3, 1, "S2", (1 - alpha) / np.where(root > 0, root, np.nan)),
        (3, 2, "S3", np.sqrt(beta)),
    )
    return [Trace(p, name, t, y, COLOURS[i], DASHES[i]) for p, i, name, y in rows]


def expected_diversity(run, w):
    share = values(run, "class_count").astype(float)
    share /= share.sum(axis=1, keepdims=True)
    classes = ["a", "&lt;i&gt;b&lt;/i&gt;"]
    drawn = [
        bar
        for a, name in enumerate(LABELS)
        for bar in (
            Trace(0, name, [name], [values(run, "distinct_nearest")[a]], COLOURS[a]),
            Trace(1, name, [name], [values(run, "nearest_distance")[a]], COLOURS[a]),
            Trace(2, name, classes, share[a], COLOURS[a]),
        )
    ]
    level = float(values(run, "reference_distinct_nearest"))
    drawn += [Trace(0, w["diversity.expected"], [None], [level], GREY, "dot")]
    shares = values(run, "reference_class_share")
    return [*drawn, Trace(2, w["diversity.share"], classes, shares, GREY)]


def expected_trajectories(run, w):
    x = values(run, "snapshots").reshape(A, N, 4, -1)[..., 0]
    nothing = np.full((1, 4), np.nan)
    drawn = []
    for a in range(A):
        y = np.concatenate([x[a], nothing]).T.ravel()
        drawn.append(Trace(a, LABELS[a], np.tile([*TIMES, 0], 4), y, COLOURS[a]))
        drawn += reference(a, values(run, "reference_mean"), w["common.marginal_mean"])
    return drawn


def expected_map(run, w, now=N - 1):
    std = values(run, "map_std")
    x = (values(run, "map") / std[:, None]).astype(np.float32)
    cloud = values(run, "map_data") / std[-1]
    gap = np.full((1, 4), np.nan)
    drawn = []
    for a in range(A):
        path = [np.concatenate([x[a, : now + 1, :, i], gap]).T.ravel() for i in (0, 1)]
        drawn += [
            Trace(a, w["map.data"], *cloud.T, GREY),
            Trace(a, LABELS[a], *path, COLOURS[a]),
            Trace(a, w["map.start"].format(t=T), *x[a, 0].T, GREY),
            Trace(a, w["map.mean"], [0], [0], "#000000"),
            Trace(a, w["map.now"].format(t=TIMES[now]), *x[a, now].T, COLOURS[a]),
        ]
    return drawn


class Law(NamedTuple):
    """What is expected of a picture: traces, titles of panels, of x axes and of y axes."""

    traces: object
    titles: tuple[str, ...] = ("",)
    x: tuple[str, ...] = ("common.time",)
    y: tuple[str, ...] = ("",)
    time: bool = True

    @property
    def one_scale(self):
        """Panels of one quantity have one scale, whose title stands at the first."""
        return self.y[0] != "" and "" in self.y


LAWS_OF = {
    "mean": Law(expected_mean, y=("mean.y",)),
    "distance": Law(expected_distance, y=("distance.y",)),
    "stds": Law(
        expected_stds, ("stds.pooled", "stds.between", "stds.within"), y=("stds.y", "", "")
    ),
    "ks": Law(expected_ks, ("ks.naive", "ks.marginal", "ks.residual"), y=("ks.y", "", "")),
    "dial": Law(expected_dial, ("dial.std", "dial.reading"), y=("dial.std_y", "dial.reading_y")),
    "histogram": Law(
        expected_histogram, ("=t = 6",), ("histogram.x",), ("histogram.y",), time=False
    ),
    "noise": Law(
        expected_noise, ("noise.absolute", "noise.relative"), y=("noise.y", "noise.ratio")
    ),
    "staircase": Law(
        expected_staircase, ("staircase.steps", "staircase.run"), y=2 * ("staircase.y",)
    ),
    "schedule": Law(
        expected_schedule, tuple(f"schedule.{key}" for key in ("beta", "bar", "snr", "steps"))
    ),
    "diversity": Law(
        expected_diversity,
        ("diversity.distinct", "diversity.distance", "diversity.classes"),
        ("",),
        ("diversity.distinct_y", "diversity.distance_y", "diversity.classes_y"),
        time=False,
    ),
    "trajectories": Law(
        expected_trajectories,
        tuple(f"={label}" for label in LABELS),
        y=("=xₜ", *3 * ("",), "=xₜ", ""),
    ),
    "map": Law(
        expected_map,
        tuple(f"={label}" for label in LABELS),
        ("map.x",),
        ("map.y", "", "") * 2,
        time=False,
    ),
}


# -------------------------------------------------------------------- the tester


def words_of(language):
    topic = "figures."
    return {k[len(topic) :]: v for k, v in catalogue(language).items() if k.startswith(topic)}


def flat(found):
    """The traces of an expectation, however they are nested."""
    if isinstance(found, Trace):
        return [found]
    return [trace for part in found for trace in flat(part)]


def axis(letter, panel):
    return f"{letter}{panel + 1 if panel else ''}"


def as_drawn(trace):
    """A trace of plotly's as a `Trace`."""
    panel = int((trace.xaxis or "x")[1:] or 1) - 1
    assert (trace.yaxis or "y")[1:] == (trace.xaxis or "x")[1:]
    fill, dash = getattr(trace, "fill", None) or "none", "solid"
    if trace.type == "bar":
        colour = trace.marker.color
    elif fill == "toself":
        colour, dash = trace.fillcolor, None
    elif trace.mode == "markers":
        colour = trace.marker.color
    else:
        colour, dash = trace.line.color, trace.line.dash or "solid"
    return Trace(panel, trace.name, trace.x, trace.y, colour, dash, fill)


def same(a, b):
    if a._replace(x=0, y=0) != b._replace(x=0, y=0) or len(a.x) != len(b.x):
        return False
    for one, other in ((a.x, b.x), (a.y, b.y)):
        if isinstance(one[0], str) or one[0] is None:
            if list(one) != list(other):
                return False
        elif not np.allclose(
            np.asarray(one, float), np.asarray(other, float), 1e-6, 0, equal_nan=True
        ):
            return False
    return True


def check_traces(figure, expected):
    """Every expected trace is drawn once, and nothing else is."""
    left = [as_drawn(trace) for trace in figure.data]
    for trace in flat(expected):
        found = [i for i, other in enumerate(left) if same(trace, other)]
        assert found, f"not drawn as expected: {trace}"
        left.pop(found[0])
    assert not left, f"drawn too much: {left}"


def check_words(figure, law, words):
    def said(key):
        text = key[1:] if key.startswith("=") else words[key] if key else ""
        return text.replace("{steps}", "6").replace("\n", "<br>")

    lefts = [note for note in figure.layout.annotations if note.xanchor == "left"]
    titles = {note.xref: note.text.removesuffix("<br>\u00a0") for note in lefts}
    shown = {}
    for i, key in enumerate(law.titles):
        first, line, rest = said(key).partition("<br>")
        if key:
            shown[f"{axis('x', i)} domain"] = f"<b>{first}</b>{line}{rest}"
        x, y = (figure.layout[axis(k, i).replace(k, f"{k}axis")] for k in "xy")
        assert x.title.text == said(law.x[i % len(law.x)])
        assert (y.title.text or "") == said(law.y[i % len(law.y)])
        assert (x.anchor, y.anchor) == (axis("y", i), axis("x", i))
        shared = y.matches == "y" or (y.scaleanchor and y.range == figure.layout.yaxis.range)
        assert bool(shared) == bool(i and law.one_scale) or not i
    assert titles == shown


def check_time(figure, law):
    named = [axis("x", i) for i in range(len(law.titles))] if law.time else []
    assert figure.layout.meta["time_axes"] == named
    for x in named:
        left, right = figure.layout[x.replace("x", "xaxis")].range
        assert left > right
        if x != "x" or "staircase" not in str(law.titles):
            assert T < left < 1.05 * T and 0 > right > -0.05 * T


@pytest.mark.parametrize(("language", "look"), [("en", "light"), ("zh", "dark")])
@pytest.mark.parametrize("name", LAWS_OF)
def test_every_number_is_drawn_where_it_belongs(name, language, look):
    """Kills: curves one colour or dash off, names of other arms, references or bands swapped or
    of another statistic, panels, titles or axes swapped, another quantity, a lost or doubled
    trace, time upwards, words of another language, a theme that changes data."""
    run, law, words = made(), LAWS_OF[name], words_of(language)
    figure = plot(run, name, language=language, theme=look)
    check_traces(figure, law.traces(run, words))
    check_words(figure, law, words)
    check_time(figure, law)
    page = figure.layout.template.layout
    assert (page.paper_bgcolor, page.font.color) == {
        "light": ("#ffffff", "#1f2328"),
        "dark": ("#16181d", "#e6e8eb"),
    }[look]
    assert not figure.layout.shapes or name == "diversity"


def test_every_picture_has_a_law():
    """Kills: a new picture that nothing tests."""
    assert {*NAMES} == {*LAWS_OF, "strips"}


@pytest.mark.parametrize("name", LAWS_OF)
def test_arms_stand_once_in_the_legend(name):
    """Kills: an entry per panel, or none; the entries of two arms joined in one group."""
    figure = plot(made(), name)
    if name in ("schedule", "map"):
        return
    for arm, label in zip([arm for arm, _, _ in ARMS], LABELS, strict=True):
        group = [t for t in figure.data if t.legendgroup == arm]
        assert {t.name for t in group} <= {label}
        shown = [t for t in figure.data if t.name == label and t.showlegend is not False]
        assert len(shown) == 1 and getattr(shown[0], "fill", "") != "toself", (name, arm)
    bands = [t for t in figure.data if t.name == "95 of 100 right samplers"]
    assert not bands or [t.showlegend for t in bands] == [True, *(len(bands) - 1) * [False]]


@pytest.mark.parametrize("name", [name for name, law in LAWS_OF.items() if law.time])
def test_a_step_is_marked_on_every_axis_of_time(name):
    """Kills: a cursor at another time, on one panel only, or where nobody asked for one."""
    shapes = plot(made(), name, t=7).layout.shapes
    axes = plot(made(), name).layout.meta["time_axes"]
    assert [shape.xref for shape in shapes] == axes
    for shape in shapes:
        assert shape.x0 == shape.x1 == 7 and (shape.y0, shape.y1) == (0, 1)
        assert shape.yref == shape.xref.replace("x", "y") + " domain"


@pytest.mark.parametrize("name", LAWS_OF)
def test_panels_neither_overlap_nor_leave_the_page(name):
    """Kills: a patch for the phone that misses an axis, or panels on top of each other."""
    figure = plot(made(), name)
    first = figure.to_dict()
    keys = [key for key in first["layout"] if key.startswith("xaxis")]
    assert len(keys) == len(LAWS_OF[name].titles)
    for width in ("narrow", "wide"):
        layout = theme.arranged(figure, width).to_dict()["layout"]
        boxes = [
            (*layout[key]["domain"], *layout[key.replace("x", "y", 1)]["domain"]) for key in keys
        ]
        assert all(0 <= low < high <= 1 for b in boxes for low, high in (b[:2], b[2:]))
        for i, a in enumerate(boxes):
            assert width == "wide" or a[:2] == (0, 1)
            for b in boxes[:i]:
                beside = a[0] >= b[1] or b[0] >= a[1]
                below = a[2] >= b[3] or b[2] >= a[3]
                assert beside or below
                lines = 3 * 20  # a title of up to three lines needs room
                gap = max(a[2] - b[3], b[2] - a[3]) * (layout["height"] - 120)
                assert beside or gap > lines or width == "wide"
        titles = [layout[key.replace("x", "y", 1)]["title"].get("text") for key in keys]
        assert width == "wide" or (len(set(titles)) <= 3 and ("" in titles) == (titles[0] == ""))
    assert figure.to_dict() == first


# -------------------------------------------------------------------- one picture's own laws


@pytest.mark.parametrize("name", LAWS_OF)
def test_scales_show_zero_or_are_logarithmic(name):
    """Kills: a std that seems to vanish where its axis is cut off, a level on a linear scale."""
    kinds = {"staircase": ["log", "log"], "schedule": ["tozero", None, "log", "log"]}
    zero = ("distance", "stds", "dial", "noise", "histogram", "diversity")
    panels = len(LAWS_OF[name].titles)
    right = kinds.get(name, panels * ["tozero" if name in zero else None])
    assert [y.type or y.rangemode for y in plot(made(), name).select_yaxes()] == right


def test_marks_on_the_map_can_be_told_apart():
    """Kills: the start drawn as the end, paths that cannot be seen, points off the panel."""
    run = made()
    figure = plot(run, "map")
    marks = {t.meta: (t.marker.symbol, t.marker.size, t.opacity) for t in figure.data}
    assert [marks[role][0] for role in ("start", "mean", "now")] == ["circle-open", "cross", None]
    assert marks["now"][1] > marks["start"][1] > marks["data"][1] and 0.3 < marks["path"][2] < 0.8
    assert [t.meta for t in figure.data if t.showlegend] == ["data", "start", "mean", "now"]
    x = values(run, "map") / values(run, "map_std")[:, None]
    for far, reach in ((1.0, 2.5), (3.5, 1.05 * 3.5), (9.0, 4.5)):
        wide = run.dataset.assign(map=run.dataset["map"] * (far / np.abs(x).max()))
        found = plot(Run(wide), "map").layout.xaxis.range[1]
        assert found == pytest.approx(reach, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "arms", "legends"),
    [
        ("staircase", [0, 1, 2], {}),
        ("staircase", [2, 0, 1], {"x": ("legend2", 0)}),
        ("schedule", [0], {"x2": ("legend3", 1), "x4": ("legend5", 1)}),
    ],
)
def test_a_panel_of_its_own_has_its_own_legend(name, arms, legends):
    """In its lower corner or above it, at every width. Kills: one on another panel or curves, or
    on the words of its title."""
    run = made()
    run = Run(run.dataset.isel(arm=arms).assign_attrs(spec=_spec(run, *arms)))
    figure = plot(run, name)
    drawn = {t.xaxis: t.legend for t in figure.data if t.legend and t.showlegend}
    assert drawn == {x: legend for x, (legend, _) in legends.items()}
    for width in ("narrow", "wide"):
        theme.arranged(figure, width)
        for x, (legend, above) in legends.items():
            across = figure.layout[x.replace("x", "xaxis")].domain
            up = figure.layout[x.replace("x", "yaxis")].domain
            place = figure.layout[legend]
            assert (place.x, place.y, place.yanchor) == (across[0], up[above], "bottom")
    titles = {a.xref.split()[0]: a.text.split("<br>") for a in figure.layout.annotations}
    for x, (_, above) in legends.items():  # plotly drops a last line of plain spaces
        assert not above or titles[x][1:] == ["\u00a0"]
    if not legends:  # the run's own legend names the colours
        assert {t.showlegend for t in figure.data if t.xaxis == "x"} == {False}


def test_what_stands_behind_is_faint_and_where_it_belongs():
    """Kills: a band that hides its curves, the number of random draws at another height or
    panel, room for a legend where there is none."""
    bands = [t.opacity for t in plot(made(), "ks").data if t.fill == "toself"]
    assert bands and max(bands) <= 0.3
    (level,) = plot(made(), "diversity").layout.shapes
    expected = float(values(made(), "reference_distinct_nearest"))
    assert (level.xref, level.yref, level.y0, level.y1) == ("x domain", "y", expected, expected)
    assert (level.x0, level.x1) == (0, 1)
    above = [plot(made(), name).layout.margin.t for name in ("mean", "schedule")]
    assert above[0] > above[1]  # though its panels have titles


def test_dial_of_a_network_does_not_read_the_noise():
    """Kills: λ drawn or read where the denoiser is not linear."""
    figure = plot(made(linear=False), "dial")
    assert figure.layout.meta["time_axes"] == ["x"]
    lines = {t.name: set(t.y) for t in figure.data if t.line.dash == "dot"}
    assert lines == {"N(0, 1)": {1.0}}


def test_one_colour_and_dash_per_arm():
    """Kills: a sixth arm that looks like the first, in bars and points too."""
    assert [theme.colour(i) for i in range(10)] == COLOURS
    assert [theme.dash(i) for i in range(7)] == DASHES
    assert len({(theme.colour(i), theme.dash(i)) for i in range(70)}) == 70
    assert "dot" not in DASHES  # it is the reference's


def test_colours_can_be_seen_on_both_pages():
    """Kills: a colour too pale for white or too dark for the dark page."""

    def luminance(colour):
        c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(a, b):
        low, high = sorted([luminance(a), luminance(b)])
        return (high + 0.05) / (low + 0.05)

    for name in ("light", "dark"):
        page = theme.TEMPLATES[name].layout
        assert min(contrast(c, page.paper_bgcolor) for c in (*COLOURS, GREY)) >= 3
        assert contrast(page.font.color, page.paper_bgcolor) >= 7


def test_of_other_arms_no_colour_stands_twice_in_the_staircase():
    """Kills: DDPM in closed form in the colour of an arm that is something else."""
    run = made()
    figure = plot(
        Run(run.dataset.isel(arm=[2, 0, 1]).assign_attrs(spec=_spec(run, 2, 0, 1))), "staircase"
    )
    drawn = [t.line.color for t in figure.data if t.line.color != GREY]
    assert drawn == [*COLOURS[3:6], *COLOURS[:3]]


def _spec(run, *arms):
    return replace(run.spec, arms=tuple(run.spec.arms[a] for a in arms)).to_json()


@pytest.mark.parametrize("quantity", ["x", "eps", "residual"])
def test_a_histogram_stands_beside_its_own_reference(quantity):
    """Kills: N(0, 1) beside x_t, q(x_t) beside the residual, anything beside ε̂."""
    run = made()
    data = histogram_data(run, quantity, t=3)
    lines = {t.name: t.y for t in histogram_figure(data).data if t.line.color == GREY}
    bins = run.dataset["bin"].values
    normal = np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi)
    at = int(np.flatnonzero(TIMES == 3)[0])
    right = {
        "x": {"forward process q(xₜ)": values(run, "reference_histogram")[at] / 0.5},
        "eps": {},
        "residual": {"N(0, 1)": normal},
    }[quantity]
    assert lines.keys() == right.keys()
    for name, y in right.items():
        np.testing.assert_allclose(lines[name], y)


def test_ks_shows_the_bound_of_independent_values_where_no_band_is_known():
    """1.358/√n of the residual. Kills: another n, another view, a bound of nothing."""
    figure = plot(made(banded=False), "ks")
    bound = next(t for t in figure.data if t.name == "95 of 100 independent samples")
    assert bound.xaxis == "x3" and bound.fill == "tozeroy"
    n = 1000 + 10 * np.arange(N - 1)
    np.testing.assert_allclose(bound.y, [*(1.358 / np.sqrt(n)), np.nan])
    assert bound.name not in [t.name for t in plot(made(), "ks").data]
    assert {tuple(y.range) for y in figure.select_yaxes()} == {(0, 1.02)}


@pytest.mark.parametrize("t", [12, 6])
def test_the_map_is_seen_at_its_time(t):
    """Kills: paths that run ahead, the points of another time, axes of different scale."""
    figure = plot(made(), "map", t=t)
    now = int(np.flatnonzero(t == TIMES)[0])
    check_traces(figure, expected_map(made(), words_of("en"), now))
    panels = [{"x": axis("x", a), "y": axis("y", a), "colour": COLOURS[a]} for a in range(A)]
    assert figure.layout.meta["panels"] == panels
    for a in range(A):
        x, y = (figure.layout[axis(k, a).replace(k, f"{k}axis")] for k in "xy")
        assert y.scaleanchor == axis("x", a) and list(x.range) == list(y.range)
        assert x.range[0] == -x.range[1]


def pixels(figure):
    """The picture of a strip, (height, width, 4)."""
    (trace,) = figure.data
    content = base64.b64decode(trace.source.partition(",")[2])
    picture = np.array(Image.open(io.BytesIO(content)))
    assert (trace.x0, trace.y0) == (0.5, 0.5) and trace.zsmooth in (None, False)
    assert list(figure.layout.xaxis.range) == [0, picture.shape[1]]
    assert list(figure.layout.yaxis.range) == [picture.shape[0], 0]
    return picture


def tile_at(picture, x, y):
    """The image whose middle is at (x, y)."""
    left, top = round(x - 2.5), round(y - 2)
    return picture[top : top + 4, left : left + 5]


def right_pixels(x):
    """(3, H, W) in [−1, 1] as RGBA in the fixed range."""
    rgb = np.rint((np.clip(np.moveaxis(x, 0, -1), -1, 1) + 1) * 127.5)
    return np.concatenate([rgb, np.full((*rgb.shape[:2], 1), 255)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("language", "look"), [("en", "light"), ("zh", "dark")])
def test_strips_over_time_have_the_pixels_under_their_labels(language, look):
    """Kills: rows of other arms, columns of other times, a range per image, smooth enlargement,
    pixels that depend on the theme."""
    run = made(IMAGES)
    figure = plot(run, "strips", language=language, theme=look)
    picture, snapshots = pixels(figure), values(run, "snapshots")
    assert list(figure.layout.yaxis.ticktext) == LABELS
    wanted = np.linspace(T, 0, 13).astype(int)
    nearest = [int(np.abs(TIMES - t).argmin()) for t in wanted]
    assert list(figure.layout.xaxis.ticktext) == [str(TIMES[i]) for i in nearest]
    for a, middle in enumerate(figure.layout.yaxis.tickvals):
        for column, x in enumerate(figure.layout.xaxis.tickvals):
            for sample in range(3):  # the middle of the three is at the label
                tile = tile_at(picture, x, middle + (sample - 1) * 5)
                right = right_pixels(snapshots[a, nearest[column], sample])
                np.testing.assert_array_equal(tile, right)
    assert (picture[:, 5, 3] == 0).all()  # clear between the columns
    gaps = np.flatnonzero((picture[..., 3] == 0).all(axis=1))  # 1 within an arm, 3 between two
    assert len(gaps) == A * 2 + (A - 1) * 3
    assert figure.layout.xaxis.title.text == words_of(language)["common.time"]


@pytest.mark.parametrize("t", [12, 5, 0])
def test_strips_at_one_time_have_all_samples(t):
    """Kills: another time, samples and arms transposed."""
    run = made(IMAGES)
    figure = plot(run, "strips", t=t)
    picture, at = pixels(figure), int(np.abs(TIMES - t).argmin())
    assert list(figure.layout.yaxis.ticktext) == LABELS
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "3", "4"]
    assert f"t = {TIMES[at]}" in figure.layout.xaxis.title.text
    for a, y in enumerate(figure.layout.yaxis.tickvals):
        for sample, x in enumerate(figure.layout.xaxis.tickvals):
            right = right_pixels(values(run, "snapshots")[a, at, sample])
            np.testing.assert_array_equal(tile_at(picture, x, y), right)


def test_stretched_strips_are_there_by_name_only():
    """Kills: a stretch by default, or one over all channels at once."""
    data = strips_data(made(IMAGES), samples=[2, 0, 99], times=[7], stretched=True)
    assert data.samples == [2, 0]
    assert (data.tiles.max(axis=(-2, -3)) == 255).all()
    assert (data.tiles.min(axis=(-2, -3)) == 0).all()
    assert (strips_data(made(IMAGES)).tiles.max(axis=(-2, -3)) < 255).any()
    grey = Run(made(IMAGES).dataset.isel(sample_0=[1]).assign_attrs(spec=_shaped((1, 4, 5))))
    tiles = strips_data(grey, [0], [7]).tiles
    assert tiles.shape[-1] == 3 and (tiles[..., :1] == tiles).all()
    assert len(strips_figure(strips_data(grey, [0], [7, 4])).data) == 1


def test_shares_of_classes_show_what_chance_does():
    """Of 100 samples. Kills: a variance for a std, whiskers on the arms, of another n."""
    bars = [t for t in plot(made(), "diversity").data if t.error_y.array is not None]
    (share,) = values(made(), "reference_class_share")[None]
    assert [t.marker.color for t in bars] == [GREY]
    np.testing.assert_allclose(bars[0].error_y.array, 1.96 * np.sqrt(share * (1 - share)) / 10)


def _shaped(shape):
    return replace(made(IMAGES).spec, sample_shape=shape).to_json()


def test_density_shows_both_laws():
    """Kills: the right law and the made one swapped, time upwards, ends exchanged."""
    data = scaled_density(dv.NoiseSchedule.linear(20, 1e-3, 0.3), LAWS["mixture"], 0.0, 1.0)
    figure = density_figure(data)
    right, made_, end, ends = figure.data
    np.testing.assert_allclose(right.z, data.marginal.T, atol=1e-6)
    np.testing.assert_allclose(made_.z, data.density.T, atol=1e-6)
    assert (right.xaxis, made_.xaxis, end.xaxis, ends.xaxis) == ("x", "x2", "x3", "x3")
    np.testing.assert_allclose(end.x, data.marginal[-1])
    np.testing.assert_allclose(ends.x, data.density[-1])
    assert (end.name, end.line.color, ends.name, ends.line.color) == (
        "data",
        GREY,
        "samples",
        COLOURS[0],
    )
    assert right.colorscale[-1][1] == GREY and made_.colorscale[-1][1] == COLOURS[0]
    for trace in (right, made_):
        np.testing.assert_array_equal(trace.x, data.t)
        np.testing.assert_array_equal(trace.y, BINS)
    assert list(figure.layout.xaxis.range) == list(figure.layout.xaxis2.range) == [20, 0]
    words = [
        words_of("en")[f"density.{name}"].partition("\n")[0] for name in ("right", "made", "end")
    ]
    assert [note.text[3:].partition("</b>")[0] for note in figure.layout.annotations] == words
    time = words_of("en")["common.time"]
    assert [x.title.text for x in figure.select_xaxes()] == [time, time, "density"]
    assert figure.layout.meta["time_axes"] == ["x", "x2"]
    for trace in (right, made_):
        inks = [float(ink.rpartition(",")[2].rstrip(")")) for _, ink in trace.colorscale[:2]]
        assert inks == [0, 0.75]  # denser is darker
    assert [t.fill for t in (end, ends)] == ["none", "tozerox"]


def test_live_figure_has_a_place_for_every_curve():
    """Kills: a curve that is filled under another name, one on the panel of another statistic."""
    figure = live_figure([STRANGE, "b"], 9, "zh")
    for i, name in enumerate(STATISTICS):
        on = [t for t in figure.data if t.xaxis == axis("x", i)]
        assert [(t.meta, t.name) for t in on] == [((name, 0), ESCAPED), ((name, 1), "b")]
        assert [t.line.color for t in on] == COLOURS[:2] and not len(on[0].x)
        assert words_of("zh")[f"live.{name}"] in figure.layout.annotations[i].text
    zero = [y.rangemode == "tozero" for y in figure.select_yaxes()]
    assert zero == [name != "mean" for name in STATISTICS]
    assert len(live_figure(["a"], 9).data) == len(STATISTICS)


# -------------------------------------------------------------------- what a run can give


def test_a_run_gives_what_it_has_the_numbers_for():
    """Kills: a picture offered that cannot be drawn, or one that is kept back."""
    everything = set(NAMES)
    run = made()
    assert available(run) == [name for name in NAMES if name != "strips"]
    assert set(available(made(IMAGES))) == everything - {"trajectories"}
    bare = without(run, "map", "distinct_nearest", "snapshots", "class_count")
    assert everything - set(available(bare)) == {"strips", "map", "diversity", "trajectories"}
    few = without(run, "class_count", "reference_class_share", "class")
    bars = plot(few, "diversity")
    assert len(list(bars.select_xaxes())) == 2
    assert [t.name for t in bars.data if t.type == "bar" and t.showlegend] == LABELS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cake",), "picture is 'cake'; allowed: map, strips"),
        (("strips",), "picture is 'strips'; this run has the numbers for map, ks"),
        (("ks", "fr"), "language is 'fr'; allowed: en, zh"),
        (("ks", "en", "pink"), "theme is 'pink'; allowed: light, dark"),
        (("ks", "en", "light", 13), "t is 13; allowed is 0…12"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(arguments, words):
    """Kills: a KeyError, or a figure without data."""
    keys = ("name", "language", "theme", "t")
    with pytest.raises(InputError) as error:
        plot(made(), **dict(zip(keys, arguments, strict=False)))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_curve_without_numbers_says_so():
    """Kills: a blank panel, gaps that are joined, references of NaN in the legend."""
    data = made(banded=False).dataset.copy(deep=True)
    data["std_within"][:] = np.nan
    data["std_between"][0, 4] = np.nan
    for name in ("reference_std", "reference_std_within", "reference_histogram"):
        data[name][:] = np.nan
    assert GREY not in [t.line.color for t in plot(Run(data), "histogram").data]
    for language in LANGUAGES:
        figure = plot(Run(data), "stds", language=language)
        words = words_of(language)["common.nothing"].replace("\n", "<br>")
        assert [a.xref for a in figure.layout.annotations if a.text == words] == ["x3 domain"]
    assert [t.xaxis for t in figure.data if t.line.color == GREY] == ["x2"]
    gap = next(t for t in figure.data if t.xaxis == "x2" and t.legendgroup == "ddpm")
    assert gap.connectgaps is False and np.isnan(gap.y[4]) and len(gap.y) == N


def test_one_step_can_be_drawn():
    """Kills: an index into steps that are not there."""
    schedule = dv.NoiseSchedule.linear(10, 0.01, 0.5)
    denoiser = dv.GaussianDenoiser(schedule, 0.0, 1.0)
    run = dv.record(denoiser, schedule, n=4, steps=1, progress=False)
    assert all(plot(run, name).data for name in available(run))


def test_long_runs_are_thinned_evenly():
    """Kills: a lost end, more points than allowed, x and y thinned apart."""
    figure = schedule_figure(dv.NoiseSchedule.linear(5000, 1e-5, 1e-3))
    beta = figure.data[0]
    assert 1900 < len(beta.x) <= 2000 and (beta.x[0], beta.x[-1]) == (5000, 0)
    steps = np.diff(beta.x)
    assert steps.max() - steps.min() <= 1
    np.testing.assert_allclose(beta.y[:-1], np.interp(beta.x[:-1], [1, 5000], [1e-5, 1e-3]))


def test_names_from_outside_are_short_and_plain():
    """Kills: a tag, a formula, or a legend as wide as the page."""
    assert theme.label(STRANGE) == ESCAPED
    assert theme.label("n" * 41) == "n" * 39 + "…" and theme.label("n" * 40) == "n" * 40


def test_no_figure_offers_to_upload_it():
    """Kills: plotly's default of a button that sends the data to a cloud."""
    assert CONFIG["showSendToCloud"] is False and CONFIG["plotlyServerURL"] == ""
    assert CONFIG["displaylogo"] is False and CONFIG["responsive"] is True


def test_a_run_draws_itself():
    """Kills: ``run.plot`` with other defaults, a name that does not reach it."""
    run = made()
    arguments = {"language": "zh", "theme": "dark", "t": 4}
    assert (
        run.plot("ks", **arguments)
        == plot(run, "ks", **arguments)
        == dv.plot(run, "ks", **arguments)
    )
    assert caption("ks", "zh") == catalogue("zh")["figures.ks.caption"]


def test_a_run_in_a_notebook_shows_its_ends():
    """Kills: images or numbers beside another arm, a name that is markup, numbers not of t = 0."""
    run = made(IMAGES)
    page = run._repr_html_()
    assert page == run_html(run)
    english, _, chinese = page.partition("<details")
    rows, again = english.split("<tr>")[2:], chinese.split("<tr>")[2:]
    assert len(rows) == len(again) == A
    for a, row in enumerate(rows):
        assert f">{html.escape(ARMS[a][0])}</th>" in row and COLOURS[a] in row
        source = row.partition("base64,")[2].partition('"')[0]
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(source))))
        right = right_pixels(values(run, "snapshots")[a, -1, 2])
        np.testing.assert_array_equal(picture[:4, 12:17], right)
        between = values(run, "std_between")[a, -1]
        share = between / values(run, "reference_std_between")[-1]
        mean = values(run, "mean", "x")[a, -1]
        numbers = f"<td>{mean:.3g}</td><td>{between:.3g}</td><td>{share:.0%}</td>"
        assert numbers in row and numbers in again[a]
    for part, language in ((english, "en"), (chinese, "zh")):
        for name in ("mean", "between", "share"):
            assert f"<th>{words_of(language)[f'notebook.{name}']}</th>" in part
    assert "<img" not in run_html(made()) and "run.plot" in page


def test_drawing_a_run_needs_no_torch():
    """Kills: an import of torch at the plotly end."""
    code = "import sys, diffviz.figures.density; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_page_and_a_film_are_made_of_the_figures_asked_for(tmp_path, monkeypatch):
    """Without a browser. Kills: another language, theme, title or size, a film that does not
    rest at its end, a step of another time."""
    run, seen = made(IMAGES), []

    def drawn(figures, kind, scale=1):
        seen.append((kind, scale, figures))
        made_ = io.BytesIO()
        Image.new("RGB", (4, 4), (len(seen), 0, 0)).save(made_, "PNG")
        return [made_.getvalue()] * len(figures)

    monkeypatch.setattr("diffviz.figures.export.render", drawn)
    export("ks", run, tmp_path / "a.html", language="zh", theme="dark", height=333)
    page = (tmp_path / "a.html").read_text("utf-8")
    assert '<html lang="zh">' in page and '<head><meta name="viewport"' in page
    assert '<body style="background: #16181d">' in page
    assert '"height":333' in page and json.dumps(words_of("zh")["ks.title"])[1:-1] in page
    for path, scale in (("a.png", 2), ("a.svg", 1), ("a.pdf", 1)):
        export("strips", run, tmp_path / path, width=345, t=7)
        kind, found, (figure,) = seen.pop()
        assert (kind, found, figure.layout.width) == (path[2:], scale, 345)
        assert figure.layout.title.text == "<b>Samples at t = 7</b>"
    plain = plot(run, "strips", t=7).layout
    assert figure.layout.height - plain.height == figure.layout.margin.t - plain.margin.t > 20
    export("map", run, tmp_path / "a.gif")
    kind, _, figures = seen.pop()
    times = [f.data[4].name for f in figures]
    assert kind == "png" and times == [words_of("en")["map.now"].format(t=t) for t in TIMES]
    export_schedule(SCHEDULE, tmp_path / "s.svg", "zh")
    title = seen.pop()[2][0].layout.title.text
    assert title == f"<b>{words_of('zh')['schedule.title']}</b>"
    still = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), (i, i, i)) for i in (0, 100, 200)]
    still.write(_film(frames))
    with Image.open(still) as film:
        shown = []
        for i in range(film.n_frames):
            film.seek(i)
            shown.append(film.info["duration"])
    assert shown == [200, 200, 2000] and film.info["loop"] == 0


@pytest.mark.browser
def test_pictures_are_written_whole(tmp_path):
    """Kills: a film of one step, frames in the wrong order, an escape that a reader sees, another
    size than asked for."""
    run = made(IMAGES)
    export("ks", run, tmp_path / "ks.svg", width=900)
    assert STRANGE in html.unescape((tmp_path / "ks.svg").read_text("utf-8"))
    size = {"theme": "dark", "width": 500, "height": 300}
    export("strips", run, tmp_path / "s.png", t=0, **size)
    with Image.open(tmp_path / "s.png") as picture:
        still = picture.convert("RGB")
    assert still.size == (1000, 600)  # twice, for slides
    assert still.getpixel((999, 599)) == (0x16, 0x18, 0x1D)
    export("strips", run, tmp_path / "s.gif", **size)
    with Image.open(tmp_path / "s.gif") as film:
        assert film.n_frames == N
        film.seek(N - 1)
        last = film.convert("L").resize((60, 40))
    right = still.convert("L").resize((60, 40))
    assert np.abs(np.subtract(last, right, dtype=float)).mean() < 4


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    """Kills: a file opened before its content is there, an unknown ending found out last."""
    path = tmp_path / "ks.png"
    path.write_bytes(b"before")

    def fails(*arguments, **options):
        raise OSError("no space")

    monkeypatch.setattr(go.Figure, "to_image", fails)
    with pytest.raises(OSError, match="no space"):
        export("ks", made(), path)
    with pytest.raises(InputError, match=r"allowed: .png, .svg, .pdf, .html, .gif"):
        export("ks", made(), tmp_path / "ks.bmp")
    with pytest.raises(InputError, match="allowed: map"):
        export("cake", made(), tmp_path / "cake.html")
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["ks.png"]


@pytest.mark.browser
def test_a_page_shows_its_figure_at_every_width(tmp_path, browser):
    """After a resize too, and without a network. Kills: an element without a height, panels side
    by side on a phone, a script from elsewhere."""
    export("ks", made(), tmp_path / "ks.html", language="zh")
    size = """() => {
        const plot = document.querySelector(".js-plotly-plot");
        const box = plot.querySelector(".main-svg").getBoundingClientRect();
        return [plot.clientHeight, box.height, document.documentElement.scrollWidth];
    }"""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    wrong = []
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("request", lambda r: wrong.append(r.url) if r.url.startswith("http") else None)
    page.goto((tmp_path / "ks.html").as_uri())
    for width, low, high in ((1280, 500, 560), (1240, 500, 560), (390, 1100, 1300)):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(f"(width) => ({size})()[2] <= width", arg=width)
        element, drawn, _ = page.evaluate(size)
        assert low < element == drawn < high
    assert page.evaluate("document.documentElement.lang") == "zh"
    page.close()
    assert not wrong
