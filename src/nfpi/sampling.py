"""Sampling of labelled images from a flow."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nfpi.data.domain import Domain
from nfpi.flows.bijection import ImageFlow, device_of
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.precision import full_precision
from nfpi.runtime.randomness import make_generator

logger = logging.getLogger(__name__)

_MAX_DRAWS = 10


@torch.no_grad()
def sample_images(
    flow: ImageFlow,
    prior: GaussianPrior,
    labels: Tensor,
    *,
    temperature: float,
    seed: int,
    domain: Domain,
    batch_size: int | None = None,
    start_batch: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw z ~ N(μ_y, T² Σ_y) and yield f⁻¹(z) in the stored dtype: 8-bit images, or latents of an autoencoder.

    The inverse of a flow may overflow for an outlying latent, which is then drawn again.

    Args:
        flow: f; latents are drawn and inverted on its device.
        prior: μ_y and Σ_y of each class y.
        labels: (N,), class of each image.
        temperature: T.
        seed: seed of all random numbers, which also depend on the batch size.
        domain: domain of the images that the flow was trained on.
        batch_size: number of latents drawn and inverted at a time; None: all.
        start_batch: number of batches to skip; the remaining ones do not depend on it.

    Yields:
        Images (B, C, H, W) in the domain's dtype and labels (B,), on the CPU, in the order of `labels`.

    Raises:
        FloatingPointError: images are still infinite or NaN after several draws of their latents.
    """
    flow.eval()
    batch_size = batch_size or len(labels)
    device = device_of(flow)
    prior = prior.to(dtype=torch.float32).to(device)
    missing = labels[start_batch * batch_size :]
    for index, chunk in enumerate(missing.split(batch_size) if len(missing) else (), start_batch):
        generator = make_generator(device, seed, "sample", index)
        chunk = chunk.to(device)
        x = _draw(flow, prior, chunk, temperature, generator)
        for draws in range(1, _MAX_DRAWS + 1):
            bad = (~torch.isfinite(x.flatten(1)).all(1)).nonzero().squeeze(1)
            if not len(bad):
                break
            logger.info("%d of %d images are not finite: their latents are drawn again", len(bad), len(chunk))
            if draws == _MAX_DRAWS:
                raise FloatingPointError(
                    f"sampling at temperature {temperature:g}: {len(bad)} of {len(chunk)} images are still not finite "
                    f"after {_MAX_DRAWS} draws; try a smaller temperature"
                )
            x[bad] = _draw(flow, prior, chunk[bad], temperature, generator)
        yield domain.to_images(x).cpu(), chunk.cpu()


@full_precision()
def _draw(
    flow: ImageFlow, prior: GaussianPrior, labels: Tensor, temperature: float, generator: torch.Generator
) -> Tensor:
    """Draw one latent z per label, and return f⁻¹(z)."""
    return flow.inverse(prior.sample(labels, temperature, generator).view(-1, *flow.shape))[0]


def compute_saturated_share(images: np.ndarray) -> float:
    """Compute the percentage of the values of 8-bit images that are 0 or 255, the ends of their range."""
    return 100 * float(np.mean((images == 0) | (images == 255)))


def balanced_labels(num_classes: int, per_class: int) -> Tensor:
    """Return the labels 0, …, 0, 1, …, 1, …, with `per_class` of each class, (K · per_class,)."""
    return torch.arange(num_classes).repeat_interleave(per_class)
