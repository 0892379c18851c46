"""The shipped network: its card tells the truth, it is deterministic, and it shows the effect."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffviz.diffusion.checkpoints import load_denoiser
from diffviz.diffusion.names import shipped_weights
from diffviz.diffusion.unet import weights_digest
from diffviz.files.images import from_uint8
from diffviz.recording.record import record
from diffviz.sprites.make import CLASSES, make_sprites

CARD = Path(__file__).parent.parent / "weights" / "README.md"


@pytest.fixture(scope="module")
def denoiser():
    return load_denoiser(shipped_weights())


def test_the_card_says_what_the_file_says(denoiser):
    """Kills: new weights under an old card."""
    card, parts = CARD.read_text(encoding="utf-8"), [denoiser.facts]
    for part in parts:  # grows while it is walked
        parts.extend(part.get("parts", []))
        parts.extend([part["start"]] if "start" in part else [])
    size = f"{sum(p.numel() for p in denoiser.network.parameters()):,}"
    told = [part["command"] for part in parts]
    told += [f"{part['losses'][-1]:.4f}" for part in parts if "losses" in part]
    assert len(set(told)) == 12
    for words in (
        weights_digest(denoiser.network),
        denoiser.facts["data"],
        size,
        *told,
    ):
        assert words in card, words
    assert shipped_weights().stat().st_size < 8 * 2**20
    assert denoiser.classes == CLASSES and denoiser.schedule.T == 500


def test_it_is_deterministic_and_has_seen_its_data(denoiser):
    """Two calls agree to the bit; on sprites that it has never seen it explains nine tenths of
    the noise at t = 100. Kills: a random shortcut, weights of another data set."""
    images, labels = make_sprites(12_064)
    x_0 = torch.from_numpy(from_uint8(images[12_000:]))
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(x_0.shape, generator=generator)
    bar = denoiser.schedule.alpha_bars[100]
    x = bar**0.5 * x_0 + (1 - bar) ** 0.5 * eps
    first = denoiser(x, 100)
    assert torch.equal(first, denoiser(x, 100))
    assert ((first - eps) ** 2).mean() < 0.1
    context = torch.eye(len(CLASSES))[torch.from_numpy(labels[12_000:])]
    told = denoiser(x, 100, context)
    assert ((told - eps) ** 2).mean() < ((first - eps) ** 2).mean()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_shows_the_effect(denoiser, seed):
    """DDPM keeps its residual at 1 and the data's diversity; z = 0 loses nearly all of it."""
    torch.set_num_threads(2)
    run = record(denoiser, denoiser.schedule, n=64, seed=seed, progress=False)
    torch.set_num_threads(1)
    d = run.dataset
    residual = d["std"].sel(arm="ddpm", quantity="residual", t=slice(450, 100))
    assert residual.min() > 0.95 and residual.max() < 1.06
    share = d["std_between"].sel(t=0) / d["reference_std_between"].sel(t=0)
    assert share.sel(arm="ddpm") > 0.93
    assert share.sel(arm="z=0") < 0.45
    assert np.isfinite(d["ks_marginal"]).all()
