"""Reproducible batches of an image set.

The order of an epoch depends only on (seed, epoch), the augmentation of an image only on (seed, epoch, index). Batches
therefore depend neither on the number of worker processes nor on where an epoch was interrupted and resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nfpi.data.loader import Batch, BatchLoader, Request, num_batches
from nfpi.data.store import ImageSet
from nfpi.runtime.randomness import derive_seed

__all__ = ["ImageBatches", "Transform", "augment_each", "load_batches", "num_batches"]

Transform = Callable[[Tensor], Tensor]
"""A transform of one image (C, H, W), which draws random numbers from torch's global generator."""


@dataclass(frozen=True, eq=False)
class ImageBatches:
    """Source of the batches of an image set for a :class:`BatchLoader`; its length is the number of images.

    Args:
        image_set: the images.
        transform: augmentation of one image (C, H, W); None: no augmentation.
    """

    image_set: ImageSet
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.image_set)

    def read(self, request: Request) -> Batch:
        """Read and augment images (B, C, H, W), in the stored dtype, with their labels (B,), int64."""
        indices = request.indices
        images = torch.from_numpy(np.asarray(self.image_set.images[indices])).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(self.image_set.labels[indices])
        # with several ranks, one may have no image of a small last batch
        if self.transform is not None and len(indices):
            images = augment_each(images, indices, self.transform, request.seed, request.epoch)
        return images, labels


def load_batches(
    image_set: ImageSet,
    batch_size: int,
    *,
    seed: int,
    epoch: int = 0,
    shuffle: bool = False,
    passes: int = 1,
    transform: Transform | None = None,
    drop_last: bool = False,
    start_batch: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Load the batches of one epoch: images (B, C, H, W) in the stored dtype, labels (B,), int64, both on the CPU.

    Workers are started for this epoch, and end with it. For several epochs, see :class:`nfpi.data.loader.BatchLoader`.

    Args:
        image_set: images to load.
        seed, epoch: determine order and augmentation.
        transform: augmentation of one image (C, H, W); None: no augmentation.
        start_batch: number of batches to skip without reading them.
        batch_size, shuffle, passes, drop_last, workers, pin_memory, rank, world_size: as for
            :class:`nfpi.data.loader.BatchLoader`.

    Raises:
        ValueError: a number is out of range.
        DataError: an image cannot be read; raised while iterating.
    """
    loader = BatchLoader(
        ImageBatches(image_set, transform),
        batch_size,
        shuffle=shuffle,
        passes=passes,
        drop_last=drop_last,
        workers=workers,
        pin_memory=pin_memory,
        rank=rank,
        world_size=world_size,
    )
    return _close_after(loader, loader.load_epoch(epoch, seed=seed, start_batch=start_batch))


def _close_after(loader: BatchLoader, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches, then close the loader."""
    with closing(loader):
        yield from batches


def augment_each(images: Tensor, indices: np.ndarray, transform: Transform, seed: int, epoch: int) -> Tensor:
    """Augment images (B, C, H, W) one by one, each with its own random numbers; B ≥ 1.

    Args:
        images: the images.
        indices: indices of the images in their set, (B,).
        transform: augmentation of one image (C, H, W); the results must all have the same shape.
        seed, epoch: determine the augmentation, together with the index.
    """
    augmented = []
    with torch.random.fork_rng(devices=[]):
        for image, index in zip(images, indices, strict=True):
            # torch.manual_seed would seed the GPU's generator too, which is not restored here
            torch.default_generator.manual_seed(derive_seed(seed, "augmentation", epoch, int(index)))
            augmented.append(transform(image))
    return torch.stack(augmented)
