"""A probe in the tutorial's own loop.

The loop is the tutorial's, once as it should be and once as its incorrect variant. `Probe` takes
the place of the network, passes every call on and changes no bit. Afterwards each loop is a run
like any other: it can be saved, diagnosed, reported, and drawn beside another. Here the exact
denoiser of 200 sprites stands for the network. The loop passes t as the fraction i/T, as the
tutorial does.
"""

import torch

import diffviz as dv

schedule = dv.NoiseSchedule.course()
denoiser = dv.DatasetDenoiser(schedule, dv.make_sprites(200)[0])


def sample_ddpm(nn_model, correct, timesteps=500):
    samples = torch.randn(8, 3, 16, 16, generator=(g := torch.Generator().manual_seed(0)))
    for i in range(timesteps, 0, -1):
        t = torch.tensor([i / timesteps])[:, None, None, None]
        z = torch.randn(samples.shape, generator=g) if i > 1 and correct else 0
        s1, s2, s3 = (float(s[i]) for s in (schedule.S1, schedule.S2, schedule.S3))
        samples = s1 * (samples - s2 * nn_model(samples, t)) + s3 * z
    return samples


runs = {}
for name, correct in (("as it is", True), ("incorrect", False)):
    probe = dv.Probe(lambda x, t: denoiser(x, round(500 * t.item())), schedule, data=denoiser.law)
    runs[name] = probe.finish(sample_ddpm(probe, correct))
    print(name, [finding.id for finding in dv.diagnose(runs[name])])
figure = dv.plot(dv.combine(runs), "dial")
