"""See, and prove with numbers, what a diffusion sampler does at every step.

Names are imported when they are first used: reading and drawing a run needs no torch.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

_HOME = {
    "NoiseSchedule": "diffviz.schedule",
    "ks_statistic": "diffviz.statistics",
    "InputError": "diffviz.errors",
    "CheckpointError": "diffviz.errors",
    "RunFileError": "diffviz.errors",
    "DataLaw": "diffviz.data",
    "make_sprites": "diffviz.sprites",
    "Denoiser": "diffviz.denoisers",
    "GaussianDenoiser": "diffviz.denoisers.exact",
    "MixtureDenoiser": "diffviz.denoisers.exact",
    "DatasetDenoiser": "diffviz.denoisers.exact",
    "ContextUnet": "diffviz.denoisers.unet",
    "NetworkDenoiser": "diffviz.denoisers.unet",
    "load_denoiser": "diffviz.denoisers.checkpoints",
    "save_denoiser": "diffviz.denoisers.checkpoints",
    "train": "diffviz.training",
    "Arm": "diffviz.sampling",
    "DEFAULT_ARMS": "diffviz.sampling",
    "Step": "diffviz.sampling",
    "ddim": "diffviz.sampling",
    "ddpm": "diffviz.sampling",
    "gaussian_trajectory": "diffviz.sampling",
    "sample": "diffviz.sampling",
    "Recorder": "diffviz.recording",
    "record": "diffviz.recording",
    "Run": "diffviz.run",
    "RunSpec": "diffviz.run",
    "write_report": "diffviz.report",
    "Finding": "diffviz.findings",
    "diagnose": "diffviz.findings",
    "Probe": "diffviz.probe",
    "XRay": "diffviz.xray",
    "xray": "diffviz.xray",
}

__all__ = list(_HOME)
__version__ = version("diffviz")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'diffviz' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


class _Package(ModuleType):
    """Importing `diffviz.xray` binds the module to that name here; the function keeps it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
