r"""A probe: any model inside anybody's loop, with its trajectory recorded as a run.

The probe hands every call on, returns the model's own answer, draws no random number and changes
no bit. What it keeps are copies of x_t and of the answer on the CPU, 8 bytes per value and step,
because the times visited are known only when the loop has ended.

The injected noise is not seen by itself. It is what the regression of x_s on (1, x_t, ε̂) leaves,
whatever the rule; the rule is the known one whose prediction a·x_t + b·ε̂ leaves no more than that.
"""

import time as clock
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffviz.assembly import assemble
from diffviz.data import DataLaw
from diffviz.errors import InputError
from diffviz.recording import Recorder, bin_edges, snapshot_times
from diffviz.run import Run, RunSpec, array_digest
from diffviz.sampling import Rule, Step, ddim, ddpm
from diffviz.schedule import NoiseSchedule
from diffviz.watching import Time, first_half, index_of, passed_time, time_kinds

Array = NDArray[np.float64]
ROUNDING = 1e-6
"""What float32 may leave of a deterministic step, per unit of its terms."""


class Probe:
    """``model(x, t, ...)`` with a memory.

    Args:
        model: any callable; what it is passed beyond x and t is handed on untouched.
        schedule: gives ᾱ, and the rules that the loop is compared with.
        time: what the loop passes as t, as for `diffviz.xray.xray`; not "sigma".
        data: the law of the data, for the references; the model's own ``data`` unless given.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        schedule: NoiseSchedule,
        time: Time = "auto",
        data: DataLaw | None = None,
    ) -> None:
        self.model, self.schedule, self.time = model, schedule, time
        self.data = getattr(model, "data", None) if data is None else data
        self._times: list[float] = []
        self._floating = False
        self._states: list[Tensor] = []
        self._answers: list[Tensor] = []
        self._start = clock.perf_counter()

    def __call__(self, x: Tensor, t: object, *arguments: object, **keywords: object) -> Tensor:
        """The model's answer, bit for bit.

        Of a batch that holds every sample twice, as guidance makes it, the first half is kept; of
        several calls with one x and t, the last answer.
        """
        value, floating = passed_time(t)
        state = _copy(first_half(x))
        answer = self.model(x, t, *arguments, **keywords)
        if not isinstance(answer, Tensor) or answer.shape != x.shape:
            found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise InputError(
                f"the model answered {found} at t = {value:g}; allowed is {tuple(x.shape)}"
            )
        kept = _copy(answer[: len(state)])
        again = self._times and value == self._times[-1] and torch.equal(state, self._states[-1])
        if again:
            self._answers[-1] = kept
            return answer
        if self._states and state.shape != self._states[0].shape:
            raise InputError(
                f"x has shape {tuple(state.shape)} at t = {value:g}, "
                f"before it was {tuple(self._states[0].shape)}; a probe records one loop"
            )
        self._times.append(value)
        self._floating |= floating
        self._states.append(state)
        self._answers.append(kept)
        return answer

    def finish(self, x_0: Tensor) -> Run:
        """The run of the loop that has ended in ``x_0`` (B, *D), with one arm, "probe".

        Raises:
            InputError: nothing was recorded, x is not finite, ``x_0`` has another shape, or the
                times visited do not fall strictly within 1…T.
        """
        if not self._states:
            raise InputError("the probe was never called; pass it to the loop as its model")
        end = _copy(torch.as_tensor(x_0))
        shape = tuple(self._states[0].shape)
        if tuple(end.shape) != shape:
            raise InputError(f"x_0 has shape {tuple(end.shape)}; allowed is {shape}")
        states = [*self._states, end]
        times = self._visited()
        for t, x in zip(times, states, strict=True):
            if not bool(torch.isfinite(x).all()):
                raise InputError(f"x is not finite at t = {t}; there is nothing to describe")
        left = np.zeros(len(times) - 1)
        products = np.zeros((len(times) - 1, 4, 4))
        recorder = Recorder(
            self.schedule, times, 1, shape[0], shape[1:], data=self.data, mergeable=False
        )
        for i, answer in enumerate(self._answers):
            noise, left[i], products[i] = _leftover(states[i], answer, states[i + 1])
            z = noise / left[i] if left[i] else noise
            step = Step(
                int(times[i]),
                int(times[i + 1]),
                states[i][None],
                answer[None],
                (states[i + 1] - noise)[None],
                left[i : i + 1],
                z,
                states[i + 1][None],
            )
            recorder.observe(step)
        rule, scale = _rule(self.schedule, times, products, left)
        spec = RunSpec(
            denoiser=str(getattr(self.model, "name", type(self.model).__name__)),
            denoiser_digest=str(getattr(self.model, "digest", "")),
            schedule=self.schedule.name,
            schedule_digest=array_digest(self.schedule.betas, self.schedule.alpha_bars),
            arms=({"name": "probe", "rule": rule, "noise_scale": scale},),
            steps=len(times) - 1,
            n=shape[0],
            block=shape[0],
            seed=0,
            sample_shape=shape[1:],
        )
        return assemble(
            recorder.finish(end[None]),
            spec,
            self.schedule,
            times,
            self.data,
            snapshot_times(times),
            bin_edges(self.data),
            left[None],
            clock.perf_counter() - self._start,
        )

    def _visited(self) -> NDArray[np.int64]:
        passed = np.array(self._times)
        steps = len(passed)
        seen = passed
        for kind in time_kinds(passed, self._floating, self.time, self.schedule):
            if kind == "sigma" or steps > self.schedule.T:
                continue
            seen = index_of(passed, kind, self.schedule)
            whole = np.array_equal(seen, np.rint(seen))
            if whole and seen[0] <= self.schedule.T and seen[-1] > 0 and (np.diff(seen) < 0).all():
                return np.append(seen, 0).astype(np.int64)
        raise InputError(
            f"the loop visited {steps} times from {seen[0]:g} to {seen[-1]:g}; allowed are "
            f"integers that fall strictly, within 1…T = {self.schedule.T}"
        )


def _copy(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float32, copy=True)


def _leftover(x: Tensor, eps: Tensor, following: Tensor) -> tuple[Tensor, float, Array]:
    """(x_s less its regression on (1, x_t, ε̂), its std or 0, the products of the four)."""
    columns = torch.stack([torch.ones_like(x), x, eps, following]).double().reshape(4, -1).numpy()
    products = columns @ columns.T
    # ε̂ may be affine in x_t, as for Gaussian data; the leftover does not mind.
    basis = np.linalg.svd(columns[:3], full_matrices=False)
    kept = basis[2][basis[1] > 1e-7 * basis[1][0]]
    noise = columns[3] - kept.T @ (kept @ columns[3])
    std = float(np.sqrt(noise @ noise / max(noise.size - len(kept), 1)))
    size = float(np.sqrt(np.diag(products)[1:] / noise.size).sum())
    std = std if std > 4 * ROUNDING * size else 0.0
    noise = noise if std else np.zeros_like(noise)
    return torch.from_numpy(noise.reshape(tuple(x.shape))).float(), std, products


def _rule(
    schedule: NoiseSchedule, times: NDArray[np.int64], products: Array, left: Array
) -> tuple[str, float]:
    """(the known rule whose predictions leave no more than the regression does, its λ).

    λ is the median over the steps of the std injected over the rule's own.
    """
    pairs = list(zip(times[:-1].tolist(), times[1:].tolist(), strict=True))
    full = np.array([ddim(1.0).coefficients(schedule, t, s)[2] for t, s in pairs])
    rules: list[Rule] = [ddpm("beta"), ddpm("posterior"), ddim(0.0)]
    if (full > 0).any():
        eta = float(np.median(left[full > 0] / full[full > 0]))
        rules += [ddim(round(eta, 2))] if 0.02 < eta < 0.98 else []
    n = products[:, 0, 0]
    found: list[tuple[float, float, str, float]] = []
    for rule in rules:
        numbers = np.array([rule.coefficients(schedule, t, s) for t, s in pairs])
        gap = np.column_stack([np.zeros(len(n)), -numbers[:, :2], np.ones(len(n))])
        square = np.einsum("si,sij,sj->s", gap, products, gap)
        size = (np.abs(gap) * np.sqrt(np.einsum("sii->si", products) / n[:, None])).sum(axis=1)
        unit = left**2 + (16 * ROUNDING * size) ** 2
        excess = np.maximum(square - np.maximum(n - 3, 1) * left**2, 0) / unit
        std = numbers[:, 2]
        noisy = std > 0
        scale = float(np.median(left[noisy] / std[noisy])) if noisy.any() else 1.0
        scale = float(np.round(1.0 if abs(scale - 1) < 0.01 else scale, 3))
        misfit = float(np.log1p(excess).mean())
        spread = float(np.abs(left[noisy] / std[noisy] - scale).mean()) if noisy.any() else 0.0
        found.append((misfit, spread, rule.name, scale))
    least = min(item[0] for item in found)
    # Three coefficients take up an excess of 3 on average, log(1 + 3) = 1.4.
    if least > 2.5:
        return "unknown", 1.0
    equals = [item for item in found if item[0] < least + 0.1]
    return min(equals, key=lambda item: item[1])[2:]
