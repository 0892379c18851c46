r"""The reverse process: from x_T ~ N(0, I) down to x_0, one `Step` at a time.

x_s = mean + λσ·z with (mean, σ) from the arm's rule. Arms sampled together share x_T and, step by
step, z: they differ by one thing only.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffviz.diffusion.denoiser import Checked, Denoiser
from diffviz.diffusion.rules import DEFAULT_ARMS, Arm, LinearRule, check_arms, coefficient_table
from diffviz.diffusion.schedule import NoiseSchedule, check_schedule
from diffviz.errors import InputError, said, shown

Array = NDArray[np.float64]


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
        context: class weights (B, K) of the samples, the same for all arms, or None.

    Raises:
        InputError: an argument of another kind, or an answer that cannot be used.
    """
    arms = check_arms(arms)
    if not isinstance(x_T, Tensor) or not x_T.is_floating_point() or x_T.ndim < 1:
        raise InputError(f"x_T is {shown(x_T)}; allowed is a tensor (B, *D) of floats")
    if not isinstance(generator, torch.Generator):
        raise InputError(f"generator is {shown(generator)}; allowed is a torch.Generator")
    if not (context is None or (isinstance(context, Tensor) and context.ndim == 2)):
        raise InputError(f"context is {shown(context)}; allowed is a tensor (B, K), or None")
    times = check_schedule(schedule).times() if times is None else times
    table = coefficient_table(arms, schedule, times)
    a, b, stds = (_along_arms(table[:, :, i], x_T) for i in range(3))
    linear = all(isinstance(arm.rule, LinearRule) for arm in arms)
    ask = Checked(denoiser, x_T.device)
    contexts = None if context is None else context.repeat(len(arms), 1)
    x = x_T.expand(len(arms), *x_T.shape)
    for i, (t, s) in enumerate(pairwise(map(int, times))):
        with torch.no_grad():  # left again before each yield
            eps = ask(x.flatten(0, 1), t, contexts, last=i == len(table) - 1).view(x.shape)
            z = torch.randn(x_T.shape, generator=generator, dtype=x_T.dtype, device=x_T.device)
            if linear:
                # Not fused into one call: whether a product is rounded before it is added would
                # then depend on where in the array it stands, and so on the number of threads.
                mean = (a[i] * x).add_(b[i] * eps)
            else:
                means = [_mean_of(arm, schedule, x[k], eps[k], t, s) for k, arm in enumerate(arms)]
                mean = torch.stack(means)
            x_next = (stds[i] * z).add_(mean)
        yield Step(t, s, x, eps, mean, table[i, :, 2], z, x_next)
        x = x_next


def _mean_of(arm: Arm, schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
    """What a rule of any kind gives, once it is a mean of the right shape."""
    place = f"the rule of arm {arm.name!r}"
    try:
        mean, _ = arm.rule(schedule, x, eps, t, s)
    except Exception as error:  # a rule may be other people's code
        raise InputError(
            f"{place} raised {type(error).__name__} at t = {t}: {said(error)}"
        ) from error
    if not isinstance(mean, Tensor) or mean.shape != x.shape:
        found = tuple(mean.shape) if isinstance(mean, Tensor) else type(mean).__name__
        raise InputError(f"{place} gave a mean {found} at t = {t}; allowed is {tuple(x.shape)}")
    return mean.to(x)


def _along_arms(table: Array, like: Tensor) -> tuple[Tensor, ...]:
    """One tensor (A, 1, …) per row of (S, A), to multiply arms of batches like ``like``."""
    tensor = torch.as_tensor(table, dtype=like.dtype, device=like.device)
    return tensor.reshape(*table.shape, *[1] * like.ndim).unbind()


def check_device(device: str) -> torch.device:
    """The device of that name, when this machine has it.

    Raises:
        InputError: it has not.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if device not in allowed:
        known = ", ".join(allowed) if count else "cpu, there is no GPU"
        raise InputError(f"device is {shown(device)}; allowed here: {known}")
    return torch.device(device)
