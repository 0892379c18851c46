r"""Two checks of a denoiser: is it a function of (x_t, t), one sample at a time; is it finite?

Every rule takes ε̂ for a function of the sample and the time. Dropout and layers that draw their
weights anew are not, nor is a batch normalisation in train mode, which mixes the samples of a
batch: `compare_answers`.

Sampling stops at the first ε̂ that holds NaN or infinity. The block is then computed once more,
from the same seed, behind a `FiniteArms`: the arms in which that happened have ended, the others
go on, and every number that a broken arm has from there on is taken out of the statistics.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffviz.diffusion.denoiser import Denoiser

SAMPLES = 3
"""In a batch at least; half of them are exchanged."""
VALUES = 64
"""In a batch at least, so that small samples do not agree by chance."""
CALLS = 4
"""The largest number of calls that `compare_answers` makes."""
LARGE = 1e30
"""A state beyond this is about to overflow float32."""


class Answers(NamedTuple):
    """RMS differences between answers, as a share of the answer's own RMS; NaN where unknown.

    Attributes:
        repeat: between the answers to two equal calls, one after the other.
        batch: between the answers about one sample when the rest of its batch is exchanged.
            Unknown if equal calls, from the same state of the generators, have several answers.
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
    """Call the denoiser with x ~ N(0, I) at time ``t``, at most ``CALLS`` times.

    Torch's global generators are left as they were; both numbers have four decimals, so that
    they do not depend on how sums are rounded. A denoiser that raises leaves them unknown.

    Args:
        fresh: gives the denoiser, its own draws begun anew each time.
        shape: of one sample.
        t: the time.
        seed: of x.
        context: class weights (classes,) of all samples, or None.
        device: where x lies.
    """
    generator = torch.Generator(device).manual_seed(seed)
    samples = max(SAMPLES, VALUES // math.prod(shape))
    kept = samples // 2
    given = {"generator": generator, "device": device, "dtype": torch.float32}
    x = torch.randn((samples, *shape), **given)  # type: ignore[call-overload]
    # Of another mean and std, so that no statistic of the batch stays as it was.
    other = 1 + 2 * torch.randn(x.shape, **given)  # type: ignore[call-overload]
    other[:kept] = x[:kept]

    def call(denoiser: Denoiser, about: Tensor) -> Tensor:
        weights = None if context is None else context.to(device).expand(samples, -1)
        with torch.no_grad():
            return denoiser(about.clone(), t, weights).detach().to("cpu", torch.float64)

    def anew(about: Tensor) -> Tensor:
        with torch.random.fork_rng(devices):
            return call(fresh(), about)

    devices = [] if device == "cpu" else [torch.device(device)]
    try:
        with torch.random.fork_rng(devices):
            denoiser = fresh()
            first = call(denoiser, x)
            repeat = _share(first, call(denoiser, x))
        same = not repeat or torch.equal(anew(x), first)
        batch = _share(first[:kept], anew(other)[:kept]) if same else float("nan")
    except Exception:  # other people's code; sampling says what is wrong with it
        return Answers()
    return Answers(repeat, batch)


def _share(one: Tensor, two: Tensor) -> float:
    size = one.square().mean().sqrt()
    return round(float((one - two).square().mean().sqrt() / size), 4)


class FiniteArms:
    """A denoiser that is called for an arm only while its state and ε̂ are finite and not huge.

    After that ε̂ = 0 stands in, under which a state stays finite.

    Attributes:
        ends: per arm the index of the step that gave no usable state; the number of steps while
            there is none.
    """

    def __init__(self, denoiser: Denoiser, arms: int, steps: int) -> None:
        self.denoiser, self.steps = denoiser, steps
        self.ends = [steps] * arms
        self._index = 0

    def __call__(self, x: Tensor, t: int, context: Tensor | None = None) -> Tensor:
        """ε̂ of the arms that go on, 0 for those that have ended."""
        index, arms = self._index, len(self.ends)
        self._index += 1
        self._look(x, index - 1)
        if len(self._ended()) == len(self.ends):
            return torch.zeros_like(x)
        shape = (arms, -1, *x.shape[1:])
        states = x.reshape(shape).clone()
        states[self._ended()] = 0
        eps = self.denoiser(states.reshape(x.shape), t, context)
        if not isinstance(eps, Tensor) or eps.shape != x.shape:
            return eps  # the sampler says what is wrong with it
        self._look(eps, index)
        answer = eps.to(x.dtype).reshape(shape).clone()
        answer[self._ended()] = 0
        return answer.reshape(x.shape)

    def finish(self, x_0: Tensor) -> Tensor:
        """The end points (A, B, *D), 0 where an arm has ended before."""
        self._look(x_0, self.steps - 1)
        kept = x_0.clone()
        kept[self._ended()] = 0
        return kept

    def _look(self, values: Tensor, index: int) -> None:
        rows = values.reshape(len(self.ends), -1)
        sound = (rows.abs() < LARGE).all(dim=1).tolist()  # NaN compares as false
        for arm, fine in enumerate(sound):
            if not fine and self.ends[arm] == self.steps:
                self.ends[arm] = index

    def _ended(self) -> list[int]:
        return [arm for arm, end in enumerate(self.ends) if end < self.steps]
