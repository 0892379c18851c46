r"""The noise schedule: β_t, α_t = 1 − β_t and ᾱ_t = ∏_{s≤t} α_s for t = 0…T.

t = 0 is clean data, T is noise, ᾱ_0 = 1, and the forward marginal is
q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I)  (DDPM, arXiv 2006.11239, eq. 4).

A schedule is valid when ᾱ_0 = 1, 0 < β_t < 1 for t ≥ 1, ᾱ_t = ᾱ_{t−1} α_t, and hence ᾱ and the
signal-to-noise ratio fall strictly. ``violations`` says in words where one does not hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffviz.errors import InputError, check_array, check_integer, check_number, shown

Array = NDArray[np.float64]
MAX_T = 10_000
KINDS = ("course", "linear", "cosine", "scaled-linear")
USUAL_T, USUAL_BETAS = 500, (1e-4, 0.02)
"""The tutorial's, and the defaults wherever a schedule is chosen."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Frozen float64 arrays of shape (T+1,), indexed by t itself.

    The named constructors check what they are given. This one takes the arrays as they are (of one
    shape, T ≥ 1), so that a faulty schedule can be looked at: ask it for its ``violations()``.

    Attributes:
        betas: β_t. Index 0 is no step; it is 0, or the tutorial's unused β_0.
        alphas: α_t = 1 − β_t.
        alpha_bars: ᾱ_t, with ᾱ_0 = 1.
        name: how it was made, in one line.
    """

    betas: Array
    alphas: Array
    alpha_bars: Array
    name: str = "custom"

    def __post_init__(self) -> None:
        for field in ("betas", "alphas", "alpha_bars"):
            array = check_array(field, getattr(self, field))
            if array.ndim != 1 or array.shape != np.shape(self.betas) or len(array) < 2:
                raise InputError(f"{field} has shape {array.shape}; allowed is (T+1,) with T ≥ 1")
            array.setflags(write=False)
            object.__setattr__(self, field, array)

    # ---------------------------------------------------------------- constructors

    @classmethod
    def linear(
        cls,
        T: int = USUAL_T,
        beta_start: float = USUAL_BETAS[0],
        beta_end: float = USUAL_BETAS[1],
    ) -> "NoiseSchedule":
        """β_t from ``beta_start`` at t = 1 to ``beta_end`` at t = T, evenly (DDPM, section 4).

        Raises:
            InputError: T outside 1…10,000, or not 0 < beta_start ≤ beta_end < 1.
        """
        T, start, end = _checked(T, beta_start, beta_end)
        return cls._exact(np.linspace(start, end, T), f"linear(T={T}, {start:g}…{end:g})")

    @classmethod
    def course(
        cls,
        T: int = USUAL_T,
        beta_start: float = USUAL_BETAS[0],
        beta_end: float = USUAL_BETAS[1],
    ) -> "NoiseSchedule":
        """The tutorial's schedule, with its quirk.

        β goes evenly from ``beta_start`` at t = 0 to ``beta_end`` at t = T, ᾱ is the product from
        index 0 on, and only then ᾱ_0 is set to 1. So ᾱ_1 = α_0 α_1 instead of α_1, and the last
        step does not return x̂_0.

        Raises:
            InputError: as for ``linear``.
        """
        T, start, end = _checked(T, beta_start, beta_end)
        betas = np.linspace(start, end, T + 1).astype(np.float64)
        alpha_bars = np.cumprod(1 - betas).astype(np.float64)
        alpha_bars[0] = 1
        return cls(betas, 1 - betas, alpha_bars, f"course(T={T}, {start:g}…{end:g})")

    @classmethod
    def scaled_linear(
        cls, T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> "NoiseSchedule":
        """√β_t evenly from √beta_start to √beta_end, t = 1…T (latent diffusion, arXiv 2112.10752).

        Raises:
            InputError: as for ``linear``.
        """
        T, start, end = _checked(T, beta_start, beta_end)
        betas = np.linspace(start**0.5, end**0.5, T) ** 2
        return cls._exact(betas, f"scaled-linear(T={T}, {start:g}…{end:g})")

    @classmethod
    def cosine(cls, T: int = USUAL_T, offset: float = 0.008) -> "NoiseSchedule":
        """ᾱ_t ∝ cos²((t/T + s)/(1 + s)·π/2), s = ``offset``, β_t ≤ 0.999.

        arXiv 2102.09672, eq. 17.

        Raises:
            InputError: T outside 1…10,000, or not 0 ≤ offset ≤ 0.999.
        """
        T = check_integer("T", T, 1, MAX_T)
        offset = check_number("offset", offset, 0, 0.999)
        f = np.cos((np.arange(T + 1) / T + offset) / (1 + offset) * np.pi / 2) ** 2
        return cls._exact(np.minimum(1 - f[1:] / f[:-1], 0.999), f"cosine(T={T}, s={offset:g})")

    @classmethod
    def named(
        cls,
        kind: str,
        T: int | None = None,
        beta_start: float | None = None,
        beta_end: float | None = None,
    ) -> "NoiseSchedule":
        """The schedule of a ``kind`` in KINDS; T is 500 unless given.

        Without ``beta_start`` and ``beta_end``, β is the constructor's own.

        Raises:
            InputError: another kind, as for ``linear``, or a β for cosine, which has none.
        """
        ends = {"beta_start": beta_start, "beta_end": beta_end}
        given = {name: value for name, value in ends.items() if value is not None}
        if kind not in KINDS:
            raise InputError(f"schedule is {shown(kind)}; allowed: {', '.join(KINDS)}")
        if kind == "cosine" and given:
            raise InputError(f"{' and '.join(given)} with the cosine schedule, which has none")
        return getattr(cls, kind.replace("-", "_"))(USUAL_T if T is None else T, **given)

    @classmethod
    def from_betas(cls, betas: ArrayLike) -> "NoiseSchedule":
        """Any ``betas`` β_1…β_T, shape (T,).

        Raises:
            InputError: another shape, or not 0 < β_t < 1, naming the first t.
        """
        values = check_array("betas", betas)
        if values.ndim != 1:
            raise InputError(f"betas have shape {values.shape}; allowed is (T,)")
        check_integer("T", len(values), 1, MAX_T)
        wrong = np.flatnonzero(~((values > 0) & (values < 1)))
        if wrong.size:
            t = wrong[0]
            raise InputError(f"beta at t = {t + 1} is {values[t]:g}; allowed is 0 < β_t < 1")
        return cls._exact(values, f"from_betas(T={len(values)})")

    @classmethod
    def _exact(cls, betas: NDArray[np.floating], name: str) -> "NoiseSchedule":
        exact: Array = np.zeros(len(betas) + 1)
        exact[1:] = betas
        bars: Array = np.cumprod(1 - exact).astype(np.float64)
        return cls(exact, 1 - exact, bars, name)

    def with_zero_terminal_snr(self) -> "NoiseSchedule":
        """Shift and scale √ᾱ so that ᾱ_T = 0 and ᾱ_1 stays (arXiv 2305.08891, algorithm 1).

        With β_T = 1 nothing of x_T is left to predict ε from: such a schedule needs a network that
        predicts v or x_0, ``violations`` says so, and ``record`` refuses it.

        Raises:
            InputError: T is 1.
        """
        root = np.sqrt(self.alpha_bars[1:])
        span = root[0] - root[-1]
        if span <= 0:
            raise InputError(f"zero terminal SNR needs T ≥ 2; {self.name} has T = {self.T}")
        root = (root - root[-1]) * (root[0] / span)
        alpha_bars = np.concatenate([[1.0], root**2])
        alphas = np.concatenate([[1.0], alpha_bars[1:] / alpha_bars[:-1]])
        return NoiseSchedule(1 - alphas, alphas, alpha_bars, f"{self.name}, zero terminal SNR")

    # ---------------------------------------------------------------- derived arrays, (T+1,)

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.betas) - 1

    @cached_property
    def snr(self) -> Array:
        """Signal-to-noise ratio ᾱ_t / (1 − ᾱ_t); infinite at t = 0."""
        return _divide(self.alpha_bars, 1 - self.alpha_bars)

    @cached_property
    def sigma(self) -> Array:
        """Noise level σ_t = √((1 − ᾱ_t)/ᾱ_t), the noise per unit of signal; 0 at t = 0."""
        return np.sqrt(_divide(1 - self.alpha_bars, self.alpha_bars))

    @cached_property
    def posterior_variance(self) -> Array:
        """β̃_t = β_t (1 − ᾱ_{t−1})/(1 − ᾱ_t), DDPM eq. 7; index 0 is NaN."""
        tail = _divide(1 - self.alpha_bars[:-1], 1 - self.alpha_bars[1:])
        return np.concatenate([[np.nan], self.betas[1:] * tail])

    @cached_property
    def S1(self) -> Array:
        """1/√α_t: what x_t − S2·ε̂ is scaled by, x_{t−1} = S1·(x_t − S2·ε̂) + S3·z."""
        return np.concatenate([[np.nan], _divide(np.ones(self.T), np.sqrt(self.alphas[1:]))])

    @cached_property
    def S2(self) -> Array:
        """(1 − α_t)/√(1 − ᾱ_t): how much of the predicted noise is taken away."""
        ratio = _divide(1 - self.alphas[1:], np.sqrt(1 - self.alpha_bars[1:]))
        return np.concatenate([[np.nan], ratio])

    @cached_property
    def S3(self) -> Array:
        """√β_t: how much fresh noise is put in."""
        return np.concatenate([[np.nan], np.sqrt(self.betas[1:])])

    # ---------------------------------------------------------------- questions

    def times(self, steps: int | None = None) -> NDArray[np.int64]:
        """The times a sampler visits: ``steps`` + 1 of them, strictly falling from T to exactly 0.

        They are evenly spaced up to rounding, whatever T % steps is, so no index ever wraps. All
        T + 1 times unless ``steps`` are given.

        Raises:
            InputError: not 1 ≤ steps ≤ T.
        """
        count = self.T if steps is None else check_integer("steps", steps, 1, self.T)
        return np.rint(np.linspace(self.T, 0, count + 1)).astype(np.int64)

    def violations(self) -> list[str]:
        """Every invariant that does not hold, in words; [] for a valid schedule."""
        beta, alpha, bar = self.betas, self.alphas, self.alpha_bars
        first = np.arange(self.T + 1) == 0
        infinite = {
            f"{name} is not finite at t = {{t}}": ~np.isfinite(values)
            for name, values in (("β", beta), ("α", alpha), ("ᾱ", bar))
        }
        if any(wrong.any() for wrong in infinite.values()):
            return _first_of_each(infinite)
        product = np.append(1.0, bar[:-1] * alpha[1:])
        ratio = _divide(bar, product)
        return _first_of_each(
            {
                f"ᾱ_0 = {bar[0]:g}, it must be 1: t = 0 is clean data": first & (bar != 1),
                "β_t > 0 fails at t = {t}: β = {0:g}": ~first & (beta <= 0),
                "β_t < 1 fails at t = {t}: β = {0:g}, no signal is left there and ε-prediction is "
                "undefined": ~first & (beta >= 1),
                "α_t = 1 − β_t fails at t = {t}": ~np.isclose(alpha, 1 - beta, 1e-9, 1e-12),
                "ᾱ_t = ᾱ_(t−1)·α_t fails at t = {t}: the ratio is {1:.6g}": ~first
                & ~np.isclose(bar, product, 1e-9, 1e-300),
                "ᾱ_t < ᾱ_(t−1), and with it a falling SNR, fails at t = {t}": np.append(
                    False, np.diff(bar) >= 0
                ),
                "0 ≤ ᾱ_t ≤ 1 fails at t = {t}": (bar < 0) | (bar > 1),
            },
            beta,
            ratio,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoiseSchedule) and all(
            np.array_equal(getattr(self, a), getattr(other, a), equal_nan=True)
            for a in ("betas", "alphas", "alpha_bars")
        )

    def __hash__(self) -> int:
        return hash(self.alpha_bars.tobytes())

    def __repr__(self) -> str:
        return f"NoiseSchedule.{self.name}"


def check_schedule(schedule: object) -> "NoiseSchedule":
    """The schedule; InputError for anything else."""
    if not isinstance(schedule, NoiseSchedule):
        raise InputError(
            f"the schedule is {shown(schedule)}; allowed is a NoiseSchedule, as "
            "NoiseSchedule.course()"
        )
    return schedule


def _divide(a: Array, b: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return a / b


def _first_of_each(problems: Mapping[str, NDArray[np.bool_]], *told: Array) -> list[str]:
    """The texts of the masks that hold anywhere, with the first such t and the values there."""
    found = {text: int(wrong.argmax()) for text, wrong in problems.items() if wrong.any()}
    return [text.format(*(values[t] for values in told), t=t) for text, t in found.items()]


def _checked(T: int, start: float, end: float) -> tuple[int, float, float]:
    T = check_integer("T", T, 1, MAX_T)
    numbers = all(isinstance(beta, Real) and not isinstance(beta, bool) for beta in (start, end))
    if not (numbers and 0 < start <= end < 1):
        raise InputError(
            f"beta_start is {shown(start)} and beta_end {shown(end)}; "
            "allowed is 0 < start ≤ end < 1"
        )
    return T, float(start), float(end)
