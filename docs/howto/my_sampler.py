"""The tutorial's loop, with a fault: β_t·z is added where √β_t·z is right."""

import torch

import diffviz as dv

schedule = dv.NoiseSchedule.linear(T=100, beta_end=0.1)


def sample(model):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 16, 16, generator=generator)
    for t in range(100, 0, -1):
        eps = model(x, t)
        x = float(schedule.S1[t]) * (x - float(schedule.S2[t]) * eps)
        if t > 1:
            x = x + float(schedule.betas[t]) * torch.randn(x.shape, generator=generator)
    return x
