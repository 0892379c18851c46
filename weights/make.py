"""Make the shipped network: data, training, check and model card, from one seed.

``python weights/make.py`` needs two to three hours on two CPU cores with bfloat16 and minutes on a
GPU (``--device cuda``). It writes a state beside its result after each epoch and goes on from it
when it is started again.

The loss is E‖e‖² per pixel of the error e = ε̂ − ε, plus ¼ Σ_k k² E‖e_k‖² with e_k the mean of e
over k×k blocks, k = 2, 4, 8, 16. For white errors each k² E‖e_k‖² equals E‖e‖². The errors of a
network are not white: their coarse part counts next to nothing in a mean over pixels, but a
sampler adds it up over all its steps, and the samples' mean and spread drift away from the data's.

Times are stratified within a batch. The rate warms up and falls as a cosine. For the last two
fifths of the training, batch norm is held at statistics measured over the data, so that the
network trains the function that samples. The result is an exponential moving average of the
weights.
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, one_hot
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm.auto import tqdm

from diffviz.diffusion.checkpoints import save_denoiser
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.diffusion.unet import ContextUnet, channels_last, weights_digest
from diffviz.files.images import from_uint8
from diffviz.sprites.make import CLASSES, make_sprites

HERE = Path(__file__).parent
SCALES = (2, 4, 8, 16)
WARM_UP = 0.02
HELD = 0.6
"""From this part of the steps on, batch norm is held."""


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights."""

    sprites: int = 12_000
    epochs: int = 64
    batch: int = 128
    lr: float = 1.5e-3
    decay: float = 0.9995
    context_drop: float = 0.4
    seed: int = 0
    features: int = 64


def loss_of(error: Tensor) -> Tensor:
    """Mean square over pixels, plus a quarter of k² times that over k×k blocks, for each k."""
    total = error.square().mean()
    for k in SCALES:
        total = total + 0.25 * k**2 * avg_pool2d(error, k).square().mean()
    return total


class Training:
    """The state of a training; `epoch` takes it through one pass of the data."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        images, labels = make_sprites(recipe.sprites, recipe.seed)
        self.x, self.labels = torch.from_numpy(from_uint8(images)), labels
        self.context = one_hot(torch.from_numpy(labels), len(CLASSES)).float()
        self.schedule = NoiseSchedule.course()
        self.alpha_bars = torch.tensor(self.schedule.alpha_bars, dtype=torch.float32)
        torch.manual_seed(recipe.seed)
        network = ContextUnet(3, recipe.features, len(CLASSES), images.shape[1])
        self.network = channels_last(network.to(self.device))
        average = get_ema_multi_avg_fn(recipe.decay)
        self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.lr, fused=True)
        self.per_epoch = len(self.x) // recipe.batch
        self.steps = recipe.epochs * self.per_epoch
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.losses: list[float] = []
        self.done = 0

    def _rate(self, step: int) -> float:
        warm = WARM_UP * self.steps
        if step < warm:
            return (step + 1) / warm
        return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / (self.steps - warm))

    def batch(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_t, t/T, context and ε for some images; t is stratified over the batch."""
        n, T = len(chosen), self.schedule.T
        spread = (torch.arange(n) + torch.rand(n, generator=self.generator)) / n
        t = (1 + spread * T).long().clamp(max=T)[torch.randperm(n, generator=self.generator)]
        eps = torch.randn(self.x[chosen].shape, generator=self.generator)
        kept = torch.rand(n, 1, generator=self.generator) >= self.recipe.context_drop
        bar = self.alpha_bars[t, None, None, None]
        x_t = bar.sqrt() * self.x[chosen] + (1 - bar).sqrt() * eps
        x_t = x_t.to(self.device, memory_format=torch.channels_last)
        context = (self.context[chosen] * kept).to(self.device)
        return x_t, (t / T).to(self.device), context, eps.to(self.device)

    def measure_normalisation(self, network: nn.Module) -> None:
        """Set batch norm to the statistics of these weights, over one pass of the data."""

        class OneCall(nn.Module):
            """`update_bn` calls a model with one argument."""

            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, index: Tensor) -> Tensor:
                return self.inner(*batch(index)[:3])

        batch = self.batch
        order = torch.randperm(len(self.x), generator=self.generator)
        with torch.no_grad():
            update_bn(order.split(self.recipe.batch), OneCall(network))

    def epoch(self, bar: tqdm) -> None:
        """One pass over the data in random order."""
        held = self.done >= HELD * self.steps
        if held and self.done - self.per_epoch < HELD * self.steps:
            self.measure_normalisation(self.network)
        self.network.train(not held)
        total = 0.0
        order = torch.randperm(len(self.x), generator=self.generator)
        for chosen in order[: self.per_epoch * self.recipe.batch].split(self.recipe.batch):
            x_t, t, context, eps = self.batch(chosen)
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                answer = self.network(x_t, t, context)
            error = answer.float() - eps
            loss = loss_of(error)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.rate.step()
            self.average.update_parameters(self.network)
            self.done += 1
            total += error.detach().square().mean().item()
            bar.update()
        self.losses.append(total / self.per_epoch)
        bar.set_postfix_str(f"ε-MSE {self.losses[-1]:.4f}")

    def result(self) -> ContextUnet:
        """The averaged network, with the batch norm that was held while it learned."""
        network: ContextUnet = self.average.module
        for buffer, held in zip(network.buffers(), self.network.buffers(), strict=True):
            buffer.copy_(held)
        return network.cpu().eval()

    def state(self) -> dict[str, object]:
        """All that changes, for ``torch.save``."""
        parts = ("network", "average", "optimizer", "rate")
        state = {part: getattr(self, part).state_dict() for part in parts}
        generator = self.generator.get_state()
        return {**state, "generator": generator, "losses": self.losses, "done": self.done}

    def load(self, path: Path) -> None:
        """Go on from a state."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        for part in ("network", "average", "optimizer", "rate"):
            getattr(self, part).load_state_dict(state[part])
        self.generator.set_state(state["generator"].cpu())
        self.losses, self.done = state["losses"], state["done"]


def make(recipe: Recipe, out: Path, device: str) -> ContextUnet:
    """Train, and write the network to ``out``; the state stands beside it until then."""
    training, kept = Training(recipe, device), out.with_suffix(".training")
    if kept.exists():
        training.load(kept)
    begun = time.monotonic()
    with tqdm(total=training.steps, initial=training.done, unit="batch") as bar:
        while training.done < training.steps:
            training.epoch(bar)
            part = kept.with_suffix(".part")
            torch.save(training.state(), part)
            part.replace(kept)
    network = training.result()
    save_denoiser(
        out,
        network,
        training.schedule,
        classes=CLASSES,
        data_recipe=f"sprites:n={recipe.sprites},seed={recipe.seed}",
        data=DataLaw.of_images(training.x.numpy(), training.labels, CLASSES),
        facts={
            "command": "python weights/make.py",
            **recipe.__dict__,
            "losses": training.losses,
            "seconds": round(time.monotonic() - begun),
        },
    )
    kept.unlink()
    print(f"{out}: {weights_digest(network)}")
    return network


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--out", type=Path, default=HERE / "sprites.safetensors")
    words.add_argument("--device", default="cpu")
    words.add_argument("--epochs", type=int, default=Recipe.epochs)
    given = words.parse_args()
    np.seterr(all="raise")
    make(Recipe(epochs=given.epochs), given.out, given.device)
