"""The format of labelled images on disk, whether real, generated or augmented.

A folder holds `images.npy` (N, H, W, C), uint8, or float16 for latents; `labels.npy` (N,), int64; and `meta.json` with
name, split, classes, counts, shape, dtype, the sha256 of the other files, and further settings under `extra`. For
latents, `files.json` may list the image files that were encoded, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfpi.data.errors import DataError
from nfpi.runtime.files import file_digest

IMAGES, LABELS, META = "images.npy", "labels.npy", "meta.json"
FILES = (IMAGES, LABELS, META)
ORIGINALS = "files.json"
DTYPES = ("uint8", "float16")
KEYS = ("name", "split", "classes", "counts", "shape", "dtype", "sha256", "extra")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Args:
        images: uint8 values in [0, 255], or float16 latents, (N, H, W, C); from disk a read-only memory map.
        labels: int64 in [0, K), (N,).
        meta: content of `meta.json`.
    """

    images: np.ndarray
    labels: np.ndarray
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> list[str]:
        """Names of the K classes; a label is an index into them."""
        return self.meta["classes"]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width


def read_image_set(folder: Path, verify: bool = True) -> ImageSet:
    """Open an image set; its images are a memory map.

    Args:
        folder: an image set's folder.
        verify: also compare the files with their sha256, which reads all of them.

    Raises:
        DataError: a file is missing or damaged, or the files contradict each other.
    """
    folder = Path(folder)
    for file in FILES:
        if not (folder / file).is_file():
            raise DataError(f"{folder}: expected an image set ({', '.join(FILES)}), received none with {file}")
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{folder / META}: expected JSON, received something else ({error})") from None
    missing = [key for key in KEYS if key not in meta] if isinstance(meta, dict) else list(KEYS)
    if missing:
        raise DataError(f"{folder / META}: expected the keys {', '.join(KEYS)}, received none called {missing[0]}")
    images, labels = _load(folder / IMAGES, mmap_mode="r"), _load(folder / LABELS)
    labels.flags.writeable = False
    for file, array, shape, dtype in (
        (IMAGES, images, meta["shape"], meta["dtype"]),
        (LABELS, labels, meta["shape"][:1], "int64"),
    ):
        if (list(array.shape), array.dtype.name) != (shape, dtype):
            received = f"{array.dtype} of {list(array.shape)}"
            raise DataError(f"{folder / file}: expected {dtype} of {shape}, received {received}")
    if images.ndim != 4 or images.dtype.name not in DTYPES:
        received = f"{images.shape} as {images.dtype}"
        raise DataError(f"{folder / IMAGES}: expected (N, H, W, C) as {' or '.join(DTYPES)}, received {received}")
    check_labels(folder / LABELS, labels, len(meta["classes"]))
    if verify:
        for file in (IMAGES, LABELS):
            _check_digest(folder / file, meta)
    return ImageSet(images, labels, meta)


def read_originals(folder: Path, meta: Mapping[str, Any]) -> list[str]:
    """Read the names of the image files that were encoded to latents, in the order of the latents.

    Raises:
        DataError: the list is missing or damaged, or has another length.
    """
    file = Path(folder) / ORIGINALS
    if not file.is_file():
        raise DataError(f"{folder}: expected latents with the names of their image files ({ORIGINALS}), received none")
    _check_digest(file, meta)
    names: list[str] = json.loads(file.read_text(encoding="ascii"))
    if len(names) != meta["shape"][0]:
        raise DataError(f"{file}: expected {meta['shape'][0]} names, received {len(names)}")
    return names


def _check_digest(file: Path, meta: Mapping[str, Any]) -> None:
    known, actual = meta["sha256"].get(file.name), file_digest(file)
    if actual != known:
        raise DataError(f"{file}: expected sha256 {known}, received {actual}")


def check_labels(where: Path, labels: np.ndarray, num_classes: int) -> None:
    """Raise DataError, whose message begins with `where`, unless labels are integers in [0, K)."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: expected integer labels, received {labels.dtype}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise DataError(
            f"{where}: expected labels from 0 to {num_classes - 1}, received {labels.min()} to {labels.max()}"
        )


def _load(file: Path, **options: Any) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False, **options)
    except (ValueError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: expected a whole npy file, received a damaged one ({reason})") from None
