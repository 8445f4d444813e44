"""Folders of image files, split/class/image, such as ImageNet's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nfpi.config.base import Split
from nfpi.config.datasets import DatasetConfig
from nfpi.data.errors import DataError
from nfpi.data.image_files import check_size, read_image
from nfpi.data.sources.archive import find_image_root
from nfpi.data.sources.registry import SourceImages

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""of the files that are images"""


def load_imagefolder(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Images of a folder split/class/image, or of an archive of one; see :func:`split_folders`.

    Images are kept grey where every file of every split is, else all of them become RGB.

    Raises:
        DataError: the folder has another structure, or an image cannot be read or has another size than the first.
    """
    places, classes = split_folders(find_image_root(config.folder, download_folder))
    read: dict[Split, tuple[np.ndarray, np.ndarray, bool]] = {}
    shape = None
    for split, place in places.items():
        images, labels, grey = read_image_files(place, config.image_size, shape)
        read[split], shape = (images, labels, grey), images.shape[1:3]
    channels = 1 if all(grey for _, _, grey in read.values()) else 3
    return SourceImages(classes, {split: (x[..., :channels], y) for split, (x, y, _) in read.items()})


def split_folders(folder: Path) -> tuple[dict[Split, Path], list[str]]:
    """The splits of a folder split/class/image, and the names of its classes, which are those of every split.

    Splits are `train`, `test` and perhaps `validation` (or `val`). Where there is no `test`, as with ImageNet, whose
    test labels are not public, `val` (or `validation`) is the test split and the source has no validation split.

    Raises:
        DataError: a split is missing, or has other classes than `train`.
    """
    places: dict[Split, Path] = {"train": folder / "train", "test": folder / "test"}
    validation = next((folder / name for name in ("validation", "val") if (folder / name).is_dir()), None)
    if validation is not None:
        places["validation" if places["test"].is_dir() else "test"] = validation
    for place in places.values():
        if not place.is_dir():
            raise DataError(f"{place}: expected a folder of class folders, received none")
    classes = class_names(places["train"])
    for place in places.values():
        odd = sorted(set(class_names(place)) ^ set(classes))
        if odd:
            raise DataError(f"{place}: expected the same classes as in train, received a difference in '{odd[0]}'")
    return places, classes


def image_files(folder: Path) -> tuple[list[str], np.ndarray]:
    """The files class/image below `folder` in sorted order, and their labels (N,), int64.

    Raises:
        DataError: a class is empty.
    """
    files = [[f"{name}/{file}" for file in _files_of_class(folder / name)] for name in class_names(folder)]
    labels = np.repeat(np.arange(len(files)), [len(some) for some in files])
    return [file for some in files for file in some], labels


def class_names(folder: Path) -> list[str]:
    """Names of the class folders in `folder`, sorted: a label is an index into them.

    Raises:
        DataError: there are none.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"{folder}: expected a folder for each class, received none")
    return names


def read_image_files(
    folder: Path, image_size: int | None = None, shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Read `folder`/class/image in sorted order.

    Args:
        folder: one split.
        image_size: side S that images are resized and centre-cropped to; None: they are taken as they are.
        shape: expected (H, W); None: that of the first image.

    Returns:
        images (N, H, W, 3), uint8, labels (N,), int64, and whether all files are grey (channels are equal).

    Raises:
        DataError: a class is empty, an image cannot be read, has another size or over 8 bits; names the file.
    """
    names, labels = image_files(folder)
    paths = [folder / name for name in names]
    images = np.empty((len(paths), *(shape or read_image(paths[0], image_size)[0].shape[:2]), 3), np.uint8)
    grey = True
    for index, path in enumerate(paths):
        image, mode = read_image(path, image_size)
        check_size(path, image, images.shape[1:3])
        images[index] = image
        grey &= mode == "L"
    return images, labels, grey


def _files_of_class(folder: Path) -> list[str]:
    files = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise DataError(f"{folder}: expected images ({', '.join(SUFFIXES)}), received none")
    return files
