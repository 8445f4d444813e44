"""Export of image sets to formats of other programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nfpi.data.atomic import replace_folder
from nfpi.data.errors import DataError
from nfpi.data.store import ImageSet


def make_folder_names(classes: Sequence[str]) -> list[str]:
    r"""Return folder names for classes: "-" replaces `/`, `\`, `:`, NUL, and a leading "." (hidden folders)."""
    return [re.sub(r"^\.|[/\\:\0]", "-", name) for name in classes]


def export_imagefolder(image_set: ImageSet, folder: Path) -> None:
    """Write an image set as `folder`/class/NNNNN.png, numbered by the index in the set.

    Folders are named by :func:`make_folder_names`. An existing `folder` that contains only
    folders of these classes is replaced as a whole.

    Raises:
        DataError: the set contains latents, or images with neither 1 nor 3 channels, or folder names are not unique.
    """
    channels = image_set.shape[0]
    if image_set.images.dtype != np.uint8 or channels not in (1, 3):
        received = f"{image_set.images.dtype} with {channels}"
        raise DataError(f"{folder}: expected uint8 images of 1 or 3 channels, received {received}")
    names = make_folder_names(image_set.classes)
    if len(set(names)) != len(names):
        raise DataError(f"{folder}: expected classes with distinct folder names, received {image_set.classes}")
    with replace_folder(folder, names) as partial:
        for name in names:
            (partial / name).mkdir()
        for index, (image, label) in enumerate(zip(image_set.images, image_set.labels, strict=True)):
            pixels = image[:, :, 0] if channels == 1 else image
            Image.fromarray(np.asarray(pixels)).save(partial / names[label] / f"{index:05d}.png")
