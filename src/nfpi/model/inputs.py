"""What users pass to a model, in each of its forms, as arrays: images, labels and latents."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset
from tqdm import tqdm

from nfpi.data.domain import describe_elements
from nfpi.data.image_files import GREY_MODES, convert_to_rgb, find_images, read_images, read_images_of_one_size
from nfpi.data.prepare import hold_out
from nfpi.data.sources.imagefolder import find_labelled_images, read_image_folder
from nfpi.data.store import ImageSet

Images = Any
"""images in a form that :class:`nfpi.ClassConditionalFlow` lists"""
Labels = Any
"""(N,), indices in [0, K) or names of classes, an array, a tensor or a list; or None"""

_CHANNELS = (1, 2, 3, 4)
"""possible numbers of channels of images of unknown size"""


# ---- files and data sets ------------------------------------------------------------------------------------


def load_images(images: Images, shape: tuple[int, int, int], *, resize: bool = False) -> Any:
    """Read images from files or a data set; arrays and tensors are returned as they are.

    Args:
        images: in any form.
        shape: (C, H, W) of the files.
        resize: whether to convert files of another size or colour, see :func:`nfpi.data.image_files.read_images`.

    Raises:
        DataError: a file is missing or cannot be read, or has another shape.
        ValueError: items of a data set differ in size, or are of another form; or the model takes no files.
    """
    if isinstance(images, Dataset):
        return _read_dataset(images)[0]
    paths = _list_paths(images)
    if paths and shape[0] not in (1, 3):
        raise ValueError(f"images: expected an array of {shape[0]} channels, such as latents, received image files")
    return read_images(find_images(paths), shape, resize=resize) if paths else images


def load_labelled_images(
    images: Images, labels: Labels, classes: Sequence[str], shape: tuple[int, int, int], *, resize: bool = False
) -> tuple[Any, Labels]:
    """Read images with their labels; labels that are given replace those of the folder or data set.

    Args:
        images, shape, resize: as for :func:`load_images`.
        labels: (N,), or None.
        classes: names of the K classes, after which the folders are named.

    Returns:
        The images, and their labels, which are names if the folder or data set has some; None if there are none.

    Raises:
        DataError, ValueError: as for :func:`load_images`; or a folder is not named after a class.
    """
    if labels is None and isinstance(images, Dataset):
        found, labels, names = _read_dataset(images)
        return found, _name_labels(labels, names)[0]
    if labels is None and (folder := _find_folder(images)):
        files = find_labelled_images(folder, classes)
        labels = np.repeat(classes, [len(of_class) for of_class in files])
        images = [file for of_class in files for file in of_class]
    return load_images(images, shape, resize=resize), labels


def load_training_images(
    images: Images, labels: Labels, size: int | None = None, progress: bool | None = None
) -> tuple[Any, Labels, Sequence[str] | None]:
    """Read labelled images of unknown shape; arrays and tensors are returned as they are.

    Args:
        images: in any form.
        labels: (N,); None: those of the folder or data set.
        size: size that image files are resized and centre-cropped to; None: all must have the same size.
        progress: whether a bar shows the images of a data set that are read; None: on a terminal only.

    Returns:
        The images; their labels, or None if there are none; and, if these are names of a folder or data set, the
        names of the classes that have images, in its order.

    Raises:
        DataError: a file is missing or cannot be read, or has another size than the first.
        ValueError: items of a data set differ in size, or are of another form; or a size is given without files.
    """
    paths = _list_paths(images)
    if size is not None and not paths:
        raise ValueError(f"size: expected paths of image files to resize, received {type(images).__name__}")
    if isinstance(images, Dataset):
        found, own, names = _read_dataset(images, progress)
        return (found, *_name_labels(own, names)) if labels is None else (found, labels, None)
    if labels is None and (folder := _find_folder(images)):
        found, own, names = read_image_folder(folder, size)
        return found, *_name_labels(own, names)
    if paths:
        images, grey = read_images_of_one_size(find_images(paths), size)
        images = np.ascontiguousarray(images[..., : 1 if grey else 3])
    return images, labels, None


def _list_paths(images: Images) -> list[Path]:
    """Return the paths of images that are given as one or several paths; empty: they are given in another form."""
    given = [images] if isinstance(images, str | os.PathLike) else images
    is_list = isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.ndim == 1)
    return [Path(path) for path in given] if is_list and len(given) and isinstance(given[0], str | os.PathLike) else []


def _find_folder(images: Images) -> Path | None:
    """Return the folder that images are given as; None: they are given in another form."""
    return Path(images) if isinstance(images, str | os.PathLike) and Path(images).is_dir() else None


def _name_labels(labels: Labels, names: Sequence[str] | None) -> tuple[Labels, Sequence[str] | None]:
    """Replace labels by the names that they index, if there are any, since a model may order its classes differently.

    Returns:
        The labels; and the names that occur, in the order of `names`.
    """
    if labels is None or names is None:
        return labels, None
    indices = check_labels(labels, names)
    return np.array(names)[indices], [names[index] for index in np.unique(indices)]


def _read_dataset(dataset: Any, progress: bool | None = None) -> tuple[np.ndarray, Any, Sequence[str] | None]:
    """Read a data set once.

    Returns:
        Images (N, H, W, C), uint8; their labels, N values, None if it has none; and the names that labels index, if
        there are names.
    """
    if isinstance(dataset, IterableDataset):
        raise _refuse_item("data set", "an IterableDataset")
    images, labels = np.empty((0, 1, 1, 1), np.uint8), list[Any]()
    for index in tqdm(
        range(len(dataset)), "images", unit="image", leave=False, disable=None if progress is None else not progress
    ):
        item, what = dataset[index], f"data set, image {index}"
        values = item if isinstance(item, tuple | list) else (item,)
        if len(values) not in (1, 2):
            raise _refuse_item(what, f"{len(values)} values")
        array = _convert_to_pixels(values[0], what)
        if not index:
            images = np.empty((len(dataset), *array.shape), np.uint8)
        if array.shape != images.shape[1:]:
            expected, received = (" × ".join(map(str, x.shape)) for x in (images[0], array))
            raise ValueError(f"{what}: expected {expected} like the first, received {received}")
        images[index] = array
        labels += values[1:] or [None]
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = None if getattr(dataset, "target_transform", None) else getattr(dataset, "classes", None)
    is_labelled = all(label is not None for label in labels)
    return images, labels if is_labelled else None, None if names is None else [str(name) for name in names]


def _convert_to_pixels(image: Any, what: str) -> np.ndarray:
    """Convert an image of a data set to an array (H, W, C), uint8; PIL images as those of files."""
    from torchvision.transforms.v2 import functional

    if isinstance(image, Image.Image):
        return np.asarray(convert_to_rgb(image, what))[..., : 1 if image.mode in GREY_MODES else 3]
    if not isinstance(image, Tensor | np.ndarray):
        raise _refuse_item(what, type(image).__name__)
    pixels = functional.to_image(image)
    is_unit = pixels.is_floating_point() and pixels.numel() and pixels.min() >= 0 and pixels.max() <= 1
    if pixels.ndim != 3 or not (is_unit or pixels.dtype == torch.uint8):
        raise _refuse_item(what, f"{pixels.dtype} {tuple(image.shape)}")
    array: np.ndarray = functional.to_dtype(pixels, torch.uint8, scale=True).permute(1, 2, 0).numpy()
    return array


def _refuse_item(what: str, received: str) -> ValueError:
    return ValueError(
        f"{what}: expected for each index a PIL image or a tensor (C, H, W), uint8 or in [0, 1] (without Normalize), "
        f"alone or in a pair with its label, received {received}"
    )


# ---- arrays -------------------------------------------------------------------------------------------------


def to_array(values: Any) -> np.ndarray:
    """Convert a tensor on any device, or an array-like, to a NumPy array."""
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)


def check_images(
    images: Images, shape: tuple[int, int, int] | None = None, dtype: str = "uint8", what: str = "images"
) -> np.ndarray:
    """Convert images to an array (N, H, W, C).

    Grey images may lack the channel axis, (N, H, W), if `shape` has one channel, or if `shape` is None and W > 4: a
    smaller W may be the number of channels.

    Args:
        images: (N, H, W, C), an array or a tensor.
        shape: expected (C, H, W); None: any.
        dtype: expected dtype, by NumPy's name.
        what: name of the images in messages.

    Raises:
        ValueError: they have another shape or dtype, or there are no images.
    """
    array = to_array(images)
    if array.dtype.name != dtype:
        unit = array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1
        advice = "; for values in [0, 1]: 255 times them, rounded, as uint8" if unit and dtype == "uint8" else ""
        raise ValueError(f"{what}: expected {dtype}, received {array.dtype}{advice}")
    found = tuple(array.shape)
    if array.ndim == 3 and (found[1:] == shape[1:] and shape[0] == 1 if shape else found[2] not in _CHANNELS):
        array = array[..., None]
    expected = None if shape is None else (shape[1], shape[2], shape[0])
    if array.ndim != 4 or (array.shape[3] not in _CHANNELS if expected is None else array.shape[1:] != expected):
        advice = ""
        if len(found) == 4 and (found[1:] == shape if shape else found[1] in _CHANNELS):
            advice = "; for channels in front: images.transpose(0, 2, 3, 1), or .permute of a tensor"
        elif len(found) == 3 and expected in (None, found):
            advice = "; for a single image: images[None]"
        sizes = "H, W, C" if expected is None else ", ".join(map(str, expected))
        raise ValueError(f"{what}: expected (N, {sizes}), received {found}{advice}")
    if not array.size:
        raise ValueError(f"{what}: expected at least one, received {found}")
    return array


def are_vectors(images: Images) -> bool:
    """Return whether this is a table of vectors, (N, D)."""
    if isinstance(images, list):
        return bool(images) and not isinstance(images[0], str | os.PathLike) and np.ndim(images[0]) == 1
    return getattr(images, "ndim", None) == 2


def check_vectors(
    vectors: Any, num_dimensions: int | None = None, what: str = "vectors", columns: Sequence[str] | None = None
) -> np.ndarray:
    """Convert vectors to an array of images of one pixel, (N, 1, 1, D), float32.

    Args:
        vectors: (N, D), real numbers; an array, a tensor or a data frame.
        num_dimensions: expected D; None: any.
        what: name of the vectors in messages.
        columns: expected names of the columns of a data frame; None: any.

    Raises:
        ValueError: they have another shape or other columns, are empty, are no numbers, or are not finite.
    """
    array, names = to_array(vectors), find_columns(vectors)
    expected = f"(N, {num_dimensions or 'D'})"
    if array.ndim != 2 or not array.size or num_dimensions not in (None, array.shape[1]):
        raise ValueError(f"{what}: expected {expected}, received {tuple(array.shape)}")
    if columns is not None and names not in (None, columns):
        raise ValueError(f"{what}: expected the columns {', '.join(columns)}, received {', '.join(names)}")
    try:
        array = array.astype(np.float32, casting="unsafe" if array.dtype.kind in "fiubO" else "no")
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected real numbers, none of them missing, received {array.dtype}") from None
    if not np.isfinite(array).all():
        place = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise ValueError(f"{what}: expected finite numbers, received {array[place]} at {place}")
    return array[:, None, None]


def find_columns(vectors: Any) -> list[str] | None:
    """Return the names of the columns of a data frame; None for what has no names."""
    columns = getattr(vectors, "columns", None)
    return None if columns is None else [str(name) for name in columns]


def check_labels(labels: Labels, classes: Sequence[str], count: int | None = None, what: str = "labels") -> np.ndarray:
    """Convert labels to class indices, (N,), int64.

    Args:
        labels: (N,), indices in [0, K) or names of classes; an array, a tensor or a list.
        classes: names of the K classes.
        count: N; None: any.
        what: name of the labels in messages.

    Raises:
        ValueError: they have another shape or dtype, are empty, or are not of these classes.
    """
    if labels is None:
        raise ValueError(
            f"{what}: expected one for each image, a folder with one folder per class, or a data set with labels, "
            "received none"
        )
    array = to_array(labels)
    if array.ndim != 1 or not len(array) or (count is not None and len(array) != count):
        expected = "(N,)" if count is None else f"({count},), one for each image"
        raise ValueError(f"{what}: expected {expected}, received {tuple(array.shape)}")
    if array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= len(classes):
            raise ValueError(f"{what}: expected 0 to {len(classes) - 1}, received {low if low < 0 else high}")
        return array.astype(np.int64)
    if not _are_names(array):
        raise ValueError(f"{what}: expected indices or names of classes, received {array.dtype}")
    index_of = {name: index for index, name in enumerate(classes)}
    unknown = next((name for name in array.tolist() if name not in index_of), None)
    if unknown is not None:
        some = ", ".join(map(str, classes[:10])) + (", …" if len(classes) > 10 else "")
        raise ValueError(f"{what}: expected classes of the model ({some}), received '{unknown}'")
    return np.array([index_of[name] for name in array.tolist()], np.int64)


def _are_names(labels: np.ndarray) -> bool:
    """Return whether labels (N,) are class names instead of indices."""
    return labels.dtype.kind in "UT" or (
        labels.dtype.kind == "O" and all(isinstance(name, str) for name in labels.ravel().tolist())
    )


def check_latents(latents: Any, shape: tuple[int, int, int]) -> Tensor:
    """Convert latents to a float32 tensor (N, C, H, W).

    Args:
        latents: (N, D) with D = C·H·W, or (N, C, H, W); real numbers.
        shape: (C, H, W).

    Raises:
        ValueError: they have another shape or dtype, are empty, or are not finite.
    """
    array = to_array(latents)
    dimensions = int(np.prod(shape))
    if not array.size or (array.shape[1:] != (dimensions,) and array.shape[1:] != shape):
        expected = f"(N, {dimensions}) or (N, {', '.join(map(str, shape))})"
        raise ValueError(f"latents: expected {expected}, received {tuple(array.shape)}")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"latents: expected finite real numbers, received {array.dtype}, NaN or infinity")
    # a copy where needed, as torch warns of read-only arrays
    return torch.from_numpy(np.require(array, np.float32, ["C_CONTIGUOUS", "WRITEABLE"])).view(-1, *shape)


def make_sets(
    images: Images,
    labels: Labels,
    classes: Sequence[str] | None,
    validation: Any,
    *,
    flip: bool,
    name: str | None,
    seed: int,
    resize: bool,
) -> tuple[ImageSet, ImageSet | None]:
    """Make the training and validation sets of a fit, in memory; only those to validate on are read from files.

    Raises:
        DataError: a file is missing or cannot be read, or has another size.
        ValueError: images or labels are empty, of different lengths, or of unknown classes; there are fewer than two
            classes, or one has fewer than two images; `validation` is invalid.
    """
    convert: Callable[..., np.ndarray] = check_vectors if are_vectors(images) else check_images
    array = convert(images)
    names = choose_class_names(labels) if classes is None else [str(name) for name in classes]
    indices = check_labels(labels, names, len(array))
    meta: dict[str, Any] = {"name": name, "classes": names, "dtype": array.dtype.name, "extra": {"flip": flip}}
    held_out: ImageSet | None = None
    if isinstance(validation, Dataset | str | os.PathLike | tuple | list):
        others, other_labels = validation if isinstance(validation, tuple | list) else (validation, None)
        if are_vectors(images):
            others = check_vectors(others, array.shape[3], "validation vectors", find_columns(images))
        else:
            shape = (array.shape[3], *array.shape[1:3])
            others, other_labels = load_labelled_images(others, other_labels, names, shape, resize=resize)
            others = check_images(others, shape, what="validation images")
        held_out = ImageSet(others, check_labels(other_labels, names, len(others), "validation labels"), meta)
    elif validation is not None:
        if not isinstance(validation, float | int):
            expected = "a share of the images, a folder, a data set or (images, labels)"
            raise ValueError(f"validation: expected {expected}, received {type(validation).__name__}")
        kept, left = hold_out("validation", indices, float(validation), seed % 2**32)
        held_out = ImageSet(array[left], indices[left], meta)
        array, indices = array[kept], indices[kept]
    counts = np.bincount(indices, minlength=len(names))
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"labels: expected two distinct classes or more, received {', '.join(map(repr, names))}")
    if counts.min() < 2:
        poorest = int(counts.argmin())
        raise ValueError(
            f"labels: expected at least two training images of each class, received {counts[poorest]} of "
            f"'{names[poorest]}'; if the labels are numbers that name classes, pass [str(label) for label in labels]"
        )
    if are_vectors(images):
        columns = find_columns(images)
        meta["extra"] |= describe_elements(array) | ({} if columns is None else {"columns": columns})
    return ImageSet(array, indices, meta), held_out


def choose_class_names(labels: Labels) -> list[str]:
    """Return the sorted names in the labels, or all indices up to the largest, as text."""
    found = to_array(labels)
    if found.dtype.kind not in "iu":
        return sorted(set(map(str, found.ravel().tolist())))
    # K classes need K images or more; larger indices are refused with the labels
    return [str(index) for index in range(min(int(found.max(initial=0)) + 1, found.size))]
