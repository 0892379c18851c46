r"""Files of weights: our own ``.safetensors``, and the tutorial's ``.pth``, read without trust.

Ours holds the weights in float32, the schedule it was trained with, a summary of the data, how it
was made, and a SHA-256 over all of that, because neither format notices a flipped bit. A ``.pth``
is a pickle, so a program: ``torch.load(weights_only=True)`` builds tensors from it and runs no
code. A file is looked at before it is opened, and what it declares is compared with its size.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from diffviz.diffusion.denoiser import tensors_digest
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.diffusion.unet import SHORTCUTS, ContextUnet, NetworkDenoiser
from diffviz.errors import CheckpointError, InputError, said, shown
from diffviz.files.atomic import read_bytes, replacing
from diffviz.files.images import from_uint8
from diffviz.sprites.make import CLASSES, make_sprites

FORMAT = "diffviz-denoiser-1"
MAX_BYTES = 256 * 2**20
MAX_HEADER = 2**20
MAX_SPRITES = 100_000
LAW = ("mean", "std", "locations", "scales", "weights")
SCHEDULE = ("betas", "alphas", "alpha_bars")
SIZES = ("in_channels", "n_feat", "n_cfeat", "height")
NESTED = ("state_dict", "model_state_dict", "model", "ema", "network", "net")
ALLOWED = (
    "allowed are diffviz .safetensors files and state dicts of the tutorial's ContextUnet (.pth)"
)


def save_denoiser(
    path: str | Path,
    network: ContextUnet,
    schedule: NoiseSchedule,
    *,
    classes: Sequence[str],
    data_recipe: str,
    data: DataLaw,
    facts: Mapping[str, Any],
) -> None:
    """Write network, schedule and data summary to one file, whole or not at all.

    Args:
        path: the file, ``.safetensors``.
        network: its state dict is stored in float32.
        schedule: the schedule it was trained with.
        classes: names of the entries of a context vector, n_cfeat of them or none.
        data_recipe: how to make the training data again, ``"sprites:n=12000,seed=0"``, or words.
        data: only its moments and the law of one coordinate are stored, no image.
        facts: anything JSON can hold: seed, epochs, losses, command.

    Raises:
        InputError: classes that do not fit the network, data that is no DataLaw, weights that are
            not finite.
    """
    NetworkDenoiser(network, schedule, classes=classes)  # checks that they belong together
    if not isinstance(data, DataLaw):
        raise InputError(f"data is {shown(data)}; allowed is a DataLaw")
    tensors = {k: v.detach().cpu() for k, v in network.state_dict().items()}
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    _check_finite(path, tensors)
    tensors |= {f"schedule.{k}": torch.tensor(getattr(schedule, k)) for k in SCHEDULE}
    tensors |= {f"data.{k}": torch.tensor(np.asarray(getattr(data, k))) for k in LAW}
    named = (*SIZES, "shortcut", "shortcut_seed")
    metadata = {
        "architecture": {name: getattr(network, name) for name in named},
        "schedule": schedule.name,
        "classes": list(classes),
        "data": data_recipe,
        "facts": dict(facts),
    }
    write_tensors(path, tensors, FORMAT, metadata)


def load_denoiser(
    path: str | Path,
    *,
    shortcut: str | None = None,
    shortcut_seed: int = 0,
    schedule: NoiseSchedule | None = None,
) -> NetworkDenoiser:
    """Read a denoiser from one of our files or from a ``.pth`` of the tutorial.

    Args:
        path: the file.
        shortcut: mode of the first block's shortcut, see ``ContextUnet``. None takes what the file
            says; a ``.pth`` has no such layer and gets ``"course"``, the tutorial's own behaviour.
        shortcut_seed: seed for a mode that is given here, or for a ``.pth``.
        schedule: None takes the file's; a ``.pth`` has none and gets ``NoiseSchedule.course()``.

    Raises:
        CheckpointError: anything else than such a file, in one line.
        InputError: a shortcut that does not exist.
    """
    if shortcut is not None and shortcut not in SHORTCUTS:
        raise InputError(f"shortcut is {shortcut!r}; allowed are {', '.join(SHORTCUTS)}")
    if isinstance(shortcut_seed, bool) or shortcut_seed not in range(2**63):
        raise InputError(f"shortcut_seed is {shortcut_seed!r}; allowed are the integers from 0")
    raw = read_bytes(path, MAX_BYTES, ALLOWED, CheckpointError)
    if raw.startswith(b"PK\x03\x04"):
        weights = _pth_tensors(path, raw)
        if shortcut is None:
            shortcut = "learned" if "init_conv.shortcut.weight" in weights else "course"
        network = _network(path, weights, shortcut, shortcut_seed)
        classes = CLASSES if network.n_cfeat == len(CLASSES) else ()
        return NetworkDenoiser(network, schedule or NoiseSchedule.course(), classes=classes)
    tensors, metadata = _parse(path, raw)
    try:
        return _ours(path, tensors, metadata, shortcut, shortcut_seed, schedule)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: a {FORMAT} file with a wrong entry: {error}") from None


# -------------------------------------------------------------------- our own files


def _ours(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    shortcut: str | None,
    shortcut_seed: int,
    schedule: NoiseSchedule | None,
) -> NetworkDenoiser:
    weights = {k: v for k, v in tensors.items() if not k.startswith(("schedule.", "data."))}
    architecture = metadata["architecture"]
    if shortcut is None:
        shortcut, shortcut_seed = architecture["shortcut"], architecture["shortcut_seed"]
    _check_finite(path, tensors)
    network = _network(path, weights, shortcut, shortcut_seed)
    found = {name: getattr(network, name) for name in SIZES}
    if any(architecture[name] != size for name, size in found.items()):
        raise CheckpointError(f"{path}: declares {architecture}, its tensors have {found}")
    if schedule is None:
        betas, alphas, alpha_bars = (tensors[f"schedule.{k}"].numpy() for k in SCHEDULE)
        schedule = NoiseSchedule(betas, alphas, alpha_bars, str(metadata["schedule"]))
    mean, std, places, scales, masses = (tensors[f"data.{k}"].numpy() for k in LAW)
    shape = (network.in_channels, network.height, network.height)
    if not mean.shape == std.shape == shape or not len(places) == len(scales) == len(masses):
        raise CheckpointError(f"{path}: its data summary has other shapes than {shape}")
    recipe, classes = str(metadata["data"]), tuple(map(str, metadata["classes"]))
    return NetworkDenoiser(
        network,
        schedule,
        classes=classes,
        law=partial(_data_law, recipe, DataLaw(mean, std, places, scales, masses), classes),
        facts={**metadata["facts"], "data": recipe},
    )


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], tag: str, metadata: Mapping[str, Any]
) -> None:
    """Write tensors and JSON metadata with a digest over both, whole or not at all."""
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    try:
        header = {k: json.dumps(v, sort_keys=True) for k, v in metadata.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: JSON cannot hold its facts: {said(error)}") from None
    header = {"format": tag, **header}
    raw = _sorted(safetensors.torch.save(plain, {**header, "digest": _digest(plain, header)}))
    if int.from_bytes(raw[:8], "little") > MAX_HEADER:
        raise InputError(f"{path}: more than {MAX_HEADER >> 20} MiB of facts; not written")
    with replacing(path) as temporary:
        temporary.write_bytes(raw)


def _sorted(raw: bytes) -> bytes:
    """The same file with a sorted header: the order that safetensors writes changes each time."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors stay aligned
    return len(header).to_bytes(8, "little") + header + raw[end:]


def _parse(path: str | Path, raw: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and metadata of a file of ours; CheckpointError for any other."""
    _refuse_strangers(path, raw)
    length = int.from_bytes(raw[:8], "little")
    if length > min(MAX_HEADER, len(raw) - 8):
        raise CheckpointError(f"{path}: truncated, or not a file of weights; {ALLOWED}")
    try:
        header = json.loads(raw[8 : 8 + length]).get("__metadata__")
        tensors = safetensors.torch.load(raw)
    except (safetensors.SafetensorError, ValueError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: truncated or damaged, no whole safetensors file") from None
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file with format {found!r}; {ALLOWED}")
    if header.pop("digest", None) != _digest(tensors, header):
        raise CheckpointError(f"{path}: damaged, its content does not match its SHA-256")
    try:
        return tensors, {k: json.loads(v) for k, v in header.items() if k != "format"}
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: its metadata are not JSON") from None


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    words = json.dumps(header, sort_keys=True) + tensors_digest(tensors)
    return hashlib.sha256(words.encode()).hexdigest()


def _data_law(recipe: str, stored: DataLaw, classes: tuple[str, ...]) -> DataLaw:
    """The law with its images where they can be made again, else what the file says."""
    match = re.fullmatch(r"sprites:n=(\d{1,6}),seed=(\d{1,9})", recipe)
    if match is None or not 1 <= int(match[1]) <= MAX_SPRITES:
        return stored
    images, labels = make_sprites(int(match[1]), int(match[2]))
    law = DataLaw.of_images(from_uint8(images), labels, classes)
    # Another version of the drawing code makes other sprites: then the file's summary is right.
    same = law.mean.shape == stored.mean.shape and np.allclose(law.mean, stored.mean, atol=1e-6)
    return law if same else stored


# -------------------------------------------------------------------- files of others


def _refuse_strangers(path: str | Path, raw: bytes) -> None:
    """Name, in one line, the files that people download instead of weights."""
    if raw[8:9] == b"{":  # safetensors; its first bytes are a length, and may look like anything
        return
    start = raw[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: a git-lfs pointer; fetch the file with git lfs pull")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{path}: a web page, not the file; download the raw file instead")
    if raw[:1] == b"\x80":
        raise CheckpointError(
            f"{path}: a bare pickle or a torch file older than 1.6, which are not read; {ALLOWED}"
        )


def _pth_tensors(path: str | Path, raw: bytes) -> dict[str, Tensor]:
    """The state dict of a zip written by torch.save."""
    checked = _checked_zip(path, raw)
    try:
        loaded = torch.load(checked, map_location="cpu", weights_only=True)
    except Exception as error:  # its message would advise to run the pickle after all
        needed = re.search(r"GLOBAL ([\w.]+)", str(error))
        if needed:
            raise CheckpointError(
                f"{path}: needs {needed[1][:80]}, so it is more than a state dict (a whole model, "
                "or code); save model.state_dict() instead"
            ) from None
        raise CheckpointError(f"{path}: damaged, or not a state dict; {ALLOWED}") from None
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(f"{path}: holds {type(loaded).__name__}; allowed is a state dict")
    nested = [key for key, value in loaded.items() if isinstance(value, dict)]
    if nested:
        key = next((name for name in NESTED if name in nested), nested[0])
        raise CheckpointError(
            f"{path}: a training checkpoint with the keys {', '.join(map(str, loaded))[:200]}; "
            f"extract the state dict, as checkpoint[{key!r}], and save that alone"
        )
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {key!r:.80} is no tensor; allowed is a state dict")
    # A tensor may claim any size over a short storage, by a stride of 0.
    if sum(value.numel() * value.element_size() for value in loaded.values()) > 2 * len(raw):
        raise CheckpointError(
            f"{path}: its tensors claim more than twice the file's size; refused"
        )
    return {key: value.detach() for key, value in loaded.items()}


def _checked_zip(path: str | Path, raw: bytes) -> io.BytesIO:
    """A zip made anew of what is in ``raw``, once all checksums are right.

    Some fields of a zip have no checksum. With one bit of them changed, torch's reader takes a
    member for a folder, and fills its tensor from uninitialised memory.
    """
    checked = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(checked, "w") as copy:
            members = archive.infolist()
            if sum(member.file_size for member in members) > 2 * len(raw):
                raise CheckpointError(f"{path}: unpacks to more than twice its size; refused")
            names = [member.filename for member in members]
            if any("/code/" in name for name in names):
                raise CheckpointError(f"{path}: a TorchScript program; {ALLOWED}")
            if len(set(names)) != len(names) or not any(n.endswith("/data.pkl") for n in names):
                raise CheckpointError(f"{path}: a zip that torch.save did not write; {ALLOWED}")
            for member in members:
                content = archive.read(member)
                if len(content) != member.file_size:
                    raise CheckpointError(f"{path}: damaged, {member.filename!r} is cut")
                copy.writestr(member.filename, content)
    except CheckpointError:
        raise
    except Exception:  # zipfile raises half a dozen unrelated types on damaged files
        raise CheckpointError(
            f"{path}: truncated or damaged, no whole zip file with right checksums"
        ) from None
    checked.seek(0)
    return checked


# -------------------------------------------------------------------- from tensors to a network


def _network(
    path: str | Path, weights: Mapping[str, Tensor], shortcut: str, seed: int
) -> ContextUnet:
    """Check every key and shape before memory is taken for the network, then fill it."""
    sizes = _sizes(path, weights)
    unsaved = () if shortcut == "learned" else ("init_conv.shortcut.",)
    stored = {k: v for k, v in weights.items() if not k.startswith(unsaved)}
    try:
        with torch.device("meta"):
            plan = _build(sizes)
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from None
    expected = {k: v for k, v in plan.state_dict().items() if not k.startswith(unsaved)}
    for key, tensor in expected.items():
        if key not in stored:
            hint = "; choose shortcut='course' or 'frozen'" if "shortcut" in key else ""
            raise CheckpointError(f"{path}: the key {key!r} is missing{hint}")
        if stored[key].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(stored[key].shape)}; "
                f"a ContextUnet with {sizes} has {tuple(tensor.shape)}"
            )
        if stored[key].is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(f"{path}: {key} is {stored[key].dtype}, not {tensor.dtype}")
    extra = sorted(stored.keys() - expected.keys())
    if extra:
        raise CheckpointError(f"{path}: the key {extra[0]!r} is not one of a ContextUnet")
    _check_finite(path, stored)
    with torch.random.fork_rng(devices=[]):  # layers draw weights that are replaced at once
        network = _build(sizes, shortcut, seed)
    network.load_state_dict(stored)
    return network.eval()


def _sizes(path: str | Path, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes of a ContextUnet, read from shapes."""
    if weights and all(key.startswith("module.") for key in weights):
        raise CheckpointError(
            f"{path}: every key starts with 'module.' (saved from DataParallel); "
            "save model.module.state_dict() instead"
        )
    sizes = {}
    for size, key, axis, factor in (
        ("in_channels", "init_conv.conv1.0.weight", 1, 1),
        ("n_feat", "init_conv.conv1.0.weight", 0, 1),
        ("n_cfeat", "contextembed1.model.0.weight", 1, 1),
        ("height", "up0.0.weight", 2, 4),
    ):
        if key not in weights:
            raise CheckpointError(
                f"{path}: no key {key!r}, so not a ContextUnet; its first key is "
                f"{min(weights, default=None)!r}"
            )
        shape = weights[key].shape
        if len(shape) <= axis:
            raise CheckpointError(f"{path}: {key} has shape {tuple(shape)}, so not a ContextUnet")
        sizes[size] = shape[axis] * factor
    return sizes


def _build(sizes: Mapping[str, int], shortcut: str = "learned", seed: int = 0) -> ContextUnet:
    in_channels, n_feat, n_cfeat, height = (sizes[name] for name in SIZES)
    return ContextUnet(in_channels, n_feat, n_cfeat, height, shortcut, seed)


def _check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {key} has values that are not finite")
        if key.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{path}: {key} is negative, but it is a variance")
