"""List the files of a folder, and read single image files with Pillow."""

from __future__ import annotations

import io
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nfpi.data.errors import DataError

logger = logging.getLogger(__name__)

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
            mode, image = file.mode, ImageOps.exif_transpose(file).convert("RGB")
    except PILLOW_ERRORS as error:
        raise _describe_damage(path, error) from None
    if mode not in EIGHT_BIT_MODES:
        raise DataError(f"{path}: expected an image of 8 bits per channel, received mode {mode}")
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
            # Pillow itself rotates the size of a TIFF file
            is_transposed = file.format != "TIFF" and file.getexif().get(_ORIENTATION, 1) in _TRANSPOSED
            return file.size if is_transposed else file.size[::-1]
    except PILLOW_ERRORS as error:
        raise _describe_damage(path, error) from None


_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width"""


def _describe_damage(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{path}: expected an image, received one that cannot be read ({reason})")


def check_size(path: Path, image: np.ndarray, size: tuple[int, ...], setting: str = "image_size") -> None:
    """Raise DataError, which advises to set `setting`, unless an image (H, W, 3) has this size (H, W)."""
    if image.shape[:2] != size:
        expected, received = (f"{width}×{height}" for height, width in (size, image.shape[:2]))
        raise DataError(f"{path}: expected {expected} pixels like the others (or set {setting}), received {received}")


def list_files(folder: Path) -> list[Path]:
    """Return all files in a folder at any depth, sorted, without hidden ones.

    Links to folders are followed, except those to a folder that contains them, which are logged. Broken links are
    returned as files.

    Raises:
        DataError: a folder cannot be read.
    """
    parents = (parent.stat() for parent in Path(os.path.realpath(folder)).parents if parent.is_dir())
    return sorted(_walk(folder, frozenset((status.st_dev, status.st_ino) for status in parents)))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files of a folder.

    Args:
        folder: the folder.
        above: device and inode of the folders that contain it, or were entered to reach it.
    """
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            listed = [(folder / entry.name, is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be read, received none ({error.strerror})") from None
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        logger.warning("%s: not read: a link to a folder that contains it", folder)
        return
    for path, is_deeper in listed:
        if is_deeper:
            yield from _walk(path, above | {identity})
        else:
            yield path
