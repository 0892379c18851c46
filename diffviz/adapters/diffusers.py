r"""Hugging Face diffusers: its pipelines recorded, its schedulers read and identified.

Everything that a pipeline does to its states goes through ``scheduler.step(answer, t, sample)``,
the guidance already in the answer, so one instance attribute set for a while is all that recording
needs. diffusers counts t = T−1…0 where we count T…1, may step between two of its own times, and
some of its schedulers hold x̄ = x/√ᾱ; σ = √(1/ᾱ − 1) says where a state is in either form.

This module does not import diffusers: it asks a scheduler for what it has.
"""

import copy
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.probe import Probe
from diffviz.recording.run import Run

ANSWERS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
ALLOWED = "allowed are schedulers with betas and alphas_cumprod, such as DDPMScheduler"


def schedule_of(scheduler: Any) -> NoiseSchedule:
    """ᾱ_t of a scheduler that was trained with β_t; index t here is its t − 1.

    ᾱ is multiplied up in float64 from its β. Where a scheduler changed ᾱ alone, as for a terminal
    SNR near zero, its own ᾱ is taken.

    Raises:
        InputError: it has no β_t, as those of flow matching.
    """
    betas, given = getattr(scheduler, "betas", None), getattr(scheduler, "alphas_cumprod", None)
    name = type(scheduler).__name__
    if not isinstance(betas, Tensor) or not isinstance(given, Tensor) or betas.ndim != 1:
        raise InputError(f"{name} is not one of variance-preserving diffusion; {ALLOWED}")
    bars = np.cumprod(1 - betas.detach().cpu().double().numpy())
    own = given.detach().cpu().double().numpy()
    bars = np.concatenate([[1.0], np.where(np.isclose(bars, own, rtol=1e-3, atol=0), bars, own)])
    alphas = np.concatenate([[1.0], bars[1:] / bars[:-1]])
    kind = scheduler.config.get("beta_schedule", "betas")
    kind = "betas" if scheduler.config.get("trained_betas") is not None else kind
    return NoiseSchedule(1 - alphas, alphas, bars, f"diffusers {kind} (T={len(bars) - 1})")


def sampler_of(
    scheduler: Any, steps: int, options: Mapping[str, object] | None = None
) -> Callable[[Callable[..., Tensor], tuple[int, ...]], Tensor]:
    """The plain loop around a scheduler, ``sampler(model, shape) -> x_0``, as `dv.xray` takes it.

    Args:
        scheduler: a copy of it is used each time.
        steps: how many inference steps to set.
        options: what ``step`` is passed beyond answer, t and sample, for example ``{"eta": 0.5}``.
    """

    def sampler(model: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        own = copy.deepcopy(scheduler)
        own.set_timesteps(steps)
        x = torch.randn(shape) * own.init_noise_sigma
        for t in own.timesteps:
            answer = model(own.scale_model_input(x, t), t)
            x = _previous(own.step(answer, t, x, **(options or {})))
        return x

    return sampler


def times_of(scheduler: Any, steps: int) -> Callable[[float], float]:
    """From the t that a scheduler passes to the index on `schedule_of` where its state then is.

    That is t + 1, but for schedulers that place σ by a rule of their own, as Karras', and round t.
    """
    own, schedule = copy.deepcopy(scheduler), schedule_of(scheduler)
    own.set_timesteps(steps)
    passed, known = own.timesteps.tolist(), getattr(own, "sigmas", None)
    places: dict[float, float] = {}
    if known is not None and len(known) == len(passed) + 1:
        index = np.interp(np.asarray(known[:-1]), schedule.sigma, np.arange(schedule.T + 1))
        places = dict(zip(map(float, passed), index.tolist(), strict=True))
    return lambda t: places.get(t, t + 1)


@dataclass(frozen=True)
class _Unseen:
    """The network of a loop of which only the scheduler, ``name``, is known."""

    name: str

    def __call__(self, *arguments: object) -> object:
        raise InputError(f"the network beside {self.name} is not known")


class Recording:
    """What a pipeline did inside the block; one run for each time it was called."""

    def __init__(self, scheduler: Any, model: Callable[..., object], data: DataLaw | None) -> None:
        kind = scheduler.config.get("prediction_type", "epsilon")
        if kind not in ANSWERS:
            raise InputError(
                f"{type(scheduler).__name__} predicts {kind!r}; allowed are {', '.join(ANSWERS)}"
            )
        self._scheduler, self._schedule = scheduler, schedule_of(scheduler)
        self._probe = functools.partial(Probe, model, self._schedule, "index", ANSWERS[kind], data)
        self._loops: list[tuple[Probe, Tensor | None]] = []
        self._runs: list[Run] = []
        self._last = math.nan

    @property
    def runs(self) -> tuple[Run, ...]:
        """The run of every loop, in order.

        Raises:
            InputError: no step was taken, or one of them cannot be recorded, as for `dv.Probe`.
        """
        if not self._loops:
            raise InputError("the pipeline took no step inside the block; there is no run")
        self._runs += [probe.finish(end) for probe, end in self._loops[len(self._runs) :]]
        return tuple(self._runs)

    @property
    def run(self) -> Run:
        """The run of the last loop."""
        return self.runs[-1]

    def begin(self) -> None:
        """Another loop starts with the next step."""
        if not self._loops or self._loops[-1][1] is not None:
            self._loops.append((self._probe(), None))

    def see(self, answer: Tensor, t: float, sample: Tensor, scaled: float, end: Tensor) -> None:
        """Take in one step from ``sample`` at ``t``, scaled so for the model, to ``end``."""
        first = float(self._scheduler.timesteps[0])
        if not self._loops or (t == first != self._last and self._loops[-1][1] is not None):
            self.begin()
        index, sigma = t + 1, _sigma(self._scheduler, scaled)
        if sigma is not None:
            index = float(np.interp(sigma, self._schedule.sigma, np.arange(self._schedule.T + 1)))
            sample = sample / (1 + sigma**2) ** 0.5 if scaled != 1 else sample
        probe = self._loops[-1][0]
        probe.see(sample, index, True, answer)
        self._loops[-1], self._last = (probe, end.detach().clone()), t


@contextmanager
def instrument(pipeline: Any, data: DataLaw | None = None) -> Iterator[Recording]:
    """Record what ``pipeline`` does inside the block; afterwards it is exactly as it was.

    ::

        with instrument(pipeline) as recording:
            pipeline(batch_size=8, num_inference_steps=50)
        run = recording.run

    Args:
        pipeline: one with a ``scheduler``, or the scheduler of a loop of your own.
        data: the law of the data, for the references.

    Raises:
        InputError: the scheduler is not one that can be recorded.
    """
    scheduler = getattr(pipeline, "scheduler", pipeline)
    if not callable(getattr(scheduler, "step", None)):
        raise InputError(f"{type(pipeline).__name__} has no scheduler with a step; {ALLOWED}")
    parts = (getattr(pipeline, name, None) for name in ("unet", "transformer", "prior"))
    model = next((part for part in parts if part is not None), None)
    recording = Recording(scheduler, model or _Unseen(type(scheduler).__name__), data)
    step, set_timesteps = scheduler.step, scheduler.set_timesteps
    signature = inspect.signature(step)

    @functools.wraps(step)  # pipelines look at its signature
    def watched(*arguments: Any, **keywords: Any) -> Any:
        given = signature.bind(*arguments, **keywords).arguments
        answer, t, sample = (given[name] for name in ("model_output", "timestep", "sample"))
        answer, sample = answer.detach().clone(), sample.detach().clone()
        scaled = _scaled(scheduler, t)
        result = step(*arguments, **keywords)
        recording.see(answer, float(t), sample, scaled, _previous(result))
        return result

    @functools.wraps(set_timesteps)
    def started(*arguments: Any, **keywords: Any) -> Any:
        result = set_timesteps(*arguments, **keywords)
        recording.begin()
        return result

    before = dict(vars(scheduler))
    try:
        scheduler.step, scheduler.set_timesteps = watched, started
        yield recording
    finally:
        for name in ("step", "set_timesteps"):
            del vars(scheduler)[name]
            if name in before:
                setattr(scheduler, name, before[name])


def _previous(result: Any) -> Tensor:
    """x_s in what a step returns."""
    return result.prev_sample if hasattr(result, "prev_sample") else result[0]


def _scaled(scheduler: Any, t: Any) -> float:
    """What the model's input is multiplied by: 1/√(1+σ²) where states are x/√ᾱ, else 1."""
    one = torch.ones((), dtype=torch.float64)
    return float(copy.copy(scheduler).scale_model_input(one, t))


def _sigma(scheduler: Any, scaled: float) -> float | None:
    """σ of the state that the step just taken came from; None where the scheduler has no σ.

    The scale gives it roughly; its tables, some of which also hold midpoints, exactly.
    """
    after, levels = getattr(scheduler, "step_index", None), getattr(scheduler, "sigmas", None)
    if after is None or levels is None:
        return None
    if scaled == 1:
        return float(levels[after - 1])
    tables = [getattr(scheduler, name, None) for name in ("sigmas", "sigmas_interpol")]
    known = np.concatenate([np.asarray(table) for table in tables if table is not None])
    return float(known[np.nanargmin(np.abs(1 / np.sqrt(1 + known**2) - scaled))])
