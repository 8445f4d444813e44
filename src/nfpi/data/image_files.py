"""Single image files, read by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nfpi.data.errors import DataError

EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""modes, in Pillow's terms, of images with 8 bits a channel or fewer"""
FAULTS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""what Pillow raises on damaged files"""


def read_image(path: Path, image_size: int | None = None) -> tuple[np.ndarray, str]:
    """Read one file.

    Args:
        path: of an image in any format that Pillow knows.
        image_size: side S that the image is resized and centre-cropped to; None: it is taken as it is.

    Returns:
        pixels (H, W, 3), uint8, and the file's mode in Pillow's terms ("L": grey).

    Raises:
        DataError: it cannot be read or has more than 8 bits a channel; names the file.
    """
    try:
        with Image.open(path) as file:
            mode, image = file.mode, file.convert("RGB")
    except FAULTS as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: expected an image, received one that cannot be read ({reason})") from None
    if mode not in EIGHT_BIT:
        raise DataError(f"{path}: expected an image of 8 bits a channel, received mode {mode}")
    if image_size is not None and image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image), mode


def check_size(path: Path, image: np.ndarray, size: tuple[int, ...]) -> None:
    """Raise DataError unless an image (H, W, 3) has this size (H, W)."""
    if image.shape[:2] != size:
        expected, received = (f"{width}×{height}" for height, width in (size, image.shape[:2]))
        raise DataError(f"{path}: expected {expected} pixels like the others (or set image_size), received {received}")
