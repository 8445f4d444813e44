import random

import numpy as np
import pytest
import torch

from nfpi.classifiers.transforms import RandAugment, classifier_transform
from nfpi.config.classifiers import StandardAugmentation

RGB = (3, 32, 32)


def _image(shape, low=0):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(low, 256, shape, generator=generator, dtype=torch.uint8)


def _classifier(shape, flip=False, **parts):
    return classifier_transform(StandardAugmentation(**{"flip": False, "crop_padding": 0, **parts}), shape, flip)


def _draws(transform, image, count=64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [transform(image) for _ in range(count)]


def test_nothing_to_change_is_none():
    assert _classifier(RGB, flip=True) is None
    assert classifier_transform(StandardAugmentation(crop_padding=0), RGB, False) is None
    assert _classifier(RGB, mixup=0.8, cutmix=1.0, random_erasing=0.25) is None  # these change batches


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
    """timm draws from Python's and NumPy's generators, which nobody else seeds."""
    transform = _classifier(RGB, **policy)
    first = _draws(transform, _image(RGB), 20)
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


@pytest.mark.parametrize("policy", ["m9", "rand-q5", "rand-m9-mstd", "rand-p0.5.5", "augmix-m3", " "])
def test_a_policy_that_timm_does_not_know_is_refused(policy):
    with pytest.raises(ValueError, match="rand_augment"):
        StandardAugmentation(rand_augment=policy)


@pytest.mark.parametrize("policy", ["rand-m0-mstd1", "rand-m10-mstd1-inc1"])
def test_rand_augment_stays_in_the_range_of_its_operations(policy):
    change = RandAugment(policy, 1, (0.1, 0.5, 0.9))
    torch.manual_seed(0)
    for _ in range(400):
        assert change(torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8)).shape == (1, 8, 8)


def test_rand_augment_fills_grey_images_with_one_grey():
    """The colour of published weights differs between channels, of which a grey image keeps the first."""
    change = RandAugment("rand-m10-n4-p1.0", 1, (0.2, 0.5, 0.8)).change
    assert {operation.kwargs["fillcolor"] for operation in change.ops} == {(128, 128, 128)}
