from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfpi.classifiers import ClassifierData, Preprocessing, Variants, concatenate, resize_images
from nfpi.config.classifiers import ClassifierConfig, StandardAugmentation
from nfpi.data import ImageSet, Pixels
from nfpi.runtime.randomness import derive_seed

CPU = torch.device("cpu")
STANDARD = StandardAugmentation(crop_padding=1, rand_augment="rand-m9-mstd0.5-inc1")


def variants_of(train: ImageSet, per_image: int = 3) -> ImageSet:
    """Variant v of an image is the image inverted, with v as its first pixel."""
    images = np.repeat(255 - train.images, per_image, axis=0)
    images[:, 0, 0] = np.tile(np.arange(per_image, dtype=np.uint8), len(train))[:, None]
    meta = {**train.meta, "extra": {**train.meta["extra"], "variants": per_image}}
    return ImageSet(images, np.repeat(train.labels, per_image), meta)


def as_latents(images: ImageSet) -> ImageSet:
    """Halves hold bytes exactly: a decoder need only change the type."""
    return ImageSet(images.images.astype(np.float16), images.labels, images.meta)


class Decoder:
    """Notes how many it was asked for at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        assert latents.dtype == torch.float16
        self.asked.append(len(latents))
        return latents.to(torch.uint8)


def data_of(train: ImageSet, **changes: object) -> ClassifierData:
    config = ClassifierConfig(**{"batch_size": 8, "train_on": "real", **changes.pop("config", {})})
    return ClassifierData(train, train, config, **changes)


def stream(data: ClassifierData, epoch: int = 0, start: int = 0, seed: int = 0) -> list[tuple[torch.Tensor, ...]]:
    with closing(data.make_loader(seed, CPU)) as loader:
        return list(loader.load_epoch(epoch, seed=derive_seed(seed, "classifier"), start_batch=start))


def assert_equal(one: list, other: list) -> None:
    assert len(one) == len(other)
    for (images, labels), (same_images, same_labels) in zip(one, other, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


# ---- batches of an epoch ------------------------------------------------------------------------------------


def test_an_epoch_of_repeats_is_passes_over_all_images_one_after_another(make_images):
    """60 images three times: batches of 8 reach over the end of a pass, and the passes differ in their order."""
    train = make_images((3, 6, 6))
    data = data_of(train, config={"repeats": 3})
    batches = stream(data)
    assert len(batches) == data.steps_per_epoch == 23
    assert [len(labels) for _, labels in batches] == [8] * 22 + [4]
    assert data.images_per_epoch == 180
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    drawn = [(image.numpy().tobytes(), label) for image, label in zip(images, labels.tolist(), strict=True)]
    passes = [drawn[:60], drawn[60:120], drawn[120:]]
    stored = zip(train.images.transpose(0, 3, 1, 2), train.labels.tolist(), strict=True)
    assert {*map(frozenset, passes)} == {frozenset((image.tobytes(), label) for image, label in stored)}
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert_equal(stream(data_of(train))[:7], batches[:7])  # the first pass is an epoch without repeats


@pytest.mark.parametrize("drawn", [13, 60, 150])
def test_an_epoch_of_a_given_length_is_the_beginning_of_shuffled_passes(make_images, drawn):
    """Over two epochs of a part of the images, other images are seen than in one."""
    train = make_images()
    data = data_of(train, drawn=drawn)
    assert data.steps_per_epoch == -(-drawn // 8)
    seen = []
    for epoch in range(2):
        order = np.concatenate([batch[0].numpy().reshape(len(batch[0]), -1) for batch in stream(data, epoch)])
        assert len(order) == drawn
        for start in range(0, drawn, len(train)):
            part = order[start : start + len(train)]
            assert len(np.unique(part, axis=0)) == len(part)
        seen.append(order)
    assert len(np.unique(np.concatenate(seen), axis=0)) > min(drawn, len(train) - 1)


def test_the_steps_of_table_5():
    train = ImageSet(np.zeros((50_000, 1, 1, 1), np.uint8), np.zeros(50_000, np.int64), {"classes": ["a"], "extra": {}})
    data = data_of(train, config={"repeats": 3, "batch_size": 256})
    assert data.steps_per_epoch == 586  # 585 whole batches, which the authors' loader keeps, and the rest


def test_every_pass_has_augmentations_and_variants_of_its_own(make_images):
    train = make_images((3, 6, 6))
    changed = data_of(train, standard=STANDARD, config={"repeats": 2, "batch_size": 60})
    first, second = ({image.numpy().tobytes() for image in images} for images, _ in stream(changed))
    assert len(first & second) < 20
    variants = Variants.from_image_set(variants_of(train), train)
    rows = variants.draw_rows(0.5, 0, 0, repeats=2)
    assert rows.shape == (120,)
    assert not np.array_equal(rows[:60], rows[60:])
    replaced = rows >= 0
    assert np.array_equal(rows[replaced] // 3, (np.arange(120) % 60)[replaced])  # variants of the image itself
    assert 0.3 < replaced.mean() < 0.7


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("changes", [{"start": 3}, {"workers": 2}])
def test_an_epoch_is_the_same_from_where_it_was_cut_and_by_any_workers(make_images, changes, repeats, decoded):
    train = make_images((3, 6, 6))
    variants = Variants.from_image_set(variants_of(train), train)
    if decoded:
        variants = Variants.from_image_set(as_latents(variants_of(train)), train, Decoder())
    whole = stream(data_of(train, standard=STANDARD, variants=variants, config={"repeats": repeats}), epoch=1)
    config = {"workers": changes.get("workers", 0), "repeats": repeats}
    part = data_of(train, standard=STANDARD, variants=variants, config=config)
    assert_equal(whole[changes.get("start", 0) :], stream(part, epoch=1, start=changes.get("start", 0)))


@pytest.mark.parametrize(("count", "seen"), [(16, 16), (17, 16), (18, 18)])
def test_an_image_alone_in_the_last_batch_is_left_out(make_images, count, seen):
    train = make_images(classes=1, per_class=count)
    data = data_of(train)
    assert data.images_per_epoch == seen == sum(len(labels) for _, labels in stream(data))
    assert data.steps_per_epoch == len(stream(data))


def test_validation_images_of_another_kind_are_refused(make_images):
    with pytest.raises(ValueError, match="in both, received"):
        ClassifierData(make_images(), make_images(classes=4), ClassifierConfig())


# ---- latent augmentation ------------------------------------------------------------------------------------


def test_the_share_of_variants_is_the_probability_and_each_is_as_likely(make_images):
    train = make_images(classes=2, per_class=3000, shape=(1, 2, 2))
    variants = Variants.from_image_set(variants_of(train), train)
    rows = variants.draw_rows(0.3, seed=5, epoch=0)
    replaced = rows >= 0
    assert replaced.mean() == pytest.approx(0.3, abs=0.03)  # five standard deviations
    assert (rows[replaced] // 3 == np.flatnonzero(replaced)).all()  # its own variants
    shares = np.bincount(rows[replaced] % 3) / replaced.sum()
    assert shares == pytest.approx(np.full(3, 1 / 3), abs=0.06)
    assert np.array_equal(rows, variants.draw_rows(0.3, seed=5, epoch=0))
    assert not np.array_equal(rows, variants.draw_rows(0.3, seed=5, epoch=1))
    assert not np.array_equal(rows, variants.draw_rows(0.3, seed=6, epoch=0))
    assert (variants.draw_rows(0, 0, 0) == -1).all()
    assert (variants.draw_rows(1, 0, 0) >= 0).all()


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_variant_stands_in_for_its_image_under_its_label(make_images, probability):
    train = make_images((1, 6, 6))
    data = data_of(
        train, variants=Variants.from_image_set(variants_of(train), train), config={"nfa_probability": probability}
    )
    originals = {image.tobytes(): label for image, label in zip(train.images, train.labels.tolist(), strict=True)}
    replaced, chosen = 0, set()
    for images, labels in stream(data):
        for image, label in zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True):
            if image.tobytes() in originals:
                assert originals[image.tobytes()] == label
                continue
            replaced += 1
            chosen.add(int(image[0, 0, 0]))
            matches = (255 - train.images[:, 1:] == image[1:]).all((1, 2, 3))
            assert train.labels[matches].tolist() == [label]
    assert {0.0: replaced == 0, 1.0: replaced == 60}.get(probability, 10 < replaced < 50)
    assert chosen == ({0, 1, 2} if probability else set())


@pytest.mark.parametrize("standard", [None, STANDARD])
def test_decoded_latents_are_seen_like_stored_pixels(make_images, standard):
    """With their augmentations, which depend on the image and not on who decodes it."""
    train = make_images((3, 6, 6))
    decoder = Decoder()
    config = {"batch_size": 40, "nfa_probability": 0.9}
    pixels, latents = (
        data_of(train, standard=standard, variants=variants, config=config)
        for variants in (
            Variants.from_image_set(variants_of(train), train),
            Variants.from_image_set(as_latents(variants_of(train)), train, decoder),
        )
    )
    assert_equal(stream(pixels), stream(latents))
    assert max(decoder.asked) <= 16 < sum(decoder.asked)  # never a whole batch at a time


def test_decoded_variants_take_the_size_of_the_images(make_images):
    train, small = make_images((3, 8, 8)), variants_of(make_images((3, 4, 4)))
    variants = Variants.from_image_set(as_latents(small), train, Decoder())
    for images, _ in stream(data_of(train, variants=variants, config={"nfa_probability": 1.0})):
        assert images.shape[1:] == (3, 8, 8)
        assert (images.float().std((1, 2, 3)) > 0).all()


def test_variants_of_other_images_are_refused(make_images):
    train, other = make_images(), make_images(seed=1)
    with pytest.raises(ValueError, match="received 180"):
        Variants.from_image_set(variants_of(other), train)
    with pytest.raises(ValueError, match="received 45"):
        Variants.from_image_set(variants_of(make_images(per_class=5)), train)
    with pytest.raises(ValueError, match=r"augmented images.*\(1, 6, 6\)"):
        Variants.from_image_set(variants_of(make_images((1, 6, 6))), train)


# ---- sizes --------------------------------------------------------------------------------------------------


def files_of(folder: Path, sizes: list[tuple[int, int]]) -> Pixels:
    """Image files of these sizes (H, W), and the set of latents that were made of them."""
    names = [f"{index}.png" for index in range(len(sizes))]
    generator = np.random.default_rng(0)
    for name, size in zip(names, sizes, strict=True):
        Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    labels = np.arange(len(sizes)) % 2
    meta = {"name": "files", "classes": ["a", "b"], "extra": {"flip": True}}
    latents = ImageSet(np.zeros((len(sizes), 2, 2, 4), np.float16), labels, meta)
    return Pixels(latents, folder, np.array(names))


def test_stored_images_are_resized(make_images):
    images = make_images((1, 8, 8))
    larger = resize_images(Pixels(images), 16, Preprocessing())
    assert larger.shape == (1, 16, 16)
    assert larger.images[np.arange(5)].mean() == pytest.approx(images.images[:5].mean(), abs=2)
    assert resize_images(Pixels(images), 8, Preprocessing()) is images
    assert larger.images[np.arange(0)].shape == (0, 16, 16, larger.shape[0])  # of a refit: no validation images


def test_files_of_any_size_are_read_at_one_size(tmp_path):
    pixels = files_of(tmp_path, [(20, 30), (16, 16), (31, 9), (12, 12)])
    images = resize_images(pixels, 12, Preprocessing())
    assert images.shape == (3, 12, 12)
    rows = images.images[np.array([3, 0])]
    assert rows.dtype == np.uint8
    assert np.array_equal(rows[0], pixels[3].permute(1, 2, 0).numpy())
    assert np.array_equal(rows[1], Preprocessing().resize(pixels[0], 12).permute(1, 2, 0).numpy())
    for batch, labels in stream(data_of(images, config={"batch_size": 4, "workers": 2})):
        assert batch.shape == (4, 3, 12, 12)
        assert sorted(labels.tolist()) == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="image_size"):
        resize_images(pixels, None, Preprocessing())


# ---- real and generated images together ---------------------------------------------------------------------


def test_concatenated_sets_have_all_images_with_their_labels(make_images):
    first, second = make_images(per_class=5), make_images(per_class=3, seed=1)
    both = concatenate(first, second)
    assert len(both) == 24
    assert (both.images[:15] == first.images).all()
    assert (both.labels[15:] == second.labels).all()


def test_sets_that_do_not_fit_are_refused(make_images):
    first = make_images()
    renamed = ImageSet(first.images, first.labels, first.meta | {"classes": ["class1", "class0", "class2"]})
    for other in (make_images((3, 8, 8)), make_images((1, 8, 4)), make_images(classes=4), renamed):
        with pytest.raises(ValueError, match="received"):
            concatenate(first, other)
