r"""The reverse process: a rule gives one step, a loop applies it and yields.

A rule here is linear in what it is given, x_s = a·x_t + b·ε̂ + σ·z with s < t, so it is the three
numbers (a, b, σ). DDPM and DDIM differ in them; an `Arm` is a rule and a noise scale λ that
multiplies σ. λ = 0 drops the noise and keeps (a, b), the tutorial's "incorrect" sampler.

Arms sampled together share x_T and, step by step, z: they differ by one thing only.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diffusion.denoiser import Denoiser
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError, NonfiniteError, said

Array = NDArray[np.float64]


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What a denoiser may answer in."""
MAX_SCALE = 1e6
"""Times a rule's own noise; far more than shows anything, and far from the end of float32."""


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
        self, schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: int, s: int
    ) -> tuple[Tensor, float]:
        """(mean, σ) of x_s given x_t and ε̂."""
        ...


class _LinearRule:
    def coefficients(self, schedule: NoiseSchedule, t: int, s: int) -> tuple[float, float, float]:
        raise NotImplementedError

    def __call__(
        self, schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: int, s: int
    ) -> tuple[Tensor, float]:
        a, b, std = self.coefficients(schedule, t, s)
        return a * x + b * eps, std


def _ratio(a: float, b: float) -> float:
    """a/b, infinite or NaN at b = 0, as on a schedule whose ᾱ_T is 0."""
    return a / b if b else (math.copysign(math.inf, a) if a else math.nan)


def _root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


@dataclass(frozen=True)
class ddpm(_LinearRule):
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
class ddim(_LinearRule):
    """DDIM (arXiv 2010.02502, eq. 12 and 16), deterministic at η = 0.

    mean = √ᾱ_s·x̂_0 + √(1 − ᾱ_s − σ²)·ε̂ with x̂_0 = (x_t − √(1 − ᾱ_t)·ε̂)/√ᾱ_t and
    σ² = η²·(1 − ᾱ_s)/(1 − ᾱ_t)·(1 − ᾱ_t/ᾱ_s).
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.eta, int | float) and 0 <= self.eta <= 1):
            raise InputError(f"eta is {self.eta!r}; allowed is 0 ≤ eta ≤ 1")

    @property
    def name(self) -> str:
        """``ddim(eta=η)``."""
        return f"ddim(eta={np.format_float_positional(self.eta, trim='-')})"

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
        InputError: no name, no rule, or a scale that is negative or not finite.
    """

    name: str
    rule: Rule
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"the name of an arm is {self.name!r}; allowed is any text")
        if not isinstance(self.rule, Rule):
            raise InputError(f"the rule of arm {self.name!r} is {self.rule!r}; for example ddpm()")
        scale = self.noise_scale
        if not (isinstance(scale, int | float) and 0 <= scale <= MAX_SCALE):
            raise InputError(
                f"the noise scale of arm {self.name!r} is {scale!r}; allowed is 0 to {MAX_SCALE:g}"
            )


DEFAULT_ARMS = (
    Arm("ddpm", ddpm()),
    Arm("z=0", ddpm(), noise_scale=0.0),
    Arm("ddim", ddim(eta=0.0)),
)
"""DDPM with √β_t, the same without its noise, and DDIM, which is right without noise."""


class Step(NamedTuple):
    """One step from t to s of A arms. Tensors are (A, B, *D); z (B, *D) is shared by the arms.

    x_next = mean + std·z, with ``std`` (A,) = λ·σ.
    """

    t: int
    s: int
    x: Tensor
    eps: Tensor
    mean: Tensor
    std: Array
    z: Tensor
    x_next: Tensor


def check_device(device: str) -> torch.device:
    """The device of that name, when this machine has it.

    Raises:
        InputError: it has not.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if device not in allowed:
        known = ", ".join(allowed) if count else "cpu, there is no GPU"
        raise InputError(f"device is {device!r}; allowed here: {known}")
    return torch.device(device)


def sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    generator: torch.Generator,
    *,
    arms: Sequence[Arm] = DEFAULT_ARMS,
    times: Sequence[int] | NDArray[np.int64] | None = None,
    context: Tensor | None = None,
) -> Iterator[Step]:
    """Walk every arm from the same x_T down the same times, yielding each step.

    Args:
        denoiser: called once a step with all arms in one batch (A·B, *D).
        schedule: gives the coefficients.
        x_T: the common start (B, *D).
        generator: draws z, one (B, *D) a step for all arms.
        arms: the ways of sampling.
        times: falling from T to 0; all of T…0 unless given.
        context: class weights (B, classes) for all arms, or None.

    Raises:
        InputError: the denoiser raises, changes x, or its answer has another shape or type, or is
            not finite; naming the step.
    """
    times = schedule.times() if times is None else times
    pairs = list(zip(map(int, times[:-1]), map(int, times[1:]), strict=True))
    batch = (len(arms) * len(x_T), *x_T.shape[1:])
    contexts = None if context is None else context.repeat(len(arms), 1)
    numbers = np.array([[arm.rule.coefficients(schedule, t, s) for arm in arms] for t, s in pairs])
    stds = numbers[:, :, 2] * [arm.noise_scale for arm in arms]
    move = _move(arms, schedule, pairs, numbers, x_T)
    scales = _along_arms(stds, x_T)
    x, answers = x_T.expand(len(arms), *x_T.shape), _Answers(x_T.device)
    for i, (t, s) in enumerate(pairs):
        with torch.no_grad():  # left again before each yield
            eps = _ask(denoiser, x.reshape(batch), t, contexts)
            answers.check(eps, batch, t, last=s == pairs[-1][1])
            eps = eps.to(x.dtype).reshape(x.shape)
            z = torch.randn(x_T.shape, generator=generator, dtype=x_T.dtype, device=x_T.device)
            mean = move(i, x, eps)
            x_next = (scales[i] * z).add_(mean)
        yield Step(t, s, x, eps, mean, stds[i], z, x_next)
        x = x_next


def _ask(denoiser: Denoiser, x: Tensor, t: int, context: Tensor | None) -> Tensor:
    """The denoiser's answer as it is, once it is of a kind that a step can be made with."""
    before = None if x.is_inference() else x._version
    given = x.clone() if x.device.type == "cpu" else None  # elsewhere a look would wait for it
    try:
        eps = denoiser(x, t, context)
    except (InputError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # other people's code
        raise InputError(
            f"the denoiser raised {type(error).__name__} at t = {t}: {said(error)}"
        ) from error
    if (before is not None and x._version != before) or not _same(x, given):
        raise InputError(f"the denoiser changed x in place at t = {t}; it must return ε̂ alone")
    if not isinstance(eps, Tensor):
        raise InputError(f"the denoiser returned {type(eps).__name__} at t = {t}; not a tensor")
    plain = eps.layout == torch.strided and not eps.is_nested
    if eps.dtype not in FLOATS or eps.device != x.device or not plain:
        raise InputError(
            f"the denoiser returned {eps.dtype} on {eps.device} at t = {t}; "
            f"allowed are floating point numbers on {x.device}"
        )
    return eps


def _same(x: Tensor, given: Tensor | None) -> bool:
    """Whether ``x`` is as it was given, NaN where there was NaN; True where that is not known."""
    return (
        given is None
        or torch.equal(x, given)
        or (x.shape == given.shape and bool(((x == given) | (given.isnan() & x.isnan())).all()))
    )


Pairs = Sequence[tuple[int, int]]


def _move(
    arms: Sequence[Arm], schedule: NoiseSchedule, pairs: Pairs, numbers: Array, like: Tensor
) -> Callable[[int, Tensor, Tensor], Tensor]:
    """(index of the step, x, ε̂) → means of x_s, both (A, B, *D).

    Linear rules are three calls for all arms; a rule of another kind is asked for each step.
    """
    if not all(isinstance(arm.rule, _LinearRule) for arm in arms):
        return lambda i, x, eps: torch.stack(
            [
                arm.rule(schedule, x_a, eps_a, *pairs[i])[0]
                for arm, x_a, eps_a in zip(arms, x, eps, strict=True)
            ]
        )
    a, b = _along_arms(numbers[:, :, 0], like), _along_arms(numbers[:, :, 1], like)
    # Not fused into one call: whether a product is rounded before it is added would then depend
    # on where in the array it stands, and so on the number of threads.
    return lambda i, x, eps: (a[i] * x).add_(b[i] * eps)


def _along_arms(table: Array, like: Tensor) -> tuple[Tensor, ...]:
    """One tensor (A, 1, …) per row of (S, A), to multiply arms of batches like ``like``."""
    tensor = torch.as_tensor(table, dtype=like.dtype, device=like.device)
    return tensor.reshape(*table.shape, *[1] * like.ndim).unbind()


class _Answers:
    """Checks what a denoiser returns. A device other than the CPU is asked only now and then."""

    EVERY = 64

    def __init__(self, device: torch.device) -> None:
        self._every = 1 if device.type == "cpu" else self.EVERY
        self._times: list[int] = []
        self._finite: list[Tensor] = []

    def check(self, eps: Tensor, shape: tuple[int, ...], t: int, last: bool) -> None:
        if tuple(eps.shape) != shape:
            raise InputError(
                f"the denoiser returned shape {tuple(eps.shape)} at t = {t}; allowed is {shape}"
            )
        # A finite sum has finite terms; the sum of finite terms may overflow.
        if self._every == 1 and math.isfinite(eps.sum().item()):
            return
        self._times.append(t)
        self._finite.append(torch.isfinite(eps).all())
        if last or len(self._times) >= self._every:
            found = torch.stack(self._finite).tolist()
            if not all(found):
                first = self._times[found.index(False)]
                raise NonfiniteError(
                    f"the denoiser returned a value that is not finite at t = {first}"
                )
            self._times, self._finite = [], []


class GaussianTrajectory(NamedTuple):
    """Exact statistics of one arm on Gaussian data, each over the times visited (S+1,)."""

    t: NDArray[np.int64]
    mean: Array
    std: Array
    eps_mean: Array
    eps_std: Array
    residual_mean: Array
    residual_std: Array


def gaussian_trajectory(
    schedule: NoiseSchedule,
    arm: Arm,
    mean: float,
    std: float,
    times: Sequence[int] | NDArray[np.int64] | None = None,
) -> GaussianTrajectory:
    """What `sample` does in distribution when the data are N(mean, std²) and ε̂ is exact.

    One ``arm`` along ``times``, falling from T to 0 on ``schedule``; all of T…0 unless given.
    ``mean`` and ``std`` ≥ 0, μ and s below, are those of the data.

    ε̂ = c(x − √ᾱμ) with c = √(1−ᾱ)/(ᾱs² + 1 − ᾱ), so each step is affine with slope g = a + bc:
    E and Var of x_t follow from the start N(0, 1), and Cov(x_0, x_t) = Var(x_t)·∏g over the steps
    still to come, which gives the residual r_t = (x_t − √ᾱ_t x_0)/√(1−ᾱ_t). No sampling.
    """
    grid = np.asarray(schedule.times() if times is None else times, dtype=np.int64)
    bars = schedule.alpha_bars[grid]
    answer = np.sqrt(1 - bars) / (bars * std**2 + 1 - bars) if std > 0 else _point_answer(bars)
    means, variances, slopes = np.zeros(len(grid)), np.ones(len(grid)), np.ones(len(grid))
    for i in range(len(grid) - 1):
        a, b, sigma = arm.rule.coefficients(schedule, int(grid[i]), int(grid[i + 1]))
        slopes[i] = a + b * answer[i]
        means[i + 1] = slopes[i] * means[i] - b * answer[i] * np.sqrt(bars[i]) * mean
        variances[i + 1] = slopes[i] ** 2 * variances[i] + (arm.noise_scale * sigma) ** 2
    to_end = np.append(np.cumprod(slopes[:-1][::-1])[::-1], 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = variances - 2 * np.sqrt(bars) * to_end * variances + bars * variances[-1]
        residual_std = np.sqrt(np.maximum(spread, 0) / (1 - bars))
        residual_mean = (means - np.sqrt(bars) * means[-1]) / np.sqrt(1 - bars)
        eps_mean = answer * (means - np.sqrt(bars) * mean)
        eps_std = answer * np.sqrt(variances)
    return GaussianTrajectory(
        grid, means, np.sqrt(variances), eps_mean, eps_std, residual_mean, residual_std
    )


def _point_answer(bars: Array) -> Array:
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(1 - bars)
