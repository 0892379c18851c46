"""What is said of a run: the sentences, the table of steps and the key numbers follow the data."""

import numpy as np
import pytest

import diffviz as dv
from diffviz.diagnosis.findings import diagnose
from diffviz.diagnosis.numbers import key_numbers, mark_times, noise_readings
from diffviz.diagnosis.sentences import CLAUSES, listed, number, step_sentences, step_table, story
from diffviz.diagnosis.verdicts import on_the_way, verdicts
from diffviz.files.catalogue import LANGUAGES, catalogue, text
from tests.made import RIGHT, TIMES, ending, made

FALL = np.linspace(0.9, 0.1, len(TIMES))


def says(run, key, arm="b", language="en"):
    """Whether the sentence about the arm holds the text ``story.KEY``."""
    told = story(run, language)
    found = told.noise[arm] if key.startswith("cause") else told.arms[arm]
    return text(f"story.{key}", language, n=run.spec.n) in found


def test_a_right_run_is_called_right_and_nothing_else():
    """Kills: a fault named without a cause, a sentence left out."""
    told = story(made(["a", "b"]), "en")
    assert told.headline == text("story.headline.like", "en")
    assert set(told.arms.values()) == {text("story.end.like", "en")}
    assert set(told.noise.values()) == {text("story.cause.kept", "en")}
    for picture in CLAUSES:
        words = {"less", "more", "wrong", "too", "not"}
        for sentence in step_sentences(made(["a", "b"]), picture, "en")[:-6]:
            assert not words & set(sentence.replace(",", "").split()), picture


# What is changed in arm b, the sentence that must say so, and one that must not be there.
CHANGED = {
    "almost the same": ({"std_between": ("b", ending(0.09))}, "end.same", "end.less"),
    "less varied": ({"std_between": ("b", ending(0.3))}, "end.less", "end.same"),
    "more varied": ({"std_between": ("b", ending(0.7))}, "end.more", "end.like"),
    "mean too high": ({"mean_x": ("b", ending(0.2, 0 * RIGHT))}, "end.far_above", "end.less"),
    "mean too low": ({"mean_x": ("b", ending(-0.2, 0 * RIGHT))}, "end.far_below", "end.far_above"),
    "close to the mean": (
        {"distance_to_mean": ("b", np.where(TIMES == 50, 0.1, RIGHT))},
        "way.left",
        "way.stays",
    ),
    "at the mean for good": ({"distance_to_mean": ("b", FALL)}, "way.stays", "way.left"),
    "too little noise": ({"residual": ("b", FALL)}, "cause.less", "cause.kept"),
    "too much noise": ({"residual": ("b", 1.3 - FALL / 5)}, "cause.more", "cause.kept"),
    "more, then less": ({"residual": ("b", 1.5 - FALL[::-1])}, "cause.other", "cause.less"),
    "repeats": ({"distinct_nearest": ("b", 50)}, "end.repeated", "end.less"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_change_in_one_arm_changes_its_sentence_only(name):
    """Kills: thresholds swapped or dropped, arms mixed up, "less" said where it was more first."""
    change, key, other = CHANGED[name]
    run = made(["a", "b"], **change)
    for language in LANGUAGES:
        assert says(run, key, "b", language) and not says(run, other, "b", language)
        assert story(run, language).arms["a"] == text("story.end.like", language)
        assert story(run, language).noise["a"] == text("story.cause.kept", language)


def test_the_headline_names_the_arms_of_the_worst_end():
    """Kills: a headline about all arms, or about the other ones."""
    ends = {"same": ending(0.05), "less": ending(0.3), "more": ending(0.8)}
    for key, values in ends.items():
        told = story(made(["a", "b"], std_between=("b", values)), "en")
        assert told.headline == text(f"story.headline.{key}", "en", arms="b")
    both = made(["a", "b", "c"], std_between=(["a", "c"], ending(0.05)))
    assert story(both, "en").headline == text("story.headline.same", "en", arms="a and c")
    near = made(["a", "b"], distance_to_mean=("a", FALL))
    assert story(near, "en").headline == text("story.headline.pulled", "en", arms="a")


def test_one_set_of_thresholds():
    """The end of a story, the last step's sentence and the findings agree, whatever the spread.

    Kills: a threshold of one of them alone; a value compared with the reference, not its band.
    """
    for part in np.linspace(0.02, 2, 34):
        run = made(["a", "b"], std_between=("b", RIGHT * part), distance_to_mean=("b", FALL))
        word = str(verdicts(run).spread[1, -1])
        assert says(run, f"end.{word}")
        said = step_sentences(run, "stds", "en")[-1]
        arms = "a and b" if word == "like" else "b"
        assert text(f"story.spread.{word}", "en", arms=arms) in said
        found = {f.id for f in diagnose(run) if f.arm == "b"}
        assert "collapse-to-mean" not in found or word in ("same", "less")
        assert word != "same" or "collapse-to-mean" in found


@pytest.mark.parametrize("part", [0.2, 0.7, 1.4])
def test_what_a_right_sampler_may_do_is_no_fault(part):
    """Inside a wide band nothing is called a fault. Kills: the band forgotten."""
    run = made(
        ["b"],
        width=0.9,
        std_between=("b", RIGHT * part),
        distance_to_mean=("b", RIGHT * part),
        residual=("b", part),
        mean_x=("b", 0.5),
        ks_marginal=("b", 0.5),
        residual_d=("b", 0.5),
    )
    told = story(run, "en")
    assert told.arms["b"] == text("story.end.like", "en")
    assert told.noise["b"] == text("story.cause.kept", "en")
    seen = verdicts(run)
    words = [seen.spread, seen.distance, seen.marginal, seen.mean, seen.joint]
    assert [str(w[0, 50]) for w in words] == ["like", "as_far", "close", "right", "kept"]


# Parts of what is right, or distances from it, and the word for each; bands are 5 % wide.
WORDS = {
    "std_between": (
        "spread",
        {0.2: "same", 0.5: "less", 0.78: "like", 1.29: "like", 1.35: "more"},
    ),
    "distance_to_mean": (
        "distance",
        {0.5: "pulled", 0.7: "nearer", 0.87: "as_far", 1.2: "further"},
    ),
}
VALUES = {
    "ks_marginal": ("marginal", {0.14: "close", 0.18: "rough", 0.22: "far"}),
    "mean_x": ("mean", {0.02: "right", 0.12: "above", 0.3: "far_above", -0.12: "below"}),
    "residual": ("noise", {0.92: "kept", 0.88: "less", 1.08: "kept", 1.12: "more"}),
    "residual_d": ("joint", {0.09: "kept", 0.12: "left"}),
}


def test_each_word_begins_at_its_threshold():
    """At t = 50, where 0.75 is right. Kills: a threshold of the next word, or of another curve."""
    tables = [(name, *table, RIGHT) for name, table in WORDS.items()]
    tables += [(name, *table, 1.0) for name, table in VALUES.items()]
    for name, kind, words, scale in tables:
        for value, word in words.items():
            run = made(["b"], **{name: ("b", value * scale)})
            assert getattr(verdicts(run), kind)[0, 50] == word, (name, value)
            warned = "residual-off" in {finding.id for finding in diagnose(run)}
            assert warned == (kind == "noise" and word != "kept"), (name, value)


def test_near_the_end_the_residual_says_nothing():
    """Below T/20. Kills: the end taken for a fault, or the way for the end."""
    seen = verdicts(made(["b"], residual=("b", 0.3), residual_d=("b", 0.9)))
    for codes, off in ((seen.noise, "less"), (seen.joint, "left")):
        assert codes[0].tolist() == [off] * 96 + ["end"] * 5


def test_numbers_and_names_are_said_as_people_write_them():
    """Kills: a hyphen for a minus, digits that mean nothing, a list without its "and"."""
    said = [number(v) for v in (-0.5, 0.0123, -0.0123, 0.1, 12.345, 0.0, np.nan, np.inf)]
    assert said == ["−0.50", "0.012", "−0.012", "0.10", "12.35", "0.00", "–", "–"]
    assert listed(["a", "b", "c"], "en") == "a, b and c"
    assert listed(["a", "b", "c"], "zh") == "a、b 和 c"
    assert [listed(names, "en") for names in ([], ["a"], ["a", "b"])] == ["", "a", "a and b"]


def test_the_way_is_from_nine_tenths_down_to_two():
    """Kills: a window that loses one of its ends, or judges what lies beyond."""
    run = made(["b"], residual=("b", np.where((TIMES > 90) | (TIMES < 20), 0.3, 1.0)))
    assert TIMES[on_the_way(run)].tolist() == list(range(90, 19, -1))
    assert mark_times(run) == [90, 60, 20]
    assert says(run, "cause.kept")


@pytest.mark.parametrize(
    ("rule", "scale", "key"),
    [
        ("ddim(eta=0)", 1.0, "silent"),
        ("ddim(eta=0)", 0.0, "silent"),
        ("ddim(eta=0.5)", 1.0, "part"),
        ("ddim(eta=0.5)", 0.5, "less"),
        ("ddim(eta=1)", 1.0, "less"),
        ("ddpm/beta", 1.0, "less"),
        ("ddpm/beta", 0.0, "less"),
    ],
)
def test_ddim_is_not_accused_of_its_other_joint_law(rule, scale, key):
    """Kills: DDIM's residual called a fault; z = 0 excused as DDIM is."""
    silent = ("b",) if rule == "ddim(eta=0)" else ()
    run = made(["a", "b"], rules={"b": (rule, scale)}, silent=silent, residual=("b", FALL))
    assert says(run, f"cause.{key}")
    warned = [f.id for f in diagnose(run) if f.arm == "b"]
    assert ("residual-off" in warned) == (scale == 1 and key == "less")


def test_a_lost_class_is_credited_to_who_has_most_of_it():
    """Kills: another arm, or another class; any zero taken for a loss; a class that the other
    arm has lost as well."""
    run = made(["a", "b", "c"], class_count=("b", [4096, 0]))
    run.dataset["class_count"].loc[{"arm": "c"}] = [1, 4095]
    said = text("story.end.lost", "en", names="other", other="c")
    assert said in story(run, "en").arms["b"]
    # Of several classes those are named that this other arm does reach.
    for a, c, names in (([96, 4000], [4000, 96], "one and other"), ([0, 4096], [4096, 0], "one")):
        run.dataset["class_count"][:] = [a, [0, 0], c]
        said = text("story.end.lost", "en", names=names, other="c")
        assert said in story(run, "en").arms["b"]
    few = made(["a", "b"], n=8, class_count=("b", [8, 0]))  # a has 4 of it
    assert story(few, "en").arms["b"] == text("story.end.like", "en")


@pytest.mark.parametrize(("found", "expected", "said"), [(97, 100, 0), (2, 4, 0), (79, 100, 1)])
def test_repeats_are_said_when_chance_cannot(found, expected, said):
    """Kills: repetition claimed for chance."""
    run = made(["b"], distinct_nearest=("b", found), reference_distinct_nearest=expected)
    assert says(run, "end.repeated") == bool(said)


def test_what_is_not_known_is_not_judged():
    """Kills: NaN compared, one sample judged, a point called varied."""
    names = ("mean", "std", "std_between", "distance_to_mean", "ks_marginal")
    lost = {f"{name}_{end}": np.nan for name in names for end in ("low", "high")}
    lost |= {f"reference_{name}": np.nan for name in names[:4]}
    unknown = made(["b"], ks_marginal=("b", np.nan), distance_to_mean=("b", np.nan), **lost)
    assert says(unknown, "end.unknown")
    assert set(step_sentences(unknown, "map", "en")) == {""}
    assert says(made(["b"], n=1), "end.single")
    point = {"reference_std_between": 0.0, "std_between_low": 0.0, "std_between_high": 0.0}
    assert says(made(["b"], **point), "end.point")
    broken = made(["a", "b"])
    broken.dataset["mean"].loc[{"arm": "b", "quantity": "x", "t": slice(40, 0)}] = np.nan
    assert text("story.end.broken", "en", t=41) == story(broken, "en").arms["b"]


def test_each_step_has_the_words_of_that_step():
    """Kills: a sentence one step late, arms left out of a list, a clause for another picture."""
    between = np.where(TIMES > 60, RIGHT, 0.1 * RIGHT)
    run = made(["a", "b"], std_between=("b", between), ks_marginal=("a", 0.4))
    stds, ks = step_sentences(run, "stds", "en"), step_sentences(run, "ks", "en")
    like = text("story.spread.like", "en", arms="a and b")
    assert stds[39] == like  # t = 61
    assert text("story.spread.same", "en", arms="b") in stds[40]
    assert text("story.marginal.far", "en", arms="a") in ks[40]
    assert text("story.marginal.close", "en", arms="b") in ks[40]
    assert ks[-1].endswith(text("story.joint.end", "en"))
    assert len(stds) == len(TIMES) and set(step_sentences(run, "schedule", "en")) == {""}


def test_the_table_of_a_step_holds_its_numbers():
    """Kills: rows or columns swapped, the step counted from the other end."""
    run = made(["a", "b"], residual=("b", FALL), ks_marginal=("a", 0.4))
    table = step_table(run, "en")
    assert table.rows == ["a", "b", "data", "range of a right sampler"]
    at = table.cells[40]
    column = table.head.index("std of the residual")
    assert [row[column] for row in at] == ["1.00", f"{FALL[40]:.2f}", "–", "0.95 … 1.05"]
    column = table.head.index("D of xₜ from q(xₜ)")
    assert [row[column] for row in at] == ["0.40", "0.010", "–", "0.00 … 0.050"]
    column = table.head.index("std between samples")
    assert [row[column] for row in at][:3] == [f"{RIGHT[40]:.2f}"] * 3
    assert len(table.cells) == len(TIMES)


def test_the_dial_is_read_where_it_can_be():
    """r_λ² = r_0² + λ²(r_1² − r_0²) gives λ back. Kills: roots for squares, a network read."""
    zero, one = FALL, 1 + 0.1 * FALL
    rules = {"zero": ("ddpm/beta", 0.0), "half": ("ddpm/beta", 0.5), "one": ("ddpm/beta", 1.0)}
    rules["other"] = ("ddpm/posterior", 0.5)
    half = np.sqrt(zero**2 + 0.25 * (one**2 - zero**2))
    for denoiser, arms in (("gaussian(2, 0.5)", ["half"]), ("ContextUnet(n_feat=64)", [])):
        run = made(list(rules), rules=rules, denoiser=denoiser, residual=("half", half))
        run.dataset["std"].loc[{"arm": "zero", "quantity": "residual"}] = zero
        run.dataset["std"].loc[{"arm": "one", "quantity": "residual"}] = one
        readings = noise_readings(run)
        assert list(readings) == arms
        for values in readings.values():
            np.testing.assert_allclose(values, 0.5, rtol=1e-12)
        assert says(run, "cause.dial" if arms else "cause.less", "half")


def test_key_numbers_are_the_run_at_named_times():
    """Kills: the first step for the last, a mark off by one, a p without its number of looks."""
    run = made(["a", "b"], residual=("b", FALL), std_between=("b", ending(0.3)))
    run.dataset["ks_marginal"].loc[{"arm": "b", "t": 70}] = 0.4
    run.dataset["ks_marginal"].loc[{"arm": "b", "t": 95}] = 0.9  # before the way begins
    run.dataset["ks_normal"].loc[{"arm": "b", "quantity": "residual", "t": 30}] = 0.3
    run.dataset["ks_normal_p"].loc[{"arm": "b", "quantity": "residual", "t": 30}] = 1e-5
    a, b, data = key_numbers(run)
    assert (a.residual_std, b.residual_std) == ((1.0, 1.0, 1.0), tuple(FALL[[10, 40, 80]]))
    assert (b.marginal_d, b.marginal_t) == (0.4, 70)
    assert (b.residual_d, b.residual_p) == (0.3, pytest.approx(71e-5))
    assert (a.residual_p, data.std_between) == (1.0, 0.5)
    assert b.share == pytest.approx(0.6)
    assert (b.share_low, b.share_high) == pytest.approx((0.6 / 1.05, 0.6 / 0.95))


def test_words_are_there_in_every_language():
    """Kills: a verdict without its sentence, a field left open, a name taken for markup."""
    words = {
        "spread": ("point", "same", "less", "like", "more"),
        "distance": ("pulled", "nearer", "as_far", "further"),
        "marginal": ("close", "rough", "far", "clean"),
        "mean": ("right", "below", "above", "far_below", "far_above"),
        "pooled": ("hidden",),
        "noise": ("end", "kept", "free", "less", "more"),
        "joint": ("end", "kept", "free", "left"),
    }
    run = made(["<b>", "{x}"], std_between=("<b>", ending(0.05)))
    for language in LANGUAGES:
        for kind, keys in words.items():
            known = {k.split(".")[2] for k in catalogue(language) if f"story.{kind}." in k}
            assert known == set(keys), kind
        assert "<b>" in story(run, language).headline
        assert "{x}" in step_sentences(run, "map", language)[-1]


@pytest.mark.parametrize("n", [16, 200])
def test_right_samplers_of_exact_denoisers_are_called_right(n):
    """Kills: chance called a fault, DDIM accused, z = 0 let go."""
    schedule = dv.NoiseSchedule.linear(100, 5e-4, 0.1)
    rng = np.random.default_rng(3)
    images = rng.choice([-1.0, -0.4, 0.3, 1.0], (40, 3, 4, 4)).astype(np.float32)
    laws = (
        dv.GaussianDenoiser(schedule, 2.0, 0.5),
        dv.MixtureDenoiser(schedule, [-1.0, 1.5], [0.2, 0.3], [0.7, 0.3]),
        dv.DatasetDenoiser(schedule, images),
    )
    for law in laws:
        for seed in range(2):
            arms = [*dv.DEFAULT_ARMS, dv.Arm("posterior", dv.ddpm("posterior"))]
            arms.append(dv.Arm("half way", dv.ddim(0.5)))
            run = dv.record(law, schedule, arms=arms, n=n, seed=seed, progress=False)
            told = story(run, "en")
            right = {told.arms[arm.name] for arm in arms if arm.name != "z=0"}
            assert right == {text("story.end.like", "en")}
            assert told.noise["ddpm"] == text("story.cause.kept", "en")
            assert told.noise["z=0"] == text("story.cause.less", "en")
            found = [f.id for f in diagnose(run) if f.arm not in ("", "z=0")]
            assert found == [], (law.name, seed)
