"""What is said in words on the command line or in a form, turned into the objects it means.

Arms        ``ddpm``, ``ddpm-posterior``, ``z=0``, ``ddim``, ``ddim:ETA``; any of them ``*SCALE``
Denoisers   ``gaussian:MEAN,STD``, ``mixture:M,S,W;M,S,W…``, ``dataset:sprites``,
            ``dataset:FILE.npy``, ``dataset:FOLDER``, or the path of a checkpoint
Schedules   ``course``, ``linear``, ``cosine``, ``scaled-linear``
Executors   ``processes:N``, ``dask://HOST:PORT``
"""

import os
from importlib.resources import files
from pathlib import Path

import numpy as np

from diffviz.diffusion.checkpoints import load_denoiser
from diffviz.diffusion.denoiser import Denoiser
from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser, MixtureDenoiser
from diffviz.diffusion.sampler import Arm, ddim, ddpm
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.files.images import load_array, load_images
from diffviz.sprites.make import CLASSES, make_sprites

SPRITES = 2000
"""Members of ``dataset:sprites``."""

SCHEDULES = ("course", "linear", "cosine", "scaled-linear")
_DENOISERS = (
    "gaussian:MEAN,STD, mixture:M1,S1,W1;M2,S2,W2, dataset:sprites, dataset:FILE.npy, "
    "dataset:FOLDER, or the path of a checkpoint"
)
_ARMS = "ddpm, ddpm-posterior, z=0, ddim, ddim:ETA, each also as NAME*SCALE with SCALE ≥ 0"


def parse_arms(text: str) -> list[Arm]:
    """Arms separated by commas, named as they are written."""
    return [_arm(part.strip()) for part in text.split(",")]


def _arm(text: str) -> Arm:
    name, star, scale = text.partition("*")
    kind, colon, eta = name.partition(":")
    problem = InputError(f"arm is {text!r}; allowed: {_ARMS}")
    factor = _number(scale, problem) if star else 1.0
    if kind == "ddim":
        return Arm(text, ddim(_number(eta, problem) if colon else 0.0), factor)
    if colon:
        raise problem
    if kind == "z=0":
        return Arm(text, ddpm(), 0.0)
    if kind in ("ddpm", "ddpm-posterior"):
        return Arm(text, ddpm("posterior" if kind != "ddpm" else "beta"), factor)
    raise problem


def parse_schedule(
    kind: str,
    T: int | None = None,
    beta_start: float | None = None,
    beta_end: float | None = None,
) -> NoiseSchedule:
    """The schedule of that name; what is not given keeps the constructor's own default."""
    ends = {"beta_start": beta_start, "beta_end": beta_end}
    given = {name: value for name, value in ends.items() if value is not None}
    if kind == "cosine":
        if given:
            raise InputError(f"{' and '.join(given)} with the cosine schedule, which has none")
        return NoiseSchedule.cosine(500 if T is None else T)
    T = 500 if T is None else T
    if kind == "course":
        return NoiseSchedule.course(T, **given)
    if kind == "linear":
        return NoiseSchedule.linear(T, **given)
    if kind == "scaled-linear":
        return NoiseSchedule.scaled_linear(T, **given)
    raise InputError(f"schedule is {kind!r}; allowed: {', '.join(SCHEDULES)}")


def shipped_weights() -> Path:
    """The network that comes with diffviz, in an installed package or in a checkout."""
    packaged = Path(str(files("diffviz").joinpath("weights", "sprites.safetensors")))
    if packaged.is_file():
        return packaged
    return Path(__file__).resolve().parents[2] / "weights" / "sprites.safetensors"


def parse_denoiser(
    text: str | None, schedule: NoiseSchedule | None, label: str | None = None
) -> Denoiser:
    """The denoiser; without a text the shipped network, without a schedule its own or `course`.

    A ``label`` narrows a data set with classes to that class; a network is told it as context.

    Raises:
        InputError: words or a file that mean nothing.
    """
    own = NoiseSchedule.course() if schedule is None else schedule
    kind, colon, rest = (text or "").partition(":")
    if colon and kind == "gaussian":
        mean, std = _numbers(rest, 2, text)
        return GaussianDenoiser(own, mean, std)
    if colon and kind == "mixture":
        modes = [_numbers(mode, 3, text) for mode in rest.split(";")]
        means, stds, weights = zip(*modes, strict=True)
        return MixtureDenoiser(own, means, stds, weights)
    if colon and kind == "dataset":
        return _dataset(rest, own, label)
    if text is not None and not os.path.lexists(text.replace("\0", "")):
        raise InputError(f"denoiser is {text!r}, and no such file; allowed: {_DENOISERS}")
    return load_denoiser(shipped_weights() if text is None else text, schedule=schedule)


def _dataset(source: str, schedule: NoiseSchedule, label: str | None) -> DatasetDenoiser:
    if source != "sprites":
        if label is not None:
            raise InputError(f"class is {label!r}; allowed: none, {source} has no classes")
        return DatasetDenoiser(schedule, _array(source), name=Path(source).name)
    images, labels = make_sprites(SPRITES)
    if label is None:
        return DatasetDenoiser(schedule, images, labels, CLASSES, "sprites")
    if label not in CLASSES:
        raise InputError(f"class is {label!r}; allowed: {', '.join(CLASSES)}")
    chosen = labels == CLASSES.index(label)
    return DatasetDenoiser(schedule, images[chosen], labels[chosen], CLASSES, f"sprites, {label}")


def _array(source: str) -> np.ndarray:
    """uint8 images, or floats of any shape (N, *D)."""
    if source and Path(source).is_dir():
        return load_images(source)
    array = load_array(source, "allowed after dataset: are sprites, a .npy file, a folder")
    return array if array.dtype.kind == "f" else load_images(source)


def _number(text: str, problem: InputError) -> float:
    try:
        return float(text)
    except ValueError:
        raise problem from None


def _numbers(text: str, count: int, whole: str | None) -> list[float]:
    shape = "gaussian:MEAN,STD" if count == 2 else "mixture:M1,S1,W1;M2,S2,W2"
    problem = InputError(f"denoiser is {whole!r}; allowed is {shape} in numbers")
    parts = text.split(",")
    if len(parts) != count:
        raise problem
    return [_number(part, problem) for part in parts]
