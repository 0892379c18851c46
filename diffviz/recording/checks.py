r"""Is a denoiser a function of (x_t, t), one sample at a time? Asked twice, and in other company.

Every rule takes ε̂ for a function of the sample and the time. Dropout and layers that draw their
weights anew are none; nor is a batch normalisation in train mode, which mixes the samples of a
batch.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffviz.diffusion.denoiser import Denoiser

SAMPLES = 3
"""Of a question at least; half of them are exchanged."""
VALUES = 64
"""Of a question at least, so that small samples do not agree by chance."""
CALLS = 4
"""At most."""


class Answers(NamedTuple):
    """RMS differences between answers, as a share of the answer's own RMS; NaN where unknown.

    Attributes:
        repeat: between two answers to the same question, one after the other.
        batch: between the answers about one sample, the rest of its batch exchanged. Unknown if
            the same question, asked from the same state of the generators, has several answers.
    """

    repeat: float = float("nan")
    batch: float = float("nan")


def compare_answers(
    fresh: Callable[[], Denoiser],
    shape: tuple[int, ...],
    t: int,
    seed: int,
    *,
    context: Tensor | None = None,
    device: str = "cpu",
) -> Answers:
    """Ask about x ~ N(0, I) at time ``t``, at most ``CALLS`` times.

    Torch's global generators are left as they were; both numbers have four decimals, so that
    they do not hang on how sums are rounded. A denoiser that raises leaves them unknown.

    Args:
        fresh: gives the denoiser, its own draws begun anew each time.
        shape: of one sample.
        t: the time asked about.
        seed: of x.
        context: class weights (classes,) of all samples, or None.
        device: where x lies.
    """
    generator = torch.Generator(device).manual_seed(seed)
    samples = max(SAMPLES, VALUES // math.prod(shape))
    kept = samples // 2
    x = torch.randn((samples, *shape), generator=generator, device=device)
    # Of another mean and std, so that no statistic of the batch stays as it was.
    other = 1 + 2 * torch.randn(x.shape, generator=generator, device=device)
    other[:kept] = x[:kept]

    def ask(denoiser: Denoiser, about: Tensor) -> Tensor:
        given = None if context is None else context.to(device).expand(samples, -1)
        with torch.no_grad():
            return denoiser(about.clone(), t, given).detach().to("cpu", torch.float64)

    def anew(about: Tensor) -> Tensor:
        with torch.random.fork_rng(devices):
            return ask(fresh(), about)

    devices = [] if device == "cpu" else [torch.device(device)]
    try:
        with torch.random.fork_rng(devices):
            denoiser = fresh()
            first = ask(denoiser, x)
            repeat = _share(first, ask(denoiser, x))
        same = not repeat or torch.equal(anew(x), first)
        batch = _share(first[:kept], anew(other)[:kept]) if same else float("nan")
    except Exception:  # other people's code; sampling says what is wrong with it
        return Answers()
    return Answers(repeat, batch)


def _share(one: Tensor, two: Tensor) -> float:
    size = one.square().mean().sqrt()
    return round(float((one - two).square().mean().sqrt() / size), 4)
