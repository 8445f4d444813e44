"""Read image folders, split/class/image (such as ImageNet) or class/image, and write them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from nfpi.config.base import Split
from nfpi.config.datasets import DataError, DatasetConfig
from nfpi.data.image_files import SUFFIXES, read_images_of_one_size
from nfpi.data.prepare import SourceImages
from nfpi.data.sources.files import OF_MACOS, SPLIT_NAMES, find_image_root
from nfpi.data.store import ImageSet
from nfpi.data.writer import replace_folder

logger = logging.getLogger(__name__)

_THREADS = 8
"""threads that list folders; faster than one, unless the file system is cached"""
_MAX_NAMES = 3
"""maximum number of names in a message"""


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The image files of a folder, by split.

    Attributes:
        root: the folder.
        classes: names of the K classes.
        names: paths of the files of each split relative to `root`, sorted by class, then by name.
        labels: labels of each split, (N,), int64 in [0, K).
        status: size in bytes and time of the last change in ns of the files of each split, (N, 2), int64.
        unread: names of the folders beside the splits, whose images are not listed.
    """

    root: Path
    classes: list[str]
    names: dict[Split, list[str]]
    labels: dict[Split, np.ndarray]
    status: dict[Split, np.ndarray]
    unread: list[str] = field(default_factory=list)


def load_imagefolder(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load the images of a folder or of an archived folder; see :func:`find_split_folders` for its structure.

    Images have one channel if all files of all splits are grey, otherwise all are converted to RGB.

    Raises:
        DataError: the folder has another structure, or an image cannot be read or has another size than the first.
    """
    folder = list_image_folder(find_image_root(config.folder, download_folder), config.skip or ())
    warn_of_unread_folders(folder)
    read: dict[Split, tuple[np.ndarray, bool]] = {}
    shape = None
    for split, names in folder.names.items():
        images, grey = read_images_of_one_size([folder.root / name for name in names], config.image_size, shape)
        read[split], shape = (images, grey), images.shape[1:3]
    channels = 1 if all(grey for _, grey in read.values()) else 3
    splits = {split: (x[..., :channels], folder.labels[split]) for split, (x, _) in read.items()}
    return SourceImages(folder.classes, splits, folder.names)


def read_image_folder(folder: Path | str, size: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read a folder `class/image`, with one subfolder of image files per class.

    Images have one channel if all files are grey, otherwise all are converted to RGB. Folders inside class folders are
    not read.

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
    images, grey = read_images_of_one_size([root / name for name in files.names["train"]], size)
    return np.ascontiguousarray(images[..., : 1 if grey else 3]), files.labels["train"], files.classes


def list_image_folder(root: Path, skip: Collection[str] = ()) -> ImageFolder:
    """List the image files of a folder.

    Splits and class folders may be links. Folders inside class folders, and links to folders there, are not followed.

    Args:
        root: the folder.
        skip: paths of files, relative to `root`, that are left out.

    Raises:
        DataError: the folder has another structure (see :func:`find_split_folders`), only one class, a class without
            images, a broken link, or `skip` names no image or all of a class.
    """
    places = find_split_folders(root)
    first, *others = places.values()
    classes = list_classes(first)
    if len(classes) == 1:
        raise DataError(f"{first}: expected folders of at least two classes, received only '{classes[0]}'")
    for place in others:
        different = sorted(set(list_classes(place)) ^ set(classes))
        if different:
            raise DataError(
                f"{place}: expected the same classes as in train, received a difference in '{different[0]}'"
            )
    folder = ImageFolder(root, classes, {}, {}, {}, [] if root in places.values() else _list_other_folders(root))
    with ThreadPoolExecutor(_THREADS) as pool:
        for split, place in places.items():
            prefix = "" if place == root else f"{place.name}/"
            listed = list(pool.map(lambda name, place=place: list_class_images(place / name), classes))
            by_class = zip(classes, listed, strict=True)
            folder.names[split] = [f"{prefix}{name}/{file}" for name, (files, _) in by_class for file in files]
            folder.labels[split] = np.repeat(np.arange(len(classes)), [len(files) for files, _ in listed])
            folder.status[split] = np.concatenate([status for _, status in listed])
    missing = sorted({*skip} - {name for names in folder.names.values() for name in names})
    if missing:
        raise DataError(f"skip: expected images of {root}, received '{missing[0]}'")
    for split, names in folder.names.items() if skip else ():
        kept = [index for index, name in enumerate(names) if name not in skip]
        folder.names[split] = [names[index] for index in kept]
        folder.labels[split], folder.status[split] = folder.labels[split][kept], folder.status[split][kept]
        if len({*folder.labels[split]}) < len(classes):
            raise DataError(f"skip: expected an image of each class in {root}, received all of one")
    return folder


def find_split_folders(root: Path) -> dict[Split, Path]:
    """Find the splits of a folder split/class/image; a folder class/image has only a training split.

    Splits are `train`, `test` and optionally `validation` (or `val`). Without `test`, as for ImageNet, whose test
    labels are not public, `val` (or `validation`) is the test split, and the source has no validation split.

    Raises:
        DataError: the folder is missing, has splits but no `train`, has only `train`, or has both `validation` and
            `val`; or a split is a broken link.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of images, received none")
    known = {name: root / name for name in SPLIT_NAMES if _is_folder(root / name)}
    if not known:
        return {"train": root}
    if "train" not in known or len(known) == 1 or {"validation", "val"} <= known.keys():
        received = ", ".join([*known, *_list_other_folders(root)[:_MAX_NAMES]])
        raise DataError(
            f"{root}: expected train beside test, or validation or val, or test and one of these (or class folders "
            f"alone, to be split), received {received}"
        )
    places: dict[Split, Path] = {"train": known["train"]}
    validation = known.get("validation", known.get("val"))
    if "test" in known:
        places["test"] = known["test"]
    if validation is not None:
        places["validation" if "test" in known else "test"] = validation
    return places


def warn_of_unread_folders(folder: ImageFolder) -> None:
    """Log in one line that folders beside the splits are not read."""
    if folder.unread:
        named = ", ".join(f"'{name}'" for name in folder.unread[:_MAX_NAMES])
        more = ", …" if len(folder.unread) > _MAX_NAMES else ""
        logger.warning("%s: images are read from class folders only, not from %s%s", folder.root, named, more)


def list_classes(folder: Path) -> list[str]:
    """Return the names of the class folders in `folder`, or links to such, sorted; a label is an index into them.

    Raises:
        DataError: there are no class folders, a link is broken, or a name is not UTF-8, as of old archives.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and _is_folder(path))
    if not names:
        raise DataError(f"{folder}: expected a folder for each class, received none")
    for name in map(os.fsencode, names):
        if name.decode(errors="ignore").encode() != name:
            raise DataError(f"{folder}: expected names of class folders in UTF-8, received {name!r}")
    return names


def _list_other_folders(root: Path) -> list[str]:
    """Return the names of the folders in `root`, or links to such, that are no splits, without hidden ones."""
    known = (*SPLIT_NAMES, OF_MACOS)
    return sorted(
        path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in known
    )


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder or a link to one.

    Raises:
        DataError: it is a link to nothing, or to itself; one with a suffix is taken for a file.
    """
    if path.is_symlink() and not path.exists() and not path.suffix:
        raise DataError(f"{path}: expected a folder or a link to one, received a broken link")
    return path.is_dir()


def list_class_images(folder: Path) -> tuple[list[str], np.ndarray]:
    """List the images in a class folder; returns their sorted names, and their sizes and times of change, (N, 2)."""
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    numbers: dict[str, tuple[int, int]] = {}
    for entry in listed:
        if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
            try:
                status = entry.stat()
            except OSError as error:  # a broken link
                raise DataError(f"{entry.path}: expected an image, received none ({error.strerror})") from None
            numbers[entry.name] = status.st_size, status.st_ctime_ns
    if not numbers:
        raise DataError(f"{folder}: expected images ({', '.join(SUFFIXES)}), received none")
    return list(numbers), np.array([*numbers.values()], np.int64)


def find_labelled_images(folder: Path, classes: Sequence[str]) -> list[list[Path]]:
    """List the image files of a folder `class/image`, by class; folders inside class folders are not read.

    Args:
        folder: folder with subfolders for some or all classes of a model, named as by `nfpi export`.
        classes: names of the K classes.

    Returns:
        K lists of files, sorted by name; empty for a class without a subfolder.

    Raises:
        DataError: the folder is missing or has no subfolders; or a subfolder has no images, is not named after a class,
            or is a broken link; or folder names of classes are not unique.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder, found none")
    index_of = {name: index for index, name in enumerate(make_folder_names(classes))}
    files: list[list[Path]] = [[] for _ in classes]
    for name in list_classes(folder):
        if name not in index_of:
            listed = ", ".join(list(index_of)[:10]) + (", …" if len(classes) > 10 else "")
            raise DataError(
                f"{folder / name}: expected folders named after classes of the model ({listed}), received another name"
            )
        files[index_of[name]] = [folder / name / file for file in list_class_images(folder / name)[0]]
    return files


def strip_suffixes(paths: Sequence[Path]) -> list[str]:
    """Return the names of files in one folder: without suffixes, unless two names would then be equal."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [path.name for path in paths]


def make_folder_names(classes: Sequence[str]) -> list[str]:
    r"""Return folder names for classes: "-" replaces `/`, `\`, `:`, NUL, and a leading "." (hidden folders).

    Raises:
        DataError: the names are not distinct.
    """
    names = [re.sub(r"^\.|[/\\:\0]", "-", name) for name in classes]
    if len(set(names)) != len(names):
        raise DataError(f"classes: expected distinct folder names, received {names}")
    return names


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
    with replace_folder(folder, names) as partial:
        for name in names:
            (partial / name).mkdir()
        for index, (image, label) in enumerate(zip(image_set.images, image_set.labels, strict=True)):
            pixels = image[:, :, 0] if channels == 1 else image
            Image.fromarray(np.asarray(pixels)).save(partial / names[label] / f"{index:05d}.png")
