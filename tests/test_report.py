"""The report and its JSON twin: the numbers are the run's, and names from outside stay text."""

import json
import os
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import diffviz as dv
from diffviz.diagnosis.numbers import key_numbers, mark_times, on_the_way
from diffviz.diagnosis.summary import paragraphs, statements
from diffviz.files.catalogue import LANGUAGES, catalogue
from diffviz.recording.run import Run
from diffviz.report import page, report_numbers, write_numbers, write_report
from diffviz.report.embedding import figure_json, script_json
from diffviz.report.pictures import is_images, sheets

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }} {arm} %s",
    "<!--<script>",
)
TIMES = np.arange(100, -1, -1)


def hand_made(arms, *, n=4096, noise_scale=None, silent=(), **changed) -> Run:
    """A run of T = 100 in which everything is right, but for what is ``changed``.

    A change is (arm, value) or (arm, t, value) on a variable; ``ref`` values need no arm.
    """
    A, S = len(arms), len(TIMES)
    scale = noise_scale or {}
    right = np.linspace(1, 0.5, S)
    arm_t, arm_q_t = ("arm", "t"), ("arm", "quantity", "t")
    schedule = dv.NoiseSchedule.linear(100)
    ones = np.ones((A, S))
    noise = np.array([np.full(S, 0.0 if a in silent or scale.get(a) == 0 else 0.1) for a in arms])
    dataset = xr.Dataset(
        {
            "mean": (arm_q_t, np.zeros((A, 3, S))),
            "std": (arm_q_t, np.ones((A, 3, S))),
            "values": (arm_q_t, np.full((A, 3, S), n)),
            "ks_marginal": (arm_t, 0.01 * ones),
            "std_between": (arm_t, ones * right),
            "distance_to_mean": (arm_t, ones * right),
            "noise_std": (arm_t, noise),
            "reference_mean": (("t",), np.zeros(S)),
            "reference_std": (("t",), right),
            "reference_std_between": (("t",), right),
            "reference_distance_to_mean": (("t",), right),
            "samples": (("arm", "sample"), np.zeros((A, 4))),
            "class_count": (("arm", "class"), np.full((A, 2), n // 2)),
            "distinct_nearest": (("arm",), np.full(A, 100)),
            "reference_distinct_nearest": ((), 100.0),
        },
        {
            "arm": list(arms),
            "t": TIMES,
            "quantity": ["x", "eps", "residual"],
            "class": ["one", "other"],
        },
    )
    for name in ("beta", "alpha", "alpha_bar"):
        values = getattr(schedule, {"beta": "betas", "alpha": "alphas"}.get(name, "alpha_bars"))
        dataset[f"schedule_{name}"] = (("schedule_t",), values)
    for name, change in changed.items():
        if name == "residual":
            dataset["std"].loc[{"arm": change[0], "quantity": "residual"}] = change[1]
        elif name.startswith("reference"):
            dataset[name][:] = change
        elif name == "end_mean":
            dataset["mean"].loc[{"arm": change[0], "quantity": "x", "t": 0}] = change[1]
        elif len(change) == 3:
            dataset[name].loc[{"arm": change[0], "t": change[1]}] = change[2]
        else:
            dataset[name].loc[{"arm": change[0]}] = change[1]
    spec = dv.RunSpec(
        denoiser="by hand",
        denoiser_digest="",
        schedule="linear",
        schedule_digest="",
        arms=tuple({"name": a, "rule": "ddpm", "noise_scale": scale.get(a, 1.0)} for a in arms),
        steps=100,
        n=n,
        block=n,
        seed=0,
        sample_shape=(),
    )
    return Run(dataset.assign_attrs(spec=spec.to_json()))


def said(run: Run) -> dict[str, list[str]]:
    """Per statement the arms that it names."""
    return {
        statement.key: [item.values["arm"] for item in statement.items]
        for paragraph in statements(run)
        for statement in paragraph
    }


@pytest.fixture(scope="module")
def sprites() -> Run:
    images, labels = dv.make_sprites(50)
    schedule = dv.NoiseSchedule.linear(30, 1e-3, 0.3)
    arms = [dv.Arm(HOSTILE[0], dv.ddpm()), dv.Arm(HOSTILE[1], dv.ddpm(), 0.0)]
    arms += [dv.Arm(HOSTILE[2], dv.ddim())]
    denoiser = dv.DatasetDenoiser(
        schedule, images, labels, (*HOSTILE, "plain"), name=HOSTILE[0] + HOSTILE[3]
    )
    return dv.record(denoiser, schedule, arms=arms, n=8, progress=False)


# ---------------------------------------------------------------- what happened


def test_right_run_is_called_right_and_nothing_else():
    """Kills: any fault named without a cause; a statement left out."""
    found = said(hand_made(["a", "b"]))
    assert found == {
        "noise_kept": ["a", "b"],
        "noise_gloss": [],
        "law_close": ["a", "b"],
        "law_gloss": [],
        "end_like": ["a", "b"],
        "end_gloss": [],
    }


FALL = np.linspace(0.9, 0.1, len(TIMES))
PERTURBED = {
    # name of the mutant it kills: what is changed, the key that must name arm b, one that must not
    "sign of the residual's deviation": ({"residual": ("b", FALL)}, "noise_less", "noise_kept"),
    "upper side forgotten": ({"residual": ("b", 1.3 - FALL / 5)}, "noise_more", "noise_kept"),
    "marginal compared with FAR only": ({"ks_marginal": ("b", 0.14)}, "law_rough", "law_close"),
    "marginal never far": ({"ks_marginal": ("b", 0.4)}, "law_far", "law_rough"),
    "pull without a threshold": ({"distance_to_mean": ("b", 50, 0.1)}, "pulled", "lost"),
    "collapse threshold dropped": ({"std_between": ("b", 0, 0.09)}, "end_same", "end_less"),
    "same for less varied": ({"std_between": ("b", 0, 0.3)}, "end_less", "end_same"),
    "spread not capped": ({"std_between": ("b", 0, 0.8)}, "end_more", "end_like"),
    "mean not compared": ({"end_mean": ("b", 0.2)}, "mean_off", "lost"),
    "repeats not counted": ({"distinct_nearest": ("b", 50)}, "repeated", "lost"),
    "lost class not seen": ({"class_count": ("b", np.array([4096, 0]))}, "lost", "repeated"),
}


@pytest.mark.parametrize("mutant", PERTURBED)
def test_a_change_in_one_arm_changes_its_sentence_only(mutant):
    change, key, other = PERTURBED[mutant]
    found = said(hand_made(["a", "b"], **change))
    assert found[key] == ["b"], mutant
    assert "b" not in found.get(other, [])
    assert all("a" in found[k] for k in ("noise_kept", "law_close", "end_like"))


def test_collapse_needs_a_fifth_of_the_data():
    """The data's std is 0.5 at the end. Kills: a threshold on the std itself, or another share."""
    assert said(hand_made(["b"], std_between=("b", 0, 0.099)))["end_same"] == ["b"]
    assert "end_same" not in said(hand_made(["b"], std_between=("b", 0, 0.101)))


def test_leaving_the_mean_again_is_said_only_when_it_was_near_and_is_far():
    """Kills: 'left' said of every arm, or of one that stays."""
    near = np.minimum(np.linspace(1, 0.05, len(TIMES)), 1)
    stays = hand_made(["b"], distance_to_mean=("b", near))
    returns = hand_made(["b"], distance_to_mean=("b", np.where(TIMES > 0, near, 0.5)))
    assert "left" not in said(stays) and said(stays)["pulled"] == ["b"]
    assert said(returns)["left"] == ["b"]


def test_silent_sampler_is_not_accused_and_the_noise_free_one_is():
    """Kills: DDIM's residual called a fault; z = 0 excused as DDIM is."""
    run = hand_made(["ddim"], silent=("ddim",), residual=("ddim", FALL))
    assert said(run)["noise_silent"] == ["ddim"]
    run = hand_made(["z=0"], noise_scale={"z=0": 0.0}, residual=("z=0", FALL))
    assert said(run)["noise_less"] == ["z=0"]


def _with_rule(run: Run, arm: int, rule: str, scale: float) -> Run:
    arms = [dict(spec) for spec in run.spec.arms]
    arms[arm] |= {"rule": rule, "noise_scale": scale}
    spec = replace(run.spec, arms=tuple(arms))
    return Run(run.dataset.assign_attrs(spec=spec.to_json()))


@pytest.mark.parametrize(
    ("rule", "scale", "key"),
    [
        ("ddim(eta=0.5)", 1.0, "noise_part"),
        ("ddim(eta=0)", 0.0, "noise_silent"),
        ("ddim(eta=1)", 1.0, "noise_less"),
        ("ddim(eta=0.5)", 0.5, "noise_less"),
        ("ddpm/beta", 1.0, "noise_less"),
    ],
)
def test_ddim_is_not_accused_of_its_other_joint_law(rule, scale, key):
    """Kills: a residual below 1 read as missing noise whatever the rule."""
    run = hand_made(["ddpm", "b"], residual=("b", FALL))
    assert said(_with_rule(run, 1, rule, scale))[key] == ["b"]


def test_a_path_that_turns_is_told_as_a_range():
    """Kills: an arrow from 0.60 to 0.67 over a path that falls to 0.25 on the way."""
    turning = 0.6 - 0.35 * np.sin(np.linspace(0, np.pi, len(TIMES)))
    (statement,) = [
        s
        for paragraph in statements(hand_made(["a", "b"], residual=("b", turning)))
        for s in paragraph
        if s.key == "noise_less"
    ]
    assert statement.items[0].key == "range" and statement.items[0].values["low"] == "0.25"
    (falling,) = [
        s
        for paragraph in statements(hand_made(["a", "b"], residual=("b", FALL)))
        for s in paragraph
        if s.key == "noise_less"
    ]
    assert falling.items[0].key == "path"


def test_a_point_has_no_spread_and_no_mean_to_miss():
    """Kills: a known spread of 0 called unknown; a mean accused of a rounding error."""
    point = {"reference_std_between": 0.0, "reference_std": 0.0}
    found = said(hand_made(["a"], end_mean=("a", -0.0005), **point))
    assert found["end_point"] == ["a"] and not {"end_unknown", "mean_off"} & set(found)
    assert "mean_off" in said(hand_made(["a"], end_mean=("a", 0.1), **point))


def test_dial_is_read_against_its_own_setting():
    """Kills: comparing every arm with 1."""
    half = {"noise_scale": {"half": 0.5}, "residual": ("half", 0.5)}
    assert said(hand_made(["half"], **half))["noise_dial"] == ["half"]


def test_a_class_without_evidence_is_not_called_lost():
    """Both arms lack it, or the other has only a few: chance. Kills: any zero is a loss."""
    run = hand_made(["a", "b"], n=8, class_count=("b", np.array([8, 0])))
    assert "lost" not in said(run)  # a has 4


@pytest.mark.parametrize("n, key", [(1, "end_single"), (31, "end_few"), (32, None)])
def test_few_samples_are_called_few(n, key):
    """Kills: diversity judged from one sample; n compared with the wrong bound."""
    keys = [k for k in said(hand_made(["a"], n=n)) if k in ("end_single", "end_few")]
    assert keys == ([key] if key else [])


def test_unknown_data_are_said_to_be_unknown():
    """Kills: NaN compared and taken for a verdict."""
    run = hand_made(
        ["a"],
        ks_marginal=("a", np.nan),
        distance_to_mean=("a", np.nan),
        reference_mean=np.nan,
        reference_std=np.nan,
        reference_std_between=np.nan,
        reference_distance_to_mean=np.nan,
    )
    found = said(run)
    assert set(found) == {"noise_kept", "noise_gloss", "law_unknown", "end_unknown"}


def test_chance_is_not_called_a_fault():
    """A right sampler of n numbers strays by so much. Kills: thresholds that forget n."""
    stray = {"residual": ("a", 1 + 0.15 * np.cos(TIMES)), "ks_marginal": ("a", 0.12)}
    stray["end_mean"] = ("a", 0.15)
    few = said(hand_made(["a"], n=256, **stray))
    many = said(hand_made(["a"], n=65536, **stray))
    assert {"noise_kept", "law_close"} <= set(few) and "mean_off" not in few
    assert {"noise_other", "law_rough", "mean_off"} <= set(many)


def test_outside_the_window_nothing_is_judged():
    """A right sampler leaves the theory near both ends. Kills: the window forgotten."""
    residual = np.where((TIMES > 90) | (TIMES < 20), 0.3, 1.0)
    run = hand_made(["a"], residual=("a", residual), ks_marginal=("a", (1 - residual)))
    assert {"noise_kept", "law_close"} <= set(said(run))


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_carry_the_numbers_and_leave_no_field_open(language):
    """Kills: a wrong arm's number; a field misspelt in one language."""
    run = hand_made(["a", "<b>"], std_between=("<b>", 0, 0.05), ks_marginal=("<b>", 0.4))
    words = "".join(paragraphs(run, language))
    assert "10 %" in words.replace("\u00a0", " ") and "0.40" in words
    assert "{" not in words and "&lt;b&gt;" in words and "<b>a</b>" in words


def test_every_statement_and_item_is_in_every_language():
    """Kills: a key chosen by numbers that some language lacks."""
    source = Path(page.__file__).with_name("summary.py").read_text(encoding="utf-8")
    for language in LANGUAGES:
        keys = {k.split(".")[2] for k in catalogue(language) if k.startswith("report.summary.")}
        assert keys == {k for k in keys if f'"{k}"' in source or k.endswith("head")}
    assert len({frozenset(k for k in catalogue(c) if k[:7] == "report.") for c in LANGUAGES}) == 1


# ---------------------------------------------------------------- numbers


def test_json_twin_is_the_dataset(sprites, tmp_path):
    """Kills: a curve left out or of another arm, NaN written as such, digits cut."""
    write_numbers(sprites, tmp_path / "n.json")

    def refuse(text):
        raise ValueError(f"not strict JSON: {text}")

    numbers = json.loads((tmp_path / "n.json").read_text("utf-8"), parse_constant=refuse)
    left_out = {"histogram", "snapshots", "samples"}
    assert set(numbers["variables"]) == set(map(str, sprites.dataset.data_vars)) - left_out
    for name, entry in (numbers["variables"] | numbers["coordinates"]).items():
        array = sprites.dataset[name]
        assert entry["dims"] == list(array.dims)
        if array.dtype.kind in "fiu":
            values = np.array(entry["values"], dtype=float)  # None becomes NaN
            np.testing.assert_array_equal(values, np.asarray(array.values, dtype=float))
        else:
            assert entry["values"] == array.values.tolist()
    assert numbers["spec"] == json.loads(sprites.spec.to_json())
    assert numbers == json.loads(json.dumps(report_numbers(sprites)))


def test_key_numbers_are_the_run_at_named_times(sprites):
    """Kills: the first step taken for the last, quantities swapped, a mark off by one."""
    dataset = sprites.dataset
    assert mark_times(sprites) == [27, 18, 6]
    for i, row in enumerate(key_numbers(sprites)[:-1]):
        arm = dataset.isel(arm=i)
        assert row.mean == arm["mean"].sel(quantity="x", t=0)
        assert row.residual_std == tuple(arm["std"].sel(quantity="residual", t=[27, 18, 6]).values)
        assert (
            row.marginal_d
            == arm["ks_marginal"].isel(t=on_the_way(sprites)).max()
            == arm["ks_marginal"].sel(t=row.marginal_d_t)
        )
        between = arm["std_between"].sel(t=0) / dataset["reference_std_between"].sel(t=0)
        assert row.share_between == between


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """What a browser would see: elements, attributes, and the text of scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.scripts, self.attributes, self._script = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "script":
            self._script = dict(attrs)
            self.scripts.append([self._script, ""])

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script is not None:
            self.scripts[-1][1] += data


@pytest.fixture(scope="module")
def plain(sprites) -> Page:
    """The same run with harmless names, as the measure of what belongs to the page."""
    dataset = sprites.dataset.assign_coords(arm=["a", "b", "c"], **{"class": list("vwxyz")})
    spec = json.loads(sprites.spec.to_json()) | {"denoiser": "harmless"}
    for arm, name in zip(spec["arms"], "abc", strict=True):
        arm["name"] = name
    return Page(page.render(Run(dataset.assign_attrs(spec=json.dumps(spec)))))


def test_hostile_names_stay_text(sprites, plain):
    """Kills: autoescape off, `<` not escaped in JSON, a Markup of a name."""
    hostile = Page(page.render(sprites, title=HOSTILE[1] + HOSTILE[0]))
    assert len(hostile.scripts) == len(plain.scripts) == 6
    assert hostile.elements.count("img") == plain.elements.count("img") == 0
    for name in ("div", "section", "figure", "canvas", "table"):
        assert hostile.elements.count(name) == plain.elements.count(name)
    assert not [a for a in hostile.attributes if a[1].startswith("on")]
    view = next(json.loads(text) for attrs, text in hostile.scripts if attrs.get("id") == "view")
    assert view["arms"] == list(HOSTILE[:3])  # escaped for the page, the same once read


def test_page_asks_nothing_of_a_network(plain):
    """Kills: a CDN, a remote font or image, a policy that lets anything out."""
    for tag, name, value in plain.attributes:
        if name in ("src", "href", "action", "srcset", "poster", "data"):
            assert value.startswith("#"), (tag, name, value)
    policy = next(v for _, n, v in plain.attributes if n == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'")
    script = policy.split("script-src")[1].split(";")[0]
    assert "unsafe" not in script and "http" not in policy and "*" not in policy
    style = Path(page.__file__).with_name("page.css").read_text("utf-8")
    assert "url(" not in style and "@import" not in style


def test_script_json_cannot_end_its_script():
    """Kills: json.dumps used bare."""
    text = script_json({"a": "</script>\u2028<!--&"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script>\u2028<!--&"}


def test_texts_of_a_language_restore_its_figure():
    """Kills: a text that differs and is not shipped; shipping the data twice."""
    from diffviz.figures.ks import ks_data, ks_figure

    schedule = dv.NoiseSchedule.linear(20)
    run = dv.record(dv.GaussianDenoiser(schedule, 2.0, 0.5), schedule, n=64, progress=False)
    figures = {language: ks_figure(ks_data(run), language) for language in LANGUAGES}
    shipped = figure_json(figures)
    for language in ("zh", "en", "zh"):
        for path, value in shipped["texts"][language]:
            *parents, last = path
            node = shipped["figure"]
            for key in parents:
                node = node[key]
            node[last] = value
        wanted = json.loads(figures[language].to_json())
        wanted["layout"]["paper_bgcolor"] = "rgba(0,0,0,0)"
        assert shipped["figure"] == wanted
    assert shipped["texts"]["zh"] and not any("bdata" in p for p, _ in shipped["texts"]["zh"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_is_the_one_shown_first(sprites, language):
    """Kills: the argument ignored; a text in one language only."""
    found = Page(page.render(sprites, language))
    assert ("html", "data-language", language) in found.attributes
    assert ("html", "lang", {"en": "en", "zh": "zh-Hans"}[language]) in found.attributes
    shown = [v for _, n, v in found.attributes if n == "class" and v.startswith("in-")]
    assert shown.count("in-en") == shown.count("in-zh") > 50


def test_unknown_language_is_named(sprites, tmp_path):
    with pytest.raises(dv.InputError, match=r"'fr'.*en, zh"):
        write_report(sprites, tmp_path / "r.html", language="fr")


def test_size_of_a_full_run(tmp_path):
    """16 samples, 3 arms, 501 times: at most 6 MB. Kills: plotly twice, plain, or raw data."""
    images, labels = dv.make_sprites(50)
    schedule = dv.NoiseSchedule.course()
    denoiser = dv.DatasetDenoiser(schedule, images, labels)
    run = dv.record(denoiser, schedule, n=16, progress=False)
    write_report(run, tmp_path / "r.html")
    assert os.path.getsize(tmp_path / "r.html") <= 6e6


def test_sheets_hold_the_snapshots(sprites):
    """A tile of the PNG is the image of its row and column. Kills: rows and columns swapped."""
    import base64
    import io

    from PIL import Image

    from diffviz.files.images import to_uint8

    found = sheets(sprites)
    raw = base64.b64decode(found.fixed[1].split(",")[1])
    sheet = np.asarray(Image.open(io.BytesIO(raw)))
    row, column = 2, 5
    tile = sheet[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
    snapshot = (
        sprites.dataset["snapshots"].isel(arm=1, sample=column).sel(snapshot=found.times[row])
    )
    np.testing.assert_array_equal(tile, to_uint8(snapshot.values[None])[0])


def test_large_images_keep_to_the_budget():
    """Kills: a budget that holds for sprites only."""
    schedule = dv.NoiseSchedule.linear(40)
    law = dv.GaussianDenoiser(schedule, np.zeros((3, 64, 64)), np.ones((3, 64, 64)))
    run = dv.record(law, schedule, n=4, progress=False)
    found = sheets(run)
    assert is_images(run) and sum(map(len, found.fixed + found.stretched)) < 2.4e6


@pytest.mark.parametrize(
    "shape, steps, n", [((), 1, 1), ((), 1, 8), ((5,), 3, 2), ((1, 8, 8), 2, 2), ((4, 6, 6), 2, 2)]
)
def test_any_run_has_a_page(shape, steps, n):
    """One step, one sample, vectors, grey images, latents. Kills: a division, an empty maximum."""
    schedule = dv.NoiseSchedule.linear(steps, 0.1, 0.5)
    denoiser = dv.GaussianDenoiser(schedule, np.full(shape, 2.0), np.full(shape, 0.5))
    arms = [dv.Arm("only", dv.ddpm())]
    found = Page(page.render(dv.record(denoiser, schedule, arms=arms, n=n, progress=False)))
    assert len(found.scripts) == 6
    for attrs, text in found.scripts[:3]:
        assert attrs["type"] == "application/json" and json.loads(text) is not ...


def test_an_old_report_survives_a_failed_one(sprites, tmp_path, monkeypatch):
    """Kills: writing in place."""
    path = tmp_path / "r.html"
    path.write_text("old")

    def fail(*_args, **_values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(dv.InputError, match="No space left"):
        write_report(sprites, path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["r.html"]
