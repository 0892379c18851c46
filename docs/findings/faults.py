"""The faults of the pages on findings: each a few lines, and the lines that mend it.

A fault is a base loop with some of its lines exchanged, so that what the page shows as wrong and
as mended is what was run. ``T`` is the number of steps, ``b``, ``a`` and ``ab`` are β, α and ᾱ as
tensors; a sampler is ``sample(model, shape)``.
"""

from dataclasses import dataclass

DDPM = """\
def sample(model, shape):
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn_like(x) if t > 1 else 0
        mean = (x - eps * b[t] / (1 - ab[t]).sqrt()) / a[t].sqrt()
        x = mean + b[t].sqrt() * z
    return x
"""
DDIM = """\
def sample(model, shape):
    x = torch.randn(shape)
    times = list(range(T, 0, -T // 25)) + [0]
    for t, s in pairwise(times):
        eps = model(x, t)
        x_0 = (x - (1 - ab[t]).sqrt() * eps) / ab[t].sqrt()
        x = ab[s].sqrt() * x_0 + (1 - ab[s]).sqrt() * eps
    return x
"""
MULTISTEP = """\
def sample(model, shape):
    x, old, last = torch.randn(shape), None, 1.0
    times = list(range(T, 0, -T // 25)) + [0]
    for t, s in pairwise(times):
        x_0 = (x - (1 - ab[t]).sqrt() * model(x, t)) / ab[t].sqrt()
        h = half_log_snr(s) - half_log_snr(t)
        extra = 0 if old is None or s == 0 else h / last / 2
        best = x_0 if old is None else (1 + extra) * x_0 - extra * old
        x = ((1 - ab[s]) / (1 - ab[t])).sqrt() * x - ab[s].sqrt() * torch.expm1(-h) * best
        old, last = x_0, h
    return x
"""


@dataclass(frozen=True)
class Fault:
    """One finding and how to come by it.

    Attributes:
        why: what it is and where it comes from.
        lines: (right line, wrong line), as they stand in the base loop.
        base: the right loop.
        network: show it on the shipped network instead of the exact denoiser of the data.
        tables: the faulty loop's schedule, where the tables themselves are wrong.
    """

    why: str
    lines: tuple[tuple[str, str], ...]
    base: str = DDPM
    network: bool = False
    tables: str = ""

    @property
    def wrong(self) -> str:
        """The faulty loop."""
        text = self.base
        for right, wrong in self.lines:
            if right not in text:
                raise ValueError(f"{right!r} is no part of the loop")
            text = text.replace(right, wrong)
        return text


AFTER = "b[t].sqrt() * z"
NOISE = "z = torch.randn_like(x) if t > 1 else 0"
SEEN_IN_CODE = {
    "noise-missing": Fault(
        "The step keeps the coefficients of a stochastic rule and drops its "
        "noise. Its whole score "
        "contracts the samples, and no noise spreads them again. It comes of z = 0 in the wrong "
        "place, of an argument that is 0 by default, and of taking the "
        "posterior mean for a sample.",
        ((NOISE, "z = 0"),),
        network=True,
    ),
    "noise-scale": Fault(
        "The noise is there and has the wrong size at some steps or at all. Mostly a variance is "
        "taken for a standard deviation, as here, or the other way round.",
        (("b[t].sqrt() * z", "b[t] * z"),),
    ),
    "noise-last-step": Fault(
        "The step that ends at t = 0 adds noise too, and no step is left to take it away.",
        ((NOISE, "z = torch.randn_like(x)"),),
    ),
    "noise-not-normal": Fault(
        "The noise is not drawn from N(0, 1). `rand` for `randn` gives numbers in [0, 1): their "
        "mean drifts the samples, and their std is too small.",
        (("torch.randn_like(x) if", "torch.rand_like(x) if"),),
    ),
    "noise-shared-in-batch": Fault(
        "One draw is used for all samples of a batch, by broadcasting. Each sample alone looks "
        "right, yet the samples are not independent of each other.",
        (("torch.randn_like(x) if", "torch.randn_like(x[:1]) if"),),
    ),
    "noise-reused-across-steps": Fault(
        "The noise is drawn once and added again in every step, or the generator is seeded inside "
        "the loop. Noise that should average out piles up.",
        (
            ("    for t in", "    noise = torch.randn(shape)\n    for t in"),
            (NOISE, "z = noise if t > 1 else 0"),
        ),
    ),
    "noise-correlated": Fault(
        "One number is used for several values of a sample: here one draw for all three channels, "
        "so that the noise is grey.",
        (("torch.randn_like(x) if", "torch.randn_like(x[:, :1]) if"),),
    ),
    "eps-coefficient": Fault(
        "The predicted noise enters with the wrong weight: a root that is "
        "missing, a sign, α for ᾱ, "
        "or guidance applied twice.",
        (("b[t] / (1 - ab[t]).sqrt()", "b[t] / (1 - ab[t])"),),
    ),
    "x-coefficient": Fault(
        "The state itself enters with the wrong weight. Without the division by √α_t the samples "
        "lose contrast a little in every step.",
        (
            (
                "(x - eps * b[t] / (1 - ab[t]).sqrt()) / a[t].sqrt()",
                "x - eps * b[t] / (1 - ab[t]).sqrt()",
            ),
        ),
    ),
    "schedule-mismatch": Fault(
        "The loop uses another β_t than the network was trained with: another kind of schedule, "
        "other ends, another number of steps.",
        (),
        tables="dv.NoiseSchedule.cosine(T)",
    ),
    "time-off-by-one": Fault(
        "The model is told another time than the one whose coefficients the step uses: tables "
        "that start at another index, or T−1…0 for T…1, as diffusers counts and the tutorial "
        "does not.",
        (
            ("mean = ", "i = max(t - 2, 1)\n        mean = "),
            (
                "b[t] / (1 - ab[t]).sqrt()) / a[t].sqrt()",
                "b[i] / (1 - ab[i]).sqrt()) / a[i].sqrt()",
            ),
            ("b[t].sqrt() * z", "b[i].sqrt() * z"),
        ),
    ),
    "time-index-wraps": Fault(
        "T is not a multiple of the stride, so the last time of the list is below 0, and Python "
        "reads ᾱ from the end of the table: the last step leads back into noise.",
        (("range(T, 0, -T // 25)) + [0]", "range(T, -16, -16))"),),
        base=DDIM,
    ),
    "time-order": Fault(
        "The times do not fall from T to 1: they rise, are shuffled, or one comes twice.",
        (("range(T, 0, -1)", "range(1, T + 1)"),),
    ),
    "time-ends-early": Fault(
        "The last step ends above t = 0, where a little noise is still in the "
        "samples. Some models "
        "are tuned with it: `set_alpha_to_one=False` of diffusers.",
        (("+ [0]", "+ [2]"),),
        base=DDIM,
    ),
    "nonfinite": Fault(
        "A step gives NaN or infinity. Near t = 0 there is much to divide by zero.",
        (("(1 - ab[t]).sqrt()", "(1 - ab[t - 1]).sqrt()"),),
    ),
    "x0-clipped": Fault(
        "x̂_0 is held within [−1, 1] before the step goes on with it. For "
        "images that is right and "
        "usual, and a finding only because nothing else shows it; for latents "
        "and standardised data "
        "it cuts off what belongs there.",
        (("/ ab[t].sqrt()\n", "/ ab[t].sqrt()\n        x_0 = x_0.clamp(-1, 1)\n"),),
        base=DDIM,
    ),
    "bias": Fault(
        "A constant is added in every step: noise with a mean, or a range that is changed inside "
        "the loop.",
        (("b[t].sqrt() * z", "b[t].sqrt() * z + 0.002"),),
    ),
    "rule-unknown": Fault(
        "The steps depend on the call before in a way that no rule known here has. Here a "
        "second-order rule extrapolates a little too far.",
        (("h / last / 2", "h / last / 1.9"),),
        base=MULTISTEP,
    ),
    "start-not-normal": Fault(
        "x_T is not N(0, I). The network has never seen such a state, and what the start has too "
        "little of, the samples lack.",
        (("torch.randn(shape)", "torch.rand(shape)"),),
    ),
    "step-skipped": Fault(
        "The model is told every second time, and each step uses the "
        "coefficients of a single one. "
        "x then holds more noise than the model is told.",
        (("range(T, 0, -1)", "range(T, 0, -2)"),),
    ),
    "time-starts-late": Fault(
        "The first call is well below T, but x is pure noise. The model expects the share of an "
        "image that x_t has there.",
        (("range(T, 0, -T // 25)", "range(T - T // 5, 0, -T // 25)"),),
        base=DDIM,
    ),
    "not-linear": Fault(
        "Something bends the state itself: it is clipped, squashed or normalised by its largest "
        "value. Of its noise nothing can then be said.",
        ((AFTER, AFTER + "\n        x = x / x.abs().amax((1, 2, 3), keepdim=True).clamp(min=1)"),),
    ),
    "half-precision": Fault(
        "The states are kept in a narrow type, and every step rounds them.",
        (
            ("torch.randn(shape)", "torch.randn(shape).bfloat16()"),
            ("b[t].sqrt() * z", "b[t].sqrt() * z\n        x = x.bfloat16()"),
        ),
    ),
}


@dataclass(frozen=True)
class Recorded:
    """A finding about a recorded run: code that leaves ``run``, and what mends it.

    It finds ``schedule``, ``dv`` and ``torch``. Its data are numbers around 2; ``span`` is how far
    its samples reach.
    """

    why: str
    right: str
    lines: tuple[tuple[str, str], ...]
    span: int = 4

    @property
    def wrong(self) -> str:
        """The faulty code."""
        text = self.right
        for right, wrong in self.lines:
            if right not in text:
                raise ValueError(f"{right!r} is no part of the code")
            text = text.replace(right, wrong)
        return text


GAUSSIAN = """\
model = dv.GaussianDenoiser(schedule, 2.0, 0.5)
arm = dv.Arm("mine", dv.ddpm(), noise_scale=1.0)
run = dv.record(model, schedule, arms=[arm], n=4096, seed=0, progress=False)
"""
MIXTURE = """\
model = dv.MixtureDenoiser(schedule, [1, 3], [0.2, 0.3], [0.7, 0.3])
arm = dv.Arm("mine", dv.ddpm(), noise_scale=1.0)
run = dv.record(model, schedule, arms=[arm], n=4096, seed=0, progress=False)
"""
SEEN_IN_RUNS = {
    "collapse-to-mean": Recorded(
        "The samples have far less spread than the data, and on the way x_t came closer to the "
        "mean than it should. This is what a missing noise looks like in the samples.",
        GAUSSIAN,
        (("noise_scale=1.0", "noise_scale=0.0"),),
    ),
    "marginal-off": Recorded(
        "x_t has another law than q(x_t), so the denoiser is asked about states that it was not "
        "trained on. Whatever is wrong with a step ends in this.",
        MIXTURE,
        (("noise_scale=1.0", "noise_scale=0.5"),),
    ),
    "samples-diverge": Recorded(
        "The samples end far from where data can be. A step pushes x_t away instead of drawing it "
        "in: a wrong sign, a coefficient that grows near t = 0, or, as here, a network that "
        "answers with v = √ᾱ_t·ε − √(1−ᾱ_t)·x_0 and is taken for one that answers with ε.",
        """\
exact = dv.GaussianDenoiser(schedule, 2.0, 0.5)


def v(x, t):
    bar = schedule.alpha_bars[t]
    eps = exact(x, t)
    x0 = (x - (1 - bar) ** 0.5 * eps) / bar**0.5
    return bar**0.5 * eps - (1 - bar) ** 0.5 * x0


def model(x, t, context=None):
    bar = schedule.alpha_bars[t]
    return bar**0.5 * v(x, t) + (1 - bar) ** 0.5 * x


arm = dv.Arm("mine", dv.ddpm())
run = dv.record(model, schedule, arms=[arm], n=4096, seed=0, sample_shape=(), progress=False)
""",
        (("return bar**0.5 * v(x, t) + (1 - bar) ** 0.5 * x", "return v(x, t)"),),
        span=16,
    ),
    "mode-lost": Recorded(
        "A part of the data gets less than half of its share of the samples. A sampler that "
        "contracts too much falls into what is most common.",
        MIXTURE,
        (("noise_scale=1.0", "noise_scale=0.0"),),
    ),
    "residual-off": Recorded(
        "All noise is in place, and yet x_t does not hold as much of it as it should for the "
        "trajectory's own end. Then the denoiser misjudges the noise: a short training, or one "
        "with another formula for x_t. Here it answers too little.",
        """\
exact = dv.GaussianDenoiser(schedule, 2.0, 0.5)


def model(x, t, context=None):
    return exact(x, t)


arm = dv.Arm("mine", dv.ddpm())
run = dv.record(model, schedule, arms=[arm], n=4096, seed=0, sample_shape=(), progress=False)
""",
        (("return exact(x, t)", "return 0.8 * exact(x, t)"),),
    ),
    "perturbation-formula": Recorded(
        "The network was fitted to x_t = √ᾱ_t·x_0 + (1−ᾱ_t)·ε, where the root over 1−ᾱ_t is "
        "missing, as in many copies of the tutorial's training cell. Here a denoiser that is "
        "exact for that formula stands for it. The residual hardly moves; it shows in the std of "
        "x_t, which falls below what data and schedule give in the middle of the path and not "
        "near T.",
        """\
def model(x, t, context=None):
    bar = schedule.alpha_bars[t]
    noise = (1 - bar) ** 0.5
    return noise * (x - bar**0.5 * 2) / (bar * 0.5**2 + noise**2)


arm = dv.Arm("mine", dv.ddpm())
run = dv.record(model, schedule, arms=[arm], n=4096, seed=0, sample_shape=(), progress=False)
""",
        (("noise = (1 - bar) ** 0.5", "noise = 1 - bar"),),
    ),
    "denoiser-random": Recorded(
        "The denoiser answers the same question differently each time: dropout that was left on, "
        "a layer that draws its weights in `forward`, noise in the answer. `record` asks it twice "
        "about the same x_T. What changes between the answers adds noise of its own to every "
        "step, and a deterministic rule is one no more. In the samples it may not show at all, as "
        "here.",
        """\
exact = dv.GaussianDenoiser(schedule, 2.0, 0.5)


def model(x, t, context=None):
    return torch.nn.functional.dropout(exact(x, t), 0.1, training=False)


arm = dv.Arm("mine", dv.ddim())
run = dv.record(model, schedule, arms=[arm], n=4096, seed=0, sample_shape=(), progress=False)
""",
        (("training=False", "training=True"),),
    ),
    "denoiser-train-mode": Recorded(
        "The answer about a sample depends on the samples beside it. `record` exchanges half of a "
        "batch and looks at the other half. Most often the network is still in train mode, where "
        "batch normalisation takes mean and variance from the batch and not from the training.",
        """\
exact = dv.GaussianDenoiser(schedule, 2.0, 0.5)
norm = torch.nn.BatchNorm1d(1, affine=False)
norm.eval()


def model(x, t, context=None):
    return norm(exact(x, t)[:, None])[:, 0]


arm = dv.Arm("mine", dv.ddpm())
run = dv.record(model, schedule, arms=[arm], n=4096, seed=0, sample_shape=(), progress=False)
""",
        (("norm.eval()", "norm.train()"),),
    ),
    "terminal-mismatch": Recorded(
        "The training's x_T still holds some signal, and sampling starts "
        "without. Stochastic rules "
        "forget it; DDIM carries the difference to the end.",
        """\
schedule = dv.NoiseSchedule.linear(1000)
model = dv.GaussianDenoiser(schedule, 2.0, 0.5)
arm = dv.Arm("mine", dv.ddim())
run = dv.record(model, schedule, arms=[arm], n=4096, seed=0, progress=False)
""",
        (("linear(1000)", "linear(500)"),),
    ),
}
VARIANCE = Fault(
    "DDPM has two usual variances with one mean. √β_t is best for data of variance 1, √β̃_t for a "
    "single point; they differ near t = 0 only. This is a finding where a "
    "test asks for the other.",
    (
        (
            "b[t].sqrt() * z",
            "(b[t] * (1 - ab[t - 1]) / (1 - ab[t])).sqrt() * z",
        ),
    ),
)
