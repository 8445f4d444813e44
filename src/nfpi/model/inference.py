"""Images into a model, and back: deterministic passes in bounded memory.

A flow models the density of dequantised images x = image + u. Training and the workflow's evaluation draw a new u for
every image. The methods of `ClassConditionalFlow` use this module instead, in which all images share one draw u
(C, H, W): an image then has one latent and one density, which do not depend on the other images of its batch.

As the shared u is a random draw, the resulting bits/dim are an unbiased estimate of those with new noise for every
image: on digits 6.282 with the shared draw and 6.288 with new noise. If u were the middle of the noise's range, they
would be biased, on digits by 0.27 bits/dim, because a flow assigns higher density to it than to the noise of training.

Results of one image in different batches may differ by float32 rounding, because convolution kernels depend on the
batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from nfpi.data.domain import Domain
from nfpi.flows.bijection import ImageFlow, device_of, evaluating
from nfpi.runtime.precision import cpu_by_default, full_precision
from nfpi.runtime.randomness import make_generator

_PIXELS = 2**18
"""Largest number of pixels per batch: 256 images of 32×32."""
_LARGEST_BATCH = 1024
"""Largest number of images per batch."""


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a seed from a generator on any device; None: torch's default one."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))


def choose_batch_size(flow: ImageFlow) -> int:
    """Return the number of images per batch, which bounds memory: at most 2¹⁸ pixels and at most 1024 images."""
    _, height, width = flow.shape
    return max(1, min(_LARGEST_BATCH, _PIXELS // (height * width)))


@contextmanager
def strict_inference(flow: ImageFlow) -> Iterator[None]:
    """Disable gradients and compute in float32, regardless of the caller's precision and default device.

    Args:
        flow: flow to put in evaluation mode; its previous mode is restored at the end.
    """
    with evaluating(flow), torch.no_grad(), full_precision(), cpu_by_default():
        yield


def draw_fixed_noise(domain: Domain, shape: tuple[int, int, int]) -> Tensor:
    """Return u, the draw of a domain's noise that all images share, (1, C, H, W), on the CPU."""
    zeros = torch.zeros(1, *shape, dtype=getattr(torch, domain.dtype))
    return domain.to_flow(zeros, make_generator("cpu", 0, "fixed noise")) - domain.to_flow(zeros, None)


def encode_batches(flow: ImageFlow, domain: Domain, images: np.ndarray) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Pass images (N, H, W, C) with the fixed noise through a flow.

    Yields:
        rows of the batch in `images` (a slice); z (B, C, H, W) and log |det ∂z/∂x| (B,), on the flow's device.
    """
    device, size = device_of(flow), choose_batch_size(flow)
    noise = draw_fixed_noise(domain, flow.shape).to(device)
    for begin in range(0, len(images), size):
        rows = slice(begin, begin + size)
        stored = torch.from_numpy(np.array(images[rows].transpose(0, 3, 1, 2), order="C")).to(device)
        z, log_abs_det = flow(domain.to_flow(stored, None).add_(noise))
        yield rows, z, log_abs_det


def decode_batches(flow: ImageFlow, domain: Domain, latents: Tensor) -> Iterator[np.ndarray]:
    """Pass latents (N, C, H, W) through the inverse of a flow, and subtract the fixed noise.

    Yields:
        images (B, H, W, C) in the domain's dtype.

    Raises:
        FloatingPointError: the inverse of a latent is not finite.
    """
    device = device_of(flow)
    noise = draw_fixed_noise(domain, flow.shape).to(device)
    for number, block in enumerate(latents.split(choose_batch_size(flow))):
        x = flow.inverse(block.to(device))[0]
        bad = (~torch.isfinite(x.flatten(1)).all(1)).nonzero()
        if len(bad):
            index = number * choose_batch_size(flow) + int(bad[0, 0])
            raise FloatingPointError(
                f"latents: the inverse of latent {index} is not finite; the latent may be far from all classes"
            )
        # Without noise, x is at the lower end of the interval of its grey level, and rounding errors may move it below.
        # half_level moves it to the centre.
        yield domain.to_images(x - noise + domain.half_level).permute(0, 2, 3, 1).cpu().numpy()
