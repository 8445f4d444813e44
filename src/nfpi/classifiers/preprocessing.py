"""From 8-bit images of any size to what a classifier sees; nothing here is random."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

RGB = tuple[float, ...]


@dataclass(frozen=True)
class Preprocessing:
    """x = (image/255 − mean) / std.

    Args:
        mean, std: a channel of RGB each; grey images take their averages.
        squash: images that are no squares are squashed to one; else their centre is cropped.
    """

    mean: RGB = (0.5, 0.5, 0.5)
    std: RGB = (0.5, 0.5, 0.5)
    squash: bool = False

    def normalized(self, images: Tensor) -> Tensor:
        """What the network sees of 8-bit images, (B, C, H, W) float32; with the defaults, in [−1, 1]."""
        mean, std = (self._of_channels(values, images.shape[1]).to(images.device) for values in (self.mean, self.std))
        return images.float() / (255 * std) - mean / std

    def resized(self, images: Tensor, size: int) -> Tensor:
        """8-bit images (..., C, H, W) at (..., C, S, S), bicubic: squashed, or resized and centre-cropped."""
        target = [size, size] if self.squash else [size]
        if images.shape[-2:] == (size, size):
            return images
        changed = functional.resize(images, target, InterpolationMode.BICUBIC, antialias=True)
        return functional.center_crop(changed, [size, size])

    @staticmethod
    def _of_channels(values: RGB, channels: int) -> Tensor:
        if channels != len(values):
            values = (fmean(values),) * channels
        return torch.tensor(values, dtype=torch.float32)[:, None, None]
