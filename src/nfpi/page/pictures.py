"""Pictures embedded in a page as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from nfpi.config.datasets import DataError
from nfpi.data.image_files import PILLOW_ERRORS
from nfpi.data.store import read_image_set
from nfpi.runtime.files import locate_below

_CLASSES, _PER_CLASS = 10, 4
"""Number of classes and of images per class that are shown of a generated set."""
_ENLARGED_SIDE = 32
"""Small images are enlarged by the largest integer factor with which their longer side is at most this, in pixels."""


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        source: data URI.
        width, height: size in pixels.
        description: alternative text.
        caption: caption; empty: no caption.
    """

    source: str = field(repr=False)
    width: int
    height: int
    description: str
    caption: str = ""


def embed_file(folder: Path, name: str, description: str, caption: str = "") -> Picture:
    """Embed a PNG file of a folder, by its name, which may be from a file (:func:`nfpi.runtime.files.locate_below`).

    Raises:
        ValueError: the file is damaged, or not a picture.
        OSError: the file cannot be read, or lies elsewhere.
    """
    content = locate_below(folder, name).read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            image.verify()
    except PILLOW_ERRORS:
        raise ValueError(f"{folder / name}: expected a picture, received something else") from None
    return Picture(_encode_as_uri(content), width, height, description, caption)


def embed_generated_images(folder: Path, caption: str) -> list[Picture]:
    """Embed images of the first classes of a generated set, in one column per class; nothing if it is empty or latents.

    Args:
        folder: folder of the set.
        caption: beginning of the caption, up to "a column for each".

    Raises:
        DataError: the set is damaged.
        OSError: the set cannot be read.
    """
    images = read_image_set(folder, verify=False)
    if images.images.dtype != np.uint8 or not len(images):
        return []
    classes = images.classes[:_CLASSES]
    channels, height, width = images.shape
    if channels not in (1, 3):
        raise DataError(f"{folder}: expected images of 1 or 3 channels, received {channels}")
    zoom = max(1, _ENLARGED_SIDE // max(height, width))
    row, column = height * zoom + 2, width * zoom + 2
    grid = np.full((_PER_CLASS * row - 2, len(classes) * column - 2, channels), 255, dtype=np.uint8)
    for index in range(len(classes)):
        for place, row_of_set in enumerate(np.flatnonzero(images.labels == index)[:_PER_CLASS]):
            pixels = images.images[row_of_set].repeat(zoom, axis=0).repeat(zoom, axis=1)
            top, left = place * row, index * column
            grid[top : top + height * zoom, left : left + width * zoom] = pixels
    names = ", ".join(classes)
    caption += " class." if len(classes) == len(images.classes) else f" of the first {len(classes)} classes."
    return [embed_pixels(grid, f"Generated images of the classes {names}", caption)]


def embed_pixels(pixels: np.ndarray, description: str, caption: str = "") -> Picture:
    """Embed an image (H, W, C), uint8, of 1 or 3 channels."""
    image, buffer = Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels), io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return Picture(_encode_as_uri(buffer.getvalue()), image.width, image.height, description, caption)


def _encode_as_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
