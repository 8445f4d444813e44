"""Find image files, and read them with Pillow, as they are or in the size and colour of a model."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nfpi.config.datasets import DataError
from nfpi.runtime.faults import format_error

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""suffixes of image files"""
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""formats of these files, as named by Pillow; others are not tried (some make Pillow start another program)"""
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's modes of images with at most 8 bits per channel; it reads colours of 16 bits as RGB, by their higher bits"""
GREY_MODES = ("1", "L", "LA")
"""those of them that are grey: of 1 and 8 bits, and with alpha, which is ignored; palettes count as colour"""
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, Image.DecompressionBombError)
"""exceptions that Pillow raises on damaged files"""


def read_image(path: Path, image_size: int | None = None) -> tuple[np.ndarray, str]:
    """Read one file, rotated according to its EXIF orientation.

    Args:
        path: image in one of `FORMATS`.
        image_size: size S that the image is resized and centre-cropped to; None: no resizing.

    Returns:
        Pixels (H, W, 3), uint8, with equal channels if the file is grey; and Pillow's mode of the file.

    Raises:
        DataError: the file cannot be read, or has grey values of more than 8 bits.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            mode, image = file.mode, convert_to_rgb(file, path)
    except DataError:
        raise
    except PILLOW_ERRORS as error:
        raise DataError(
            f"{path}: expected an image, received one that cannot be read ({format_error(error)})"
        ) from None
    if image_size is not None and image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image), mode


def convert_to_rgb(image: Image.Image, what: Path | str) -> Image.Image:
    """Rotate an image according to its EXIF orientation, and convert it to RGB.

    Raises:
        DataError: it has grey values of more than 8 bits; the message begins with `what`.
    """
    if image.mode not in EIGHT_BIT_MODES:
        raise DataError(f"{what}: expected an image of 8 bits per channel, received mode {image.mode}")
    return ImageOps.exif_transpose(image).convert("RGB")


def check_size(path: Path, image: np.ndarray, size: tuple[int, ...]) -> None:
    """Raise DataError, which advises to resize, unless an image (H, W, 3) has this size (H, W)."""
    if image.shape[:2] != size:
        expected, received = (f"{width}×{height}" for height, width in (size, image.shape[:2]))
        raise DataError(
            f"{path}: expected {expected} pixels like the others (or a size for all: image_size, in Python size=), "
            f"received {received}"
        )


def list_files(folder: Path) -> list[Path]:
    """Return all files in a folder at any depth, sorted, without hidden ones.

    Links to folders are followed; each folder is read once, and none that contains `folder`.

    Raises:
        OSError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    files: list[Path] = []
    known = {str(parent) for parent in folder.resolve().parents}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(place) in known:
            folders.clear()
            continue
        known.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(place) / name for name in names if not name.startswith(".")]
    return sorted(files)


def find_images(paths: Iterable[Path]) -> list[Path]:
    """List the given files, whatever their suffixes, and the image files in the given folders, in the order given.

    The files of each folder are sorted. Folders are searched as by :func:`list_files`: at any
    depth, following links.

    Raises:
        DataError: a file or folder is missing, or a folder has no images.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = [file for file in list_files(path) if file.suffix.lower() in SUFFIXES]
            if not found:
                raise DataError(f"{path}: expected images ({', '.join(SUFFIXES)}), received none")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: expected an image or a folder of images, found nothing")
    return files


def read_images_of_one_size(
    paths: Sequence[Path], image_size: int | None = None, size: tuple[int, ...] | None = None
) -> tuple[np.ndarray, bool]:
    """Read image files into memory.

    Args:
        paths: N ≥ 1 files.
        image_size: size S that images are resized and centre-cropped to; None: no resizing.
        size: expected (H, W); None: that of the first image.

    Returns:
        Images (N, H, W, 3), uint8, with equal channels of grey files; and whether all files are grey.

    Raises:
        DataError: an image cannot be read, or has another size.
    """
    height, width = size or read_image(paths[0], image_size)[0].shape[:2]
    images = np.empty((len(paths), height, width, 3), np.uint8)
    grey = True
    for index, path in enumerate(paths):
        image, mode = read_image(path, image_size)
        check_size(path, image, images.shape[1:3])
        images[index] = image
        grey &= mode in GREY_MODES
    return images, grey


def read_images(paths: Sequence[Path], shape: tuple[int, int, int], *, resize: bool = False) -> np.ndarray:
    """Read image files of one size.

    Args:
        paths: N files.
        shape: expected (C, H, W); C = 1: grey, C = 3: colour, or grey with equal channels.
        resize: whether to resize and centre-crop images of another size, and convert colour to grey for C = 1.

    Returns:
        (N, H, W, C), uint8.

    Raises:
        DataError: an image cannot be read, or has another size, or colour for C = 1; the file is named.
    """
    channels, height, width = shape
    images = np.empty((len(paths), height, width, channels), np.uint8)
    for index, path in enumerate(paths):
        pixels, mode = read_image(path)
        grey, size = mode in GREY_MODES, (pixels.shape[0], pixels.shape[1])
        if size != (height, width) or (channels == 1 and not grey):
            if not resize:
                raise DataError(
                    f"{path}: expected {_describe(height, width, channels == 1)} as in the model, received "
                    f"{_describe(*size, grey)}; --resize (in Python: size= of fit, or model.resize = True) converts"
                )
            pixels = convert_image(pixels, height, width, channels == 1)
        images[index] = pixels[..., :channels]
    return images


def convert_image(pixels: np.ndarray, height: int, width: int, grey: bool) -> np.ndarray:
    """Resize and centre-crop an image (·, ·, 3), and make its three channels equal if `grey`."""
    image = Image.fromarray(pixels)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    if grey:
        image = image.convert("L").convert("RGB")
    return np.asarray(image)


def _describe(height: int, width: int, grey: bool) -> str:
    return f"{width}×{height} pixels in {'grey' if grey else 'colour'}"
