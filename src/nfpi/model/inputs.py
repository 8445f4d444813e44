"""Validation of images, labels and latents that users pass as arrays, tensors or lists."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch

_CHANNELS = (1, 2, 3, 4)
"""possible numbers of channels of images of unknown size"""


def to_array(values: Any, what: str) -> np.ndarray:
    """Convert a tensor on any device, or an array-like, to a NumPy array; bfloat16, which NumPy lacks, to float32.

    Args:
        values: numbers or names.
        what: name of the values in messages.

    Raises:
        ValueError: they do not form an array, e.g. lists of different lengths.
    """
    is_tensor = isinstance(values, torch.Tensor)
    # A RuntimeError from a list means invalid values, e.g. tensors that require gradients. From a tensor, it may mean
    # exhausted memory, and is left to the caller.
    faults = (TypeError, ValueError, NotImplementedError if is_tensor else RuntimeError)
    try:
        if is_tensor:
            values = values.detach().cpu()
            return np.asarray((values.float() if values.dtype == torch.bfloat16 else values).numpy(force=True))
        return np.asarray(values)
    except faults as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{what}: expected an array, received {type(values).__name__} ({reason})") from None


def check_images(
    images: Any, shape: tuple[int, int, int] | None = None, dtype: str = "uint8", what: str = "images"
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
    array = to_array(images, what)
    expected = "(N, H, W, C)" if shape is None else f"(N, {shape[1]}, {shape[2]}, {shape[0]})"
    tensor = isinstance(images, torch.Tensor)
    if array.dtype.name != dtype:
        received = str(images.dtype).removeprefix("torch.") if tensor else str(array.dtype)
        advice = _suggest_conversion(array, tensor) if dtype == "uint8" else ""
        raise ValueError(f"{what}: expected {dtype}, received {received}{_with_conversion_of_list(advice, images)}")
    found = tuple(array.shape)
    if array.ndim == 3 and (found[1:] == shape[1:] and shape[0] == 1 if shape else found[2] not in _CHANNELS):
        array = array[..., None]
    fits = array.ndim == 4 and (
        array.shape[3] in _CHANNELS if shape is None else array.shape[1:] == (shape[1], shape[2], shape[0])
    )
    if not fits:
        advice = _suggest_correction(found, shape) or _suggest_recolouring(found, shape, tensor)
        raise ValueError(f"{what}: expected {expected}, received {found}{_with_conversion_of_list(advice, images)}")
    if not array.size:
        raise ValueError(f"{what}: expected at least one, received {found}")
    return array


def _with_conversion_of_list(advice: str, images: Any) -> str:
    """Return the advice, after the conversion of `images` if the advice has code for an array and they are a list."""
    is_list = not hasattr(images, "dtype")
    return f"; with images = np.asarray(images){advice}" if is_list and "images" in advice else advice


def _suggest_conversion(array: np.ndarray, tensor: bool) -> str:
    """Suggest how to convert images with these values to uint8."""
    to_uint8 = "to(torch.uint8)" if tensor else "astype('uint8')"
    if array.dtype.kind == "b":
        return f"; for black and white: 255 * images.{to_uint8}"
    if array.dtype.kind not in "fiu" or not array.size:
        return ""
    if not np.isfinite(array).all():
        return "; they contain NaN or infinity"
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and 0 <= low <= high <= 1:
        return f"; for values in [0, 1]: (255 * images).round().{to_uint8}"
    if not 0 <= low <= high <= 255 or (array % 1).any():
        return f"; for values from {low:g} to {high:g}: scale them to 0 … 255, then .round().{to_uint8}"
    scaled = f", but if {high:g} is white: (255 / {high:g} * images).round().{to_uint8}" if 0 < high < 128 else ""
    return f"; for values from 0 to 255: images.{to_uint8}{scaled}"


def _suggest_correction(found: tuple[int, ...], shape: tuple[int, int, int] | None) -> str:
    """Suggest how to correct images of this shape."""
    if shape is None and len(found) == 3:
        return "; for a single image: images[None]; for grey images: images[..., None]"
    if shape and (found == (*shape[1:], shape[0]) or (shape[0] == 1 and found == shape[1:])):
        return "; for a single image: images[None]"
    if found == shape:
        return (
            "; for a single image with channels in front: images[None].transpose(0, 2, 3, 1), or .permute of a tensor"
        )
    if len(found) == 2:
        return "; for images as rows: images.reshape(N, H, W, C)"
    if len(found) == 4 and (found[1:] == shape if shape else found[1] in _CHANNELS):
        return "; for channels in front: images.transpose(0, 2, 3, 1), or .permute of a tensor"
    return ""


def _suggest_recolouring(found: tuple[int, ...], shape: tuple[int, int, int] | None, tensor: bool) -> str:
    """Suggest how to turn grey images of this shape to colour, or colour to grey, as `--resize` does with files."""
    if shape is None or found[1:3] != shape[1:]:
        return ""
    if shape[0] == 3 and found[3:] in ((), (1,)):
        images = "images" if found[3:] else "images[..., None]"
        return f"; for grey images: {images}.{'repeat(1, 1, 1, 3)' if tensor else 'repeat(3, axis=3)'}"
    if shape[0] == 1 and found[3:] == (3,):
        luma = "[0.299, 0.587, 0.114]"  # ITU-R 601, as in Pillow
        if tensor:
            return f"; for colour images: (images.float() @ torch.tensor({luma})).round().to(torch.uint8)"
        return f"; for colour images: (images @ {luma}).round().astype('uint8')"
    return ""


def check_labels(labels: Any, classes: Sequence[str], count: int | None = None, what: str = "labels") -> np.ndarray:
    """Convert labels to class indices, (N,), int64.

    Args:
        labels: (N,), indices in [0, K) or names of classes; an array, a tensor or a list.
        classes: names of the K classes.
        count: N; None: any.
        what: name of the labels in messages.

    Raises:
        ValueError: they have another shape or dtype, are empty, or are not of these classes.
    """
    array = to_array(labels, what)
    if array.ndim != 1 or (count is not None and len(array) != count):
        expected = "(N,)" if count is None else f"({count},), one for each image"
        single = array.ndim == 0 and (array.dtype.kind in "iu" or are_class_names(array))
        advice = f"; for a single one: [{array.item()!r}]" if single else ""
        raise ValueError(f"{what}: expected {expected}, received {tuple(array.shape)}{advice}")
    if not len(array):
        raise ValueError(f"{what}: expected at least one, received none")
    if array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= len(classes):
            raise ValueError(f"{what}: expected 0 to {len(classes) - 1}, received {low if low < 0 else high}")
        return array.astype(np.int64)
    if not are_class_names(array):
        converted = "labels.long()" if isinstance(labels, torch.Tensor) else "np.asarray(labels).astype(int)"
        whole = array.dtype.kind == "O" and all(isinstance(label, Integral) for label in array.tolist())
        advice = f"; for whole numbers: {converted}" if whole or array.dtype.kind in "fb" else ""
        raise ValueError(f"{what}: expected indices or names of classes, received {array.dtype}{advice}")
    index_of = {name: index for index, name in enumerate(classes)}
    unknown = next((name for name in array.tolist() if name not in index_of), None)
    if unknown is not None:
        some = ", ".join(map(str, classes[:10])) + (", …" if len(classes) > 10 else "")
        raise ValueError(f"{what}: expected classes of the model ({some}), received '{unknown}'")
    return np.array([index_of[name] for name in array.tolist()], np.int64)


def are_class_names(labels: np.ndarray) -> bool:
    """Return whether labels (N,) are class names instead of indices."""
    return labels.dtype.kind in "UT" or (
        labels.dtype.kind == "O" and all(isinstance(name, str) for name in labels.ravel().tolist())
    )


def check_latents(latents: Any, shape: tuple[int, int, int]) -> torch.Tensor:
    """Convert latents to a float32 tensor (N, C, H, W).

    Args:
        latents: (N, D) with D = C·H·W, or (N, C, H, W); real numbers.
        shape: (C, H, W).

    Raises:
        ValueError: they have another shape or dtype, are empty, or are not finite.
    """
    array = to_array(latents, "latents")
    dimensions = int(np.prod(shape))
    if array.dtype.kind not in "fiu":
        raise ValueError(f"latents: expected real numbers, received {array.dtype}")
    if not (array.ndim == 2 and array.shape[1] == dimensions) and tuple(array.shape[1:]) != shape:
        expected = f"(N, {dimensions}) or (N, {', '.join(map(str, shape))})"
        raise ValueError(f"latents: expected {expected}, received {tuple(array.shape)}")
    if not len(array):
        raise ValueError("latents: expected at least one, received none")
    with np.errstate(over="ignore"):  # infinity is reported below
        array = np.require(array, np.float32, ["C_CONTIGUOUS", "WRITEABLE"])  # torch warns of read-only arrays
    if not np.isfinite(array).all():
        raise ValueError("latents: expected finite numbers in float32, received NaN or infinity")
    return torch.from_numpy(array).view(-1, *shape)


def check_temperature(temperature: Any) -> float:
    """Return a temperature as a float; raises ValueError unless it is a finite number of at least 0."""
    value = to_array(temperature, "temperature")
    if value.ndim or value.dtype.kind not in "fiu" or not (np.isfinite(value) and value >= 0):
        raise ValueError(f"temperature: expected a number of at least 0, received {temperature!r}")
    return float(value)


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a seed from a generator on any device; None: torch's default one.

    Raises:
        TypeError: it is not a torch.Generator.
    """
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"generator: expected a torch.Generator, received {type(generator).__name__}")
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))
