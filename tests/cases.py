"""Further loops and faults for the tests of the x-ray, written as in `diffviz.identify.zoo`.

``RIGHT`` maps a name to (rules it may be given, source), ``WRONG`` to (finding that must come
first, or several that may, with | between them, source). Both hold the shipped ones too.
"""

from diffviz.identify.zoo import Program, fault, faults, mutate, programs

_Z = "torch.randn_like(x) if t > 1 else 0"
_STD = "beta[t].sqrt() * z"
_ROOT = "(1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()"
_FACTOR = "(1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()"
_LOOP = "    for t in range"
_START = "x = torch.randn(shape)"


def _z(noise, finding, name):
    """DDPM whose noise is another; ``noise`` may be several lines and ends with an expression."""
    *lines, last = noise.split("; ")
    before = "".join(f"        {line}\n" for line in lines)
    return name, finding, "        z = " + _Z, f"{before}        z = ({last}) if t > 1 else 0"


_HEAD = "(model, shape):", "(model, shape, beta=beta, alpha=alpha, alpha_bar=alpha_bar):"


def _tables(beta):
    """DDPM with β of its own."""
    return (
        *_HEAD,
        _LOOP,
        (
            f"    beta = torch.cat([torch.zeros(1), {beta}]).double()\n"
            f"    alpha, alpha_bar = 1 - beta, (1 - beta).cumprod(0)\n{_LOOP}"
        ),
    )


_TUTORIAL = Program(
    "tutorial",
    ("ddpm/beta",),
    '''\
@torch.no_grad()
def sample(model, shape):
    """The first lesson's loop, t as i/T in shape (1, 1, 1, 1)."""
    b_t, a_t, ab_t = beta.float(), alpha.float(), alpha_bar.float()

    def denoise_add_noise(x, t, pred_noise, z=None):
        if z is None:
            z = torch.randn_like(x)
        noise = b_t.sqrt()[t] * z
        mean = (x - pred_noise * ((1 - a_t[t]) / (1 - ab_t[t]).sqrt())) / a_t[t].sqrt()
        return mean + noise

    samples = torch.randn(shape)
    intermediate = []
    for i in range(T, 0, -1):
        t = torch.tensor([i / T])[:, None, None, None]
        z = torch.randn_like(samples) if i > 1 else 0
        eps = model(samples, t, c=None)
        samples = denoise_add_noise(samples, i, eps, z)
        if i % 20 == 0 or i == T or i < 8:
            intermediate.append(samples.detach().cpu().numpy())
    return samples, intermediate
''',
)
_EXTRA = (
    _TUTORIAL,
    Program(
        "ddim-v",
        ("ddim(eta=0)",),
        programs()["ddim"]
        .source.replace("eps = model(x, t)", "v = model(x, t)")
        .replace(
            "x_0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()",
            "x_0 = alpha_bar[t].sqrt() * x - (1 - alpha_bar[t]).sqrt() * v\n"
            "        eps = (1 - alpha_bar[t]).sqrt() * x + alpha_bar[t].sqrt() * v",
        ),
        answer="v",
    ),
)
_PROGRAMS = {**programs(), **{program.name: program for program in _EXTRA}}

_RIGHT = {
    # (program, name) to (rules, edits)
    ("ddpm", "told from 0"): (("ddpm/beta",), "model(x, t)", "model(x, t - 1)"),
    ("ddpm", "told a fraction"): (
        ("ddpm/beta",),
        "model(x, t)",
        "model(x, torch.tensor([t / T]))",
    ),
    ("ddpm", "told a batch"): (
        ("ddpm/beta",),
        "model(x, t)",
        "model(sample=x, timestep=torch.full((len(x),), t))",
    ),
    ("ddpm", "float32 tables"): (
        ("ddpm/beta",),
        *_HEAD,
        _LOOP,
        f"    beta, alpha, alpha_bar = beta.float(), alpha.float(), alpha_bar.float()\n{_LOOP}",
    ),
    ("ddpm", "in place"): (
        ("ddpm/beta",),
        "        mean = (x - eps * " + _FACTOR + ") / alpha[t].sqrt()\n        x = mean + " + _STD,
        "        x.sub_(eps.mul_(" + _FACTOR + ")).div_(alpha[t].sqrt())\n"
        "        x.add_(" + _STD + ")",
    ),
    ("ddpm", "a list of states"): (
        ("ddpm/beta",),
        "return x",
        "return [torch.zeros(shape), x]",
    ),
    ("ddpm", "a dict"): (("ddpm/beta",), "return x", 'return {"samples": x, "steps": T}'),
    ("ddim-with-noise", "η = 0.5"): (("ddim(eta=0.5)",), "std = (", "std = 0.5 * ("),
    ("euler", "a model of ε"): (
        ("euler", "ddim(eta=0)"),
        "        x_0 = model(x, now)\n        slope = (x - x_0) / now",
        "        slope = model(x, now)",
    ),
}
_WRONG = {
    "tutorial": (
        (
            "z = 0 in the tutorial",
            "noise-missing",
            "torch.randn_like(samples) if i > 1 else 0",
            "0",
        ),
    ),
    "ddpm": (
        # how much noise
        *(
            (f"{k} of the noise", "noise-scale", f"+ {_STD}", f"+ {k} * {_STD}")
            for k in (0.25, 0.95, 1.05, 1.5)
        ),
        ("no noise below t = 10", "noise-scale", "if t > 1 else", "if t > 10 else"),
        ("noise in every second step", "noise-scale", _STD, f"{_STD} * (t % 2)"),
        ("noise that falls with t", "noise-scale", _STD, f"{_STD} * (t / T)"),
        # of which law
        _z("(torch.rand_like(x) - 0.5) * 12**0.5", "noise-not-normal", "uniform of std 1"),
        _z("torch.randn_like(x).sign()", "noise-not-normal", "signs"),
        _z("torch.randn_like(x).clamp(-2, 2)", "noise-not-normal", "noise clamped"),
        _z("torch.randn_like(x).abs()", "noise-not-normal", "absolute noise"),
        _z(
            "torch.distributions.Laplace(0, 0.5**0.5).sample(x.shape)",
            "noise-not-normal",
            "Laplace noise",
        ),
        _z(
            "(3 / 5) ** 0.5 * torch.distributions.StudentT(5.0).sample(x.shape)",
            "noise-not-normal",
            "heavy tails",
        ),
        _z(
            "torch.nn.functional.dropout(torch.randn_like(x), 0.1)",
            "noise-not-normal",
            "dropout on the noise",
        ),
        _z("torch.randn_like(x) + 0.5", "bias", "noise with a mean"),
        # shared in the batch
        _z("h = torch.randn_like(x[::2]); torch.cat([h, h])", "noise-shared-in-batch", "halves"),
        _z(
            "h = torch.randn_like(x[::2]); torch.cat([h, -h])",
            "noise-shared-in-batch",
            "mirrored halves",
        ),
        *(
            _z(
                f"{p}**0.5 * torch.randn_like(x[:1]) + {1 - p}**0.5 * torch.randn_like(x)",
                "noise-shared-in-batch",
                f"{p} of the noise shared",
            )
            for p in (0.1, 0.5)
        ),
        _z("torch.randn_like(x)[[0, *range(len(x) - 1)]]", "noise-shared-in-batch", "two share"),
        _z(
            "torch.randn_like(x[:4]).repeat(len(x) // 4, 1, 1, 1)",
            "noise-shared-in-batch",
            "four noises",
        ),
        # used again
        *(
            _z(
                f"fresh = torch.randn_like(x); "
                f"kept = fresh if t == T else {r} * kept + {(1 - r * r) ** 0.5} * fresh; kept",
                "noise-reused-across-steps",
                f"{r} of the noise before",
            )
            for r in (0.3, 0.8)
        ),
        _z(
            "torch.randn(shape, generator=torch.Generator().manual_seed(t % 10))",
            "noise-reused-across-steps",
            "ten seeds in turn",
        ),
        _z(
            "kept = torch.randn_like(x) if t % 2 == T % 2 else -kept; kept",
            "noise-reused-across-steps",
            "noise taken back",
        ),
        _z(
            "kept = torch.randn_like(x) if t % 5 == T % 5 else kept; kept",
            "noise-reused-across-steps",
            "noise kept for five steps",
        ),
        (
            "start used as noise",
            "noise-reused-across-steps",
            _START,
            f"{_START}\n    start = x",
            "torch.randn_like(x) if",
            "start if",
        ),
        # correlated in a sample
        _z("torch.randn_like(x[:, :1, :1, :1])", "noise-correlated", "one number for each image"),
        _z("z = torch.randn_like(x); (z + z.roll(1, -1)) / 2**0.5", "noise-correlated", "blurred"),
        _z("z = torch.randn_like(x); (z + z.flip(-1)) / 2**0.5", "noise-correlated", "mirrored"),
        _z("torch.randn_like(x[..., :1])", "noise-correlated", "one noise for each row"),
        _z(
            "0.1**0.5 * torch.randn_like(x[..., :1, :1]) + 0.9**0.5 * torch.randn_like(x)",
            "noise-correlated",
            "offset noise",
        ),
        _z(
            "torch.randn_like(x[..., ::2, ::2]).repeat_interleave(2, -1).repeat_interleave(2, -2)",
            "noise-correlated",
            "half the resolution",
        ),
        # coefficients
        *(
            (f"{k} of ε̂", "eps-coefficient", "x - eps", f"x - {k} * eps")
            for k in (0.0, 0.9, 1.1, 2.0)
        ),
        ("β for all of it", "eps-coefficient", _FACTOR, "beta[t]"),
        ("root of β", "eps-coefficient", _FACTOR, "(beta[t] / (1 - alpha_bar[t])).sqrt()"),
        (
            "ᾱ of t − 1 under the root",
            "eps-coefficient",
            _ROOT,
            "(1 - alpha_bar[max(t - 1, 1)]).sqrt()) / alpha[t].sqrt()",
        ),
        (
            "product of β",
            "eps-coefficient",
            _ROOT,
            "(1 - beta[1 : t + 1].prod()).sqrt()) / alpha[t].sqrt()",
        ),
        ("divided by root ᾱ", "x-coefficient", "/ alpha[t].sqrt()", "/ alpha_bar[t].sqrt()"),
        ("times root α", "x-coefficient", ") / alpha[t].sqrt()", ") * alpha[t].sqrt()"),
        *(
            (f"{k} of x", "x-coefficient", _STD, f"{_STD}\n        x = {k} * x")
            for k in (0.99, 1.01)
        ),
        # times
        *(
            (f"told t + {k}", "time-off-by-one", "model(x, t)", f"model(x, t + {k})")
            for k in (2, 5)
        ),
        (
            "told a fraction of t − 1",
            "time-off-by-one",
            "model(x, t)",
            "model(x, torch.tensor([(t - 1) / T]))",
        ),
        (
            "coefficients of t − 1",
            "time-off-by-one",
            "        mean =",
            "        t = max(t - 1, 1)\n        mean =",
        ),
        ("told T", "time-order", "model(x, t)", "model(x, T)"),
        ("told T − t", "time-order", "model(x, t)", "model(x, T - t)"),
        ("shuffled", "time-order", "range(T, 0, -1)", "(1 + torch.randperm(T)).tolist()"),
        ("each twice", "time-order", "range(T, 0, -1)", "sorted([*range(1, T + 1)] * 2)[::-1]"),
        (
            "one left out",
            "step-skipped",
            "range(T, 0, -1)",
            "[t for t in range(T, 0, -1) if t != T // 2]",
        ),
        ("in strides", "step-skipped", "range(T, 0, -1)", "range(T - 4, 0, -5)"),
        (
            "last update left out",
            "time-ends-early",
            "        x = mean",
            "        if t == 1:\n            return x\n        x = mean",
        ),
        # tables
        (
            "cosine",
            "schedule-mismatch",
            *_tables("1 - torch.cos(torch.linspace(0.02, 1.4, T)) ** 2"),
        ),
        ("β backwards", "schedule-mismatch", *_tables("beta[1:].flip(0)")),
        ("β constant", "schedule-mismatch", *_tables("0 * beta[1:] + 0.01")),
        (
            "root of β linear",
            "schedule-mismatch",
            *_tables("torch.linspace(1e-4**0.5, 0.02**0.5, T) ** 2"),
        ),
        # start and end
        ("start too wide", "start-not-normal", _START, f"{_START} * 1.1"),
        ("start from zeros", "start-not-normal", _START, "x = torch.zeros(shape)"),
        (
            "one start for all",
            "start-not-normal",
            _START,
            "x = torch.randn(shape[1:]).repeat(shape[0], 1, 1, 1)",
        ),
        (
            "grey start",
            "start-not-normal",
            _START,
            "x = torch.randn(shape)[:, :1].expand(shape).clone()",
        ),
        (
            "one value not a number",
            "nonfinite",
            _STD,
            f"{_STD}\n        x[0] *= torch.nan if t == 9 else 1",
        ),
        # not linear
        ("answer clamped", "not-linear", "x - eps", "x - eps.clamp(-1, 1)"),
        ("x clamped to 3", "not-linear|x-clipped", _STD, f"{_STD}\n        x = x.clamp(-3, 3)"),
        (
            "divided by the largest",
            "not-linear",
            _STD,
            f"{_STD}\n        x = x / x.abs().amax((1, 2, 3), keepdim=True).clamp(min=1)",
        ),
    ),
    "ddpm-posterior": (
        (
            "root missing over β̃",
            "noise-scale",
            "(1 - alpha_bar[t])).sqrt() * z",
            "(1 - alpha_bar[t])) * z",
        ),
    ),
    "through-x0": (
        (
            "clipped without noise",
            "noise-missing",
            "        z =",
            "        x_0 = x_0.clamp(-1, 1)\n        z =",
            "variance.sqrt() * z",
            "0 * z",
        ),
        (
            "clipped, half the noise",
            "noise-scale",
            "        z =",
            "        x_0 = x_0.clamp(-1, 1)\n        z =",
            "+ variance",
            "+ 0.5 * variance",
        ),
        ("x̂_0 through tanh", "not-linear", "        z =", "        x_0 = x_0.tanh()\n        z ="),
        (
            "1 − ᾱ of t − 1 missing",
            "x-coefficient",
            "alpha[t].sqrt() * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])",
            "alpha[t].sqrt()",
        ),
        ("model told t + 2", "time-off-by-one", "model(x, t)", "model(x, t + 2)"),
    ),
    "ddim": (
        ("told t − 3", "time-off-by-one", "model(x, t)", "model(x, max(t - 3, 0))"),
        (
            "half the stride",
            "step-skipped",
            "        x =",
            "        s = (t + s + 1) // 2\n        x =",
        ),
        ("another ᾱ_0", "time-ends-early", "    for t", "    alpha_bar[0] = 0.99995\n    for t"),
    ),
    "ddim-with-noise": (
        (
            "η = 0.5, noise dropped",
            "noise-missing",
            "std = (",
            "std = 0.5 * (",
            " + std * torch.randn_like(x)",
            "",
        ),
        ("σ squared", "noise-scale", "+ std *", "+ std**2 *"),
    ),
    "euler": (
        (
            "told the next σ",
            "time-off-by-one",
            "model(x, now)",
            "model(x, then.clamp(min=low**7))",
        ),
        (
            "x̂_0 of σ clipped",
            "x0-clipped",
            "        slope",
            "        x_0 = x_0.clamp(-1, 1)\n        slope",
        ),
    ),
    "ddim-v": (
        (
            "x̂_0 of v clipped",
            "x0-clipped",
            "        eps =",
            "        x_0 = x_0.clamp(-1, 1)\n        eps =",
        ),
    ),
}

RIGHT = {name: (program.rules, program.source) for name, program in _PROGRAMS.items()} | {
    name: (rules, mutate(_PROGRAMS[base], fault(base, name, "", *edits)))
    for (base, name), (rules, *edits) in _RIGHT.items()
}
WRONG = {one.name: (one.finding, mutate(one.program, one)) for one in faults()} | {
    name: (finding, mutate(_PROGRAMS[base], fault(base, name, finding, *edits)))
    for base, found in _WRONG.items()
    for name, finding, *edits in found
}
