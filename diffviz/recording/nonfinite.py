r"""What is kept of a block in which a value stops being finite.

Sampling stops at the first ε̂ that holds NaN or infinity. A recording then computes the block once
more, from the same seed, behind a `Guard`: the arms in which that happened have ended, the others
go on, and every number that a broken arm has from there on is taken out of the tally.
"""

import torch
from torch import Tensor

from diffviz.diffusion.denoiser import Denoiser

LARGE = 1e30
"""Beyond this a state is on its way out of float32."""


class Guard:
    """A denoiser that is asked about an arm only while its state and ε̂ are finite and not huge.

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
        asked = x.reshape(shape).clone()
        asked[self._ended()] = 0
        eps = self.denoiser(asked.reshape(x.shape), t, context)
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
