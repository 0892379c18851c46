"""The live plane's Python side: laws, schedule, states, numbers; the browser is held to them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kstest, norm

import diffviz as dv
from diffviz.diffusion.rules import ddpm
from diffviz.files.catalogue import LANGUAGES, catalogue
from diffviz.play import plane
from diffviz.play.widget import law_of, play_options
from tests import play_twin as twin

LAWS = plane.laws()
POINT = plane.Law(((0.7, -0.4),), (0.0,), (1.0,))


def noise(n=1000, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2))


def drawn(law, bar, n, seed=0):
    """n particles of q(x_t)."""
    rng = np.random.default_rng(seed)
    k = rng.choice(len(law.weights), n, p=law.weights)
    x = np.array(law.means)[k] + np.array(law.stds)[k, None] * rng.standard_normal((n, 2))
    return np.sqrt(bar) * x + np.sqrt(1 - bar) * rng.standard_normal((n, 2))


def right_std(law, bar):
    means, weights = np.array(law.means), np.array(law.weights)
    variance = weights @ (means**2 + np.square(law.stds)[:, None]) - (weights @ means) ** 2
    return np.sqrt(bar * variance.mean() + 1 - bar)


def test_schedule_is_the_namesake_at_500_and_as_strong_at_any_length():
    """Kills: β kept as it is for T = 10, which leaves x_T 90 % signal; ᾱ_0 not 1."""
    for kind in ("course", "linear"):
        named = getattr(dv.NoiseSchedule, kind)(500)
        assert np.allclose(plane.schedule(kind, 500).alpha_bars, named.alpha_bars, rtol=1e-12)
        for T in (10, 100, 1000):
            made = plane.schedule(kind, T)
            assert made.alpha_bars[0] == 1 and made.T == T
            assert 0.003 < made.alpha_bars[-1] < 0.0095
    assert plane.schedule("cosine", 30) == dv.NoiseSchedule.cosine(30)
    with pytest.raises(dv.InputError, match="sigmoid"):
        plane.schedule("sigmoid", 10)


def test_own_arm_is_ddpm_with_its_pull_scaled():
    """Kills: c on x instead of ε̂, or on the noise."""
    schedule = plane.schedule("course", 50)
    a, b, std = ddpm().coefficients(schedule, 20, 19)
    assert twin.Pulled(0.25).coefficients(schedule, 20, 19) == (a, 0.25 * b, std)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("t", [0, 60, 300])
def test_numbers_of_the_right_law_are_the_references(name, t):
    """Kills: shares by nearest mode, D of one axis, a std over both axes pooled."""
    law, bar = LAWS[name], plane.schedule("course", 500).alpha_bars[t]
    n = 20_000
    found = twin.numbers(law, bar, drawn(law, bar, n))
    assert found.std == pytest.approx(right_std(law, bar), rel=0.02)
    assert found.distance == pytest.approx(right_std(law, bar), rel=0.02)
    assert found.width == pytest.approx(1, abs=0.02)
    assert found.ks < 2.2 / np.sqrt(n)
    assert np.abs(found.shares - law.weights).max() < 4 * np.sqrt(0.25 / n)


def test_numbers_of_a_few_points_are_exact():
    """Against numpy. Kills: n for n − 1, a distance from the points' own mean."""
    law, x = LAWS["two"], np.array([[0.0, 1.0], [2.0, -1.0], [4.0, 3.0]])
    found = twin.numbers(law, 0.25, x)
    assert found.std == pytest.approx(np.sqrt(x.var(axis=0, ddof=1).mean()))
    center = 0.5 * np.array(law.weights) @ np.array(law.means)
    assert found.distance == pytest.approx(np.sqrt(((x - center) ** 2).mean()))


def test_distance_is_that_of_kolmogorov_and_smirnov():
    """Kills: ranks off by one, the mean of both axes instead of the larger."""
    law, bar, x = LAWS["two"], 0.6, noise(300)
    scale = np.sqrt(bar * np.square(law.stds) + 1 - bar)

    def cdf(axis):
        center = np.sqrt(bar) * np.array(law.means)[:, axis]
        return lambda v: (
            norm.cdf((np.asarray(v)[:, None] - center) / scale) @ np.array(law.weights)
        )

    expected = max(kstest(x[:, axis], cdf(axis)).statistic for axis in (0, 1))
    assert twin.numbers(law, bar, x).ks == pytest.approx(expected, abs=1e-12)


def test_held_level_is_the_noise_left_around_a_point():
    """Kills: the told level in place of the held one; noise of the last step counted."""
    schedule, x = plane.schedule("course", 100), noise(4000)
    ways = twin.arms(0.5, 0.8)
    start = np.sqrt(schedule.alpha_bars[-1]) * np.array(POINT.means)
    start = start + np.sqrt(1 - schedule.alpha_bars[-1]) * x
    states = twin.states(POINT, schedule, start, 3, ways)
    for arm, path in zip(ways, states.x, strict=True):
        levels = twin.held(arm, schedule)
        for k in (0, 30, 80):
            center = np.sqrt(schedule.alpha_bars[100 - k]) * np.array(POINT.means)
            found = np.sqrt(np.mean((path[k] - center) ** 2))
            assert found == pytest.approx(levels[k], rel=0.04), (arm.name, k)


@pytest.mark.parametrize("name", plane.PRESETS)
def test_presets_show_what_they_say(name):
    """Kills: a preset whose sampler in balance fails, or whose z = 0 does not."""
    preset = plane.PRESETS[name]
    law, schedule = LAWS[preset.law], plane.schedule(preset.schedule, preset.T)
    ways = {arm.name: arm for arm in twin.arms(preset.scale, preset.pull)}
    chosen = [ways[arm] for arm in preset.arms]
    states = twin.states(law, schedule, noise(), 1, chosen)
    for arm, path in zip(chosen, states.x, strict=True):
        found = twin.numbers(law, 1.0, path[-1])
        lost = np.abs(found.shares - law.weights).sum() / 2
        if arm.name == "z0":
            assert found.std < 0.8 * right_std(law, 1.0) or lost > 0.25
        else:
            assert found.std == pytest.approx(right_std(law, 1.0), rel=0.12)
            assert lost < 0.12


def test_sprites_plane_has_the_moments_of_the_sprites():
    """Kills: components of other sprites, or not divided by their std."""
    images, _ = dv.make_sprites(2000)
    flat = images.reshape(len(images), -1) / 127.5 - 1
    centered = flat - flat.mean(axis=0)
    variances, axes = np.linalg.eigh(centered.T @ centered / len(images))
    axes, variances = axes.T[:-3:-1], variances[:-3:-1]
    signs = np.sign([axis[np.abs(axis).argmax()] for axis in axes])
    points = centered @ axes.T * signs / np.sqrt(variances)
    law = LAWS["sprites"]
    found = twin.numbers(law, 1.0, points)
    assert right_std(law, 1.0) == pytest.approx(1, abs=0.01)
    assert found.ks < 0.05 and found.width == pytest.approx(1, abs=0.05)
    assert np.abs(found.shares - law.weights).sum() / 2 < 0.15


def test_options_are_json_and_hold_every_text():
    """Kills: an array left in the options, a text of one language missing."""
    made = json.loads(plane.as_json(plane.options("works", "zh", settings={"seed": 7})))
    state = made["state"]
    assert state["seed"] == 7 and state["language"] == "zh" and state["preset"] == "works"
    assert plane.options("works", settings={"T": 9})["state"]["preset"] == ""
    for language in LANGUAGES:
        keys = {key for key in catalogue(language) if key.startswith("play.")}
        held = {f"play.{t}.{n}" for t, names in made["texts"][language].items() for n in names}
        assert held == keys
    with pytest.raises(dv.InputError, match="draw"):
        plane.options("none")
    with pytest.raises(dv.InputError, match="fr"):
        plane.options(language="fr")


def test_page_piece_cannot_be_closed_from_inside():
    """Kills: a </script> in the module or the options."""
    piece = plane.plane_html({"seed": "</script>"}, "here")
    assert piece.count("</script>") == 2 and 'id="here"' in piece
    assert len(plane.module().encode()) <= 40_000  # one short module, comments included


def test_play_can_be_called_whatever_was_imported_first():
    """Kills: the package play in the place of the function, or the function in the package's."""
    code = (
        "import diffviz as dv{}; assert callable(dv.play) and 'play' in dv.__all__;"
        "import diffviz.play.plane as p; assert callable(dv.play) and p.options()"
    )
    for first in ("", ", diffviz.play", ", diffviz.play.plane"):
        subprocess.run([sys.executable, "-c", code.format(first)], check=True, timeout=60)


def test_widget_is_given_the_denoiser_and_the_schedule():
    """Kills: the schedule's name sent instead of its numbers; weights not carried over."""
    pytest.importorskip("anywidget")
    schedule = dv.NoiseSchedule.cosine(40)
    given = dv.play(dv.MixtureDenoiser(schedule, [[0, 0], [2, 1]], [0.1, 0.2], [1, 3])).options
    assert given["state"]["law"] == "given" and given["state"]["T"] == 40
    assert given["laws"]["given"]["weights"] == (0.25, 0.75)
    assert given["given"]["bar"] == schedule.alpha_bars.tolist()
    assert play_options(None, None)["state"]["law"] == "two"


def test_widget_names_what_it_cannot_show(monkeypatch):
    """Kills: a traceback from inside for a denoiser of pictures, or without anywidget."""
    schedule = dv.NoiseSchedule.course(20)
    for denoiser, said in (
        (dv.GaussianDenoiser(schedule, 0.0, 1.0), r"GaussianDenoiser of samples \(\)"),
        (dv.GaussianDenoiser(schedule, [0.0, 1.0], [1.0, 2.0]), "both coordinates"),
        (dv.DatasetDenoiser(schedule, noise(300)), "300 modes"),
        (7, "7"),
    ):
        with pytest.raises(dv.InputError, match=said):
            law_of(denoiser)
    assert law_of(dv.DatasetDenoiser(schedule, noise(9))).stds == (0.0,) * 9
    assert law_of(dv.GaussianDenoiser(schedule, [0.0, 1.0], 0.5)).stds == (0.5,)
    with pytest.raises(dv.InputError, match="1000"):
        play_options(None, dv.NoiseSchedule.linear(1001))
    assert play_options(None, dv.NoiseSchedule.linear(1000))["state"]["T"] == 1000
    with pytest.raises(dv.InputError, match="cannot be sampled"):
        play_options(None, dv.NoiseSchedule.linear(20).with_zero_terminal_snr())
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(dv.InputError, match="anywidget"):
        dv.play()
