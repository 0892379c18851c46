r"""System identification of any sampler: its update rule, read from outside.

A model that answers with independent noise is put into somebody's loop. If the loop's step is
linear, x_s = a·x_t + b·m_t + σ·z, regression of x_s on (x_t, m_t, 1) gives a, b, the bias and σ with
their standard errors, and what is left is the injected noise itself. A multi-step sampler depends
on the call before too.

The numbers are compared with those of known rules at the visited times. Rules are written for the
variance-preserving x_t and a model that answers ε. A loop may instead hold x̄ = x/√ᾱ and pass σ,
and its model may answer x̂_0 or v = √ᾱ ε − √(1−ᾱ) x_0: a linear change of (a, b).

A second excitation answers so that x̂_0 always lies inside (−1, 1). A loop that clips x̂_0 is linear
there, and only there.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from diffviz.errors import InputError
from diffviz.findings import Finding
from diffviz.sampling import ddim, ddpm
from diffviz.schedule import NoiseSchedule
from diffviz.watching import (
    EPS,
    ONE,
    PREVIOUS_EPS,
    PREVIOUS_X,
    ROUNDING,
    X,
    Fit,
    Stopped,
    Time,
    Watch,
    Watched,
    index_of,
    score_threshold,
    solve,
    time_kinds,
)

Array = NDArray[np.float64]
Sampler = Callable[..., object]
TESTS_PER_STEP = 12
"""Coefficients, bias, std, their shifts between excitations, and laws of the noise."""


@dataclass(frozen=True, eq=False)
class Expected:
    """What a rule says: (S, 3) of a, b, σ and what float32 tables may do to them.

    ``rule`` is its name, ``index`` (S,) the visited times, ``bars`` (S+1,) their ᾱ with the end's.
    """

    rule: str
    kind: Time
    answer: str
    sigma_form: bool
    index: Array
    bars: Array
    numbers: Array
    floor: Array

    @cached_property
    def scale(self) -> Array:
        """The std of x_t is this times that of the variance-preserving x_t, (S+1,)."""
        return self.bars**-0.5 if self.sigma_form else np.ones(len(self.bars))


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that the verdict rests on: the step table, the closest rule, and both excitations."""

    schedule: NoiseSchedule
    wild: Watched
    tame: Watched
    used: Watched
    fit: Fit
    expected: Expected
    scores: Array
    threshold: float
    clipped: NDArray[np.bool_]
    depends: NDArray[np.bool_]
    multistep: bool


@dataclass(frozen=True, eq=False)
class XRay:
    """A sampler seen through.

    Attributes:
        coefficients: one row per step over ``t``: what it did, with errors, and what it should.
        rule: the closest known rule, or None.
        time: how t was passed: "index", "index0", "fraction", "sigma", or "function".
        answer: what the model is taken to answer, "eps", "x0" or "v".
        findings: what is wrong, the most causal first; () for a correct sampler.
    """

    coefficients: xr.Dataset
    rule: str | None
    time: str
    answer: str
    findings: tuple[Finding, ...]


def xray(
    sampler: Sampler,
    schedule: NoiseSchedule,
    *,
    shape: tuple[int, ...] = (64, 3, 16, 16),
    seed: int = 0,
    time: Time = "auto",
    seconds: float = 60.0,
) -> XRay:
    """Identify ``sampler(model) -> x_0``, any loop that calls ``model(x, t, ...)`` (SCIENCE §4).

    Args:
        sampler: the loop. One that takes a second argument is handed ``shape``; one that does not
            draws a shape of its own choice. It runs twice.
        schedule: what its coefficients should follow.
        shape: (B, *D) of the states.
        seed: of the scripted answers; the sampler's own randomness is left alone.
        time: what it passes as t: "index" (T…1), "index0" (T−1…0), "fraction" (i/T), "sigma", a
            function from that to the index, or "auto".
        seconds: how long one run may take.

    Raises:
        InputError: it never calls the model, changes the shape, raises, returns something that is
            not a state, or does not end.
    """
    from diffviz.verdict import judge

    wild = _watch(sampler, schedule, shape, seed, time, seconds, partial(_wild, schedule, time))
    early = _unusable(wild, schedule, time)
    if early is not None:
        return early
    best = closest(wild, schedule, time)
    tame_answer = partial(_tame, best, torch.Generator().manual_seed(seed + 1))
    tame = _watch(sampler, schedule, shape, seed + 2, time, seconds, tame_answer)
    evidence = weigh(schedule, wild, tame, time, best)
    findings, rule = judge(evidence)
    kind = evidence.expected.kind
    return XRay(
        _dataset(evidence),
        rule,
        kind if isinstance(kind, str) else "function",
        evidence.expected.answer,
        findings,
    )


# -------------------------------------------------------------------- excitation


def _wild(schedule: NoiseSchedule, time: Time, g: torch.Generator) -> "Callable":
    raise NotImplementedError
