"""Which scheduler of diffusers implements which rule, found by the x-ray: writes diffusers.md.

    python docs/diffusers_table.py

Every scheduler of the installed diffusers is listed. Options are those that change the step.
"""

import inspect
import warnings
from pathlib import Path

import torch

import diffviz as dv
from diffviz.adapters.diffusers import sampler_of, schedule_of, times_of
from diffviz.errors import InputError
from diffviz.files.atomic import replacing

STEPS = (10, 25, 100)
FEW = ("LCMScheduler", "TCDScheduler")
"""Distilled for at most 50 steps."""
SHAPE = (32, 3, 8, 8)
FREE = {"clip_sample": False}
VARIANTS = {
    "DDPMScheduler": [
        ({"variance_type": kind, "clip_sample": clip}, {})
        for kind in ("fixed_small", "fixed_large", "fixed_small_log", "fixed_large_log")
        for clip in (False, True)
    ]
    + [({"thresholding": True}, {})],
    "DDPMParallelScheduler": [(FREE, {}), ({}, {})],
    "DDIMScheduler": [(FREE, {"eta": eta}) for eta in (0.0, 0.5, 1.0)]
    + [
        ({}, {}),
        ({"thresholding": True}, {}),
        (FREE | {"set_alpha_to_one": False}, {}),
        (FREE | {"timestep_spacing": "trailing"}, {}),
        (FREE | {"timestep_spacing": "linspace"}, {}),
        (FREE | {"rescale_betas_zero_snr": True}, {}),
    ],
    "DDIMParallelScheduler": [(FREE, {}), ({}, {})],
    "CogVideoXDDIMScheduler": [(FREE, {})],
    "TCDScheduler": [({}, {}), ({}, {"eta": 0.0})],
    "EulerDiscreteScheduler": [
        ({}, {}),
        ({"use_karras_sigmas": True}, {}),
        ({"timestep_spacing": "trailing"}, {}),
        ({}, {"s_churn": 5.0}),
    ],
    "EulerAncestralDiscreteScheduler": [({}, {}), ({"timestep_spacing": "trailing"}, {})],
    "DPMSolverMultistepScheduler": [
        ({}, {}),
        ({"use_karras_sigmas": True}, {}),
        ({"timestep_spacing": "trailing"}, {}),
        ({"solver_type": "heun"}, {}),
        ({"solver_order": 1}, {}),
        ({"solver_order": 3}, {}),
        ({"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, {}),
        ({"algorithm_type": "sde-dpmsolver++", "solver_order": 1}, {}),
        ({"algorithm_type": "sde-dpmsolver++"}, {}),
        ({"thresholding": True}, {}),
    ],
    "DPMSolverSinglestepScheduler": [({}, {}), ({"solver_order": 1}, {})],
    "DEISMultistepScheduler": [({}, {}), ({"solver_order": 1}, {})],
    "UniPCMultistepScheduler": [({}, {}), ({"solver_order": 1, "disable_corrector": [0]}, {})],
    "PNDMScheduler": [({}, {}), ({"skip_prk_steps": True}, {})],
}
NEEDS = {
    "DPMSolverSDEScheduler": "needs torchsde",
    "UnCLIPScheduler": "its step must be told the time that comes next",
    "RePaintScheduler": "fills in an image that it must be given",
    "DDIMInverseScheduler": "goes upwards, from an image to noise",
    "DPMSolverMultistepInverseScheduler": "goes upwards, from an image to noise",
    "DPMSolverMultistepInverse": "goes upwards, from an image to noise",
    "CogVideoXDPMScheduler": "its step takes its own last x̂_0 and time",
}


def words(options, step):
    """Options as code; "as it comes" for none."""
    parts = [f"{k}={v!r}" for k, v in options.items()] + [f"{k}={v!r}" for k, v in step.items()]
    return ", ".join(f"`{part}`" for part in parts) or "as it comes"


def identify(scheduler, steps, step):
    """(the rule, or None; ids of the findings, or the line that says why there are none)."""
    torch.manual_seed(0)
    try:
        seen = dv.xray(
            sampler_of(scheduler, steps, step),
            schedule_of(scheduler),
            shape=SHAPE,
            time=times_of(scheduler, steps),
        )
    except ValueError as error:
        return None, str(error).splitlines()[0].split(". ")[0]
    named = f"**{seen.rule}**" if seen.rule else "right, without a name here"
    if not seen.behaves:
        named = f"not right, closest to {seen.rule}" if seen.rule else "not right"
    return named, ", ".join(f"`{f.id}`" for f in seen.findings if f.id != "rule-unnamed")


def rows(name, kind):
    """The lines of one scheduler."""
    for options, step in VARIANTS.get(name, [({}, {})]):
        counts = [steps for steps in STEPS if steps <= 50 or name not in FEW]
        found = [identify(kind(**options), steps, step) for steps in counts]
        rules = [rule or "not identified" for rule, _ in found]
        texts = [text or "none" for _, text in found]
        rule, text = (
            values[0]
            if len(set(values)) == 1
            else "; ".join(
                f"{value} ({steps} steps)" for value, steps in zip(values, counts, strict=True)
            )
            for values in (rules, texts)
        )
        print(f"{name} {options} {step}: {rule} | {text}", flush=True)
        yield f"| {name} | {words(options, step)} | {rule} | {text} |"


def why_not(kind):
    """Why a scheduler cannot be driven with ε alone, or None."""
    if kind.__name__ in NEEDS:
        return NEEDS[kind.__name__]
    try:
        schedule_of(kind())
    except InputError:
        return "has no β_t: another kind of diffusion"
    except TypeError:
        return "cannot be made as it comes: another kind of diffusion"
    except ImportError:
        return "needs torchsde"
    names = list(inspect.signature(kind.step).parameters)[1:4]
    if names != ["model_output", "timestep", "sample"]:
        return "its step takes " + ", ".join(names)
    return None


def main():
    """Write diffusers.md."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers
        from diffusers import schedulers
        from diffusers.utils import logging

        logging.set_verbosity_error()
        names = sorted(name for name in dir(schedulers) if name.endswith("Scheduler"))
        table, others = [], []
        for name in names:
            kind = getattr(schedulers, name, None)  # some are names without a class
            reason = "cannot be imported" if kind is None else why_not(kind)
            if reason is None:
                table += rows(name, kind)
            else:
                others.append(f"| {name} | {reason} |")
    here = Path(__file__).parent
    template = (here / "diffusers.md.in").read_text(encoding="utf-8")
    steps = ", ".join(map(str, STEPS[:-1])) + f" and {STEPS[-1]}"
    for mark, text in (
        ("@VERSION@", diffusers.__version__),
        ("@STEPS@", steps),
        ("@TABLE@", "\n".join(table)),
        ("@OTHERS@", "\n".join(others)),
    ):
        template = template.replace(mark, text)
    with replacing(here / "diffusers.md") as path:
        path.write_text(template, encoding="utf-8")


if __name__ == "__main__":
    main()
