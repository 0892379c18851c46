"""Denoisers in words, as on the command line or in a form, turned into the objects they mean.

``gaussian:MEAN,STD``, ``mixture:M,S,W;M,S,W…``, ``dataset:sprites``, ``dataset:FILE.npy``,
``dataset:FOLDER``, or the path of a checkpoint. Arms in words are in `diffviz.diffusion.rules`,
schedules by name in `diffviz.diffusion.schedule`.

Words are checked without torch, which is imported when the denoiser is made.
"""

import math
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.errors import InputError
from diffviz.files.images import load_array, load_images
from diffviz.sprites.make import CLASSES, make_sprites

if TYPE_CHECKING:
    from diffviz.diffusion.denoiser import ScheduledDenoiser

SPRITES = 2000
"""Members of ``dataset:sprites``."""
_FORMS = {"gaussian": "gaussian:MEAN,STD", "mixture": "mixture:M1,S1,W1;M2,S2,W2"}
_DENOISERS = (
    "gaussian:MEAN,STD, mixture:M1,S1,W1;M2,S2,W2, dataset:sprites, dataset:FILE.npy, "
    "dataset:FOLDER, or the path of a checkpoint"
)


@dataclass(frozen=True)
class DenoiserWords:
    """What the words for a denoiser say.

    Attributes:
        kind: "gaussian", "mixture", "dataset" or "network".
        numbers: (mean, std) of a Gaussian, (mean, std, weight) of each mode of a mixture.
        source: "sprites", a file or a folder of a data set; the file of a network.
    """

    kind: str
    numbers: tuple[tuple[float, ...], ...] = ()
    source: str = ""

    @property
    def source_file(self) -> str | None:
        """The file or folder that is read, None for words that need none."""
        return self.source if self.source not in ("", "sprites") else None

    def make(self, schedule: NoiseSchedule | None) -> "ScheduledDenoiser":
        """The denoiser on ``schedule``; None is its own, else that of the tutorial.

        Raises:
            InputError: a file that cannot be used, or numbers that make no law.
        """
        from diffviz.diffusion.checkpoints import load_denoiser
        from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser, MixtureDenoiser

        if self.kind == "network":
            return load_denoiser(self.source or shipped_weights(), schedule=schedule)
        used = NoiseSchedule.course() if schedule is None else schedule
        if self.kind == "gaussian":
            return GaussianDenoiser(used, *self.numbers[0])
        if self.kind == "mixture":
            means, stds, weights = zip(*self.numbers, strict=True)
            return MixtureDenoiser(used, means, stds, weights)
        if self.source == "sprites":
            images, labels = make_sprites(SPRITES)
            return DatasetDenoiser(used, images, labels, CLASSES, "sprites")
        return DatasetDenoiser(used, _array(self.source), name=Path(self.source).name)


def parse_denoiser(text: str | None) -> DenoiserWords:
    """What the words mean; None is the shipped network.

    Raises:
        InputError: words that mean nothing, or a file that is not there.
    """
    if text is None:
        return DenoiserWords("network")
    kind, colon, rest = text.partition(":")
    if colon and kind in _FORMS:
        modes = rest.split(";") if kind == "mixture" else [rest]
        width = 3 if kind == "mixture" else 2
        return DenoiserWords(kind, tuple(_numbers(mode, width, text) for mode in modes))
    if colon and kind == "dataset":
        if not rest:
            raise InputError(f"denoiser is {text!r}; allowed: {_DENOISERS}")
        return DenoiserWords(kind, source=rest)
    if not os.path.lexists(text.replace("\0", "")):
        raise InputError(f"denoiser is {text!r}, and no such file; allowed: {_DENOISERS}")
    return DenoiserWords("network", source=text)


def shipped_weights() -> Path:
    """The network that comes with diffviz, in an installed package or in a checkout."""
    return shipped("sprites.safetensors")


def shipped(name: str) -> Path:
    """A file of the folder ``weights``, in an installed package or in a checkout."""
    packaged = Path(str(files("diffviz").joinpath("weights", name)))
    if packaged.is_file():
        return packaged
    return Path(__file__).resolve().parents[2] / "weights" / name


def _array(source: str) -> np.ndarray:
    """uint8 images, or floats of any shape (N, *D)."""
    if Path(source).is_dir():
        return load_images(source)
    array = load_array(source, "allowed after dataset: are sprites, a .npy file, a folder")
    return array if array.dtype.kind == "f" else load_images(source)


def _numbers(text: str, count: int, whole: str) -> tuple[float, ...]:
    form = _FORMS["gaussian" if count == 2 else "mixture"]
    parts = text.split(",")
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(f"denoiser is {whole!r}; allowed is {form} in numbers")
    return numbers
