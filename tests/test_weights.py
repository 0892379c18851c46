"""The shipped network: its card tells the truth, it is deterministic, and it shows the effect."""

import importlib.util
import sys
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


# -------------------------------------------------------------------- how it is made


@pytest.fixture(scope="module")
def recipe():
    """``weights/make.py`` as a module."""
    spec = importlib.util.spec_from_file_location("make_weights", CARD.parent / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_weights"] = module
    spec.loader.exec_module(module)
    return module


def test_the_loss_weighs_coarse_errors(recipe):
    """White errors: each of the four scales equals the pixel loss, 1 + 4/4. One error for all
    pixels: 1 + ¼(4 + 16 + 64 + 256) = 86 of it. Kills: k for k², a scale left out or too many."""
    white = torch.randn(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert recipe.loss_of(white).item() == pytest.approx(2, rel=0.02)
    assert recipe.loss_of(torch.full((2, 3, 16, 16), 0.1)).item() == pytest.approx(0.86, rel=1e-4)


def test_one_command_makes_it_measures_it_and_goes_on_after_a_kill(recipe, tmp_path, monkeypatch):
    """Two makings have one digest, one of them stopped in the middle; the card says it. Kills: a
    seed left out, a state without the rate or the generator, a card of other weights."""
    small = recipe.Recipe(sprites=20, epochs=3, batch=10, features=8)
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped" / "a.safetensors"
    stopped.parent.mkdir()
    torch.manual_seed(5)
    recipe.make(small, whole, "cpu")
    epoch, calls = recipe.Training.epoch, []

    def interrupted(self, bar):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        epoch(self, bar)

    monkeypatch.setattr(recipe.Training, "epoch", interrupted)
    torch.manual_seed(6)
    with pytest.raises(KeyboardInterrupt):
        recipe.make(small, stopped, "cpu")
    assert not stopped.exists()
    recipe.make(small, stopped, "cpu")
    assert len(calls) == 4
    digests = [weights_digest(load_denoiser(path).network) for path in (whole, stopped)]
    assert digests[0] == digests[1]
    runs, measured = [], recipe.measure
    monkeypatch.setattr(recipe, "measure", lambda *how: runs.append(measured(*how)) or runs[0])
    recipe.write_card(stopped, n=2, seed=3)
    card = (stopped.parent / "README.md").read_text(encoding="utf-8")
    assert runs[0].spec.seed == 3 and runs[0].spec.n == 2
    between = float(runs[0].dataset["std_between"].sel(arm="z=0", t=0))
    for words in (digests[0], "sprites:n=20,seed=0", f"{between:.3f}", "epochs 3", "| ddim |"):
        assert words in card, words
    assert sorted(path.name for path in stopped.parent.iterdir()) == ["README.md", "a.safetensors"]


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
