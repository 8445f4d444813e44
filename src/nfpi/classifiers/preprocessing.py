"""From 8-bit images of any size to the inputs of a classifier; nothing here is random."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

RGB = tuple[float, ...]


@dataclass(frozen=True)
class Preprocessing:
    """x = (image/255 − mean) / std.

    Args:
        mean, std: of each channel of RGB; for grey images, the averages are used.
        squash: whether images that are not square are squashed to a square; else their centre is cropped.
    """

    mean: RGB = (0.5, 0.5, 0.5)
    std: RGB = (0.5, 0.5, 0.5)
    squash: bool = False

    def normalize(self, images: Tensor) -> Tensor:
        """Convert 8-bit images to inputs of the network, (B, C, H, W), float32; with the defaults, in [−1, 1]."""
        mean, std = (self._per_channel(values, images.shape[1]).to(images.device) for values in (self.mean, self.std))
        return images.float() / (255 * std) - mean / std

    def resize(self, images: Tensor, size: int) -> Tensor:
        """Resize 8-bit images (..., C, H, W) to (..., C, S, S), bicubic: squashed, or resized and centre-cropped."""
        if images.shape[-2:] == (size, size):
            return images
        from torchvision.transforms.v2 import InterpolationMode, functional  # slow to import

        target = [size, size] if self.squash else [size]
        resized = functional.resize(images, target, InterpolationMode.BICUBIC, antialias=True)
        return functional.center_crop(resized, [size, size])

    @staticmethod
    def _per_channel(values: RGB, channels: int) -> Tensor:
        if channels != len(values):
            values = (fmean(values),) * channels
        return torch.tensor(values, dtype=torch.float32)[:, None, None]
