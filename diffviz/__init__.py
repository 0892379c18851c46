"""See, and prove with numbers, what a diffusion sampler does at every step.

Names are imported when they are first used: reading and drawing a run needs no torch. A package
imports only from lines above its own::

    errors
    files, sprites, measure       files and texts; data; statistics of arrays
    diffusion                     schedules, rules, denoisers, the sampling loop
    recording, training           from steps to a run; a network
    diagnosis                     what the numbers of a run mean
    figures, identify, play       pictures of a run; any sampler from outside; the live plane
    report, testing, adapters     one page; a check for tests; other libraries
    cli, dashboards

Where to begin with a change:

======================================  ==========================================================
a schedule                              ``diffusion/schedule.py``, ``KINDS``
a rule of one model call a step         ``diffusion/rules.py``; ``identify/rules.py`` names it
a sampler of more calls a step          ``diffusion/sampler.py``
a number of every step                  ``recording/statistics.py``, then ``run.VARIABLES``
a curve over time, and its band         ``diagnosis/bands.py``, ``CURVES``; ``figures/curves.py``
a picture                               a file in ``figures`` and a line of its ``_PICTURES``
a threshold, a verdict                  ``diagnosis/verdicts.py``
a finding about a run                   ``diagnosis/findings.py``
a finding of the x-ray                  ``identify/judge.py``; its causes in ``identify/faults.py``
an option of a recording                ``recording/request.py``, then ``cli.py``
words on a screen                       ``files/locales/en`` and ``zh``
a page of the dashboard                 a file in ``dashboards/pages``
======================================  ==========================================================
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
