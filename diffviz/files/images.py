"""The border between stored images and the arrays the library computes with.

Outside, an image is uint8 (H, W, C) in 0…255, as in a PNG or the tutorial's ``.npy`` files.
Inside, it is float32 (C, H, W) in [−1, 1]. The map is affine, x = v / 127.5 − 1, and never depends
on the image, so that a drift of mean or contrast stays visible.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from diffviz.errors import InputError
from diffviz.files.atomic import read_bytes, replacing

SUFFIXES = (".png", ".gif", ".bmp", ".jpg", ".jpeg", ".webp")
MAX_ARRAY = 2**31
"""Bytes of a file of arrays."""
MAX_PICTURE = 2**26
"""Bytes of one picture in a folder."""
MAX_CLASSES = 1024


def from_uint8(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn stored images (B, H, W, C) in 0…255 into (B, C, H, W) in [−1, 1]."""
    scaled = images.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, 1))


def to_uint8(x: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Turn (B, C, H, W) into stored images (B, H, W, C); what lies outside [−1, 1] is clipped."""
    scaled = np.rint((np.clip(np.nan_to_num(x), -1, 1) + 1) * 127.5)
    return np.ascontiguousarray(np.moveaxis(scaled.astype(np.uint8), 1, -1))


def stretch(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Stretch every channel of every image of (B, C, H, W) to [−1, 1] on its own.

    This is how the tutorial draws its frames. It hides the drift of mean and std, and a constant
    channel, which the tutorial divides by zero, is drawn as the middle grey 0.
    """
    low = x.min(axis=(-2, -1), keepdims=True)
    span = x.max(axis=(-2, -1), keepdims=True) - low
    return np.where(span > 0, 2 * (x - low) / np.where(span > 0, span, 1) - 1, 0)


def contact_sheet(images: NDArray[np.uint8], columns: int, scale: int = 4) -> Image.Image:
    """Stored images (B, H, W, 3), ``columns`` to a row, enlarged without smoothing."""
    height, width = images.shape[1:3]
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for i, image in enumerate(images):
        sheet.paste(Image.fromarray(image), (i % columns * width, i // columns * height))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)


def data_uri(image: NDArray[np.uint8]) -> str:
    """A stored image (H, W, 3), (H, W, 4) or (H, W) in grey, as a PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def curve_svg(values: Sequence[float], count: int, title: str) -> str:
    """Positive ``values`` as a line over 1…``count``, from 0 to the largest of them."""
    top = max(values)
    points = " ".join(
        f"{40 + 580 * (i + 1) / count:.1f},{20 + 260 * (1 - value / top):.1f}"
        for i, value in enumerate(values)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 310" '
        'font-family="sans-serif" font-size="13"><rect width="640" height="310" fill="white"/>'
        '<path d="M40 20V280H620" fill="none" stroke="#888"/>'
        f'<polyline points="{points}" fill="none" stroke="#0068a8" stroke-width="2"/>'
        f'<text x="2" y="24">{top:.3f}</text><text x="28" y="284">0</text>'
        f'<text x="40" y="14">{title}</text>'
        f'<text x="620" y="300" text-anchor="end">{count}</text></svg>'
    )


def load_images(path: str | Path) -> NDArray[np.uint8]:
    """Read stored images (B, H, W, 3) from a ``.npy`` file or from all pictures in a folder.

    Raises:
        InputError: nothing there, an unreadable picture, or pictures of different sizes.
    """
    if str(path) and Path(path).is_dir():
        return _load_folder(Path(path))
    images = load_array(path, "allowed are a .npy file of images and a folder of pictures")
    if images.dtype == np.uint8 and (images.ndim != 4 or images.shape[-1] != 3):
        raise InputError(f"{path}: holds {images.shape}; allowed is (n, height, width, 3)")
    if images.dtype != np.uint8:
        raise InputError(f"{path}: holds {images.dtype}; allowed is uint8 in 0…255")
    if 0 in images.shape:
        raise InputError(f"{path}: holds no image, its shape is {images.shape}")
    return images


def load_labels(path: str | Path, n: int) -> tuple[NDArray[np.int64], int]:
    """(class of each of ``n`` images, number of classes) from a ``.npy`` file.

    The file holds integers (n,) from 0, or one-hot rows (n, classes) as the tutorial's does.

    Raises:
        InputError: anything else, more than 1,024 classes included.
    """
    allowed = f"allowed are {n} integers 0…{MAX_CLASSES - 1}, or {n} one-hot rows"
    labels = load_array(path, f"{allowed}, in a .npy file")
    if labels.dtype.kind not in "fiub" or labels.ndim not in (1, 2) or len(labels) != n:
        raise InputError(f"{path}: holds {labels.dtype} of shape {labels.shape}; {allowed}")
    if labels.ndim == 2:
        width = labels.shape[1]
        one_hot = width and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
        if not one_hot or width > MAX_CLASSES:
            raise InputError(f"{path}: rows of {width} that are not one-hot; {allowed}")
        return labels.argmax(axis=1).astype(np.int64), width
    if not ((labels >= 0) & (labels < MAX_CLASSES) & (labels == np.floor(labels))).all():
        raise InputError(f"{path}: holds {labels.min()}…{labels.max()}; {allowed}")
    return labels.astype(np.int64), int(labels.max()) + 1


def checked_images(images: NDArray[Any]) -> NDArray[np.float32]:
    """Images (N, 3, H, W) in [−1, 1], of such floats or of uint8 (N, H, W, 3).

    Raises:
        InputError: another type or shape, no square, or a value out of range.
    """
    images = np.asarray(images)
    floats = images.dtype.kind == "f"
    if images.dtype != np.uint8 and not floats:
        raise InputError(f"images are {images.dtype}; allowed are uint8 and floats in [−1, 1]")
    allowed = "(N, 3, H, W)" if floats else "(N, H, W, 3)"
    if images.ndim != 4 or images.shape[1 if floats else 3] != 3 or not len(images):
        raise InputError(f"images have shape {images.shape}; allowed is {allowed}, N ≥ 1")
    height, width = images.shape[2:] if floats else images.shape[1:3]
    if height != width:
        raise InputError(f"images have {width}×{height} pixels; allowed are squares")
    if not floats:
        return from_uint8(images)
    if not np.isfinite(images).all() or np.abs(images).max() > 1:
        raise InputError("images have values that are not in [−1, 1], or not numbers")
    return np.array(images, dtype=np.float32, order="C")


def checked_labels(labels: ArrayLike, n: int, classes: int) -> NDArray[np.int64]:
    """The class of each of ``n`` images.

    Raises:
        InputError: not ``n`` integers, or not all of them indices of the ``classes``.
    """
    found = np.asarray(labels)
    allowed = f"allowed are {n} integers, indices of the {classes} classes"
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise InputError(f"labels are {found.dtype} of shape {found.shape}; {allowed}")
    if found.min() < 0 or found.max() >= classes:
        raise InputError(f"labels are {found.min()}…{found.max()}; {allowed}")
    return found.astype(np.int64)


def load_array(path: str | Path, allowed: str) -> NDArray[Any]:
    """The array of a ``.npy`` file, whose header must fit the file's own size.

    Raises:
        InputError: not such a file, or one of Python objects. ``allowed`` says what would do.
    """
    file = io.BytesIO(read_bytes(path, MAX_ARRAY, allowed))
    try:
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray) or file.read(1):
            raise ValueError("an archive, or more than one array")
    except Exception:  # numpy parses the header as Python and raises what that raises
        raise InputError(f"{path}: not a .npy file of numbers; {allowed}") from None
    return array


def save_array(path: str | Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _load_folder(folder: Path) -> NDArray[np.uint8]:
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from None
    if not files:
        raise InputError(f"{folder}: no picture in it; allowed are {', '.join(SUFFIXES)}")
    images: list[NDArray[np.uint8]] = []
    first: tuple[int, int] | None = None
    for file in files:
        raw = read_bytes(file, MAX_PICTURE, "allowed are pictures")
        try:
            with Image.open(io.BytesIO(raw)) as picture:
                first = first or picture.size
                size = f"{file}: {picture.width}×{picture.height} pixels"
                if picture.size != first:
                    raise InputError(f"{size}; the first picture has {first[0]}×{first[1]}")
                if len(files) * 3 * picture.width * picture.height > MAX_ARRAY:
                    raise InputError(f"{size} and {len(files)} of them; that is too much")
                flat = Image.new("RGBA", picture.size, "white")
                flat.alpha_composite(picture.convert("RGBA"))
                images.append(np.asarray(flat.convert("RGB")))
        except InputError:
            raise
        except Exception:  # a damaged picture raises whatever its decoder raises
            raise InputError(f"{file}: not a readable picture") from None
    return np.stack(images)
