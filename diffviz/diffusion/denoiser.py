"""Denoisers: anything that answers (x_t, t) with the noise it sees, ε̂ ≈ E[ε | x_t]."""

from typing import Protocol

from torch import Tensor


class Denoiser(Protocol):
    """What every sampler calls. ``t`` is an integer 0…T, ``x`` and the answer are (B, *D)."""

    def __call__(self, x: Tensor, t: int, context: Tensor | None = None) -> Tensor:
        """ε̂(x_t, t), optionally given class weights (B, classes)."""
        ...
