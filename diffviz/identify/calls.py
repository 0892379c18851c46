r"""How somebody's loop is called, and how it calls its model.

A sampler is run with a spy where its model would be. `Loop` finds by trying what the sampler must
be handed, at which place of a call the state and the time stand, whether the answer has more
channels than the state, and what is returned at the end. Where that fails, one line says which
wrapper to write.
"""

import inspect
import math
import random
import time as clock
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffviz.errors import InputError, said

Array = NDArray[np.float64]
Answer = Callable[[Tensor, float, bool], Tensor]
Place = int | str
X_NAMES = (
    "x", "sample", "x_t", "xt", "hidden_states", "noisy", "noisy_images", "latents",
    "noisy_sample", "z_t", "z", "img", "image", "input", "inputs",
)  # fmt: skip
T_NAMES = (
    "t", "timestep", "timesteps", "sigma", "time", "noise_level", "sigmas", "noise_labels",
    "ts", "time_cond", "step", "noise_variances", "log_snr", "c_noise", "time_steps",
)  # fmt: skip
MODEL_NAMES = (
    "model", "net", "network", "unet", "nn_model", "denoiser", "denoise_fn", "eps_model",
)  # fmt: skip
INNER = (
    "module", "unet", "model", "net", "inner_model", "transformer", "diffusion_model", "ema",
    "apply_model", "eps_model", "ema_model", "denoise_fn", "network", "nn_model", "denoiser",
)  # fmt: skip
SHAPE_NAMES = ("shape", "size", "sample_shape", "x_shape", "noise_shape")
COUNT_NAMES = (
    "n", "b", "num", "bs", "batch", "count", "n_sample", "n_samples", "num_samples",
    "batch_size", "num_images", "n_images", "nb_samples", "sample_size", "samples",
)  # fmt: skip
SIDE_NAMES = ("image_size", "img_size", "resolution", "height", "width", "h", "w", "im_size")
STEP_NAMES = ("steps", "n_steps", "num_steps", "timesteps", "t", "n_timesteps", "num_timesteps")
OWN_WORDS = (
    "config",
    "sample_size",
    "channels",
    "in_channels",
    "out_channels",
    "dtype",
    "hparams",
)
HUGE = 1e30
"""A state with larger values has run away, whatever its type can hold."""
ONE_BATCH = "wrap the function that samples one batch, from its start to its end"
ANSWERS = (
    "the model is answered for by a tensor like x: where the loop wants more of it, pass "
    "`lambda model: my_loop(lambda x, t: more_of(model(x, t)))`"
)
WRAP = "write it as `lambda model, shape: my_loop(...)`, which calls model(x, t) and returns x_0"


class OtherShape(InputError):
    """The states of a sampler have two shapes."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...], where: str) -> None:
        super().__init__(
            f"the sampler changed the shape of x from {before} to {after} {where}; {ONE_BATCH}"
        )
        self.before, self.after, self.at_end = before, after, where == "at the end"


class Stopped(BaseException):
    """Ends a sampler from inside; no handler of a sampler should hold it."""


@dataclass(frozen=True)
class Layout:
    """Where things stand in a call.

    Attributes:
        x, t: place or keyword of the state and of the time; None where not known yet.
        channels, axis: which slices of that argument are the state, along which axis; None for
            all.
        outputs: how many times the state's channels the answer has, 1, 2 or ½.
        packed: whether the answer comes in a tuple.
        parts, turn: in how many parts the samples are made, one after the other, of which the
            first is looked at; and how many calls a part has before it is the next one's turn.
        decoded: what comes back has another shape than the state, as from a decoder.
    """

    def state(self, given: Tensor) -> Tensor:
        """The state in the argument that holds it."""
        if self.channels is None:
            return given
        return given.index_select(self.axis, torch.tensor(self.channels, device=given.device))

    x: Place | None = None
    t: Place | None = None
    channels: tuple[int, ...] | None = None
    axis: int = 1
    outputs: float = 1.0
    packed: bool = False
    parts: int = 1
    turn: int = 1
    decoded: bool = False


class Spy(torch.nn.Module):
    """A model that answers as told and keeps the times that it was told.

    Repeated calls with one x and t, and a batch of two equal halves, as guidance makes them, get
    one answer and count once. `see` is called with every new state.

    Args:
        answer: from (x, time, whether it is floating) to the answer.
        layout: of the calls.
        calls, seconds: how many calls and how much time it allows.
        batch: how many samples a state has, where that is known.
    """

    def __init__(
        self, answer: Answer, layout: Layout, calls: int, seconds: float, batch: int = 0
    ) -> None:
        super().__init__()
        # Loops ask a model for its parameters to learn the device.
        self.nothing = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.layout = layout
        self.times: list[float] = []
        self.floating = False
        self.shape: tuple[int, ...] = ()
        self.broken: float | None = None
        self.spec: dict[str, Any] = {}
        self._answer, self._calls, self._batch = answer, calls, batch
        self._until, self._seconds = clock.monotonic() + seconds, seconds
        self._asked = 0
        self.expected: tuple[int, ...] = ()
        self._calls_made, self._told = 0, math.nan
        self._x: Tensor | None = None
        self._whole: Tensor | None = None
        self._last: Tensor | None = None

    def see(self, x: Tensor, value: float) -> None:
        """A new state, at the time told."""

    def forward(self, *arguments: object, **keywords: object) -> Any:
        """The answer to (x, t); whatever else is passed is context and ignored."""
        self._asked += 1
        if self._asked > 4 * self._calls:  # with one x and t again and again
            raise Stopped(f"called its model {self._calls} times and did not end")
        if clock.monotonic() > self._until:
            raise Stopped(f"did not end within {self._seconds:g} s")
        x, t = called_with(arguments, keywords, self.layout)
        try:
            value, floating = passed_time(t)
        except InputError as error:
            last = f"after t = {self.times[-1]:g}" if self.times else "at its first call"
            raise InputError(f"{error}; {last}") from None
        in_numpy = isinstance(x, np.ndarray)
        x = torch.as_tensor(x) if in_numpy else x
        if not isinstance(x, Tensor) or x.ndim == 0 or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) and x.ndim else type(x).__name__
            raise InputError(
                f"the sampler passed x of type {kind} at t = {value:g}; allowed are batches of "
                "floating-point numbers"
            )
        answer = self._respond(x, value, floating)
        if in_numpy:
            return answer.detach().numpy()
        # As the models of diffusers answer: a tuple when asked for one, and an attribute.
        # No view: one would hold its base, which holds it, for ever.
        answer.sample = answer.clone()  # type: ignore[attr-defined]
        packed = self.layout.packed or keywords.get("return_dict") is False
        return (answer,) if packed else answer

    def _respond(self, given: Tensor, value: float, floating: bool) -> Tensor:
        layout = self.layout
        whole = layout.state(given)
        batch = self.shape[0] if self.times else self._batch
        x = whole if batch == len(whole) else first_half(whole)
        if self.expected and not self.times and tuple(x.shape) != self.expected:
            return torch.zeros_like(x)  # a call that makes the layers of the network
        if len(self.times) == 1 and len(x) == 2 * self.shape[0] and self._whole is not None:
            self.whole_again(self._whole)  # all samples of x_T were the same
        if self.times and tuple(x.shape) != self.shape:
            raise OtherShape(self.shape, tuple(x.shape), f"at t = {value:g}")
        again = self._x is not None and value == self._told and torch.equal(x, self._x)
        if self._last is None or not again:
            mine = (self._calls_made // layout.turn) % layout.parts == 0
            self._calls_made, self._told = self._calls_made + 1, value
            if not in_reach(x):
                self.broken = self.times[-1] if self.times else value
                raise Stopped
            if len(self.times) >= self._calls:
                raise Stopped(f"called its model {self._calls} times and did not end")
            self.shape = tuple(x.shape)
            self.floating |= floating
            if mine:
                self.see(x.detach(), value)
            self._last = self._answer(x, value, self.floating).to(x.dtype)
            if mine:
                self.answered(self._last)
                if not self.times:
                    self._whole = whole.detach().clone()
                self.times.append(value)
            self._x = x.detach().clone()
        answer = self._last.repeat(len(whole) // len(x), *[1] * (x.ndim - 1))
        if layout.channels is not None and layout.outputs == 1:
            places = torch.tensor(layout.channels, device=given.device)
            answer = torch.zeros_like(given).index_copy(layout.axis, places, answer)
        if layout.outputs == 2:
            # The least of the variances that the second half chooses between is the posterior's.
            answer = torch.cat([answer, -torch.ones_like(answer)], 1)
        elif layout.outputs == 0.5:
            answer = answer[:, : max(given.shape[1] // 2, 1)]
        return answer

    def whole_again(self, whole: Tensor) -> None:
        """The equal halves of x_T were not those of guidance: the state is all of it."""
        self.shape, self._x = tuple(whole.shape), None
        if self._last is not None:
            self._last = self._last.repeat(2, *[1] * (whole.ndim - 1))

    def answered(self, answer: Tensor) -> None:
        """What the state was answered."""

    # ------------------------------------------------------- what loops ask of a module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            spec = self.__dict__.get("spec", {})
            if name in spec:
                return spec[name]
            if name in INNER:
                return self
            if name in self.__dict__.get("stands_for", {}):
                return self.__dict__["stands_for"][name]
            raise AttributeError(
                f"the model of the sampler is asked for .{name}, which the x-ray's stand-in "
                "does not have"
            ) from None

    def to(self, *arguments: object, **keywords: object) -> "Spy":
        """The same, whatever the device or the type."""
        return self

    cuda = half = float = double = bfloat16 = to

    def __deepcopy__(self, memo: object) -> "Spy":
        """The same: a loop that samples with a copy of its network asks this one."""
        return self

    __copy__ = __deepcopy__


# ------------------------------------------------------------------ the arguments of a call


def called_with(
    arguments: Sequence[object], keywords: Mapping[str, object], layout: Layout = Layout()
) -> tuple[Any, Any]:
    """The state and the time of a call: as the layout says, by name, or by what they look like."""
    slots: dict[Place, object] = dict(enumerate(arguments))
    slots.update(keywords)
    x = layout.x if layout.x in slots else _state_place(slots)
    t = layout.t if layout.t in slots else _time_place(slots, x)
    for place, names, kind in ((x, X_NAMES, "x"), (t, T_NAMES, "t")):
        if place is None:
            raise InputError(
                f"the loop called its model without {kind}; allowed is model(x, t, ...), or a "
                f"keyword of {', '.join(names[:5])}"
            )
    return slots[x], slots[t]  # type: ignore[index]


def _state_place(slots: Mapping[Place, object]) -> Place | None:
    named: Place | None = next((name for name in X_NAMES if name in slots), None)
    if named is not None and isinstance(slots[named], Tensor | np.ndarray):
        return named
    sizes = {
        place: math.prod(np.shape(value))
        for place, value in slots.items()
        if isinstance(value, Tensor | np.ndarray)
        and np.ndim(value) > 0
        and torch.as_tensor(value).is_floating_point()
    }
    if not sizes:
        return 0 if 0 in slots else named
    return max(sizes, key=lambda place: sizes[place])


def _time_place(slots: Mapping[Place, object], x: Place | None) -> Place | None:
    named: list[Place] = [name for name in T_NAMES if name in slots and name != x]
    if named:
        return named[0]
    order: list[Place] = [p for p in slots if p != x and isinstance(p, int)]
    order.sort(key=lambda p: p != 1)
    rest: list[Place] = [*order, *(p for p in slots if isinstance(p, str) and p != x)]
    fitting = [place for place in rest if scalar_of(slots[place]) is not None]
    return fitting[0] if fitting else (order[0] if order else None)


def scalar_of(value: object) -> float | None:
    """The one number that a value holds, however often; None where it is none."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        values = torch.as_tensor(value).detach().to("cpu").reshape(-1)
        one = values.numel() and values.dtype != torch.bool and bool((values == values[0]).all())
        return float(values[0]) if one else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def passed_time(t: object) -> tuple[float, bool]:
    """(value, whether it is a float) of a time passed as a number or a tensor of any shape."""
    value = scalar_of(t)
    if value is None:
        if isinstance(t, Tensor | np.ndarray):
            values = torch.as_tensor(t).reshape(-1).tolist()
            raise InputError(
                f"the times of one call differ or are none: {values[:4]}; all samples of a state "
                "have one time: draw none at random for sampling, and embed t in the model, "
                "as in `lambda model: my_loop(lambda x, embedded: model(x, t))`"
            )
        raise InputError(f"the sampler passed {t!r} as t; allowed are numbers and tensors")
    if not math.isfinite(value):
        raise InputError(f"the sampler passed {value} as t; allowed are finite numbers")
    typed = torch.as_tensor(t)
    return value, typed.is_floating_point()


def in_reach(x: Tensor) -> bool:
    """All values are finite, and so small that their squares are."""
    return not x.numel() or float(x.detach().abs().max()) < HUGE


def first_half(x: Tensor) -> Tensor:
    """One half of a batch that holds every sample twice, in order; any other batch as it is."""
    half = len(x) // 2 if x.ndim else 0
    return x[:half] if half and 2 * half == len(x) and torch.equal(x[:half], x[half:]) else x


# ------------------------------------------------------------------ what a sampler returns


@dataclass(frozen=True, eq=False)
class Ending:
    """What came back: ``values`` (B, *D) in the state's layout, or None.

    ``kind`` is "state", "picture" (of another type or layout) or "nothing" of a state's shape.
    """

    values: Tensor | None
    kind: str


def ending_of(end: object, shape: tuple[int, ...], parts: int = 1) -> Ending:
    """x_0, or the pictures made of it, in what a sampler returns.

    Of a generator and of a list of states the last counts, of a tuple the first of the right
    shape. Pictures may be uint8, channels last, or a list of one per sample. Of samples made in
    ``parts``, the first part counts.
    """
    if parts > 1:
        ending = ending_of(end, (parts * shape[0], *shape[1:]))
        first = None if ending.values is None else ending.values[: shape[0]]
        return Ending(first, ending.kind)
    if inspect.isgenerator(end):
        end = _last(end)
    for name in ("sample", "samples", "images", "prev_sample", "x_0", "x0", "latents"):
        if not isinstance(end, Tensor | np.ndarray | Mapping) and hasattr(end, name):
            end = getattr(end, name)
    if isinstance(end, Mapping):
        end = tuple(end.values())
    if isinstance(end, tuple | list) and end:
        whole = [item for item in end if tuple(np.shape(_array(item))) == shape]
        if whole:
            end = whole[-1] if isinstance(end, list) else whole[0]
        elif len(end) == shape[0] and all(_array(item) is not None for item in end):
            pictures = [torch.as_tensor(np.asarray(_array(item)).copy()) for item in end]
            same = len({tuple(part.shape) for part in pictures}) == 1
            end = torch.stack(pictures) if same else pictures[0]
        else:
            end = end[0]
            if isinstance(end, tuple | list) and end:
                return ending_of(end, shape)
    array = _array(end)
    if array is None:
        return Ending(None, "nothing")
    values = torch.as_tensor(array)
    kind = "state" if values.is_floating_point() else "picture"
    if tuple(values.shape) == (2 * shape[0], *shape[1:]):
        values = first_half(values)  # samples that never differed looked like a guided batch
    if tuple(values.shape) != shape:
        last = values.movedim(-1, 1) if values.ndim > 2 else values
        if tuple(last.shape) != shape and len(shape) == 4 and shape[1] == 1:
            last = values[:, None] if values.ndim == 3 else last
        if tuple(last.shape) != shape:
            raise OtherShape(shape, tuple(values.shape), "at the end")
        values, kind = last, "picture"
    return Ending(values.detach().to("cpu", torch.float64), kind)


def _last(items: Iterable[object]) -> object:
    kept = deque(items, maxlen=1)
    return kept[0] if kept else None


def _array(value: object) -> Any:
    """The value as a tensor or an array of numbers; None where it is none."""
    if isinstance(value, Tensor | np.ndarray):
        return value.detach() if isinstance(value, Tensor) else value
    if hasattr(value, "__array_interface__"):  # a picture of PIL
        return np.asarray(value)
    return None


# ------------------------------------------------------------------ running it


@dataclass(frozen=True, eq=False)
class Loop:
    """A sampler that can be run again and again.

    Attributes:
        call: runs it with a spy.
        layout: of its calls.
        times, floating: as told in the first run.
        start: x_T of the first run.
        ending: what came back then.
        shape: of its states.
        calls, seconds: what a run may take.
        here: rewrites "cuda" as "cpu", on a machine that has none.
        broken: the time told when x_t was no longer finite, in the first run.
        clipped: the share of its calls in which many values lie exactly at the largest one.
    """

    call: Callable[[Spy], object]
    layout: Layout
    times: Array
    floating: bool
    start: Tensor
    ending: Ending
    shape: tuple[int, ...]
    calls: int
    seconds: float
    here: bool
    broken: float | None = None
    clipped: float = 0.0

    def run(self, spy: Spy) -> Ending | None:
        """What the sampler returns with this spy; None if the spy stopped it or x is not finite.

        Raises:
            InputError: the sampler raises, never calls its model, or returns what is no state.
        """
        spy.expected = self.shape
        return _run(self.call, spy, self.here)


def _run(call: Callable[[Spy], object], spy: Spy, here: bool) -> Ending | None:
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(one_thread())
            if here:
                stack.enter_context(_OnCpu())
            end = call(spy)
            if inspect.isgenerator(end):
                end = _last(end)
        if not spy.times:
            raise InputError(
                "the sampler never called its model; allowed is sampler(model) -> x_0"
            )
        if spy.layout.decoded:
            return Ending(None, "nothing")
        return ending_of(end, spy.shape, spy.layout.parts)
    except Stopped as stopped:
        if str(stopped):
            raise InputError(f"the sampler {stopped}; {_place(spy)}") from None
        return None
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        more = f"; {ANSWERS}" if spy.times else ""
        raise Raised(
            f"the sampler raised {type(error).__name__}: {said(error)}; {_place(spy)}{more}"
        ) from error


class Raised(InputError):
    """The sampler itself raised an error."""


class _Scout(Spy):
    """Answers x at RMS 1, which no loop blows up, and looks at what else is passed."""

    def __init__(self, layout: Layout, calls: int, seconds: float) -> None:
        super().__init__(unit, layout, calls, seconds)
        self.slots: dict[Place, list[float]] = {}
        self.first: Tensor | None = None
        self.latest: Tensor | None = None
        self.at_bound = 0.0

    def forward(self, *arguments: object, **keywords: object) -> Any:
        slots: dict[Place, object] = dict(enumerate(arguments))
        slots.update(keywords)
        for place, value in slots.items():
            number = scalar_of(value)
            if number is not None and not isinstance(value, str):
                self.slots.setdefault(place, []).append(number)
        return super().forward(*arguments, **keywords)

    def whole_again(self, whole: Tensor) -> None:
        super().whole_again(whole)
        self.first = self.latest = whole.clone()

    def see(self, x: Tensor, value: float) -> None:
        if self.first is None:
            self.first = x.clone()
        else:
            bound = x.abs().max()
            self.at_bound += float((x.abs() == bound).sum() > max(8, 0.01 * x.numel()))
        self.latest = x.clone()

    def other_layout(self, end: tuple[int, ...]) -> Layout | None:
        """The layout by which what came back has the shape of the state, if there is one.

        The state is a part of the argument, of which the rest did not change from the first call
        to the last, or was one number in the first; or the samples are made in parts, each in
        calls of its own.
        """
        if self.first is None or self.latest is None or self.layout.channels or not self.times:
            return None
        for axis in range(1, self.first.ndim if self.first.ndim > 2 else 1):
            slices = self.first.movedim(axis, 0).flatten(1)
            changed = (self.first != self.latest).movedim(axis, 0).flatten(1).any(1)
            for apart in (changed, (slices != slices[:, :1]).any(1)):
                if not bool(apart.all()) and bool(apart.any()):
                    places = tuple(torch.nonzero(apart).flatten().tolist())
                    return replace(self.layout, channels=places, axis=axis)
        times, parts = np.array(self.times), end[0] // self.shape[0]
        if self.layout.parts > 1 or parts < 2 or len(times) % parts:
            return None
        for turn in (1, len(times) // parts):
            rows = times.reshape(-1, parts, turn)
            if (rows == rows[:, :1]).all() and len(np.unique(rows[:, 0])) > 1:
                return replace(self.layout, parts=parts, turn=turn)
        return None


def unit(x: Tensor, value: float, floating: bool) -> Tensor:
    """The state at RMS 1, which keeps every loop finite."""
    return x / x.detach().double().square().mean().sqrt().clamp_min(1e-12).to(x.dtype)


def open_loop(
    sampler: Callable[..., object],
    shape: tuple[int, ...],
    steps: int,
    seconds: float,
    model: str | None = None,
) -> Loop:
    """Find out how a sampler is called, by running it until it works.

    Raises:
        InputError: it does not work in any way that is known, in one line with what to write.
    """
    calls = 10 * steps + 1000
    ways = list(_ways(sampler, shape, steps, model))
    failed: list[tuple[int, InputError]] = []
    here, layout = False, Layout()
    expected: tuple[int, ...] = ()
    for way in ways:
        k = 0
        layouts = [replace(layout, outputs=outputs) for outputs in (1.0, 2.0, 0.5)]
        while k < len(layouts):
            spy = _Scout(layouts[k], calls, seconds)
            spy.spec, spy.expected = _spec(shape), expected
            try:
                ending = _run(way, spy, here)
            except InputError as error:
                cuda = any(word in str(error) for word in ("CUDA", "cuda", "NVIDIA"))
                if cuda and not here and not torch.cuda.is_available():
                    here = True
                    continue
                if isinstance(error, OtherShape):
                    found = spy.other_layout(error.after) if error.at_end else None
                    if found is None and error.at_end and error.after[:1] == error.before[:1]:
                        found = replace(spy.layout, decoded=True)
                    if found is not None:
                        layouts[k] = found
                        continue
                    if len(spy.times) == 1 and not error.at_end and not expected:
                        expected = error.after  # the first call was none of the loop
                        continue
                other = _time_of(spy)
                if len(spy.times) < 2 and other not in (None, layouts[k].t):
                    layouts[k] = replace(layouts[k], t=other)
                    continue
                failed.append((len(spy.times), error))
                shaped = isinstance(error, Raised | OtherShape)
                if not (spy.times and shaped):
                    break
                k += 1
                continue
            other = _time_of(spy)
            if other is not None and other != layouts[k].t and spy.layout.t != other:
                layouts[k] = replace(layouts[k], t=other)
                spy = _Scout(layouts[k], calls, seconds)
                spy.spec, spy.expected = _spec(shape), expected
                ending = _run(way, spy, here)
            return _opened(way, spy, ending, calls, seconds, here)
    most, why = max(failed, key=lambda item: item[0])
    if most == 0 and isinstance(why, Raised):
        raise InputError(f"{why}; {_advice(sampler, model)}") from why
    raise why


def _opened(
    way: Callable[[Spy], object],
    spy: _Scout,
    ending: Ending | None,
    calls: int,
    seconds: float,
    here: bool,
) -> Loop:
    assert spy.first is not None
    return Loop(
        way, spy.layout, np.array(spy.times), spy.floating, spy.first,
        ending or Ending(None, "nothing"), spy.shape, calls, seconds, here, spy.broken,
        spy.at_bound / max(len(spy.times) - 1, 1),
    )  # fmt: skip


def _time_of(spy: _Scout) -> Place | None:
    """The argument that holds one number a call and another one in the next, if only one does."""
    count = len(next(iter(spy.slots.values()), []))
    varies = [
        place
        for place, values in spy.slots.items()
        if len(values) == count and count > 1 and len(set(values)) > 1
    ]
    return varies[0] if len(varies) == 1 else None


def _spec(shape: tuple[int, ...]) -> dict[str, Any]:
    """What loops read off a network."""
    channels, side = (shape[1] if len(shape) > 1 else 1), shape[-1]
    return {
        "in_channels": channels, "channels": channels, "img_channels": channels,
        "out_channels": channels, "image_size": side, "img_size": side, "img_resolution": side,
        "sigma_min": 0.0, "sigma_max": float("inf"), "round_sigma": torch.as_tensor,
        "device": torch.device("cpu"), "dtype": torch.float32, "self_condition": False,
        "label_dim": 0, "num_classes": None,
    }  # fmt: skip


def _ways(
    sampler: Callable[..., object], shape: tuple[int, ...], steps: int, model: str | None
) -> Iterator[Callable[[Spy], object]]:
    """Ways to call the sampler, the likeliest first."""
    required = _required(sampler)
    if model is not None:
        owner = getattr(sampler, "__self__", None)
        if owner is None or not hasattr(owner, model):
            raise InputError(
                f"model is {model!r}, but the sampler is no method of an object with such an "
                "attribute; pass obj.sample and the name of the attribute that holds the network"
            )
        for values in _fillings(required, shape, steps, handed=False):
            yield partial(_with_attribute, owner, model, sampler, values)
        return
    if required is None:
        yield lambda spy: sampler(spy)
        return
    if not required:
        yield lambda spy: sampler(spy)
        return
    for values in _fillings(required, shape, steps, handed=True):
        yield partial(_filled, sampler, values)


_MODEL = object()


def _filled(sampler: Callable[..., object], values: list[object], spy: Spy) -> object:
    return sampler(*[spy if item is _MODEL else item for item in values])


def _required(sampler: Callable[..., object]) -> list[str] | None:
    try:
        parameters = inspect.signature(sampler).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional and p.default is p.empty]


def _fillings(
    names: list[str] | None, shape: tuple[int, ...], steps: int, handed: bool
) -> Iterator[list[object]]:
    """Values for the required arguments: by their names, and the unknown ones by trying."""
    names = names or []
    known: dict[int, object] = {}
    for i, name in enumerate(names):
        word = name.lower().strip("_")
        if word in MODEL_NAMES and handed and _MODEL not in known.values():
            known[i] = _MODEL
        elif word in SHAPE_NAMES:
            known[i] = shape
        elif word in COUNT_NAMES:
            known[i] = shape[0]
        elif word in SIDE_NAMES:
            known[i] = shape[-1]
        elif word in ("channels", "in_channels", "c"):
            known[i] = shape[1] if len(shape) > 1 else 1
        elif word == "device":
            known[i] = "cpu"
        elif word in STEP_NAMES:
            known[i] = steps
    if handed and _MODEL not in known.values():
        free = [i for i in range(len(names)) if i not in known]
        known[free[0] if free else 0] = _MODEL
    free = [i for i in range(len(names)) if i not in known]
    for guess in (shape, shape[0], torch.Size(shape)) if free else (None,):
        yield [known.get(i, guess) for i in range(len(names))]
        if not free:
            return


def _with_attribute(
    owner: object, name: str, sampler: Callable[..., object], values: list[object], spy: Spy
) -> object:
    before = getattr(owner, name)
    try:
        spy.__dict__["stands_for"] = {
            key: getattr(before, key) for key in OWN_WORDS if hasattr(before, key)
        }
        setattr(owner, name, spy)
        end = sampler(*values)
        return _last(end) if inspect.isgenerator(end) else end
    finally:
        setattr(owner, name, before)


def _advice(sampler: Callable[..., object], model: str | None) -> str:
    owner = getattr(sampler, "__self__", None)
    if owner is not None and model is None:
        held = [name for name in MODEL_NAMES if hasattr(owner, name)]
        if held:
            return f'if its network is the attribute {held[0]!r}, add model="{held[0]}"'
    return WRAP


def _place(spy: Spy) -> str:
    if not spy.times:
        return "it had not called its model yet"
    return f"its last call, number {len(spy.times)}, was at t = {spy.times[-1]:g}"


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread. More that spin while they wait for each other take twice as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _OnCpu(TorchFunctionMode):
    """Every "cuda" is "cpu"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.cuda:
            return args[0]
        named = {name: _cpu(value) for name, value in (kwargs or {}).items()}
        return func(*map(_cpu, args), **named)


def _cpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


# ------------------------------------------------------------------ its randomness


class Randomness:
    """What the generators are now, to be put back, and other states to run from."""

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._states: tuple[Any, ...] = (
            random.getstate(),
            np.random.get_state(),  # noqa: NPY002, samplers use it
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if self._cuda else [],
        )

    def again(self) -> None:
        """Put the generators back."""
        python, numpy, host, devices = self._states
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(host)
        if self._cuda:
            torch.cuda.set_rng_state_all(devices)

    def other(self, number: int) -> None:
        """Bring them to the state with this number, which depends on what they were."""
        self.again()
        word = int(torch.randint(2**31, ()).item()) + number
        random.seed(word)
        np.random.seed(word % 2**32)  # noqa: NPY002
        torch.manual_seed(word)
