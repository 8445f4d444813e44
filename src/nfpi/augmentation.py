"""Latent augmentation (NFA, §5.3): images of one class mixed in the span of the PCA axes of their latents.

The images of a class go through the flow f; the leading principal axes of their latents are the columns of V (D, A).
Each latent z then moves towards that of a random other image of the class within that span, and back through f⁻¹:

    z' = z + s V Vᵀ (z_partner − z),    variant = image + f⁻¹(z') − f⁻¹(z),

with a share of the way s = strength · u, u ~ Beta(c, c), or s = strength. f⁻¹(z) is the image with the noise that the
flow sees on it: so that noise is taken off again, and s = 0 gives the image back.

A class at a time is held, N_class · D float32 latents: 61 MB for CIFAR10's 5000 × 3072, 21 MB for the 1300 × 4096 of an
ImageNet class, a GiB for 65 thousand images of that size. Nothing grows with the number of classes or with D².
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from nfpi.config.settings import NfaConfig
from nfpi.data.errors import DataError
from nfpi.data.domain import Domain
from nfpi.data.store import ImageSet
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.flows.dequantization import LEVELS
from nfpi.linalg import precise_dtype
from nfpi.runtime.randomness import derive_seed, generator_for

_OVERSAMPLING = 10
_POWER_ITERATIONS = 4
_DRAWS = 10


def class_axes(blocks: Iterable[Tensor], num_axes: int, generator: torch.Generator) -> Tensor:
    """The leading principal axes of latents that pass by in blocks, by a randomized SVD.

    Subspace iteration from a Gaussian test matrix (Halko, Martinsson & Tropp 2011, Alg. 4.4) on the scatter
    S = Σ (z − m)(z − m)ᵀ: Q ← orth(S Q), then V = Q U with Qᵀ S Q = U Λ Uᵀ. Only products S Q are formed, a block at a
    time, so besides a block it takes D · (A + 10) numbers.

    Args:
        blocks: latents (B, D), read six times over: a tensor's `split`, or what encodes anew each time.
        num_axes: axes to find; there are no more than N − 1 and no more than D.
        generator: of the test matrix, on the CPU.

    Returns:
        V, (D, A), orthonormal columns in the order of falling variance, with A = min(num_axes, N − 1, D).
    """
    count, total = 0, torch.zeros(())
    for block in blocks:
        count, total = count + len(block), total.to(block.device) + block.to(precise_dtype(block.device)).sum(0)
    mean = total / count
    found = min(num_axes, count - 1, len(mean))

    def scatter_times(q: Tensor) -> Tensor:
        factor, product = q.to(mean), torch.zeros_like(q, dtype=mean.dtype, device=mean.device)
        for block in blocks:
            centred = block.to(mean) - mean
            product += centred.T @ (centred @ factor)
        return product.cpu().double()  # small from here on, and not every device factorises

    columns = min(found + _OVERSAMPLING, len(mean))
    q = torch.randn(len(mean), columns, generator=generator, dtype=torch.float64)
    for _ in range(_POWER_ITERATIONS):
        q = torch.linalg.qr(scatter_times(q)).Q
    rotation = torch.linalg.eigh(q.T @ scatter_times(q)).eigenvectors.flip(1)
    return (q @ rotation)[:, :found]


def mix_in_span(z: Tensor, partner: Tensor, axes: Tensor, share: Tensor) -> Tensor:
    """z' = z + s V Vᵀ (z_partner − z): a share s of the way to the partner, within the span of the axes.

    Args:
        z, partner: (B, D).
        axes: V, (D, A), orthonormal columns.
        share: s, (B,).

    Returns:
        (B, D).
    """
    return z + share[:, None] * ((partner - z) @ axes @ axes.T)


@torch.no_grad()
def augment_images(
    flow: MatrixExponentialFlow,
    image_set: ImageSet,
    config: NfaConfig,
    *,
    seed: int,
    domain: Domain,
    device: torch.device,
    indices: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Variants of images, class by class.

    Axes and partners are of all images of a class, whichever are asked for, so an image's variants are the same alone
    and among others. A latent whose inverse overflows gets another partner and share.

    Args:
        seed: all of the randomness; it depends on the batch size as well, and on the images of the class.
        domain: what the flow was trained on.
        indices: images to augment; none: all.

    Yields:
        indices (B,) of images, and their variants (B, variants, C, H, W) in the domain's dtype, on the CPU.

    Raises:
        ValueError: the images do not fit the flow, or a class has one image only.
        FloatingPointError: latents, or images for every draw, are not finite.
    """
    if flow.shape != image_set.shape:
        raise ValueError(f"images: expected (C, H, W) = {flow.shape} for this flow, received {image_set.shape}")
    flow.eval()
    wanted = np.zeros(len(image_set), bool)
    wanted[slice(None) if indices is None else indices] = True
    for label in np.unique(image_set.labels[wanted]).tolist():
        yield from _ClassImages(flow, image_set, label, config, seed, domain, device).augmented(wanted)


def augmented_variants(
    flow: MatrixExponentialFlow,
    image_set: ImageSet,
    indices: np.ndarray,
    config: NfaConfig,
    *,
    seed: int,
    domain: Domain,
    device: torch.device,
) -> Tensor:
    """The variants that :func:`augment_images` makes of some images, in the order of `indices`.

    Returns:
        (len(indices), variants, C, H, W) in the domain's dtype, on the CPU.
    """
    made = augment_images(flow, image_set, config, seed=seed, domain=domain, device=device, indices=np.asarray(indices))
    variants = {index: some for places, block in made for index, some in zip(places.tolist(), block, strict=True)}
    return torch.stack([variants[index] for index in np.asarray(indices).tolist()])


class _ClassImages:
    """The images of one class, in blocks of the batch size, with their latents and the axes of these."""

    def __init__(
        self,
        flow: MatrixExponentialFlow,
        image_set: ImageSet,
        label: int,
        config: NfaConfig,
        seed: int,
        domain: Domain,
        device: torch.device,
    ) -> None:
        members = np.flatnonzero(image_set.labels == label)
        self._name = f"class '{image_set.classes[label]}'"
        if len(members) < 2:
            raise DataError(f"{self._name}: expected two images or more to mix, received {len(members)}")
        self._flow, self._image_set, self._config, self._domain = flow, image_set, config, domain
        self._key, self._device = (seed, "augment", label), device
        self._blocks = np.split(members, range(config.batch_size, len(members), config.batch_size))
        self._latents = torch.cat([flow(self._block(block)[1])[0].flatten(1) for block in range(len(self._blocks))])
        if not torch.isfinite(self._latents).all():
            raise FloatingPointError(f"{self._name}: expected finite latents, received NaN or infinity")
        generator = generator_for("cpu", *self._key, "axes")
        self._axes = class_axes(self._latents.split(config.batch_size), config.axes, generator).to(self._latents)
        self._draw = cache(partial(_draw_pairs, config, len(members), self._key))

    def augmented(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Indices (B,) and variants (B, variants, C, H, W) of the images for which `wanted` (N,) is true."""
        for block, members in enumerate(self._blocks):
            chosen = np.flatnonzero(wanted[members])
            if not len(chosen):
                continue
            still, x = (images[chosen] for images in self._block(block))
            rows = torch.from_numpy(block * self._config.batch_size + chosen)
            mixed = (self._inverse(rows, variant, x) for variant in range(self._config.variants))
            yield members[chosen], torch.stack([self._domain.to_images(still + y - x).cpu() for y in mixed], 1)

    def _block(self, block: int) -> tuple[Tensor, Tensor]:
        """A block's images as the flow would see them without noise, and as it does: the same noise each time."""
        stored = torch.from_numpy(np.asarray(self._image_set.images[self._blocks[block]]))
        images = stored.permute(0, 3, 1, 2).contiguous().to(self._device)
        still = self._domain.to_flow(images, None)
        if images.dtype == torch.uint8:
            still += 1 / LEVELS  # half a grey level: the middle of what is stored as this one
        return still, self._domain.to_flow(images, generator_for(self._device, *self._key, "noise", block))

    def _inverse(self, rows: Tensor, variant: int, x: Tensor) -> Tensor:
        """f⁻¹(z') of the latents at `rows` (B,), each by the first of its draws for which it is finite; like x."""
        mixed = torch.empty_like(x)
        left = torch.arange(len(rows))
        for attempt in range(_DRAWS):
            partner, share = (drawn[rows[left], variant] for drawn in self._draw(attempt))
            z = mix_in_span(self._latents[rows[left]], self._latents[partner], self._axes, share.to(self._latents))
            inverse = self._flow.inverse(z)[0]
            mixed[left] = inverse
            left = left[~torch.isfinite(inverse.flatten(1)).all(1).cpu()]
            if not len(left):
                return mixed
        raise FloatingPointError(
            f"{self._name}: {len(left)} of {len(rows)} augmented images stay not finite after {_DRAWS} draws; "
            "try a smaller strength"
        )


def _draw_pairs(config: NfaConfig, count: int, key: tuple[int, str, int], attempt: int) -> tuple[Tensor, Tensor]:
    """For each image of a class its partners, all others alike, and the shares of the way: (N, variants) each."""
    generator = np.random.default_rng(derive_seed(*key, "mix", attempt))
    distance = generator.integers(1, count, (count, config.variants))
    partner = (np.arange(count)[:, None] + distance) % count
    beta = generator.beta(config.concentration, config.concentration, partner.shape)
    share = config.strength * (beta if config.law == "beta" else np.ones_like(beta))
    return torch.from_numpy(partner), torch.from_numpy(share)
