"""The border between stored images and the arrays the library computes with.

Outside, an image is uint8 (H, W, C) in 0…255, as in a PNG or the tutorial's ``.npy`` files.
Inside, it is float32 (C, H, W) in [−1, 1]. The map is affine, x = v / 127.5 − 1, and never depends
on the image, so that a drift of mean or contrast stays visible.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from diffviz.errors import InputError

SUFFIXES = (".png", ".gif", ".bmp", ".jpg", ".jpeg", ".webp")


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


def load_images(path: str | Path) -> NDArray[np.uint8]:
    """Read stored images (B, H, W, 3) from a ``.npy`` file or from all pictures in a folder.

    Raises:
        InputError: nothing there, an unreadable picture, or pictures of different sizes.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a .npy file of images or a folder of them") from error
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[-1] != 3:
        shape = getattr(images, "shape", "no array")
        raise InputError(f"{path}: holds {shape}; allowed is (n, height, width, 3)")
    if images.dtype != np.uint8:
        raise InputError(f"{path}: holds {images.dtype}; allowed is uint8 in 0…255")
    if 0 in images.shape:
        raise InputError(f"{path}: holds no image, its shape is {images.shape}")
    return np.array(images)


def _load_folder(folder: Path) -> NDArray[np.uint8]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{folder}: no picture in it; allowed are {', '.join(SUFFIXES)}")
    images = []
    for file in files:
        try:
            with Image.open(file) as picture:
                flat = Image.new("RGBA", picture.size, "white")
                flat.alpha_composite(picture.convert("RGBA"))
                images.append(np.asarray(flat.convert("RGB")))
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise InputError(f"{file}: not a readable picture") from error
        if images[-1].shape != images[0].shape:
            height, width = images[0].shape[:2]
            raise InputError(
                f"{file}: {images[-1].shape[1]}×{images[-1].shape[0]} pixels; "
                f"the first picture of the folder has {width}×{height}"
            )
    return np.stack(images)
