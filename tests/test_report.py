"""The report, its JSON and its table: the numbers are the run's, and names stay text."""

import base64
import csv
import gzip
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import diffviz as dv
from diffviz.diagnosis.findings import diagnose
from diffviz.diagnosis.numbers import key_numbers, mark_times
from diffviz.diagnosis.sentences import number, step_table, story
from diffviz.diagnosis.verdicts import LEVEL
from diffviz.files.catalogue import LANGUAGES, catalogue, text
from diffviz.files.images import to_uint8
from diffviz.recording.run import Run
from diffviz.report import page, report_numbers, write_numbers, write_report
from diffviz.report.data import table
from diffviz.report.embedding import both, figure_json, script_json
from diffviz.report.frames import BUDGET, frames

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }} {arm} %s [[residual]]",
    "<!--<script>",
)


def sprites_run(arms, name, classes) -> Run:
    images, labels = dv.make_sprites(50)
    schedule = dv.NoiseSchedule.linear(30, 1e-3, 0.3)
    made = [
        dv.Arm(arms[0], dv.ddpm()),
        dv.Arm(arms[1], dv.ddpm(), 0.0),
        dv.Arm(arms[2], dv.ddim()),
    ]
    denoiser = dv.DatasetDenoiser(schedule, images, labels, classes, name=name)
    return dv.record(denoiser, schedule, arms=made, n=8, progress=False)


@pytest.fixture(scope="module")
def sprites() -> Run:
    return sprites_run(HOSTILE[:3], HOSTILE[0] + HOSTILE[3], (*HOSTILE, "plain"))


@pytest.fixture(scope="module")
def harmless() -> Run:
    return sprites_run("abc", "plain", tuple("vwxyz"))


class Page(HTMLParser):
    """What a browser would see: elements, attributes, the text of scripts, and tables."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.elements, self.scripts, self.attributes = text, [], [], []
        self._script = None
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

    def data(self, name):
        """The JSON of a script."""
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == name))

    def heads(self, name):
        """The heads of a table's columns, English only."""
        return self.rows(name, "thead")[0]

    def rows(self, name, part="tbody"):
        """The cells of a table's body, English only."""
        found = re.search(rf'<table[^>]*id="{name}">.*?<{part}>(.*?)</{part}>', self.text, re.S)
        rows = re.findall(r"<tr.*?>(.*?)</tr>", found[1], re.S)
        english = [re.sub(r'<span class="in-zh".*?</span>', "", row) for row in rows]
        cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S) for row in english]
        return [[re.sub(r"<.*?>", "", cell).strip() for cell in row] for row in cells]


def _plain(text):
    """A text of the report without its terms and tags."""
    return re.sub(r"<.*?>", "", re.sub(r"\[\[(?:\w+\|)?(.*?)\]\]", r"\1", text))


def _many(run, n):
    spec = json.loads(run.spec.to_json()) | {"n": n, "block": n}
    return Run(run.dataset.assign_attrs(spec=json.dumps(spec)))


@pytest.fixture
def words(monkeypatch):
    """Pages without figures, which take most of the time."""
    monkeypatch.setattr(page.figures, "available", lambda run: [])


@pytest.fixture(scope="module")
def shown(harmless) -> Page:
    return Page(page.render(harmless))


# ---------------------------------------------------------------- for programs


def test_json_is_the_dataset(sprites, tmp_path):
    """Kills: a curve left out or of another arm, NaN written as such, digits cut."""

    def refuse(text):
        raise ValueError(f"not strict JSON: {text}")

    write_numbers(sprites, tmp_path / "n.json")
    numbers = json.loads((tmp_path / "n.json").read_text("utf-8"), parse_constant=refuse)
    read = xr.Dataset.from_dict(numbers)
    for name, variable in sprites.dataset.data_vars.items():
        if {"bin", "sample", "frame", "point", "plane"} & set(variable.dims):
            assert name not in read
        else:
            assert read[name].dims == variable.dims and read[name].attrs == variable.attrs
            np.testing.assert_array_equal(read[name].values.astype(float), variable.values)
    assert read["arm"].values.tolist() == sprites.arms
    assert numbers["spec"] == json.loads(sprites.spec.to_json())
    told = story(sprites, "en")
    assert numbers["headline"] == told.headline
    assert numbers["findings"] == [f.numbers() for f in diagnose(sprites)]
    for row, arm in zip(key_numbers(sprites), numbers["key_numbers"]["arms"], strict=False):
        assert (arm["arm"], arm["std_between"]) == (row.arm, row.std_between)
        assert arm["sentence"] == told.arms[row.arm]
    assert numbers["key_numbers"]["data"]["std_between"] == key_numbers(sprites)[-1].std_between
    assert numbers["key_numbers"]["residual_std_at_t"] == mark_times(sprites) == [27, 18, 6]


def test_the_table_is_the_curves(harmless):
    """Kills: a curve under another arm, time or quantity; a row lost; a formula."""
    rows = list(csv.DictReader(io.StringIO(table(harmless))))
    assert [(r["arm"], int(r["t"])) for r in rows] == [
        (a, t) for a in "abc" for t in range(30, -1, -1)
    ]
    for row in rows[::7]:
        at = harmless.dataset.sel(arm=row["arm"], t=int(row["t"]))
        for quantity in ("x", "eps", "residual"):
            value = float(at["std"].sel(quantity=quantity))
            found = row[f"std_{quantity}"]
            assert float(found or "nan") == pytest.approx(value, rel=1e-8, nan_ok=True)
        assert float(row["std_between"]) == pytest.approx(float(at["std_between"]), rel=1e-8)
        right = float(harmless.dataset["reference_std"].sel(t=int(row["t"])))
        assert float(row["reference_std"]) == pytest.approx(right, rel=1e-8)
    dataset = harmless.dataset.assign_coords(arm=["=1+1", "b", "c"])
    spec = json.loads(harmless.spec.to_json())
    spec["arms"][0]["name"] = "=1+1"
    named = Run(dataset.assign_attrs(spec=json.dumps(spec)))
    assert next(csv.DictReader(io.StringIO(table(named))))["arm"] == "'=1+1"
    for sign in "+-@\t":
        spec["arms"][0]["name"] = f"{sign}1"
        changed = dataset.assign_coords(arm=[f"{sign}1", "b", "c"])
        named = Run(changed.assign_attrs(spec=json.dumps(spec)))
        assert f"'{sign}1" in table(named).split("\n")[1]


# ---------------------------------------------------------------- what the page shows


def test_each_arm_has_its_own_picture_name_and_sentence(harmless, shown):
    """On the first screen, before any figure. Kills: pictures or sentences of other arms."""
    found = re.findall(
        r'<figure class="arm" style="--arm: (#\w+)">\s*<figcaption><b>(\w)</b>.*?'
        r'<canvas data-arm="(\d)".*?aria-label="(\w)".*?lang="en">(.*?)</span>',
        shown.text,
        re.S,
    )
    told = story(harmless, "en")
    for i, (colour, name, arm, label, sentence) in enumerate(found):
        assert (name, label, int(arm)) == ("abc"[i], "abc"[i], i)
        assert sentence == told.arms[name]
        assert shown.data("view")["colours"][i] == colour
    assert len(found) == 3
    assert shown.text.index("data-arm=") < shown.text.index("data-figure=")
    assert f'<h1><span class="in-en" lang="en">{told.headline}</span>' in shown.text
    assert text("report.page.dataset", "en") in shown.text


def test_the_pictures_are_the_samples(harmless):
    """Bytes in the order that the script reads, at all times where they fit.

    Kills: arms, frames or channels swapped, a frame left out, more than three bits left out.
    """
    found = frames(harmless)
    raw = gzip.decompress(base64.b64decode(found["data"]))
    shape = (3, len(found["times"]), found["samples"], *found["shape"])
    data = np.frombuffer(raw, np.uint8).reshape(shape)
    assert found["times"] == harmless.dataset["frame_t"].values.tolist()
    assert found["times"][-1] == 0 and found["shape"] == (3, 16, 16)
    for arm, name in enumerate("abc"):
        end = harmless.dataset["samples"].sel(arm=name).values[: found["samples"]]
        exact = np.moveaxis(to_uint8(end), -1, 1).astype(int)
        assert np.abs(data[arm, -1] - exact).max() <= 1  # snapshots are rounded
        at = harmless.dataset["snapshots"].sel(arm=name, snapshot=found["times"][1]).values
        wanted = np.moveaxis(to_uint8(at), -1, 1)[: found["samples"]].astype(int)
        assert np.abs(data[arm, 1].astype(int) - wanted).max() <= 5


def test_what_moves_is_the_runs_own(harmless, shown):
    """Kills: dots in other units or of other arms, densities of another step or arm."""

    def shipped(name, *shape):
        packed = shown.data(name)
        raw = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), "<i2")
        return packed, np.where(raw == -32768, np.nan, raw * packed["unit"]).reshape(shape)

    data, steps = harmless.dataset, harmless.dataset.sizes["t"]
    packed, dots = shipped("dots", 3, steps, 8, 2)
    right = data["map"].values / data["map_std"].values[:, None]
    np.testing.assert_allclose(dots, right, atol=1e-3)
    assert packed["samples"] == 8
    packed, densities = shipped("densities", steps, 4, -1)
    bins = data["bin"].values
    counts = data["histogram"].sel(quantity="x").values
    for arm in range(3):
        density = counts[arm] / counts[arm].sum(-1, keepdims=True) / (bins[1] - bins[0])
        np.testing.assert_allclose(densities[:, arm], density, atol=1e-3)
    right = data["reference_histogram"].values / (bins[1] - bins[0])
    np.testing.assert_allclose(densities[:, 3], right, atol=1e-3)
    assert packed["bins"] == len(bins)


def test_what_is_not_known_moves_nowhere(harmless, words):
    """Kills: a broken arm's samples drawn in the middle of the map."""
    lost = harmless.dataset["map"].copy()
    lost[1, 20:] = np.nan
    found = Page(page.render(Run(harmless.dataset.assign(map=lost)))).data("dots")
    raw = np.frombuffer(gzip.decompress(base64.b64decode(found["data"])), "<i2")
    unknown = (raw == -32768).reshape(lost.shape)
    np.testing.assert_array_equal(unknown, np.isnan(lost.values))


def test_tables_hold_the_runs_numbers(harmless, shown):
    """Kills: columns swapped, a share without its range, p of another arm, rows reordered."""
    rows = key_numbers(harmless)
    ends = shown.rows("end-table")
    assert [row[0] for row in ends] == ["a", "b", "c", "data"]
    for row, cells in zip(rows[:3], ends, strict=False):
        low, high = (f"{100 * share:.0f}" for share in (row.share_low, row.share_high))
        assert cells[1:] == [
            number(row.mean),
            number(row.std),
            f"{row.distinct_nearest:.0f}",
            number(row.std_between),
            f"{100 * row.share:.0f} ({low} to {high})",
        ]
    way = slice(30 - 27, 30 - 6 + 1)
    chance = number(harmless.dataset["residual_ks_high"].values[way].max())
    for row, cells in zip(rows[:3], shown.rows("p-table"), strict=True):
        assert cells[2] == chance
        p = number(row.residual_p) if row.residual_p >= 0.001 else "&lt; 0.001"
        assert cells[0] == row.arm and cells[1] == number(row.residual_d)
        assert cells[3].replace("&lt;", "<") == p.replace("&lt;", "<")
    close = number(LEVEL + harmless.dataset["residual_ks_high"].values[way].max())
    assert text("report.p.exact", "en", close=close) in shown.text
    assert text("report.p.way", "en", start=27, stop=6).split("[[")[0] in shown.text
    tables = {
        "ends": ("arm", "mean", "std", "distinct", "std_between", "share"),
        "p": ("arm", "d", "chance", "p"),
    }
    for topic, keys in tables.items():
        heads = [_plain(catalogue("en")[f"report.{topic}.{key}"]) for key in keys]
        assert shown.heads(f"{topic.removesuffix('s')}-table") == heads
    assert shown.heads("live")[1:] == step_table(harmless, "en").head
    live = shown.rows("live")
    assert live[1][3] == number(float(harmless.dataset["std_between"].sel(arm="b", t=0)))


def test_few_samples_are_warned_of(harmless, shown, words):
    """Kills: a warning of many samples instead of few."""
    few = catalogue("en")["report.ends.few"]
    rest = few.partition("{n}")[2]
    assert few.replace("{n}", "8") in shown.text and rest not in page.render(_many(harmless, 32))


def test_lambda_is_read_of_a_linear_denoiser_only(monkeypatch):
    """λ = 0.5 beside both ends is read as 0.5. Kills: λ̂ of a mixture, or without both ends."""
    monkeypatch.setattr(page.figures, "available", lambda run: ["dial"])
    schedule = dv.NoiseSchedule.linear(60, 1e-3, 0.2)
    arms = [
        dv.Arm("one", dv.ddpm()),
        dv.Arm("zero", dv.ddpm(), 0.0),
        dv.Arm("half", dv.ddpm(), 0.5),
    ]
    law = dv.GaussianDenoiser(schedule, 2.0, 0.5)
    run = dv.record(law, schedule, arms=arms, n=3000, progress=False)
    found = Page(page.render(run))
    (row,) = found.rows("reading-table")
    given = catalogue("en")["report.dial.given"]
    assert found.heads("reading-table")[1:] == [given, "t = 54", "t = 36", "t = 12"]
    assert text("report.page.gaussian", "en") in found.text
    assert row[:2] == ["half", "0.5"]
    assert [float(value) for value in row[2:]] == pytest.approx([0.5] * 3, abs=0.04)
    mixture = dv.MixtureDenoiser(schedule, [-1.0, 1.5], [0.2, 0.3], [0.7, 0.3])
    run = dv.record(mixture, schedule, arms=arms, n=50, progress=False)
    found = page.render(run)
    assert "reading-table" not in found and text("report.page.mixture", "en") in found


def test_readings_stand_under_their_times(harmless, monkeypatch):
    """λ̂ is the same at all times, so here it is given. Kills: readings in another order."""
    monkeypatch.setattr(page.figures, "available", lambda run: ["dial"])
    monkeypatch.setattr(page, "noise_readings", lambda run: {"b": run.dataset["t"].values / 100})
    (row,) = Page(page.render(harmless)).rows("reading-table")
    assert row == ["b", "0", "0.27", "0.18", "0.060"]


def test_several_runs_are_named(words):
    """Kills: a report that does not say which run it is about, or shows one of two."""
    schedule = dv.NoiseSchedule.linear(30, 1e-3, 0.3)
    laws = [dv.GaussianDenoiser(schedule, 2.0, 0.5)] * 2
    runs = {
        name: dv.record(law, schedule, n=20, seed=seed, progress=False)
        for (seed, name), law in zip(enumerate(("mine", "<yours>")), laws, strict=True)
    }
    found = page.render(runs)
    assert text("report.page.lead_runs", "en", runs="mine and &lt;yours&gt;") in found
    assert text("report.page.lead_same", "en") not in found  # their seeds differ
    assert len(Page(found).rows("end-table")) == 7
    assert found.count("&lt;yours&gt;</h3>") == 1
    alone = page.render({"mine": runs["mine"]})
    assert text("report.page.lead_run", "en", runs="mine") in alone
    assert text("report.page.lead_same", "en") in alone
    assert len(Page(alone).rows("end-table")) == 4


def test_an_arm_is_called_by_what_it_does(words):
    """Kills: noise claimed of a rule that draws none, λ left out, one step for all of T."""
    schedule = dv.NoiseSchedule.linear(30, 1e-3, 0.3)
    arms = {
        "ddpm": "DDPM: its steps add fresh noise z",
        "ddpm/posterior*0.5": "DDPM (√β̃ₜ): its steps add 0.5 times their noise z",
        "z=0": "DDPM with z = 0: its noise is left out",
        "ddim": "DDIM: adds no noise, and its steps are made for that",
        "ddim(eta=0.5)": "ddim(eta=0.5): its steps add fresh noise z",
    }
    law = dv.GaussianDenoiser(schedule, 2.0, 0.5)
    given = [dv.Arm.parse(name) for name in arms]
    run = dv.record(law, schedule, arms=given, n=4, steps=10, progress=False)
    found = page.render(run)
    said = re.findall(r'<span class="rule"><span class="in-en" lang="en">(.*?)</span>', found)
    assert said == list(arms.values())
    assert text("report.spec.steps_of", "en", steps=10, T=30) in found


def test_a_network_is_called_by_what_it_draws(harmless, monkeypatch):
    """Kills: a class name on the first screen; p given out as a verdict on a network."""
    monkeypatch.setattr(page.figures, "available", lambda run: ["ks"])
    spec = json.loads(harmless.spec.to_json()) | {"denoiser": "ContextUnet(n_feat=64)"}
    found = page.render(Run(harmless.dataset.assign_attrs(spec=json.dumps(spec))))
    for language in LANGUAGES:
        assert text("report.page.sprites", language) in found
        exact, network = (catalogue(language)[f"report.p.{kind}"] for kind in ("exact", "network"))
        assert exact.split("{")[0] not in found and network.split("{")[0] in found
    first = found[: found.index('id="ends"')]
    assert "ContextUnet" not in first and "ContextUnet" in found


# ---------------------------------------------------------------- safe, whole and small


def test_the_page_makes_no_request(shown):
    """Kills: a CDN, a remote font or image, a policy that lets anything out."""
    for tag, name, value in shown.attributes:
        if name in ("src", "href", "action", "srcset", "poster", "data"):
            assert value.startswith("#"), (tag, name, value)
    policy = next(v for _, n, v in shown.attributes if n == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'")
    script = policy.split("script-src")[1].split(";")[0]
    assert "unsafe" not in script and "http" not in policy and "*" not in policy
    style = shown.text[shown.text.index("<style>") : shown.text.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_script_json_cannot_end_its_script():
    """Kills: json.dumps used bare."""
    text = script_json({"a": "</script>\u2028<!--&"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script>\u2028<!--&"}


def test_terms_are_explained_where_they_stand(shown):
    """Kills: a term without its meaning, a link into nothing, brackets left on the page."""
    links = {v for t, n, v in shown.attributes if n == "href" and v.startswith("#term-")}
    ids = {f"#{v}" for _, n, v in shown.attributes if n == "id"}
    assert links and links <= ids
    meanings = [v for _, n, v in shown.attributes if n == "data-meaning"]
    assert all(len(meaning) > 10 for meaning in meanings)
    assert "[[" not in re.sub(r"<script.*?</script>", "", shown.text, flags=re.S)
    assert 'href="#term-residual"' in both("ks.caption")
    assert ">std between samples</a>" in both("ends.lead")  # another form of the word


def test_terms_lead_to_their_lesson(harmless, words, shown):
    """Where the lessons are is told. Kills: a link to another lesson or language, one that no
    term has, a link into nothing, an address that is a program."""
    terms = {key.split(".")[2] for key in catalogue("en") if key.startswith("report.terms.")}
    found = page.render(harmless, lessons="https://x.org/<a>/")
    for term in terms:
        row = re.search(rf'<div id="term-{term}">.*?</div>', found, re.S)[0]
        for language, words_ in (("en", "Lesson {}"), ("zh", "第 {} 课")):
            pattern = (
                rf'<a href="https://x.org/&lt;a&gt;/{language}/lessons/(\d)-(\w+).html">(.*?)<'
            )
            number_, name, said = re.search(pattern, row).groups()
            assert said == words_.format(number_)
            folder = "docs/lessons" if language == "en" else "docs/zh/lessons"
            lesson = Path(folder, f"{number_}-{name}.md").read_text("utf-8").lower()
            key = {"p_value": "p-value"}.get(term)
            assert language == "zh" or (key or term.split("_")[0]) in lesson, term
    assert "Lesson 4" in shown.text and "lessons/" not in shown.text
    with pytest.raises(dv.InputError, match="lessons is 'javascript:x'"):
        page.render(harmless, lessons="javascript:x")


def test_forms_of_a_figure_restore_it():
    """Kills: a text that differs and is not shipped; shipping the data twice."""
    schedule = dv.NoiseSchedule.linear(20)
    run = dv.record(dv.GaussianDenoiser(schedule, 2.0, 0.5), schedule, n=64, progress=False)
    forms = {language: dv.plot(run, "ks", language=language) for language in LANGUAGES}
    shipped = figure_json(forms)
    for language in ("zh", "en", "zh"):
        for path, value in shipped["texts"][language]:
            *parents, last = path
            node = shipped["figure"]
            for key in parents:
                node = node[key]
            node[last] = value
        wanted = json.loads(forms[language].to_json())
        wanted["layout"]["paper_bgcolor"] = "rgba(0,0,0,0)"
        assert shipped["figure"] == wanted
    assert shipped["texts"]["zh"] and not any("bdata" in p for p, _ in shipped["texts"]["zh"])


def test_language_is_the_one_shown_first(harmless, words, tmp_path):
    """Kills: the argument ignored, a text in one language only."""
    found = Page(page.render(harmless, "zh"))
    assert ("html", "lang", "zh-Hans") in found.attributes
    shown = [v for _, n, v in found.attributes if n == "class" and v.startswith("in-")]
    assert shown.count("in-en") == shown.count("in-zh") > 50
    with pytest.raises(dv.InputError, match=r"'fr'.*en, zh"):
        write_report(harmless, tmp_path / "r.html", language="fr")


@pytest.mark.parametrize("size", [16, 64, 512])
def test_images_keep_to_the_budget(harmless, size):
    """Of noise, which cannot be compressed. Kills: a budget that holds for sprites only; of fewer
    frames every one under the time of another."""
    shape = (3, 60 if size < 512 else 2, 4, 3, size, size)
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    dims = ("arm", "frame", "frame_sample", "c", "h", "w")
    dataset = xr.Dataset({"frames": (dims, x), "frame_t": (("frame",), np.arange(shape[1])[::-1])})
    spec = json.loads(harmless.spec.to_json()) | {"sample_shape": [3, size, size]}
    found = frames(Run(dataset.assign_attrs(spec=json.dumps(spec))))
    assert len(found["data"]) <= BUDGET and found["times"][-1] == 0 and found["samples"] >= 1
    sent = np.frombuffer(gzip.decompress(base64.b64decode(found["data"])), np.uint8)
    sent = sent.reshape(3, len(found["times"]), found["samples"], *found["shape"])
    coarse = -(-size // found["shape"][2])
    for i, t in enumerate(found["times"]):
        stored = x[:, shape[1] - 1 - t, : found["samples"], :, ::coarse, ::coarse]
        assert np.abs(sent[:, i].astype(int) - stored).max() <= 4


@pytest.mark.parametrize(
    "shape, steps, n", [((), 1, 1), ((), 1, 8), ((5,), 3, 2), ((1, 8, 8), 2, 2), ((4, 6, 6), 2, 2)]
)
def test_any_run_has_a_page(shape, steps, n):
    """One step, one sample, vectors, grey images, latents. Kills: a division, an empty maximum."""
    schedule = dv.NoiseSchedule.linear(steps, 0.1, 0.5)
    denoiser = dv.GaussianDenoiser(schedule, np.full(shape, 2.0), np.full(shape, 0.5))
    arms = [dv.Arm("only", dv.ddpm())]
    run = dv.record(denoiser, schedule, arms=arms, n=n, progress=False)
    found = Page(page.render(run))
    assert ("canvas" in found.elements) == (shape == (1, 8, 8))
    assert found.data("view")["arms"] == ["only"]
    assert json.dumps(report_numbers(run), allow_nan=False)


def test_an_old_report_survives_a_failed_one(harmless, words, tmp_path, monkeypatch):
    """Kills: writing in place."""
    path = tmp_path / "r.html"
    path.write_text("old")

    def fail(*_args, **_values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(dv.InputError, match="No space left"):
        write_report(harmless, path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["r.html"]
