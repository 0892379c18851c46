r"""The denoiser: a function of (x_t, t) that predicts the noise, ε̂(x_t, t) ≈ E[ε | x_t].

Any callable ``(x, t, context=None) -> ε̂`` is a denoiser. It may declare what else is known about
it, in six attributes with fixed names; `describe` reads them, and nothing else is looked for:

==================  ===========================================================================
``schedule``        the `NoiseSchedule` that it was made for
``sample_shape``    D, the shape of one sample
``law``             the `DataLaw` of the data, for the references q(x_t)
``name``            what a report calls it
``digest``          SHA-256 of all that its answers depend on
``classes``         names of the entries of a context vector
==================  ===========================================================================

Two methods are optional as well: ``to(device)``, and ``restarted(seed)`` for a denoiser that draws
random numbers itself.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, NonfiniteError, check_integer, check_names, said, shown

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What a denoiser may answer in."""
LOOK_EVERY = 64
"""Steps between two checks that answers are finite, on a device that a check has to wait for."""


class Denoiser(Protocol):
    """A function that predicts the noise in x_t, which every sampler calls."""

    def __call__(self, x: Tensor, t: int, context: Tensor | None = None) -> Tensor:
        """ε̂(x_t, t) for ``x`` (B, *D) at one time t = 0…T; ``context`` holds class weights (B, K).

        The answer has the shape of ``x``.
        """
        ...


class ScheduledDenoiser(Denoiser, Protocol):
    """A denoiser that has a schedule of its own, as those of diffviz do."""

    schedule: NoiseSchedule


@runtime_checkable
class _Movable(Protocol):
    def to(self, device: str) -> Denoiser: ...


@runtime_checkable
class _Drawing(Protocol):
    def restarted(self, seed: int) -> Denoiser: ...


@dataclass(frozen=True)
class Description:
    """What a denoiser declares, with a default for what it does not; see the module."""

    schedule: NoiseSchedule | None = None
    sample_shape: tuple[int, ...] | None = None
    law: DataLaw | None = None
    name: str = ""
    digest: str = ""
    classes: tuple[str, ...] = ()


def describe(denoiser: object) -> Description:
    """The declared parts of any denoiser, checked.

    The name is the type's unless given; the digest of a module without one is that of its weights.

    Raises:
        InputError: it cannot be called, or a part has another type than the module says.
    """
    if not callable(denoiser):
        raise InputError(f"the denoiser is {shown(denoiser)}; allowed is (x, t, context) → ε̂")
    parts = {field.name: getattr(denoiser, field.name, None) for field in fields(Description)}
    given: dict[str, Any] = {name: part for name, part in parts.items() if part is not None}
    if not isinstance(given.get("schedule"), NoiseSchedule):  # a model's own, of another kind
        given.pop("schedule", None)
    for name, kind in (("law", DataLaw), ("name", str), ("digest", str)):
        if not isinstance(given.get(name), kind | None):
            raise InputError(
                f"the denoiser's {name} is {shown(given[name])}; allowed is {kind.__name__}"
            )
    if "classes" in given:
        given["classes"] = check_names("the denoiser's classes", given["classes"])
    if "sample_shape" in given:
        shape = given["sample_shape"]
        if not isinstance(shape, Sequence) or not all(isinstance(i, Integral) for i in shape):
            raise InputError(
                f"the denoiser's sample_shape is {shown(shape)}; allowed is a tuple of integers"
            )
        given["sample_shape"] = tuple(shape)
    given.setdefault("name", type(denoiser).__name__)
    if "digest" not in given and isinstance(denoiser, torch.nn.Module):
        state = denoiser.state_dict().items()
        given["digest"] = tensors_digest({k: v for k, v in state if isinstance(v, Tensor)})
    return Description(**given)


def on_device(denoiser: Denoiser, device: str) -> Denoiser:
    """The denoiser on that device, if it can be moved; the CPU is where it is already."""
    return denoiser.to(device) if device != "cpu" and isinstance(denoiser, _Movable) else denoiser


def restarted(denoiser: Denoiser, seed: int) -> Denoiser:
    """The denoiser with its own random numbers begun anew from ``seed``, if it draws any."""
    return denoiser.restarted(seed) if isinstance(denoiser, _Drawing) else denoiser


def one_time(t: int | Tensor, T: int) -> int:
    """The time that ``t`` holds: an integer, or a tensor of any shape with one time in it.

    Raises:
        InputError: several times, a fraction, or not 0 ≤ t ≤ T.
    """
    value: object = t
    if isinstance(t, Tensor):
        times = t.unique().tolist()
        if len(times) != 1:
            raise InputError(f"t holds {len(times)} times; allowed is one for the whole batch")
        value = times[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return check_integer("t", value, 0, T)


class Checked:
    """A denoiser whose answers are checked before they are used.

    It gets a copy of x, so it cannot change the state. Whether answers are finite is checked at
    once on the CPU, and every ``LOOK_EVERY`` steps on another device.

    Raises:
        InputError: the denoiser raises, or answers in another shape or type, naming the step.
        NonfiniteError: an answer is not finite.
    """

    def __init__(self, denoiser: Denoiser, device: torch.device) -> None:
        self.denoiser = denoiser
        self._every = 1 if device.type == "cpu" else LOOK_EVERY
        self._waiting: list[tuple[int, Tensor]] = []

    def __call__(self, x: Tensor, t: int, context: Tensor | None, *, last: bool) -> Tensor:
        """ε̂(x, t) in the dtype of ``x``; the ``last`` call leaves none unchecked."""
        try:
            eps = self.denoiser(x.clone(), t, context)
        except (InputError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # other people's code
            raise InputError(
                f"the denoiser raised {type(error).__name__} at t = {t}: {said(error)}"
            ) from error
        if not isinstance(eps, Tensor):
            raise InputError(
                f"the denoiser returned {type(eps).__name__} at t = {t}; not a tensor"
            )
        plain = eps.layout == torch.strided and not eps.is_nested
        if eps.dtype not in FLOATS or eps.device != x.device or not plain:
            raise InputError(
                f"the denoiser returned {eps.dtype} on {eps.device} at t = {t}; "
                f"allowed are floating point numbers on {x.device}"
            )
        if eps.shape != x.shape:
            raise InputError(
                f"the denoiser returned shape {tuple(eps.shape)} at t = {t}; "
                f"allowed is {tuple(x.shape)}"
            )
        # A finite sum has finite terms; the sum of finite terms may overflow.
        if self._every > 1 or not math.isfinite(eps.sum().item()):
            self._waiting.append((t, torch.isfinite(eps).all()))
        if self._waiting and (last or len(self._waiting) >= self._every):
            times, finite = zip(*self._waiting, strict=True)
            self._waiting = []
            for time, fine in zip(times, torch.stack(finite).tolist(), strict=True):
                if not fine:
                    raise NonfiniteError(
                        f"the denoiser returned a value that is not finite at t = {time}"
                    )
        return eps.to(x.dtype)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
