"""Latent augmentation (NFA, §5.3): mix images of one class in the span of the PCA axes of their latents.

The leading principal axes of the latents of a class, under the flow f, are the columns of V (D, A). Each latent z moves
towards that of another random image of the class within their span, and f⁻¹ maps it back:

    z' = z + s V Vᵀ (z_partner − z),    variant = image + f⁻¹(z') − f⁻¹(z),

with the mixing share s = strength · u, u ~ Beta(c, c), or the constant s = strength. As f⁻¹(z) is the image with its
dequantisation noise, the noise cancels, and s = 0 returns the image.

Mixing is compared with noise of the same norm (`displacement="noise"`): every variant keeps its partner and share,
but is displaced along ε ~ N(0, I) in the whole latent space instead of the span,

    z' = z + ‖s V Vᵀ (z_partner − z)‖ ε / ‖ε‖.

Latents are in memory for one class at a time, N_class · D float32 numbers: 61 MB for CIFAR10's 5000 × 3072, 21 MB for
the 1300 × 4096 of an ImageNet class, a GiB for 65 thousand images of that size, and twice that while they are computed.
Memory does not grow with the number of classes or with D².
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from nfpi.config.datasets import DataError
from nfpi.config.flows import Displacement, NfaConfig
from nfpi.data.domain import Domain
from nfpi.data.store import ImageSet
from nfpi.flows.bijection import ImageFlow, device_of
from nfpi.linalg import precise_dtype
from nfpi.runtime.precision import full_precision
from nfpi.runtime.randomness import derive_seed, make_generator

logger = logging.getLogger(__name__)

_OVERSAMPLING = 10
_FEWEST_ITERATIONS, _MOST_ITERATIONS = 4, 50
_TOLERANCE = 1e-3
"""The axes are converged once the variance that they explain changes by at most this share in an iteration."""
_MAX_DRAWS = 10


def compute_principal_axes(blocks: Iterable[Tensor], num_axes: int, generator: torch.Generator) -> tuple[Tensor, bool]:
    """Compute the leading principal axes of latents, read in blocks, by a randomized SVD.

    Subspace iteration from a Gaussian test matrix (Halko, Martinsson & Tropp 2011, Alg. 4.4) on the scatter
    S = Σ (z − m)(z − m)ᵀ: Q ← orth(S Q), then V = Q U with Qᵀ S Q = U Λ Uᵀ. It stops after 4 to 50 iterations, once
    the relative change of the sum of the A largest Λ is at most 1e-3; a flat spectrum takes longer. Only products S Q
    are formed, block by block, so memory is one block and D · (A + 10) numbers.

    Args:
        blocks: blocks of the N latents, each (B, D), such as `z.split(B)`; iterated over several times, so a generator
            does not work.
        num_axes: maximum number of axes.
        generator: random number generator of the test matrix, on the CPU.

    Returns:
        V, (D, A), A = min(num_axes, N − 1, D) orthonormal columns in the order of decreasing variance; and whether the
        iteration converged.
    """
    count, total = 0, torch.zeros(())
    for block in blocks:
        count, total = count + len(block), total.to(block.device) + block.to(precise_dtype(block.device)).sum(0)
    mean = total / count
    num_found = min(num_axes, count - 1, len(mean))

    def multiply_by_scatter(q: Tensor) -> Tensor:
        factor, product = q.to(mean), torch.zeros_like(q, dtype=mean.dtype, device=mean.device)
        for block in blocks:
            centred = block.to(mean) - mean
            product += centred.T @ (centred @ factor)
        return product.cpu().double()  # small, and not every device has QR in float64

    num_columns = min(num_found + _OVERSAMPLING, len(mean))
    q = torch.randn(len(mean), num_columns, generator=generator, dtype=torch.float64)
    product, explained, iterations, converged = multiply_by_scatter(q), 0.0, 0, False
    while not (converged and iterations >= _FEWEST_ITERATIONS) and iterations < _MOST_ITERATIONS:
        q = torch.linalg.qr(product).Q
        product, before = multiply_by_scatter(q), explained
        variances, rotation = torch.linalg.eigh(q.T @ product)
        explained = variances[-num_found:].sum().item()
        converged = abs(explained - before) <= _TOLERANCE * explained
        iterations += 1
    return (q @ rotation.flip(1))[:, :num_found], converged


def move_latents(z: Tensor, partner: Tensor, axes: Tensor, share: Tensor, direction: Tensor | None = None) -> Tensor:
    """Move latents by s V Vᵀ (z_partner − z), a share s of the way to their partners within the span of the axes.

    Args:
        z, partner: (B, D).
        axes: V, (D, A), orthonormal columns.
        share: s, (B,).
        direction: (B, D), not zero: move as far along this direction instead, whatever its length; None: do not.

    Returns:
        z', (B, D).
    """
    displacement: Tensor = share[:, None] * ((partner - z) @ axes @ axes.T)
    if direction is not None:
        distance = displacement.norm(dim=1, keepdim=True)
        displacement = distance * direction / direction.norm(dim=1, keepdim=True)
    return z + displacement


@torch.no_grad()
def augment_images(
    flow: ImageFlow,
    image_set: ImageSet,
    config: NfaConfig,
    *,
    seed: int,
    domain: Domain,
    indices: np.ndarray | None = None,
    displacement: Displacement = "mix",
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Make variants of images, class by class.

    Axes and partners are computed from all images of a class, so an image's variants do not depend on `indices`. A
    latent whose inverse overflows gets another partner and share, and with `noise` another direction.

    Args:
        flow: f; latents are computed and inverted on its device.
        image_set: images of the flow's shape.
        config: axes, strength, number of variants.
        seed: seed of all random numbers, which also depend on the batch size and on the size of the class.
        domain: domain of the images that the flow was trained on.
        indices: images to augment; None: all.
        displacement: `mix`: towards the partner within the span of the axes; `noise`: as far in a random direction.

    Yields:
        Indices (B,) of images, and their variants (B, variants, C, H, W) in the domain's dtype, on the CPU.

    Raises:
        ValueError: the images do not fit the flow, or a class has only one image.
        FloatingPointError: latents are not finite, or images are still not finite after several draws.
    """
    if flow.shape != image_set.shape:
        raise ValueError(f"images: expected (C, H, W) = {flow.shape} for this flow, received {image_set.shape}")
    flow.eval()
    wanted = np.zeros(len(image_set), bool)
    wanted[slice(None) if indices is None else indices] = True
    for label in np.unique(image_set.labels[wanted]).tolist():
        class_images = _ClassImages(flow, image_set, label, config, seed, domain, displacement)
        yield from class_images.yield_variants(wanted)
        del class_images  # before those of the next class are computed


@dataclass(eq=False)
class _ClassImages:
    """The images of one class in blocks of the batch size, with their latents and principal axes."""

    flow: ImageFlow
    image_set: ImageSet
    label: int
    config: NfaConfig
    seed: int
    domain: Domain
    displacement: Displacement

    @full_precision()
    def __post_init__(self) -> None:
        config, members = self.config, np.flatnonzero(self.image_set.labels == self.label)
        self._name = f"class '{self.image_set.classes[self.label]}'"
        if len(members) < 2:
            raise DataError(f"{self._name}: expected two images or more to mix, received {len(members)}")
        self._key, self._device = (self.seed, "augment", self.label), device_of(self.flow)
        self._blocks = np.split(members, range(config.batch_size, len(members), config.batch_size))
        self._latents = torch.cat(
            [self.flow(self._load_block(block)[1])[0].flatten(1) for block in range(len(self._blocks))]
        )
        if not torch.isfinite(self._latents).all():
            raise FloatingPointError(f"{self._name}: expected finite latents, received NaN or infinity")
        generator = make_generator("cpu", *self._key, "axes")
        axes, converged = compute_principal_axes(self._latents.split(config.batch_size), config.axes, generator)
        if not converged:
            logger.warning("%s: the PCA axes have not converged", self._name)
        self._axes = axes.to(self._latents)
        self._draw_attempt = cache(partial(_draw_pairs, config, len(members), self._key))

    def yield_variants(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield indices (B,) and variants (B, variants, C, H, W) of the images for which `wanted` (N,) is true."""
        for block, members in enumerate(self._blocks):
            chosen = np.flatnonzero(wanted[members])
            if not len(chosen):
                continue
            clean, noisy = (images[chosen] for images in self._load_block(block))
            mixed = (self._invert(block, chosen, variant, noisy) for variant in range(self.config.variants))
            yield members[chosen], torch.stack([self.domain.to_images(clean + x - noisy).cpu() for x in mixed], 1)

    def _load_block(self, block: int) -> tuple[Tensor, Tensor]:
        """Load the flow inputs of a block, without and with noise; the noise is the same at every call."""
        stored = torch.from_numpy(np.asarray(self.image_set.images[self._blocks[block]]))
        images = stored.permute(0, 3, 1, 2).contiguous().to(self._device)
        clean = self.domain.to_flow(images, None).add_(self.domain.half_level)
        return clean, self.domain.to_flow(images, make_generator(self._device, *self._key, "noise", block))

    @full_precision()
    def _invert(self, block: int, chosen: np.ndarray, variant: int, images: Tensor) -> Tensor:
        """Compute f⁻¹(z') of the latents at the chosen places (B,) of a block; each keeps its first finite result."""
        rows = torch.from_numpy(block * self.config.batch_size + chosen)
        mixed = torch.empty_like(images)
        left = torch.arange(len(rows))
        for attempt in range(_MAX_DRAWS):
            z = self._displace(block, chosen[left.numpy()], variant, attempt)
            inverse = self.flow.inverse(z.view(-1, *self.flow.shape))[0]
            mixed[left] = inverse
            left = left[~torch.isfinite(inverse.flatten(1)).all(1).cpu()]
            if not len(left):
                return mixed
        raise FloatingPointError(
            f"{self._name}: {len(left)} of {len(rows)} augmented images are still not finite after {_MAX_DRAWS} draws; "
            "try a smaller strength"
        )

    def _displace(self, block: int, places: np.ndarray, variant: int, attempt: int) -> Tensor:
        """Compute z', (B, D), of the latents at these places (B,) of a block."""
        rows = torch.from_numpy(block * self.config.batch_size + places)
        partner, share = (drawn[rows, variant] for drawn in self._draw_attempt(attempt))
        direction = None
        if self.displacement == "noise":
            # drawn for the whole block, so that the noise of an image does not depend on which others are chosen
            generator = make_generator("cpu", *self._key, "direction", block, variant, attempt)
            noise = torch.randn(len(self._blocks[block]), self._latents.shape[1], generator=generator)
            direction = noise[places].to(self._latents)
        share = share.to(self._latents)
        return move_latents(self._latents[rows], self._latents[partner], self._axes, share, direction)


def _draw_pairs(config: NfaConfig, count: int, key: tuple[int, str, int], attempt: int) -> tuple[Tensor, Tensor]:
    """Draw partners, uniform over the other images of a class, and mixing shares: (N, variants) each."""
    generator = np.random.default_rng(derive_seed(*key, "mix", attempt))
    distance = generator.integers(1, count, (count, config.variants))
    partner = (np.arange(count)[:, None] + distance) % count
    beta = generator.beta(config.concentration, config.concentration, partner.shape)
    share = config.strength * (beta if config.law == "beta" else np.ones_like(beta))
    return torch.from_numpy(partner), torch.from_numpy(share)
