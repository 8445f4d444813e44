"""Reproducible batches of an image set, made by worker processes that live as long as a training.

The order of an epoch depends only on (seed, epoch), the augmentation of an image only on (seed, epoch, index). Batches
therefore depend neither on the number of worker processes nor on where an epoch was interrupted and resumed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nfpi.data.store import ImageSet
from nfpi.runtime.randomness import derive_seed
from nfpi.runtime.signals import leave_signals_to_parent, signals_blocked

Batch = tuple[Tensor, Tensor]
Transform = Callable[[Tensor], Tensor]
"""A transform of one image (C, H, W), which draws random numbers from torch's global generator."""

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""Start method of worker processes. Forked workers share the memory of the training process and start within
milliseconds; they are safe while that process uses a GPU, because they never use it themselves. On other systems,
forking is unsafe or not available."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request for a batch.

    Attributes:
        indices: indices of the images, (B,).
        seed, epoch: determine the random numbers, together with the indices.
        given: tensor that the calling process prepared for the batch; None: no tensor.
    """

    indices: np.ndarray
    seed: int
    epoch: int
    given: Tensor | None = None


class BatchSource(Protocol):
    """A source of batches, which is pickled for workers that are not forked."""

    def __len__(self) -> int:
        """Number of images."""

    def read(self, request: Request) -> Batch:
        """Make a batch, images (B, C, H, W) and labels (B,), on the CPU and without using a GPU."""


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


class BatchLoader:
    """Loads the batches of one epoch after another; worker processes live until :meth:`close`.

    Args:
        source: source of the batches.
        batch_size: images of a batch, over all processes; the last batch may be smaller.
        shuffle: whether the order is a random permutation, or that of the source.
        passes: number of equal consecutive parts of the source, each shuffled separately; for a source that contains
            the same images several times.
        limit: number of images of an epoch, the first of its order; None: all.
        drop_last: whether to omit the last batch if it is smaller than the others.
        workers: processes that make batches; 0: the calling process.
        pin_memory: whether batches are in page-locked memory, for asynchronous copies to a GPU.
        rank, world_size: index of this process, and number of processes that share each batch. All get the same number
            of batches; their shares differ by at most one image, and some are empty if the last batch has fewer than
            `world_size` images.
        prepare: function that takes an iterator of requests and yields them in the same order, with `given` set; it
            runs in the calling process, some batches ahead.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        source: BatchSource,
        batch_size: int,
        *,
        shuffle: bool = False,
        passes: int = 1,
        limit: int | None = None,
        drop_last: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        prepare: Callable[[Iterator[Request]], Iterable[Request]] | None = None,
    ) -> None:
        self.batches_per_epoch = num_batches(limit or len(source), batch_size, drop_last)
        self._source, self._batch_size, self._shuffle, self._passes = source, batch_size, shuffle, passes
        self._limit, self._rank, self._world_size, self._prepare = limit, rank, world_size, prepare
        self._workers, self._pin_memory = workers, pin_memory
        self._requests = _Requests()
        self._loader: DataLoader[Batch] | None = None

    def load_epoch(self, epoch: int, *, seed: int, start_batch: int = 0) -> Iterator[Batch]:
        """Load the batches of one epoch; only one epoch can be loaded at a time.

        Args:
            epoch, seed: determine order and augmentation.
            start_batch: number of batches to skip without reading them, to resume an interrupted epoch.

        Yields:
            Images (B, C, H, W) and labels (B,), on the CPU.

        Raises:
            ValueError: start_batch is out of range.
            DataError: an image cannot be read; raised while iterating, after the workers have ended.
        """
        if not 0 <= start_batch <= self.batches_per_epoch:
            raise ValueError(f"start_batch: expected 0 to {self.batches_per_epoch}, received {start_batch}")
        return self._yield_batches(seed, epoch, start_batch)

    def _yield_batches(self, seed: int, epoch: int, start_batch: int) -> Iterator[Batch]:
        batches: Iterator[Batch] | None = None
        for _ in range(start_batch, self.batches_per_epoch):
            try:
                if batches is None:
                    batches = self._begin_epoch(seed, epoch, start_batch)
                batch = next(batches)
            except BaseException as fault:
                self.close()
                original = _extract_original_error(fault)
                if original is None:
                    raise
                raise original from None
            yield batch

    def _begin_epoch(self, seed: int, epoch: int, start_batch: int) -> Iterator[Batch]:
        """Start making the batches of an epoch, with new workers if there are none."""
        requests = self._make_requests(seed, epoch, start_batch)
        self._requests.of_epoch = iter(requests if self._prepare is None else self._prepare(requests))
        if self._loader is None:
            self._loader = DataLoader(
                _RequestedBatches(self._source),
                batch_sampler=self._requests,  # type: ignore[arg-type]  # yields requests instead of lists of indices
                collate_fn=_identity,
                num_workers=self._workers,
                persistent_workers=self._workers > 0,
                multiprocessing_context=START_METHOD if self._workers else None,
                pin_memory=self._pin_memory,
                worker_init_fn=leave_signals_to_parent,
                generator=torch.Generator(),  # otherwise the loader draws a seed from the global generator
            )
        with signals_blocked():  # new workers inherit the mask, so no signal stops them before worker_init_fn
            return iter(self._loader)

    def _make_requests(self, seed: int, epoch: int, start_batch: int) -> Iterator[Request]:
        length, size = len(self._source), self._batch_size
        order = _draw_permutation(length, self._passes, seed, epoch) if self._shuffle else np.arange(length)
        order = order[: self._limit]
        for batch in range(start_batch, self.batches_per_epoch):
            indices = order[batch * size : (batch + 1) * size]
            yield Request(np.array_split(indices, self._world_size)[self._rank], seed, epoch)

    def close(self) -> None:
        """End the workers; a further epoch starts new ones."""
        loader, self._loader = self._loader, None
        # torch ends workers with the last reference to their iterator, but the traceback of an error may keep one
        if loader is not None and loader._iterator is not None:
            loader._iterator._shutdown_workers()  # type: ignore[attr-defined]


def load_batches(
    image_set: ImageSet,
    batch_size: int,
    *,
    seed: int,
    epoch: int = 0,
    transform: Transform | None = None,
    start_batch: int = 0,
    **options: Any,
) -> Iterator[Batch]:
    """Load the batches of one epoch: images (B, C, H, W) in the stored dtype, labels (B,), int64, both on the CPU.

    Workers are started for this epoch, and end with it. For several epochs, see :class:`BatchLoader`.

    Args:
        image_set: images to load.
        seed, epoch: determine order and augmentation.
        transform: augmentation of one image (C, H, W); None: no augmentation.
        start_batch: number of batches to skip without reading them.
        batch_size, options: arguments of :class:`BatchLoader`, such as `shuffle` and `workers`.

    Raises:
        ValueError: a number is out of range.
        DataError: an image cannot be read; raised while iterating.
    """
    loader = BatchLoader(ImageBatches(image_set, transform), batch_size, **options)
    batches = loader.load_epoch(epoch, seed=seed, start_batch=start_batch)

    def close_after() -> Iterator[Batch]:
        with closing(loader):
            yield from batches

    return close_after()


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


def num_batches(length: int, batch_size: int, drop_last: bool = False) -> int:
    """Count the batches of an epoch over `length` images."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, received {batch_size}")
    return length // batch_size if drop_last else -(-length // batch_size)


class _Requests:
    """The requests of the epoch that is loaded, as a sampler of torch."""

    of_epoch: Iterator[Request]

    def __iter__(self) -> Iterator[Request]:
        return self.of_epoch


@dataclass(frozen=True, eq=False)
class _RequestedBatches(Dataset[Batch]):
    """A data set that is indexed by requests of whole batches."""

    source: BatchSource

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, request: Request) -> Batch:
        return self.source.read(request)


def _extract_original_error(fault: BaseException) -> Exception | None:
    """Return the error that a worker raised, without the traceback that torch adds; None if no worker raised it.

    torch puts the traceback into the message, of which the last line is the class and the message of the original.
    The result is also None for an error of a class that does not stand for bad input, since its traceback is of use.
    """
    text = str(fault)
    if not isinstance(fault, (ValueError, ArithmeticError, OSError)) or "in DataLoader worker process" not in text:
        return None
    kind = type(fault)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return kind(text.splitlines()[-1].removeprefix(f"{name}: "))


def _draw_permutation(length: int, passes: int, seed: int, epoch: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    size = length // passes
    return torch.cat([i * size + torch.randperm(size, generator=generator) for i in range(passes)]).numpy()


def _identity(batch: Any) -> Any:
    return batch
