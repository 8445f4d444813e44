"""The autoencoder whose latents a flow may see in place of pixels: diffusers' AutoencoderKL, from a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from nfpi.data.errors import DataError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

LEVELS = 127.5
"""half the range of 8-bit values: an autoencoder sees image/127.5 − 1"""


def load_autoencoder(folder: Path, device: torch.device | str) -> AutoencoderKL:
    """Read an autoencoder (config.json and diffusion_pytorch_model.safetensors), in float32; nothing is downloaded.

    Raises:
        DataError: diffusers is not installed, or the folder holds something else.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise DataError(f"vae: expected diffusers (pip install 'nfpi[imagenet]'), received none ({error})") from None
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: expected a folder of a diffusers AutoencoderKL, received none")
    try:
        # safetensors only: the other form is a pickle
        loaded, info = AutoencoderKL.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # else a warning about accelerate
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder}: expected a diffusers AutoencoderKL, received something else ({reason})") from None
    if info["missing_keys"]:  # which would stay random
        raise DataError(
            f"{folder}: expected all weights of the autoencoder, received none of {info['missing_keys'][0]}"
        )
    autoencoder: AutoencoderKL = loaded.float().to(device).eval()
    return autoencoder.requires_grad_(False)


def latent_shape(autoencoder: AutoencoderKL, height: int, width: int) -> tuple[int, int, int]:
    """Shape (h, w, C) of the latents of images of H×W pixels.

    Raises:
        DataError: H or W is no multiple of the autoencoder's reduction.
    """
    reduction = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    if height % reduction or width % reduction:
        raise DataError(f"image_size: expected a multiple of {reduction} for this vae, received {width}×{height}")
    return height // reduction, width // reduction, autoencoder.config.latent_channels


@torch.no_grad()
def encode(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Means of the latents of images, not scaled by anything.

    Args:
        autoencoder: on some device.
        images: (B, 3, H, W), uint8.

    Returns:
        (B, C, h, w), float32, on that device.
    """
    latents: Tensor = autoencoder.encode(images.to(autoencoder.device).float() / LEVELS - 1).latent_dist.mode()
    return latents


@torch.no_grad()
def decode(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images of latents: the nearest 8-bit values, clipped.

    Args:
        autoencoder: on some device.
        latents: (B, C, h, w), not scaled.

    Returns:
        (B, 3, H, W), uint8, on that device.
    """
    pixels = autoencoder.decode(latents.to(autoencoder.device).float()).sample
    return ((pixels + 1) * LEVELS).round().clamp(0, 255).to(torch.uint8)


def load_decoder(meta: Mapping[str, Any], device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """The way from stored latents to pixels.

    Args:
        meta: of a set of latents, real or made; or `header["data"]` of a flow that was trained on some. Its `extra.vae`
            names the autoencoder's folder, its `extra.scale` is what the latents were divided by.
        device: where it is to work.

    Returns:
        stored latents (B, C, h, w), float16 ↦ images (B, 3, H, W), uint8, on `device`.

    Raises:
        DataError: these are no latents, or their autoencoder cannot be read.
    """
    extra = meta["extra"]
    if "vae" not in extra or "scale" not in extra:
        raise DataError(f"{meta['name']}: expected latents with extra.vae and extra.scale, received none")
    autoencoder, scale = load_autoencoder(Path(extra["vae"]), device), float(extra["scale"])
    return lambda latents: decode(autoencoder, latents.float() * scale)
