"""Validation of images, labels and latents that users pass as arrays, tensors or lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

_CHANNELS = (1, 2, 3, 4)
"""possible numbers of channels of images of unknown size"""
_ADVICE_ON_TYPES = {
    "f": "; for values in [0, 1]: (255 * images).round().astype('uint8')",
    "i": "; for values from 0 to 255: images.astype('uint8')",
    "b": "; for black and white: 255 * images.astype('uint8')",
}
"""hints by the kind of a NumPy dtype"""


def to_array(values: Any, what: str) -> np.ndarray:
    """Convert a tensor on any device, or an array-like, to a NumPy array.

    Args:
        values: numbers or names.
        what: name of the values in messages.

    Raises:
        ValueError: they do not form an array, e.g. lists of different lengths.
    """
    try:
        if isinstance(values, torch.Tensor):
            return np.asarray(values.detach().cpu().numpy())
        return np.asarray(values)
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
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
    if array.dtype.name != dtype:
        advice = _ADVICE_ON_TYPES.get(array.dtype.kind, "") if dtype == "uint8" else ""
        raise ValueError(f"{what}: expected {dtype}, received {array.dtype}{advice}")
    found = tuple(array.shape)
    if array.ndim == 3 and (found[1:] == shape[1:] and shape[0] == 1 if shape else found[2] not in _CHANNELS):
        array = array[..., None]
    fits = array.ndim == 4 and (
        array.shape[3] in _CHANNELS if shape is None else array.shape[1:] == (shape[1], shape[2], shape[0])
    )
    if not fits:
        raise ValueError(f"{what}: expected {expected}, received {found}{_suggest_correction(found, shape)}")
    if not array.size:
        raise ValueError(f"{what}: expected at least one, received {found}")
    return array


def _suggest_correction(found: tuple[int, ...], shape: tuple[int, int, int] | None) -> str:
    """Suggest how to correct images of this shape."""
    single = found in ((shape[1], shape[2], shape[0]), shape) if shape else len(found) == 3
    if single:
        return "; for a single image: images[None]"
    if len(found) == 2:
        return "; for images as rows: images.reshape(N, H, W, C)"
    if len(found) == 4 and (found[1:] == shape if shape else found[1] in _CHANNELS):
        return "; for channels in front: images.transpose(0, 2, 3, 1), or .permute of a tensor"
    return ""


def check_labels(labels: Any, classes: Sequence[str], count: int | None = None) -> np.ndarray:
    """Convert labels to class indices, (N,), int64.

    Args:
        labels: (N,), indices in [0, K) or names of classes; an array, a tensor or a list.
        classes: names of the K classes.
        count: N; None: any.

    Raises:
        ValueError: they have another shape or dtype, are empty, or are not of these classes.
    """
    array = to_array(labels, "labels")
    if array.ndim != 1 or (count is not None and len(array) != count):
        expected = "(N,)" if count is None else f"({count},), one for each image"
        raise ValueError(f"labels: expected {expected}, received {tuple(array.shape)}")
    if not len(array):
        raise ValueError("labels: expected at least one, received none")
    if array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= len(classes):
            raise ValueError(f"labels: expected 0 to {len(classes) - 1}, received {low if low < 0 else high}")
        return array.astype(np.int64)
    if not are_class_names(array):
        advice = "; for whole numbers: labels.astype(int)" if array.dtype.kind in "fb" else ""
        raise ValueError(f"labels: expected indices or names of classes, received {array.dtype}{advice}")
    index_of = {name: index for index, name in enumerate(classes)}
    unknown = next((name for name in array.tolist() if name not in index_of), None)
    if unknown is not None:
        some = ", ".join(map(str, classes[:10])) + (", …" if len(classes) > 10 else "")
        raise ValueError(f"labels: expected classes of the model ({some}), received '{unknown}'")
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
    if not np.isfinite(array).all():
        raise ValueError("latents: expected finite numbers, received NaN or infinity")
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).view(-1, *shape)


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a seed from a generator on any device; None: torch's default one.

    Raises:
        TypeError: it is not a torch.Generator.
    """
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"generator: expected a torch.Generator, received {type(generator).__name__}")
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))
