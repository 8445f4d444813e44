"""Validation of what is passed to class Gaussians and to their statistics.

Shapes and dtypes are checked everywhere. On a GPU, reading the values of labels waits for all pending computations, so
:meth:`GaussianPrior.log_prob_of`, which training steps call, does not check them there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_latents(z: Tensor, num_dimensions: int) -> Tensor:
    """Return latents as vectors, (B, D).

    Args:
        z: (B, D) or (B, C, H, W).
        num_dimensions: D.

    Raises:
        ValueError: they have another shape.
    """
    if z.dim() < 2 or math.prod(z.shape[1:]) != num_dimensions:
        expected = f"D = {num_dimensions} dimensions, (B, D) or (B, C, H, W)"
        raise ValueError(f"latents: expected {expected}, received shape {tuple(z.shape)}")
    return z.flatten(1)


def check_labels(labels: Any, count: int | None = None) -> Tensor:
    """Return labels as class indices, (B,), int64.

    Labels are converted to int64, because indexing with a uint8 tensor would treat it as a mask.

    Args:
        labels: (B,), integers; a tensor, an array or a list.
        count: B, the number of latents; None: any.

    Raises:
        ValueError: they have another shape, or are not integers.
    """
    if isinstance(labels, np.ndarray):
        labels = labels.copy()  # torch warns of read-only arrays, and refuses negative strides
    tensor: Tensor = labels if isinstance(labels, Tensor) else torch.as_tensor(labels)
    if tensor.dim() != 1 or (count is not None and len(tensor) != count):
        expected = "(B,)" if count is None else f"({count},), one for each latent"
        raise ValueError(f"labels: expected {expected}, received shape {tuple(tensor.shape)}")
    if not tensor.numel():
        return tensor.long()  # an empty list has no dtype of its own
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"labels: expected integers, received {tensor.dtype}")
    return tensor.long()


def check_label_range(labels: Tensor, num_classes: int) -> None:
    """Check that labels are class indices; not during compilation, when they have no values.

    Args:
        labels: (B,), integers.
        num_classes: K.

    Raises:
        ValueError: a label is negative, or not below K.
    """
    if torch.compiler.is_compiling() or not len(labels):
        return
    low, high = torch.stack(labels.aminmax()).tolist()
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels: expected 0 to {num_classes - 1}, received {low if low < 0 else high}")


def is_finite_number(value: Any) -> bool:
    """Return whether a value is a finite real number, such as a float, or a tensor of one element."""
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False
