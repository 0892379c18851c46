"""Round trips, the tutorial's files, and every wrong file refused in one clear line."""

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from diffviz.diffusion.checkpoints import FORMAT, load_denoiser, save_denoiser, write_tensors
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.diffusion.unet import ContextUnet, NetworkDenoiser
from diffviz.errors import CheckpointError, InputError
from diffviz.files.images import from_uint8
from diffviz.sprites.make import CLASSES, make_sprites

SCHEDULE = NoiseSchedule.cosine(T=9)
RECIPE = "sprites:n=12,seed=3"
FACTS = {"seed": 5, "losses": [0.5, 0.25], "command": "train …"}


def network_of(shortcut: str = "learned", **sizes: int) -> ContextUnet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ContextUnet(n_feat=8, shortcut=shortcut, shortcut_seed=2, **sizes)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return network.eval()


def law_of(n: int = 12, seed: int = 3) -> DataLaw:
    images, labels = make_sprites(n, seed)
    return DataLaw.of_images(from_uint8(images), labels, CLASSES)


def save(path: Path, network: ContextUnet | None = None, **changes: Any) -> Path:
    facts = {"classes": CLASSES, "data_recipe": RECIPE, "data": law_of(), "facts": FACTS}
    save_denoiser(path, network or network_of(), SCHEDULE, **{**facts, **changes})
    return path


def answer(denoiser: NetworkDenoiser, t: int = 4) -> Tensor:
    height = denoiser.sample_shape[1]
    x = torch.randn(2, 3, height, height, generator=torch.Generator().manual_seed(1))
    return denoiser(x, t, torch.eye(5)[:2])


# -------------------------------------------------------------------- round trips


@pytest.mark.parametrize("shortcut", ["course", "frozen", "learned"])
@pytest.mark.parametrize("height", [16, 28])
def test_a_saved_denoiser_comes_back(tmp_path: Path, shortcut: str, height: int) -> None:
    # Kills: a tensor, the shortcut's mode or seed, or ᾱ lost, rounded or exchanged.
    network = network_of(shortcut, height=height)
    law = DataLaw.of_images(np.linspace(-1, 1, 6 * height**2).reshape(2, 3, height, height))
    loaded = load_denoiser(save(tmp_path / "a.safetensors", network, data=law))
    before = NetworkDenoiser(network, SCHEDULE, classes=CLASSES)
    assert torch.equal(answer(loaded), answer(before))
    assert loaded.digest == before.digest
    assert loaded.schedule == SCHEDULE and loaded.schedule.name == SCHEDULE.name
    assert loaded.classes == CLASSES
    assert dict(loaded.facts) == {**FACTS, "data": RECIPE}
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_saving_again_gives_the_same_bytes(tmp_path: Path) -> None:
    # Kills: a time or an order of dictionaries that gets into the file.
    first, second = save(tmp_path / "a"), save(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_the_images_come_back_where_they_can_be_drawn_again(tmp_path: Path) -> None:
    law = load_denoiser(save(tmp_path / "a")).law
    assert law is not None and law.points is not None and law.labels is not None
    images, labels = make_sprites(12, 3)
    assert np.array_equal(law.points, from_uint8(images))
    assert np.array_equal(law.labels, labels) and law.classes == CLASSES


@pytest.mark.parametrize("recipe", ["my folder", "sprites:n=12,seed=4", "sprites:n=999999,seed=3"])
def test_else_the_stored_summary_speaks(tmp_path: Path, recipe: str) -> None:
    # Sprites that differ from those of the training are not shown as them.
    # Kills: trusting the recipe, or drawing whatever number a file asks for.
    stored, law = law_of(), load_denoiser(save(tmp_path / "a", data_recipe=recipe)).law
    assert law is not None and law.points is None
    for name in ("mean", "std", "locations", "scales", "weights"):
        assert np.array_equal(getattr(law, name), getattr(stored, name))


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "a")
    before = torch.get_rng_state()
    load_denoiser(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kills: writing in place; a half-written file left behind.
    path = save(tmp_path / "a")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="not written: No space left"):
        save(path, network_of("frozen"))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_what_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    broken = network_of()
    nn.init.constant_(broken.out[3].bias, float("nan"))
    with pytest.raises(InputError, match=r"out\.3\.bias has values that are not finite"):
        save(tmp_path / "a", broken)
    with pytest.raises(InputError, match="of facts; not written"):
        save(tmp_path / "a", facts={"log": "x" * 2**21})
    with pytest.raises(InputError, match="2 classes; the network has n_cfeat=5"):
        save(tmp_path / "a", classes=("a", "b"))
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------- the tutorial's files


def test_a_pth_of_the_tutorial(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    course = network_of("course")
    torch.save(course.state_dict(), path)
    loaded = load_denoiser(path)
    assert loaded.schedule == NoiseSchedule.course() and loaded.law is None
    assert loaded.classes == CLASSES and loaded.network.shortcut == "course"
    assert not torch.equal(answer(loaded), answer(loaded))

    frozen = load_denoiser(path, shortcut="frozen", shortcut_seed=2, schedule=SCHEDULE)
    twin = network_of("frozen")
    twin.load_state_dict(course.state_dict())
    assert torch.equal(answer(frozen), answer(NetworkDenoiser(twin, SCHEDULE)))
    with pytest.raises(CheckpointError, match=r"'init_conv\.shortcut\.weight' is missing; choose"):
        load_denoiser(path, shortcut="learned")


@pytest.mark.parametrize("sizes", [{"height": 28}, {"n_cfeat": 3}, {"in_channels": 1}])
def test_sizes_are_read_from_the_shapes(tmp_path: Path, sizes: dict[str, int]) -> None:
    """Kills: a size of another axis, names invented for classes that nobody named."""
    torch.save(network_of(**sizes).state_dict(), tmp_path / "a.pth")
    loaded = load_denoiser(tmp_path / "a.pth")
    network = loaded.network
    assert loaded.classes == (() if "n_cfeat" in sizes else CLASSES)
    assert {name: getattr(network, name) for name in sizes} == sizes
    assert network.shortcut == "learned"


def test_half_precision_and_parameters_are_read(tmp_path: Path) -> None:
    weights = network_of().state_dict()
    stored = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    stored["out.0.bias"] = nn.Parameter(stored["out.0.bias"])
    torch.save(stored, tmp_path / "a.pth")
    read = load_denoiser(tmp_path / "a.pth").network.state_dict()
    assert all(torch.equal(v, stored[k].to(v.dtype)) for k, v in read.items())


def test_the_shortcut_can_be_chosen_for_our_files_too(tmp_path: Path) -> None:
    path = save(tmp_path / "a")
    frozen = load_denoiser(path, shortcut="frozen", shortcut_seed=2)
    assert frozen.network.shortcut == "frozen"
    assert not torch.equal(answer(frozen), answer(load_denoiser(path)))
    assert load_denoiser(path, schedule=NoiseSchedule.linear(5)).schedule.T == 5
    for wrong in ({"shortcut": "zero"}, {"shortcut_seed": -1}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} is "):
            load_denoiser(path, **wrong)


# -------------------------------------------------------------------- wrong files


class Program:
    """A pickle that calls a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sentinel"),)


def zip_of(path: Path, program: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", bytes(10**7))


def changed(**tensors: Tensor | None) -> Callable[[Path], None]:
    """A .pth with some tensors replaced or removed; two underscores stand for a dot."""

    def write(path: Path) -> None:
        weights = dict(network_of().state_dict())
        for name, tensor in tensors.items():
            key = name.replace("__", ".")
            del weights[key]
            if tensor is not None:
                weights[key] = tensor
        torch.save(weights, path)

    return write


def torch_of(make: Callable[[], object], **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(make(), path, **options)


def bytes_of(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def half(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


def sparse_file(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(300 * 2**20)


def other_safetensors(path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)


def ours_with(change: Callable[[dict, dict], object]) -> Callable[[Path], None]:
    """A file of ours with a valid digest, but with other content."""

    def write(path: Path) -> None:
        tensors = safetensors.torch.load_file(save(path))
        raw = path.read_bytes()
        head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        facts = {k: json.loads(v) for k, v in head.items() if k not in ("format", "digest")}
        change(tensors, facts)
        write_tensors(path, tensors, FORMAT, facts)

    return write


def adam() -> dict:
    network = network_of()
    return {"epoch": 3, "state_dict": network.state_dict(), "optimizer": {"lr": 0.1}}


STATE = "out__3__bias"
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file; allowed are"),
    "empty": (Path.touch, "empty; allowed are"),
    "folder": (Path.mkdir, "a folder; allowed are"),
    "fifo": (os.mkfifo, "a pipe; allowed are"),
    "too large": (sparse_file, "300 MiB; allowed are 256 MiB"),
    "web page": (bytes_of(b"\n<!DOCTYPE html><html></html>"), "a web page"),
    "lfs pointer": (
        bytes_of(b"version https://git-lfs.github.com/spec/v1\noid"),
        "git lfs pull",
    ),
    "noise": (bytes_of(bytes(range(7, 250))), "not a file of weights"),
    "short": (bytes_of(b"abc"), "not a file of weights"),
    "deep json": (
        bytes_of((100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 99_995),
        "no whole safetensors file",
    ),
    "cut pth": (half(changed()), "no whole zip file"),
    "cut safetensors": (half(save), "no whole safetensors file"),
    "plain zip": (lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), "zip"),
    "code": (torch_of(lambda: {"a": Program()}), "more than a state dict"),
    "code, protocol 4": (
        torch_of(lambda: {"a": Program()}, pickle_protocol=4),
        "more than a state dict|damaged, or not",
    ),
    "bare pickle": (lambda path: path.write_bytes(pickle.dumps(Program())), "a bare pickle"),
    "old torch": (
        torch_of(lambda: network_of().state_dict(), _use_new_zipfile_serialization=False),
        "older than 1.6",
    ),
    "whole model": (torch_of(network_of), "ContextUnet, so it is more than a state dict"),
    "numpy": (torch_of(lambda: {"a": np.zeros(2)}), "numpy.*more than a state dict"),
    "one tensor": (torch_of(lambda: torch.zeros(2)), "holds Tensor; allowed is a state dict"),
    "no tensors": (torch_of(dict), "holds dict; allowed is a state dict"),
    "training": (torch_of(adam), r"keys epoch, state_dict, optimizer.*checkpoint\['state_dict'\]"),
    "nested": (torch_of(lambda: {"ema": OrderedDict()}), r"checkpoint\['ema'\]"),
    "number": (
        torch_of(lambda: {**network_of().state_dict(), "epoch": 3}),
        "'epoch' is no tensor",
    ),
    "data parallel": (
        torch_of(lambda: nn.DataParallel(network_of()).state_dict()),
        r"starts with 'module\.'.*model\.module\.state_dict\(\)",
    ),
    "other network": (torch_of(nn.Linear(2, 2).state_dict), "so not a ContextUnet; its first key"),
    "missing key": (changed(**{STATE: None}), r"key 'out\.3\.bias' is missing"),
    "extra key": (
        torch_of(lambda: {**network_of().state_dict(), "x": torch.zeros(1)}),
        "key 'x' is not one of a ContextUnet",
    ),
    "wrong shape": (
        changed(down2__model__0__conv1__0__bias=torch.zeros(7)),
        r"down2\.model\.0\.conv1\.0\.bias has shape \(7,\);.*has \(16,\)",
    ),
    "wrong height": (
        changed(up0__0__weight=torch.zeros(16, 16, 8, 8)),
        "height is 32; allowed are 16, 20, 24, 28",
    ),
    "wrong rank": (changed(up0__0__weight=torch.zeros(4)), r"up0\.0\.weight has shape \(4,\)"),
    "integers": (changed(**{STATE: torch.zeros(3, dtype=torch.int64)}), "is torch.int64, not"),
    "nan": (changed(**{STATE: torch.full((3,), np.nan)}), r"out\.3\.bias.*not finite"),
    "negative variance": (
        changed(init_conv__conv1__1__running_var=torch.tensor([1.0] * 7 + [-1e-3])),
        "negative, but it is a variance",
    ),
    "stride 0": (
        changed(init_conv__conv1__0__weight=torch.zeros(1).expand(10**6, 10**6)),
        "claim more than twice the file's size",
    ),
    "zip bomb": (zip_bomb, "unpacks to more than twice its size"),
    "underflow": (lambda path: zip_of(path, b"\x80\x02s."), "damaged, or not a state dict"),
    "other safetensors": (other_safetensors, "format None; allowed are"),
    "other format": (
        lambda path: write_tensors(path, {}, "diffviz-training-1", {}),
        "format 'diffviz-training-1'; allowed are",
    ),
    "no schedule": (ours_with(lambda t, f: t.pop("schedule.betas")), "wrong entry"),
    "no data": (ours_with(lambda t, f: t.pop("data.mean")), "wrong entry"),
    "schedule nan": (ours_with(lambda t, f: t["schedule.betas"].fill_(np.nan)), "not finite"),
    "summary": (ours_with(lambda t, f: t.update({"data.mean": torch.zeros(2)})), "data summary"),
    "sizes": (ours_with(lambda t, f: f["architecture"].update(n_feat=16)), "declares .*tensors"),
    "mode": (ours_with(lambda t, f: f["architecture"].update(shortcut="x")), "shortcut is 'x'"),
    "classes": (ours_with(lambda t, f: f.update(classes=["a"])), "1 classes; the network"),
    "facts": (ours_with(lambda t, f: f.update(facts=[1])), "wrong entry"),
    "extra tensor": (ours_with(lambda t, f: t.update(x=torch.zeros(1))), "'x' is not one"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_refused_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kills: another exception, several lines, torch's own advice. That no code in a file is run
    # is held by tests/test_trust.py.
    monkeypatch.chdir(tmp_path)
    write, message = WRONG[kind]
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_denoiser(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    assert "weights_only" not in line
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_every_flipped_bit_of_ours_is_noticed(tmp_path: Path) -> None:
    # Kills: no digest, a digest without the names or the facts.
    path = save(tmp_path / "a.safetensors")
    raw, generator = path.read_bytes(), np.random.default_rng(0)
    length = 8 + int.from_bytes(raw[:8], "little")
    places = [*generator.integers(0, length, 60), *generator.integers(length, len(raw), 60)]
    for place in places:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << generator.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            load_denoiser(path)


def test_the_files_metadata_are_as_documented(tmp_path: Path) -> None:
    # The file stays readable by anybody with safetensors and JSON alone.
    raw = save(tmp_path / "a").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert header.pop("format") == FORMAT and len(header.pop("digest")) == 64
    assert {key: json.loads(value) for key, value in header.items()} == {
        "architecture": {
            **{"in_channels": 3, "n_feat": 8, "n_cfeat": 5, "height": 16},
            **{"shortcut": "learned", "shortcut_seed": 2},
        },
        "schedule": SCHEDULE.name,
        "classes": list(CLASSES),
        "data": RECIPE,
        "facts": FACTS,
    }
