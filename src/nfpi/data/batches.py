"""Reproducible batches of an image set.

An epoch's order depends on (seed, epoch) only, the augmentation of an image on (seed, epoch, index) only. So batches
depend neither on the number of worker processes nor on where an epoch was interrupted and resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nfpi.data.errors import DataError
from nfpi.data.store import ImageSet
from nfpi.runtime.randomness import derive_seed
from nfpi.runtime.signals import leave_signals_to_parent

Transform = Callable[[Tensor], Tensor]
"""A change of one image (C, H, W); what is random in it comes from torch's global generator."""


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
) -> Iterator[tuple[Tensor, Tensor]]:
    """Load the batches of one epoch: images (B, C, H, W) in the stored dtype, labels (B,), int64, both on the CPU.

    Args:
        image_set: images to load.
        batch_size: images of a batch, over all processes; the last batch may be smaller.
        seed, epoch: determine order and augmentation.
        shuffle: whether the order is a random permutation, or that of the set.
        passes: equal parts of the set that follow each other, each shuffled by itself: for a set that holds the same
            images several times.
        transform: augmentation of one image (C, H, W).
        drop_last: leave out the last batch if it is smaller than the others.
        start_batch: batches to skip, without reading them: where an interrupted epoch resumes.
        workers: processes that read and augment; 0: the calling process does.
        pin_memory: put batches into page-locked memory, for asynchronous copies to a GPU.
        rank, world_size: this process, and how many share each batch. All get the same number of batches; their shares
            differ by at most one image, and some are empty in a last batch smaller than `world_size`.

    Raises:
        ValueError: a number is out of range.
        DataError: an image cannot be read; raised while iterating.
    """
    count = num_batches(len(image_set), batch_size, drop_last)
    if not 0 <= start_batch <= count:
        raise ValueError(f"start_batch: expected 0 to {count}, received {start_batch}")
    if passes < 1 or len(image_set) % passes:
        raise ValueError(f"passes: expected a divisor of {len(image_set)} images, received {passes}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: expected 0 to {world_size - 1}, received {rank}")
    order = _permutation(len(image_set), passes, seed, epoch) if shuffle else np.arange(len(image_set))
    shares = [
        np.array_split(order[batch * batch_size : (batch + 1) * batch_size], world_size)[rank]
        for batch in range(start_batch, count)
    ]
    loader = DataLoader(
        _Batches(image_set, transform, seed, epoch),
        batch_sampler=shares,  # type: ignore[arg-type]  # arrays of indices in place of lists
        collate_fn=_identity,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),  # or else the loader draws a seed from the global one
    )
    return _with_plain_errors(iter(loader))


def _with_plain_errors(loaded: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the same batches; errors of worker processes are raised as if this process had read the image."""
    try:
        yield from loaded
        return
    except DataError as error:  # that of a worker contains its traceback; the message is the last line
        message = str(error).splitlines()[-1].removeprefix(f"{DataError.__module__}.{DataError.__qualname__}: ")
        error.__traceback__ = None  # its frames keep the loader alive
    del loaded  # ends the workers before the error is raised
    raise DataError(message)


def augment_each(images: Tensor, indices: np.ndarray, transform: Transform, seed: int, epoch: int) -> Tensor:
    """Augment images (B, C, H, W) one by one, each with random numbers of its own; B ≥ 1.

    Args:
        images: the images.
        indices: (B,), of the images in their set.
        transform: augmentation of one image (C, H, W) to an image of the same shape as the others.
        seed, epoch: determine the augmentation, together with the index.
    """
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, index in zip(images, indices, strict=True):
            # torch.manual_seed would seed the GPU's generator too, which is not restored here
            torch.default_generator.manual_seed(derive_seed(seed, "augmentation", epoch, int(index)))
            changed.append(transform(image))
    return torch.stack(changed)


def num_batches(length: int, batch_size: int, drop_last: bool = False) -> int:
    """Count the batches of an epoch over `length` images."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, received {batch_size}")
    return length // batch_size if drop_last else -(-length // batch_size)


@dataclass(frozen=True, eq=False)
class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """A data set whose items are batches."""

    image_set: ImageSet
    transform: Transform | None
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.image_set)

    def __getitems__(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(np.asarray(self.image_set.images[indices])).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(self.image_set.labels[indices])
        if self.transform is not None and len(indices):
            images = augment_each(images, indices, self.transform, self.seed, self.epoch)
        return images, labels


def _permutation(length: int, passes: int, seed: int, epoch: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    size = length // passes
    return torch.cat([i * size + torch.randperm(size, generator=generator) for i in range(passes)]).numpy()


def _identity(batch: Any) -> Any:
    return batch
