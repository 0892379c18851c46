"""Every variable of a run, computed again from what its denoiser was given and what it answered.

Only numpy, scipy and the trajectories are used here, nothing of diffviz's statistics. Kills: any
curve of another arm, time or quantity; n for n − 1; a mean of stds; √ᾱ for ᾱ; merged blocks that
keep one block's numbers; a class, a p-value, a picture or a point of the map of something else.
"""

import math
import time

import numpy as np
import pytest
import scipy.stats
from scipy.special import ndtr

from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser, MixtureDenoiser
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.recording.record import record
from diffviz.recording.references import bands
from diffviz.recording.run import BANDS, OPTIONAL, VARIABLES

SCHEDULE = NoiseSchedule.course(24, 1e-3, 0.3)
ARMS = [*DEFAULT_ARMS, *map(Arm.parse, ("ddpm/posterior*0.5", "ddim(eta=0.7)"))]
PIXELS = np.random.default_rng(5).integers(0, 256, (9, 3, 4, 3), dtype=np.uint8)
MEANS = np.array([[-1.0, 0.3], [1.5, 1.0], [0.0, -2.0]])
KINDS, CLASSES = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2]), ("a", "b", "c")


def heard(kind):
    """The denoiser of that kind, which keeps what it is given and what it answers."""

    class Heard(kind):
        def __call__(self, x, t, context=None):
            eps = super().__call__(x, t, context)
            self.__dict__.setdefault("calls", []).append(
                (x.double().numpy(), eps.double().numpy())
            )
            return eps

    return Heard


def images(label=None):
    """(denoiser, modes (N, d) of the data, stds about them (N, d), shares, classes, shape)."""
    chosen = np.full(9, True) if label is None else label == KINDS
    points = (PIXELS.transpose(0, 3, 1, 2) / 127.5 - 1).reshape(9, -1)[chosen]
    shares = np.full(len(points), 1 / len(points))
    denoiser = heard(DatasetDenoiser)(SCHEDULE, PIXELS, KINDS, CLASSES)
    return denoiser, points, 0 * points, shares, KINDS[chosen], (3, 3, 4)


def modes():
    stds, shares = np.array([0.2, 0.3, 0.1]), np.array([0.5, 0.3, 0.2])
    denoiser = heard(MixtureDenoiser)(SCHEDULE, MEANS, stds, shares)
    return denoiser, MEANS, stds[:, None] + 0 * MEANS, shares, np.arange(3), (2,)


def vector():
    mean, std = np.linspace(-1, 1, 5)[None], np.array([[0.1, 0.7, 0.2, 0.9, 0.3]])
    denoiser = heard(GaussianDenoiser)(SCHEDULE, mean[0], std[0])
    return denoiser, mean, std, np.ones(1), None, (5,)


class Case:
    """A run; the states (A, S+1, n, d) and answers that its denoiser saw; what its data are."""

    def __init__(self, data, **arguments):
        denoiser, self.points, self.stds, self.shares, self.kinds, self.shape = data
        self.run = record(denoiser, SCHEDULE, arms=ARMS, progress=False, **arguments)
        self.set, A = self.run.dataset, len(ARMS)
        self.t = self.set["t"].values
        steps, self.n, self.d = len(self.t) - 1, self.run.spec.n, math.prod(self.shape)
        self.bars, self.given = SCHEDULE.alpha_bars[self.t], arguments
        each = [
            np.reshape(both, (2, A, -1, self.d))
            for both in denoiser.calls[: steps * -(-self.n // self.run.spec.block)]
        ]  # the rest are checks of the denoiser
        blocks = [np.stack(each[i : i + steps], 2) for i in range(0, len(each), steps)]
        x, self.eps = np.concatenate(blocks, axis=3)
        self.end = self.set["samples"].values.astype(np.float64).reshape(A, self.n, self.d)
        self.x = np.concatenate([x, self.end[:, None]], axis=1)
        bars = self.bars[:-1, None, None]
        self.residual = (x - np.sqrt(bars) * self.end[:, None]) / np.sqrt(1 - bars)
        self.drawn = self.noise()

    def expected(self):
        """Name → values for all variables but the bands and D from counts."""
        x, t, bars = self.x, self.t, self.bars
        mean, inner = self.shares @ self.points, self.shares @ self.stds**2
        variance = {
            "std": (self.shares @ (self.points - mean.mean()) ** 2 + inner).mean(),
            "std_between": (self.shares @ (self.points - mean) ** 2 + inner).mean(),
            "std_within": self.shares @ self.points.var(axis=1, ddof=1) + inner.mean(),
        }
        variance["distance_to_mean"] = variance["std_between"]
        found = {
            "arm": [arm.name for arm in ARMS],
            "t": SCHEDULE.times(self.given.get("steps")),
            "quantity": ["x", "eps", "residual"],
            "snapshot": t,
            "schedule_t": np.arange(25),
            "schedule_beta": SCHEDULE.betas,
            "schedule_alpha": SCHEDULE.alphas,
            "schedule_alpha_bar": SCHEDULE.alpha_bars,
            "reference_mean": np.sqrt(bars) * mean.mean(),
            **{f"reference_{k}": np.sqrt(bars * v + 1 - bars) for k, v in variance.items()},
            "reference_noise_level": np.sqrt((1 - bars) / bars),
            "std_between": np.sqrt(x.var(axis=2, ddof=1).mean(axis=-1)),
            "std_within": np.sqrt(x.var(axis=3, ddof=1).mean(axis=-1)),
            "distance_to_mean": np.sqrt(
                ((x - np.sqrt(bars)[:, None, None] * mean) ** 2).mean(axis=(2, 3))
            ),
            "snapshots": x.reshape(*x.shape[:3], *self.shape),
            "samples": self.end.reshape(len(ARMS), self.n, *self.shape),
        }
        quantities = [self.values(q) for q in range(3)]
        for name, statistic in (
            ("mean", lambda v: v.mean(axis=-1)),
            ("std", lambda v: v.std(axis=-1, ddof=1)),
            ("skewness", lambda v: scipy.stats.skew(v, axis=-1)),
            ("kurtosis", lambda v: scipy.stats.kurtosis(v, axis=-1)),
            ("values", lambda v: np.isfinite(v).sum(axis=-1)),
        ):
            found[name] = np.stack([statistic(v) for v in quantities], axis=1)
        level = found["std"][:, 2] * found["reference_noise_level"]
        return found | {"noise_level": level} | self.drawn | self.pictures() | self.nearest()

    def values(self, quantity):
        """(A, S+1, n·d), NaN at t = 0 of what is not known there."""
        values = (self.x, self.eps, self.residual)[quantity]
        flat = values.reshape(*values.shape[:2], -1)
        return (
            flat
            if quantity == 0
            else np.pad(flat, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
        )

    def noise(self):
        """The shared draw z from ddpm's steps, and what of it every arm was given."""
        std, z = np.full((len(ARMS), len(self.t)), np.nan), []
        for i, (t, s) in enumerate(zip(self.t, self.t[1:], strict=False)):
            now, then, alpha = (
                self.bars[i],
                self.bars[i + 1],
                SCHEDULE.alphas[s + 1 : t + 1].prod(),
            )
            beta, bridge = 1 - alpha, (1 - then) / (1 - now)
            eta = 0.7 * np.sqrt(bridge * (1 - now / then))
            own = [np.sqrt(beta), 0, 0, 0.5 * np.sqrt(beta * bridge), eta]
            std[:, i] = own if s > 0 else 0
            if s > 0:
                x, eps = self.x[0, i], self.eps[0, i]
                mean = (x - beta / np.sqrt(1 - now) * eps) / np.sqrt(alpha)
                z.append((self.x[0, i + 1] - mean).reshape(-1) / np.sqrt(beta))
        z = np.pad(np.array(z), ((0, 2), (0, 0)), constant_values=1.0)
        drawn = {"noise_std": std * z.std(axis=-1, ddof=1)}
        drawn["noise_std"][:, -2] = 0
        self.z = np.where(std[..., None] > 0, z, np.nan)
        return drawn

    def pictures(self):
        """Frames, and the map up to the signs of its axes, which are those of the map itself."""
        found = {}
        if len(self.shape) == 3:
            few = np.clip(self.x[:, :, :8], -1, 1) * 127.5 + 127.5
            found |= {"frames": few.reshape(*few.shape[:3], *self.shape), "frame_t": self.t}
        mean = self.shares @ self.points
        if len(self.points) > 1:
            apart = (self.points - mean) * np.sqrt(self.shares)[:, None]
            axes = np.linalg.svd(apart)[2][:2]
            spread = np.linalg.svd(apart)[1][:2] ** 2 + self.shares @ self.stds[:, 0] ** 2
        else:
            axes = np.eye(self.d)[[1, 3]]
            spread = self.stds[0, [1, 3]] ** 2
        center = np.sqrt(self.bars)[:, None, None] * mean
        there = (self.x - center) @ axes.T
        signs = np.sign(np.einsum("atnj,atnj->j", there, self.set["map"].values.astype(float)))
        found["map"] = there * signs
        found["map_std"] = np.sqrt(self.bars[:, None] * spread + 1 - self.bars[:, None])
        if not self.stds.any():
            found["map_data"] = (self.points - mean) @ axes.T * signs
        return found

    def nearest(self):
        if self.kinds is None:
            return {}
        apart = np.sqrt(((self.end[:, :, None] - self.points) ** 2).mean(axis=-1))
        which, count = apart.argmin(axis=-1), 3
        return {
            "nearest_distance": apart.min(axis=-1).mean(axis=-1),
            "distinct_nearest": [len(set(row)) for row in which],
            "reference_distinct_nearest": (1 - (1 - self.shares) ** self.n).sum(),
            "class_count": [np.bincount(self.kinds[row], minlength=count) for row in which],
            "reference_class_share": np.bincount(self.kinds, self.shares, minlength=count),
        }

    def cdf(self, i, x):
        """F of one coordinate of q(x_t) at the i-th time; where it jumps, from the right."""
        places = np.sqrt(self.bars[i]) * self.points
        wide = np.sqrt(self.bars[i] * self.stds**2 + 1 - self.bars[i])
        weights = np.broadcast_to(self.shares[:, None] / self.d, places.shape)
        total = np.zeros(np.shape(x))
        for place, scale, weight in zip(places.flat, wide.flat, weights.flat, strict=True):
            total += weight * (ndtr((x - place) / scale) if scale else x >= place - 1e-9)
        return total


CASES = {
    "images": (images, (), {"n": 12, "seed": 1}),
    "images in blocks": (images, (), {"n": 13, "block": 5, "seed": 2}),
    "one class in few steps": (images, (2,), {"n": 10, "steps": 7, "label": "c"}),
    "modes": (modes, (), {"n": 40, "seed": 3}),
    "modes in blocks": (modes, (), {"n": 60, "block": 25, "seed": 3}),
    "a vector": (vector, (), {"n": 7}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    make, given, arguments = CASES[request.param]
    return Case(make(*given), **arguments)


TOLERANCES = {"snapshots": 2**-13 + 1e-6, "frames": 0.51, "noise_std": 2e-4, "map": 1e-4}


def test_every_value_by_its_definition(case):
    expected = case.expected()
    for name, values in expected.items():
        found = case.set[name]
        assert found.dims[: len(VARIABLES[name][0])] == VARIABLES[name][0], name
        if found.dtype.kind == "U":
            assert found.values.tolist() == list(values)
            continue
        error = TOLERANCES.get(name, 3e-6)
        np.testing.assert_allclose(found, values, rtol=2e-5, atol=error, err_msg=name)
    elsewhere = {"bin", "histogram", "reference_histogram", "map_data", "class"}
    elsewhere |= {name for name in VARIABLES if name.startswith(("ks_", "noise_ks"))}
    elsewhere |= {f"{name}_{end}" for name in BANDS for end in ("low", "high")} | set(OPTIONAL[2])
    assert set(case.set.variables) <= set(expected) | elsewhere


def test_every_distance_by_its_definition(case):
    """Exact in one block, within its bounds in several; p of what is independent."""
    merged, data = case.set.attrs["blocks"] > 1, case.set
    for a, i in np.ndindex(len(ARMS), len(case.t)):
        ordered = np.sort(case.x[a, i], axis=None)
        exact = case.stds.any() and case.points.size <= 8
        at = (ordered[1:] + ordered[:-1]) / 2
        if case.bars[i] == 1 and not case.stds.any():
            places = np.unique(case.points)
            at = np.concatenate([[-2], (places[1:] + places[:-1]) / 2, [2]])
        null = case.cdf(i, ordered if exact else at)
        n, rank = len(ordered), np.arange(len(ordered))
        marginal = (
            np.abs(np.searchsorted(ordered, at) / n - null).max()
            if not exact
            else max(((rank + 1) / n - null).max(), (null - rank / n).max())
        )
        pairs = [(marginal, "ks_marginal", {}, len(ordered))]
        for q, name in enumerate(("x", "eps", "residual")):
            values = case.values(q)[a, i]
            if np.isfinite(values).all():
                d = scipy.stats.kstest(values, "norm").statistic
                pairs.append((d, "ks_normal", {"quantity": name}, len(values)))
        if np.isfinite(case.z[a, i]).all():
            d = scipy.stats.kstest(case.z[a, i], "norm").statistic
            pairs.append((d, "noise_ks", {}, n))
        for d, name, where, count in pairs:
            found, error = (
                float(data[v].sel(where).isel(arm=a, t=i)) for v in (name, f"{name}_error")
            )
            near = 2e-5 if exact or name != "ks_marginal" else 0.06 / math.sqrt(n)
            assert abs(found - d) <= error + near, (name, where, a, i, found, d, error)
            assert 0 <= error < 0.01 and (merged or not error), (name, where, a, i, error)
            assert error > 0 or not merged or name == "ks_marginal", (name, where, a, i)
            if where.get("quantity") == "residual" or name == "noise_ks":
                p = float(data[f"{name}_p"].sel(where).isel(arm=a, t=i))
                assert p == pytest.approx(scipy.stats.kstwo.sf(found, count), rel=0.1, abs=1e-6)
    assert np.isnan(data["ks_normal_p"].sel(quantity=["x", "eps"])).all()
    silent = np.isnan(case.z).any(axis=-1)
    for name in ("noise_ks", "noise_ks_p", "noise_ks_error"):
        np.testing.assert_array_equal(np.isnan(data[name]), silent)


def test_every_histogram_by_its_definition(case):
    """Counts between even edges, the outer bins open; beside them what q(x_t) gives each bin."""
    low = min(-4.5, (case.points - 4.5 * case.stds).min())
    high = max(4.5, (case.points + 4.5 * case.stds).max())
    edges = np.linspace(low, high, 129)
    np.testing.assert_allclose(case.set["bin"], (edges[1:] + edges[:-1]) / 2, atol=1e-9)
    edges[[0, -1]] = -np.inf, np.inf
    for q, i, a in np.ndindex(3, len(case.t), len(ARMS)):
        values = case.values(q)[a, i]
        counts = np.histogram(values[np.isfinite(values)].astype(np.float32), edges)[0]
        assert np.abs(case.set["histogram"].values[a, q, i] - counts).sum() <= 4
    for i in range(len(case.t)):
        share = np.diff(case.cdf(i, edges[1:-1]), prepend=0, append=1)
        np.testing.assert_allclose(case.set["reference_histogram"][i], share, atol=2e-4)


def test_what_is_said_of_a_whole_run(monkeypatch):
    """Of a denoiser that mixes its batch, with memory for some coordinates of the residual only.
    Kills: one check's number for both; p or a band of all values; milliseconds for seconds."""
    monkeypatch.setattr("diffviz.recording.recorder.MEMORY", 4 * len(ARMS) * 25 * 30 * 7)

    def mixing(x, t, context=None):
        return 0.5 * (x - x.mean(dim=0))

    begun = time.monotonic()
    given = {"n": 30, "sample_shape": (20,), "progress": False}
    data = record(mixing, SCHEDULE, arms=ARMS, **given).dataset
    assert (time.monotonic() - begun) / 100 < data.attrs["seconds"] <= time.monotonic() - begun
    assert (data["answer_repeat_difference"] == 0).all()
    assert (data["answer_batch_difference"] > 0.1).all()
    residual = data.sel(quantity="residual").isel(t=slice(0, -1))
    assert (residual["values"] == 210).all() and data.attrs["residual_values_per_step"] == 210
    p = scipy.stats.kstwo.sf(residual["ks_normal"], 210)
    np.testing.assert_allclose(residual["ks_normal_p"], p, rtol=0.1, atol=1e-6)
    high = scipy.stats.kstwo.isf(0.05, 210)
    np.testing.assert_allclose(data["residual_ks_high"][:-1], high, rtol=0.01)


def test_more_samples_than_are_kept():
    """300 in one block, of which 256 are kept. Kills: a mean of the distances over those kept."""
    points = np.random.default_rng(1).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
    given = {"arms": ARMS[1:2], "n": 300, "block": 300, "steps": 6, "progress": False}
    run = record(DatasetDenoiser(SCHEDULE, points), SCHEDULE, **given).dataset
    flat = (points.transpose(0, 3, 1, 2) / 127.5 - 1).reshape(7, -1)
    apart = run["samples"].values.reshape(256, 1, -1) - flat
    kept = np.sqrt((apart**2).mean(axis=-1)).min(axis=-1).mean()
    assert run["nearest_distance"][0] == pytest.approx(kept, rel=0.05)
    assert run.sizes["map_sample"] == 256 and run.sizes["point"] == 7


def test_the_band_of_d_is_that_of_simulated_runs():
    """The 95 % point of 3,000 runs of 12 images, to 4 %. Kills: D between edges left out."""
    law, n = images()[0].law, 12
    found = bands(law, SCHEDULE.alpha_bars[::-1], n, 36, n * 36)["ks_marginal_high"]
    for i in (6, 16):
        bar, rng = SCHEDULE.alpha_bars[24 - i], np.random.default_rng(i)
        places, weights = np.unique(law.points, return_counts=True)
        grid = np.linspace(-4, 4, 4001)
        cdf = np.zeros(len(grid))
        for place, weight in zip(np.sqrt(bar) * places, weights / law.points.size, strict=True):
            cdf += weight * ndtr((grid - place) / np.sqrt(1 - bar))
        d = []
        for _ in range(3000):
            x = np.sqrt(bar) * law.draw(n, rng) + np.sqrt(1 - bar) * rng.standard_normal((n, 36))
            null = np.interp(np.sort(x, axis=None), grid, cdf)
            rank = np.arange(n * 36) / (n * 36)
            d.append(max((rank + 1 / (n * 36) - null).max(), (null - rank).max()))
        assert found[i] == pytest.approx(np.quantile(d, 0.95), rel=0.04)
