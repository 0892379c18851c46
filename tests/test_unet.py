"""The network against the tutorial's layout and an independent forward pass; the denoiser."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kstest
from torch import Tensor, nn

from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.diffusion.unet import SHORTCUTS, ContextUnet, NetworkDenoiser, Shortcut
from diffviz.errors import InputError

SCHEDULE = NoiseSchedule.linear(T=7)


def network_of(shortcut: str = "learned", seed: int = 0, **sizes: int) -> ContextUnet:
    """A small network whose batch norms have statistics as after a training, not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    network = ContextUnet(n_feat=8, shortcut=shortcut, shortcut_seed=3, **sizes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.2, 2, generator=generator)
            nn.init.normal_(module.weight, 1, 0.3, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    return network.eval()


def images(n: int = 3, height: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, height, height, generator=torch.Generator().manual_seed(seed))


# -------------------------------------------------------------------- the layout


def tutorial_layout() -> list[tuple[str, tuple[int, ...]]]:
    """Keys and shapes of ContextUnet(3, 64, 5, 16) in order, as the tutorial saves them."""

    def layer(name: str, *shape: int, out: int | None = None) -> list[tuple[str, tuple[int, ...]]]:
        return [(f"{name}.weight", shape), (f"{name}.bias", (shape[0] if out is None else out,))]

    def block(name: str, i: int, o: int) -> list[tuple[str, tuple[int, ...]]]:
        entries = []
        for conv, channels in (("conv1", i), ("conv2", o)):
            entries += layer(f"{name}.{conv}.0", o, channels, 3, 3) + layer(f"{name}.{conv}.1", o)
            entries += [(f"{name}.{conv}.1.running_{k}", (o,)) for k in ("mean", "var")]
            entries += [(f"{name}.{conv}.1.num_batches_tracked", ())]
        return entries

    def embed(name: str, i: int, o: int) -> list[tuple[str, tuple[int, ...]]]:
        return layer(f"{name}.model.0", o, i) + layer(f"{name}.model.2", o, o)

    layout = block("init_conv", 3, 64)
    layout += block("down1.model.0", 64, 64) + block("down1.model.1", 64, 64)
    layout += block("down2.model.0", 64, 128) + block("down2.model.1", 128, 128)
    layout += embed("timeembed1", 1, 128) + embed("timeembed2", 1, 64)
    layout += embed("contextembed1", 5, 128) + embed("contextembed2", 5, 64)
    layout += layer("up0.0", 128, 128, 4, 4) + layer("up0.1", 128)
    for name, i in (("up1", 256), ("up2", 128)):
        layout += layer(f"{name}.model.0", i, 64, 2, 2, out=64)
        layout += block(f"{name}.model.1", 64, 64) + block(f"{name}.model.2", 64, 64)
    return (
        layout + layer("out.0", 64, 128, 3, 3) + layer("out.1", 64) + layer("out.3", 3, 64, 3, 3)
    )


@pytest.mark.parametrize("shortcut", ["course", "frozen"])
def test_the_state_dict_is_the_tutorials(shortcut: str) -> None:
    # Kills: any renamed, missing, additional or reordered layer; a shortcut that gets saved.
    network = ContextUnet(shortcut=shortcut)
    layout = [(key, tuple(value.shape)) for key, value in network.state_dict().items()]
    assert layout == tutorial_layout()
    parameters = list(network.parameters())
    assert (len(layout), len(parameters), len(layout) - len(parameters)) == (156, 102, 54)
    assert sum(p.numel() for p in parameters) == 1_480_771


def test_the_learned_shortcut_adds_two_keys_and_nothing_else() -> None:
    shapes = {key: tuple(value.shape) for key, value in ContextUnet().state_dict().items()}
    extra = shapes.keys() - dict(tutorial_layout()).keys()
    assert {key: shapes[key] for key in extra} == {
        "init_conv.shortcut.weight": (64, 3, 1, 1),
        "init_conv.shortcut.bias": (64,),
    }


# -------------------------------------------------------------------- the forward pass


def functional(w: dict[str, Tensor], x: Tensor, t: Tensor, c: Tensor, height: int) -> Tensor:
    """The tutorial's forward pass from its text, on the tensors of a state dict."""

    def conv(name: str, x: Tensor) -> Tensor:
        x = F.conv2d(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"], padding=1)
        norm = [w[f"{name}.1.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.gelu(F.batch_norm(x, *norm))

    def block(name: str, x: Tensor) -> Tensor:
        return conv(f"{name}.conv2", conv(f"{name}.conv1", x))

    def down(name: str, x: Tensor) -> Tensor:
        return F.max_pool2d(block(f"{name}.model.1", block(f"{name}.model.0", x)), 2)

    def up(name: str, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat([x, skip], 1)
        x = F.conv_transpose2d(x, w[f"{name}.model.0.weight"], w[f"{name}.model.0.bias"], stride=2)
        return block(f"{name}.model.2", block(f"{name}.model.1", x))

    def embed(name: str, v: Tensor) -> Tensor:
        v = F.gelu(v @ w[f"{name}.model.0.weight"].T + w[f"{name}.model.0.bias"])
        return (v @ w[f"{name}.model.2.weight"].T + w[f"{name}.model.2.bias"])[..., None, None]

    short = torch.einsum("oi,bihw->bohw", w["init_conv.shortcut.weight"][:, :, 0, 0], x)
    short = short + w["init_conv.shortcut.bias"][:, None, None]
    first = (short + block("init_conv", x)) / 1.414
    level1 = down("down1", first)
    level2 = down("down2", level1)
    h = F.gelu(F.avg_pool2d(level2, 4))
    h = F.conv_transpose2d(h, w["up0.0.weight"], w["up0.0.bias"], stride=height // 4)
    h = F.relu(F.group_norm(h, 8, w["up0.1.weight"], w["up0.1.bias"]))
    h = up("up1", embed("contextembed1", c) * h + embed("timeembed1", t), level2)
    h = up("up2", embed("contextembed2", c) * h + embed("timeembed2", t), level1)
    h = F.conv2d(torch.cat([h, first], 1), w["out.0.weight"], w["out.0.bias"], padding=1)
    h = F.relu(F.group_norm(h, 8, w["out.1.weight"], w["out.1.bias"]))
    return F.conv2d(h, w["out.3.weight"], w["out.3.bias"], padding=1)


@pytest.mark.parametrize("height", [16, 20, 24, 28])
def test_forward_is_the_tutorials(height: int) -> None:
    # Kills: /√2 for /1.414, ReLU for GELU, factor and offset swapped, skips swapped, cat reversed.
    network, x = network_of(height=height), images(2, height)
    t, c = torch.tensor([0.2, 0.9]), torch.tensor([[0, 1.0, 0, 0, 0], [0.5, 0, 0, 0.5, 0]])
    with torch.no_grad():
        expected = functional(network.state_dict(), x, t[:, None], c, height)
        torch.testing.assert_close(network(x, t, c), expected, rtol=1e-4, atol=1e-5)


def test_one_time_for_all_and_no_context_are_the_tutorials_defaults() -> None:
    # Kills: a context of ones for None; t of shape (1,1,1,1) not accepted or spread wrongly.
    network, x = network_of(), images()
    with torch.no_grad():
        short = network(x, torch.full((1, 1, 1, 1), 0.3))
        full = network(x, torch.full((3,), 0.3), torch.zeros(3, 5))
    torch.testing.assert_close(short, full, rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------- the shortcut


def test_only_the_course_shortcut_changes_between_calls() -> None:
    """The frozen one is its first draw, and pickled it goes on where it was; the global generator
    is left alone. Kills: a course shortcut drawn once, a frozen or learned one drawn each time, a
    seed that is not used, nn.Conv2d(...) inside forward."""
    x, t = images(), torch.tensor([0.5])
    before = torch.get_rng_state()
    with torch.no_grad():
        for mode in SHORTCUTS:
            network = network_of(mode)
            assert torch.equal(network(x, t), network(x, t)) == (mode != "course")
        course = network_of("course")
        first = course(x, t)
        assert torch.equal(pickle.loads(pickle.dumps(course))(x, t), course(x, t))
        for seed in (3, 4):
            frozen = ContextUnet(n_feat=8, shortcut="frozen", shortcut_seed=seed).eval()
            frozen.load_state_dict(course.state_dict())
            assert torch.equal(first, frozen(x, t)) == (seed == 3)
            before_next = torch.get_rng_state()
            frozen(x, t), course(x, t)
            assert torch.equal(torch.get_rng_state(), before_next)
    torch.set_rng_state(before)


def test_a_drawn_shortcut_has_the_law_of_a_new_layer() -> None:
    # nn.Conv2d(3, o, 1) draws both from U(−1/√3, 1/√3). Kills: the bounds 1/3, 1/√o, √3.
    weight, bias = Shortcut(3, 20_000, 0, anew=True).draw()
    for values in (weight.flatten().numpy(), bias.numpy()):
        assert kstest(values, "uniform", (-(3**-0.5), 2 * 3**-0.5)).pvalue > 0.01
    reference = nn.Conv2d(3, 20_000, 1)
    assert abs(reference.weight.std().item() - weight.std().item()) < 0.005
    assert abs(reference.bias.std().item() - bias.std().item()) < 0.01


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"height": 12}, "height is 12; allowed are 16, 20, 24, 28"),
        ({"height": 32}, "height is 32"),
        ({"n_feat": 12}, "n_feat is 12; allowed are the multiples of 8"),
        ({"n_feat": 0}, "n_feat is 0"),
        ({"n_feat": 8.0}, r"n_feat is 8\.0"),
        ({"n_cfeat": 0}, "n_cfeat is 0"),
        ({"in_channels": True}, "in_channels is True"),
        ({"shortcut": "zero"}, "shortcut is 'zero'; allowed are course, frozen, learned"),
        ({"shortcut_seed": -1}, "shortcut_seed is -1"),
    ],
)
def test_an_architecture_that_does_not_exist_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ContextUnet(**wrong)


# -------------------------------------------------------------------- the denoiser


@pytest.mark.parametrize("mode", SHORTCUTS)
@pytest.mark.parametrize("n", [1, 5])
def test_the_folded_network_is_the_network(mode: str, n: int) -> None:
    # Kills: folding without bias, eps or running mean; t/T off; train mode; context lost.
    network = network_of(mode).train()
    denoiser = NetworkDenoiser(network, SCHEDULE)
    x, c = images(n), F.one_hot(torch.arange(n) % 5, 5).float()
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(x, torch.full((n,), 3 / 7), c)
    torch.testing.assert_close(denoiser(x, 3, c), expected, rtol=0, atol=1e-5)
    assert network.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_answer_is_an_ordinary_tensor_of_a_copy_and_not_cut_off(dtype: torch.dtype) -> None:
    """Kills: a channels_last or inference tensor handed to a sampler that works in place; a
    training that goes on and changes what is sampled; a clamp of ε̂."""
    network = network_of()
    nn.init.constant_(network.out[3].bias, 50.0)
    nn.init.zeros_(network.out[3].weight)
    denoiser = NetworkDenoiser(network, SCHEDULE)
    nn.init.zeros_(network.out[3].bias)
    eps = copy.deepcopy(denoiser)(images().to(dtype), 7)
    assert eps.is_contiguous() and eps.dtype == dtype and (eps == 50).all()
    eps.mul_(2).requires_grad_()


CALLS = []


def law_made() -> DataLaw:
    CALLS.append(1)
    return DataLaw.of_images(np.zeros((1, 3, 16, 16)))


def test_a_denoiser_travels_without_its_data() -> None:
    """Kills: 12,000 images pickled to each worker; facts or classes lost on the way; a law that is
    made at every look."""
    CALLS.clear()
    denoiser = NetworkDenoiser(
        network_of(), SCHEDULE, classes=tuple("abcde"), law=law_made, facts={"seed": 1}
    )
    assert denoiser.law is denoiser.law and len(CALLS) == 1
    twin = pickle.loads(pickle.dumps(denoiser)).to("cpu")
    assert torch.equal(twin(images(), 2), denoiser(images(), 2))
    assert len(CALLS) == 1 and twin.law is not denoiser.law and len(CALLS) == 2
    assert (twin.classes, twin.facts, twin.digest) == (
        tuple("abcde"),
        {"seed": 1},
        denoiser.digest,
    )
    assert twin.schedule == SCHEDULE and twin.sample_shape == (3, 16, 16)


def test_the_digest_sees_what_the_network_is_told() -> None:
    """t/T, so T. Kills: one digest for a network on schedules of different lengths."""
    network = network_of()
    one, two = (NetworkDenoiser(network, NoiseSchedule.linear(T)) for T in (7, 8))
    assert one.digest != two.digest
    t = torch.full((3, 1, 1, 1), 4)
    assert torch.equal(one(images(), t), one(images(), 4))
    assert not torch.equal(one(images(), 4), two(images(), 4))


def test_the_digest_tells_networks_apart() -> None:
    # Kills: a digest of keys only, of parameters only, or without the shortcut's seed.
    def digest(network: ContextUnet) -> str:
        return NetworkDenoiser(network, SCHEDULE).digest

    learned, frozen = network_of(), network_of("frozen")
    weight, buffer = copy.deepcopy(learned), copy.deepcopy(learned)
    weight.out[3].bias.data[0] += 1e-6
    buffer.down1.model[0].conv1[1].running_mean[0] += 1e-6
    seeded = ContextUnet(n_feat=8, shortcut="frozen", shortcut_seed=4)
    seeded.load_state_dict(frozen.state_dict())
    course = ContextUnet(n_feat=8, shortcut="course", shortcut_seed=3)
    course.load_state_dict(frozen.state_dict())
    every = [learned, weight, buffer, frozen, seeded, course]
    assert len({digest(network) for network in every}) == len(every)
    assert digest(learned) == digest(copy.deepcopy(learned))


def test_wrong_calls_are_refused() -> None:
    denoiser = NetworkDenoiser(network_of(), SCHEDULE)
    x = images()
    for arguments, message in (
        ((x, -1), "t is -1; allowed are the integers 0…7"),
        ((x, 8), "t is 8"),
        ((x[:, :2], 1), r"x has shape \(3, 2, 16, 16\); allowed is \(B, 3, 16, 16\)"),
        ((x, 1, torch.zeros(3, 4)), r"context has shape \(3, 4\); allowed is \(3, 5\)"),
        ((x, 1, torch.zeros(2, 5)), r"context has shape \(2, 5\)"),
    ):
        with pytest.raises(InputError, match=message):
            denoiser(*arguments)
    with pytest.raises(InputError, match="2 classes; the network has n_cfeat=5"):
        NetworkDenoiser(network_of(), SCHEDULE, classes=("a", "b"))
