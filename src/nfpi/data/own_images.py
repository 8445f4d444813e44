"""Read a user's image files in the size and colour of a model, and write image sets as such files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nfpi.data.errors import DataError
from nfpi.data.image_files import GREY_MODES, SUFFIXES, list_files, read_image
from nfpi.data.sources.imagefolder import list_class_images, list_classes, warn_of_unread_folders
from nfpi.data.store import ImageSet
from nfpi.data.writer import replace_folder


def find_images(paths: Iterable[Path]) -> list[Path]:
    """List the given files, whatever their suffixes, and the image files in the given folders, in the order given.

    The files of each folder are sorted. Folders are searched as by :func:`nfpi.data.image_files.list_files`: at any
    depth, following links.

    Raises:
        DataError: a file or folder is missing, or a folder has no images.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = [file for file in list_files(path) if file.suffix.lower() in SUFFIXES]
            if not found:
                raise DataError(f"{path}: expected images ({', '.join(SUFFIXES)}), received none")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: expected an image or a folder of images, found nothing")
    return files


def find_labelled_images(folder: Path, classes: Sequence[str]) -> list[list[Path]]:
    """List the image files of a folder `class/image`, by class; folders inside class folders are logged, not read.

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
    unread: list[str] = []
    for name in list_classes(folder):
        if name not in index_of:
            listed = ", ".join(list(index_of)[:10]) + (", …" if len(classes) > 10 else "")
            raise DataError(
                f"{folder / name}: expected folders named after classes of the model ({listed}), received another name"
            )
        names, _, inner = list_class_images(folder / name)
        files[index_of[name]] = [folder / name / file for file in names]
        unread += [f"{name}/{other}" for other in inner]
    warn_of_unread_folders(folder, unread)
    return files


def strip_suffixes(paths: Sequence[Path]) -> list[str]:
    """Return the names of files in one folder: without suffixes, unless two names would then be equal."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [path.name for path in paths]


def read_images(paths: Sequence[Path], shape: tuple[int, int, int], *, resize: bool = False) -> np.ndarray:
    """Read image files of one size.

    Args:
        paths: N files.
        shape: expected (C, H, W); C = 1: grey, C = 3: colour.
        resize: whether to resize and centre-crop images of another size, and convert between grey and colour.

    Returns:
        (N, H, W, C), uint8.

    Raises:
        DataError: an image cannot be read, or has another size or number of channels; the file is named.
    """
    channels, height, width = shape
    images = np.empty((len(paths), height, width, channels), np.uint8)
    for index, path in enumerate(paths):
        pixels, mode = read_image(path)
        grey, size = mode in GREY_MODES, (pixels.shape[0], pixels.shape[1])
        if size != (height, width) or grey != (channels == 1):
            if not resize:
                raise DataError(
                    f"{path}: expected {_describe(height, width, channels == 1)} as in the model, received "
                    f"{_describe(*size, grey)}; --resize converts"
                )
            pixels = _convert(pixels, height, width, channels == 1)
        images[index] = pixels[..., :channels]
    return images


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


def _convert(pixels: np.ndarray, height: int, width: int, grey: bool) -> np.ndarray:
    """Resize and centre-crop an image (·, ·, 3), and make its three channels equal if `grey`."""
    image = Image.fromarray(pixels)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    if grey:
        image = image.convert("L").convert("RGB")
    return np.asarray(image)


def _describe(height: int, width: int, grey: bool) -> str:
    return f"{width}×{height} pixels in {'grey' if grey else 'colour'}"
