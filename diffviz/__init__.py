"""See, and prove with numbers, what a diffusion sampler does at every step.

Names are imported when they are first used: reading and drawing a run needs no torch.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["play"],
    submod_attrs={
        "diffusion.schedule": ["NoiseSchedule"],
        "measure.ks": ["ks_statistic"],
        "errors": ["InputError", "CheckpointError", "RunFileError"],
        "diffusion.law": ["DataLaw"],
        "sprites.make": ["make_sprites"],
        "diffusion.denoiser": ["Denoiser"],
        "diffusion.exact": ["GaussianDenoiser", "MixtureDenoiser", "DatasetDenoiser"],
        "diffusion.unet": ["ContextUnet", "NetworkDenoiser"],
        "diffusion.checkpoints": ["load_denoiser", "save_denoiser"],
        "training": ["train"],
        "diffusion.rules": ["Arm", "DEFAULT_ARMS", "ddim", "ddpm"],
        "diffusion.sampler": ["Step", "sample"],
        "diffusion.gaussian": ["gaussian_trajectory"],
        "recording.record": ["record"],
        "recording.recorder": ["Recorder"],
        "recording.combine": ["combine"],
        "recording.run": ["Run", "RunSpec"],
        "figures": ["plot"],
        "report": ["write_report"],
        "diagnosis.findings": ["Finding", "diagnose"],
        "identify.probe": ["Probe"],
        "identify.xray": ["XRay", "xray"],
    },
)
__version__ = version("diffviz")
