"""Deterministic passes of images through a flow and back, in batches of bounded memory.

A flow models the density of dequantised images x = image + u. Training and the workflow's evaluation draw
u anew for every image; here, all images share one draw u (C, H, W), so that an image has one latent and one density,
independent of its batch. As u is a draw and not the middle of its range, the bits/dim are an unbiased estimate of those
under random noise: on digits 6.282 against 6.288. The middle is more likely than the noise that the flow was trained
with, by 0.27 bits/dim there. Results of one image in different batches agree up to float32 rounding, because
convolution kernels depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from nfpi.data.domain import Domain
from nfpi.flows.image_flow import ImageFlow
from nfpi.model.compilation import CompiledNets
from nfpi.runtime.precision import full_precision
from nfpi.runtime.randomness import generator_for

_PIXELS = 2**18
"""pixels per batch, i.e. 256 images of 32×32"""
_LARGEST_BATCH = 1024


def batch_size_of(flow: ImageFlow) -> int:
    """Return the images per batch of bounded memory: 2¹⁸ pixels, and at most 1024 images."""
    _, height, width = flow.shape
    return max(1, min(_LARGEST_BATCH, _PIXELS // (height * width)))


def device_of(flow: ImageFlow) -> torch.device:
    """Return the device of a flow's weights; the CPU if it has no weights."""
    weight = next(flow.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


@contextmanager
def strict_inference(flow: ImageFlow, nets: CompiledNets | None = None) -> Iterator[None]:
    """Compute without gradients and in float32, regardless of the caller's precision; with compiled networks, if any.

    Args:
        flow: in evaluation mode within the context.
        nets: its compiled networks.
    """
    training = flow.training
    flow.eval()
    try:
        with torch.no_grad(), full_precision(), nullcontext() if nets is None else nets.used_in(flow):
            yield
    finally:
        flow.train(training)


def fixed_noise(domain: Domain, shape: tuple[int, int, int]) -> Tensor:
    """Return u, the draw of a domain's noise that all images share, (1, C, H, W), on the CPU."""
    nothing = torch.zeros(1, *shape, dtype=getattr(torch, domain.dtype))
    return domain.to_flow(nothing, generator_for("cpu", 0, "fixed noise")) - domain.to_flow(nothing, None)


def forward_batches(flow: ImageFlow, domain: Domain, images: np.ndarray) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Pass images (N, H, W, C) with the fixed noise through a flow.

    Yields:
        slice of the batch in `images`; z (B, C, H, W) and log |det ∂z/∂x| (B,), on the flow's device.
    """
    device, size = device_of(flow), batch_size_of(flow)
    noise = fixed_noise(domain, flow.shape).to(device)
    for begin in range(0, len(images), size):
        place = slice(begin, begin + size)
        stored = torch.from_numpy(np.array(images[place].transpose(0, 3, 1, 2), order="C")).to(device)
        z, log_abs_det = flow(domain.to_flow(stored, None).add_(noise))
        yield place, z, log_abs_det


def inverse_batches(flow: ImageFlow, domain: Domain, latents: Tensor) -> Iterator[np.ndarray]:
    """Pass latents (N, C, H, W) through the inverse of a flow, and subtract the fixed noise.

    Yields:
        images (B, H, W, C) in the domain's dtype.

    Raises:
        FloatingPointError: the inverse of a latent is not finite.
    """
    device = device_of(flow)
    noise = fixed_noise(domain, flow.shape).to(device)
    for number, block in enumerate(latents.split(batch_size_of(flow))):
        x = flow.inverse(block.to(device))[0]
        bad = (~torch.isfinite(x.flatten(1)).all(1)).nonzero()
        if len(bad):
            index = number * batch_size_of(flow) + int(bad[0, 0])
            raise FloatingPointError(
                f"latents: the inverse of latent {index} is not finite: is it far from all classes?"
            )
        # without noise, each grey level is at the lower end of its interval, up to rounding
        yield domain.to_images(x - noise + domain.half_level).permute(0, 2, 3, 1).cpu().numpy()
