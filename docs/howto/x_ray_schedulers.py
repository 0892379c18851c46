"""Three schedulers of Hugging Face diffusers, seen from outside."""

import torch
from diffusers import DDIMScheduler, DDPMScheduler

import diffviz as dv


def loop(scheduler, steps):
    def sample(model):
        scheduler.set_timesteps(steps)
        x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x).prev_sample
        return x

    return sample


for scheduler in (
    DDPMScheduler(num_train_timesteps=100, clip_sample=False),
    DDIMScheduler(num_train_timesteps=100, clip_sample=False, set_alpha_to_one=True),
    DDIMScheduler(num_train_timesteps=100),
):
    schedule = dv.NoiseSchedule.from_betas(scheduler.betas.double().numpy())
    seen = dv.xray(loop(scheduler, 50), schedule)
    print(type(scheduler).__name__, seen.rule, seen.time)
    for finding in seen.findings:
        print("  ", finding.severity, finding.message)
