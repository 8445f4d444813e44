"""Read image folders, split/class/image (such as ImageNet) or class/image."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nfpi.config.base import Split
from nfpi.config.datasets import DatasetConfig
from nfpi.data.errors import DataError
from nfpi.data.file_trees import is_folder
from nfpi.data.image_files import GREY_MODES, SUFFIXES, check_size, read_image
from nfpi.data.sources.archive import OF_MACOS, SPLIT_NAMES, find_image_root
from nfpi.data.sources.registry import SourceImages

logger = logging.getLogger(__name__)

_THREADS = 8
"""threads that list folders; faster than one, unless the file system is cached"""

_MAX_SUFFIXES, _MAX_OTHERS = 3, 3
"""maximum numbers of suffixes and of other folders in a message"""


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The image files of a folder, by split.

    Attributes:
        root: the folder.
        classes: names of the K classes.
        names: paths of the files of each split relative to `root`, sorted by class, then by name.
        labels: labels of each split, (N,), int64 in [0, K).
        status: size in bytes and time of the last change in ns of the files of each split, (N, 2), int64.
        unread: paths of the folders inside class folders, relative to `root`, whose images are not listed.
        others: names of the folders beside the splits, whose images are not listed.
    """

    root: Path
    classes: list[str]
    names: dict[Split, list[str]]
    labels: dict[Split, np.ndarray]
    status: dict[Split, np.ndarray]
    unread: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def load_imagefolder(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load the images of a folder or of an archived folder; see :func:`find_split_folders` for its structure.

    Images have one channel if all files of all splits are grey, otherwise all are converted to RGB.

    Raises:
        DataError: the folder has another structure, or an image cannot be read or has another size than the first.
    """
    folder = list_image_folder(find_image_root(config.folder, download_folder))
    log_splits(folder, config)
    read: dict[Split, tuple[np.ndarray, bool]] = {}
    shape = None
    for split, names in folder.names.items():
        images, grey = read_image_files(folder.root, names, config.image_size, shape)
        read[split], shape = (images, grey), images.shape[1:3]
    channels = 1 if all(grey for _, grey in read.values()) else 3
    splits = {split: (x[..., :channels], folder.labels[split]) for split, (x, _) in read.items()}
    return SourceImages(folder.classes, splits)


def list_image_folder(root: Path) -> ImageFolder:
    """List the image files of a folder.

    Splits and class folders may be links. Folders inside class folders, and links to folders there, are not followed.

    Raises:
        DataError: the folder has another structure (see :func:`find_split_folders`), only one class, a class without
            images, a broken link, or a class name that is not UTF-8.
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
    names: dict[Split, list[str]] = {}
    labels: dict[Split, np.ndarray] = {}
    status: dict[Split, np.ndarray] = {}
    unread: list[str] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for split, place in places.items():
            prefix = "" if place == root else f"{place.name}/"
            listed = list(pool.map(lambda name, place=place: _list_class_images(place / name), classes))
            by_class = list(zip(classes, listed, strict=True))
            names[split] = [f"{prefix}{name}/{file}" for name, (files, *_) in by_class for file in files]
            labels[split] = np.repeat(np.arange(len(classes)), [len(files) for files, *_ in listed])
            status[split] = np.concatenate([status for _, status, _ in listed])
            unread += [f"{prefix}{name}/{folder}" for name, (*_, folders) in by_class for folder in folders]
    beside = [] if root in places.values() else _list_other_folders(root)
    return ImageFolder(root, classes, names, labels, status, unread, beside)


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
    if "train" not in known:
        raise DataError(f"{root / 'train'}: expected a folder of class folders beside {min(known)}, received none")
    if len(known) == 1:
        others = _list_other_folders(root)
        raise DataError(
            f"{root}: expected test or val beside train (or class folders alone, to be split), received neither"
            + (f", but '{others[0]}'" if others else "")
        )
    if "validation" in known and "val" in known:
        raise DataError(f"{root}: expected one validation split, received both validation and val")
    places: dict[Split, Path] = {"train": known["train"]}
    validation = known.get("validation", known.get("val"))
    if "test" in known:
        places["test"] = known["test"]
    if validation is not None:
        places["validation" if "test" in known else "test"] = validation
    return places


def _list_other_folders(root: Path) -> list[str]:
    """Return the names of the folders in `root`, or links to such, that are no splits, without hidden ones."""
    with os.scandir(root) as entries:
        known = (*SPLIT_NAMES, OF_MACOS)
        return sorted(entry.name for entry in entries if _is_subfolder(entry) and entry.name not in known)


def find_first_image(root: Path) -> Path:
    """Return the first training image of a folder.

    Raises:
        DataError: the folder has no images.
    """
    place = find_split_folders(root)["train"]
    folder = place / list_classes(place)[0]
    names, *_ = _list_class_images(folder)
    return folder / names[0]


def log_splits(folder: ImageFolder, config: DatasetConfig) -> None:
    """Log how the splits that a folder lacks are obtained."""
    drawn = f"drawn from each class with split_seed {config.split_seed}"
    if "test" not in folder.names:
        share = config.test_fraction
        logger.info("%s: class folders alone: %g of the images are the test split, %s", folder.root, share, drawn)
    elif not folder.names["test"][0].startswith("test/"):
        logger.info("%s: no test: %s is the test split", folder.root, folder.names["test"][0].partition("/")[0])
    if "validation" not in folder.names and not config.refit:
        share = config.validation_fraction
        logger.info("%s: %g of the training images are the validation split, %s", folder.root, share, drawn)
    warn_of_other_folders(folder)
    warn_of_unread_folders(folder.root, folder.unread)


def warn_of_other_folders(folder: ImageFolder) -> None:
    """Log in one line that folders beside the splits are not read."""
    if folder.others:
        logger.warning(
            "%s: expected train, test and validation (or val), received also %s, not read",
            folder.root,
            ", ".join(f"'{name}'" for name in folder.others[:_MAX_OTHERS])
            + (", …" if len(folder.others) > _MAX_OTHERS else ""),
        )


def warn_of_unread_folders(root: Path, unread: Sequence[str]) -> None:
    """Log in one line that folders inside class folders are not read.

    Args:
        root: folder of the images.
        unread: paths of these folders relative to `root`.
    """
    if unread:
        folders = f"{unread[0]}{', ...' if len(unread) > 1 else ''}"
        logger.warning(
            "%s: expected images directly in the class folders, received %s in them, not read: %s",
            root,
            _format_count(len(unread), "folder"),
            folders,
        )


def list_classes(folder: Path) -> list[str]:
    """Return the names of the class folders in `folder`, or links to such, sorted; a label is an index into them.

    Raises:
        DataError: there are no class folders, a name is not UTF-8, or a link is broken.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and _is_folder(path))
    if not names:
        raise DataError(f"{folder}: expected a folder for each class, received {_describe_contents(folder)}")
    for name in names:
        if not _is_unicode(name):
            raise DataError(f"{folder}: expected names of classes in UTF-8, received {os.fsencode(name)!r}")
    return names


def read_image_files(
    root: Path,
    names: Sequence[str],
    image_size: int | None = None,
    shape: tuple[int, int] | None = None,
    setting: str = "image_size",
) -> tuple[np.ndarray, bool]:
    """Read image files into memory.

    Args:
        root: folder of the files.
        names: paths of the files relative to `root`.
        image_size: size S that images are resized and centre-cropped to; None: no resizing.
        shape: expected (H, W); None: that of the first image.
        setting: name of `image_size` in errors.

    Returns:
        Images (N, H, W, 3), uint8, with equal channels of grey files; and whether all files are grey.

    Raises:
        DataError: an image cannot be read, has another size, or more than 8 bits.
    """
    height, width = shape or read_image(root / names[0], image_size)[0].shape[:2]
    images = np.empty((len(names), height, width, 3), np.uint8)
    grey = True
    for index, name in enumerate(names):
        path = root / name
        image, mode = read_image(path, image_size)
        check_size(path, image, images.shape[1:3], setting)
        images[index] = image
        grey &= mode in GREY_MODES
    return images, grey


def _is_subfolder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a visible folder or a link to one, and not named as an image."""
    return not entry.name.startswith(".") and not entry.name.lower().endswith(SUFFIXES) and is_folder(entry)


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder or a link to one.

    Raises:
        DataError: it is a link to nothing, or to itself; one with a suffix is taken for a file.
    """
    if path.is_symlink() and not path.exists() and not path.suffix:
        raise DataError(f"{path}: expected a folder or a link to one, received a broken link")
    return path.is_dir()


def _list_class_images(folder: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """List the images in a class folder.

    Returns:
        Their sorted names; their sizes and times of change, (N, 2); and the names of folders, which are not listed.
    """
    place = os.open(folder, os.O_RDONLY)  # avoids resolving the path of the folder for each file
    try:
        with os.scandir(place) as entries:
            listed = list(entries)
        names = sorted(
            entry.name for entry in listed if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
        )
        unread = sorted(entry.name for entry in listed if _is_subfolder(entry))
        numbers: list[int] = []
        for name in names:
            try:
                status = os.stat(name, dir_fd=place)
            except OSError as error:  # a broken link
                raise DataError(f"{folder / name}: expected an image, received none ({error.strerror})") from None
            numbers += status.st_size, status.st_ctime_ns
    finally:
        os.close(place)
    if not names:
        raise DataError(f"{folder}: expected images ({', '.join(SUFFIXES)}), received {_describe_contents(folder)}")
    return names, np.array(numbers, np.int64).reshape(-1, 2), unread


def _describe_contents(folder: Path) -> str:
    """Describe the contents of a folder."""
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    folders = sum(path.is_dir() for path in visible)
    suffixes = sorted({path.suffix.lower() or "no suffix" for path in visible if not path.is_dir()})
    counts = [_format_count(folders, "folder"), _format_count(len(visible) - folders, "file")]
    if suffixes:
        counts[1] += f" ({', '.join(suffixes[:_MAX_SUFFIXES])}{', …' if len(suffixes) > _MAX_SUFFIXES else ''})"
    return " and ".join(text for text in counts if not text.startswith("0")) or "an empty folder"


def _format_count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
