"""Pictures: what is computed, by value; and how it is drawn, by structure. One real rendering."""

import html
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, ddim, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.figures import PICTURES, theme
from diffviz.figures.dial import dial_data, dial_figure
from diffviz.figures.distance import distance_data
from diffviz.figures.diversity import diversity_data, diversity_figure
from diffviz.figures.histogram import histogram_data, histogram_figure
from diffviz.figures.ks import ks_data, ks_figure
from diffviz.figures.mean import mean_data, mean_figure
from diffviz.figures.noise import noise_data
from diffviz.figures.schedule import schedule_data, schedule_figure
from diffviz.figures.staircase import staircase_data, staircase_figure
from diffviz.figures.stds import stds_data, stds_figure
from diffviz.figures.strips import animation, grid_image, strip_image, strips_data
from diffviz.figures.trajectories import trajectories_data, trajectories_figure
from diffviz.files.catalogue import LANGUAGES, catalogue
from diffviz.recording.record import record

T, N = 40, 64
STRANGE = "<b>half</b> & $x$"
ARMS = (*DEFAULT_ARMS, Arm(STRANGE, ddpm("posterior"), 0.5))
MEAN, STD = 2.0, 0.5
PIXELS = np.random.default_rng(1).uniform(-1, 1, (6, 3, 4, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def gaussian():
    """T ≤ 64, so every step has a snapshot and every number can be computed again from them."""
    schedule = NoiseSchedule.linear(T, 1e-3, 0.2)
    denoiser = GaussianDenoiser(schedule, MEAN, STD)
    return record(denoiser, schedule, arms=ARMS, n=N, seed=3, progress=False)


@pytest.fixture(scope="module")
def blocks():
    schedule = NoiseSchedule.linear(20, 1e-3, 0.3)
    return record(GaussianDenoiser(schedule, MEAN, STD), schedule, n=N, block=16, progress=False)


@pytest.fixture(scope="module")
def images():
    schedule = NoiseSchedule.linear(20, 1e-3, 0.3)
    labels = np.array([0, 0, 0, 1, 1, 2])
    denoiser = DatasetDenoiser(schedule, PIXELS, labels, ("a", "<i>b</i>", "c"), "six")
    return record(denoiser, schedule, n=10, seed=0, progress=False)


def trajectory(run):
    """x (A, N+1, samples) and ᾱ (N+1,) as recorded, to 1/8192."""
    x = run.dataset["snapshots"].values.astype(np.float64)
    return x.reshape(*x.shape[:2], -1), run.schedule.alpha_bars[run.dataset["t"].values]


def residual(run):
    x, bars = trajectory(run)
    bars = bars[:-1, None]
    return (x[:, :-1] - np.sqrt(bars) * x[:, -1:]) / np.sqrt(1 - bars)


# -------------------------------------------------------------------- computed values


def test_mean_and_stds_are_those_of_the_trajectories(gaussian):
    """Kills: another quantity selected, arms or time reversed, references swapped."""
    x, bars = trajectory(gaussian)
    mean, stds = mean_data(gaussian), stds_data(gaussian)
    np.testing.assert_allclose(mean.mean, x.mean(axis=-1), atol=2e-4)
    np.testing.assert_allclose(mean.reference, np.sqrt(bars) * MEAN, atol=1e-12)
    np.testing.assert_allclose(stds.pooled, x.std(axis=-1, ddof=1), atol=2e-4)
    np.testing.assert_allclose(stds.between, stds.pooled, atol=1e-12)
    right = np.sqrt(bars * STD**2 + 1 - bars)
    np.testing.assert_allclose(stds.reference_pooled, right, atol=1e-12)
    np.testing.assert_allclose(stds.reference_between, right, atol=1e-12)


def test_three_stds_of_images_are_told_apart(images):
    """Kills: between and within swapped, or one of them pooled."""
    x = images.dataset["snapshots"].values.astype(np.float64)
    flat = x.reshape(*x.shape[:3], -1)
    data = stds_data(images)
    expected = (
        flat.reshape(*flat.shape[:2], -1).std(axis=-1, ddof=1),
        flat.std(axis=2, ddof=1).mean(axis=-1),
        flat.std(axis=3, ddof=1).mean(axis=-1),
    )
    for drawn, right in zip((data.pooled, data.between, data.within), expected, strict=True):
        np.testing.assert_allclose(drawn, right, atol=3e-4)
    assert not np.allclose(data.between, data.within, atol=1e-2)


def test_references_of_images_are_those_of_their_own_statistic(images):
    """Kills: one reference drawn beside another statistic. q(x_t) has ᾱ·variance + 1 − ᾱ."""
    bars = images.schedule.alpha_bars[images.dataset["t"].values][:, None]
    flat = PIXELS.reshape(len(PIXELS), -1).astype(np.float64)

    def noised(variance):
        return np.sqrt(bars * variance + 1 - bars)

    data = stds_data(images)
    between = flat.var(axis=0)
    np.testing.assert_allclose(data.reference_pooled, noised(flat.var())[:, 0], atol=1e-6)
    np.testing.assert_allclose(data.reference_between, noised(between).mean(axis=1), atol=1e-6)
    within = noised(flat.var(axis=1, ddof=1).mean())[:, 0]
    np.testing.assert_allclose(data.reference_within, within, atol=1e-6)
    distance = noised(between.mean())[:, 0]
    np.testing.assert_allclose(distance_data(images).reference, distance, atol=1e-6)
    assert not np.allclose(distance, data.reference_pooled, atol=1e-2)


def test_distance_is_measured_to_the_scaled_mean(gaussian):
    """Kills: μ for √ᾱ_t·μ, and a mean that is subtracted from its own sample."""
    x, bars = trajectory(gaussian)
    data = distance_data(gaussian)
    expected = np.sqrt(((x - np.sqrt(bars)[:, None] * MEAN) ** 2).mean(axis=-1))
    np.testing.assert_allclose(data.distance, expected, atol=2e-4)
    np.testing.assert_allclose(data.reference, np.sqrt(bars * STD**2 + 1 - bars), atol=1e-12)


def test_three_ks_views_agree_with_scipy(gaussian):
    """Kills: two views swapped, x drawn for the residual, a band of another n, p not corrected."""
    x, bars = trajectory(gaussian)
    r, data = residual(gaussian), ks_data(gaussian)
    steps = range(0, T, 7)
    for a in range(len(ARMS)):
        for i in steps:
            right = stats.norm(np.sqrt(bars[i]) * MEAN, np.sqrt(bars[i] * STD**2 + 1 - bars[i]))
            assert data.naive[a, i] == pytest.approx(stats.kstest(x[a, i], "norm")[0], abs=1e-3)
            marginal = stats.kstest(x[a, i], right.cdf)[0]
            assert data.marginal[a, i] == pytest.approx(marginal, abs=2e-3)
            again = stats.kstest(r[a, i], "norm")
            assert data.residual[a, i] == pytest.approx(again.statistic, abs=3e-3)
            p = stats.kstwo.sf(data.residual[a, i], N)
            assert data.p[a, i] == pytest.approx(p, rel=1e-6, abs=1e-12)
            assert data.p_corrected[a, i] == pytest.approx(min(1, p * T), rel=1e-6, abs=1e-12)
    quantile = stats.kstwobign.ppf(0.95)
    np.testing.assert_allclose(data.band[:-1], quantile / np.sqrt(N), rtol=1e-3)
    assert np.isnan(data.band[-1])


def test_dial_reads_the_noise_that_was_injected(gaussian):
    """Kills: the std of x or ε̂ on the dial, and a setting for an arm that injects nothing."""
    data = dial_data(gaussian)
    right = residual(gaussian).std(axis=-1, ddof=1)
    np.testing.assert_allclose(data.std[:, :-4], right[:, :-3], atol=2e-3)
    np.testing.assert_array_equal(data.dials, [0.5, 1.0])
    schedule = NoiseSchedule.linear(8, 1e-2, 0.3)
    still = (Arm("still", ddpm(), 0.0), Arm("ode", ddim(), 3.0))
    quiet = record(GaussianDenoiser(schedule, 0.0, 1.0), schedule, arms=still, n=8, progress=False)
    np.testing.assert_array_equal(dial_data(quiet).dials, [1.0])


@pytest.mark.parametrize("quantity", ["x", "eps", "residual"])
def test_histogram_is_a_density_of_its_quantity(gaussian, quantity):
    """Kills: counts drawn, the width of a bin left out, another quantity or step."""
    data = histogram_data(gaussian, quantity)
    width = data.bins[1] - data.bins[0]
    counted = ~np.isnan(data.density[:, :, 0])
    np.testing.assert_allclose((data.density.sum(axis=-1) * width)[counted], 1, atol=1e-12)
    mean = gaussian.dataset["mean"].sel(quantity=quantity).values
    inside = counted & (data.density[..., 0] + data.density[..., -1] == 0)
    assert inside.sum() > T
    found = (data.density * data.bins).sum(axis=-1) * width
    np.testing.assert_allclose(found[inside], mean[inside], atol=width / 2)
    np.testing.assert_allclose(data.normal, stats.norm.pdf(data.bins), atol=1e-12)
    figure = histogram_figure(data, 11)
    drawn = next(trace for trace in figure.data if trace.legendgroup == "z=0")
    step = int(np.flatnonzero(data.t == 11)[0])
    np.testing.assert_array_equal(drawn.y, data.density[1, step])
    assert "t = 11" in figure.layout.annotations[0].text


@pytest.mark.parametrize(
    "schedule", [NoiseSchedule.linear(T), NoiseSchedule.cosine(60), NoiseSchedule.linear(3)]
)
def test_staircase_follows_from_the_update_rules(schedule):
    """Kills: σ_s for σ_s²/σ_t, a z = 0 that climbs back, σ of another step.

    The rules are applied to x = √ᾱ·(x_0 + n·e) of one data point, whose exact ε̂ is e·n/σ.
    """
    run = record(GaussianDenoiser(schedule, 1.0, 0.0), schedule, n=2, progress=False)
    data = staircase_data(run)
    assert len(data.lowered) == min(6, schedule.T - 1)

    def level(rule, n, t, s, noise):
        a, b, std = rule.coefficients(schedule, t, s)
        bars = schedule.alpha_bars
        e = a * np.sqrt(bars[t]) * n + b * n / schedule.sigma[t]
        return np.hypot(e, noise * std) / np.sqrt(bars[s])

    full = still = straight = data.told[0]
    assert data.still[0] == full
    for i, (t, s) in enumerate(zip(data.times[:-1], data.times[1:], strict=True)):
        lowered = level(ddpm("posterior"), full, t, s, 0.0)
        full = level(ddpm("posterior"), full, t, s, 1.0)
        still = level(ddpm(), still, t, s, 0.0)
        straight = level(ddim(), straight, t, s, 0.0)
        assert data.lowered[i] == pytest.approx(lowered, rel=1e-9)
        assert data.still[i + 1] == pytest.approx(still, rel=1e-9)
        assert data.told[i + 1] == pytest.approx(full, rel=1e-9)
        assert data.told[i + 1] == pytest.approx(straight, rel=1e-9)
        assert data.lowered[i] < data.told[i + 1]


def test_measured_noise_level_stands_beside_the_one_told(gaussian):
    """Kills: the level not multiplied by σ_t, the reference of another time, a 0 on a log axis."""
    data = staircase_data(gaussian)
    bars = gaussian.schedule.alpha_bars[data.t]
    told = np.sqrt((1 - bars) / bars)
    np.testing.assert_allclose(data.reference[:-1], told[:-1], rtol=1e-12)
    assert np.isnan(data.reference[-1])
    right = residual(gaussian).std(axis=-1, ddof=1) * told[:-1]
    np.testing.assert_allclose(data.level[:, :-4], right[:, :-3], rtol=5e-3)


@pytest.mark.parametrize("steps", [None, 7])
def test_noise_is_measured_against_the_variances_of_its_own_step(steps):
    """Kills: β_s for β_t, β of one step for a jump, √ left out, β and β̃ swapped."""
    schedule = NoiseSchedule.course(T, 1e-3, 0.2)
    run = record(
        GaussianDenoiser(schedule, 0.0, 1.0),
        schedule,
        arms=(Arm("beta", ddpm()), Arm("post", ddpm("posterior"), 0.5), Arm("ode", ddim())),
        n=4096,
        steps=steps,
        progress=False,
    )
    data = noise_data(run)
    then = run.dataset["t"].values[1:]
    for rule, drawn in ((ddpm(), data.beta), (ddpm("posterior"), data.posterior)):
        right = [rule.coefficients(schedule, t, s)[2] for t, s in zip(data.t, then, strict=True)]
        np.testing.assert_allclose(drawn[:-1], right[:-1], rtol=1e-12)
    if steps is None:
        np.testing.assert_allclose(data.beta, np.sqrt(schedule.betas[data.t]), rtol=1e-9)
    assert data.posterior[-1] == 0
    noisy = slice(None, -1)  # none in the last step; 5 standard errors of a std are 0.055
    np.testing.assert_allclose(data.std[0, noisy], data.beta[noisy], rtol=0.056)
    np.testing.assert_allclose(data.std[1, noisy], 0.5 * data.posterior[noisy], rtol=0.056)
    assert not data.std[2].any() and not data.std[:, -1].any()


def test_schedule_runs_from_T_to_0():
    """Kills: t not reversed with its arrays, an infinite SNR or an unused β_0 drawn."""
    schedule = NoiseSchedule.course(12)
    data = schedule_data(schedule)
    assert data.t[0] == 12 and data.t[-1] == 0
    assert data.beta[0] == schedule.betas[12] and np.isnan(data.beta[-1])
    assert data.alpha_bar[3] == schedule.alpha_bars[9] and data.S3[3] == schedule.S3[9]
    assert data.snr[3] == pytest.approx(schedule.alpha_bars[9] / (1 - schedule.alpha_bars[9]))
    assert np.isnan([data.snr[-1], data.S1[-1], data.S2[-1]]).all()


def test_diversity_agrees_with_a_direct_search(images, gaussian):
    """Kills: counts for shares, arms and classes transposed, a picture where nothing is known."""
    data = diversity_data(images)
    law = PIXELS.reshape(6, -1)
    ends = images.dataset["samples"].values.reshape(3, 10, -1)
    distance = np.sqrt(((ends[:, :, None] - law) ** 2).mean(axis=-1))
    nearest = distance.argmin(axis=-1)
    assert data.classes == ["a", "<i>b</i>", "c"]
    for a in range(3):
        assert data.distinct[a] == len(set(nearest[a]))
        share = np.bincount(np.array([0, 0, 0, 1, 1, 2])[nearest[a]], minlength=3) / 10
        np.testing.assert_allclose(data.share[a], share)
    np.testing.assert_allclose(data.distance, distance.min(axis=-1).mean(axis=-1), atol=1e-5)
    np.testing.assert_allclose(data.reference_share, [1 / 2, 1 / 3, 1 / 6])
    assert data.expected == pytest.approx(6 * (1 - (5 / 6) ** 10))
    assert diversity_data(gaussian) is None and PICTURES["diversity"](gaussian, "en") is None


def test_diversity_without_classes_has_no_panel_for_them():
    """Kills: an empty third panel, or a crash, where data have no classes."""
    schedule = NoiseSchedule.linear(5, 0.01, 0.5)
    points = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    run = record(DatasetDenoiser(schedule, points), schedule, n=4, progress=False)
    data = diversity_data(run)
    assert data.classes == [] and data.share.shape == (3, 0)
    assert len(list(diversity_figure(data).select_xaxes())) == 2


def test_trajectories_are_the_samples(gaussian, images):
    """Kills: samples and times transposed, lines of two samples joined, images drawn as one."""
    x, _ = trajectory(gaussian)
    data = trajectories_data(gaussian, samples=5)
    np.testing.assert_allclose(data.x, np.moveaxis(x, 1, 2)[:, :5], atol=1e-7)
    y = np.array(trajectories_figure(data).data[0].y).reshape(5, -1)
    np.testing.assert_allclose(y[:, :-1], data.x[0])
    assert np.isnan(y[:, -1]).all()
    assert trajectories_data(images) is None


# -------------------------------------------------------------------- images


def test_tiles_have_a_fixed_range(images):
    """Kills: a range per image, channels last taken for first, samples and times swapped."""
    data = strips_data(images, samples=[4, 1, 99], times=[20, 7, 0])
    x = images.dataset["snapshots"].sel(snapshot=[20, 7, 0]).values[:, :, [4, 1]]
    right = np.rint((np.clip(x, -1, 1) + 1) * 127.5).astype(np.uint8)
    np.testing.assert_array_equal(data.tiles, np.moveaxis(right, 3, -1))
    assert data.samples == [4, 1] and data.t.tolist() == [20, 7, 0]
    full = strips_data(images, samples=[0], stretched=True)
    assert full.stretched and full.tiles.min() == 0 and full.tiles.max() == 255
    assert (full.tiles.max(axis=(-2, -3)) == 255).all()


def test_strips_are_for_images_only(gaussian):
    """Kills: numbers drawn as pixels."""
    assert strips_data(gaussian) is None


def test_pictures_hold_the_tiles_in_rows_of_arms(images):
    """Kills: arms and times transposed, smooth enlargement, one frame for all times."""
    data = strips_data(images, samples=range(4), times=[20, 10, 0])
    picture = np.array(strip_image(data, sample=1, scale=2, labels=False))
    big = np.repeat(np.repeat(data.tiles[2, 1, 1], 2, axis=0), 2, axis=1)
    step_x, step_y = 5 * 2 + 2, 4 * 2 + 2
    y, x = 2 + 2 * step_y, 2 + step_x
    np.testing.assert_array_equal(picture[y : y + 8, x : x + 10], big)
    grid = np.array(grid_image(data, time=1, scale=1, labels=False))
    np.testing.assert_array_equal(grid[8 : 8 + 4, 2 + 3 * 7 : 2 + 3 * 7 + 5], data.tiles[1, 1, 3])
    frames = animation(data, columns=2, scale=1, labels=False)
    assert len(frames) == 3
    block = 2 * 5 + 2
    at = 2 + block + 16
    last = np.array(frames[2])
    np.testing.assert_array_equal(last[2 : 2 + 4, at : at + 5], data.tiles[1, 2, 0])
    labelled = strip_image(data, scale=2)
    assert labelled.size[0] > picture.shape[1] and labelled.size[1] > picture.shape[0]


# -------------------------------------------------------------------- how it is drawn


def drawn(run, language="en"):
    """Every figure that the run has, by name, as the plain structure that a page is given."""
    figures = {name: draw(run, language) for name, draw in PICTURES.items()}
    return {k: json.loads(v.to_json()) for k, v in figures.items() if v is not None}


OVER_TIME = {"trajectories", "mean", "stds", "distance", "ks", "dial", "staircase", "noise"}
OVER_TIME |= {"schedule"}


def axes(layout, letter):
    return {k: v for k, v in layout.items() if k.startswith(f"{letter}axis")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_time_runs_to_the_left_and_has_one_cursor_per_axis(gaussian, language):
    """Kills: an axis not reversed, a cursor missing, doubled or not at T, meta without time."""
    for name, figure in drawn(gaussian, language).items():
        layout = figure["layout"]
        cursors = [s for s in layout.get("shapes", []) if s.get("name") == "cursor"]
        assert layout["meta"]["time"] is (name in OVER_TIME), name
        if name not in OVER_TIME:
            assert not cursors
            continue
        x_axes = axes(layout, "x")
        assert sorted(s["xref"] for s in cursors) == sorted(k.replace("axis", "") for k in x_axes)
        for shape in cursors:
            assert shape["x0"] == shape["x1"] == T and (shape["y0"], shape["y1"]) == (0, 1)
            assert shape["yref"] == shape["xref"].replace("x", "y") + " domain"
        for key, axis in x_axes.items():
            assert axis["range"][0] > axis["range"][1], (name, key)
            assert axis["title"]["text"] == catalogue(language)["figures.common.time"]


def test_arms_stand_once_in_the_legend_under_their_escaped_names(gaussian):
    """Kills: HTML or TeX of a name reaching plotly, a legend entry per panel or none at all."""
    for name, figure in drawn(gaussian).items():
        if name == "schedule":
            continue
        for arm in gaussian.arms:
            traces = [t for t in figure["data"] if t.get("legendgroup") == arm]
            assert sum(t.get("showlegend", True) for t in traces) == 1, (name, arm)
            assert {t["name"] for t in traces} == {theme.label(arm)}, (name, arm)
        assert "<b>half" not in json.dumps([t["name"] for t in figure["data"]])
        titles = [a["text"] for a in figure["layout"].get("annotations", [])]
        assert not any("<b>half" in title or "$" in title for title in titles)
    assert theme.label(STRANGE) == "&lt;b&gt;half&lt;/b&gt; &amp; &#36;x&#36;"
    assert len(theme.label("n" * 500)) == 40


def test_panels_neither_overlap_nor_leave_the_page_wide_or_stacked(gaussian):
    """Kills: a patch for the phone that misses an axis, or panels on top of each other."""
    for name, draw in PICTURES.items():
        figure = draw(gaussian, "en")
        if figure is None:
            continue
        for narrow in (False, True):
            layout = theme.arranged(figure, narrow).to_dict()["layout"]
            boxes = [
                (*layout[key]["domain"], *layout[key.replace("x", "y", 1)]["domain"])
                for key in axes(layout, "x")
            ]
            assert all(0 <= low < high <= 1 for b in boxes for low, high in (b[:2], b[2:])), name
            for i, a in enumerate(boxes):
                assert not narrow or a[:2] == (0, 1)
                for b in boxes[:i]:
                    apart = a[0] >= b[1] or b[0] >= a[1] or a[2] >= b[3] or b[2] >= a[3]
                    assert apart, (name, narrow)
        wide = theme.arranged(theme.arranged(figure, True), False)
        assert wide.to_dict() == figure.to_dict(), name


def test_ks_panels_share_one_scale_and_show_the_band(gaussian):
    """Kills: each view on a scale of its own, the band under a view it is not meant for."""
    layout = ks_figure(ks_data(gaussian)).to_dict()["layout"]
    assert {tuple(axis["range"]) for axis in axes(layout, "y").values()} == {(0, 1.02)}
    assert layout["yaxis2"]["matches"] == layout["yaxis3"]["matches"] == "y"
    band = catalogue("en")["figures.ks.band"]
    traces = ks_figure(ks_data(gaussian)).data
    assert [t.xaxis for t in traces if t.name == band] == ["x3"]


def test_uncertain_ks_is_drawn_as_a_ribbon(blocks, gaussian):
    """Kills: bounds of merged blocks not shown, or a ribbon around exact values."""
    data = ks_data(blocks)
    assert np.nanmax(data.marginal_error) > 0
    ribbons = [t for t in ks_figure(data).data if t.fill == "toself"]
    assert len(ribbons) == 9
    around = next(t for t in ribbons if t.xaxis == "x2" and t.legendgroup == "z=0")
    n = len(data.t)
    np.testing.assert_allclose(around.y[:n], data.marginal[1] - data.marginal_error[1])
    np.testing.assert_allclose(around.y[n:][::-1], data.marginal[1] + data.marginal_error[1])
    assert not [t for t in ks_figure(ks_data(gaussian)).data if t.fill == "toself"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_empty_panel_says_so(gaussian, language):
    """Kills: a blank panel for a std that one number does not have, or notes on full panels."""
    words = catalogue(language)["figures.common.nothing"].replace("\n", "<br>")
    figure = stds_figure(stds_data(gaussian), language)
    assert [a.xref for a in figure.layout.annotations if a.text == words] == ["x3 domain"]


def test_a_run_without_a_law_draws_no_reference():
    """Kills: a reference of NaN in the legend, a crash for any other callable."""
    schedule = NoiseSchedule.linear(6, 0.01, 0.5)
    run = record(
        lambda x, t, context=None: x * 0.5, schedule, n=4, sample_shape=(2,), progress=False
    )
    marginal = catalogue("en")["figures.common.marginal"]
    for name, figure in drawn(run).items():
        assert marginal not in [t.get("name") for t in figure["data"]], name
    assert "diversity" not in drawn(run)


def test_one_step_can_be_drawn():
    """Kills: an index into steps that are not there."""
    schedule = NoiseSchedule.linear(10, 0.01, 0.5)
    run = record(GaussianDenoiser(schedule, 0.0, 1.0), schedule, n=4, steps=1, progress=False)
    assert set(drawn(run)) >= OVER_TIME


def test_staircase_starts_with_all_three_and_parts(gaussian):
    """Kills: teeth drawn upside down, or a sawtooth one step out of place."""
    data = staircase_data(gaussian)
    ddpm_path, still, straight = staircase_figure(data).data[:3]
    assert {p.y[0] for p in (ddpm_path, straight)} == {data.told[0]}
    assert still.y[0] == pytest.approx(data.told[0], rel=1e-12)
    assert list(ddpm_path.x[:5]) == [data.times[i] for i in (0, 1, 1, 2, 2)]
    np.testing.assert_array_equal(ddpm_path.y[1::2], data.lowered)
    np.testing.assert_array_equal(ddpm_path.y[2::2], data.told[1:])


def test_dial_has_a_line_per_setting(gaussian):
    """Kills: settings drawn at another height than their name says."""
    lines = {t.name: set(t.y) for t in dial_figure(dial_data(gaussian)).data if "λ" in t.name}
    assert lines == {"λ = 0.5": {0.5}, "λ = 1": {1.0}}


def test_gaps_stay_gaps(gaussian):
    """Kills: NaN joined over, or dropped so that values slip to another time."""
    data = mean_data(gaussian)
    data.mean[0, 5] = np.nan
    trace = next(t for t in mean_figure(data).data if t.legendgroup == "ddpm")
    assert trace.connectgaps is False and np.isnan(trace.y[5]) and len(trace.y) == T + 1


def test_long_runs_are_thinned_evenly():
    """Kills: a lost end, more points than allowed, x and y thinned apart."""
    t = np.arange(10_000, -1, -1)
    x, y = theme.thin(t, t * 2.0)
    assert len(x) <= theme.MAX_POINTS and (x[0], x[-1]) == (10_000, 0)
    np.testing.assert_array_equal(y, x * 2.0)
    assert np.ptp(np.diff(x)) <= 1
    figure = schedule_figure(schedule_data(NoiseSchedule.linear(5000, 1e-5, 1e-3)))
    assert max(len(trace.x) for trace in figure.data) <= theme.MAX_POINTS


# -------------------------------------------------------------------- theme


def contrast(a, b):
    """Contrast ratio of WCAG 2.1."""

    def luminance(colour):
        c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_seen_on_both_pages():
    """Kills: a colour too pale for white or too dark for the dark page; two arms alike."""
    for page in theme.PAPER.values():
        assert min(contrast(c, page) for c in (*theme.COLOURS, theme.REFERENCE)) >= 3
    assert min(contrast(theme.TEXT[d], theme.PAPER[d]) for d in (False, True)) >= 7
    assert len({(theme.colour(i), theme.dash(i)) for i in range(20)}) == 20
    assert "dot" not in theme.DASHES  # it is the reference's


def test_no_figure_offers_to_upload_it():
    """Kills: plotly's default of a button that sends the data to a cloud."""
    assert theme.CONFIG["showSendToCloud"] is False
    assert theme.CONFIG["displaylogo"] is False
    assert theme.CONFIG["plotlyServerURL"] == ""
    assert theme.CONFIG["responsive"] is True


def test_a_themed_figure_is_a_copy(gaussian):
    """Kills: the page's transparent figure changed by an export, a dark page with dark text."""
    figure = mean_figure(mean_data(gaussian))
    before = figure.to_dict()
    dark = theme.themed(figure, True, "Title")
    assert figure.to_dict() == before
    assert dark.layout.paper_bgcolor == theme.PAPER[True]
    assert dark.layout.font.color == theme.TEXT[True]
    assert "Title" in dark.layout.title.text


def test_drawing_a_run_needs_no_torch():
    """Kills: an import of torch at the plotly end."""
    code = "import sys, diffviz.figures, diffviz.figures.strips; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.browser
def test_a_browser_draws_the_strange_name_as_it_is(gaussian):
    """Kills: an escape that plotly shows to the reader, or a layout that plotly.js rejects."""
    svg = ks_figure(ks_data(gaussian)).to_image("svg", width=900).decode()
    assert STRANGE in html.unescape(svg)
