"""The two sampling loops of the tutorial, first lesson, under the probe and the x-ray.

The cells are typed from the article. Its helper lost its last line in print, ``return mean +
noise``; it is there in the notebook. `nn_model` is a global name, so a probe can be put in its
place without a change to a loop.
"""

import numpy as np
import pytest
import torch

import diffviz as dv
from diffviz.diffusion.names import shipped_weights

SETTINGS = """
timesteps = 500
beta1 = 1e-4
beta2 = 0.02

device = torch.device("cuda:0" if torch.cuda.is_available() else torch.device('cpu'))
n_feat = 64 # 64 hidden dimension feature
n_cfeat = 5 # context vector is of size 5
height = 16 # 16x16 image
save_dir = './weights/'

# construct DDPM noise schedule
b_t = (beta2 - beta1) * torch.linspace(0, 1, timesteps + 1, device=device) + beta1
a_t = 1 - b_t
ab_t = torch.cumsum(a_t.log(), dim=0).exp()    
ab_t[0] = 1

# helper function; removes the predicted noise (but adds some noise back in to avoid collapse)
def denoise_add_noise(x, t, pred_noise, z=None):
    if z is None:
        z = torch.randn_like(x)
    noise = b_t.sqrt()[t] * z
    mean = (x - pred_noise * ((1 - a_t[t]) / (1 - ab_t[t]).sqrt())) / a_t[t].sqrt()
    return mean + noise
"""  # noqa: W291

LOOPS = """
# sample using standard algorithm
@torch.no_grad()
def sample_ddpm(n_sample, save_rate=20):
    # x_T ~ N(0, 1), sample initial noise
    samples = torch.randn(n_sample, 3, height, height).to(device)  

    # array to keep track of generated steps for plotting
    intermediate = [] 
    for i in range(timesteps, 0, -1):
        print(f'sampling timestep {i:3d}', end='\\r')

        # reshape time tensor
        t = torch.tensor([i / timesteps])[:, None, None, None].to(device)

        # sample some random noise to inject back in. For i = 1, don't add back in noise
        z = torch.randn_like(samples) if i > 1 else 0

        eps = nn_model(samples, t)    # predict noise e_(x_t,t)
        samples = denoise_add_noise(samples, i, eps, z)
        if i % save_rate ==0 or i==timesteps or i<8:
            intermediate.append(samples.detach().cpu().numpy())

    intermediate = np.stack(intermediate)
    return samples, intermediate

# incorrectly sample without adding in noise
@torch.no_grad()
def sample_ddpm_incorrect(n_sample):
    # x_T ~ N(0, 1), sample initial noise
    samples = torch.randn(n_sample, 3, height, height).to(device)  

    # array to keep track of generated steps for plotting
    intermediate = [] 
    for i in range(timesteps, 0, -1):
        print(f'sampling timestep {i:3d}', end='\\r')

        # reshape time tensor
        t = torch.tensor([i / timesteps])[:, None, None, None].to(device)

        # don't add back in noise
        z = 0

        eps = nn_model(samples, t)    # predict noise e_(x_t,t)
        samples = denoise_add_noise(samples, i, eps, z)
        if i%20==0 or i==timesteps or i<8:
            intermediate.append(samples.detach().cpu().numpy())

    intermediate = np.stack(intermediate)
    return samples, intermediate
"""  # noqa: W291


def notebook(nn_model):
    """The names of the notebook after its cells have run, with this model."""
    names = {"torch": torch, "np": np, "nn_model": nn_model}
    exec(SETTINGS + LOOPS, names)
    return names


def errors(findings):
    return [finding.id for finding in findings if finding.severity == "error"]


def test_under_the_probe_with_the_shipped_weights():
    """The same bits with and without, and nothing to say of the first loop.

    Kills: a probe that reads i/T in shape (1, 1, 1, 1) as something else.
    """
    shipped = dv.load_denoiser(shipped_weights())
    network = shipped.network.eval()
    probe = dv.Probe(network, shipped.schedule, data=shipped.law)
    torch.manual_seed(0)
    ends = notebook(probe)["sample_ddpm"](3)
    run = probe.finish(ends)
    assert errors(dv.diagnose(run)) == []
    assert (run.spec.arms[0]["rule"], run.spec.arms[0]["noise_scale"]) == ("ddpm/beta", 1.0)
    np.testing.assert_array_equal(run.dataset["samples"][0], ends[0])
    # And without it. A wrong bit stays, so the last of 20 steps tells of all.
    probe, plain = dv.Probe(network, shipped.schedule), []
    for model in (network, probe):
        names = notebook(model)
        names["timesteps"] = 20
        torch.manual_seed(1)
        plain.append((*names["sample_ddpm_incorrect"](2), torch.randn(3)))
    for one, other in zip(*plain, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["sample_ddpm", "sample_ddpm_incorrect"])
def test_under_the_x_ray(name):
    """Kills: the course's ᾱ taken for another schedule, t as a fraction of another T."""

    def sampler(model):
        return notebook(model)[name](8)

    torch.manual_seed(0)
    seen = dv.xray(sampler, dv.NoiseSchedule.course(), shape=(8, 3, 16, 16))
    if name == "sample_ddpm":
        assert (seen.rule, seen.findings, seen.time) == ("ddpm/beta", (), "fraction")
    else:
        assert errors(seen.findings)[0] == "noise-missing" and seen.behaves is False
