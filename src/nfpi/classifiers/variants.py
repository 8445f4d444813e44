"""Latent-augmented variants of training images (NFA): which replace images, and their decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from nfpi.data.batches import Request
from nfpi.data.store import ImageSet
from nfpi.runtime.randomness import make_generator

_DECODED_ON_GPU, _DECODED_ELSEWHERE = 32, 16
"""Number of latents that are decoded at once."""

Decoder = Callable[[Tensor], Tensor]
"""Stored latents (B, C, h, w) → 8-bit images (B, 3, H, W)."""


@dataclass(frozen=True, eq=False)
class Variants:
    """Latent-augmented variants of training images (NFA): row n·V + v is variant v of image n.

    Args:
        images: N·V variants: latents of an autoencoder, or pixels of the training images' size.
        per_image: V.
        decoder: decoder of latents to pixels; None: the variants are pixels.
    """

    images: ImageSet
    per_image: int
    decoder: Decoder | None = None

    @classmethod
    def from_image_set(
        cls, images: ImageSet, train: ImageSet, decoder: Decoder | None = None, digests: dict[str, str] | None = None
    ) -> Variants:
        """Make variants from an image set, after checking that they belong to these training images.

        Args:
            images: the variants; their number per image is in `extra.variants` of `meta`.
            train: the training images.
            decoder: decoder of latents to pixels; None: the variants are pixels.
            digests: SHA-256 of the files of the training images, to compare with `extra.of`; None: not compared.

        Raises:
            ValueError: the variants have another shape, or are not V variants of each training image, in order.
        """
        per_image = images.meta["extra"].get("variants")
        if per_image is None:
            raise ValueError("augmented images: expected extra.variants in meta.json, received none")
        if decoder is None and images.shape != train.shape:
            raise ValueError(f"augmented images: expected {train.shape}, received {images.shape}")
        source = images.meta["extra"].get("of")
        if None not in (source, digests) and source != digests:
            raise ValueError("augmented images: expected variants of these training images, received others")
        if not np.array_equal(np.repeat(train.labels, per_image), images.labels):
            raise ValueError(
                f"augmented images: expected {per_image} of each of the {len(train)} training images, in their order, "
                f"received {len(images)} of other images"
            )
        return cls(images, per_image, decoder)

    def draw_rows(self, probability: float, seed: int, epoch: int, repeats: int = 1) -> np.ndarray:
        """Draw which variant replaces each image in an epoch, all V with equal probability.

        Args:
            probability: probability that an image is replaced.
            seed, epoch: determine the draws.
            repeats: R, passes over the images in the epoch, each with draws of its own.

        Returns:
            Indices of variants, (R·N,); −1: the image is not replaced.
        """
        return _draw_rows(len(self.images) // self.per_image, self.per_image, probability, seed, epoch, repeats)


@lru_cache(maxsize=2)  # this epoch and the next; every batch uses some of these rows
def _draw_rows(images: int, per_image: int, probability: float, seed: int, epoch: int, repeats: int) -> np.ndarray:
    generator = make_generator("cpu", seed, "nfa", epoch)
    count = repeats * images
    variant = torch.randint(per_image, (count,), generator=generator)
    replaced = torch.rand(count, generator=generator, dtype=torch.float64) < probability
    rows: np.ndarray = torch.where(replaced, torch.arange(count) % images * per_image + variant, -1).numpy()
    rows.flags.writeable = False
    return rows


def decode_variants(
    variants: Variants,
    draw_rows: Callable[[Request], np.ndarray],
    device: torch.device,
    bfloat16: bool,
    requests: Iterator[Request],
) -> Iterator[Request]:
    """Yield requests in order, each with the decoded variants, uint8, of its replaced images.

    Args:
        variants: latents, with their decoder.
        draw_rows: function that returns the index of the variant that replaces each image of a request; −1: none does.
        device: device of the decoder.
        bfloat16: whether the decoder's convolutions and products are in bfloat16, not in float32.
        requests: the requests.
    """
    assert variants.decoder is not None
    at_once = _DECODED_ON_GPU if device.type == "cuda" else _DECODED_ELSEWHERE
    for request in requests:
        rows = draw_rows(request)
        chosen, parts = rows[rows >= 0], []
        for start in range(0, len(chosen), at_once):
            stored = np.asarray(variants.images.images[chosen[start : start + at_once]])
            latents = torch.from_numpy(stored).permute(0, 3, 1, 2).contiguous().to(device)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                parts.append(variants.decoder(latents).cpu())
        yield replace(request, given=torch.cat(parts)) if parts else request
