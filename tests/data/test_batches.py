import multiprocessing
import re

import numpy as np
import pytest
import torch

from nfpi.data import DataError, ImageSet, load_batches, num_batches, training_transform


def _epoch(image_set, batch_size=16, **settings):
    return list(load_batches(image_set, batch_size, seed=settings.pop("seed", 11), **settings))


def _same(left, right):
    return len(left) == len(right) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(left, right, strict=True)
    )


@pytest.fixture
def released(image_set):
    return training_transform("released", image_set.shape, True)


def test_plain_batches_are_the_stored_images(image_set):
    images, labels = (torch.cat(parts) for parts in zip(*_epoch(image_set), strict=True))
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert images.is_contiguous()
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), image_set.images)
    assert np.array_equal(labels.numpy(), image_set.labels)


def test_latents_keep_their_dtype():
    latents = ImageSet(np.ones((4, 2, 2, 4), np.float16), np.zeros(4, np.int64), {"classes": ["a"]})
    assert _epoch(latents)[0][0].dtype == torch.float16


def test_shuffling_permutes_images_with_their_labels(image_set):
    images, labels = (torch.cat(parts) for parts in zip(*_epoch(image_set, shuffle=True), strict=True))
    where = {image.tobytes(): index for index, image in enumerate(image_set.images)}
    order = [where[image.numpy().tobytes()] for image in images.permute(0, 2, 3, 1).contiguous()]
    assert sorted(order) == list(range(60))
    assert order != list(range(60))
    assert np.array_equal(labels.numpy(), image_set.labels[order])


def test_the_order_depends_on_seed_and_epoch_only(image_set):
    one = _epoch(image_set, shuffle=True, epoch=1)
    torch.rand(1)
    assert _same(one, _epoch(image_set, shuffle=True, epoch=1))
    assert not _same(one, _epoch(image_set, shuffle=True, epoch=2))
    assert not _same(one, _epoch(image_set, shuffle=True, epoch=1, seed=12))
    whole = torch.cat([y for _, y in one])
    assert torch.equal(whole, torch.cat([y for _, y in _epoch(image_set, 7, shuffle=True, epoch=1)]))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(image_set, released, workers):
    settings = {"shuffle": True, "transform": released, "epoch": 2}
    assert _same(_epoch(image_set, **settings), _epoch(image_set, workers=workers, **settings))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_epoch_is_resumed_bit_for_bit(image_set, released, workers):
    settings = {"shuffle": True, "transform": released, "epoch": 2}
    whole = _epoch(image_set, **settings)
    for start in range(len(whole) + 1):
        assert _same(whole[start:], _epoch(image_set, start_batch=start, workers=workers, **settings))


def test_augmentation_does_not_depend_on_batches_or_order(image_set, released):
    plain = torch.cat([x for x, _ in _epoch(image_set, 60, transform=released)])
    assert torch.equal(plain, torch.cat([x for x, _ in _epoch(image_set, 7, transform=released)]))
    shuffled = torch.cat([x for x, _ in _epoch(image_set, 7, transform=released, shuffle=True)])
    assert torch.equal(torch.unique(plain, dim=0), torch.unique(shuffled, dim=0))


def test_augmentation_differs_between_images_epochs_and_seeds(released):
    same = ImageSet(np.repeat(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3), 8, 0), np.zeros(8, np.int64), {})
    draws = [_epoch(same, transform=released, epoch=e, seed=s)[0][0] for e, s in ((0, 11), (1, 11), (0, 12))]
    assert len(torch.unique(torch.cat(draws), dim=0)) == 24


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generator_is_left_alone(image_set, released, workers):
    before = torch.get_rng_state()
    _epoch(image_set, transform=released, shuffle=True, workers=workers)
    assert torch.equal(before, torch.get_rng_state())


def test_no_other_device_is_seeded(image_set, released, monkeypatch):
    """Seeding the GPU for each image would make its dequantisation noise repeat."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded the GPU"))
    _epoch(image_set, transform=released)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [16, 16, 16, 12]), (True, [16, 16, 16])])
def test_the_last_batch(image_set, drop_last, sizes):
    assert [len(y) for _, y in _epoch(image_set, drop_last=drop_last)] == sizes
    assert num_batches(60, 16, drop_last) == len(sizes)


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_processes_share_every_batch(image_set, released, world_size):
    settings = {"shuffle": True, "transform": released}
    whole = _epoch(image_set, 19, **settings)
    shares = [_epoch(image_set, 19, rank=rank, world_size=world_size, **settings) for rank in range(world_size)]
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        sizes = [len(y) for _, y in parts]
        assert max(sizes) - min(sizes) <= 1
        assert _same([batch], [(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))])


def test_an_empty_share_has_the_shape_of_images(image_set, released):
    images, labels = _epoch(image_set, 59, rank=1, world_size=2, transform=released)[-1]
    assert images.shape == (0, 3, 8, 8)
    assert labels.shape == (0,)


@pytest.mark.parametrize(("batch_size", "start_batch"), [(0, 0), (16, 5), (16, -1)])
def test_wrong_numbers_are_refused_at_once(image_set, batch_size, start_batch):
    with pytest.raises(ValueError, match="batch"):
        load_batches(image_set, batch_size, seed=0, start_batch=start_batch)


class _Unreadable:
    """Images of which the one at place 5 cannot be read."""

    shape = (8, 2, 2, 1)

    def __getitem__(self, indices):
        if 5 in indices:
            raise DataError("five.png: expected an image, received a cut one (it is cut)")
        return np.zeros((len(indices), *self.shape[1:]), np.uint8)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_named_in_one_line(workers):
    image_set = ImageSet(_Unreadable(), np.zeros(8, np.int64), {"classes": ["a"]})
    read = load_batches(image_set, 4, seed=0, workers=workers)
    assert len(next(read)[0]) == 4
    with pytest.raises(DataError) as caught:
        next(read)
    assert re.fullmatch(r"five\.png: .*\(it is cut\)", str(caught.value))
    assert multiprocessing.active_children() == []  # while the error is held, too
