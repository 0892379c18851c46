"""A run made by hand, in which everything is right but for what a test changes."""

from typing import Any

import numpy as np
import xarray as xr

import diffviz as dv
from diffviz.recording.run import Run

TIMES = np.arange(100, -1, -1)
RIGHT = np.linspace(1, 0.5, len(TIMES))
"""Std between samples and distance to the mean, as they should be."""


def made(
    arms: list[str],
    *,
    n: int = 4096,
    rules: dict[str, tuple[str, float]] | None = None,
    silent: tuple[str, ...] = (),
    denoiser: str = "by hand",
    width: float = 0.05,
    **changed: Any,
) -> Run:
    """T = 100, every time visited, the data N(0, 0.5²) as numbers.

    ``rules`` gives (rule, noise scale) of an arm, DDPM with all of its noise otherwise. ``width``
    is that of the bands, as a part of the reference. A change is NAME=(arm, value), where a value
    is a number or (N,); the residual's std and D are ``residual`` and ``residual_d``, and
    ``mean_x`` is the mean of x_t. A ``reference_`` or a band takes its value alone.
    """
    A, S = len(arms), len(TIMES)
    specs = [(a, *(rules or {}).get(a, ("ddpm/beta", 1.0))) for a in arms]
    arm_t, arm_q_t = ("arm", "t"), ("arm", "quantity", "t")
    ones = np.ones((A, S))
    drawn = [0.1 * (scale > 0 and a not in silent) for a, _, scale in specs]
    schedule = dv.NoiseSchedule.linear(100)
    variables: dict[str, tuple] = {
        "mean": (arm_q_t, np.zeros((A, 3, S))),
        "std": (arm_q_t, np.ones((A, 3, S)) * np.stack([RIGHT, ones[0], ones[0]])),
        "values": (arm_q_t, np.full((A, 3, S), n)),
        "ks_normal": (arm_q_t, np.full((A, 3, S), 0.01)),
        "ks_normal_error": (arm_q_t, np.zeros((A, 3, S))),
        "ks_normal_p": (arm_q_t, np.full((A, 3, S), 0.5)),
        "ks_marginal": (arm_t, 0.01 * ones),
        "ks_marginal_error": (arm_t, 0.0 * ones),
        "std_between": (arm_t, ones * RIGHT),
        "std_within": (arm_t, 0.0 * ones),
        "distance_to_mean": (arm_t, ones * RIGHT),
        "noise_std": (arm_t, np.array(drawn)[:, None] * ones),
        "samples": (("arm", "sample"), np.zeros((A, 4))),
        "class_count": (("arm", "class"), np.full((A, 2), n // 2)),
        "reference_class_share": (("class",), np.full(2, 0.5)),
        "distinct_nearest": (("arm",), np.full(A, 100)),
        "reference_distinct_nearest": ((), 100.0),
        "reference_mean": (("t",), np.zeros(S)),
        "reference_std_within": (("t",), np.zeros(S)),
        "schedule_beta": (("schedule_t",), schedule.betas),
        "schedule_alpha": (("schedule_t",), schedule.alphas),
        "schedule_alpha_bar": (("schedule_t",), schedule.alpha_bars),
    }
    for name in ("std", "std_between", "distance_to_mean", "residual_std"):
        right = np.ones(S) if name == "residual_std" else RIGHT
        if name != "residual_std":
            variables[f"reference_{name}"] = (("t",), right.copy())
        variables[f"{name}_low"] = (("t",), right * (1 - width))
        variables[f"{name}_high"] = (("t",), right * (1 + width))
    for name in ("mean", "std_within"):
        variables[f"{name}_low"] = (("t",), np.full(S, -width))
        variables[f"{name}_high"] = (("t",), np.full(S, width))
    for name in ("ks_marginal", "residual_ks"):
        variables[f"{name}_low"] = (("t",), np.zeros(S))
        variables[f"{name}_high"] = (("t",), np.full(S, width))
    coords = {
        "arm": list(arms),
        "t": TIMES,
        "quantity": ["x", "eps", "residual"],
        "class": ["one", "other"],
    }
    dataset = xr.Dataset(variables, coords)
    inner = {
        "residual": ("std", "residual"),
        "residual_d": ("ks_normal", "residual"),
        "mean_x": ("mean", "x"),
        "std_x": ("std", "x"),
    }
    for name, change in changed.items():
        if name.startswith("reference") or name.endswith(("_low", "_high")):
            dataset[name][...] = change
        elif name in inner:
            variable, quantity = inner[name]
            dataset[variable].loc[{"arm": change[0], "quantity": quantity}] = change[1]
        else:
            dataset[name].loc[{"arm": change[0]}] = change[1]
    spec = dv.RunSpec(
        denoiser=denoiser,
        denoiser_digest="",
        schedule="linear",
        schedule_digest="",
        arms=tuple({"name": a, "rule": rule, "noise_scale": s} for a, rule, s in specs),
        steps=100,
        n=n,
        block=n,
        seed=0,
        sample_shape=(),
    )
    return Run(dataset.assign_attrs(spec=spec.to_json()))


def ending(value: float, before: np.ndarray = RIGHT) -> np.ndarray:
    """(N,) ``before``, but ``value`` at t = 0."""
    return np.where(TIMES > 0, before, value)
