"""Read image folders into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nfpi.data.errors import DataError
from nfpi.data.sources.imagefolder import list_image_folder, read_image_files


def read_image_folder(folder: Path | str, size: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read a folder `class/image`, with one subfolder of image files per class.

    Images have one channel if all files are grey, otherwise all are converted to RGB.

    Args:
        folder: folder of the class folders.
        size: size that images are resized and centre-cropped to; None: all must have the same size.

    Returns:
        Images (N, H, W, C), uint8, C = 1 or 3; labels (N,), int64; and the sorted names of the K classes, which labels
        index.

    Raises:
        DataError: the folder has another structure, or an image cannot be read or has another size than the first.
    """
    root = Path(folder)
    files = list_image_folder(root)
    if len(files.names) > 1:
        raise DataError(f"{root}: expected a folder for each class, received splits: name one, e.g. {root / 'train'}")
    images, grey = read_image_files(root, files.names["train"], size)
    return np.ascontiguousarray(images[..., : 1 if grey else 3]), files.labels["train"], files.classes
