"""Latent augmentation (NFA, §5.3): images of one class mixed in the span of the PCA axes of their latents.

The leading principal axes of the latents of a class, under the flow f, are the columns of V (D, A). Each latent z moves
towards that of another random image of the class within their span, and f⁻¹ maps it back:

    z' = z + s V Vᵀ (z_partner − z),    variant = image + f⁻¹(z') − f⁻¹(z),

with a share of the way s = strength · u, u ~ Beta(c, c), or s = strength. f⁻¹(z) is the image with its
dequantisation noise: the noise is subtracted again, and s = 0 gives the image back.

One class is in memory at a time, N_class · D float32 latents: 61 MB for CIFAR10's 5000 × 3072, 21 MB for the
1300 × 4096 of an ImageNet class, a GiB for 65 thousand images of that size. Nothing grows with the number of
classes or with D².
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from nfpi.config.generation import NfaConfig
from nfpi.data.domain import Domain
from nfpi.data.errors import DataError
from nfpi.data.store import ImageSet
from nfpi.flows.dequantization import LEVELS
from nfpi.flows.image_flow import ImageFlow
from nfpi.linalg import precise_dtype
from nfpi.runtime.randomness import derive_seed, generator_for

_OVERSAMPLING = 10
_POWER_ITERATIONS = 4
_DRAWS = 10


def class_axes(blocks: Iterable[Tensor], num_axes: int, generator: torch.Generator) -> Tensor:
    """Compute the leading principal axes of latents, read in blocks, by a randomized SVD.

    Subspace iteration from a Gaussian test matrix (Halko, Martinsson & Tropp 2011, Alg. 4.4) on the scatter
    S = Σ (z − m)(z − m)ᵀ: Q ← orth(S Q), then V = Q U with Qᵀ S Q = U Λ Uᵀ. Only products S Q are formed, a block at a
    time, so besides a block it takes D · (A + 10) numbers.

    Args:
        blocks: latents (B, D), iterated over six times: a tensor's `split`, or an iterable that encodes anew each time.
        num_axes: axes to find; there are no more than N − 1 and no more than D.
        generator: of the test matrix, on the CPU.

    Returns:
        V, (D, A), orthonormal columns in the order of decreasing variance, with A = min(num_axes, N − 1, D).
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
    """Move latents a share s of the way to their partners within the span of the axes: z' = z + s V Vᵀ (z_partner − z).

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
    flow: ImageFlow,
    image_set: ImageSet,
    config: NfaConfig,
    *,
    seed: int,
    domain: Domain,
    device: torch.device,
    indices: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Make variants of images, class by class.

    Axes and partners come from all images of a class, whichever are augmented, so an image's variants do not depend on
    `indices`. A latent whose inverse overflows gets another partner and share.

    Args:
        flow: f, on `device`.
        image_set: images of the flow's shape.
        config: axes, strength, number of variants.
        seed: of all random numbers, which depend on the batch size and on the images of the class as well.
        domain: what the flow was trained on.
        device: where latents are computed and inverted.
        indices: images to augment; None: all.

    Yields:
        indices (B,) of images, and their variants (B, variants, C, H, W) in the domain's dtype, on the CPU.

    Raises:
        ValueError: the images do not fit the flow, or a class has one image only.
        FloatingPointError: latents, or the images of all draws, are not finite.
    """
    if flow.shape != image_set.shape:
        raise ValueError(f"images: expected (C, H, W) = {flow.shape} for this flow, received {image_set.shape}")
    flow.eval()
    wanted = np.zeros(len(image_set), bool)
    wanted[slice(None) if indices is None else indices] = True
    for label in np.unique(image_set.labels[wanted]).tolist():
        yield from _ClassImages(flow, image_set, label, config, seed, domain, device).variants(wanted)


def make_variants(
    flow: ImageFlow,
    image_set: ImageSet,
    indices: np.ndarray,
    config: NfaConfig,
    *,
    seed: int,
    domain: Domain,
    device: torch.device,
) -> Tensor:
    """Make the variants of some images that :func:`augment_images` makes, in the order of `indices`.

    Returns:
        (len(indices), variants, C, H, W) in the domain's dtype, on the CPU.
    """
    made = augment_images(flow, image_set, config, seed=seed, domain=domain, device=device, indices=np.asarray(indices))
    variants = {index: some for places, block in made for index, some in zip(places.tolist(), block, strict=True)}
    return torch.stack([variants[index] for index in np.asarray(indices).tolist()])


class _ClassImages:
    """The images of one class, in blocks of the batch size, with their latents and the principal axes of these."""

    def __init__(
        self,
        flow: ImageFlow,
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

    def variants(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Indices (B,) and variants (B, variants, C, H, W) of the images for which `wanted` (N,) is true."""
        for block, members in enumerate(self._blocks):
            chosen = np.flatnonzero(wanted[members])
            if not len(chosen):
                continue
            clean, noisy = (images[chosen] for images in self._block(block))
            rows = torch.from_numpy(block * self._config.batch_size + chosen)
            mixed = (self._inverse(rows, variant, noisy) for variant in range(self._config.variants))
            yield members[chosen], torch.stack([self._domain.to_images(clean + x - noisy).cpu() for x in mixed], 1)

    def _block(self, block: int) -> tuple[Tensor, Tensor]:
        """A block's images as the flow would see them without noise, and with it: the same noise each time."""
        stored = torch.from_numpy(np.asarray(self._image_set.images[self._blocks[block]]))
        images = stored.permute(0, 3, 1, 2).contiguous().to(self._device)
        clean = self._domain.to_flow(images, None)
        if images.dtype == torch.uint8:
            clean += 1 / LEVELS  # half a grey level: the middle of the values that are stored as this level
        return clean, self._domain.to_flow(images, generator_for(self._device, *self._key, "noise", block))

    def _inverse(self, rows: Tensor, variant: int, images: Tensor) -> Tensor:
        """f⁻¹(z') of the latents at `rows` (B,), each with the first draw for which it is finite."""
        mixed = torch.empty_like(images)
        left = torch.arange(len(rows))
        for attempt in range(_DRAWS):
            partner, share = (drawn[rows[left], variant] for drawn in self._draw(attempt))
            z = mix_in_span(self._latents[rows[left]], self._latents[partner], self._axes, share.to(self._latents))
            inverse = self._flow.inverse(z.view(-1, *self._flow.shape))[0]
            mixed[left] = inverse
            left = left[~torch.isfinite(inverse.flatten(1)).all(1).cpu()]
            if not len(left):
                return mixed
        raise FloatingPointError(
            f"{self._name}: {len(left)} of {len(rows)} augmented images stay not finite after {_DRAWS} draws; "
            "try a smaller strength"
        )


def _draw_pairs(config: NfaConfig, count: int, key: tuple[int, str, int], attempt: int) -> tuple[Tensor, Tensor]:
    """For each image of a class partners, uniform over the others, and shares of the way: (N, variants) each."""
    generator = np.random.default_rng(derive_seed(*key, "mix", attempt))
    distance = generator.integers(1, count, (count, config.variants))
    partner = (np.arange(count)[:, None] + distance) % count
    beta = generator.beta(config.concentration, config.concentration, partner.shape)
    share = config.strength * (beta if config.law == "beta" else np.ones_like(beta))
    return torch.from_numpy(partner), torch.from_numpy(share)
