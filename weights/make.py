"""Make the shipped network: data, training, check and model card, from one seed.

``python weights/make.py`` needs an hour and a half on two CPU cores with bfloat16 and minutes on a
GPU (``--device cuda``). It writes a state beside its result after each epoch and goes on from it
when it is started again. At the end it samples with the network, from seeds that the training has
not seen, and writes what it measured into the card, ``README.md`` beside the weights.

The loss is E‖e‖² per pixel of the error e = ε̂ − ε, plus ¼ Σ_k k² E‖e_k‖² with e_k the mean of e
over k×k blocks, k = 2, 4, 8, 16. For white errors each k² E‖e_k‖² equals E‖e‖². The errors of a
network are not white: their coarse part counts next to nothing in a mean over pixels, but a
sampler adds it up over all its steps, and the samples' mean and spread drift away from the data's.

From the first step on, the coarse part would outweigh the rest before the network has learned to
see shapes at all. So the first half of the training has the pixels alone, and the coarse part
grows to its whole weight over the next fifth. In the second half batch norm is held at statistics
measured over the data, so that the network trains the function that samples.

Times are stratified within a batch. The rate warms up and falls as a cosine. The result is an
exponential moving average of the weights.
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

from diffviz.diffusion.checkpoints import load_denoiser, save_denoiser
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.diffusion.unet import (
    ContextUnet,
    NetworkDenoiser,
    channels_last,
    weights_digest,
)
from diffviz.files.atomic import replacing
from diffviz.files.images import from_uint8
from diffviz.recording.record import record
from diffviz.recording.run import Run
from diffviz.sprites.make import CLASSES, make_sprites

HERE = Path(__file__).parent
SCALES = (2, 4, 8, 16)
WARM_UP = 0.02
HELD = 0.5
"""From this part of the steps on, batch norm is held, and the coarse part of the loss grows."""
GROWN = 0.7
"""From this part of the steps on, the coarse part has its whole weight."""


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights."""

    sprites: int = 12_000
    epochs: int = 130
    batch: int = 128
    lr: float = 1.5e-3
    decay: float = 0.998
    context_drop: float = 0.3
    seed: int = 0
    features: int = 64


def loss_of(error: Tensor, coarse: float = 1.0) -> Tensor:
    """Mean square over pixels, plus ``coarse`` times ¼ k² times that over k×k blocks."""
    total = error.square().mean()
    for k in SCALES:
        total = total + 0.25 * coarse * k**2 * avg_pool2d(error, k).square().mean()
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
            part = (self.done / self.steps - HELD) / (GROWN - HELD)
            loss = loss_of(error, min(max(part, 0.0), 1.0))
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
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
        network = self.average.module
        assert isinstance(network, ContextUnet)
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
            with replacing(kept) as temporary:
                torch.save(training.state(), temporary)
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
    return network


def measure(denoiser: NetworkDenoiser, n: int, seed: int) -> Run:
    """A run of the three usual arms without a class."""
    return record(denoiser, denoiser.schedule, n=n, seed=seed)


CARD = """# The shipped network

`{name}` predicts the noise in 16×16 sprites. It is the tutorial's ContextUnet with {features}
features and a learned shortcut: {size:,} parameters, float32.

| | |
|---|---|
| digest (SHA-256 of the weights) | `{digest}` |
| data | `{data}`: the procedural sprites of `diffviz sprites`, five classes, nothing downloaded |
| schedule | `{schedule}` |
| classes | {classes} |
| made by | `{command}`, one command and one seed, see its head for the loss |
| recipe | {recipe} |
| loss at the end | {loss:.4f} per pixel, mean over t and over images with and without class |

Another machine, another number of threads or another device gives other bits.

## What it does

{n} samples per arm without a class, T = {T}, seed {seed}, which the training has not seen
(`diffviz record --n {n} --seed {seed}`). The std between samples is the root mean square over
pixels; the residual's std is given from t = {high} to {low} and is 1 for a right `ddpm`.

| arm | mean | pooled std | std between samples | of the data's | residual std | nearest sprites |
|---|---|---|---|---|---|---|
{rows}
| data | {mean:.3f} | {std:.3f} | {between:.3f} | 100 % | | |

It is a teaching model: small, and trained on drawings that a program makes.
"""


def card(denoiser: NetworkDenoiser, run: Run, name: str) -> str:
    """The model card: what the file is, how it was made, and what was measured."""
    facts, data, T = denoiser.facts, run.dataset, denoiser.schedule.T
    high, low = round(0.9 * T), round(0.2 * T)
    rows = []
    for arm in run.arms:
        one = data.sel(arm=arm)
        x, residual = one.sel(quantity="x"), one.sel(quantity="residual", t=slice(high, low))
        share = float(one["std_between"].sel(t=0) / data["reference_std_between"].sel(t=0))
        spread = residual["std"]
        rows.append(
            f"| {arm} | {float(x['mean'].sel(t=0)):.3f} | {float(x['std'].sel(t=0)):.3f} "
            f"| {float(one['std_between'].sel(t=0)):.3f} | {share:.0%} ".replace("%", " %")
            + f"| {float(spread.min()):.2f} to {float(spread.max()):.2f} "
            f"| {int(one['distinct_nearest'])} distinct |"
        )
    recipe = ", ".join(f"{name} {facts[name]:g}" for name in Recipe.__dataclass_fields__)
    references = {
        key: float(data[f"reference_{variable}"].sel(t=0))
        for key, variable in (("mean", "mean"), ("std", "std"), ("between", "std_between"))
    }
    return CARD.format(
        name=name,
        features=denoiser.network.n_feat,
        size=sum(weight.numel() for weight in denoiser.network.parameters()),
        digest=weights_digest(denoiser.network),
        data=facts["data"],
        schedule=denoiser.schedule.name,
        classes=", ".join(denoiser.classes),
        command=facts["command"],
        recipe=recipe,
        loss=facts["losses"][-1],
        n=run.spec.n,
        seed=run.spec.seed,
        T=T,
        high=high,
        low=low,
        rows="\n".join(rows),
        **references,
    )


def write_card(out: Path, n: int = 64, seed: int = 1) -> None:
    """Measure the network of a file, and write the card beside it."""
    denoiser = load_denoiser(out)
    words = card(denoiser, measure(denoiser, n, seed), out.name)
    with replacing(out.with_name("README.md")) as temporary:
        temporary.write_text(words, encoding="utf-8")
    print(f"{out}: {weights_digest(denoiser.network)}")


def write_run(out: Path, n: int = 64) -> None:
    """The run that dashboard and lessons open with, with the images of 16 samples an arm."""
    run = measure(load_denoiser(out), n, seed=0)
    Run(run.dataset.isel(sample=slice(0, 16))).save(out.with_suffix(".nc"))


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--out", type=Path, default=HERE / "sprites.safetensors")
    words.add_argument("--device", default="cpu")
    words.add_argument("--epochs", type=int, default=Recipe.epochs)
    words.add_argument("--card", action="store_true", help="only measure, and write the card")
    words.add_argument("--run", action="store_true", help="only record the run that is shipped")
    given = words.parse_args()
    np.seterr(all="raise", under="ignore")
    if not (given.card or given.run):
        make(Recipe(epochs=given.epochs), given.out, given.device)
    if not given.run:
        write_card(given.out)
    if not given.card:
        write_run(given.out)
