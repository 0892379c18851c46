r"""The tutorial's ContextUnet, state dict key for key, and the denoiser that samplers call.

ε̂ = U(x, t/T, c): two levels down, a vector, two levels up. A block is (3×3 convolution, batch
norm, GELU) twice; time and context enter as h ← c_emb·h + t_emb before each level up; t is the
plain fraction t/T. The first block is residual, (shortcut(x) + block(x))/1.414, and maps 3
channels to ``n_feat``, so its shortcut is a 1×1 convolution. The tutorial creates that convolution
anew, with random weights, inside every call, so its network is random even in evaluation. Three
named modes:

* ``"course"``: drawn anew for each call, from a generator of the module's own;
* ``"frozen"``: drawn once, equal to the first draw of ``"course"`` with the same seed;
* ``"learned"``: an ordinary saved layer, ``init_conv.shortcut.{weight,bias}``.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

from diffviz.diffusion.denoiser import one_time, tensors_digest
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule, check_schedule
from diffviz.errors import InputError, check_integer, check_names, shown

HEIGHTS = (16, 20, 24, 28)
SHORTCUTS = ("course", "frozen", "learned")
MAX_WIDTH = 1024


class Shortcut(nn.Module):
    """A 1×1 convolution that is drawn, by the law of a new ``nn.Conv2d(i, o, 1)``.

    Weights and bias are U(−1/√i, 1/√i). They are no parameters, and no key of the state dict. They
    are drawn ``anew`` for each call, or once.
    """

    def __init__(self, in_channels: int, out_channels: int, seed: int, anew: bool) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.generator = torch.Generator().manual_seed(seed)
        self._once = None if anew else self.draw()

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next weight (o, i, 1, 1) and bias (o,), on the CPU."""
        bound = self.in_channels**-0.5
        weight = torch.empty(self.out_channels, self.in_channels, 1, 1, dtype=torch.float32)
        bias = torch.empty(self.out_channels, dtype=torch.float32)
        for tensor in (weight, bias):
            tensor.uniform_(-bound, bound, generator=self.generator)
        return weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, i, H, W) → (B, o, H, W)."""
        weight, bias = self._once or self.draw()
        return conv2d(x, weight.to(x), bias.to(x))


def _conv(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.GELU())


class Block(nn.Module):
    """Two convolutions; with a shortcut S the result is (S(x) + block(x))/1.414, not /√2."""

    def __init__(
        self, in_channels: int, out_channels: int, shortcut: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels)
        self.conv2 = _conv(out_channels, out_channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, i, H, W) → (B, o, H, W)."""
        h = self.conv2(self.conv1(x))
        return h if self.shortcut is None else (self.shortcut(x) + h) / 1.414


class Level(nn.Module):
    """Layers under the name ``model``; several inputs are joined, channel after channel."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Apply the layers."""
        return self.model(torch.cat(inputs, dim=1))


def _down(i: int, o: int) -> Level:
    """Two blocks, then half the height: (B, i, H, W) → (B, o, H/2, W/2)."""
    return Level(Block(i, o), Block(o, o), nn.MaxPool2d(2))


def _up(i: int, o: int) -> Level:
    """Twice the height, two blocks."""
    return Level(nn.ConvTranspose2d(i, o, 2, 2), Block(o, o), Block(o, o))


class Embed(nn.Module):
    """A vector to one factor or offset per channel: (B, i) → (B, o, 1, 1)."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.in_features = i
        self.model = nn.Sequential(nn.Linear(i, o), nn.GELU(), nn.Linear(o, o))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the two layers."""
        return self.model(x.reshape(-1, self.in_features))[:, :, None, None]


class ContextUnet(nn.Module):
    """The tutorial's network; ``shortcut="learned"`` adds two keys to the tutorial's.

    Args:
        in_channels: channels of an image.
        n_feat: channels of the first level, a multiple of 8 for the group norm.
        n_cfeat: length of a context vector.
        height: height and width of an image, 16, 20, 24 or 28.
        shortcut: ``"course"``, ``"frozen"`` or ``"learned"``, see the module.
        shortcut_seed: seed of the first two.

    Raises:
        InputError: a size or a mode that the architecture does not have.
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_feat: int = 64,
        n_cfeat: int = 5,
        height: int = 16,
        shortcut: str = "learned",
        shortcut_seed: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("in_channels", in_channels), ("n_cfeat", n_cfeat)):
            check_integer(name, size, 1, MAX_WIDTH)
        check_integer("shortcut_seed", shortcut_seed, 0, 2**63 - 1)
        check_integer("n_feat", n_feat, 8, MAX_WIDTH)
        if n_feat % 8:
            raise InputError(f"n_feat is {n_feat}; allowed are the multiples of 8 to {MAX_WIDTH}")
        if isinstance(height, bool) or height not in HEIGHTS:
            raise InputError(
                f"height is {shown(height)}; allowed are {', '.join(map(str, HEIGHTS))}"
            )
        self.in_channels, self.n_feat = in_channels, n_feat
        self.n_cfeat, self.height = n_cfeat, height
        self.shortcut, self.shortcut_seed = shortcut, shortcut_seed

        first = _shortcut(shortcut, in_channels, n_feat, shortcut_seed)
        self.init_conv = Block(in_channels, n_feat, first)
        self.down1 = _down(n_feat, n_feat)
        self.down2 = _down(n_feat, 2 * n_feat)
        self.to_vec = nn.Sequential(nn.AvgPool2d(4), nn.GELU())
        self.timeembed1 = Embed(1, 2 * n_feat)
        self.timeembed2 = Embed(1, n_feat)
        self.contextembed1 = Embed(n_cfeat, 2 * n_feat)
        self.contextembed2 = Embed(n_cfeat, n_feat)
        self.up0 = nn.Sequential(
            nn.ConvTranspose2d(2 * n_feat, 2 * n_feat, height // 4, height // 4),
            nn.GroupNorm(8, 2 * n_feat),
            nn.ReLU(),
        )
        self.up1 = _up(4 * n_feat, n_feat)
        self.up2 = _up(2 * n_feat, n_feat)
        self.out = nn.Sequential(
            nn.Conv2d(2 * n_feat, n_feat, 3, padding=1),
            nn.GroupNorm(8, n_feat),
            nn.ReLU(),
            nn.Conv2d(n_feat, in_channels, 3, padding=1),
        )

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Predict ε from x (B, C, H, W).

        Args:
            x: noisy images.
            t: the fraction t/T, shape (B,), or one number of any shape, as (1, 1, 1, 1).
            c: context (B, n_cfeat) or (1, n_cfeat); None is the zero vector, "no class".
        """
        if c is None:
            c = x.new_zeros(1, self.n_cfeat)
        first = self.init_conv(x)
        level1 = self.down1(first)
        level2 = self.down2(level1)
        h = self.up0(self.to_vec(level2))
        h = self.up1(self.contextembed1(c) * h + self.timeembed1(t), level2)
        h = self.up2(self.contextembed2(c) * h + self.timeembed2(t), level1)
        return self.out(torch.cat((h, first), dim=1))


def folded(network: ContextUnet) -> ContextUnet:
    """An evaluation copy with each batch norm folded into its convolution, in channels_last.

    γ(Wx + b − μ)/√(v + ϵ) + β is one convolution: the same function up to rounding, and faster.
    """
    fast = copy.deepcopy(network).eval()
    for module in fast.modules():
        if isinstance(module, Block):
            for layers in (module.conv1, module.conv2):
                conv, norm = layers[0], layers[1]
                assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                layers[0], layers[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return channels_last(fast.requires_grad_(False))


def channels_last(network: ContextUnet) -> ContextUnet:
    """The same module, its weights laid out (O, H, W, I): on CPUs convolutions run faster so."""
    # torch's stubs leave this call of Module.to out.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class NetworkDenoiser:
    """A trained network as the samplers call it: (x, t, context) → ε̂, t an integer 0…T.

    Evaluation mode, no gradients, t/T passed on; the folded copy of the network does the work.

    Attributes:
        network: the network itself, in evaluation mode. It is not to be changed.
        schedule: the schedule it was trained with.
        sample_shape: (C, H, W).
        classes: what the entries of a context vector mean; () when unknown.
        facts: how it was trained.
        digest: SHA-256 of the weights, of the kind of shortcut, and of T.
    """

    def __init__(
        self,
        network: ContextUnet,
        schedule: NoiseSchedule,
        *,
        classes: Sequence[str] = (),
        law: DataLaw | Callable[[], DataLaw] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a copy of ``network``. ``law`` may be a picklable function, called when needed.

        Raises:
            InputError: another number of ``classes`` than the network has context entries.
        """
        if not isinstance(network, ContextUnet):
            raise InputError(f"the network is {shown(network)}; allowed is a ContextUnet")
        check_schedule(schedule)
        self.classes = check_names("classes", classes)
        if classes and len(classes) != network.n_cfeat:
            raise InputError(f"{len(classes)} classes; the network has n_cfeat={network.n_cfeat}")
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.schedule = schedule
        self.sample_shape: tuple[int, ...] = (network.in_channels, network.height, network.height)
        self.facts: Mapping[str, Any] = dict(facts or {})
        # t/T is what the network is told, so T decides about its answers as the weights do.
        fact = f"{weights_digest(network)} T={schedule.T}"
        self.digest = hashlib.sha256(fact.encode()).hexdigest()
        self._law = law

    @property
    def name(self) -> str:
        """The architecture and the kind of shortcut, in words."""
        net = self.network
        return f"ContextUnet(n_feat={net.n_feat}, height={net.height}, shortcut={net.shortcut})"

    @cached_property
    def law(self) -> DataLaw | None:
        """What is known about the training data; None for a foreign checkpoint."""
        return self._law() if callable(self._law) else self._law

    @cached_property
    def _fast(self) -> ContextUnet:
        return folded(self.network)

    def __call__(self, x: Tensor, t: int | Tensor, context: Tensor | None = None) -> Tensor:
        """ε̂ of x (B, C, H, W) at time t, contiguous and of x's dtype.

        Args:
            x: noisy images.
            t: 0…T, an integer or a tensor of any shape that holds one time.
            context: float (B, n_cfeat) or (1, n_cfeat), one-hot or a mixture; None: no class.

        Raises:
            InputError: x, t or context that the network cannot take.
        """
        if tuple(x.shape[1:]) != self.sample_shape:
            shape = ", ".join(map(str, self.sample_shape))
            raise InputError(f"x has shape {tuple(x.shape)}; allowed is (B, {shape})")
        n_cfeat = self.network.n_cfeat
        if context is not None and tuple(context.shape) not in ((len(x), n_cfeat), (1, n_cfeat)):
            raise InputError(
                f"context has shape {tuple(context.shape)}; allowed is ({len(x)}, {n_cfeat})"
            )
        with torch.inference_mode():
            images = x.to(torch.float32, memory_format=torch.channels_last)
            fraction = images.new_full((1,), one_time(t, self.schedule.T) / self.schedule.T)
            eps = self._fast(images, fraction, None if context is None else context.to(images))
        # Copied outside: an inference tensor could not be changed in place by a caller's sampler.
        return eps.to(x.dtype, copy=True, memory_format=torch.contiguous_format)

    def to(self, device: torch.device | str) -> "NetworkDenoiser":
        """The same denoiser on another device; this one stays where it is."""
        moved = copy.deepcopy(self)
        moved.network.to(device)
        return moved

    def restarted(self, seed: int) -> "NetworkDenoiser":
        """The same denoiser with the draws of a ``"course"`` shortcut begun anew from ``seed``.

        Without such a shortcut nothing is drawn and this is the denoiser itself.
        """
        if self.network.shortcut != "course":
            return self
        fresh = copy.deepcopy(self)
        for module in fresh.network.modules():
            if isinstance(module, Shortcut):
                module.generator.manual_seed(seed)
        return fresh

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes fold for themselves, and images of the training set do not travel.
        return {k: v for k, v in self.__dict__.items() if k not in ("_fast", "law")}


def weights_digest(network: ContextUnet) -> str:
    """SHA-256 of every tensor of the state dict, and of the mode and seed of the shortcut."""
    digest = tensors_digest(network.state_dict())
    if network.shortcut != "learned":
        fact = f"{digest} {network.shortcut} {network.shortcut_seed}"
        digest = hashlib.sha256(fact.encode()).hexdigest()
    return digest


def _shortcut(mode: str, i: int, o: int, seed: int) -> nn.Module:
    if mode not in SHORTCUTS:
        raise InputError(f"shortcut is {shown(mode)}; allowed are {', '.join(SHORTCUTS)}")
    return nn.Conv2d(i, o, 1) if mode == "learned" else Shortcut(i, o, seed, mode == "course")
