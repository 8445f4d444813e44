"""Deterministic conversion of 8-bit images of any size, or of vectors, to inputs of a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nfpi.config.flows import LATENT_NOISE
from nfpi.data.domain import Standardisation
from nfpi.data.store import ImageSet

RGB = tuple[float, ...]

PUBLISHED: dict[str, tuple[RGB, RGB]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of each RGB channel in [0, 1], for the values of the setting `normalization` that
stand for fixed numbers."""
_IMAGES_AT_ONCE = 1024


@dataclass(frozen=True)
class Preprocessing:
    """Normalisation x = (image/scale − mean) / std, and resizing.

    Args:
        mean, std: mean and standard deviation of each RGB channel; grey images use averages over the channels. Of
            vectors (B, D, 1, 1), those of each element.
        squash: whether images that are not square are squashed to a square; otherwise they are cropped to their central
            square.
    """

    mean: RGB = (0.5, 0.5, 0.5)
    std: RGB = (0.5, 0.5, 0.5)
    squash: bool = False
    scale: Literal[1, 255] = 255
    """largest value of a pixel; 1: for vectors"""

    def for_vectors(self, elements: Standardisation) -> Preprocessing:
        """Return the standardisation of vectors by mean and standard deviation of each element."""
        return replace(self, mean=tuple(elements.mean), std=tuple(elements.std), scale=1)

    def make_normalizer(self, channels: int, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return a function from 8-bit images on a device to inputs of the network, (B, C, H, W), float32.

        With the default mean and std, which are copied to the device once, inputs are in [−1, 1].
        """
        rows = [values if len(values) == channels else (fmean(values),) * channels for values in (self.mean, self.std)]
        mean, std = torch.tensor(rows, dtype=torch.float32, device=device)[:, :, None, None]
        divisor, shift = self.scale * std, mean / std
        return lambda images: images.float() / divisor - shift

    def add_noise(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images or vectors with the noise whose density a model of continuous values has.

        It is that of :mod:`nfpi.data.domain`: uniform in [0, 1) for 8-bit images, Gaussian for vectors.
        """
        if self.scale == 255:
            return images + torch.rand(images.shape, generator=generator)
        std = LATENT_NOISE * torch.tensor(self.std)[:, None, None]
        return images + std * torch.randn(images.shape, generator=generator)

    def compute_log_scale(self, shape: tuple[int, int, int]) -> float:
        """Compute log |det ∂x/∂image| of the normalisation, for images (C, H, W).

        0 for vectors, whose densities are those of the standardised vectors.
        """
        channels, height, width = shape
        std = self.std if len(self.std) == channels else (fmean(self.std),) * channels
        return 0.0 if self.scale == 1 else -height * width * sum(math.log(255 * value) for value in std)

    def resize(self, images: Tensor, size: int) -> Tensor:
        """Resize 8-bit images (..., C, H, W) to (..., C, S, S), bicubic: squashed, or resized and centre-cropped."""
        if images.shape[-2:] == (size, size):
            return images
        from torchvision.transforms.v2 import InterpolationMode, functional  # slow to import

        target = [size, size] if self.squash else [size]
        resized = functional.resize(images, target, InterpolationMode.BICUBIC, antialias=True)
        cropped: Tensor = functional.center_crop(resized, [size, size])
        return cropped


def channel_statistics(image_set: ImageSet) -> tuple[RGB, RGB]:
    """Compute mean and standard deviation of each channel over all pixels, in [0, 1].

    Args:
        image_set: 8-bit images, (N, H, W, C); all are read.

    Raises:
        ValueError: all pixels of a channel are equal.
    """
    channels, height, width = image_set.shape
    levels = np.arange(256) / 255
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for first in range(0, len(image_set), _IMAGES_AT_ONCE):
        rows = np.arange(first, min(first + _IMAGES_AT_ONCE, len(image_set)))
        pixels = np.asarray(image_set.images[rows])
        for channel in range(channels):
            histogram[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    share = histogram / (len(image_set) * height * width)
    mean = share @ levels
    std = np.sqrt(np.einsum("cl,cl->c", share, (levels - mean[:, None]) ** 2))
    if not (std > 0).all():
        raise ValueError("normalization: expected different values within each channel, received a constant channel")
    return tuple(mean.tolist()), tuple(std.tolist())
