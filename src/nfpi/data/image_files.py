"""Read single image files with Pillow."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from nfpi.data.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""suffixes of image files"""
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""formats of these files, as named by Pillow; others are not tried (some make Pillow start another program)"""
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's modes of images with at most 8 bits per channel"""
GREY_MODES = ("1", "L", "LA")
"""those of them that are grey: of 1 and 8 bits, and with alpha, which is ignored; palettes count as colour"""
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, Image.DecompressionBombError)
"""exceptions that Pillow raises on damaged files"""


def read_image(path: Path, image_size: int | None = None, content: bytes | None = None) -> tuple[np.ndarray, str]:
    """Read one file, rotated according to its EXIF orientation.

    Args:
        path: image in one of `FORMATS`.
        image_size: size S that the image is resized and centre-cropped to; None: no resizing.
        content: contents of the file, if read already.

    Returns:
        Pixels (H, W, 3), uint8, with equal channels if the file is grey; and Pillow's mode of the file.

    Raises:
        DataError: the file cannot be read, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as file:
            deep = _describe_deep_channels(file)
            mode, image = file.mode, ImageOps.exif_transpose(file).convert("RGB")
    except PILLOW_ERRORS as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: expected an image, received one that cannot be read ({reason})") from None
    if mode not in EIGHT_BIT_MODES or deep:
        raise DataError(f"{path}: expected an image of 8 bits per channel, received {deep or 'mode ' + mode}")
    if image_size is not None and image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image), mode


def read_image_size(path: Path) -> tuple[int, int]:
    """Read the size (H, W) of an image from its header, after rotation by its EXIF orientation.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            # Pillow rotates the size of a TIFF file itself, depending on the version; tags 256 and 257 are as stored
            if isinstance(file, TiffImagePlugin.TiffImageFile):
                width, height = file.tag_v2[256], file.tag_v2[257]
            else:
                width, height = file.size
            is_transposed = file.getexif().get(_ORIENTATION, 1) in _TRANSPOSED
    except PILLOW_ERRORS as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: expected an image, received one that cannot be read ({reason})") from None
    return (width, height) if is_transposed else (height, width)


_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width"""


def _describe_deep_channels(file: Image.Image) -> str:
    """Describe channels of more than 8 bits that Pillow's mode hides; an empty string if there are none.

    Pillow opens colour images of 16 bits as RGB and drops the lower bits.
    """
    for tile in getattr(file, "tile", []):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        for argument in arguments:
            if isinstance(argument, str) and re.search(r";16[BLN]", argument):
                return argument
            if file.format == "PPM" and isinstance(argument, int) and argument > 255:
                return f"a PPM file with maximum value {argument}"
    return ""


def check_size(path: Path, image: np.ndarray, size: tuple[int, ...], setting: str = "image_size") -> None:
    """Raise DataError, which advises to set `setting`, unless an image (H, W, 3) has this size (H, W)."""
    if image.shape[:2] != size:
        expected, received = (f"{width}×{height}" for height, width in (size, image.shape[:2]))
        raise DataError(f"{path}: expected {expected} pixels like the others (or set {setting}), received {received}")
