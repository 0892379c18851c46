r"""The bug zoo: short sampling loops as people write them, right ones and wrong ones.

Every loop is handed what the tutorial's has at hand: a ``model(x, t)``, the ``shape`` of the
samples, ``T`` and the tables ``beta``, ``alpha`` and ``alpha_bar``, indexed by t. It differs from
a right loop by one mistake, so that the lines that differ are the mistake. The loops are what
readers see, line by line; each draws from torch's global generator, as such loops do.

The sampler's x-ray is tested against them: ``Specimen.finding`` is what it must say first.
"""

import ast
import difflib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.files.catalogue import text

Model = Callable[[Tensor, int], Tensor]
Shape = tuple[int, ...]
Loop = Callable[[Model, Shape, int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Specimen:
    """One loop of the zoo.

    Attributes:
        name: what it is called, also in the catalogues (``zoo.<name>.title`` and ``.text``).
        loop: (model, shape, T, beta, alpha, alpha_bar) -> x_0.
        rules: what its update rule may be called; () where it is none.
        finding: the finding that is its fault; "" for a right loop.
        right: the right loop that it was made from; itself for a right one.
    """

    name: str
    loop: Loop
    rules: tuple[str, ...]
    finding: str
    right: Loop

    def sampler(self, schedule: NoiseSchedule, shape: Shape) -> Callable[[Model], Tensor]:
        """``sampler(model) -> x_0``, with the tables of the schedule."""
        tables = [
            torch.tensor(table) for table in (schedule.betas, schedule.alphas, schedule.alpha_bars)
        ]
        return lambda model: self.loop(model, shape, schedule.T, *tables)

    def title(self, language: str) -> str:
        """What it is, in a few words."""
        return text(f"zoo.{self.name}.title", language)

    def text(self, language: str) -> str:
        """What is done in it, or done wrong."""
        return text(f"zoo.{self.name}.text", language)

    def code(self) -> str:
        """The lines of the loop."""
        return _body(self.loop)

    def changes(self) -> list[tuple[str, str]]:
        """The lines as (sign, line): " " as in the right loop, "-" only there, "+" only here."""
        lines = difflib.ndiff(_body(self.right).splitlines(), self.code().splitlines())
        return [(line[0], line[2:]) for line in lines if line[0] != "?"]


def _body(loop: Loop) -> str:
    """The source of a function, without its head and its docstring."""
    source = textwrap.dedent(inspect.getsource(loop))
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return textwrap.dedent("\n".join(source.splitlines()[tree.body[1].lineno - 1 :]))


# -------------------------------------------------------------------- right


def ddpm(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """DDPM as the tutorial samples: x_{t−1} = (x_t − ε̂·(1−α_t)/√(1−ᾱ_t))/√α_t + √β_t·z."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def ddpm_posterior(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """DDPM with the posterior's variance β̃_t instead of β_t."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + (beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])).sqrt() * z
    return x


def through_x0(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """The same through x̂_0, as image libraries write it (DDPM, eq. 7)."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        left, left_then = 1 - alpha_bar[t], 1 - alpha_bar[t - 1]
        x0 = (x - left.sqrt() * model(x, t)) / alpha_bar[t].sqrt()
        z = torch.randn(shape) if t > 1 else 0
        mean = (alpha_bar[t - 1].sqrt() * beta[t] * x0 + alpha[t].sqrt() * left_then * x) / left
        x = mean + (beta[t] * left_then / left).sqrt() * z
    return x


def ddim(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """DDIM with η = 0: no noise, and only as much of the score as that allows."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        x = alpha_bar[t - 1].sqrt() * x0 + (1 - alpha_bar[t - 1]).sqrt() * eps
    return x


def ddim_20_steps(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """DDIM with η = 0 in 20 steps, evenly spaced from T to exactly 0."""
    x = torch.randn(shape)
    times = torch.linspace(T, 0, 21).round().long().tolist()
    for t, s in pairwise(times):
        eps = model(x, t)
        x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        x = alpha_bar[s].sqrt() * x0 + (1 - alpha_bar[s]).sqrt() * eps
    return x


def ddim_with_noise(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """DDIM with η = 1: the noise of DDPM's posterior, taken out of the direction to x_t."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        sigma = (beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])).sqrt()
        direction = (1 - alpha_bar[t - 1] - sigma**2).clamp(min=0).sqrt() * eps
        x = alpha_bar[t - 1].sqrt() * x0 + direction
        x = x + sigma * torch.randn(shape)
    return x


# -------------------------------------------------------------------- too little noise, too much


def no_noise(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """The tutorial's incorrect sampler: z = 0."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean
    return x


def ddim_noise_dropped(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """DDIM with η = 1 whose noise is not put in."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        sigma = (beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])).sqrt()
        direction = (1 - alpha_bar[t - 1] - sigma**2).clamp(min=0).sqrt() * eps
        x = alpha_bar[t - 1].sqrt() * x0 + direction
    return x


def half_noise(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Half the noise, as a "temperature" that is turned down."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + 0.5 * beta[t].sqrt() * z
    return x


def variance_for_std(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """β_t where √β_t belongs."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t] * z
    return x


def forward_noise(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """The noise of the forward process, √(1−ᾱ_t), where that of one step belongs."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + (1 - alpha_bar[t]).sqrt() * z
    return x


def ddim_too_noisy(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """DDIM's noise on top of the whole direction, which should give way to it."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        sigma = (beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])).sqrt()
        direction = (1 - alpha_bar[t - 1]).sqrt() * eps
        x = alpha_bar[t - 1].sqrt() * x0 + direction
        x = x + sigma * torch.randn(shape)
    return x


def noise_in_the_last_step(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Noise in the step to t = 0 too."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape)
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


# -------------------------------------------------------------------- noise of another law


def uniform_noise(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """``rand`` where ``randn`` belongs."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.rand(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def one_noise_for_all_samples(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """One z for the whole batch."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape[1:]) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def one_noise_for_all_channels(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """One z for red, green and blue."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape[0], 1, *shape[2:]) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def noise_drawn_once(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """One z for all steps."""
    x = torch.randn(shape)
    fixed = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = fixed if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def seeded_in_every_step(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """A generator that starts anew in every step, so that every step draws the same z."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        seeded = torch.Generator().manual_seed(0)
        z = torch.randn(shape, generator=seeded) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


# -------------------------------------------------------------------- coefficients


def root_missing(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """1 − ᾱ_t where its root belongs."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t])) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def alpha_for_alpha_bar(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """α_t where ᾱ_t belongs."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def wrong_sign(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """The predicted noise is added instead of taken away."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x + eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def half_score(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Half the score, as the probability flow has it, with the noise that needs all of it."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt() / 2) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def not_rescaled(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """The division by √α_t is left out."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def divided_by_alpha(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Division by α_t instead of its root."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t]
        x = mean + beta[t].sqrt() * z
    return x


def constant_added(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """A small constant "against division by zero", added at the wrong place."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z + 1e-2
    return x


# -------------------------------------------------------------------- times and schedules


def model_told_another_time(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """The model is told t + 1."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t + 1)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def tables_off_by_one(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Tables that lack t = 0, read with t."""
    x = torch.randn(shape)
    beta, alpha, alpha_bar = (table.roll(-1) for table in (beta, alpha, alpha_bar))
    beta[T], alpha[T], alpha_bar[T] = beta[T - 1], alpha[T - 1], alpha_bar[T - 1]
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def steps_wrap(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """T // 30 does not divide T: the last index is negative, and means the noisy end."""
    x = torch.randn(shape)
    for t in range(T, 0, -(T // 30)):
        s = t - T // 30
        eps = model(x, t)
        x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        x = alpha_bar[s].sqrt() * x0 + (1 - alpha_bar[s]).sqrt() * eps
    return x


def upwards(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """From t = 1 up to T."""
    x = torch.randn(shape)
    for t in range(1, T + 1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def another_schedule(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Sampled with another last β than the model was trained with."""
    x = torch.randn(shape)
    beta = torch.linspace(1e-4, 0.03, T + 1, dtype=torch.float64)
    alpha, alpha_bar = 1 - beta, (1 - beta).cumprod(0)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


# -------------------------------------------------------------------- others


def clipped(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """x̂_0 clipped to [−1, 1], as libraries do unless told not to."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        left, left_then = 1 - alpha_bar[t], 1 - alpha_bar[t - 1]
        x0 = (x - left.sqrt() * model(x, t)) / alpha_bar[t].sqrt()
        x0 = x0.clamp(-1, 1)
        z = torch.randn(shape) if t > 1 else 0
        mean = (alpha_bar[t - 1].sqrt() * beta[t] * x0 + alpha[t].sqrt() * left_then * x) / left
        x = mean + (beta[t] * left_then / left).sqrt() * z
    return x


def uniform_start(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """``rand`` for the start."""
    x = torch.rand(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def division_by_zero(
    model: Model, shape: Shape, T: int, beta: Tensor, alpha: Tensor, alpha_bar: Tensor
) -> Tensor:
    """ᾱ_{t−1} where ᾱ_t belongs: in the last step 1 − ᾱ_0 = 0."""
    x = torch.randn(shape)
    for t in range(T, 0, -1):
        eps = model(x, t)
        z = torch.randn(shape) if t > 1 else 0
        mean = (x - eps * (1 - alpha[t]) / (1 - alpha_bar[t - 1]).sqrt()) / alpha[t].sqrt()
        x = mean + beta[t].sqrt() * z
    return x


def _right(name: str, loop: Loop, *rules: str) -> Specimen:
    return Specimen(name, loop, rules, "", loop)


def _wrong(name: str, loop: Loop, finding: str, right: Loop = ddpm) -> Specimen:
    return Specimen(name, loop, (), finding, right)


_POSTERIOR = ("ddpm/posterior", "ddim(eta=1)")
SPECIMENS = {
    specimen.name: specimen
    for specimen in (
        _right("ddpm", ddpm, "ddpm/beta"),
        _right("ddpm-posterior", ddpm_posterior, *_POSTERIOR),
        _right("through-x0", through_x0, *_POSTERIOR),
        _right("ddim", ddim, "ddim(eta=0)"),
        _right("ddim-20-steps", ddim_20_steps, "ddim(eta=0)"),
        _right("ddim-with-noise", ddim_with_noise, *_POSTERIOR),
        _wrong("no-noise", no_noise, "noise-missing"),
        _wrong("ddim-noise-dropped", ddim_noise_dropped, "noise-missing", ddim_with_noise),
        _wrong("half-noise", half_noise, "noise-scale"),
        _wrong("variance-for-std", variance_for_std, "noise-scale"),
        _wrong("forward-noise", forward_noise, "noise-scale"),
        _wrong("ddim-too-noisy", ddim_too_noisy, "noise-scale", ddim_with_noise),
        _wrong("noise-in-the-last-step", noise_in_the_last_step, "noise-last-step"),
        _wrong("uniform-noise", uniform_noise, "noise-not-normal"),
        _wrong("one-noise-for-all-samples", one_noise_for_all_samples, "noise-shared-in-batch"),
        _wrong("one-noise-for-all-channels", one_noise_for_all_channels, "noise-correlated"),
        _wrong("noise-drawn-once", noise_drawn_once, "noise-reused-across-steps"),
        _wrong("seeded-in-every-step", seeded_in_every_step, "noise-reused-across-steps"),
        _wrong("root-missing", root_missing, "eps-coefficient"),
        _wrong("alpha-for-alpha-bar", alpha_for_alpha_bar, "eps-coefficient"),
        _wrong("wrong-sign", wrong_sign, "eps-coefficient"),
        _wrong("half-score", half_score, "eps-coefficient"),
        _wrong("not-rescaled", not_rescaled, "x-coefficient"),
        _wrong("divided-by-alpha", divided_by_alpha, "x-coefficient"),
        _wrong("constant-added", constant_added, "bias"),
        _wrong("model-told-another-time", model_told_another_time, "time-off-by-one"),
        _wrong("tables-off-by-one", tables_off_by_one, "time-off-by-one"),
        _wrong("steps-wrap", steps_wrap, "time-index-wraps", ddim_20_steps),
        _wrong("upwards", upwards, "time-order"),
        _wrong("another-schedule", another_schedule, "schedule-mismatch"),
        _wrong("clipped", clipped, "x0-clipped", through_x0),
        _wrong("uniform-start", uniform_start, "start-not-normal"),
        _wrong("division-by-zero", division_by_zero, "nonfinite"),
    )
}
"""All of them by name, the right ones first, then by kind of fault."""
