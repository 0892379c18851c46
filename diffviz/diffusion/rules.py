r"""One reverse step, x_t → x_s with s < t: what a sampler does with ε̂.

A rule is linear in what it is given, x_s = a·x_t + b·ε̂ + σ·z, so it is the three numbers
(a, b, σ). DDPM and DDIM differ in them. An `Arm` is a rule and a noise scale λ that multiplies σ:
λ = 0 drops the noise and keeps (a, b), the tutorial's "incorrect" sampler.

An arm is written ``rule[/variance or (eta=…)][*λ]``: ``ddpm``, ``ddpm/posterior``, ``z=0``,
``ddim``, ``ddim(eta=0.5)``, ``ddpm*0.5``. ``Arm.parse`` reads that and ``str(arm)`` writes it.
Brackets mean something to a shell, so ``ddpm-posterior`` and ``ddim:0.5`` are read as well.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from diffviz.diffusion.schedule import NoiseSchedule, check_schedule
from diffviz.errors import InputError, check_number, said, shown, writable

if TYPE_CHECKING:  # arms are parsed without torch
    from torch import Tensor

Array = NDArray[np.float64]
MAX_SCALE = 1e6
"""Of noise scales: far more than anybody needs, and far from overflow in float32."""
MAX_ARMS = 256
ARMS = "ddpm, ddpm/posterior, z=0, ddim, ddim(eta=ETA), each also as ARM*SCALE with SCALE ≥ 0"
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_WRITTEN = re.compile(
    rf"(?P<none>z=0)|(?:ddpm(?:[/-](?P<variance>\w+))?"
    rf"|(?P<ddim>ddim)(?:\(eta=(?P<eta>{_NUMBER})\)|:(?P<short>{_NUMBER}))?)"
    rf"(?:\*(?P<scale>{_NUMBER}))?"
)


@runtime_checkable
class Rule(Protocol):
    """One reverse step from t to s < t."""

    @property
    def name(self) -> str:
        """The rule and its parameters, as written in reports."""
        ...

    def coefficients(self, schedule: NoiseSchedule, t: int, s: int) -> tuple[float, float, float]:
        """(a, b, σ) of x_s = a·x_t + b·ε̂ + σ·z, from t to s < t on ``schedule``."""
        ...

    def __call__(
        self, schedule: NoiseSchedule, x: "Tensor", eps: "Tensor", t: int, s: int
    ) -> tuple["Tensor", float]:
        """(mean, σ) of x_s given x_t and ε̂, the mean of the shape of ``x``."""
        ...


class LinearRule(Rule):
    """A rule that is its coefficients."""

    def __call__(
        self, schedule: NoiseSchedule, x: "Tensor", eps: "Tensor", t: int, s: int
    ) -> tuple["Tensor", float]:
        """(a·x + b·ε̂, σ)."""
        a, b, std = self.coefficients(schedule, t, s)
        return a * x + b * eps, std


@dataclass(frozen=True)
class ddpm(LinearRule):
    """Ancestral sampling, DDPM algorithm 2 (arXiv 2006.11239).

    mean = (x_t − ε̂·(1 − α)/√(1 − ᾱ_t))/√α with α = α_t; over a jump from t to s, α is the product
    α_{s+1}…α_t. The std is √(1 − α) for ``variance="beta"``, √((1 − α)(1 − ᾱ_s)/(1 − ᾱ_t)) for
    ``"posterior"``, and 0 in the last step, s = 0.
    """

    variance: str = "beta"

    def __post_init__(self) -> None:
        if self.variance not in ("beta", "posterior"):
            raise InputError(f"variance is {self.variance!r}; allowed are 'beta', 'posterior'")

    @property
    def name(self) -> str:
        """``ddpm/beta`` or ``ddpm/posterior``."""
        return f"ddpm/{self.variance}"

    def coefficients(self, schedule: NoiseSchedule, t: int, s: int) -> tuple[float, float, float]:
        """(1/√α, −(1 − α)/(√α·√(1 − ᾱ_t)), σ) from t to s on ``schedule``."""
        alpha = math.prod(schedule.alphas[s + 1 : t + 1].tolist())
        left = 1 - float(schedule.alpha_bars[t])
        variance = 1 - alpha
        if self.variance == "posterior":
            variance *= _ratio(1 - float(schedule.alpha_bars[s]), left)
        std = 0.0 if s == 0 else _root(variance)
        shrink = alpha**-0.5 if alpha > 0 else math.inf
        return shrink, _ratio(alpha - 1, _root(alpha * left)), std


@dataclass(frozen=True)
class ddim(LinearRule):
    """DDIM (arXiv 2010.02502, eq. 12 and 16), deterministic at η = 0.

    mean = √ᾱ_s·x̂_0 + √(1 − ᾱ_s − σ²)·ε̂ with x̂_0 = (x_t − √(1 − ᾱ_t)·ε̂)/√ᾱ_t and
    σ² = η²·(1 − ᾱ_s)/(1 − ᾱ_t)·(1 − ᾱ_t/ᾱ_s).
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0, 1)

    @property
    def name(self) -> str:
        """``ddim(eta=η)``."""
        return f"ddim(eta={_written(self.eta)})"

    def coefficients(self, schedule: NoiseSchedule, t: int, s: int) -> tuple[float, float, float]:
        """(√(ᾱ_s/ᾱ_t), √(1 − ᾱ_s − σ²) − √(ᾱ_s(1 − ᾱ_t)/ᾱ_t), σ), t to s on ``schedule``."""
        now, then = float(schedule.alpha_bars[t]), float(schedule.alpha_bars[s])
        variance = self.eta**2 * _ratio(1 - then, 1 - now) * (1 - _ratio(now, then))
        a = _root(_ratio(then, now))
        b = _root(max(1 - then - variance, 0.0)) - a * _root(1 - now)
        return a, b, _root(variance)


@dataclass(frozen=True)
class Arm:
    """One way of sampling: a rule, and λ = ``noise_scale`` ≥ 0 times the rule's own noise.

    Args:
        name: what figures and files call it.
        rule: for example ``ddpm()`` or ``ddim(eta=0.5)``.
        noise_scale: λ; 1 is the rule itself, 0 the rule without its noise.

    Raises:
        InputError: no printable name, no rule, or a scale that is negative or not finite.
    """

    name: str
    rule: Rule
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not name.strip() or not writable(name):
            raise InputError(
                f"the name of an arm is {name!a:.80}; allowed is a text that UTF-8 can write, "
                "without NUL"
            )
        if isinstance(self.rule, type) or not isinstance(self.rule, Rule):
            raise InputError(f"the rule of arm {name!r} is {shown(self.rule)}; as ddpm()")
        if not isinstance(self.rule.name, str):
            raise InputError(
                f"the rule of arm {name!r} has the name {shown(self.rule.name)}; allowed is a text"
            )
        check_number(f"the noise scale of arm {name!r}", self.noise_scale, 0, MAX_SCALE)

    @classmethod
    def parse(cls, text: str) -> "Arm":
        """The arm that is written so; its name is ``str`` of it.

        Raises:
            InputError: the text is not of the form that the module describes.
        """
        found = _WRITTEN.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            raise InputError(f"arm is {shown(text)}; allowed: {ARMS}")
        factor = 0.0 if found["none"] else float(found["scale"] or 1)
        rule: Rule = ddpm(found["variance"] or "beta")
        if found["ddim"]:
            rule = ddim(float(found["eta"] or found["short"] or 0))
        return cls(_arm_text(rule, factor), rule, factor)

    def __str__(self) -> str:
        """The rule and its noise scale as ``parse`` reads them, whatever the arm is called."""
        return _arm_text(self.rule, self.noise_scale)


def check_arms(arms: object) -> tuple[Arm, ...]:
    """The arms of a run.

    Raises:
        InputError: not a sequence of arms, too many, or two of one name.
    """
    allowed = f"allowed are 1…{MAX_ARMS} arms, each with its own name"
    if not isinstance(arms, Sequence) or isinstance(arms, str | bytes):
        raise InputError(f"arms is {shown(arms)}; {allowed}, as [Arm.parse('ddpm')]")
    for arm in arms:
        if not isinstance(arm, Arm):
            raise InputError(f"arms holds {shown(arm)}; {allowed}, as Arm.parse('ddpm')")
    names = [arm.name for arm in arms]
    if not 1 <= len(arms) <= MAX_ARMS or len(set(names)) != len(names):
        raise InputError(f"arms are {names[:8]!r:.200}, {len(names)} of them; {allowed}")
    return tuple(arms)


def noise_kept(rule: str) -> float | None:
    """What a rule of that name keeps of its noise: 1 for DDPM, η for DDIM, None for others."""
    try:
        read = Arm.parse(rule).rule
    except InputError:
        return None
    return read.eta if isinstance(read, ddim) else 1.0


def coefficient_table(
    arms: Sequence[Arm], schedule: NoiseSchedule, times: Sequence[int] | NDArray[np.int64]
) -> Array:
    """(a, b, λσ) of every step of every arm, (S, A, 3), along ``times`` (S+1,).

    Raises:
        InputError: no schedule, times that do not fall from at most T to at least 0, a rule that
            raises, or its coefficients are not three finite numbers with σ ≥ 0.
    """
    check_schedule(schedule)
    grid = np.asarray(times)
    falling = grid.ndim == 1 and grid.dtype.kind in "iu" and len(grid) > 1
    if not falling or (np.diff(grid) >= 0).any() or grid[0] > schedule.T or grid[-1] < 0:
        raise InputError(
            f"times are {shown(times)}; allowed are integers that fall, 0…T = {schedule.T}"
        )
    table = np.empty((len(grid) - 1, len(arms), 3))
    for i in range(len(table)):
        t, s = int(grid[i]), int(grid[i + 1])
        for k, arm in enumerate(arms):
            place = f"the rule of arm {arm.name!r} from t = {t} to {s}"
            try:
                found = arm.rule.coefficients(schedule, t, s)
            except Exception as error:  # a rule may be other people's code
                raise InputError(
                    f"{place} raised {type(error).__name__}: {said(error)}"
                ) from error
            try:
                row = np.array(found, dtype=np.float64)
            except (TypeError, ValueError):
                row = np.empty(0)
            if row.shape != (3,) or not np.isfinite(row).all() or row[2] < 0:
                raise InputError(
                    f"{place} has the coefficients {found!r:.80}; "
                    "allowed are three finite numbers a, b, σ with σ ≥ 0"
                )
            row[2] *= arm.noise_scale
            table[i, k] = row
    return table


def _arm_text(rule: Rule, scale: float) -> str:
    text = {"ddpm/beta": "ddpm", "ddim(eta=0)": "ddim"}.get(rule.name, rule.name)
    if text == "ddpm" and scale == 0:
        return "z=0"
    return text if scale == 1 else f"{text}*{_written(scale)}"


def _written(number: float) -> str:
    """The shortest decimal that reads as this number, without an exponent."""
    return np.format_float_positional(float(number), trim="-")


def _ratio(a: float, b: float) -> float:
    """a/b, infinite or NaN at b = 0, as on a schedule whose ᾱ_T is 0."""
    return a / b if b else (math.copysign(math.inf, a) if a else math.nan)


def _root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


DEFAULT_ARMS = (
    Arm("ddpm", ddpm()),
    Arm("z=0", ddpm(), noise_scale=0.0),
    Arm("ddim", ddim(eta=0.0)),
)
"""DDPM with √β_t, the same without its noise, and DDIM, which is right without noise."""
