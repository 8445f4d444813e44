"""Conversion between stored images and the inputs of a flow: 8-bit pixels, or latents of an autoencoder."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfpi.data.errors import DataError
from nfpi.flows.dequantization import LEVELS, bits_per_dim, dequantize, quantize


class Domain(ABC):
    """Conversion of stored images (B, C, H, W) to inputs x of a flow, and back."""

    dtype: str
    """of the stored images, by NumPy's name"""
    half_level: float = 0.0
    """what takes an input of a flow without noise to the middle of the values that are stored as the same image"""

    @abstractmethod
    def to_flow(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Convert stored images to inputs of a flow.

        Args:
            images: (B, C, H, W), in the stored dtype.
            generator: source of the noise, on the device of the images; None: no noise.

        Returns:
            (B, C, H, W), float.

        Raises:
            DataError: the images have another dtype, or another shape.
        """

    @abstractmethod
    def to_images(self, x: Tensor) -> Tensor:
        """Convert x (B, C, H, W) to stored images, in their dtype."""

    @abstractmethod
    def bits_per_dim(self, nll: Tensor, num_dimensions: int) -> Tensor:
        """Convert a negative log-likelihood, in nats per image, to bits per dimension."""

    def _require_dtype(self, images: Tensor) -> None:
        if images.dtype != getattr(torch, self.dtype):
            raise DataError(f"images: expected {self.dtype}, received {str(images.dtype).removeprefix('torch.')}")


@dataclass(frozen=True)
class PixelDomain(Domain):
    """8-bit images: uniform dequantisation to [−1, 1), see :func:`nfpi.flows.dequantization.dequantize`.

    Args:
        grey_noise: images of one channel get additional noise U[0, grey_noise), in units of the value range.
    """

    grey_noise: float
    dtype = "uint8"
    half_level = 1 / LEVELS

    def to_flow(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """x = 2 (image + u)/256 − 1, u ~ U[0, 1)."""
        self._require_dtype(images)
        return dequantize(images, generator, self.grey_noise)

    def to_images(self, x: Tensor) -> Tensor:
        """⌊128 (x + 1)⌋, clipped."""
        return quantize(x)

    def bits_per_dim(self, nll: Tensor, num_dimensions: int) -> Tensor:
        """NLL / (D log 2) + log₂ 128: for images with 256 levels."""
        return bits_per_dim(nll, num_dimensions)


@dataclass(frozen=True, eq=False)
class LatentDomain(Domain):
    """Latents of an autoencoder, stored divided by a scale: x = latent / scale + noise · spread · N(0, 1).

    Args:
        noise: share of the spread.
        spread: standard deviation of each element over the training set, (C, H, W), of the latents as stored.
        scale: what the autoencoder's latents were divided by, their largest absolute value on the training set.
    """

    noise: float
    spread: Tensor
    scale: float = 1.0
    dtype = "float16"

    def to_flow(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """x = stored latent + noise · spread · ε, ε ~ N(0, 1)."""
        self._require_dtype(images)
        if images.shape[1:] != self.spread.shape:
            expected, received = tuple(self.spread.shape), tuple(images.shape[1:])
            raise DataError(f"latents: expected (C, H, W) = {expected} like their spread, received {received}")
        x = images.to(torch.get_default_dtype())
        if generator is not None and self.noise > 0:
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x += noise.mul_(self.noise * self.spread.to(x))
        return x

    def to_images(self, x: Tensor) -> Tensor:
        """x in half precision, clipped to its range."""
        largest = torch.finfo(torch.float16).max
        return x.clamp(-largest, largest).to(torch.float16)

    def bits_per_dim(self, nll: Tensor, num_dimensions: int) -> Tensor:
        """NLL / (D log 2) + log₂ scale: of the density of the autoencoder's own latents; may be negative.

        The flow sees u / scale of a latent u, so p(u) = p(u / scale) / scale^D.
        """
        return nll / (num_dimensions * math.log(2)) + math.log2(self.scale)


def domain_of(meta: Mapping[str, Any], *, grey_noise: float, latent_noise: float) -> Domain:
    """Choose the domain of an image set.

    Args:
        meta: an image set's `meta`, or a model's `data`: its dtype (uint8 where none is given), and for latents, which
            are float16, extra.spread, (C, H, W), and extra.scale (1 where none is given).
        grey_noise: of pixels, see :class:`PixelDomain`.
        latent_noise: of latents, see :class:`LatentDomain`.

    Raises:
        DataError: latents without their spread, or with a scale that is not a positive number.
    """
    if meta.get("dtype", PixelDomain.dtype) == PixelDomain.dtype:
        return PixelDomain(grey_noise)
    try:
        spread = torch.tensor(meta["extra"]["spread"], dtype=torch.float32)  # MPS has no float64
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{meta.get('name')}: expected latents with extra.spread, received none") from None
    if spread.ndim != 3:
        raise DataError(f"{meta.get('name')}: expected extra.spread (C, H, W), received {tuple(spread.shape)}")
    improper = spread[~(torch.isfinite(spread) & (spread >= 0))]
    if len(improper):
        raise DataError(f"{meta.get('name')}: expected extra.spread of at least 0, received {improper[0]:g}")
    scale = meta["extra"].get("scale")
    scale = 1.0 if scale is None else scale
    if not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise DataError(f"{meta.get('name')}: expected a positive extra.scale, received {scale!r}")
    return LatentDomain(latent_noise, spread, float(scale))
