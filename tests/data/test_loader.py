"""Workers that live across epochs, and what they are given."""

from __future__ import annotations

import multiprocessing
import os
import pickle
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
    """Batches that say which process made them, and for which epoch."""

    length: int

    def __len__(self) -> int:
        return self.length

    def read(self, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
        made_by = torch.tensor([os.getpid(), request.epoch])
        return made_by, torch.from_numpy(request.indices)


def loaders(source: object, workers: int) -> BatchLoader:
    return BatchLoader(source, 16, shuffle=True, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_one_after_another_are_those_that_stand_alone(source, workers):
    """In any sequence: with one that is abandoned, resumed in the middle, or of another seed."""
    several = loaders(source, workers)
    try:
        for epoch, seed, start in ((9, 7, 0), (3, 7, 0), (9, 7, 0), (5, 7, 2), (1, 7, 4), (0, 8, 0)):
            found = list(several.load_epoch(epoch, seed=seed, start_batch=start))
            assert same(found, list(loaders(source, 0).load_epoch(epoch, seed=seed, start_batch=start)))
            list(islice(several.load_epoch(8, seed=7), epoch % 3))  # abandoned
    finally:
        several.close()


def test_workers_live_across_epochs():
    several, workers = loaders(Traced(160), 2), set()
    try:
        for epoch in range(3):
            traces = [trace.tolist() for trace, _ in several.load_epoch(epoch, seed=0)]
            assert {of for _, of in traces} == {epoch}
            workers |= {process for process, _ in traces}
    finally:
        several.close()
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert multiprocessing.active_children() == []


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
            for given, indices in several.load_epoch(epoch, seed=0):
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
    stream = several.load_epoch(0, seed=0)
    next(stream)
    with pytest.raises(type(fault)) as caught:
        next(stream)
    assert str(caught.value) == str(fault)
    assert multiprocessing.active_children() == []


def test_workers_end_when_the_calling_process_is_interrupted_in_between(monkeypatch):
    several = loaders(Traced(600), 2)
    stream = several.load_epoch(0, seed=0)
    next(stream)
    monkeypatch.setattr(several._loader._iterator, "_next_data", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
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
