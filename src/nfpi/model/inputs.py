"""What users pass to a model, in each of its forms, as arrays: images, labels and latents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from nfpi.data.image_files import find_images, read_images, read_images_of_one_size
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
        ValueError: images of a data set differ in size, or are not in [0, 1].
    """
    if isinstance(images, Dataset):
        return _read_dataset(images)[0]
    paths = _list_paths(images)
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
        The images, and their labels, or None if there are none.

    Raises:
        DataError, ValueError: as for :func:`load_images`; or a folder is not named after a class.
    """
    if labels is None and isinstance(images, Dataset):
        found, labels, names = _read_dataset(images)
        if labels is None or names is None:
            return found, labels
        return found, [names[label] for label in check_labels(labels, names)]  # the model may order them differently
    if labels is None and (folder := _find_folder(images)):
        files = find_labelled_images(folder, classes)
        labels = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in files])
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
        The images; their labels, or None if there are none; and the names of the classes that labels of a folder or
        data set index, if there are names.

    Raises:
        DataError: a file is missing or cannot be read, or has another size than the first.
        ValueError: images of a data set differ in size, or are not in [0, 1].
    """
    if isinstance(images, Dataset):
        found, own, names = _read_dataset(images, progress)
        return (found, own, names) if labels is None else (found, labels, None)
    if labels is None and (folder := _find_folder(images)):
        return read_image_folder(folder, size)
    if paths := _list_paths(images):
        images, grey = read_images_of_one_size(find_images(paths), size)
        images = np.ascontiguousarray(images[..., : 1 if grey else 3])
    return images, labels, None


def _list_paths(images: Images) -> list[Path]:
    """Return the paths of images that are given as one or several paths; empty: they are given in another form."""
    given = [images] if isinstance(images, str | os.PathLike) else images
    is_list = isinstance(given, list | tuple | np.ndarray) and len(given) > 0
    return [Path(path) for path in given] if is_list and isinstance(given[0], str | os.PathLike) else []


def _find_folder(images: Images) -> Path | None:
    """Return the folder that images are given as; None: they are given in another form."""
    return Path(images) if isinstance(images, str | os.PathLike) and Path(images).is_dir() else None


def _read_dataset(dataset: Any, progress: bool | None = None) -> tuple[np.ndarray, Any, Sequence[str] | None]:
    """Read a data set once.

    Returns:
        Images (N, H, W, C), uint8; their labels, N values, None if it has none; and the names that labels index, if
        there are names.
    """
    from torchvision.transforms.v2 import functional

    images, labels = np.empty((0, 1, 1, 1), np.uint8), []
    for index in tqdm(
        range(len(dataset)), "images", unit="image", leave=False, disable=None if progress is None else not progress
    ):
        item = dataset[index]
        image, label = item if isinstance(item, tuple | list) else (item, None)
        pixels = functional.to_image(image)
        if pixels.is_floating_point() and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"data set: expected images in [0, 1], without Normalize, received others (image {index})")
        array = functional.to_dtype(pixels, torch.uint8, scale=True).permute(1, 2, 0).numpy()
        if not index:
            images = np.empty((len(dataset), *array.shape), np.uint8)
        if array.shape != images.shape[1:]:
            expected, received = (" × ".join(map(str, x.shape)) for x in (images[0], array))
            raise ValueError(
                f"data set: expected images {expected} like the first, received {received} (image {index})"
            )
        images[index] = array
        labels.append(label)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = None if getattr(dataset, "target_transform", None) else getattr(dataset, "classes", None)
    return images, None if None in labels else labels, names


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
    if not len(array) or (array.shape[1:] != (dimensions,) and array.shape[1:] != shape):
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
    array = check_images(images)
    names = _choose_class_names(labels) if classes is None else [str(name) for name in classes]
    indices = check_labels(labels, names, len(array))
    meta = {"name": name, "classes": names, "dtype": "uint8", "extra": {"flip": flip}}
    held_out: ImageSet | None = None
    if isinstance(validation, Dataset | str | os.PathLike | tuple | list):
        others, other_labels = validation if isinstance(validation, tuple | list) else (validation, None)
        shape = (array.shape[3], *array.shape[1:3])
        others, other_labels = load_labelled_images(others, other_labels, names, shape, resize=resize)
        others = check_images(others, shape, what="validation images")
        held_out = ImageSet(others, check_labels(other_labels, names, len(others), "validation labels"), meta)
    elif validation is not None:
        kept, left = _split(indices, float(validation), seed)
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
    return ImageSet(array, indices, meta), held_out


def _choose_class_names(labels: Labels) -> list[str]:
    """Return the sorted names in the labels, or all indices up to the largest, as text."""
    found = to_array(labels)
    if found.dtype.kind not in "iu":
        return sorted(set(map(str, found.ravel().tolist())))
    # K classes need K images or more; larger indices are refused with the labels
    return [str(index) for index in range(min(int(found.max(initial=0)) + 1, found.size))]


def _split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the positions of images into kept and held-out ones, both sorted, stratified by class."""
    from sklearn.model_selection import train_test_split

    try:
        parts = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed % 2**32)
    except ValueError as error:
        raise ValueError(f"validation: expected a share of images to hold out, received {share:g} ({error})") from None
    kept, left = map(np.sort, parts)
    return kept, left
