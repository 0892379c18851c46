r"""The noise schedule: β_t, α_t = 1 − β_t and ᾱ_t = ∏_{s≤t} α_s for t = 0…T.

t = 0 is clean data, T is noise, ᾱ_0 = 1, and the forward marginal is
q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I)  (DDPM, arXiv 2006.11239, eq. 4).

A schedule is valid when ᾱ_0 = 1, 0 < β_t < 1 for t ≥ 1, ᾱ_t = ᾱ_{t−1} α_t, and hence ᾱ and the
signal-to-noise ratio fall strictly. ``violations`` says in words where one does not hold.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffviz.errors import InputError

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
            array = np.array(getattr(self, field), dtype=np.float64)
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
        T, start, end = _check_T(T), *_check_ends(beta_start, beta_end)
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
        T, start, end = _check_T(T), *_check_ends(beta_start, beta_end)
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
        T, start, end = _check_T(T), *_check_ends(beta_start, beta_end)
        betas = np.linspace(start**0.5, end**0.5, T) ** 2
        return cls._exact(betas, f"scaled-linear(T={T}, {start:g}…{end:g})")

    @classmethod
    def cosine(cls, T: int = USUAL_T, offset: float = 0.008) -> "NoiseSchedule":
        """ᾱ_t ∝ cos²((t/T + s)/(1 + s)·π/2), s = ``offset``, β_t ≤ 0.999.

        arXiv 2102.09672, eq. 17.

        Raises:
            InputError: T outside 1…10,000, or not 0 ≤ offset < 1.
        """
        T = _check_T(T)
        if not (_is_real(offset) and 0 <= offset < 1):
            raise InputError(f"offset is {offset!r}; allowed is 0 ≤ offset < 1")
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
        length = USUAL_T if T is None else T
        if kind == "cosine":
            if given:
                raise InputError(f"{' and '.join(given)} with the cosine schedule, which has none")
            return cls.cosine(length)
        if kind == "course":
            return cls.course(length, **given)
        if kind == "linear":
            return cls.linear(length, **given)
        if kind == "scaled-linear":
            return cls.scaled_linear(length, **given)
        raise InputError(f"schedule is {kind!r:.80}; allowed: {', '.join(KINDS)}")

    @classmethod
    def from_betas(cls, betas: ArrayLike) -> "NoiseSchedule":
        """Any ``betas`` β_1…β_T, shape (T,).

        Raises:
            InputError: another shape, or not 0 < β_t < 1, naming the first t.
        """
        try:
            values = np.asarray(betas, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError("betas are not numbers; allowed is 0 < β_t < 1") from None
        if values.ndim != 1:
            raise InputError(f"betas have shape {values.shape}; allowed is (T,)")
        _check_T(len(values))
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
        steps = self.T if steps is None else steps
        if not _is_integer(steps) or not 1 <= steps <= self.T:
            raise InputError(f"steps is {steps!r}; allowed are the integers 1…T = {self.T}")
        return np.rint(np.linspace(self.T, 0, int(steps) + 1)).astype(np.int64)

    def violations(self) -> list[str]:
        """Every invariant that does not hold, in words; [] for a valid schedule."""
        arrays = {"β": self.betas, "α": self.alphas, "ᾱ": self.alpha_bars}
        found = [
            f"{k} is not finite at t = {_first(~np.isfinite(v))}"
            for k, v in arrays.items()
            if not np.isfinite(v).all()
        ]
        if found:
            return found
        beta, bar = self.betas[1:], self.alpha_bars
        if bar[0] != 1:
            found.append(f"ᾱ_0 = {bar[0]:g}, it must be 1: t = 0 is clean data")
        if (beta <= 0).any():
            t = _first(beta <= 0) + 1
            found.append(f"β_t > 0 fails at t = {t}: β = {self.betas[t]:g}")
        if (beta >= 1).any():
            t = _first(beta >= 1) + 1
            found.append(
                f"β_t < 1 fails at t = {t}: β = {self.betas[t]:g}, "
                "no signal is left there and ε-prediction is undefined"
            )
        if not np.allclose(self.alphas, 1 - self.betas, rtol=1e-9, atol=1e-12):
            t = _first(~np.isclose(self.alphas, 1 - self.betas, rtol=1e-9, atol=1e-12))
            found.append(f"α_t = 1 − β_t fails at t = {t}")
        product = bar[:-1] * self.alphas[1:]
        wrong = ~np.isclose(bar[1:], product, rtol=1e-9, atol=1e-300)
        if wrong.any():
            t = _first(wrong) + 1
            ratio = bar[t] / product[t - 1] if product[t - 1] else np.inf
            found.append(f"ᾱ_t = ᾱ_(t−1)·α_t fails at t = {t}: the ratio is {ratio:.6g}")
        if (np.diff(bar) >= 0).any():
            t = _first(np.diff(bar) >= 0) + 1
            found.append(f"ᾱ_t < ᾱ_(t−1), and with it a falling SNR, fails at t = {t}")
        if (bar < 0).any() or (bar > 1).any():
            found.append(f"0 ≤ ᾱ_t ≤ 1 fails at t = {_first((bar < 0) | (bar > 1))}")
        return found

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
            f"the schedule is {schedule!r:.80}; allowed is a NoiseSchedule, as "
            "NoiseSchedule.course()"
        )
    return schedule


def _divide(a: Array, b: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return a / b


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(mask)[0])


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_T(T: int) -> int:
    if not _is_integer(T) or not 1 <= T <= MAX_T:
        raise InputError(f"T is {T!r}; allowed are the integers 1…{MAX_T}")
    return int(T)


def _check_ends(start: float, end: float) -> tuple[float, float]:
    if not (_is_real(start) and _is_real(end) and 0 < start <= end < 1):
        raise InputError(
            f"beta_start is {start!r} and beta_end {end!r}; allowed is 0 < start ≤ end < 1"
        )
    return float(start), float(end)
