"""Folders of image files, a folder a class: read and written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from nfpi.config.base import Split
from nfpi.data.atomic import replaced_folder
from nfpi.data.errors import DataError
from nfpi.data.store import ImageSet

EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)  # what Pillow raises on damaged files


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
    """The files class/image below `folder` in sorted order, and their labels (int64, N).

    Raises:
        DataError: a class is empty.
    """
    files = [[f"{name}/{file}" for file in _files_of_class(folder / name)] for name in class_names(folder)]
    labels = np.repeat(np.arange(len(files)), [len(some) for some in files])
    return [file for some in files for file in some], labels


def class_names(folder: Path) -> list[str]:
    """Names of the class folders in `folder`, sorted: a label is an index into them."""
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
        image_size: side S that images are resized and centre-cropped to; none: they are taken as they are.
        shape: expected (H, W); none: that of the first image.

    Returns:
        images (uint8, N×H×W×3), labels (int64, N), and whether all files are grey (channels are equal).

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


def check_size(path: Path, image: np.ndarray, size: tuple[int, ...]) -> None:
    """Raise DataError unless an image (H, W, 3) has this size (H, W)."""
    if image.shape[:2] != size:
        expected, received = (f"{width}×{height}" for height, width in (size, image.shape[:2]))
        raise DataError(f"{path}: expected {expected} pixels like the others (or set image_size), received {received}")


def export_imagefolder(image_set: ImageSet, folder: Path) -> None:
    """Write an image set as `folder`/class/NNNNN.png, numbered by the place in the set.

    Characters of a class name that cannot stand in a file name become "-". A folder of these classes that is
    there already is replaced.

    Raises:
        DataError: these are latents, or have neither 1 nor 3 channels, or class names become equal.
    """
    channels = image_set.shape[0]
    if image_set.images.dtype != np.uint8 or channels not in (1, 3):
        received = f"{image_set.images.dtype} with {channels}"
        raise DataError(f"{folder}: expected uint8 images of 1 or 3 channels, received {received}")
    names = [re.sub(r"^\.|[/\\:\0]", "-", name) for name in image_set.classes]
    if len(set(names)) != len(names):
        raise DataError(f"{folder}: expected class names that differ as folders, received {image_set.classes}")
    with replaced_folder(folder, names) as partial:
        for name in names:
            (partial / name).mkdir()
        for index, (image, label) in enumerate(zip(image_set.images, image_set.labels, strict=True)):
            pixels = image[:, :, 0] if channels == 1 else image
            Image.fromarray(np.asarray(pixels)).save(partial / names[label] / f"{index:05d}.png")


def _files_of_class(folder: Path) -> list[str]:
    files = sorted(
        p.name for p in folder.iterdir() if p.suffix.lower() in IMG_EXTENSIONS and not p.name.startswith(".")
    )
    if not files:
        raise DataError(f"{folder}: expected images ({', '.join(IMG_EXTENSIONS)}), received none")
    return files


def read_image(path: Path, image_size: int | None = None) -> tuple[np.ndarray, str]:
    """Pixels (uint8, H×W×3) of one file, resized and centre-cropped to a square, and its mode in Pillow's terms.

    Raises:
        DataError: it cannot be read or has over 8 bits; names the file.
    """
    try:
        with Image.open(path) as file:
            mode, image = file.mode, file.convert("RGB")
    except FAULTS as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: expected an image, received one that cannot be read ({reason})") from None
    if mode not in EIGHT_BIT:
        raise DataError(f"{path}: expected an image of 8 bits a channel, received mode {mode}")
    if image_size is not None and image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image), mode
