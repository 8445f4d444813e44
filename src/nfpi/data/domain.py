"""Conversion between stored images and the inputs of a flow: 8-bit pixels, latents of an autoencoder, or vectors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import FiniteFloat
from torch import Tensor

from nfpi.config.base import NonNegativeFloat, PositiveFloat
from nfpi.config.datasets import DataError
from nfpi.flows.dequantization import GREY_LEVELS, bits_per_dim, dequantize, quantize
from nfpi.runtime.formats import Record, check_record

_SMALLEST_SPREAD = 1e-4
"""smallest standard deviation of an element of vectors, relative to its mean"""


class Domain(ABC):
    """Conversion of stored images (B, C, H, W) to inputs x of a flow, and back."""

    dtype: str
    """NumPy dtype of the stored images"""
    half_level: float = 0.0
    """half the width of the interval of inputs x that are stored as one value; without noise, x is its lower end"""

    @abstractmethod
    def to_flow(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Convert stored images to inputs of a flow.

        Args:
            images: (B, C, H, W), in the stored dtype.
            generator: source of the noise, on the device of the images; None: no noise.

        Returns:
            (B, C, H, W), float32.
        """

    @abstractmethod
    def to_images(self, x: Tensor) -> Tensor:
        """Convert x (B, C, H, W) to stored images."""

    def subtract_noise(self, images: np.ndarray) -> np.ndarray:
        """Subtract the mean of the noise, beyond that of dequantisation, from sampled images (N, H, W, C)."""
        return images

    @abstractmethod
    def bits_per_dim(self, nll: Tensor, num_dimensions: int) -> Tensor:
        """Convert a negative log-likelihood, in nats per image, to bits per dimension."""


@dataclass(frozen=True)
class PixelDomain(Domain):
    """8-bit images, uniformly dequantised to [−1, 1), see :func:`nfpi.flows.dequantization.dequantize`.

    Args:
        grey_noise: additional noise U[0, grey_noise) of images with one channel, in units of the value range.
    """

    grey_noise: float
    dtype = "uint8"
    half_level = 1 / GREY_LEVELS

    def to_flow(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Compute x = 2 (image + u)/256 − 1, u ~ U[0, 1)."""
        return dequantize(images, generator, self.grey_noise)

    def to_images(self, x: Tensor) -> Tensor:
        """Compute ⌊128 (x + 1)⌋, clipped."""
        return quantize(x)

    def subtract_noise(self, images: np.ndarray) -> np.ndarray:
        """Subtract `grey_noise` / 2 of the value range from images with one channel; no value becomes negative."""
        mean = round(self.grey_noise * GREY_LEVELS / 2) if images.shape[3] == 1 else 0
        found: np.ndarray = np.maximum(images, mean) - np.asarray(mean, images.dtype)
        return found

    def bits_per_dim(self, nll: Tensor, num_dimensions: int) -> Tensor:
        """Compute NLL / (D log 2) + log₂ 128, for images with 256 levels."""
        return bits_per_dim(nll, num_dimensions)


@dataclass(frozen=True, eq=False)
class LatentDomain(Domain):
    """Latents of an autoencoder, divided by a scale when stored: x = latent / scale + noise · spread · N(0, 1).

    Args:
        noise: standard deviation of the noise, relative to the spread.
        spread: standard deviation of each element of the stored latents over the training set, (C, H, W).
        scale: number by which the latents are divided for storage, their largest absolute value over the training set.
    """

    noise: float
    spread: Tensor
    scale: float = 1.0
    dtype = "float16"

    def to_flow(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Compute x = stored latent + noise · spread · ε, ε ~ N(0, 1)."""
        x = images.to(torch.float32)
        if generator is not None and self.noise > 0:
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x += noise.mul_(self.noise * self.spread.to(x))
        return x

    def to_images(self, x: Tensor) -> Tensor:
        """Convert x to float16, clipped to its range."""
        largest = torch.finfo(torch.float16).max
        return x.clamp(-largest, largest).to(torch.float16)

    def bits_per_dim(self, nll: Tensor, num_dimensions: int) -> Tensor:
        """Compute NLL / (D log 2) + log₂ scale, for the density of the unscaled latents; it may be negative.

        The flow models u / scale of a latent u, and p(u) = p(u / scale) / scale^D.
        """
        return nll / (num_dimensions * math.log(2)) + math.log2(self.scale)


@dataclass(frozen=True, eq=False)
class VectorDomain(Domain):
    """Vectors of real numbers, standardised by the training data: x = (v − mean) / std + noise · ε, ε ~ N(0, 1).

    The noise keeps the variance of every class positive, where an element is constant within a class. Densities are
    those of the standardised vectors with this noise.

    Args:
        noise: standard deviation of the noise.
        mean, std: mean and standard deviation of each element over the training set, (D, 1, 1).
    """

    noise: float
    mean: Tensor
    std: Tensor
    dtype = "float32"

    def to_flow(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Compute x = (v − mean) / std + noise · ε, ε ~ N(0, 1), of vectors (B, D, 1, 1)."""
        x = (images - self.mean.to(images)) / self.std.to(images)
        if generator is not None and self.noise > 0:
            x += self.noise * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return x

    def to_images(self, x: Tensor) -> Tensor:
        """Compute v = mean + std · x."""
        return x * self.std.to(x) + self.mean.to(x)

    def bits_per_dim(self, nll: Tensor, num_dimensions: int) -> Tensor:
        """Compute NLL / (D log 2), for the density of the standardised vectors; it may be negative."""
        return nll / (num_dimensions * math.log(2))


def describe_elements(vectors: np.ndarray, *, may_be_constant: bool = False) -> dict[str, list[float]]:
    """Return mean and standard deviation of each element of training vectors (N, 1, 1, D), for `extra`.

    Args:
        vectors: the training vectors.
        may_be_constant: whether elements may be constant, such as units of a network that are never active; their
            standard deviation counts as 1.

    Raises:
        DataError: an element is constant, or so far from 0 that float32 does not resolve how it varies.
    """
    mean, std = vectors.mean((0, 1, 2), np.float64), vectors.std((0, 1, 2), np.float64)
    if may_be_constant:
        std[std <= _SMALLEST_SPREAD * abs(mean)] = 1
    elif (constant := np.flatnonzero(std <= _SMALLEST_SPREAD * abs(mean))).size:
        first = constant[0]
        raise DataError(
            f"vectors: expected columns that vary, received {mean[first]:g} ± {std[first]:g} in column {first} "
            f"({constant.size} such columns: leave out those that are constant, subtract the means of the others)"
        )
    return {"mean": mean.tolist(), "std": std.tolist()}


class _Scaling(Record):
    """What the `extra` of latents says of their numbers."""

    spread: list[list[list[NonNegativeFloat]]]
    scale: PositiveFloat | None = None


class Standardisation(Record):
    """What the `extra` of vectors says of their elements."""

    mean: list[FiniteFloat]
    std: list[PositiveFloat]


def choose_domain(meta: Mapping[str, Any], *, grey_noise: float, latent_noise: float) -> Domain:
    """Choose the domain of an image set.

    Args:
        meta: `meta` of an image set, or `data` of a model: the dtype (default: uint8), and in `extra`, for latents
            (float16), spread (C, H, W) and scale (default: 1); for vectors (float32), mean and std (D,).
        grey_noise: noise of grey pixels, see :class:`PixelDomain`.
        latent_noise: noise of latents and vectors, see :class:`LatentDomain` and :class:`VectorDomain`.

    Raises:
        DataError: `extra` lacks one of these, or it is not positive and finite.
    """
    dtype = meta.get("dtype", PixelDomain.dtype)
    if dtype == PixelDomain.dtype:
        return PixelDomain(grey_noise)
    try:
        if dtype == VectorDomain.dtype:
            standard = check_record(Standardisation, meta.get("extra"), None, "extra with mean and std of vectors")
            mean, std = (torch.tensor(values)[:, None, None] for values in (standard.mean, standard.std))
            return VectorDomain(latent_noise, mean, std)
        found = check_record(_Scaling, meta.get("extra"), None, "extra with spread and scale of latents")
        spread = torch.tensor(found.spread, dtype=torch.float32)  # MPS has no float64
    except ValueError as error:
        raise DataError(f"{meta.get('name')}: {error}") from None
    return LatentDomain(latent_noise, spread, found.scale or 1.0)
