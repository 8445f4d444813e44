from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional

from nfpi.classifiers import Preprocessing, channel_statistics

CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def normalize(preprocessing: Preprocessing, images: torch.Tensor) -> torch.Tensor:
    return preprocessing.make_normalizer(images.shape[1], images.device)(images)


def every_byte(channels: int) -> torch.Tensor:
    return torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, channels, 16, 16)


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_become_the_interval_from_minus_one_to_one(channels):
    x = normalize(Preprocessing(), every_byte(channels))
    assert x.dtype == torch.float32
    assert torch.equal(x, every_byte(channels).float() / 127.5 - 1)
    assert (x.min(), x.max()) == (-1, 1)


def test_colours_are_normalised_a_channel_each_and_grey_by_their_averages():
    mean, std = map(list, CLIP)
    for channels, used in ((3, (mean, std)), (1, ([sum(mean) / 3], [sum(std) / 3]))):
        expected = functional.normalize(every_byte(channels).float() / 255, *used)
        torch.testing.assert_close(normalize(Preprocessing(*CLIP), every_byte(channels)), expected)


def test_a_centre_crop_loses_the_sides_and_a_squash_does_not():
    """Black, white, black: a third each of an image three times as wide as high."""
    image = torch.zeros((3, 24, 72), dtype=torch.uint8)
    image[:, :, 24:48] = 255
    cropped, squashed = (Preprocessing(squash=squash).resize(image, 12) for squash in (False, True))
    assert cropped.shape == squashed.shape == (3, 12, 12)
    assert (cropped[:, :, 1:-1] == 255).all()
    assert (squashed[:, :, :3] == 0).all()
    assert (squashed[:, :, 5:7] == 255).all()
    assert (squashed[:, :, 9:] == 0).all()


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("shape", [(3, 9, 14), (1, 5, 5), (2, 3, 40, 17)])
def test_images_of_any_size_become_squares(shape, squash):
    image = torch.full(shape, 77, dtype=torch.uint8)
    resized = Preprocessing(squash=squash).resize(image, 16)
    assert resized.shape == (*shape[:-2], 16, 16)
    assert resized.dtype == torch.uint8
    assert (resized == 77).all()


def test_statistics_of_channels_are_those_of_all_pixels(make_images):
    images = make_images((3, 5, 7), per_class=500)  # more than are read at a time
    mean, std = channel_statistics(images)
    pixels = images.images.reshape(-1, 3) / 255
    assert mean == pytest.approx(pixels.mean(0).tolist())
    assert std == pytest.approx(pixels.std(0).tolist())
    x = normalize(Preprocessing(mean, std), torch.from_numpy(images.images).permute(0, 3, 1, 2))
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_a_channel_of_equal_pixels_cannot_be_normalised(make_images):
    images = make_images((3, 5, 7))
    images.images[..., 1] = 9
    with pytest.raises(ValueError, match="normalization"):
        channel_statistics(images)
