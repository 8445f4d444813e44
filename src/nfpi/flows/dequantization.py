"""From 8-bit images to a continuous density and back: dequantisation, bits per dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor

GREY_LEVELS = 256
"""Number of values of an 8-bit channel."""


def dequantize(images: Tensor, generator: torch.Generator | None, grey_noise: float = 0.0) -> Tensor:
    """Dequantise 8-bit images uniformly: x = 2 (image + u)/256 − 1 with u ~ U[0, 1).

    Args:
        images: (B, C, H, W), uint8.
        generator: random number generator of u, on the device of the images; None: no noise, x = 2·image/256 − 1.
        grey_noise: amplitude of additional uniform noise for single-channel images, as a share of the value range, as
            in the code released with the paper; large parts of such images are constant.

    Returns:
        (B, C, H, W), float32, in [−1, 1), or in [−1, 1 + 2·grey_noise) with grey noise.
    """
    x = images.to(torch.float32)
    if generator is not None:
        noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        # a sum near 256 has 16 binary places in float32: noise nearer to 1 would round up to the next level
        x += noise.mul_(1 - 2**-16)
    x = x * (2 / GREY_LEVELS) - 1
    if generator is not None and grey_noise > 0 and images.shape[1] == 1:
        x += 2 * grey_noise * torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x


def quantize(x: Tensor) -> Tensor:
    """Return the 8-bit image ⌊128 (x + 1)⌋, clipped: the inverse of :func:`dequantize` without `grey_noise`.

    Args:
        x: (B, C, H, W) in [−1, 1].

    Returns:
        (B, C, H, W), uint8.
    """
    return (x.add(1).mul(GREY_LEVELS / 2).floor()).clamp(0, GREY_LEVELS - 1).to(torch.uint8)


def bits_per_dim(nll: Tensor, num_dimensions: int) -> Tensor:
    """Return bits per dimension NLL / (D log 2) + log₂ 128, for a density on [−1, 1] and 256 grey levels.

    Args:
        nll: (…,), in nats per image.
        num_dimensions: D.
    """
    return nll / (num_dimensions * math.log(2)) + math.log2(GREY_LEVELS / 2)
