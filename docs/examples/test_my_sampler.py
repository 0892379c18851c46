"""How a project tests its own sampler. Run it with: pytest docs/examples/test_my_sampler.py."""

import torch

from diffviz import NoiseSchedule

schedule = NoiseSchedule.linear(T=200, beta_start=1e-4, beta_end=0.05)
beta, alpha, alpha_bar = (
    torch.tensor(table) for table in (schedule.betas, schedule.alphas, schedule.alpha_bars)
)


@torch.no_grad()
def sample_ddpm(model, shape=(32, 3, 8, 8)):
    """The sampler under test: DDPM, algorithm 2."""
    x = torch.randn(shape)
    for t in range(schedule.T, 0, -1):
        eps = model(x, t)
        z = torch.randn_like(x) if t > 1 else 0
        mean = (x - beta[t] / (1 - alpha_bar[t]).sqrt() * eps) / alpha[t].sqrt()
        x = (mean + beta[t].sqrt() * z).float()
    return x


def test_the_sampler_is_ddpm(assert_sampler):
    """It fails with one line per fault: which step, what was found, what is right."""
    seen = assert_sampler(sample_ddpm, schedule, rule="ddpm/beta")
    assert seen.answer == "eps"
