"""What a user may order to be recorded: one check for the command line and the browser.

A `RecordRequest` holds plain words and numbers, so it travels as JSON. Whatever is wrong with them
is one `InputError` that names what was given and what is allowed. Checking and estimating import
no torch; ``run`` does.

The estimate, for A arms, blocks of B of the n samples, d numbers a sample, S steps:

    seconds = start + S·⌈n/B⌉·step + S·A·n·(sample + value·d)
    memory  = libraries + denoiser + states of a block + what is kept of them + counts for merging

with ``step`` and ``sample`` those of the kind of denoiser on an ordinary core.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from diffviz.diffusion.names import SPRITES, DenoiserWords, parse_denoiser, shipped_weights
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, check_arms
from diffviz.diffusion.schedule import KINDS, MAX_T, NoiseSchedule
from diffviz.errors import InputError, shown
from diffviz.recording.block import block_bytes, kept_samples, usual_block
from diffviz.sprites.make import CLASSES

if TYPE_CHECKING:
    from diffviz.diffusion.denoiser import ScheduledDenoiser
    from diffviz.recording.run import Run

MAX_TEXT = 4096
"""Characters of one text."""
NETWORK = 6e6
"""Bytes of the file of a 64-wide network."""
START, STEP, VALUE = 6.0, 5e-3, 1.3e-7
"""Seconds to begin and to write; of one step; to measure one number of one step."""
PAIR, PIXEL = 1.6e-10, 1.6e-5
"""Seconds of one number of a sample beside one of a data set's; of one pixel in a 64-wide net."""
IDLE = 450e6
"""Bytes of a process that has loaded its libraries."""


class Estimate(NamedTuple):
    """What a recording will cost on an ordinary core: ``seconds``, and ``memory`` in bytes."""

    seconds: float
    memory: float


def _integers(low: int, high: int) -> Any:
    return Field(strict=True, ge=low, le=high)


class RecordRequest(BaseModel):
    """An order for `diffviz.recording.record.record`.

    Attributes:
        denoiser: in words, see `diffviz.diffusion.names`; None is the shipped network.
        schedule: course, linear, cosine or scaled-linear; None is the denoiser's own, else course.
        T, beta_start, beta_end: of the schedule; None is its default.
        arms: in words, separated by commas or in a list.
        n, seed, block, steps, label, device: as for ``record``.
        executor: processes:N or dask://HOST:PORT; None is this process.

    Raises:
        InputError: a value that is not allowed, or an entry that there is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    denoiser: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    schedule: Annotated[str, Field(max_length=80)] | None = None
    T: Annotated[int, _integers(1, MAX_T)] | None = None
    beta_start: Annotated[float, Field(gt=0, lt=1)] | None = None
    beta_end: Annotated[float, Field(gt=0, lt=1)] | None = None
    arms: tuple[str, ...] = tuple(str(arm) for arm in DEFAULT_ARMS)
    n: Annotated[int, _integers(1, 10**9)] = 64
    seed: Annotated[int, _integers(0, 2**32 - 1)] = 0
    block: Annotated[int, _integers(1, 10**6)] | None = None
    steps: Annotated[int, _integers(1, MAX_T)] | None = None
    label: Annotated[str, Field(max_length=80)] | None = None
    device: Annotated[str, Field(max_length=80)] = "cpu"
    executor: Annotated[str, Field(max_length=300)] | None = None

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise InputError(_line(error)) from None
        self._check_together()

    @field_validator("arms", mode="before")
    @classmethod
    def _read_arms(cls, value: object) -> object:
        if isinstance(value, str) and len(value) <= MAX_TEXT:
            value = value.split(",")
        if not isinstance(value, list | tuple):
            raise InputError(f"arms is {shown(value)}; allowed is a list, as ddpm,z=0,ddim")
        return tuple(arm.name for arm in check_arms([Arm.parse(text) for text in value]))

    def _check_together(self) -> None:
        words, schedule = self.words, self.noise_schedule
        if self.steps is not None and (schedule is not None or words.kind != "network"):
            (schedule or NoiseSchedule.course()).times(self.steps)
        known = CLASSES if words.source == "sprites" else ()
        if self.label is not None and words.kind != "network" and self.label not in known:
            allowed = ", ".join(known) or f"none, {self.denoiser} has no classes"
            raise InputError(f"class is {self.label!r}; allowed: {allowed}")

    @property
    def words(self) -> DenoiserWords:
        """The denoiser, as its words are understood."""
        return parse_denoiser(self.denoiser)

    @property
    def noise_schedule(self) -> NoiseSchedule | None:
        """The schedule; None where nothing was said about it."""
        asked = (self.schedule, self.T, self.beta_start, self.beta_end)
        if asked == (None,) * 4:
            return None
        return NoiseSchedule.named(asked[0] or KINDS[0], *asked[1:])

    def make(self) -> tuple["ScheduledDenoiser", NoiseSchedule]:
        """The denoiser and the schedule to sample on.

        Raises:
            InputError: a file that cannot be used.
        """
        schedule = self.noise_schedule
        denoiser = self.words.make(schedule)
        return denoiser, denoiser.schedule if schedule is None else schedule

    def run(
        self,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        watch: Callable[..., None] | None = None,
    ) -> "Run":
        """Record it; the arguments are those of ``record``, and so are the errors."""
        from diffviz.recording.record import record
        from diffviz.recording.workers import executor

        denoiser, schedule = self.make()
        names = ("n", "seed", "block", "steps", "label", "device")
        asked: dict[str, Any] = {name: getattr(self, name) for name in names}
        with executor(self.executor) as pool:
            return record(
                denoiser,
                schedule,
                arms=[Arm.parse(arm) for arm in self.arms],
                **asked,
                progress=progress,
                executor=pool,
                out=out,
                resume=resume,
                watch=watch,
            )

    def estimate(self) -> Estimate:
        """What it will cost, from the words alone; a network by the size of its file.

        A set of images that is not the sprites is taken to be as large, and a network to have been
        trained on as many pixels and steps as the shipped one.
        """
        words = self.words
        shape = () if words.kind in ("gaussian", "mixture") else (3, 16, 16)
        size, pixels = math.prod(shape), 256
        if not shape:
            sample, memory, activations = 1e-7 * len(words.numbers), 0.0, 200.0
        elif words.kind == "dataset":
            numbers = SPRITES * size
            sample, memory, activations = PAIR * numbers, 24.0 * numbers, 8.0 * SPRITES + 64 * size
        else:
            file = Path(words.source or shipped_weights())
            part = max(file.stat().st_size / NETWORK, 0.01)  # about the width, squared
            sample, memory, activations = (
                PIXEL * pixels * part,
                60e6 * part,
                4e3 * pixels * part**0.5,
            )
        schedule = self.noise_schedule or NoiseSchedule.course()
        steps = self.steps or schedule.T
        block = min(self.n, self.block or usual_block(size))
        arms, blocks = len(self.arms), -(-self.n // block)
        each = sample + VALUE * size
        seconds = START + steps * (blocks * STEP + arms * self.n * each)
        snapshots = 40 * arms * kept_samples(self.n, size) * size * 8
        here = block_bytes(arms, block, size, steps + 1, blocks > 1) + arms * block * activations
        return Estimate(seconds, IDLE + memory + snapshots + here)


_ALLOWED = {
    "denoiser": "is a text, see diffviz record --help",
    "schedule": f"are {', '.join(KINDS)}",
    "T": f"are the integers 1…{MAX_T}",
    "beta_start": "is 0 < β < 1",
    "beta_end": "is 0 < β < 1",
    "arms": "is a list, as ddpm,z=0,ddim",
    "n": "are the integers 1…1000000000",
    "seed": f"are the integers 0…{2**32 - 1}",
    "block": "are the integers 1…1000000",
    "steps": "are the integers 1…T",
    "label": "is the name of a class",
    "device": "are cpu and cuda",
    "executor": "are processes:N and dask://HOST:PORT",
}


def _line(error: ValidationError) -> str:
    """The first thing that is wrong, in the words of the library."""
    first = error.errors(include_url=False)[0]
    own = first.get("ctx", {}).get("error")
    if isinstance(own, InputError):
        return str(own)
    name = str(first["loc"][0]) if first["loc"] else "the order"
    if first["type"] == "extra_forbidden":
        return f"{shown(name)} is no part of an order; allowed are {', '.join(_ALLOWED)}"
    return f"{name} is {shown(first['input'])}; allowed {_ALLOWED.get(name, 'is an object')}"
