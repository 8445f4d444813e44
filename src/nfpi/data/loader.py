"""Worker processes that make the batches of a training, from its first epoch to its last.

What a batch holds depends on (seed, epoch, indices) only, see :mod:`nfpi.data.batches`; here stands who makes it, and
when: the first batches of the next epoch are made while the last ones of this epoch are used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nfpi.runtime.randomness import derive_seed
from nfpi.runtime.signals import leave_signals_to_parent, signals_blocked

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""How worker processes are started. Forked ones share the memory of the training, begin within milliseconds, and may
stand beside a GPU as long as they never use it, which they do not; on other systems forking is unsafe or unknown."""

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Request:
    """A batch to be made.

    Attributes:
        indices: of its images, (B,).
        seed, epoch: determine its random numbers, together with the indices.
        given: what the training process made for it beforehand; None: nothing.
    """

    indices: np.ndarray
    seed: int
    epoch: int
    given: Tensor | None = None


class BatchSource(Protocol):
    """What batches are made of. Workers that are not forked get it pickled."""

    def __len__(self) -> int:
        """Number of images."""

    def read(self, request: Request) -> Batch:
        """Make a batch: images (B, C, H, W) and labels (B,), on the CPU; never uses a GPU."""


class BatchLoader:
    """Loads the batches of one epoch after another; worker processes live until :meth:`close`.

    Args:
        source: what batches are made of.
        batch_size: images of a batch, over all processes; the last batch may be smaller.
        shuffle: whether the order is a random permutation, or that of the source.
        passes: equal parts of the source that follow each other, each shuffled by itself: for a source that has the
            same images several times.
        drop_last: leave out the last batch if it is smaller than the others.
        workers: processes that make batches; 0: the calling process does.
        pin_memory: put batches into page-locked memory, for asynchronous copies to a GPU.
        rank, world_size: this process, and how many share each batch. All get the same number of batches; their shares
            differ by at most one image, and some are empty in a last batch smaller than `world_size`.
        prepare: completes requests in the calling process, in their order, some batches before they are used.

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
        drop_last: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        prepare: Callable[[Iterator[Request]], Iterable[Request]] | None = None,
    ) -> None:
        self.batches_per_epoch = num_batches(len(source), batch_size, drop_last)
        if passes < 1 or len(source) % passes:
            raise ValueError(f"passes: expected a divisor of {len(source)} images, received {passes}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: expected 0 to {world_size - 1}, received {rank}")

        def order(seed: int, epoch: int) -> np.ndarray:
            return _permutation(len(source), passes, seed, epoch) if shuffle else np.arange(len(source))

        def share(order: np.ndarray, batch: int) -> np.ndarray:
            return np.array_split(order[batch * batch_size : (batch + 1) * batch_size], world_size)[rank]

        self._plan = _Plan(order, share, self.batches_per_epoch, prepare)
        self._source, self._workers, self._pin_memory = source, workers, pin_memory
        self._loader: DataLoader[Batch] | None = None
        self._batches: Iterator[Batch] | None = None
        self._coming: tuple[int, int, int] | None = None  # seed, epoch, batch that the workers make next
        self._epochs = 0

    def epoch(self, epoch: int, *, seed: int, start_batch: int = 0, then: int | None = None) -> Iterator[Batch]:
        """Load the batches of one epoch; one epoch at a time.

        Args:
            epoch, seed: determine order and augmentation.
            start_batch: batches to skip, without reading them: where an interrupted epoch resumes.
            then: the epoch that will be loaded after this one, with the same seed, whose first batches are made ahead;
                None: not known, or none.

        Yields:
            images (B, C, H, W) and labels (B,), on the CPU.

        Raises:
            ValueError: start_batch is out of range.
            DataError: an image cannot be read; raised while iterating, when the workers have ended.
        """
        if not 0 <= start_batch <= self.batches_per_epoch:
            raise ValueError(f"start_batch: expected 0 to {self.batches_per_epoch}, received {start_batch}")
        return self._epoch(seed, epoch, start_batch, then)

    def _epoch(self, seed: int, epoch: int, start_batch: int, then: int | None) -> Iterator[Batch]:
        self._epochs += 1
        this = self._epochs
        if self._coming != (seed, epoch, start_batch):
            self._plan.first, self._batches = (seed, epoch, start_batch), None
            self._plan.after.clear()
        self._coming = None
        if then is not None:
            self._plan.after[epoch] = then
        for _ in range(start_batch, self.batches_per_epoch):
            if this != self._epochs:
                raise RuntimeError(f"epoch {epoch}: another epoch of the same loader has begun")
            yield self._next()
        if self._batches is not None and then is not None and not self._plan.ended:
            self._coming = (seed, then, 0)

    def _next(self) -> Batch:
        try:
            if self._batches is None:
                self._batches = self._begin()
            return next(self._batches)
        except BaseException as fault:
            self.close()
            plain = _as_if_raised_here(fault)
            if plain is None:
                raise
        raise plain

    def _begin(self) -> Iterator[Batch]:
        """Let the workers make what the plan says; they are started where there are none."""
        if self._loader is None:
            self._loader = DataLoader(
                _Requested(self._source),
                batch_sampler=self._plan,  # type: ignore[arg-type]  # requests in place of lists of indices
                collate_fn=_identity,
                num_workers=self._workers,
                persistent_workers=self._workers > 0,
                multiprocessing_context=START_METHOD if self._workers else None,
                pin_memory=self._pin_memory,
                worker_init_fn=leave_signals_to_parent,
                generator=torch.Generator(),  # or else the loader draws a seed from the global one
            )
        with signals_blocked():  # for a new worker, until it leaves them to this process
            return iter(self._loader)

    def close(self) -> None:
        """End the workers; a further epoch starts new ones."""
        batches, self._batches, self._loader, self._coming = self._batches, None, None, None
        # torch ends workers when the last reference is gone, but the traceback of an error may hold one for long
        shut_down = getattr(batches, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()


def num_batches(length: int, batch_size: int, drop_last: bool = False) -> int:
    """Count the batches of an epoch over `length` images."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, received {batch_size}")
    return length // batch_size if drop_last else -(-length // batch_size)


class _Plan:
    """The requests of an epoch, and of those that are known to follow it.

    Attributes:
        first: seed, epoch and batch that an iteration begins with.
        after: by epoch, the one that follows it where that is known.
        ended: whether the iteration has come to the end of an epoch that none was known to follow.
    """

    def __init__(
        self,
        order: Callable[[int, int], np.ndarray],
        share: Callable[[np.ndarray, int], np.ndarray],
        batches: int,
        prepare: Callable[[Iterator[Request]], Iterable[Request]] | None,
    ) -> None:
        self._order, self._share, self._batches, self._prepare = order, share, batches, prepare
        self.first = (0, 0, 0)
        self.after: dict[int, int] = {}
        self.ended = False

    def __iter__(self) -> Iterator[Request]:
        requests = self._requests()
        return iter(requests if self._prepare is None else self._prepare(requests))

    def _requests(self) -> Iterator[Request]:
        self.ended = False
        seed, epoch, start = self.first
        while True:
            order = self._order(seed, epoch)
            for batch in range(start, self._batches):
                yield Request(self._share(order, batch), seed, epoch)
            if epoch not in self.after:
                self.ended = True
                return
            epoch, start = self.after.pop(epoch), 0


@dataclass(frozen=True, eq=False)
class _Requested(Dataset[Batch]):
    """A data set that is indexed by requests of whole batches."""

    source: BatchSource

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, request: Request) -> Batch:
        return self.source.read(request)


def _as_if_raised_here(fault: BaseException) -> Exception | None:
    """Give an error of a worker as the worker raised it, without the worker's traceback; None: another error.

    torch puts the traceback into the message; the worker's own message is its last line, after the class.
    """
    text = str(fault)
    if not isinstance(fault, (ValueError, ArithmeticError, OSError)) or "in DataLoader worker process" not in text:
        return None
    kind = type(fault)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return kind(text.splitlines()[-1].removeprefix(f"{name}: "))


def _permutation(length: int, passes: int, seed: int, epoch: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    size = length // passes
    return torch.cat([i * size + torch.randperm(size, generator=generator) for i in range(passes)]).numpy()


def _identity(batch: Any) -> Any:
    return batch
