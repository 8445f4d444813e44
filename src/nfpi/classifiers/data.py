"""The images of a classifier: of one size, read when they are asked for, some replaced by latent-augmented variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.config.settings import ClassifierConfig, StandardAugmentation
from nfpi.data.store import ImageSet
from nfpi.data.pixels import Pixels
from nfpi.data.batches import augmented, batches, num_batches
from nfpi.data.transforms import classifier_transform
from nfpi.runtime.randomness import derive_seed, generator_for

_DECODED_AT_ONCE = 16

Decoder = Callable[[Tensor], Tensor]
"""Stored latents (B, C, h, w) → 8-bit images (B, C, H, W)."""


@dataclass(frozen=True, eq=False)
class ResizedImages:
    """Images of any size as an array (N, S, S, C), read and resized whenever rows of it are asked for.

    Args:
        pixels: of any size.
        channels: C.
        size: S.
        preprocessing: how they are resized.
    """

    pixels: Pixels
    channels: int
    size: int
    preprocessing: Preprocessing

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, C)."""
        return len(self.pixels), self.size, self.size, self.channels

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        rows = [self.preprocessing.resized(self.pixels[int(index)], self.size) for index in indices]
        return torch.stack(rows).permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True, eq=False)
class ReplacedImages:
    """An array of images (N, H, W, C), some of which others stand in for.

    Args:
        images: the array.
        rows: for each of the N images the one that stands in for it, or −1; (N,).
        variants: what `rows` counts; none: they are decoded later, and rows without an image of their own are black.
    """

    images: np.ndarray
    rows: np.ndarray
    variants: np.ndarray | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return self.images.shape

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        chosen = np.zeros((len(indices), *self.shape[1:]), np.uint8)
        rows = self.rows[indices]
        own = rows < 0
        if own.any():
            chosen[own] = self.images[indices[own]]
        if self.variants is not None and not own.all():
            chosen[~own] = self.variants[rows[~own]]
        return chosen


@dataclass(frozen=True, eq=False)
class Variants:
    """Latent-augmented variants of training images (NFA): row n·V + v is variant v of image n.

    Args:
        images: N·V variants, pixels of the training images' size or latents.
        per_image: V.
        decoder: from latents to pixels; none: they are pixels.

    Raises:
        ValueError: there are not V variants of each image, or they are of another class.
    """

    images: ImageSet
    per_image: int
    decoder: Decoder | None = None

    @classmethod
    def of(
        cls, train: ImageSet, images: ImageSet, decoder: Decoder | None = None, digests: dict[str, str] | None = None
    ) -> Variants:
        """The variants of these training images, as stored with these SHA-256 digests."""
        per_image = int(images.meta["extra"]["variants"])
        if decoder is None and images.shape != train.shape:
            raise ValueError(f"augmented images: expected {train.shape}, received {images.shape}")
        source = images.meta["extra"].get("of")
        if None not in (source, digests) and source != digests:
            raise ValueError("augmented images: expected variants of these training images, received those of others")
        if not np.array_equal(np.repeat(train.labels, per_image), images.labels):
            raise ValueError(
                f"augmented images: expected {per_image} of each of the {len(train)} training images, in their order, "
                f"received {len(images)} of other images"
            )
        return cls(images, per_image, decoder)

    def rows(self, probability: float, seed: int, epoch: int) -> np.ndarray:
        """Which variant stands in for each image in this epoch, each with equal probability; −1: none; (N,)."""
        generator = generator_for("cpu", seed, "nfa", epoch)
        count = len(self.images) // self.per_image
        variant = torch.randint(self.per_image, (count,), generator=generator)
        replaced = torch.rand(count, generator=generator, dtype=torch.float64) < probability
        return torch.where(replaced, torch.arange(count) * self.per_image + variant, -1).numpy()


@dataclass(frozen=True, eq=False)
class ClassifierData:
    """The images of a training, and how they reach the classifier.

    Args:
        train, validation: 8-bit images of one size.
        config: batch size, share of variants.
        preprocessing: of the classifier's images.
        standard: the standard augmentations; none: without.
        variants: of the training images; none: without.

    Raises:
        ValueError: training and validation images do not fit together.
    """

    train: ImageSet
    validation: ImageSet
    config: ClassifierConfig
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    standard: StandardAugmentation | None = None
    variants: Variants | None = None

    def __post_init__(self) -> None:
        check_alike(self.train, self.validation)

    @property
    def drops_last(self) -> bool:
        """An image alone in the last batch would have no variance to be normalised by: it is left out."""
        return len(self.train) > 1 and len(self.train) % self.config.batch_size == 1

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch sees."""
        return len(self.train) - self.drops_last

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return num_batches(len(self.train), self.config.batch_size, self.drops_last)

    def stream(self, seed: int, epoch: int, start_batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch in random order, augmented: 8-bit images (B, C, H, W), labels (B,), both on `device`.

        What is random depends on (seed, epoch) and the image only: neither on `start_batch` nor on the workers.
        """
        config, seed_of_images = self.config, derive_seed(seed, "classifier")
        transform = classifier_transform(
            self.standard, self.train.shape, self.train.meta["extra"]["flip"], self.preprocessing.mean
        )
        images, rows, decoder = self.train.images, None, None
        if self.variants is not None:
            rows, decoder = self.variants.rows(config.nfa_probability, seed, epoch), self.variants.decoder
            array = None if decoder is not None else self.variants.images.images
            images = cast(np.ndarray, ReplacedImages(images, rows, array))
        stream = batches(
            # places in the set instead of labels: all else that is known of an image is found there
            ImageSet(images, np.arange(len(self.train)), self.train.meta),
            config.batch_size,
            seed=seed_of_images,
            epoch=epoch,
            shuffle=True,
            transform=transform,
            drop_last=self.drops_last,
            start_batch=start_batch,
            workers=config.workers,
            pin_memory=device.type == "cuda",
        )
        labels = torch.from_numpy(np.array(self.train.labels))
        for batch, places in stream:
            batch = batch.to(device, non_blocking=True)
            if rows is not None and decoder is not None:
                latent = np.flatnonzero(rows[places.numpy()] >= 0)
                if len(latent):
                    decoded = self._decoded(rows[places.numpy()[latent]], decoder, device)
                    if transform is not None:
                        decoded = augmented(decoded.cpu(), places.numpy()[latent], transform, seed_of_images, epoch)
                    batch[torch.from_numpy(latent).to(device)] = decoded.to(device)
            yield batch, labels[places].to(device, non_blocking=True)

    def _decoded(self, rows: np.ndarray, decoder: Decoder, device: torch.device) -> Tensor:
        """Variants that are stored as latents, decoded and resized: (B, C, S, S), uint8."""
        assert self.variants is not None
        decoded = []
        for some in np.array_split(rows, -(-len(rows) // _DECODED_AT_ONCE)):
            latents = torch.from_numpy(np.asarray(self.variants.images.images[some])).permute(0, 3, 1, 2)
            with torch.no_grad():
                images = decoder(latents.contiguous().to(device))
            decoded.append(self.preprocessing.resized(images, self.train.shape[1]))
        return torch.cat(decoded)


def of_one_size(pixels: Pixels, size: int | None, preprocessing: Preprocessing) -> ImageSet:
    """Images at the size that a classifier wants, read and resized when they are asked for.

    Args:
        pixels: images of any size.
        size: side S that they are resized to; none: they all have one size, and keep it.
        preprocessing: how they are resized.

    Raises:
        ValueError: there is no size, and the images are files of any size.
    """
    stored = pixels.image_set
    if pixels.folder is None and (size is None or stored.shape[1:] == (size, size)):
        return stored
    if size is None:
        raise ValueError(f"image_size: expected one for the image files of {stored.meta['name']}, received none")
    channels = 3 if pixels.folder is not None else stored.shape[0]
    images = ResizedImages(pixels, channels, size, preprocessing)
    return ImageSet(cast(np.ndarray, images), stored.labels, stored.meta)


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets as one, in memory."""
    check_alike(first, second)
    return ImageSet(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.labels, second.labels]),
        first.meta,
    )


def check_alike(first: ImageSet, second: ImageSet) -> None:
    """Raise ValueError unless both sets have images of one shape and the same classes."""
    if first.shape != second.shape or first.num_classes != second.num_classes:
        raise ValueError(
            f"image sets: expected {first.shape} and {first.num_classes} classes in both, "
            f"received {second.shape} and {second.num_classes}"
        )
    if first.classes != second.classes:
        raise ValueError(f"image sets: expected the classes {first.classes} in both, received {second.classes}")
