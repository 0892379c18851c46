"""What a browser may order to be recorded, checked value by value, and what it will cost.

An order is one small JSON object. No value of it is a path: a denoiser is one of those that the
server offers, by its name. Nothing is computed here, so the process that answers pages may do it.

Cost, for A arms, blocks of B of the n samples, each of d numbers, over S steps:

    seconds = start + S·⌈n/B⌉·(step + A·B·(sample + value·d)) + writing
    memory  = denoiser + what one block keeps + counts for merging, where there are several blocks
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dashboards.pages import KINDS
from diffviz.errors import InputError
from diffviz.sprites.make import CLASSES

LARGEST_T = 10_000
LARGEST_N = 1_000_000
MOST_ARMS = 8
MOST_MODES = 16
LARGEST_NUMBER = 100.0
LONGEST = 400
"""Characters of any text in an order."""
MEMORY = 2048 * 2**20
"""Bytes that a worker may take, unless told otherwise."""
IDLE = 450e6
"""Bytes of a worker that has loaded its libraries and holds nothing."""
SECONDS = 1800.0
"""The longest recording that is started, by its estimate."""
FIELDS = (
    *("denoiser", "data", "plan", "length", "start", "end"),
    *("arms", "n", "seed", "class", "steps"),
)
NUMBER = r"\d{1,6}(?:\.\d{0,12})?"
ARM = re.compile(rf"(ddpm|ddpm/posterior|z=0|ddim(?:\(eta=({NUMBER})\))?)(?:\*({NUMBER}))?")


class Refused(InputError):
    """An order that is not taken: the key of a text in the catalogue, and its fields."""

    def __init__(self, key: str, **values: object) -> None:
        fields = ", ".join(f"{name} {value}" for name, value in values.items())
        super().__init__(f"{key}: {fields}" if fields else key)
        self.key, self.values = key, {name: str(value) for name, value in values.items()}

    def told(self) -> dict[str, Any]:
        """What the page needs to say it in its language."""
        return {"key": self.key, "values": self.values}


@dataclass(frozen=True)
class Price:
    """What one model costs on an ordinary core; times are corrected by what jobs really took.

    Attributes:
        step: seconds of one step, whatever the batch.
        sample: seconds of one sample in one step.
        memory: bytes of the model itself.
        activations: bytes of one sample on its way through.
    """

    step: float
    sample: float
    memory: float
    activations: float


EXACT = Price(step=4e-3, sample=2e-7, memory=0, activations=200)
SPRITES = Price(step=10e-3, sample=2.5e-4, memory=120e6, activations=80e3)
NETWORK = Price(step=15e-3, sample=4e-3, memory=60e6, activations=1e6)
VALUE, START, WRITING = 1.3e-7, 4.0, 3.0
"""Seconds to describe one number of one step; to start a worker; to write all files."""


@dataclass(frozen=True)
class Model:
    """A denoiser that the server offers.

    Attributes:
        id: its name in an order.
        name: what it is called where the catalogue has no words for it; the stem of a file.
        kind: "gaussian", "mixture", "dataset" or "network".
        source: a file given on the command line; None for those that come with diffviz.
        classes: what can be asked for alone.
        T: of its own schedule; None for a model that has none.
        shape: of one sample.
    """

    id: str
    name: str
    kind: str
    source: str | None = None
    classes: tuple[str, ...] = ()
    T: int | None = None
    shape: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """Samples, unless told: enough to see something, few enough for a minute or two."""
        return {"network": 16, "dataset": 32}.get(self.kind, 4000)

    @property
    def price(self) -> Price:
        """Of a network per 3×16×16 values."""
        if self.kind == "network":
            part = math.prod(self.shape) / 768
            return replace(NETWORK, sample=NETWORK.sample * part, activations=1e6 * part)
        return SPRITES if self.kind == "dataset" else EXACT


SHIPPED = (
    Model("network", "sprites network", "network", None, CLASSES, 500, (3, 16, 16)),
    Model("sprites", "sprites", "dataset", None, CLASSES, None, (3, 16, 16)),
    Model("gaussian", "gaussian", "gaussian"),
    Model("mixture", "mixture", "mixture"),
)
USUAL_DATA = {"gaussian": "2,0.5", "mixture": "-1,0.2,0.7;1.5,0.3,0.3"}


@dataclass(frozen=True)
class Order:
    """A recording that makes sense: what `diffviz record` would be told."""

    model: Model
    denoiser: str | None
    plan: str | None
    T: int
    start: float | None
    end: float | None
    arms: tuple[str, ...]
    n: int
    seed: int
    label: str | None
    steps: int

    @property
    def block(self) -> int:
        """Samples of one block, as recording chooses them."""
        return min(self.n, max(64, min(16384, 49152 // max(math.prod(self.model.shape), 1))))

    @property
    def name(self) -> str:
        """A name for the run, the same in every language."""
        what = self.model.name
        if self.model.kind in USUAL_DATA and self.denoiser is not None:
            what += f"({self.denoiser.partition(':')[2].replace(';', '; ')})"
        parts = [what[:60], *([self.label] if self.label else [])]
        parts += [f"n={self.n}", f"T={self.T}"]
        if self.steps != self.T:
            parts.append(f"steps={self.steps}")
        return ", ".join([*parts, f"seed={self.seed}"])

    def seconds(self) -> float:
        """How long sampling takes on an ordinary core, without start and writing."""
        price, blocks = self.model.price, -(-self.n // self.block)
        values = VALUE * max(math.prod(self.model.shape), 1)
        each = len(self.arms) * self.n * (price.sample + values)
        return self.steps * (blocks * price.step + each)

    def memory(self) -> float:
        """Bytes at the peak."""
        arms, points = len(self.arms), self.steps + 1
        size = max(math.prod(self.model.shape), 1)
        price, coordinates = self.model.price, min(size, 4096)
        rows = arms * self.block
        described = arms * points * (3 * (128 * 4 + 64) + 16 * coordinates) * 2
        described += arms * points * 2500  # its curves as text, in the page and in the report
        kept = min(64 * 2**20, 4 * rows * size * points)
        snapshots = 40 * arms * min(self.n, max(256, 2**16 // size)) * size * 8
        several = self.n > self.block
        cells = 10 * 2048 * 4 * points * (4 * arms + 1) if several else 0
        alive = rows * (price.activations + 80 * size)
        return IDLE + price.memory + described + kept + snapshots + cells + alive

    def told(self) -> dict[str, Any]:
        """For the worker."""
        return {
            "denoiser": self.denoiser,
            "plan": self.plan,
            "T": self.T,
            "start": self.start,
            "end": self.end,
            "arms": ",".join(self.arms),
            "n": self.n,
            "block": self.block,
            "seed": self.seed,
            "label": self.label,
            "steps": self.steps,
            "name": self.name,
        }


def order(asked: Mapping[str, Any], models: Sequence[Model]) -> Order:
    """The order that a browser means.

    Raises:
        Refused: a field that is unknown, of the wrong kind or out of range.
    """
    for name, value in asked.items():
        if name not in FIELDS:
            raise Refused("field", name=_short(name))
        if isinstance(value, str) and len(value) > LONGEST:
            if name == "arms":
                raise Refused("arms", most=MOST_ARMS)
            raise Refused("long", name=name, most=LONGEST)
    known = {model.id: model for model in models}
    chosen = asked.get("denoiser", "network")
    if not isinstance(chosen, str) or chosen not in known:
        raise Refused("denoiser", given=_short(chosen), allowed=", ".join(known))
    model = known[chosen]
    plan, T, start, end = _schedule(asked, model)
    label = asked.get("class") or None
    if label is not None and label not in model.classes:
        allowed = ", ".join(model.classes) or "–"
        raise Refused("class", given=_short(label), allowed=allowed)
    n = _integer(asked, "n", model.n, 1, LARGEST_N)
    return Order(
        model=model,
        denoiser=_denoiser(asked.get("data"), model),
        plan=plan,
        T=T,
        start=start,
        end=end,
        arms=_arms(asked.get("arms", "ddpm,z=0,ddim")),
        n=n,
        seed=_integer(asked, "seed", 0, 0, 2**32 - 1),
        label=label,
        steps=_integer(asked, "steps", T, 1, T),
    )


def _schedule(
    asked: Mapping[str, Any], model: Model
) -> tuple[str | None, int, float | None, float | None]:
    """(kind or None for the model's own, T, ends of β or None for the usual ones)."""
    plan = asked.get("plan") or ("own" if model.T is not None else "course")
    if plan == "own" and model.T is not None:
        return None, model.T, None, None
    if not isinstance(plan, str) or plan not in KINDS:
        raise Refused("plan", given=_short(plan), allowed=", ".join(KINDS))
    T = _integer(asked, "length", model.T or 500, 1, LARGEST_T)
    start, end = (None if plan == "cosine" else _end(asked, name) for name in ("start", "end"))
    given = {"beta_start": start, "beta_end": end}
    made: Callable[..., Any] = KINDS[plan]
    try:
        schedule = made(T, **{name: value for name, value in given.items() if value is not None})
    except InputError as error:
        raise Refused("schedule", error=error) from None
    bars = schedule.alpha_bars[1:]
    if not ((bars > 0) & (bars < 1)).all():
        raise Refused("schedule", error=f"ᾱ: {bars.min():g}…{bars.max():g}")
    return plan, T, start, end


def _end(asked: Mapping[str, Any], name: str) -> float | None:
    value = asked.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise Refused("beta", given=_short(value))
    return float(value)


def _denoiser(data: Any, model: Model) -> str | None:
    """The words of `diffviz record --denoiser`."""
    if model.kind == "network":
        return model.source
    if model.kind == "dataset":
        return "dataset:sprites"
    text = data or USUAL_DATA[model.kind]
    parts = 2 if model.kind == "gaussian" else 3
    modes = text.split(";") if isinstance(text, str) else []
    rows = [[_float(value) for value in mode.split(",")] for mode in modes]
    fits = 1 <= len(rows) <= (1 if parts == 2 else MOST_MODES)
    for row in rows:
        fits = fits and len(row) == parts and all(abs(v) <= LARGEST_NUMBER for v in row)
        fits = fits and row[1] >= 0 and (parts == 2 or row[2] > 0)
    if not fits:
        raise Refused(model.kind, given=_short(text), most=f"{LARGEST_NUMBER:g}")
    return f"{model.kind}:" + ";".join(",".join(f"{v:g}" for v in row) for row in rows)


def _float(text: str) -> float:
    try:
        value = float(text.replace("−", "-"))
    except ValueError:
        return math.inf
    return value if math.isfinite(value) else math.inf


def _arms(text: Any) -> tuple[str, ...]:
    names = [part.strip() for part in text.split(",")] if isinstance(text, str) else []
    if not 1 <= len(names) <= MOST_ARMS:
        raise Refused("arms", most=MOST_ARMS)
    for name in names:
        found = ARM.fullmatch(name)
        if found is None or float(found[2] or 0) > 1 or float(found[3] or 0) > 10:
            raise Refused("arm", given=_short(name))
    if len(set(names)) != len(names):
        raise Refused("twice")
    return tuple(names)


def _integer(asked: Mapping[str, Any], name: str, usual: int, low: int, high: int) -> int:
    value = asked.get(name)
    if value is None or value == "":
        return usual
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refused("number", name=name, given=_short(value), low=low, high=high)
    return value


def _short(value: object) -> str:
    plain = isinstance(value, str | int | float) or value is None
    text = str(value) if plain else type(value).__name__
    text = "".join(c if c.isprintable() else "·" for c in text)
    return text if len(text) <= 60 else text[:59] + "…"
