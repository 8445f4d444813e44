"""Read image folders into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nfpi.data.errors import DataError
from nfpi.data.sources.imagefolder import list_image_folder, read_image_files, warn_of_unread_folders

_LARGEST_SIZE = 2**14


def read_image_folder(folder: Path | str, size: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read a folder `class/image`, with one subfolder of image files per class.

    Images have one channel if all files are grey, otherwise all are converted to RGB. Folders inside class folders are
    not read, which is logged.

    Args:
        folder: folder of the class folders.
        size: size that images are resized and centre-cropped to; None: all must have the same size.

    Returns:
        Images (N, H, W, C), uint8, C = 1 or 3; labels (N,), int64; and the sorted names of the K classes, which labels
        index.

    Raises:
        DataError: the folder has another structure, or an image cannot be read or has another size than the first.
        ValueError: `size` is not a whole number from 1 to 16384.
    """
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if size is not None and not (whole and 1 <= size <= _LARGEST_SIZE):
        raise ValueError(f"size: expected a whole number from 1 to {_LARGEST_SIZE} or None, received {size!r}")
    root = Path(folder)
    files = list_image_folder(root)
    if len(files.names) > 1:
        raise DataError(f"{root}: expected a folder for each class, received splits: name one, e.g. {root / 'train'}")
    warn_of_unread_folders(root, files.unread)
    images, grey = read_image_files(root, files.names["train"], size, setting="size")
    return np.ascontiguousarray(images[..., : 1 if grey else 3]), files.labels["train"], files.classes
