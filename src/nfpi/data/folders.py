"""Folders of image files, read into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nfpi.data.errors import DataError
from nfpi.data.sources.imagefolder import list_image_folder, read_image_files


def read_image_folder(folder: Path | str, size: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read a folder `class/image`: a folder for each class, with its image files.

    Images are kept grey where every file is, else all of them become RGB.

    Args:
        folder: the folder of the classes' folders.
        size: side that images are resized and centre-cropped to; None: they must all have one size.

    Returns:
        images (N, H, W, C), uint8, C = 1 or 3; labels (N,), int64; and the names of the K classes, sorted, to which
        labels are indices.

    Raises:
        DataError: the folder has another structure, or an image cannot be read or has another size than the first.
    """
    root = Path(folder)
    found = list_image_folder(root)
    if len(found.names) > 1:
        raise DataError(f"{root}: expected a folder for each class, received splits: name one, e.g. {root / 'train'}")
    images, grey = read_image_files(root, found.names["train"], size)
    return np.ascontiguousarray(images[..., : 1 if grey else 3]), found.labels["train"], found.classes
