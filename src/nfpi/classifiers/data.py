"""The images of a classifier: resized when they are read, some replaced by latent-augmented variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.config.classifiers import ClassifierConfig, StandardAugmentation
from nfpi.data.batches import Transform, augment_each, load_batches, num_batches
from nfpi.data.pixels import Pixels
from nfpi.data.store import ImageSet
from nfpi.runtime.randomness import derive_seed, generator_for

_DECODED_AT_ONCE = 16

Decoder = Callable[[Tensor], Tensor]
"""Stored latents (B, C, h, w) → 8-bit images (B, C, H, W)."""


@dataclass(frozen=True, eq=False)
class ResizedImages:
    """Images of any size as an array (N, S, S, C), read and resized when the array is indexed.

    Args:
        pixels: of any size.
        channels: C.
        size: S.
        preprocessing: how images are resized.
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
        rows = [self.preprocessing.resize(self.pixels[int(index)], self.size) for index in indices]
        return torch.stack(rows).permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True, eq=False)
class RepeatedImages:
    """An array of images (N, H, W, C) several times over: row r·N + n is image n in its repetition r.

    Args:
        images: the array.
        repeats: R.
    """

    images: np.ndarray
    repeats: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(R·N, H, W, C)."""
        return self.repeats * self.images.shape[0], *self.images.shape[1:]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self.images[indices % self.images.shape[0]]


@dataclass(frozen=True, eq=False)
class ReplacedImages:
    """An array of images (N, H, W, C), some of which are replaced by variants.

    Args:
        images: the array.
        rows: (N,), for each image the index of the variant that replaces it; −1: none.
        variants: array of variants; None: replaced images are black, and the variants are decoded later.
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
        decoder: from latents to pixels; None: the variants are pixels.

    Raises:
        ValueError: there are not V variants of each image, or they are of another class.
    """

    images: ImageSet
    per_image: int
    decoder: Decoder | None = None

    @classmethod
    def from_image_set(
        cls, images: ImageSet, train: ImageSet, decoder: Decoder | None = None, digests: dict[str, str] | None = None
    ) -> Variants:
        """Take a set of variants, after a check that they were made of these training images.

        Args:
            images: the variants; their number per image is in `extra.variants` of `meta`.
            train: the training images.
            decoder: from latents to pixels; None: the variants are pixels.
            digests: SHA-256 of the files of the training images, to compare with `extra.of`; None: not compared.
        """
        per_image = images.meta["extra"].get("variants")
        if per_image is None:
            raise ValueError("augmented images: expected extra.variants in meta.json, received none")
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

    def rows(self, probability: float, seed: int, epoch: int, repeats: int = 1) -> np.ndarray:
        """Draw the variant that replaces each image in an epoch, all with equal probability; −1: none; (R·N,).

        Args:
            probability: that an image is replaced.
            seed, epoch: determine the draws.
            repeats: R, passes over the images in the epoch, each with draws of its own.
        """
        generator = generator_for("cpu", seed, "nfa", epoch)
        images = len(self.images) // self.per_image
        count = repeats * images
        variant = torch.randint(self.per_image, (count,), generator=generator)
        replaced = torch.rand(count, generator=generator, dtype=torch.float64) < probability
        return torch.where(replaced, torch.arange(count) % images * self.per_image + variant, -1).numpy()


@dataclass(frozen=True, eq=False)
class ClassifierData:
    """The images of a training, and how the classifier gets them.

    Args:
        train, validation: 8-bit images of one size.
        config: batch size, passes of an epoch, share of variants.
        preprocessing: of the classifier's images.
        standard: the standard augmentations; None: without.
        variants: of the training images; None: without.

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
        require_same_kind(self.train, self.validation)

    @property
    def drops_last(self) -> bool:
        """Whether the last batch is left out: batch normalisation has no variance for a single image."""
        return self._drawn > 1 and self._drawn % self.config.batch_size == 1

    @property
    def images_per_epoch(self) -> int:
        """Images of an epoch; each counts as often as it is repeated."""
        return self._drawn - self.drops_last

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return num_batches(self._drawn, self.config.batch_size, self.drops_last)

    @property
    def _drawn(self) -> int:
        """Images that all passes of an epoch draw."""
        return self.config.repeats * len(self.train)

    def stream(self, seed: int, epoch: int, start_batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Load the batches of an epoch, shuffled and augmented: 8-bit images (B, C, H, W) and labels (B,) on `device`.

        An epoch is `repeats` passes over the images, one after another. Random numbers depend on (seed, epoch), the
        pass and the image only: neither on `start_batch` nor on the workers.
        """
        config, seed_of_images = self.config, derive_seed(seed, "classifier")
        transform = self._transform()
        images, rows, decoder = self.train.images, None, None
        if config.repeats > 1:
            images = cast(np.ndarray, RepeatedImages(images, config.repeats))
        if self.variants is not None:
            rows = self.variants.rows(config.nfa_probability, seed, epoch, config.repeats)
            decoder = self.variants.decoder
            array = None if decoder is not None else self.variants.images.images
            images = cast(np.ndarray, ReplacedImages(images, rows, array))
        stream = load_batches(
            # indices in place of labels: variants and labels are looked up by them
            ImageSet(images, np.arange(self._drawn), self.train.meta),
            config.batch_size,
            seed=seed_of_images,
            epoch=epoch,
            shuffle=True,
            passes=config.repeats,
            transform=transform,
            drop_last=self.drops_last,
            start_batch=start_batch,
            workers=config.workers,
            pin_memory=device.type == "cuda",
        )
        labels = torch.from_numpy(np.array(self.train.labels))
        for batch, indices in stream:
            batch = batch.to(device, non_blocking=True)
            if rows is not None and decoder is not None:
                latent = np.flatnonzero(rows[indices.numpy()] >= 0)
                if len(latent):
                    decoded = self._decode(rows[indices.numpy()[latent]], decoder, device)
                    if transform is not None:
                        decoded = augment_each(decoded.cpu(), indices.numpy()[latent], transform, seed_of_images, epoch)
                    batch[torch.from_numpy(latent).to(device)] = decoded.to(device)
            yield batch, labels[indices % len(labels)].to(device, non_blocking=True)

    def _transform(self) -> Transform | None:
        """The standard augmentation of one image."""
        if self.standard is None:
            return None
        from nfpi.classifiers.transforms import classifier_transform  # torchvision is slow to import

        return classifier_transform(self.standard, self.train.shape, self.train.flip, self.preprocessing.mean)

    def _decode(self, rows: np.ndarray, decoder: Decoder, device: torch.device) -> Tensor:
        """Decode and resize variants that are stored as latents: (B, C, S, S), uint8."""
        assert self.variants is not None
        decoded = []
        for some in np.array_split(rows, -(-len(rows) // _DECODED_AT_ONCE)):
            latents = torch.from_numpy(np.asarray(self.variants.images.images[some])).permute(0, 3, 1, 2)
            with torch.no_grad():
                images = decoder(latents.contiguous().to(device))
            decoded.append(self.preprocessing.resize(images, self.train.shape[1]))
        return torch.cat(decoded)


def resize_images(pixels: Pixels, size: int | None, preprocessing: Preprocessing) -> ImageSet:
    """Make an image set whose images are read and resized when they are used.

    Args:
        pixels: images of any size.
        size: side S that they are resized to; None: they keep the size that they all have.
        preprocessing: how they are resized.

    Raises:
        ValueError: size is None, and the images are files, whose sizes may differ.
    """
    stored = pixels.image_set
    if pixels.folder is None and (size is None or stored.shape[1:] == (size, size)):
        return stored
    if size is None:
        raise ValueError(f"image_size: expected one for the image files of {stored.meta['name']}, received none")
    channels = 3 if pixels.folder is not None else stored.shape[0]
    images = ResizedImages(pixels, channels, size, preprocessing)
    return ImageSet(cast(np.ndarray, images), stored.labels, stored.meta)


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Concatenate two sets, in memory."""
    require_same_kind(first, second)
    return ImageSet(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.labels, second.labels]),
        first.meta,
    )


def require_same_kind(first: ImageSet, second: ImageSet) -> None:
    """Raise ValueError unless both sets have images of one shape and the same classes."""
    if first.shape != second.shape or first.num_classes != second.num_classes:
        raise ValueError(
            f"image sets: expected {first.shape} and {first.num_classes} classes in both, "
            f"received {second.shape} and {second.num_classes}"
        )
    if first.classes != second.classes:
        raise ValueError(f"image sets: expected the classes {first.classes} in both, received {second.classes}")
