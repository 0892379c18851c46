"""What the arms of a run are by nature: what their rules keep of the noise, and what they drew.

A run names the rule of each arm. Whatever depends on the nature of a rule or of the denoiser asks
here, and nowhere by the name.
"""

from typing import NamedTuple

import numpy as np

from diffviz.diffusion.rules import noise_kept
from diffviz.recording.run import Run

EXACT = ("gaussian", "mixture", "dataset")
"""Denoisers in closed form. The first is linear in x_t."""


class ArmKind(NamedTuple):
    """One arm.

    Attributes:
        name: of the arm.
        rule: its name.
        scale: λ.
        eta: the part of the noise that the rule keeps: 1 for DDPM, η for DDIM, None where the rule
            is another one.
        drawn: whether its steps injected noise.
    """

    name: str
    rule: str
    scale: float
    eta: float | None
    drawn: bool

    @property
    def free(self) -> bool:
        """Whether the joint law of (x_0, x_t) is meant to differ from the forward process.

        So it is with DDIM below η = 1, which keeps a part of its noise, and with any rule that by
        itself draws none.
        """
        part = self.eta not in (None, 1.0) and self.scale == 1
        return self.eta == 0 or part or (self.scale > 0 and not self.drawn)


def arm_kinds(run: Run) -> list[ArmKind]:
    """All arms of the run, in order."""
    drawn = np.nanmax(run.dataset["noise_std"].values, axis=1, initial=0) > 0
    return [
        ArmKind(
            name, str(spec["rule"]), float(spec["noise_scale"]), noise_kept(spec["rule"]), drew
        )
        for name, spec, drew in zip(run.arms, run.spec.arms, drawn.tolist(), strict=True)
    ]


def exact_kind(denoiser: str) -> str:
    """Which of ``EXACT`` a denoiser of this name is; "" for another one."""
    kind, bracket, _ = denoiser.partition("(")
    return kind if bracket and kind in EXACT else ""


def is_linear(run: Run) -> bool:
    """Whether the denoiser is linear in x_t: variances are then linear in λ²."""
    return exact_kind(run.spec.denoiser) == "gaussian"
