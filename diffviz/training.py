r"""Training a ContextUnet to predict the noise, one record per epoch.

x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε, t ~ U{1…T}, ε ~ N(0, I), and the loss is E‖ε − ε̂(x_t, t/T, c)‖² per
coordinate (DDPM, arXiv 2006.11239, eq. 14). Adam, its rate falling linearly to 0. The context is
one-hot and now and then the zero vector, so that one network samples with and without a class.
What is kept is the exponential moving average of the weights.

At the end batch norm is measured anew for the averaged weights, over one pass of the data: the
running statistics of a training belong to other weights. A training that starts from a finished
network holds these statistics fixed, so that it trains the very function that samples.

After each epoch the whole state goes to one file. A killed training loses the epoch in flight, and
a resumed one ends at the same bits (for the same number of threads).
"""

import copy
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LinearLR
from torch.optim.swa_utils import AveragedModel, update_bn

from diffviz.diffusion.denoiser import tensors_digest
from diffviz.diffusion.rules import Arm, ddim
from diffviz.diffusion.sampler import check_device, sample
from diffviz.diffusion.schedule import NoiseSchedule, check_schedule
from diffviz.diffusion.unet import ContextUnet, NetworkDenoiser, channels_last, weights_digest
from diffviz.errors import (
    CheckpointError,
    InputError,
    check_integer,
    check_names,
    check_number,
    shown,
)
from diffviz.files.atomic import check_writable, read_bytes, replacing, sealing, unseal
from diffviz.files.images import (
    checked_images,
    checked_labels,
    contact_sheet,
    curve_svg,
    to_uint8,
)

MAX_COUNT = 10**6  # of epochs, and of images in a batch
PARTS = ("network", "average", "optimizer", "rate")
MAX_STATE = 2**33  # bytes: weights, average and two moments of the widest network


@dataclass(frozen=True, eq=False)
class Epoch:
    """What one epoch leaves.

    Attributes:
        epoch, epochs: how many are done, of how many.
        loss: mean of the loss over the epoch's images.
        losses: the same for all epochs so far.
        seconds: wall-clock time of this epoch.
        network: the averaged network so far, in evaluation mode; a copy.
    """

    epoch: int
    epochs: int
    loss: float
    losses: tuple[float, ...]
    seconds: float
    network: ContextUnet


def train(
    images: NDArray[np.uint8] | NDArray[np.floating],
    labels: NDArray[np.integer] | None,
    schedule: NoiseSchedule,
    *,
    epochs: int = 32,
    batch: int = 100,
    lr: float = 1e-3,
    ema: float = 0.999,
    context_drop: float = 0.1,
    n_feat: int = 64,
    seed: int = 0,
    device: torch.device | str = "cpu",
    classes: Sequence[str] = (),
    start: ContextUnet | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Epoch]:
    """Train, and yield an ``Epoch`` after each epoch; the last one holds the result.

    ``epochs`` passes over the data in batches of ``batch``, Adam from rate ``lr`` on; ``n_feat``
    is the width of the network, ``seed`` that of its weights, of t and of ε.
    ``images`` are uint8 (N, H, W, 3), or float (N, 3, H, W) in [−1, 1]; ``labels`` (N,) index
    ``classes``, and None trains without classes; ``schedule`` gives ᾱ_t. ``ema`` is the decay of
    the average, ``context_drop`` the part of the images that are shown without their class.
    The network computes on ``device``, random numbers come from the CPU. ``start`` is a network
    to go on from, with its batch norm held.

    The state is in the file ``checkpoint``, written whole after each epoch. ``resume`` goes on
    from it if it is there; a finished training yields its last epoch again. ``progress`` is called
    as progress(step, steps) after each batch of an epoch.

    Raises:
        InputError: unusable data or settings, or a checkpoint of another training.
    """
    x, classes = torch.from_numpy(checked_images(images)), check_names("classes", classes)
    for name, function in (("start", start), ("progress", progress)):
        right = isinstance(function, ContextUnet) if name == "start" else callable(function)
        if function is not None and not right:
            allowed = "a ContextUnet" if name == "start" else "a function (step, steps)"
            raise InputError(f"{name} is {shown(function)}; allowed is {allowed}")
    context = torch.zeros(len(x), max(1, len(classes)), dtype=torch.float32)
    if labels is not None:
        kinds = checked_labels(labels, len(x), len(classes))
        context[torch.arange(len(x)), torch.from_numpy(kinds)] = 1
    for name, value in (("epochs", epochs), ("batch", batch)):
        check_integer(name, value, 1, MAX_COUNT)
    check_integer("seed", seed, 0, 2**63 - 1)
    for name, number, least in (
        ("lr", lr, 1e-9),
        ("ema", ema, 0),
        ("context_drop", context_drop, 0),
    ):
        check_number(name, number, least, 1)
    alpha_bars = torch.tensor(check_schedule(schedule).alpha_bars)
    data = {"x": x, "context": context, "alpha_bars": alpha_bars}
    settings: dict[str, Any] = {"epochs": epochs, "batch": batch, "seed": seed, "n_feat": n_feat}
    settings |= {"lr": float(lr), "ema": float(ema), "context_drop": float(context_drop)}
    settings |= {"n_cfeat": context.shape[1], "data": tensors_digest(data)}
    settings["start"] = "" if start is None else weights_digest(start)
    training = _Training(settings, data, check_device(str(device)), start)
    path = None if checkpoint is None else check_writable(checkpoint)
    if path is not None and path.exists():
        if not resume:
            raise InputError(f"{path}: exists; resume that training or remove the file")
        training.load(path)
    return _epochs(training, path, progress)


def _epochs(
    training: "_Training", path: Path | None, progress: Callable[[int, int], None] | None
) -> Iterator[Epoch]:
    epochs, losses = training.settings["epochs"], training.losses
    if len(losses) == epochs:
        yield training.record(0.0)
    while len(losses) < epochs:
        begun = time.perf_counter()
        losses.append(training.epoch(progress))
        if not np.isfinite(losses[-1]):
            raise InputError(
                f"the loss is not finite in epoch {len(losses)}; "
                f"lr is {training.settings['lr']:g}, try a smaller one"
            )
        if len(losses) == epochs and not training.settings["start"]:
            training.measure_normalisation(training.average)
        if path is not None:
            training.save(path)
        yield training.record(time.perf_counter() - begun)


def perturb(x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = √ᾱ x_0 + √(1−ᾱ) ε for ᾱ of shape (B,); many tutorial copies forget the second root."""
    alpha_bar = alpha_bar.reshape(-1, *[1] * (x0.ndim - 1))
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


def low_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware multiplies it; elsewhere it would be many times slower."""
    able = device.type == "cuda"
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        able = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)


def save_preview(
    epoch: Epoch, folder: Path, schedule: NoiseSchedule, classes: Sequence[str]
) -> None:
    """Some twelve times in a training: a sheet of samples, and the loss as a curve.

    The sheet holds eight samples of each class, by 50 steps of DDIM from the same x_T each time.
    """
    done, epochs, losses = epoch.epoch, epoch.epochs, epoch.losses
    if done > 3 and done < epochs and done % max(1, epochs // 10):
        return
    denoiser = NetworkDenoiser(epoch.network, schedule, classes=classes)
    shape = (8 * max(1, len(classes)), *denoiser.sample_shape)
    generator = torch.Generator().manual_seed(0)
    x_T = torch.randn(shape, generator=generator, dtype=torch.float32)
    context = torch.eye(len(classes)).repeat_interleave(8, dim=0) if classes else None
    arms, times = [Arm("ddim", ddim())], schedule.times(min(50, schedule.T))
    *_, last = sample(denoiser, schedule, x_T, generator, arms=arms, times=times, context=context)
    sheet = contact_sheet(to_uint8(last.x_next[0].numpy()), columns=8)
    with replacing(folder / f"epoch-{done:04}.png") as temporary:
        sheet.save(temporary, format="PNG")
    with replacing(folder / "loss.svg") as temporary:
        title = f"mean (ε̂ − ε)², now {losses[-1]:.4f}"
        temporary.write_text(curve_svg(losses, epochs, title), encoding="utf-8")


class _Training:
    """The data, and all that changes while the network learns them."""

    def __init__(
        self,
        settings: dict[str, Any],
        data: dict[str, Tensor],
        device: torch.device,
        start: ContextUnet | None,
    ) -> None:
        self.settings, self.device, self.losses = settings, device, list[float]()
        self.x, self.context = data["x"], data["context"]
        self.alpha_bars = data["alpha_bars"].float()
        # torch's layers draw their first weights from the global generator: it is given back as
        # it was. torch.manual_seed would also touch the generators of other devices.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings["seed"])
            net = ContextUnet(3, settings["n_feat"], settings["n_cfeat"], self.x.shape[2])
        if start is not None:
            try:
                net.load_state_dict(start.state_dict())
            except RuntimeError:
                raise InputError("the network to start from has another architecture") from None
        self.network = channels_last(net.to(device))
        self.generator = torch.Generator().manual_seed(settings["seed"])
        self.steps = -(-len(self.x) // settings["batch"])
        if start is not None:
            self.measure_normalisation(self.network)
        self.average = AveragedModel(self.network, avg_fn=self._averaged)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings["lr"])
        self.rate = LinearLR(self.optimizer, 1, 0, total_iters=settings["epochs"] * self.steps)

    def _averaged(self, average: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        """A young average forgets its random start sooner: over the last tenth of the steps."""
        decay = min(self.settings["ema"], (1 + int(count)) / (10 + int(count)))
        return average.lerp(new, 1 - decay)

    def noised(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_t, t/T, context and ε of some images, at times drawn at random."""
        n, T, draws = len(chosen), len(self.alpha_bars) - 1, self.generator
        x0, context = self.x[chosen], self.context[chosen]
        t = torch.randint(1, T + 1, (n,), generator=draws)
        eps = torch.randn(x0.shape, generator=draws, dtype=torch.float32)
        kept = (
            torch.rand(n, 1, generator=draws, dtype=torch.float32) >= self.settings["context_drop"]
        )
        x = perturb(x0, eps, self.alpha_bars[t]).to(self.device, memory_format=torch.channels_last)
        fraction = (t.float() / T).to(self.device)
        return x, fraction, (context * kept).to(self.device), eps.to(self.device)

    def epoch(self, progress: Callable[[int, int], None] | None) -> float:
        """One pass over the data in random order; its mean loss."""
        self.network.train()
        for module in self.network.modules():
            if self.settings["start"] and isinstance(module, nn.BatchNorm2d):
                module.eval()
        total = 0.0
        for step, chosen in enumerate(self._batches()):
            x, t, context, eps = self.noised(chosen)
            with low_precision(self.device):
                predicted = self.network(x, t, context)
            loss = mse_loss(predicted.float(), eps)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.rate.step()
            self.average.update_parameters(self.network)
            total += loss.item() * len(chosen)
            if progress is not None:
                progress(step + 1, self.steps)
        return total / len(self.x)

    def _batches(self) -> tuple[Tensor, ...]:
        order = torch.randperm(len(self.x), generator=self.generator)
        return order.split(self.settings["batch"])

    def measure_normalisation(self, network: nn.Module) -> None:
        """Set batch norm to the statistics of these weights over one pass, noised as in training.

        The state of the training's own generator is left as it was.
        """
        state = self.generator.get_state()
        self.generator.manual_seed(self.settings["seed"])
        hook = network.register_forward_pre_hook(lambda _, shown: self.noised(shown[0])[:3])
        with torch.no_grad():
            update_bn(self._batches(), network)
        hook.remove()
        self.generator.set_state(state)

    def record(self, seconds: float) -> Epoch:
        network = copy.deepcopy(self.average.module).cpu().eval().requires_grad_(False)
        assert isinstance(network, ContextUnet)
        done, losses = len(self.losses), tuple(self.losses)
        return Epoch(done, self.settings["epochs"], losses[-1], losses, seconds, network)

    def save(self, path: Path) -> None:
        """Write all that changes, whole or not at all."""
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in PARTS}
        state |= {"settings": self.settings, "losses": self.losses}
        state["generator"] = self.generator.get_state()
        with sealing(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Take over a saved state; InputError where it is one of another training."""
        raw = read_bytes(path, MAX_STATE, "allowed is the state of a training", CheckpointError)
        try:
            state = torch.load(io.BytesIO(unseal(raw) or b""), weights_only=True)
            stored = dict(state["settings"])
        except Exception:  # its message would advise to run the pickle after all
            raise CheckpointError(f"{path}: damaged, or not the state of a training") from None
        for name, value in self.settings.items():
            if stored.get(name) != value:
                raise InputError(
                    f"{path}: a training with {name} = {stored.get(name)!r}, this one has "
                    f"{value!r}; resume with the same settings or choose another file"
                )
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.losses[:] = state["losses"]
