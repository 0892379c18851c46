r"""Training a ContextUnet to predict the noise, one record per epoch.

x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε, t ~ U{1…T}, ε ~ N(0, I), and the loss is E‖ε − ε̂(x_t, t/T, c)‖² per
coordinate (DDPM, arXiv 2006.11239, eq. 14). Adam, its rate falling linearly to 0; the context is
one-hot and now and then the zero vector, so that one network samples with and without a class.
What is kept is the exponential moving average of the weights.

What batch norm divides by at sampling time is measured for the averaged weights, over one pass of
the data: the running statistics that a training leaves belong to other weights, and are off by one
or two per cent, at every step of a trajectory in the same direction. A training that starts from a
finished network holds these statistics fixed, so that it trains the very function that samples.

A sampler visits states that carry the network's own earlier errors, and there ε̂ is off in a
direction that noised data never show: it takes away too little of the noise that it left itself.
Such a training can therefore learn from the trajectories of the network that it starts from as
well. Their states and their end points make pairs (x_t, x_0) like any other, and a network that
predicts the end points of its own trajectories is the exact denoiser of what it samples
(consistency, Daras et al., arXiv 2302.09057).

After each epoch the whole state goes to one file, so a killed training loses the epoch in flight
and a resumed one ends at the same bits (for the same number of threads).
"""

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot
from tqdm import tqdm

from diffviz.diffusion.checkpoints import read_tensors, write_tensors
from diffviz.diffusion.rules import Arm, ddpm
from diffviz.diffusion.sampler import check_device, sample
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.diffusion.unet import (
    HEIGHTS,
    ContextUnet,
    NetworkDenoiser,
    channels_last,
    weights_digest,
)
from diffviz.errors import InputError
from diffviz.files.images import from_uint8

FORMAT = "diffviz-training-1"
MAX_COUNT = 10**6  # of epochs, and of images in a batch
MAX_STATE = 2**33  # bytes: weights, average and two moments of the widest network
KEPT = 32
"""States of an own trajectory that are learnt from, at times drawn at random."""
Progress = Callable[[int, int], None]


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


@dataclass(frozen=True)
class Settings:
    """All that decides the weights; a training resumes only with the same."""

    epochs: int
    batch: int
    lr: float
    ema: float
    context_drop: float
    own: int
    n_feat: int
    n_cfeat: int
    height: int
    seed: int
    schedule: str
    data: str
    start: str


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
    own: int = 0,
    n_feat: int = 64,
    seed: int = 0,
    device: torch.device | str = "cpu",
    classes: Sequence[str] = (),
    start: ContextUnet | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Iterator[Epoch]:
    """Train, and yield an ``Epoch`` after each epoch; the last one holds the result.

    ``epochs`` passes over the data in batches of ``batch``, Adam from rate ``lr`` on; ``n_feat``
    is the width of the network, ``seed`` that of its weights, of t and of ε.
    ``images`` are uint8 (N, H, W, 3), or float (N, 3, H, W) in [−1, 1]; ``labels`` (N,) index
    ``classes``, and None trains without classes; ``schedule`` gives ᾱ_t. ``ema`` is the decay of
    the average, ``context_drop`` the part of the images that are shown without their class.
    The network computes on ``device``, random numbers of the training come from the CPU. ``start``
    is a network to go on from, with its batch norm held; ``own`` is the number of its trajectories
    to learn from too, sampled before the first epoch: with them every batch has as many of their
    states as images.

    The state is in the file ``checkpoint``, written whole after each epoch. ``resume`` goes on
    from it if it is there; a finished training yields its last epoch again. ``progress`` is called
    as progress(step, steps) after each batch of an epoch.

    Raises:
        InputError: unusable data or settings, or a checkpoint of another training.
    """
    x = _images(images)
    context = _context(labels, len(x), classes)
    for name, value, low in (("epochs", epochs, 1), ("batch", batch, 1), ("own", own, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_COUNT:
            raise InputError(f"{name} is {value!r}; allowed are the integers {low}…{MAX_COUNT}")
    if own and start is None:
        raise InputError(f"own is {own}, and there is no network to start from; give start")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed!r}; allowed are the integers from 0")
    for name, number, high in (("lr", lr, 1), ("ema", ema, 1), ("context_drop", context_drop, 1)):
        if not 0 <= number <= high or (name == "lr" and number == 0):
            raise InputError(f"{name} is {number!r}; allowed is 0 to {high}")
    settings = Settings(
        epochs=epochs,
        batch=batch,
        lr=float(lr),
        ema=float(ema),
        context_drop=float(context_drop),
        own=own,
        n_feat=n_feat,
        n_cfeat=context.shape[1],
        height=x.shape[2],
        seed=seed,
        schedule=_digest(schedule.alpha_bars),
        data=_digest(x.numpy(), context.numpy()),
        start="" if start is None else weights_digest(start),
    )
    path = None if checkpoint is None else Path(checkpoint)
    state = _State(settings, check_device(str(device)), start)
    if path is not None and not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist")
    if path is not None and path.exists():
        if not resume:
            raise InputError(f"{path}: exists; resume that training or remove the file")
        state.load(path)
    return _epochs(state, x, context, schedule, path, progress)


def _epochs(
    state: "_State",
    x: Tensor,
    context: Tensor,
    schedule: NoiseSchedule,
    path: Path | None,
    progress: Progress | None,
) -> Iterator[Epoch]:
    settings = state.settings
    alpha_bars = torch.tensor(schedule.alpha_bars, dtype=torch.float32)
    steps = -(-len(x) // settings.batch)
    if settings.start and not state.losses:
        state.hold_normalisation(x, context, alpha_bars)
    if len(state.losses) == settings.epochs:
        yield state.record(0.0)
        return
    own = None
    if settings.own:
        own = own_states(state.start, context, schedule, settings, state.device, progress)
    while len(state.losses) < settings.epochs:
        start = time.perf_counter()
        total = 0.0
        order = torch.randperm(len(x), generator=state.generator)
        for step, chosen in enumerate(order.split(settings.batch)):
            done = len(state.losses) * steps + step
            pairs = state.noised(x[chosen], context[chosen], alpha_bars)
            if own is not None:
                drawn = torch.randint(len(own.t), (len(chosen),), generator=state.generator)
                pairs = pairs.joined(own.at(drawn))
            loss = state.step(pairs, done, settings.epochs * steps)
            total += loss * len(chosen)
            if progress is not None:
                progress(step + 1, steps)
        if not np.isfinite(total):
            raise InputError(
                f"the loss is not finite in epoch {len(state.losses) + 1}; "
                f"lr is {settings.lr:g}, try a smaller one"
            )
        state.losses.append(total / len(x))
        if len(state.losses) == settings.epochs and not settings.start:
            measure_normalisation(state.average, x, context, alpha_bars, settings)
        if path is not None:
            state.save(path)
        yield state.record(time.perf_counter() - start)


class Pairs(NamedTuple):
    """What the network is asked, and should answer: x_t (N, C, H, W), t/T, context, and ε."""

    x: Tensor
    t: Tensor
    context: Tensor
    eps: Tensor

    def at(self, index: Tensor) -> "Pairs":
        """Those of them."""
        return Pairs(*(part[index] for part in self))

    def joined(self, other: "Pairs") -> "Pairs":
        """These, then the others."""
        return Pairs(*(torch.cat(both) for both in zip(self, other, strict=True)))


def own_states(
    network: ContextUnet,
    context: Tensor,
    schedule: NoiseSchedule,
    settings: Settings,
    device: torch.device,
    progress: Progress | None = None,
) -> Pairs:
    """``KEPT`` states of each of ``settings.own`` DDPM trajectories of ``network``.

    Their ε is (x_t − √ᾱ_t x_0)/√(1−ᾱ_t), with x_0 the trajectory's own end point. Classes are
    drawn as in training, from the rows of ``context``, and dropped as often.
    """
    denoiser = NetworkDenoiser(network, schedule).to(device)

    def answer(x: Tensor, t: int, context: Tensor | None = None) -> Tensor:
        with low_precision(device):
            return denoiser(x, t, context)

    T, arms = schedule.T, (Arm("own", ddpm()),)
    draws = torch.Generator().manual_seed(settings.seed)
    noise = torch.Generator(device).manual_seed(settings.seed)
    found = []
    parts = torch.arange(settings.own).split(1024)
    with tqdm(total=len(parts) * T, unit="step", disable=progress is None) as bar:
        bar.set_description("sampling trajectories to learn from")
        for n in map(len, parts):
            shown = torch.rand(n, 1, generator=draws) >= settings.context_drop
            c = context[torch.randint(len(context), (n,), generator=draws)] * shown
            # A row is a random order of 0…T−1, of which KEPT are below KEPT.
            kept = torch.rand(n, T, generator=draws).argsort(1) < KEPT
            x_T = torch.randn(n, *denoiser.sample_shape, generator=noise, device=device)
            states, rows, times = [], [], []
            for step in sample(answer, schedule, x_T, noise, arms=arms, context=c.to(device)):
                chosen = kept[:, step.t - 1].nonzero()[:, 0]
                states.append(step.x[0, chosen.to(device)].cpu())
                rows.append(chosen)
                times.append(torch.full_like(chosen, step.t))
                bar.update()
            x, row, t = torch.cat(states), torch.cat(rows), torch.cat(times)
            bars = torch.tensor(schedule.alpha_bars, dtype=torch.float32)[t, None, None, None]
            eps = (x - bars.sqrt() * step.x_next[0].cpu()[row]) / (1 - bars).sqrt()
            found.append(Pairs(x, t / T, c[row], eps))
    return Pairs(*map(torch.cat, zip(*found, strict=True)))


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


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """w̄ ← decay·w̄ + (1 − decay)·w for every parameter; buffers (batch norm) are copied."""
    for weight, new in zip(average.parameters(), network.parameters(), strict=True):
        weight.lerp_(new, 1 - decay)
    for buffer, latest in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(latest)


def averaged(networks: Sequence[ContextUnet]) -> ContextUnet:
    """A network whose weights are the means of theirs, in evaluation mode.

    Trainings from one start end in one valley of the loss, and the mean of their weights errs
    less than each of them does (Wortsman et al., arXiv 2203.05482).

    Raises:
        InputError: fewer than two networks, or not all of one architecture.
    """
    states = [network.state_dict() for network in networks]
    if len(states) < 2:
        raise InputError(f"{len(states)} networks to average; allowed are two or more")
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    kinds = [(network.shortcut, network.shortcut_seed) for network in networks]
    for i, found in enumerate(zip(shapes, kinds, strict=True)):
        if found != (shapes[0], kinds[0]):
            raise InputError(f"network {i + 1} to average has another architecture than the first")
    mean = copy.deepcopy(networks[0]).eval()
    mean.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0)
            if value.is_floating_point()
            else value  # a counter of batch norm, which no result depends on
            for name, value in states[0].items()
        }
    )
    return mean


@torch.no_grad()
def measure_normalisation(
    network: nn.Module, x: Tensor, context: Tensor, alpha_bars: Tensor, settings: Settings
) -> None:
    """Set every batch norm's mean and variance to those of these weights, over one pass of ``x``.

    They are averages over batches that are noised and shown their class as in training. The
    network is left in evaluation mode.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    generator = torch.Generator().manual_seed(settings.seed)
    device, T = next(network.parameters()).device, len(alpha_bars) - 1
    for chosen in torch.randperm(len(x), generator=generator).split(settings.batch):
        t = torch.randint(1, T + 1, (len(chosen),), generator=generator)
        eps = torch.randn(x[chosen].shape, generator=generator)
        kept = torch.rand(len(chosen), 1, generator=generator) >= settings.context_drop
        noisy = perturb(x[chosen], eps, alpha_bars[t])
        noisy = noisy.to(device, memory_format=torch.channels_last)
        network(noisy, (t / T).to(device), (context[chosen] * kept).to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


class _State:
    """All that changes during a training."""

    def __init__(
        self, settings: Settings, device: torch.device, start: ContextUnet | None = None
    ) -> None:
        self.settings, self.device = settings, device
        # torch's layers draw their first weights from the global generator: it is given back as
        # it was. torch.manual_seed would also touch the generators of other devices.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)
            network = ContextUnet(3, settings.n_feat, settings.n_cfeat, settings.height)
        if start is not None:
            if start.state_dict().keys() != network.state_dict().keys() or any(
                start.state_dict()[k].shape != v.shape for k, v in network.state_dict().items()
            ):
                raise InputError("the network to start from has another architecture")
            network.load_state_dict(start.state_dict())
        self.start = copy.deepcopy(network)
        self.network = channels_last(network.to(device))
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.lr)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.losses: list[float] = []

    def hold_normalisation(self, x: Tensor, context: Tensor, alpha_bars: Tensor) -> None:
        """Measure batch norm once, for the network to start from; no step changes it after."""
        measure_normalisation(self.network, x, context, alpha_bars, self.settings)
        self.average.load_state_dict(self.network.state_dict())

    def noised(self, x0: Tensor, context: Tensor, alpha_bars: Tensor) -> Pairs:
        """The images at times drawn at random, some without their class."""
        n, T = len(x0), len(alpha_bars) - 1
        t = torch.randint(1, T + 1, (n,), generator=self.generator)
        eps = torch.randn(x0.shape, generator=self.generator)
        kept = torch.rand(n, 1, generator=self.generator) >= self.settings.context_drop
        return Pairs(perturb(x0, eps, alpha_bars[t]), t / T, context * kept, eps)

    def step(self, pairs: Pairs, done: int, total: int) -> float:
        """One batch, the ``done``-th from 0 of ``total``; returns its loss."""
        x, t, context, eps = (part.to(self.device) for part in pairs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * (1 - done / total)
        self.network.train()
        if self.settings.start:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        with low_precision(self.device):
            predicted = self.network(x.to(memory_format=torch.channels_last), t, context)
        loss = mse_loss(predicted.float(), eps)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        # A young average forgets its random start sooner: over the last tenth of the steps.
        update_average(
            self.average, self.network, min(self.settings.ema, (1 + done) / (10 + done))
        )
        return loss.item()

    def record(self, seconds: float) -> Epoch:
        return Epoch(
            epoch=len(self.losses),
            epochs=self.settings.epochs,
            loss=self.losses[-1],
            losses=tuple(self.losses),
            seconds=seconds,
            network=copy.deepcopy(self.average).cpu(),
        )

    def tensors(self) -> dict[str, Tensor]:
        tensors = {"generator": self.generator.get_state()}
        for prefix, module in (("network", self.network), ("average", self.average)):
            tensors |= {f"{prefix}.{k}": v for k, v in module.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{slot}": value for slot, value in slots.items()}
        return tensors

    def save(self, path: Path) -> None:
        facts = {"settings": asdict(self.settings), "losses": self.losses}
        write_tensors(path, self.tensors(), FORMAT, facts)

    def load(self, path: Path) -> None:
        """Take over a saved state; InputError where it is one of another training."""
        tensors, facts = read_tensors(path, FORMAT, MAX_STATE)
        stored: dict[str, Any] = facts["settings"]
        for name, value in asdict(self.settings).items():
            if stored.get(name) != value:
                raise InputError(
                    f"{path}: a training with {name} = {stored.get(name)!r}, this one has "
                    f"{value!r}; resume with the same settings or choose another file"
                )

        def part(prefix: str) -> dict[str, Tensor]:
            start = len(prefix) + 1
            return {k[start:]: v for k, v in tensors.items() if k.startswith(prefix + ".")}

        self.network.load_state_dict(part("network"))
        self.average.load_state_dict(part("average"))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in part("adam").items():
            index, slot = key.split(".")
            slots.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.generator.set_state(tensors["generator"])
        self.losses = list(facts["losses"])


def _images(images: NDArray[Any]) -> Tensor:
    images = np.asarray(images)
    floats = np.issubdtype(images.dtype, np.floating)
    if images.dtype != np.uint8 and not floats:
        raise InputError(f"images are {images.dtype}; allowed are uint8 and floats in [−1, 1]")
    shape = images.shape
    height, width = (shape[2:4] if floats else shape[1:3]) if images.ndim == 4 else (0, 0)
    if (
        shape != (shape[0], *((3, height, width) if floats else (height, width, 3)))
        or not shape[0]
    ):
        allowed = "(N, 3, H, W)" if floats else "(N, H, W, 3)"
        raise InputError(f"images have shape {shape}; allowed is {allowed}, N ≥ 1")
    if height != width or height not in HEIGHTS:
        sizes = ", ".join(f"{h}×{h}" for h in HEIGHTS)
        raise InputError(f"images have {width}×{height} pixels; allowed are {sizes}")
    if not floats:
        return torch.from_numpy(from_uint8(images))
    if not np.isfinite(images).all() or np.abs(images).max() > 1:
        raise InputError("images have values that are not in [−1, 1], or not numbers")
    return torch.from_numpy(np.array(images, dtype=np.float32, order="C"))


def _context(labels: NDArray[np.integer] | None, n: int, classes: Sequence[str]) -> Tensor:
    """One-hot (N, number of classes); without labels the zero vector, which means no class."""
    width = max(1, len(classes))
    if labels is None:
        return torch.zeros(n, width)
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels are {labels.dtype} of shape {labels.shape}; allowed are integers ({n},)"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(
            f"labels are {labels.min()}…{labels.max()}; allowed are indices of "
            f"the {len(classes)} classes"
        )
    return one_hot(torch.from_numpy(labels.astype(np.int64)), width).float()


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
