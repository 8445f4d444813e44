"""Autoencoder (diffusers' AutoencoderKL) on whose latents a flow may be trained instead of on pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from nfpi.config.datasets import DataError
from nfpi.data.sources.files import AUTOENCODER_FILES
from nfpi.runtime.faults import format_error
from nfpi.runtime.precision import tensor_float32

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

HALF_RANGE = 127.5
"""half the range of 8-bit values; inputs of the autoencoder are image/127.5 − 1"""


def load_autoencoder(folder: Path, device: torch.device | str) -> AutoencoderKL:
    """Load an autoencoder in float32 from config.json and diffusion_pytorch_model.safetensors.

    Nothing is downloaded.

    Raises:
        DataError: diffusers is not installed, or the folder does not contain such an autoencoder.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise DataError(f"vae: expected diffusers (pip install 'nfpi[imagenet]'), received none ({error})") from None
    # a model's config.json may be foreign: a name on the hub or a pipe is no folder of an autoencoder
    if not all((folder / name).is_file() for name in AUTOENCODER_FILES):
        raise DataError(f"{folder}: expected a diffusers AutoencoderKL, received no {' and '.join(AUTOENCODER_FILES)}")
    try:
        # only safetensors: the alternative is a pickle
        loaded, info = AutoencoderKL.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # avoids a warning about accelerate
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = format_error(error)
        raise DataError(f"{folder}: expected a diffusers AutoencoderKL, received something else ({reason})") from None
    if info["missing_keys"]:  # these would be random
        raise DataError(
            f"{folder}: expected all weights of the autoencoder, received none for {info['missing_keys'][0]}"
        )
    autoencoder: AutoencoderKL = loaded.float().to(device).eval()
    return autoencoder.requires_grad_(False)


def compute_latent_shape(autoencoder: AutoencoderKL, height: int, width: int) -> tuple[int, int, int]:
    """Compute the shape (h, w, C) of the latents of images of H×W pixels.

    Raises:
        DataError: H or W is not a multiple of the autoencoder's downsampling factor.
    """
    reduction = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    if height % reduction or width % reduction:
        raise DataError(f"image_size: expected a multiple of {reduction} for this vae, received {width}×{height}")
    return height // reduction, width // reduction, autoencoder.config.latent_channels


@torch.no_grad()
@tensor_float32()
def encode(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode images as the means of their latent distributions, unscaled.

    Convolutions are in TF32 on GPUs that support it: its mantissa has 10 bits like that of float16, the dtype in which
    latents are stored.

    Args:
        autoencoder: autoencoder on any device.
        images: (B, 3, H, W), uint8.

    Returns:
        (B, C, h, w), float32, on the autoencoder's device.
    """
    latents: Tensor = autoencoder.encode(images.to(autoencoder.device).float() / HALF_RANGE - 1).latent_dist.mode()
    return latents


@torch.no_grad()
def decode(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode latents to 8-bit images, rounded and clipped.

    Args:
        autoencoder: autoencoder on any device.
        latents: (B, C, h, w), unscaled.

    Returns:
        (B, 3, H, W), uint8, on the autoencoder's device.
    """
    pixels: Tensor = autoencoder.decode(latents.to(autoencoder.device).float()).sample.float()
    return ((pixels + 1) * HALF_RANGE).round().clamp(0, 255).to(torch.uint8)


def load_decoder(meta: Mapping[str, Any], device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """Load the decoder of stored latents.

    Args:
        meta: metadata of a set of latents, or `data` of a model trained on such a set. `extra.vae` is the folder of the
            autoencoder; latents were divided by `extra.scale` before they were stored.
        device: device of the autoencoder.

    Returns:
        A function from stored latents (B, C, h, w), float16, to images (B, 3, H, W), uint8, on `device`.

    Raises:
        DataError: `meta` does not describe latents, or the autoencoder cannot be read.
    """
    extra = meta["extra"]
    if "vae" not in extra or "scale" not in extra:
        raise DataError(f"{meta['name']}: expected latents with extra.vae and extra.scale, received none")
    autoencoder, scale = load_autoencoder(Path(extra["vae"]), device), float(extra["scale"])
    return lambda latents: decode(autoencoder, latents.float() * scale)
