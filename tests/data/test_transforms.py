import random

import numpy as np
import pytest
import torch

from nfpi.config import StandardAugmentation
from nfpi.data import classifier_transform, training_transform
from nfpi.data.transforms import RandAugment, seeded_globals

RGB, GREY = (3, 32, 32), (1, 28, 28)


def _image(shape, low=0):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(low, 256, shape, generator=generator, dtype=torch.uint8)


def _classifier(shape, flip=False, **parts):
    return classifier_transform(StandardAugmentation(**{"flip": False, "crop_padding": 0, **parts}), shape, flip)


def _draws(transform, image, count=64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [transform(image) for _ in range(count)]


@pytest.mark.parametrize("shape", [RGB, GREY, (1, 8, 8), (3, 24, 40)])
@pytest.mark.parametrize("augmentation", ["flip", "shift", "released"])
def test_shape_and_dtype_stay(augmentation, shape):
    for changed in _draws(training_transform(augmentation, shape, True), _image(shape), 4):
        assert changed.shape == shape
        assert changed.dtype == torch.uint8


def test_nothing_to_change_is_none():
    assert training_transform("none", RGB, True) is None
    assert training_transform("flip", RGB, False) is None
    assert classifier_transform(None, RGB, True) is None
    assert _classifier(RGB, flip=True) is None
    assert classifier_transform(StandardAugmentation(crop_padding=0), RGB, False) is None
    assert _classifier(RGB, mixup=0.8, cutmix=1.0, random_erasing=0.25) is None  # these change batches


def test_flip_gives_the_image_or_its_mirror_image_equally_often():
    image = _image(RGB)
    draws = _draws(training_transform("flip", RGB, True), image, 400)
    kept = sum(torch.equal(draw, image) for draw in draws)
    assert kept + sum(torch.equal(draw, image.flip(2)) for draw in draws) == 400
    assert 160 < kept < 240


@pytest.mark.parametrize("augmentation", ["shift", "released"])
def test_without_flip_nothing_is_mirrored(augmentation):
    """A ramp that rises to the right goes on rising."""
    ramp = (torch.arange(32, dtype=torch.uint8) * 4).expand(1, 32, 32).contiguous()
    for changed in _draws(training_transform(augmentation, (1, 32, 32), False), ramp):
        assert changed[0, :, -1].float().mean() > changed[0, :, 0].float().mean() + 60
    mirrored = _draws(training_transform(augmentation, (1, 32, 32), True), ramp)
    assert any(changed[0, :, -1].float().mean() < changed[0, :, 0].float().mean() for changed in mirrored)


def test_shift_gives_the_nine_neighbours():
    image = _image((1, 8, 8))
    padded = torch.nn.functional.pad(image.float(), (1, 1, 1, 1), mode="replicate").to(torch.uint8)
    expected = {padded[:, i : i + 8, j : j + 8].numpy().tobytes() for i in range(3) for j in range(3)}
    draws = _draws(training_transform("shift", (1, 8, 8), False), image, 200)
    assert {draw.numpy().tobytes() for draw in draws} == expected


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), GREY, (1, 32, 32), (1, 64, 64)])
def test_released_leaves_a_constant_grey_image_alone(shape):
    """No black from beyond the padded edge is rotated in."""
    image = torch.full(shape, 200, dtype=torch.uint8)
    for changed in _draws(training_transform("released", shape, True), image, 200):
        assert torch.equal(changed, image)


def test_released_jitters_colours_within_its_bounds():
    image = torch.tensor([120, 100, 80], dtype=torch.uint8)[:, None, None].expand(RGB).contiguous()
    pixels = torch.stack([draw[:, 0, 0] for draw in _draws(training_transform("released", RGB, True), image, 200)])
    assert pixels.unique(dim=0).shape[0] > 20
    ratio = pixels.float().mean(1) / 100
    assert 0.88 < ratio.min() < 0.95
    assert 1.05 < ratio.max() < 1.12


def test_released_only_takes_values_that_were_there_when_grey():
    """Nearest-neighbour rotation, no jitter: no new grey value."""
    image = _image(GREY) // 64 * 64
    for changed in _draws(training_transform("released", GREY, True), image, 20):
        assert set(changed.unique().tolist()) <= set(image.unique().tolist())


def test_released_moves_the_centre_by_at_most_half_the_crop_margin():
    image = torch.zeros((1, 32, 32), dtype=torch.uint8)
    image[0, 15:17, 15:17] = 255
    centres = torch.stack(
        [c[0].nonzero().float().mean(0) for c in _draws(training_transform("released", (1, 32, 32), True), image)]
    )
    assert (centres - 15.5).abs().max() <= 2.5
    assert (centres - 15.5).abs().max() >= 1.5


def test_classifier_crops_show_black_borders():
    image = torch.full(RGB, 255, dtype=torch.uint8)
    borders = {int((draw[0, 16] == 0).sum()) for draw in _draws(_classifier(RGB, crop_padding=4), image, 200)}
    assert borders == {0, 1, 2, 3, 4}


def test_a_classifiers_images_are_mirrored_where_settings_and_data_allow_it():
    image = _image(RGB)
    mirrored = _draws(classifier_transform(StandardAugmentation(crop_padding=0), RGB, True), image)
    assert {torch.equal(draw, image) for draw in mirrored} == {True, False}
    assert all(torch.equal(draw, image) or torch.equal(draw, image.flip(2)) for draw in mirrored)


POLICIES = [{"auto_augment": name} for name in ("cifar10", "imagenet", "svhn")] + [
    {"rand_augment": "rand-m9-mstd0.5-inc1"}
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("shape", [RGB, (1, 8, 8), (3, 24, 40)])
def test_policies_change_most_images_and_keep_their_form(policy, shape):
    image = _image(shape)
    draws = _draws(_classifier(shape, **policy), image, 40)
    assert all(draw.shape == shape and draw.dtype == torch.uint8 for draw in draws)
    assert sum(torch.equal(draw, image) for draw in draws) < 30


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_policies_depend_on_torchs_generator_alone(policy):
    """timm draws from Python's and NumPy's generators, which nobody seeds and which must not notice."""
    transform = _classifier(RGB, **policy)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = _draws(transform, _image(RGB), 20)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    random.random()
    np.random.random()  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(first, _draws(transform, _image(RGB), 20), strict=True))


def test_rand_augment_shows_the_fill_beyond_the_edge():
    """A translation of a white image uncovers nothing but that colour."""
    transform = classifier_transform(
        StandardAugmentation(flip=False, crop_padding=0, rand_augment="rand-m9-n1-p1"), RGB, False, (0.2, 0.4, 0.6)
    )
    transform.transforms[0].change.ops[:] = [op for op in transform.transforms[0].change.ops if "Translate" in op.name]
    white = torch.full(RGB, 255, dtype=torch.uint8)
    colours = {tuple(c) for draw in _draws(transform, white, 20) for c in draw.flatten(1).T.tolist()}
    assert (51, 102, 153) in colours


@pytest.mark.parametrize("policy", ["m9", "rand-q5", "rand-m9-mstd", "augmix-m3", " "])
def test_a_policy_that_timm_does_not_know_is_refused(policy):
    with pytest.raises(ValueError, match="rand_augment"):
        StandardAugmentation(rand_augment=policy)


def test_global_generators_go_on_as_if_nothing_had_been():
    def drawn():
        return random.random(), np.random.random()  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = drawn()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    with seeded_globals(2**32 - 1):
        inside = drawn()
    assert drawn() == expected
    with seeded_globals(2**32 - 1):
        assert drawn() == inside


@pytest.mark.parametrize("policy", ["rand-m0-mstd1", "rand-m10-mstd1-inc1"])
def test_rand_augment_stays_in_the_range_of_its_operations(policy):
    change = RandAugment(policy, (1, 8, 8), (0.5, 0.5, 0.5))
    torch.manual_seed(0)
    for _ in range(400):
        assert change(torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8)).shape == (1, 8, 8)
