"""What the network is shown, how its weights are averaged, and that a killed training goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.diffusion.unet import ContextUnet, NetworkDenoiser, weights_digest
from diffviz.errors import InputError
from diffviz.files.images import from_uint8, to_uint8
from diffviz.training import Epoch, perturb, save_preview, train

SCHEDULE = NoiseSchedule.course(T=10)
CLASSES = ("a", "b", "c")
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
LABELS = np.arange(10) % 3
SMALL = {"classes": CLASSES, "n_feat": 8, "batch": 4, "epochs": 3}


def run(**changes) -> list[Epoch]:
    return list(train(IMAGES, LABELS, SCHEDULE, **{**SMALL, **changes}))


# -------------------------------------------------------------------- the loop


def test_what_the_network_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """x_t = √ᾱ_t v + √(1−ᾱ_t) ε for images of the one value v, at times 1…T, context kept 0.9.

    Kills: the missing root, ᾱ off by one, t from 0 or to T − 1, t not divided by T, a context that
    is never or always dropped, or dropped for a whole batch at once.
    """
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self: ContextUnet, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        seen.append((x.clone(), t.clone(), c.clone()))
        return x * self.out[3].bias.sum()

    monkeypatch.setattr(ContextUnet, "forward", forward)
    images, labels = np.full((200, 3, 16, 16), 0.5), np.arange(200) % 3
    list(train(images, labels, SCHEDULE, classes=CLASSES, n_feat=8, epochs=10, batch=50))
    x, t, c = (torch.cat(parts) for parts in zip(*seen, strict=True))
    index = (t * SCHEDULE.T).round().long()
    torch.testing.assert_close(index / SCHEDULE.T, t)
    counts = torch.bincount(index, minlength=11)
    assert counts[0] == 0 and len(counts) == 11
    assert (counts[1:] > 140).all()  # binomial(2000, 0.1): mean 200, std 13.4
    for time in range(1, 11):
        level = SCHEDULE.alpha_bars[time]
        chosen = x[index == time]  # at least 140·768 numbers: errors below 0.01 of the std
        assert chosen.mean().item() == pytest.approx(
            0.5 * level**0.5, abs=0.02 * (1 - level) ** 0.5
        )
        assert chosen.std().item() == pytest.approx((1 - level) ** 0.5, rel=0.02)
    kept = c.sum(1)
    assert set(kept.tolist()) == {0.0, 1.0} and set(c.unique().tolist()) == {0.0, 1.0}
    assert kept.mean().item() == pytest.approx(0.9, abs=0.03)  # std 0.0067
    assert 0 < kept[:50].mean() < 1


def test_the_rate_falls_linearly_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    # Kills: a constant rate, a rate that starts again after each epoch.
    rates: list[float] = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self: (rates.append(self.param_groups[0]["lr"]), step(self)),
    )
    run(lr=0.01)
    np.testing.assert_allclose(rates, 0.01 * (1 - np.arange(9) / 9))


def test_training_learns() -> None:
    # Predicting 0 has a loss of 1. Kills: no optimizer step, a loss against x_0, shuffled targets.
    flat = np.repeat(IMAGES[:, :1, :1], 256, axis=1).reshape(IMAGES.shape)
    training = train(flat, None, NoiseSchedule.course(), n_feat=8, batch=10, epochs=60, lr=0.01)
    losses = list(training)[-1].losses
    assert losses[0] > 0.9
    assert np.mean(losses[-10:]) < 0.4


@pytest.mark.parametrize("ema", [0.0, 0.5, 0.999])
def test_the_average_forgets_geometrically(tmp_path: Path, ema: float) -> None:
    """One step an epoch: w̄_0 = w_0, w̄_k = d·w̄_{k−1} + (1 − d)·w_k, d = min(ema, (1 + k)/(10 + k)).
    Kills: d and 1 − d swapped, the raw network yielded, an average that stays at its start."""
    path, expected = tmp_path / "state", None
    training = train(IMAGES, LABELS, SCHEDULE, **{**SMALL, "batch": 10}, ema=ema, checkpoint=path)
    for k, epoch in enumerate(training):
        raw = torch.load(path, weights_only=True)["network"]["out.3.weight"]
        decay = min(ema, (1 + k) / (10 + k))
        expected = raw if expected is None else decay * expected + (1 - decay) * raw
        torch.testing.assert_close(epoch.network.out[3].weight.data, expected)


def test_records_and_progress() -> None:
    # Kills: an epoch's network that the next epoch changes; steps of a partial batch not counted.
    steps: list[tuple[int, int]] = []
    digests = []
    epochs = []
    for epoch in train(
        IMAGES, LABELS, SCHEDULE, progress=lambda *pair: steps.append(pair), **SMALL
    ):
        epochs.append(epoch)
        digests.append(weights_digest(epoch.network))
    assert steps == [(1, 3), (2, 3), (3, 3)] * 3
    assert [(e.epoch, e.epochs, e.loss) for e in epochs] == [
        (i + 1, 3, epochs[-1].losses[i]) for i in range(3)
    ]
    assert [weights_digest(e.network) for e in epochs] == digests
    assert len(set(digests)) == 3 and not epochs[0].network.training


def test_the_loss_is_the_mean_over_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 10 images in batches of 4 the last batch has two. Kills: it weighed as a whole one.
    monkeypatch.setattr("diffviz.training.mse_loss", lambda found, right: 0 * found.sum() + 1)
    assert [epoch.loss for epoch in run(epochs=1)] == [1.0]


def test_the_seed_decides_everything_and_the_global_generator_nothing() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run(epochs=1)[-1]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = run(epochs=1)[-1], run(epochs=1, seed=1)[-1]
    assert weights_digest(first.network) == weights_digest(again.network)
    assert weights_digest(first.network) != weights_digest(other.network)


def test_without_labels_the_context_is_zero() -> None:
    last = list(train(IMAGES, None, SCHEDULE, n_feat=8, epochs=1))[-1]
    assert last.network.n_cfeat == 1
    fresh = ContextUnet(n_feat=8, n_cfeat=1).contextembed1.model[0].weight.shape
    assert last.network.contextembed1.model[0].weight.shape == fresh == (16, 1)


# -------------------------------------------------------------------- stop and go on


@pytest.fixture(scope="module")
def whole() -> Epoch:
    return run()[-1]


def assert_same(epoch: Epoch, whole: Epoch) -> None:
    assert epoch.losses == whole.losses
    assert weights_digest(epoch.network) == weights_digest(whole.network)


def test_one_epoch_and_two_more_are_three(tmp_path: Path, whole: Epoch) -> None:
    # Kills: Adam's moments, the average, the generator or the rate not restored.
    path = tmp_path / "state"
    training = train(IMAGES, LABELS, SCHEDULE, checkpoint=path, **SMALL)
    assert next(training).epoch == 1
    training.close()
    rest = run(checkpoint=path, resume=True)
    assert [epoch.epoch for epoch in rest] == [2, 3]
    assert_same(rest[-1], whole)
    assert_same(run(checkpoint=path, resume=True)[-1], whole)  # finished: its last epoch again


def test_a_training_killed_inside_an_epoch_loses_that_epoch(tmp_path: Path, whole: Epoch) -> None:
    # Kills: a state saved with a generator, or weights, from the middle of an epoch.
    path = tmp_path / "state"
    calls = []

    def interrupt(step: int, steps: int) -> None:
        calls.append(step)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path, resume=True, progress=interrupt)
    assert_same(run(checkpoint=path, resume=True)[-1], whole)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_only_the_same_training_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state"
    run(checkpoint=path, epochs=1)
    with pytest.raises(InputError, match="exists; resume that training or remove the file"):
        run(checkpoint=path, epochs=1)
    for change, name in (
        ({"epochs": 2}, "epochs = 1, this one has 2"),
        ({"seed": 1}, "seed"),
        ({"lr": 0.01}, "lr"),
        ({"n_feat": 16}, "n_feat"),
        ({"classes": (*CLASSES, "d")}, "n_cfeat"),
    ):
        with pytest.raises(InputError, match=f"a training with {name}"):
            run(**{"checkpoint": path, "resume": True, "epochs": 1, **change})
    small = {**SMALL, "epochs": 1, "checkpoint": path, "resume": True}
    for images, labels, schedule, name in (
        (IMAGES[::-1], LABELS, SCHEDULE, "data"),
        (IMAGES, LABELS[::-1], SCHEDULE, "data"),
        (IMAGES, LABELS, NoiseSchedule.linear(T=10), "data"),
    ):
        with pytest.raises(InputError, match=f"a training with {name}"):
            train(images, labels, schedule, **small)


def test_going_on_from_a_network_goes_on_after_a_stop(tmp_path: Path, whole: Epoch) -> None:
    """Kills: batch norm measured again from weights in the middle; a start that is not used."""
    path, options = tmp_path / "state", {"start": whole.network}
    undisturbed = run(**options)[-1]
    training = train(IMAGES, LABELS, SCHEDULE, checkpoint=path, **SMALL, **options)
    next(training)
    training.close()
    assert_same(run(checkpoint=path, resume=True, **options)[-1], undisturbed)
    assert undisturbed.losses != whole.losses


def test_a_preview_shows_the_classes_row_by_row(whole: Epoch, tmp_path: Path) -> None:
    """Eight of each, from one x_T each time, by DDIM. Kills: classes in turn, another start."""
    schedule = NoiseSchedule.course(T=10)
    save_preview(whole, tmp_path, schedule, CLASSES)
    denoiser = NetworkDenoiser(whole.network, schedule)
    x = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    context = torch.tensor([[1.0, 0, 0]] * 8 + [[0, 1.0, 0]] * 8 + [[0, 0, 1.0]] * 8)
    for t in range(10, 0, -1):  # DDIM by its definition
        now, then = schedule.alpha_bars[t], schedule.alpha_bars[t - 1]
        eps = denoiser(x, t, context)
        x = then**0.5 * (x - (1 - now) ** 0.5 * eps) / now**0.5 + (1 - then) ** 0.5 * eps
    expected = to_uint8(x.numpy()).reshape(3, 8, 16, 16, 3).transpose(0, 2, 1, 3, 4)
    with Image.open(tmp_path / f"epoch-{whole.epoch:04}.png") as sheet:
        shown = np.asarray(sheet)[::4, ::4].astype(int)
    assert np.abs(shown - expected.reshape(48, 128, 3)).max() <= 1


# -------------------------------------------------------------------- the border

FLOATS = np.zeros((10, 3, 16, 16))


@pytest.mark.parametrize(
    ("images", "labels", "changes", "message"),
    [
        (np.where(FLOATS == 0, np.nan, 0), None, {}, r"not in \[−1, 1\]"),
        (FLOATS + 255, None, {}, r"not in \[−1, 1\]"),
        (np.zeros((2, 12, 12, 3), np.uint8), None, {}, "height is 12; allowed are 16, 20"),
        (np.zeros((2, 16, 20, 3), np.uint8), None, {}, "20×16 pixels; allowed are squares"),
        (
            np.zeros((2, 16, 16, 4), np.uint8),
            None,
            {},
            r"\(2, 16, 16, 4\); allowed is \(N, H, W, 3",
        ),
        (np.zeros((2, 16, 16, 3)), None, {}, r"\(2, 16, 16, 3\); allowed is \(N, 3, H, W\)"),
        (np.zeros((0, 16, 16, 3), np.uint8), None, {}, "N ≥ 1"),
        (np.zeros((16, 16, 3), np.uint8), None, {}, r"shape \(16, 16, 3\)"),
        (IMAGES.astype(np.int64), None, {}, "images are int64"),
        (
            IMAGES,
            LABELS[:9],
            {},
            r"labels are int64 of shape \(9,\); allowed are 10 integers",
        ),
        (IMAGES, LABELS / 2, {}, "labels are float64"),
        (
            IMAGES,
            LABELS + 1,
            {},
            "labels are 1…3; allowed are 10 integers, indices of the 3 classes",
        ),
        (IMAGES, LABELS - 1, {}, "labels are -1…1"),
        (IMAGES, LABELS, {"epochs": 0}, "epochs is 0"),
        (IMAGES, LABELS, {"batch": 2.5}, r"batch is 2\.5"),
        (IMAGES, LABELS, {"lr": 0.0}, r"lr is 0\.0"),
        (IMAGES, LABELS, {"lr": float("nan")}, "lr is nan"),
        (IMAGES, LABELS, {"context_drop": 1.5}, r"context_drop is 1\.5"),
        (IMAGES, LABELS, {"seed": -1}, "seed is -1"),
        (IMAGES, LABELS, {"n_feat": 12}, "n_feat is 12"),
        (
            IMAGES,
            LABELS,
            {"checkpoint": "no/such/folder/state"},
            "folder no/such/folder does not exist",
        ),
    ],
)
def test_wrong_input_is_refused_before_the_first_step(images, labels, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        train(images, labels, SCHEDULE, **{**SMALL, **changes})


def test_batch_norm_is_measured_for_the_weights_that_are_returned() -> None:
    """Those of the averaged weights over the data, which a training that starts from them holds.
    Kills: the running statistics of the last batches."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    schedule = NoiseSchedule.course(50)
    (*_, last) = train(images, None, schedule, epochs=2, batch=8, n_feat=8, seed=1)
    norm = last.network.init_conv.conv1[1]
    convolution = last.network.init_conv.conv1[0]
    # The first norm sees conv(x_t) only: its mean is the average over the same noised images.
    g = torch.Generator().manual_seed(1)
    x = torch.from_numpy(from_uint8(images))
    bars = torch.tensor(schedule.alpha_bars, dtype=torch.float32)
    means = []
    for chosen in torch.randperm(24, generator=g).split(8):
        t = torch.randint(1, 51, (8,), generator=g)
        eps = torch.randn(8, 3, 16, 16, generator=g)
        torch.rand(8, 1, generator=g)
        with torch.no_grad():
            means.append(convolution(perturb(x[chosen], eps, bars[t])).mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), atol=1e-4, rtol=1e-3)
    (*_, on) = train(
        images, None, schedule, epochs=1, batch=8, n_feat=8, seed=1, start=last.network
    )
    torch.testing.assert_close(
        on.network.init_conv.conv1[1].running_mean, norm.running_mean, atol=1e-4, rtol=1e-3
    )
    assert not torch.equal(on.network.out[3].weight, last.network.out[3].weight)
