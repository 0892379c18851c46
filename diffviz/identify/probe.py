r"""A probe: any model inside anybody's loop, with its trajectory recorded as a run.

The probe hands every call on, returns the model's own answer, draws no random number and changes
no bit. It keeps copies of x_t and of the answers, because how the loop passes t and writes its
states is known only when it has ended. Of these copies at most ``MEMORY`` bytes lie in memory, the
rest in a temporary file.

The run is written in the project's convention, x_t in variance-preserving form and ε̂, whatever
the loop's was (`diffviz.identify.recorded`). The injected noise is what the regression of x_s on
(1, x_t, m_t) leaves, or on the calls before too, where the rule has a memory.
"""

import inspect
import tempfile
import time as clock
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diagnosis.findings import Finding, diagnose
from diffviz.diffusion.denoiser import Description, describe
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.sampler import Step
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.identify.calls import called_with, ending_of, passed_time
from diffviz.identify.paths import ANSWERS, Time
from diffviz.identify.recorded import PLACES, Recorded, Understood, left_over, understand
from diffviz.recording.dataset import assemble
from diffviz.recording.recorder import Recorder
from diffviz.recording.run import Run, RunSpec, array_digest

Array = NDArray[np.float64]
MEMORY = 64 * 2**20
"""Bytes of states that stay in memory."""
ROUNDING = 1e-6
"""What float32 may leave of a deterministic step, per unit of its terms."""
MAX_ANSWERS = 8
LARGE = 10.0
"""RMS of data, beside noise of std 1, from which on they are of another range."""
OWN = ("model", "schedule", "time", "data", "reading", "findings")
"""What a probe has itself. Everything else that is asked of it or set is the model's."""


class Tape:
    """States and answers in the order they came, in memory up to ``MEMORY``, then in a file."""

    def __init__(self) -> None:
        # Open as long as the tape is; closing deletes it.
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self.starts: list[tuple[int, int]] = []
        self.shape: tuple[int, ...] = ()

    def begin(self, x: Tensor) -> None:
        """A new step, with x_t and no answer yet."""
        self.shape = tuple(x.shape)
        self.starts.append((self._file.seek(0, 2), -1))
        self.keep(x)

    def keep(self, values: Tensor) -> None:
        """One more answer of the newest step."""
        start, count = self.starts[-1]
        self.starts[-1] = start, count + 1
        self._file.seek(0, 2)
        kept = values.detach().to("cpu", torch.float32).contiguous().numpy()
        try:
            self._file.write(kept.tobytes())
        except OSError as error:
            raise InputError(
                f"the probe cannot keep step {len(self.starts)} in a temporary file: "
                f"{error.strerror}; record fewer samples or fewer steps"
            ) from None

    def again(self, x: Tensor) -> None:
        """The newest step begins anew."""
        self._file.seek(self.starts.pop()[0])
        self._file.truncate()
        self.begin(x)

    def step(self, i: int) -> NDArray[np.float32]:
        """x_t of step i and its answers, (1 + answers, n, *D)."""
        start, count = self.starts[i]
        size = 4 * int(np.prod(self.shape))
        self._file.seek(start)
        found = np.frombuffer(self._file.read((1 + count) * size), np.float32)
        return found.reshape(1 + count, *self.shape)


class Probe:
    """``model(x, t, ...)`` with a memory. A probe of an ``nn.Module`` is one too.

    Args:
        model: any callable; what it is passed beyond x and t is handed on untouched. It may answer
            with a tensor, with a tuple or list that starts with one, or with a mapping or an
            object that has it as ``sample``.
        schedule: gives ᾱ, and the rules that the loop is compared with.
        time: what the loop passes as t, as for `diffviz.identify.xray.xray`.
        answer: what the model answers, "eps", "x0", "v" or another of ``ANSWERS``; "auto" finds
            out or refuses.
        data: the law of the data, for the references; the model's own ``law`` unless given.

    Attributes:
        reading: how the loop was understood; None before ``finish``.
        findings: what is wrong with loop and model, after ``finish``, the worst first.

    Raises:
        InputError: an ``answer`` that there is not.
    """

    model: Callable[..., object]

    def __new__(cls, model: Callable[..., object], *_: object, **__: object) -> "Probe":
        """A `ModuleProbe` for an ``nn.Module``."""
        return object.__new__(ModuleProbe if isinstance(model, torch.nn.Module) else cls)

    def __init__(
        self,
        model: Callable[..., object],
        schedule: NoiseSchedule,
        time: Time = "auto",
        answer: str = "auto",
        data: DataLaw | None = None,
    ) -> None:
        if answer not in ("auto", *ANSWERS):
            raise InputError(f"answer is {answer!r}; allowed are 'auto', {', '.join(ANSWERS)}")
        self.model, self.schedule, self.time = model, schedule, time
        law = getattr(model, "law", None) if data is None else data
        self.data = law if isinstance(law, DataLaw) else None
        self.reading: Understood | None = None
        self.findings: tuple[Finding, ...] = ()
        self._answers: Sequence[str] = ANSWERS if answer == "auto" else (answer,)
        self._tape = Tape()
        self._times: list[float] = []
        self._calls, self._copies, self._floating = 0, 1, False
        self._last: Tensor | None = None
        self._first: tuple[Any, ...] | None = None
        self._precision = 0.0
        # A denoiser of diffviz counts its times from 1; the first call says whether the loop does.
        ours = isinstance(getattr(model, "schedule", None), NoiseSchedule)
        self._shift = None if ours and time in ("auto", "index0") else 0
        self._begun = clock.perf_counter()

    def __getattr__(self, name: str) -> Any:
        if name in OWN:  # before __init__, as when copied
            raise AttributeError(name)
        value = getattr(self.model, name)
        if not (inspect.ismethod(value) and value.__self__ is self.model):
            return value

        def method(*arguments: object, **keywords: object) -> Any:
            result = value(*arguments, **keywords)
            return self if result is self.model else result  # as .to and .eval return the model

        return method

    def __setattr__(self, name: str, value: object) -> None:
        own = name in OWN or name.startswith("_")
        object.__setattr__(self, name, value) if own else setattr(self.model, name, value)

    def __call__(self, *arguments: object, **keywords: object) -> Any:
        """The model's answer, bit for bit.

        A denoiser of diffviz counts from 1. It is given t + 1 if the loop counts from 0, which
        ``time`` says, or else a first time of T − 1.

        A batch that holds every sample twice or three times, as guidance makes it, is one batch
        with as many answers; so are several calls with one x and t. Of calls with one t and
        another x, as a corrector makes them, the last is the one that the step starts from.
        """
        x, t = called_with(arguments, keywords)
        if not isinstance(x, Tensor) or not x.ndim or not x.is_floating_point():
            what = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"the loop passed {what} as x; allowed is a float tensor (B, *D)")
        value, floating = passed_time(t)
        if self._shift is None:
            self._shift = int(self.time == "index0" or value == self.schedule.T - 1)
        state = x.detach().clone()  # a model may work in place
        if self._first is None and isinstance(self.model, torch.nn.Module):
            given = tuple(state if a is x else a for a in arguments)
            self._first = state, given, {k: state if a is x else a for k, a in keywords.items()}
        if self._shift and value.is_integer():  # of another, the model says what it was given
            later = t + 1
            arguments = tuple(later if a is t else a for a in arguments)
            keywords = {k: later if a is t else a for k, a in keywords.items()}
        answer = self.model(*arguments, **keywords)
        self.see(state, value, floating, answer)
        return answer

    def see(self, x: Tensor, value: float, floating: bool, answer: object) -> None:
        """Keep one call: state x, time ``value`` as passed, whether ``floating``, the answer.

        Raises:
            InputError: a state or an answer of another shape than before.
        """
        if not self._times:
            copies = [k for k in (2, 3) if len(x) >= k and len(x) % k == 0 and _repeats(x, k)]
            self._copies = copies[0] if copies else 1
            self._precision = float(torch.finfo(x.dtype).eps)
        batch = tuple(self._tape.shape) or (len(x) // self._copies, *x.shape[1:])
        count = len(x) // batch[0] if x.ndim and batch[0] else 0
        if tuple(x.shape[1:]) != batch[1:] or count * batch[0] != len(x) or not _repeats(x, count):
            raise InputError(
                f"x has shape {tuple(x.shape)} at t = {value:g}, before it was {batch}; "
                "a probe records one loop"
            )
        state, given = x[: batch[0]], _tensor(answer, x, value)
        self._calls += 1
        if self._times and value == self._times[-1]:
            if self._last is None or not torch.equal(state, self._last):
                self._tape.again(state)
        else:
            self._times.append(value)
            self._tape.begin(state)
        self._last = state
        self._floating |= floating
        for part in given.chunk(count):
            if self._tape.starts[-1][1] == MAX_ANSWERS:
                raise InputError(
                    f"the model was asked more than {MAX_ANSWERS} times about one x at "
                    f"t = {value:g}; a probe records loops that move on"
                )
            self._tape.keep(part)

    def finish(self, x_0: object) -> Run:
        """The run of the loop that has ended in ``x_0`` (B, *D), with one arm, "probe".

        Of a tuple, as the tutorial's loops return it, the first state counts, of a list the last.
        Pictures (uint8, 0…1, channels last, a list of them) are taken back to x_0. Where the times
        visited are no integers of the schedule, the run counts the visited levels S…0.

        Raises:
            InputError: nothing was recorded, x is not finite, ``x_0`` has another shape, the times
                visited do not fall strictly within 1…T, or the answer cannot be told.
        """
        if not self._times:
            raise InputError("the probe was never called; pass it to the loop as its model")
        if len(self._times) == 1 < self._calls:
            raise InputError(
                f"the loop passed t = {self._times[0]:g} in all of its {self._calls} calls; "
                "allowed are times that fall"
            )
        tape, steps = self._tape, len(self._times)
        end, picture = _end(x_0, tape.shape, tape.step(steps - 1)[0])
        for i in range(steps + 1):
            if not np.isfinite(tape.step(i) if i < steps else end).all():
                at = f"t = {self._times[i]:g}" if i < steps else "t = 0"
                raise InputError(f"x or the answer is not finite at {at}; nothing to describe")
        reading = understand(self._recorded(end), self.schedule, self.time, self._answers)
        self.reading = reading
        run, last = self._run(reading, end)
        self.findings = (*self._own_findings(run, end, picture, last), *diagnose(run))
        order = ("error", "warning", "information")
        self.findings = tuple(sorted(self.findings, key=lambda f: order.index(f.severity)))
        return run

    # ---------------------------------------------------------------- from copies to a run

    @property
    def _rounding(self) -> float:
        return max(ROUNDING, 4 * self._precision)

    def _recorded(self, end: NDArray[np.float32]) -> Recorded:
        """The loop at some places."""
        tape, steps = self._tape, len(self._times)
        places = np.random.default_rng(0).permutation(end.size)[:PLACES]
        most = max(count for _, count in tape.starts)
        x, answers = np.zeros((steps + 1, len(places))), np.zeros((steps, most, len(places)))
        for i in range(steps):
            kept = tape.step(i).reshape(1 + tape.starts[i][1], -1)[:, places].astype(np.float64)
            x[i], answers[i, 0] = kept[:2]
            answers[i, 1 : len(kept) - 1] = kept[2:] - kept[1]
        x[steps] = end.reshape(-1)[places]
        return Recorded(np.array(self._times), self._floating, x, answers, self._rounding)

    def _run(self, reading: Understood, end: NDArray[np.float32]) -> tuple[Run, float]:
        """(the run, the std of the noise in its last step)."""
        levels, tape, shape = reading.levels, self._tape, self._tape.shape
        steps, schedule = len(self._times), self.schedule
        if levels.whole:
            times = np.append(levels.index, 0).astype(np.int64)
        else:
            visited, name = levels.visited, f"{schedule.name}, the {steps} levels visited"
            schedule = NoiseSchedule(visited.betas, visited.alphas, visited.alpha_bars, name)
            times = np.arange(steps, -1, -1)
        recorder = Recorder(
            schedule, times, 1, shape[0], shape[1:], law=self.data, mergeable=False
        )
        injected = np.zeros(steps)
        past: list[Array] = []
        for i in range(steps):
            kept = tape.step(i).reshape(1 + tape.starts[i][1], -1).astype(np.float64)
            x, used = kept[0], kept[1]
            for weight, other in zip(reading.guidance, kept[2:], strict=False):
                used = used + weight * (other - kept[1])
            following = (end if i + 1 == steps else tape.step(i + 1)[0]).reshape(-1)
            state = x / levels.size[i]
            eps = levels.noise(i, x, used)
            clean = levels.clean(i, state, eps)
            columns = [np.ones_like(x), x, used]
            columns += past if reading.noise_in == "history" else []
            columns += [clean.clip(-1, 1)] if reading.clipped else []
            past = [x, used, *past][:6]
            left, std = left_over(np.stack(columns), following.astype(np.float64), self._rounding)
            to_form = 1 / levels.size_then[i]
            if reading.noise_in != "none":
                injected[i] = float(std) * to_form
            noise = left * to_form if injected[i] else np.zeros_like(left)
            ahead = following * to_form
            x_t, answer, mean, z, x_s = (
                torch.from_numpy(values.astype(np.float32)).reshape(1, *shape)
                for values in (state, eps, ahead - noise, noise / (injected[i] or 1), ahead)
            )
            t, s = (int(time) for time in times[i : i + 2])
            recorder.observe(Step(t, s, x_t, answer, mean, injected[i : i + 1], z[0], x_s))
        try:
            described = describe(self.model)
        except InputError:  # a stranger's .name or .classes of another type
            described = Description(name=type(self.model).__name__)
        spec = RunSpec(
            denoiser=described.name,
            denoiser_digest=described.digest,
            schedule=schedule.name,
            schedule_digest=array_digest(schedule.betas, schedule.alphas, schedule.alpha_bars),
            arms=({"name": "probe", "rule": reading.rule, "noise_scale": reading.noise_scale},),
            steps=steps,
            n=shape[0],
            block=shape[0],
            seed=0,
            sample_shape=shape[1:],
        )
        run = assemble(
            recorder.finish(torch.from_numpy(end)[None]),
            spec,
            schedule,
            times,
            self.data,
            injected[None],
            clock.perf_counter() - self._begun,
            self._asked_again(),
        )
        return run, float(injected[-1])

    def _own_findings(
        self, run: Run, end: NDArray[np.float32], picture: bool, last: float
    ) -> list[Finding]:
        """What a run does not show."""
        assert self.reading is not None
        first, before = int(run.dataset["t"][0]), int(run.dataset["t"][-2])
        found = []
        if self._precision > 1e-4:
            evidence: dict[str, float | str] = {"found": self._precision}
            found.append(Finding("half-precision", "warning", "probe", (first, before), evidence))
        if last and self.reading.rule not in ("unknown", "ddim(eta=0)"):
            evidence = {"found": last, "rule": self.reading.rule}
            found.append(Finding("noise-last-step", "error", "probe", (before, before), evidence))
        # Samples that ran away lie on both sides of 0, pictures in 0…255 on one.
        mean, std = float(end.mean(dtype=np.float64)), float(end.std(dtype=np.float64))
        size = float(np.hypot(mean, std))
        if size > LARGE and mean > 0.5 * std:
            evidence = {"found": size, "low": float(end.min()), "high": float(end.max())}
            found.append(Finding("data-range", "error", "probe", (0, 0), evidence))
        if picture:
            found.append(Finding("pictures-returned", "information", "probe", (0, 0)))
        return found

    def _asked_again(self) -> tuple[float, float] | None:
        """(RMS difference of two answers to the first question, and with other samples beside).

        As a share of the answer's RMS. Only of modules; generators and buffers are put back.
        """
        if self._first is None or not isinstance(self.model, torch.nn.Module):
            return None
        x, arguments, keywords = self._first
        kept = max(len(x) // 2, 1)
        # Of another mean and std, so that no statistic of the batch stays as it was.
        other = 1 + 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        other = torch.cat([x[:kept], other[kept:].to(x)])

        def ask(about: Tensor) -> Tensor:
            given = [about if a is x else a for a in arguments]
            named = {k: about if a is x else a for k, a in keywords.items()}
            with torch.no_grad():
                return _tensor(self.model(*given, **named), about, 0.0)[:kept].double()

        buffers = [(value, value.clone()) for value in self.model.buffers()]
        try:
            with torch.random.fork_rng([] if x.device.type == "cpu" else [x.device]):
                torch.manual_seed(0)
                first, second = ask(x), ask(x)
                torch.manual_seed(0)
                apart = ask(other) - first
        except Exception:  # other people's code, called again where it does not expect it
            return None
        finally:
            for value, before in buffers:
                value.copy_(before)
        size = float(first.square().mean().sqrt())
        differences = [float(d.square().mean().sqrt()) / size for d in (second - first, apart)]
        return round(differences[0], 4), round(differences[1], 4) if len(x) > 1 else float("nan")


class ModuleProbe(Probe, torch.nn.Module):
    """A probe of an ``nn.Module``, which shares its parameters, buffers, children and hooks."""

    def __init__(self, model: torch.nn.Module, *arguments: Any, **keywords: Any) -> None:
        object.__setattr__(self, "model", model)
        training = model.training
        torch.nn.Module.__init__(self)
        model.training = training
        self.__dict__ |= {k: v for k, v in vars(model).items() if k in self.__dict__}
        super().__init__(model, *arguments, **keywords)

    @property
    def training(self) -> bool:
        """Of the model."""
        return bool(vars(self)["model"].training)

    @training.setter
    def training(self, value: bool) -> None:
        vars(self)["model"].training = value

    def forward(self, *arguments: object, **keywords: object) -> Any:
        """As a call."""
        return self(*arguments, **keywords)


def _tensor(answer: object, x: Tensor, value: float) -> Tensor:
    """The tensor in a model's answer; of twice the channels, the first half."""
    found = answer
    if isinstance(answer, Mapping):
        found = answer["sample"] if "sample" in answer else next(iter(answer.values()), None)
    elif isinstance(answer, tuple | list):
        found = answer[0] if answer else None
    elif not isinstance(answer, Tensor):
        found = getattr(answer, "sample", answer)
    if isinstance(found, Tensor):
        if x.ndim > 1 and found.shape == (len(x), 2 * x.shape[1], *x.shape[2:]):
            found = found[:, : x.shape[1]]
        if found.shape == x.shape:
            return found
    what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    raise InputError(f"the model answered {what} at t = {value:g}; allowed is {tuple(x.shape)}")


def _repeats(x: Tensor, count: int) -> bool:
    """Whether a batch holds every sample ``count`` times, in order."""
    return count == 1 or all(torch.equal(x[: len(x) // count], part) for part in x.chunk(count))


def _end(
    x_0: object, shape: tuple[int, ...], last: NDArray[np.float32]
) -> tuple[NDArray[np.float32], bool]:
    """(x_0, whether it was made into pictures), beside the last state that the model was shown.

    Of x, 2x − 1 and x/127.5 − 1 the one is taken that lies next to that state.
    """
    ending = ending_of(x_0, shape)
    if ending.values is None:
        raise InputError(f"x_0 is {type(x_0).__name__}; allowed is a tensor of shape {shape}")
    values = ending.values.numpy()
    maps, seen = [values], [last]
    if ending.kind == "picture" or (values.min() >= -0.01 and values.max() <= 1.01):
        maps.append(2 * values - 1 if values.max() <= 1.01 else values / 127.5 - 1)
        seen.append(last.clip(-1, 1))
    apart = [np.sqrt(((m - x) ** 2).mean()) for m, x in zip(maps, seen, strict=True)]
    best = int(np.argmin(apart))
    return maps[best].astype(np.float32), bool(best) or ending.kind == "picture"
