"""Workers that live across epochs, and what they are given."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest
import torch

from nfpi.data import DataError, ImageSet, batches, training_transform
from nfpi.data.batches import BatchLoader, ImageBatches, Request

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def same(left: Batches, right: Batches) -> bool:
    return len(left) == len(right) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(left, right, strict=True)
    )


@pytest.fixture
def source(image_set) -> ImageBatches:
    return ImageBatches(image_set, training_transform("released", image_set.shape, True))


@dataclass(frozen=True, eq=False)
class Traced:
    """Batches that say which process made them, for which epoch and when."""

    length: int

    def __len__(self) -> int:
        return self.length

    def read(self, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
        made_by = torch.tensor([os.getpid(), request.epoch, time.monotonic_ns()])
        return made_by, torch.from_numpy(request.indices)


def loaders(source: object, workers: int) -> BatchLoader:
    return BatchLoader(source, 16, shuffle=True, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("announced", [True, False])
def test_epochs_one_after_another_are_those_that_stand_alone(source, workers, announced):
    """In any sequence: with passes in between, with one that is abandoned, resumed in the middle."""
    several = loaders(source, workers)
    sequence = [(9, 0), (3, 0), (9, 0), (4, 0), (5, 2), (9, 0), (9, 0), (1, 4), (2, 0)]
    try:
        for place, (epoch, start) in enumerate(sequence):
            then = sequence[place + 1][0] if announced and place + 1 < len(sequence) else None
            found = list(several.load_epoch(epoch, seed=7, start_batch=start, next_epoch=then))
            assert same(found, list(loaders(source, 0).load_epoch(epoch, seed=7, start_batch=start))), (place, epoch)
            list(islice(several.load_epoch(8, seed=7, next_epoch=epoch), place % 3))  # abandoned
        assert same(list(several.load_epoch(0, seed=8)), list(loaders(source, 0).load_epoch(0, seed=8)))
    finally:
        several.close()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_an_announced_epoch_is_never_taken_for_another(source, workers):
    """Fewer batches an epoch than are made ahead, so that the workers come to the end of what is known."""
    several = BatchLoader(source, 40, shuffle=True, workers=workers)
    alone = BatchLoader(source, 40, shuffle=True)
    try:
        for epoch, then in ((0, 1), (1, 2), (2, 9), (9, 3), (3, 9), (9, 4), (4, 7), (5, None), (6, 5)):
            assert same(
                list(several.load_epoch(epoch, seed=7, next_epoch=then)), list(alone.load_epoch(epoch, seed=7))
            ), epoch
    finally:
        several.close()


def test_workers_live_across_epochs_and_make_the_next_one_before_this_one_ends():
    several, workers, ended = loaders(Traced(160), 2), set(), 0
    try:
        for epoch in range(3):
            traces = [trace.tolist() for trace, _ in several.load_epoch(epoch, seed=0, next_epoch=epoch + 1)]
            assert {of for _, of, _ in traces} == {epoch}
            workers |= {process for process, _, _ in traces}
            if epoch:
                assert traces[0][2] < ended
            time.sleep(0.3)  # what is made ahead waits
            ended = time.monotonic_ns() - 2 * 10**8
    finally:
        several.close()
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert multiprocessing.active_children() == []


def test_a_stale_epoch_is_refused(source):
    several = loaders(source, 0)
    old = several.load_epoch(0, seed=0)
    next(old)
    next(several.load_epoch(1, seed=0))
    with pytest.raises(RuntimeError, match="epoch 0"):
        next(old)


@pytest.mark.parametrize("workers", [0, 2])
def test_requests_are_completed_in_the_calling_process_and_in_their_order(workers):
    here, seen = os.getpid(), []

    class Given:
        def __len__(self) -> int:
            return 60

        def read(self, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
            assert request.given is not None
            return request.given, torch.from_numpy(request.indices)

    def complete(requests: Iterator[Request]) -> Iterator[Request]:
        for request in requests:
            assert os.getpid() == here
            seen.append(request.epoch)
            yield replace(request, given=torch.from_numpy(request.indices) * 2 + request.epoch)

    several = BatchLoader(Given(), 16, shuffle=True, workers=workers, prepare=complete)
    try:
        for epoch in (0, 1):
            for given, indices in several.load_epoch(epoch, seed=0, next_epoch=epoch + 1):
                assert torch.equal(given, 2 * indices + epoch)
    finally:
        several.close()
    assert seen[:8] == [0] * 4 + [1] * 4


# ---- faults -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Faulty:
    fault: BaseException

    def __len__(self) -> int:
        return 8

    def read(self, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
        if request.indices[0]:
            raise self.fault
        return torch.zeros(1), torch.zeros(1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", [DataError("a.png: cut"), OSError("the disk is away"), FloatingPointError("NaN")])
def test_the_error_of_a_worker_is_its_own_line_and_ends_all_workers(workers, fault):
    several = BatchLoader(Faulty(fault), 4, workers=workers)
    stream = several.load_epoch(0, seed=0, next_epoch=1)
    next(stream)
    with pytest.raises(type(fault)) as caught:
        next(stream)
    assert str(caught.value) == str(fault)
    assert multiprocessing.active_children() == []


def test_workers_end_when_the_calling_process_is_interrupted_in_between(monkeypatch):
    several = loaders(Traced(600), 2)
    stream = several.load_epoch(0, seed=0)
    next(stream)
    monkeypatch.setattr(several._batches, "_next_data", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert multiprocessing.active_children() == []


# ---- what workers are given ---------------------------------------------------------------------------------


def test_a_stored_set_is_pickled_as_the_path_of_its_images(image_set):
    text = pickle.dumps(image_set)
    assert len(text) < image_set.images.nbytes / 4
    assert image_set.images.tobytes()[:64] not in text
    restored = pickle.loads(text)
    assert isinstance(restored.images, np.memmap)
    assert not restored.images.flags.writeable
    assert np.array_equal(restored.images, image_set.images)
    assert np.array_equal(restored.labels, image_set.labels)
    assert restored.meta == image_set.meta


def test_a_part_of_a_stored_set_is_pickled_as_that_part(image_set):
    part = ImageSet(image_set.images[10:20], image_set.labels[10:20], image_set.meta)
    assert np.array_equal(pickle.loads(pickle.dumps(part)).images, image_set.images[10:20])


def test_workers_that_are_not_forked_make_the_same_batches(image_set, monkeypatch):
    source = ImageBatches(image_set, training_transform("released", image_set.shape, True))
    monkeypatch.setattr(batches, "START_METHOD", "spawn")
    several = loaders(source, 1)
    try:
        assert same(list(several.load_epoch(2, seed=1)), list(loaders(source, 0).load_epoch(2, seed=1)))
    finally:
        several.close()
