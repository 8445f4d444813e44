"""Images into a model, and back: validation of what users pass, and deterministic passes in bounded memory.

A flow models the density of dequantised images x = image + u. Training and the workflow's evaluation draw a new u for
every image. The methods of `ClassConditionalFlow` use this module instead, in which all images share one draw u
(C, H, W): an image then has one latent and one density, which do not depend on the other images of its batch.

As the shared u is a random draw, the resulting bits/dim are an unbiased estimate of those with new noise for every
image: on digits 6.282 with the shared draw and 6.288 with new noise. If u were the middle of the noise's range, they
would be biased, on digits by 0.27 bits/dim, because a flow assigns higher density to it than to the noise of training.

Results of one image in different batches may differ by float32 rounding, because convolution kernels depend on the
batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfpi.data.domain import Domain
from nfpi.data.store import ImageSet
from nfpi.flows.bijection import ImageFlow
from nfpi.runtime.precision import cpu_by_default, full_precision
from nfpi.runtime.randomness import make_generator

Images = Any
"""uint8 (N, H, W, C), an array or a tensor; grey images also (N, H, W). A flow on latents of an autoencoder takes
these latents, float16 (N, H, W, C)."""
Labels = Any
"""(N,), indices in [0, K) or names of classes; an array, a tensor or a list."""

_CHANNELS = (1, 2, 3, 4)
"""possible numbers of channels of images of unknown size"""
_PIXELS = 2**18
"""Largest number of pixels per batch: 256 images of 32×32."""
_LARGEST_BATCH = 1024
"""Largest number of images per batch."""


# ---- what users pass ----------------------------------------------------------------------------------------


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


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a seed from a generator on any device; None: torch's default one."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))


def make_sets(
    images: Images,
    labels: Labels,
    classes: Sequence[str] | None,
    validation: float | tuple[Any, Any] | None,
    *,
    flip: bool,
    name: str | None,
    seed: int,
) -> tuple[ImageSet, ImageSet | None]:
    """Make the training and validation sets of a fit, in memory.

    Raises:
        ValueError: images or labels are empty, of different lengths, or of unknown classes; there are fewer than two
            classes, or one has fewer than two images; `validation` is invalid.
    """
    array = check_images(images)
    names = _choose_class_names(labels) if classes is None else [str(name) for name in classes]
    indices = check_labels(labels, names, len(array))
    meta = {"name": name, "classes": names, "dtype": "uint8", "extra": {"flip": flip}}
    held_out: ImageSet | None = None
    if isinstance(validation, tuple | list):
        other_images, other_labels = validation
        others = check_images(other_images, (array.shape[3], *array.shape[1:3]), what="validation images")
        held_out = ImageSet(others, check_labels(other_labels, names, len(others), "validation labels"), meta)
    elif validation is not None:
        kept, left = _split(indices, float(validation), seed)
        held_out = ImageSet(array[left], indices[left], meta)
        array, indices = array[kept], indices[kept]
    counts = np.bincount(indices, minlength=len(names))
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"labels: expected two distinct classes or more, received {', '.join(names)}")
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


# ---- passes through the flow --------------------------------------------------------------------------------


def choose_batch_size(flow: ImageFlow) -> int:
    """Return the number of images per batch, which bounds memory: at most 2¹⁸ pixels and at most 1024 images."""
    _, height, width = flow.shape
    return max(1, min(_LARGEST_BATCH, _PIXELS // (height * width)))


def device_of(flow: ImageFlow) -> torch.device:
    """Return the device of a flow's weights; the CPU if it has no weights."""
    weight = next(flow.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


@contextmanager
def strict_inference(flow: ImageFlow) -> Iterator[None]:
    """Disable gradients and compute in float32, regardless of the caller's precision and default device.

    Args:
        flow: flow to put in evaluation mode; its previous mode is restored at the end.
    """
    training = flow.training
    flow.eval()
    try:
        with torch.no_grad(), full_precision(), cpu_by_default():
            yield
    finally:
        flow.train(training)


def draw_fixed_noise(domain: Domain, shape: tuple[int, int, int]) -> Tensor:
    """Return u, the draw of a domain's noise that all images share, (1, C, H, W), on the CPU."""
    zeros = torch.zeros(1, *shape, dtype=getattr(torch, domain.dtype))
    return domain.to_flow(zeros, make_generator("cpu", 0, "fixed noise")) - domain.to_flow(zeros, None)


def encode_batches(flow: ImageFlow, domain: Domain, images: np.ndarray) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Pass images (N, H, W, C) with the fixed noise through a flow.

    Yields:
        rows of the batch in `images` (a slice); z (B, C, H, W) and log |det ∂z/∂x| (B,), on the flow's device.
    """
    device, size = device_of(flow), choose_batch_size(flow)
    noise = draw_fixed_noise(domain, flow.shape).to(device)
    for begin in range(0, len(images), size):
        rows = slice(begin, begin + size)
        stored = torch.from_numpy(np.array(images[rows].transpose(0, 3, 1, 2), order="C")).to(device)
        z, log_abs_det = flow(domain.to_flow(stored, None).add_(noise))
        yield rows, z, log_abs_det


def decode_batches(flow: ImageFlow, domain: Domain, latents: Tensor) -> Iterator[np.ndarray]:
    """Pass latents (N, C, H, W) through the inverse of a flow, and subtract the fixed noise.

    Yields:
        images (B, H, W, C) in the domain's dtype.

    Raises:
        FloatingPointError: the inverse of a latent is not finite.
    """
    device = device_of(flow)
    noise = draw_fixed_noise(domain, flow.shape).to(device)
    for number, block in enumerate(latents.split(choose_batch_size(flow))):
        x = flow.inverse(block.to(device))[0]
        bad = (~torch.isfinite(x.flatten(1)).all(1)).nonzero()
        if len(bad):
            index = number * choose_batch_size(flow) + int(bad[0, 0])
            raise FloatingPointError(
                f"latents: the inverse of latent {index} is not finite; the latent may be far from all classes"
            )
        # Without noise, x is at the lower end of the interval of its grey level, and rounding errors may move it below.
        # half_level moves it to the centre.
        yield domain.to_images(x - noise + domain.half_level).permute(0, 2, 3, 1).cpu().numpy()
