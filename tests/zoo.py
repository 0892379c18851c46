"""The bug zoo: samplers as people write them, right and wrong, a few lines each.

Every entry is ``make(schedule, shape) -> sampler(model) -> x_0``. They draw from torch's global
generator, as such loops do. ``FAULTY`` maps a name to (id that must come first, make);
``CORRECT`` maps a name to (rules it may be called, make).
"""

from functools import partial

import numpy as np
import torch

from diffviz.diffusion.schedule import NoiseSchedule


def tables(schedule, dtype=torch.float64):
    return [
        torch.tensor(a).to(dtype) for a in (schedule.betas, schedule.alphas, schedule.alpha_bars)
    ]


def ddpm(
    mean=None,
    std=None,
    noise=None,
    start=None,
    passed=lambda i, T: i,
    order=None,
    last_noise=False,
    dtype=torch.float64,
    using=None,
    after=None,
):
    """Ancestral sampling with one part exchanged."""

    def make(schedule, shape):
        b, a, ab = tables(using(schedule.T) if using else schedule, dtype)
        T = schedule.T

        def right(x, e, i):
            return (x - e * (1 - a[i]) / (1 - ab[i]).sqrt()) / a[i].sqrt()

        def sampler(model):
            x = torch.randn(shape) if start is None else start(shape)
            state = {}
            for i in order(T) if order else range(T, 0, -1):
                e = model(x, passed(i, T))
                z = noise(x, i, state) if noise else torch.randn_like(x)
                if i == 1 and not last_noise:
                    z = 0
                scale = std(b, a, ab, i) if std else b[i].sqrt()
                x = (mean(x, e, b, a, ab, i) if mean else right(x, e, i)) + scale * z
                x = x.float() if after is None else after(x.float(), i)
            return x

        return sampler

    return make


def ddim(
    eta=0.0,
    n=None,
    wrap=False,
    noise=True,
    passed=lambda t, T: t,
    direction=None,
    sized=None,
    clip=lambda x0: x0,
    ends=None,
    start=torch.randn,
    ab_0=1.0,
):
    """DDIM over n of T steps; ``wrap`` steps by T // n down through negative indices."""

    def make(schedule, shape):
        ab, T = schedule.alpha_bars, schedule.T
        pairs = list(
            zip(schedule.times(n)[:-1].tolist(), schedule.times(n)[1:].tolist(), strict=True)
        )
        if wrap:
            pairs = [(i, i - T // n) for i in range(T, 0, -(T // n))]
        if ends:
            pairs = [(t, ends(t, s)) for t, s in pairs]
        ab = np.append(ab_0, ab[1:])

        def sampler(model):
            x = start(shape)
            for t, s in pairs:
                e = model(x, passed(t, T))
                sigma = eta * np.sqrt((1 - ab[s]) / (1 - ab[t]) * max(1 - ab[t] / ab[s], 0))
                x0 = clip((x - np.sqrt(1 - ab[t]) * e) / np.sqrt(ab[t]))
                rest = direction(ab, s, sigma) if direction else np.sqrt(1 - ab[s] - sigma**2)
                x = np.sqrt(ab[s]) * x0 + rest * e
                if sigma and noise:
                    x = x + (sized(sigma) if sized else sigma) * torch.randn_like(x)
            return x

        return sampler

    return make


def clipping(clip, noise=1.0, using=None, eps=1.0, answer="eps", told=0):
    """DDPM through a clipped x̂_0, as image libraries do; the model answers ε, x̂_0 or v."""

    def make(schedule, shape):
        b, a, ab = tables(using(schedule.T) if using else schedule)

        def sampler(model):
            x = torch.randn(shape)
            for i in range(schedule.T, 0, -1):
                m = eps * model(x, i + told)
                by = {
                    "eps": (x - (1 - ab[i]).sqrt() * m) / ab[i].sqrt(),
                    "v": ab[i].sqrt() * x - (1 - ab[i]).sqrt() * m,
                    "x0": m,
                }
                x0 = clip(by[answer])
                left = 1 - ab[i]
                mean = ab[i - 1].sqrt() * b[i] / left * x0
                mean = mean + a[i].sqrt() * (1 - ab[i - 1]) / left * x
                std = noise * (b[i] * (1 - ab[i - 1]) / left).sqrt()
                x = (mean + std * torch.randn_like(x)).float() if i > 1 else mean.float()
            return x

        return sampler

    return make


def quantile_threshold(x0):
    s = x0.abs().flatten(1).quantile(0.95, dim=1).clamp(min=1).reshape(-1, 1, 1, 1)
    return x0.clamp(-s, s) / s


# --------------------------------------------------- the tutorial, with its call pattern


def tutorial(add_noise=True):
    """The two loops of the tutorial's first lesson; t is i/T in shape (1, 1, 1, 1)."""

    def make(schedule, shape, context=None):
        timesteps = schedule.T
        beta1, beta2 = (float(beta) for beta in schedule.betas[[0, -1]])
        b_t = (beta2 - beta1) * torch.linspace(0, 1, timesteps + 1) + beta1
        a_t = 1 - b_t
        ab_t = torch.cumsum(a_t.log(), dim=0).exp()
        ab_t[0] = 1

        def denoise_add_noise(x, t, pred_noise, z=None):
            if z is None:
                z = torch.randn_like(x)
            noise = b_t.sqrt()[t] * z
            mean = (x - pred_noise * ((1 - a_t[t]) / (1 - ab_t[t]).sqrt())) / a_t[t].sqrt()
            return mean + noise

        @torch.no_grad()
        def sample_ddpm(nn_model):
            samples = torch.randn(shape)
            intermediate = []
            for i in range(timesteps, 0, -1):
                t = torch.tensor([i / timesteps])[:, None, None, None]
                z = torch.randn_like(samples) if i > 1 else 0
                if not add_noise:
                    z = 0
                keywords = {} if context is None else {"c": context}
                eps = nn_model(samples, t, **keywords)
                samples = denoise_add_noise(samples, i, eps, z)
                if i % 20 == 0 or i == timesteps or i < 8:
                    intermediate.append(samples.detach().cpu().numpy())
            return samples, np.stack(intermediate)

        return sample_ddpm

    return make


# --------------------------------------------------- σ form: x̄ = x/√ᾱ


def sigmas(schedule, n, rho=7.0):
    """Karras' spacing between the schedule's ends, with the 0 at the end (2206.00364, eq. 5)."""
    high, low = schedule.sigma[-1] ** (1 / rho), schedule.sigma[1] ** (1 / rho)
    return np.append((high + np.linspace(0, 1, n) * (low - high)) ** rho, 0.0)


def sigma_form(
    n=20,
    ancestral=False,
    denoised=True,
    drop=False,
    scaled=True,
    told=0,
    leave_out=0,
    clip=lambda x0: x0,
    spaced=None,
):
    """Euler and Euler ancestral of k-diffusion; the model answers x̂_0 or ε."""

    def make(schedule, shape):
        levels = spaced(sigmas(schedule, n)) if spaced else sigmas(schedule, n)

        def sampler(model):
            x = torch.randn(shape) * (levels[0] if scaled else 1)
            for k in range(n - leave_out):
                now, then = levels[k : k + 2].tolist()
                answer = model(x, torch.full((len(x),), levels[k + told]))
                up = np.sqrt(then**2 * (now**2 - then**2) / now**2) if ancestral else 0.0
                down = np.sqrt(then**2 - up**2)
                d = (x - clip(answer)) / now if denoised else answer
                x = x + d * (down - now)
                if up and not drop:
                    x = x + torch.randn_like(x) * up
            return x

        return sampler

    return make


def multistep(n=15, vp=True, wrong=1.0):
    """DPM-Solver++(2M) (2211.01095, algorithm 2), the last step of first order."""

    def make(schedule, shape):
        times = schedule.times(n)
        ab = schedule.alpha_bars[times]
        alpha, sigma = np.sqrt(ab), np.sqrt(1 - ab)
        with np.errstate(divide="ignore"):
            lam = np.log(alpha / sigma)

        def sampler(model):
            x, old = torch.randn(shape), None
            for k in range(n):
                x0 = (x - sigma[k] * model(x, int(times[k]))) / alpha[k]
                h = lam[k + 1] - lam[k]
                D = x0
                if old is not None and k < n - 1:
                    r = (lam[k] - lam[k - 1]) / h
                    D = (1 + wrong / (2 * r)) * x0 - wrong / (2 * r) * old
                x = sigma[k + 1] / sigma[k] * x - alpha[k + 1] * np.expm1(-h) * D
                old = x0
            return x

        return sampler

    return make


# --------------------------------------------------- noises


def once(make_noise):
    """The first draw, again and again."""
    return lambda x, i, state: state.setdefault("z", make_noise(x))


def previous(x, i, state):
    """Noise that keeps 80 % of the step before."""
    z = torch.randn_like(x)
    z = 0.8 * state["z"] + 0.6 * z if "z" in state else z
    state["z"] = z
    return z


def reseeded(x, i, state):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def blurred(x, i, state):
    z = torch.randn_like(x)
    return (z + z.roll(1, -1)) / 2**0.5


def posterior(b, a, ab, i):
    return (b[i] * (1 - ab[i - 1]) / (1 - ab[i])).sqrt()


def wide_start(shape):
    return 1.1 * torch.randn(shape)


def _right(x, e, b, a, ab, i):
    return (x - e * (1 - a[i]) / (1 - ab[i]).sqrt()) / a[i].sqrt()


def _scaled(factor):
    return lambda x, e, b, a, ab, i: _right(x, factor * e, b, a, ab, i)


FAULTY = {
    # noise that is not there, too little, too much, or where it should not be
    "no noise (the tutorial's incorrect loop)": ("noise-missing", tutorial(add_noise=False)),
    "no noise": ("noise-missing", ddpm(noise=lambda x, i, s: 0 * x)),
    "ddim(eta=1) without its noise": ("noise-missing", ddim(1.0, noise=False)),
    "ddim(eta=0.5) without its noise": ("noise-missing", ddim(0.5, noise=False)),
    "ancestral in sigma form without its noise": (
        "noise-missing",
        sigma_form(ancestral=True, drop=True),
    ),
    "half the noise": ("noise-scale", ddpm(std=lambda b, a, ab, i: 0.5 * b[i].sqrt())),
    "beta for its root": ("noise-scale", ddpm(std=lambda b, a, ab, i: b[i])),
    "root of 1 - alpha_bar for beta": (
        "noise-scale",
        ddpm(std=lambda b, a, ab, i: (1 - ab[i]).sqrt()),
    ),
    "5 % more noise": ("noise-scale", ddpm(std=lambda b, a, ab, i: 1.05 * b[i].sqrt())),
    "no noise below t = 10": (
        "noise-scale",
        ddpm(std=lambda b, a, ab, i: b[i].sqrt() * (i > 10)),
    ),
    "noise in the last step": ("noise-last-step", ddpm(last_noise=True)),
    # noise of the wrong law
    "rand_like for randn_like": (
        "noise-not-normal",
        ddpm(noise=lambda x, i, s: torch.rand_like(x)),
    ),
    "uniform noise of std 1": (
        "noise-not-normal",
        ddpm(noise=lambda x, i, s: (torch.rand_like(x) - 0.5) * 12**0.5),
    ),
    "one noise for the whole batch": (
        "noise-shared-in-batch",
        ddpm(noise=lambda x, i, s: torch.randn_like(x[:1])),
    ),
    "noise drawn once before the loop": (
        "noise-reused-across-steps",
        ddpm(noise=once(torch.randn_like)),
    ),
    "generator seeded in every step": ("noise-reused-across-steps", ddpm(noise=reseeded)),
    "start drawn again as noise": (
        "noise-reused-across-steps",
        ddpm(noise=reseeded, start=lambda shape: reseeded(torch.empty(shape), 0, {})),
    ),
    "noise carried over between steps": ("noise-reused-across-steps", ddpm(noise=previous)),
    "one noise for all channels": (
        "noise-correlated",
        ddpm(noise=lambda x, i, s: torch.randn_like(x[:, :1])),
    ),
    "one number per image as noise": (
        "noise-correlated",
        ddpm(noise=lambda x, i, s: torch.randn_like(x[:, :1, :1, :1])),
    ),
    "blurred noise": ("noise-correlated", ddpm(noise=blurred)),
    # coefficients
    "root missing on 1 - alpha_bar": (
        "eps-coefficient",
        ddpm(mean=lambda x, e, b, a, ab, i: (x - e * (1 - a[i]) / (1 - ab[i])) / a[i].sqrt()),
    ),
    "alpha for alpha_bar below the root": (
        "eps-coefficient",
        ddpm(mean=lambda x, e, b, a, ab, i: (x - e * b[i].sqrt()) / a[i].sqrt()),
    ),
    "wrong sign": (
        "eps-coefficient",
        ddpm(mean=_scaled(-1)),
    ),
    "half the score with full noise": (
        "eps-coefficient",
        ddpm(mean=_scaled(0.5)),
    ),
    "guidance applied twice": (
        "eps-coefficient",
        ddpm(mean=_scaled(1.5)),
    ),
    "noise on top of the whole ddim direction": (
        "noise-scale",
        ddim(1.0, direction=lambda ab, s, sigma: np.sqrt(1 - ab[s])),
    ),
    "no division by root alpha": (
        "x-coefficient",
        ddpm(mean=lambda x, e, b, a, ab, i: x - e * b[i] / (1 - ab[i]).sqrt()),
    ),
    "division by alpha": (
        "x-coefficient",
        ddpm(mean=lambda x, e, b, a, ab, i: (x - e * b[i] / (1 - ab[i]).sqrt()) / a[i]),
    ),
    "division by root alpha_bar": (
        "x-coefficient",
        ddpm(mean=lambda x, e, b, a, ab, i: (x - e * b[i] / (1 - ab[i]).sqrt()) / ab[i].sqrt()),
    ),
    "a constant added": ("bias", ddpm(after=lambda x, i: x + 0.01)),
    "images mapped to [0, 1] at the end": (
        "x-coefficient",
        ddpm(after=lambda x, i: x / 2 + 0.5 if i == 1 else x),
    ),
    # times and schedules
    "model told t + 1": ("time-off-by-one", ddpm(passed=lambda i, T: i + 1)),
    "fraction of t - 1": (
        "time-off-by-one",
        ddpm(passed=lambda i, T: torch.tensor([(i - 1) / T])),
    ),
    "coefficients of t - 1": (
        "time-off-by-one",
        ddpm(mean=lambda x, e, b, a, ab, i: _right(x, e, b, a, ab, max(i - 1, 1)),
             std=lambda b, a, ab, i: b[max(i - 1, 1)].sqrt()),
    ),
    "coefficients of t + 1": (
        "time-off-by-one",
        ddpm(mean=lambda x, e, b, a, ab, i: _right(x, e, b, a, ab, min(i + 1, len(b) - 1)),
             std=lambda b, a, ab, i: b[min(i + 1, len(b) - 1)].sqrt()),
    ),
    "step list wraps": ("time-index-wraps", ddim(n=30, wrap=True)),
    "steps upwards": ("time-order", ddpm(order=lambda T: range(1, T + 1))),
    "steps shuffled": (
        "time-order",
        ddpm(order=lambda T: np.random.default_rng(0).permutation(np.arange(1, T + 1)).tolist()),
    ),
    "cosine schedule": ("schedule-mismatch", ddpm(using=NoiseSchedule.cosine)),
    "another end of beta": (
        "schedule-mismatch",
        ddpm(using=lambda T: NoiseSchedule.linear(T, 1e-4, 0.03)),
    ),
    "schedule of 1000 steps": (
        "schedule-mismatch",
        ddpm(using=lambda T: NoiseSchedule.linear(1000), order=lambda T: range(1000, 0, -1)),
    ),
    # others
    "clipped x_0": ("x0-clipped", clipping(lambda x0: x0.clamp(-1, 1))),
    "thresholded x_0": ("x0-clipped", clipping(quantile_threshold)),
    "uniform start": ("start-not-normal", ddpm(start=torch.rand)),
    "start too wide": ("start-not-normal", ddpm(start=wide_start)),
    "division by zero": (
        "nonfinite",
        ddpm(mean=lambda x, e, b, a, ab, i: (x - e * b[i] / (1 - ab[i - 1]).sqrt()) / a[i].sqrt()),
    ),
    "2M that extrapolates too far": ("rule-unknown", multistep(wrong=1.05)),
}  # fmt: skip


# --------------------------------------------------- more faults, at other strengths and places


def halves(sign):
    """The second half of the batch repeats the first, or mirrors it."""

    def noise(x, i, state):
        z = torch.randn_like(x[: len(x) // 2])
        return torch.cat([z, sign * z])

    return noise


def mixed(shared, weight):
    """Fresh noise with a share of a noise of a smaller shape."""

    def noise(x, i, state):
        part = torch.randn(shared(x)).expand(x.shape)
        return weight**0.5 * part + (1 - weight) ** 0.5 * torch.randn_like(x)

    return noise


def mirrored(x, i, state):
    z = torch.randn_like(x)
    return (z + z.flip(-1)) / 2**0.5


def rolled(x, i, state):
    z = torch.randn_like(x)
    return (z + z.roll(3, -1)) / 2**0.5


def of_ten(x, i, state):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(i % 10))


def back_and_forth(x, i, state):
    """Every second step takes the noise of the step before away again."""
    if i % 2 == 0 or "z" not in state:
        state["z"] = torch.randn_like(x)
        return state["z"]
    return -state["z"]


def carried(r):
    def noise(x, i, state):
        z = torch.randn_like(x)
        z = r * state["z"] + (1 - r * r) ** 0.5 * z if "z" in state else z
        state["z"] = z
        return z

    return noise


def posterior_mean(first, second, std=None):
    """DDPM by DDPM eq. 7, with its two coefficients, of x_0 and of x_t, exchanged."""

    def make(schedule, shape):
        b, a, ab = tables(schedule)

        def sampler(model):
            x = torch.randn(shape)
            for i in range(schedule.T, 0, -1):
                x0 = (x - (1 - ab[i]).sqrt() * model(x, i)) / ab[i].sqrt()
                width = std(b, a, ab, i) if std else posterior(b, a, ab, i)
                mean = first(b, a, ab, i) * x0 + second(b, a, ab, i) * x
                x = (mean + (width * torch.randn_like(x) if i > 1 else 0)).float()
            return x

        return sampler

    return make


def _first(b, a, ab, i):
    return ab[i - 1].sqrt() * b[i] / (1 - ab[i])


def _second(b, a, ab, i):
    return a[i].sqrt() * (1 - ab[i - 1]) / (1 - ab[i])


def ramp(T):
    return NoiseSchedule.from_betas(np.linspace(0.01, 0.2, T) ** 2)


FAULTY |= {
    f"{factor} of the noise": (
        "noise-scale",
        ddpm(std=lambda b, a, ab, i, k=factor: k * b[i].sqrt()),
    )
    for factor in (0.25, 0.9, 0.95, 1.1, 1.5)
}
FAULTY |= {
    f"{factor} of the predicted noise": ("eps-coefficient", ddpm(mean=_scaled(factor)))
    for factor in (0.0, 0.9, 1.1, 2.0)
}
FAULTY |= {
    f"{factor} of x after every step": ("x-coefficient", ddpm(after=lambda x, i, k=factor: k * x))
    for factor in (0.95, 0.99, 1.01)
}
FAULTY |= {
    f"model told t + {shift}": ("time-off-by-one", ddpm(passed=lambda i, T, k=shift: i + k))
    for shift in (2, 3, 5)
}
FAULTY |= {
    # the law of the noise
    "sign of the noise": (
        "noise-not-normal",
        ddpm(noise=lambda x, i, s: torch.randn_like(x).sign()),
    ),
    "noise clamped to 2": (
        "noise-not-normal",
        ddpm(noise=lambda x, i, s: torch.randn_like(x).clamp(-2, 2)),
    ),
    "laplace noise": (
        "noise-not-normal",
        ddpm(noise=lambda x, i, s: torch.distributions.Laplace(0, 0.5**0.5).sample(x.shape)),
    ),
    "absolute noise": ("noise-not-normal", ddpm(noise=lambda x, i, s: torch.randn_like(x).abs())),
    "noise with a mean": ("bias", ddpm(noise=lambda x, i, s: torch.randn_like(x) + 0.5)),
    # its independence
    "two halves of a batch share noise": ("noise-shared-in-batch", ddpm(noise=halves(1))),
    "antithetic noise in the batch": ("noise-shared-in-batch", ddpm(noise=halves(-1))),
    "half of the noise shared": (
        "noise-shared-in-batch",
        ddpm(noise=mixed(lambda x: x.shape[1:], 0.5)),
    ),
    "a tenth of the noise shared": (
        "noise-shared-in-batch",
        ddpm(noise=mixed(lambda x: x.shape[1:], 0.1)),
    ),
    "offset noise": ("noise-correlated", ddpm(noise=mixed(lambda x: (*x.shape[:2], 1, 1), 0.1))),
    "one noise per row": ("noise-correlated", ddpm(noise=mixed(lambda x: (*x.shape[:3], 1), 1.0))),
    "mirrored noise": ("noise-correlated", ddpm(noise=mirrored)),
    "noise mixed over three pixels": ("noise-correlated", ddpm(noise=rolled)),
    "ten seeds in turn": ("noise-reused-across-steps", ddpm(noise=of_ten)),
    "noise taken back by the next step": ("noise-reused-across-steps", ddpm(noise=back_and_forth)),
    "noise that keeps 50 %": ("noise-reused-across-steps", ddpm(noise=carried(0.5))),
    "noise that keeps 30 %": ("noise-reused-across-steps", ddpm(noise=carried(0.3))),
    # its size
    "sigma of ddim squared": ("noise-scale", ddim(0.5, 20, sized=lambda sigma: sigma**2)),
    "eta in the noise, not in the direction": (
        "noise-scale",
        ddim(0.5, direction=lambda ab, s, sigma: np.sqrt(1 - ab[s])),
    ),
    "posterior variance for its root": (
        "noise-scale",
        ddpm(std=lambda b, a, ab, i: posterior(b, a, ab, i) ** 2),
    ),
    "ddim(eta=0.8) in 20 steps without noise": ("noise-missing", ddim(0.8, 20, noise=False)),
    # coefficients
    "beta for the whole coefficient": (
        "eps-coefficient",
        ddpm(mean=lambda x, e, b, a, ab, i: (x - e * b[i]) / a[i].sqrt()),
    ),
    "root of beta in the numerator": (
        "eps-coefficient",
        ddpm(mean=lambda x, e, b, a, ab, i: (x - e * (b[i] / (1 - ab[i])).sqrt()) / a[i].sqrt()),
    ),
    "alpha_bar of t - 1 below the root": (
        "eps-coefficient",
        ddpm(
            mean=lambda x, e, b, a, ab, i: (
                (x - e * b[i] / (1 - ab[max(i - 1, 1)]).sqrt()) / a[i].sqrt()
            )
        ),
    ),
    "root missing on the direction of ddim": (
        "eps-coefficient",
        ddim(0.0, 20, direction=lambda ab, s, sigma: 1 - ab[s]),
    ),
    "no direction in ddim": ("eps-coefficient", ddim(0.0, 20, direction=lambda ab, s, sigma: 0.0)),
    "times root alpha": (
        "x-coefficient",
        ddpm(mean=lambda x, e, b, a, ab, i: (x - e * b[i] / (1 - ab[i]).sqrt()) * a[i].sqrt()),
    ),
    "posterior mean with its coefficients exchanged": (
        "x-coefficient",
        posterior_mean(_second, _first),
    ),
    "posterior mean without 1 - alpha_bar of t - 1": (
        "x-coefficient",
        posterior_mean(_first, lambda b, a, ab, i: a[i].sqrt()),
    ),
    # times and schedules
    "time always T": ("time-order", ddpm(passed=lambda i, T: T)),
    "time counted upwards": ("time-order", ddpm(passed=lambda i, T: T - i)),
    "every step twice": (
        "time-order",
        ddpm(order=lambda T: [j for i in range(T, 0, -1) for j in (i, i)]),
    ),
    "one step left out": (
        "step-skipped",
        ddpm(order=lambda T: [i for i in range(T, 0, -1) if i != T // 2]),
    ),
    "stride without new coefficients": ("step-skipped", ddpm(order=lambda T: range(T, 0, -5))),
    "last step left out": ("time-ends-early", ddpm(order=lambda T: range(T, 1, -1))),
    "first step left out": ("time-starts-late", ddpm(order=lambda T: range(T - 1, 0, -1))),
    "root of beta linear": (
        "schedule-mismatch",
        ddpm(using=lambda T: NoiseSchedule.scaled_linear(T, 1e-4, 0.02)),
    ),
    "beta that no family has": ("schedule-mismatch", ddpm(using=ramp)),
    "ddim of another schedule": (
        "schedule-mismatch",
        lambda schedule, shape: ddim(n=20)(NoiseSchedule.linear(schedule.T, 1e-4, 0.021), shape),
    ),
    # the start and the end
    "start from zeros": ("start-not-normal", ddpm(start=torch.zeros)),
    "start shared by all": (
        "start-not-normal",
        ddpm(start=lambda shape: torch.randn(shape[1:]).expand(shape).clone()),
    ),
    "grey start": (
        "start-not-normal",
        ddpm(start=lambda shape: torch.randn(shape[0], 1, *shape[2:]).expand(shape).clone()),
    ),
    "start of a sigma loop not scaled": ("start-not-normal", sigma_form(scaled=False)),
    "one value not a number": (
        "nonfinite",
        ddpm(after=lambda x, i: x.index_fill(0, torch.tensor([0]), torch.nan) if i == 9 else x),
    ),
    "tanh of x_0": ("not-linear", clipping(torch.tanh)),
    # two at once: errors come before warnings
    "clipped x_0 and no noise": (
        "noise-missing",
        clipping(lambda x0: x0.clamp(-1, 1), noise=0.0),
    ),
    "clipped x_0 and half the noise": (
        "noise-scale",
        clipping(lambda x0: x0.clamp(-1, 1), noise=0.5),
    ),
}  # fmt: skip


# --------------------------------------------------- an exam, set after the verdict was made


def held(every):
    """A noise that is drawn anew in every k-th step only."""

    def noise(x, i, state):
        if i % every == 0 or "z" not in state:
            state["z"] = torch.randn_like(x)
        return state["z"]

    return noise


def ends_at_first(eta=0.0):
    """DDIM in strides of 5 that ends at the level of t = 1, as ``set_alpha_to_one=False`` does."""

    def make(schedule, shape):
        ab = schedule.alpha_bars

        def sampler(model):
            x = torch.randn(shape)
            for t in range(schedule.T - 4, 0, -5):
                s = max(t - 5, 1)
                e = model(x, t - 1)
                sigma = eta * np.sqrt((1 - ab[s]) / (1 - ab[t]) * max(1 - ab[t] / ab[s], 0))
                x0 = (x - np.sqrt(1 - ab[t]) * e) / np.sqrt(ab[t])
                x = np.sqrt(ab[s]) * x0 + np.sqrt(1 - ab[s] - sigma**2) * e
                x = x + sigma * torch.randn_like(x)
            return x

        return sampler

    return make


def heavy(x, i, state):
    return (3 / 5) ** 0.5 * torch.distributions.StudentT(5.0).sample(x.shape)


def half_resolution(x, i, state):
    return torch.randn_like(x[..., ::2, ::2]).repeat_interleave(2, -1).repeat_interleave(2, -2)


FAULTY |= {
    "answer clamped": (
        "not-linear",
        ddpm(mean=lambda x, e, b, a, ab, i: _right(x, e.clamp(-1, 1), b, a, ab, i)),
    ),
    "x clamped to 3": ("not-linear", ddpm(after=lambda x, i: x.clamp(-3, 3))),
    "noise kept for two steps": ("noise-reused-across-steps", ddpm(noise=held(2))),
    "noise kept for five steps": ("noise-reused-across-steps", ddpm(noise=held(5))),
    "three noises in turn": (
        "noise-reused-across-steps",
        ddpm(noise=lambda x, i, s: s.setdefault(i % 3, torch.randn_like(x))),
    ),
    "heavy tails": ("noise-not-normal", ddpm(noise=heavy)),
    "dropout on the noise": (
        "noise-not-normal",
        ddpm(noise=lambda x, i, s: torch.nn.functional.dropout(torch.randn_like(x), 0.1)),
    ),
    "noise of half the resolution": ("noise-correlated", ddpm(noise=half_resolution)),
    "two samples share their noise": (
        "noise-shared-in-batch",
        ddpm(noise=lambda x, i, s: torch.randn_like(x)[[0, *range(len(x) - 1)]]),
    ),
    "four noises over the batch": (
        "noise-shared-in-batch",
        ddpm(noise=lambda x, i, s: torch.randn_like(x[:4]).repeat(len(x) // 4, 1, 1, 1)),
    ),
    "noise in every second step": (
        "noise-scale",
        ddpm(std=lambda b, a, ab, i: b[i].sqrt() * (i % 2)),
    ),
    "noise that falls with t": (
        "noise-scale",
        ddpm(std=lambda b, a, ab, i: b[i].sqrt() * i / (len(b) - 1)),
    ),
    "posterior with its root misplaced": (
        "noise-scale",
        ddpm(std=lambda b, a, ab, i: b[i] * (1 - ab[i - 1]).sqrt() / (1 - ab[i])),
    ),
    "product of beta for alpha_bar": (
        "eps-coefficient",
        ddpm(
            mean=lambda x, e, b, a, ab, i: (
                (x - e * b[i] / (1 - b[1 : i + 1].prod()).sqrt()) / a[i].sqrt()
            )
        ),
    ),
    "last update left out": (
        "time-ends-early",
        ddpm(mean=lambda x, e, b, a, ab, i: _right(x, e, b, a, ab, i) if i > 1 else x),
    ),
    "ddim that ends at the first level": ("time-ends-early", ends_at_first()),
    "ddim(eta=0.5) that ends at the first level": ("time-ends-early", ends_at_first(0.5)),
    "beta backwards": (
        "schedule-mismatch",
        ddpm(using=lambda T: NoiseSchedule.from_betas(NoiseSchedule.linear(T).betas[:0:-1])),
    ),
    "beta constant": (
        "schedule-mismatch",
        ddpm(using=lambda T: NoiseSchedule.from_betas(np.full(T, 0.01))),
    ),
}


def fraction(i, T):
    return torch.tensor([i / T])[:, None, None, None]


def steeper(T):
    return NoiseSchedule.linear(T, 1e-4, 0.025)


def one_sample_shrunk(x, i):
    return torch.cat([x[:1] * 0.97, x[1:]])


def of_other_length(T, passed):
    """DDPM whose tables have T steps, whatever the schedule of the model has."""

    def make(schedule, shape):
        return ddpm(passed=passed)(NoiseSchedule.linear(T), shape)

    return make


unit = partial(torch.clamp, min=-1, max=1)

FAULTY |= {
    # x̂_0 made with the wrong numbers is clipped even where it should not be
    "clipped x_0 of another schedule": ("schedule-mismatch", clipping(unit, using=steeper)),
    "clipped x_0 of the cosine schedule": (
        "schedule-mismatch",
        clipping(unit, using=NoiseSchedule.cosine),
    ),
    "clipped x_0 and 2 % more of the answer": ("eps-coefficient", clipping(unit, eps=1.02)),
    "ddim with clipped x_0 and the time three steps off": (
        "time-off-by-one",
        ddim(n=20, clip=unit, passed=lambda t, T: t - 3),
    ),
    "ddim of another schedule with clipped x_0": (
        "schedule-mismatch",
        lambda schedule, shape: ddim(n=20, clip=unit)(steeper(schedule.T), shape),
    ),
    "80 steps of their own": ("schedule-mismatch", of_other_length(80, fraction)),
    "50 steps of their own": ("schedule-mismatch", of_other_length(50, lambda i, T: i)),
    "sigma of the step after": ("time-off-by-one", sigma_form(denoised=False, told=1)),
    "ancestral, sigma of the step after": (
        "time-off-by-one",
        sigma_form(denoised=False, told=1, ancestral=True),
    ),
    "last euler step left out": ("time-ends-early", sigma_form(leave_out=1)),
    "last ancestral step left out": ("time-ends-early", sigma_form(ancestral=True, leave_out=1)),
    "one sample shrinks": ("not-linear", ddpm(after=one_sample_shrunk)),
    "clipped x_0 of a model of v": ("x0-clipped", clipping(unit, answer="v")),
    "clipped x_0 of a model of x_0": ("x0-clipped", clipping(unit, answer="x0")),
    "clipped x_0 in sigma form": ("x0-clipped", sigma_form(clip=unit)),
    "clipped x_0 of a model of v, half the noise": (
        "noise-scale",
        clipping(unit, answer="v", noise=0.5),
    ),
    "posterior mean, model told t + 2": ("time-off-by-one", clipping(lambda x0: x0, told=2)),
    "steps of half the stride": ("step-skipped", ddim(n=20, ends=lambda t, s: (t + s + 1) // 2)),
    "steps of twice the stride": (
        "step-skipped",
        ddim(n=20, ends=lambda t, s: max(2 * s - t, 0)),
    ),
    "ddim that starts from one sample": (
        "start-not-normal",
        ddim(n=20, start=lambda shape: torch.randn(shape[1:]).expand(shape).clone()),
    ),
    "ddim that ends at a level of its own": ("time-ends-early", ddim(n=20, ab_0=0.99995)),
    "last sigma twice": (
        "time-ends-early",
        sigma_form(spaced=lambda levels: np.append(levels[:-1], levels[-2])),
    ),
}


CORRECT = {
    "tutorial": (("ddpm/beta",), tutorial()),
    "ddpm, index": (("ddpm/beta",), ddpm()),
    "ddpm, float32 tables": (("ddpm/beta",), ddpm(dtype=torch.float32)),
    "ddpm, index from 0": (("ddpm/beta",), ddpm(passed=lambda i, T: torch.tensor(i - 1))),
    "ddpm, fraction": (("ddpm/beta",), ddpm(passed=fraction)),
    "ddpm, batch of times": (("ddpm/beta",), ddpm(passed=lambda i, T: torch.full((4,), i))),
    "ddpm, float index": (("ddpm/beta",), ddpm(passed=lambda i, T: float(i))),
    "ddpm, posterior": (("ddpm/posterior", "ddim(eta=1)"), ddpm(std=posterior)),
    "posterior mean in terms of x_0": (("ddpm/posterior", "ddim(eta=1)"), clipping(lambda x0: x0)),
    "ddim": (("ddim(eta=0)",), ddim(0.0)),
    "ddim(eta=0.5)": (("ddim(eta=0.5)",), ddim(0.5)),
    "ddim(eta=1)": (("ddim(eta=1)", "ddpm/posterior"), ddim(1.0)),
    "ddim, 20 steps": (("ddim(eta=0)",), ddim(0.0, n=20)),
    "ddim, 30 steps": (("ddim(eta=0)",), ddim(0.0, n=30, passed=fraction)),
    "ddim(eta=0.7), 20 steps": (("ddim(eta=0.7)",), ddim(0.7, n=20)),
    "euler, denoised": (("euler",), sigma_form()),
    "euler, eps": (("euler",), sigma_form(denoised=False)),
    "euler ancestral, denoised": (("euler-ancestral",), sigma_form(ancestral=True)),
    "euler ancestral, eps": (("euler-ancestral",), sigma_form(ancestral=True, denoised=False)),
    "dpm-solver++(2m)": (("dpm-solver++(2m)",), multistep()),
    "dpm-solver++(2m), 40 steps": (("dpm-solver++(2m)",), multistep(n=40)),
}


def in_place(dtype):
    """DDPM that works on x and on the answer themselves."""

    def make(schedule, shape):
        b, a, ab = tables(schedule, dtype)

        def sampler(model):
            x = torch.randn(shape, dtype=dtype)
            for i in range(schedule.T, 0, -1):
                e = model(x, i)
                e.mul_(b[i] / (1 - ab[i]).sqrt())
                x.sub_(e).div_(a[i].sqrt())
                if i > 1:
                    x.add_(torch.randn_like(x), alpha=float(b[i].sqrt()))
            return x

        return sampler

    return make


def returning(wrap):
    """DDPM that calls its model by keywords and returns something that holds x_0."""

    def make(schedule, shape):
        def sampler(model):
            states = []

            def named(x, i):
                states.append(x)
                return model(sample=x, timestep=torch.full((len(x),), i))

            return wrap(ddpm()(schedule, shape)(named), states)

        return sampler

    return make


def respaced(schedule, shape):
    """The betas of every fifth step made anew, as improved diffusion does."""
    times = np.arange(schedule.T, 0, -5)[::-1]
    ab = schedule.alpha_bars[times]
    b = 1 - ab / np.append(1, ab[:-1])
    own = NoiseSchedule.from_betas(b)

    def sampler(model):
        inner = ddpm(std=posterior)(own, shape)
        return inner(lambda x, i: model(x, torch.full((len(x),), int(times[i - 1]) - 1)))

    return sampler


CORRECT |= {
    "in place, float64": (("ddpm/beta",), in_place(torch.float64)),
    "in place, float32": (("ddpm/beta",), in_place(torch.float32)),
    "a list of states": (("ddpm/beta",), returning(lambda x, states: [*states, x])),
    "a dict": (("ddpm/beta",), returning(lambda x, states: {"samples": x, "steps": len(states)})),
    "respaced": (("ddpm/posterior",), respaced),
}
