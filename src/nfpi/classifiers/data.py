"""Images for classifiers: resized when they are read, and some replaced by latent-augmented variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from math import ceil
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.config.classifiers import ClassifierConfig, StandardAugmentation
from nfpi.data.batches import Batch, BatchLoader, Request, Transform, augment_each, num_batches
from nfpi.data.store import ImageSet, Pixels
from nfpi.runtime.precision import choose_precision
from nfpi.runtime.randomness import make_generator

_DECODED_ON_GPU, _DECODED_ELSEWHERE = 32, 16
"""Number of latents that are decoded at once."""

Decoder = Callable[[Tensor], Tensor]
"""Stored latents (B, C, h, w) → 8-bit images (B, 3, H, W)."""


@dataclass(frozen=True, eq=False)
class ResizedImages:
    """Images of any size as an array (N, S, S, C), read and resized when the array is indexed.

    Args:
        pixels: pixels of the images, of any size.
        channels: C.
        size: S, the side of the resized images.
        preprocessing: how images are resized.
    """

    pixels: Pixels
    channels: int
    size: int
    preprocessing: Preprocessing
    dtype: ClassVar[np.dtype[np.uint8]] = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all images after resizing, (N, S, S, C)."""
        return len(self.pixels), self.size, self.size, self.channels

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        resized = (self.preprocessing.resize(self.pixels[int(index)], self.size) for index in indices)
        images = [image.permute(1, 2, 0).numpy() for image in resized]
        return np.array(images, np.uint8).reshape(-1, *self.shape[1:])  # 0 for a refit without validation images


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


@lru_cache(maxsize=1)  # every batch of an epoch uses some of these rows
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


@dataclass(frozen=True, eq=False)
class ClassifierBatches:
    """Batches of 8-bit images, some replaced by variants, with standard augmentations of each.

    Args:
        train: the N images; index r·N + n of an epoch is image n in pass r.
        preprocessing: how decoded variants are resized.
        transform: standard augmentations of one image (C, H, W); None: they are not applied.
        repeats: R, the number of passes over the images per epoch.
        variants: latent-augmented variants; None: no image is replaced. If they are stored as latents, `Request.given`
            contains the decoded ones.
        probability: probability that an image is replaced.
        seed: seed of the run, which determines the replaced images.
    """

    train: ImageSet
    preprocessing: Preprocessing
    transform: Transform | None
    repeats: int
    variants: Variants | None
    probability: float
    seed: int

    def __len__(self) -> int:
        return self.repeats * len(self.train)

    def draw_rows(self, request: Request) -> np.ndarray:
        """Draw the index of the variant that replaces each image of a request; −1: the image is not replaced."""
        if self.variants is None:
            return np.full(len(request.indices), -1)
        rows = self.variants.draw_rows(self.probability, self.seed, request.epoch, self.repeats)
        return rows.take(request.indices)

    def read(self, request: Request) -> Batch:
        """Make a batch: images (B, C, H, W), uint8, or vectors, float32, and labels (B,)."""
        image_indices, rows = request.indices % len(self.train), self.draw_rows(request)
        replaced = rows >= 0
        pixels = np.empty((len(image_indices), *self.train.images.shape[1:]), self.train.images.dtype)
        if not replaced.all():
            pixels[~replaced] = self.train.images[image_indices[~replaced]]
        if request.given is not None:
            pixels[replaced] = self.preprocessing.resize(request.given, pixels.shape[1]).permute(0, 2, 3, 1).numpy()
        elif self.variants is not None and replaced.any():
            pixels[replaced] = self.variants.images.images[rows[replaced]]
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        if self.transform is not None:
            images = augment_each(images, request.indices, self.transform, request.seed, request.epoch)
        return images, torch.from_numpy(np.asarray(self.train.labels[image_indices]))


@dataclass(frozen=True, eq=False)
class ClassifierData:
    """Training and validation images, as batches for the classifier.

    Args:
        train, validation: 8-bit images of one size, or vectors.
        config: batch size, passes over the images per epoch, share of variants.
        preprocessing: how images are resized and normalised for the classifier.
        standard: settings of the standard augmentations; None: they are not applied.
        variants: latent-augmented variants of the training images; None: no image is replaced.
        drawn: number of images of an epoch, of as many passes over the training images as they take; None: as many as
            `config.repeats` passes have.

    Raises:
        ValueError: training and validation images differ in shape or classes.
    """

    train: ImageSet
    validation: ImageSet
    config: ClassifierConfig
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    standard: StandardAugmentation | None = None
    variants: Variants | None = None
    drawn: int | None = None

    def __post_init__(self) -> None:
        require_same_kind(self.train, self.validation)

    @property
    def drops_last(self) -> bool:
        """Whether a last batch of one image is dropped, as it has no variance for batch normalisation."""
        return self._drawn > 1 and self._drawn % self.config.batch_size == 1

    @property
    def images_per_epoch(self) -> int:
        """Number of images per epoch, repetitions included."""
        return self._drawn - self.drops_last

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch; the last one may be smaller."""
        return num_batches(self._drawn, self.config.batch_size, self.drops_last)

    @property
    def _drawn(self) -> int:
        """Number of images of an epoch, before a last batch of one is dropped."""
        return self.drawn or self.config.repeats * len(self.train)

    @property
    def _passes(self) -> int:
        """Number of passes over the images from which those of an epoch are drawn."""
        return self.config.repeats if self.drawn is None else ceil(self.drawn / len(self.train))

    def make_loader(self, seed: int, device: torch.device) -> BatchLoader:
        """Make the loader of 8-bit images (B, C, H, W) and labels (B,), shuffled and augmented, on the CPU.

        An epoch is `repeats` passes over the images, one after another. Random numbers depend only on seed, epoch, pass
        and image, not on the batch with which an epoch begins or the workers.

        Args:
            seed: seed of the run, which determines the latent-augmented variants.
            device: device that the batches are copied to, on which the variants are decoded.
        """
        config, variants = self.config, self.variants
        batches = ClassifierBatches(
            self.train,
            self.preprocessing,
            self._make_transform(),
            self._passes,
            # workers get no decoder: it may be on a GPU
            replace(variants, decoder=None) if variants is not None else None,
            config.nfa_probability,
            seed,
        )
        prepare = None
        if variants is not None and variants.decoder is not None:
            # bfloat16 suffices for training images, if the device computes in it
            bfloat16 = choose_precision("auto", device) == "bf16-mixed"
            prepare = partial(decode_variants, variants, batches.draw_rows, device, bfloat16)
        return BatchLoader(
            batches,
            config.batch_size,
            shuffle=True,
            passes=self._passes,
            limit=self._drawn,
            drop_last=self.drops_last,
            workers=config.workers,
            pin_memory=device.type == "cuda",
            prepare=prepare,
        )

    def _make_transform(self) -> Transform | None:
        """Return the standard augmentations of one image; None: none are applied."""
        if self.standard is None:
            return None
        from nfpi.classifiers.transforms import classifier_transform  # torchvision is slow to import

        return classifier_transform(self.standard, self.train.shape, self.train.flip, self.preprocessing.mean)


def resize_images(pixels: Pixels, size: int | None, preprocessing: Preprocessing) -> ImageSet:
    """Make an image set whose images are read and resized when they are used.

    Args:
        pixels: images of any size.
        size: side S of the resized images; None: all have one size, and keep it.
        preprocessing: how images are resized.

    Raises:
        ValueError: size is None, and the images are files, whose sizes may differ.
    """
    stored = pixels.image_set
    if pixels.folder is None and (size is None or stored.shape[1:] == (size, size)):
        return stored
    if size is None:
        raise ValueError(f"image_size: expected a size for the image files of {stored.meta['name']}, received none")
    channels = 3 if pixels.folder is not None else stored.shape[0]
    images = ResizedImages(pixels, channels, size, preprocessing)
    return ImageSet(cast(np.ndarray, images), stored.labels, stored.meta)


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Concatenate two image sets, in memory."""
    require_same_kind(first, second)
    return ImageSet(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.labels, second.labels]),
        first.meta,
    )


def require_same_kind(first: ImageSet, second: ImageSet) -> None:
    """Raise ValueError unless both sets have images of one shape and the same classes."""
    if (first.shape, first.classes) != (second.shape, second.classes):
        raise ValueError(
            f"image sets: expected {first.shape} and the classes {first.classes} in both, received {second.shape} and "
            f"{second.classes}"
        )
