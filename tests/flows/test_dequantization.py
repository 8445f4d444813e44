import math

import pytest
import torch

from nfpi.flows.dequantization import GREY_LEVELS, bits_per_dim, dequantize, quantize


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _every_level(channels):
    return torch.arange(GREY_LEVELS, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, channels, 16, 16).contiguous()


@pytest.mark.parametrize("channels", [1, 3])
def test_quantisation_undoes_dequantisation_at_every_grey_level(channels):
    images = _every_level(channels)
    assert torch.equal(quantize(dequantize(images, None)), images)
    many = images.expand(64, -1, -1, -1)
    assert torch.equal(quantize(dequantize(many, _generator())), many)


@pytest.mark.parametrize("level", [0, 1, 63, 127, 128, 191, 254, 255])
def test_quantisation_undoes_dequantisation_however_near_the_noise_comes_to_one(level):
    """Of four million draws some are within rounding of 1."""
    images = torch.full((4, 1, 1024, 1024), level, dtype=torch.uint8)
    x = dequantize(images, _generator(level))
    assert x.min() >= -1
    assert x.max() < 1
    assert torch.equal(quantize(x), images)


def test_noise_is_uniform_within_the_level():
    level = 77
    x = dequantize(torch.full((8, 3, 64, 64), level, dtype=torch.uint8), _generator())
    noise = ((x.double() + 1) * (GREY_LEVELS / 2) - level).flatten()
    assert noise.min() >= 0
    assert noise.max() < 1
    # Kolmogorov-Smirnov
    steps = torch.arange(1, len(noise) + 1) / len(noise)
    assert (noise.sort().values - steps).abs().max() < 1.95 / math.sqrt(len(noise))


def test_without_noise_the_levels_are_equally_spaced_from_minus_one():
    x = dequantize(_every_level(3), None)[0, 0].flatten()
    assert torch.equal(x, torch.arange(256) / 128 - 1)
    assert torch.equal(dequantize(_every_level(1), None, grey_noise=0.05)[0, 0].flatten(), x)


def test_only_images_of_one_channel_get_grey_noise():
    grey, colour = (torch.full((16, channels, 32, 32), 100, dtype=torch.uint8) for channels in (1, 3))
    low = 2 * 100 / GREY_LEVELS - 1
    noisy = dequantize(grey, _generator(), grey_noise=0.05)
    assert low <= noisy.min() < low + 0.01
    # one level, and 5 % of the range of length 2
    assert low + 0.09 < noisy.max() < low + 2 / GREY_LEVELS + 0.1
    assert torch.equal(
        dequantize(colour, _generator(), grey_noise=0.05), dequantize(colour, _generator(), grey_noise=0.0)
    )


def test_same_generator_same_noise():
    images = torch.randint(256, (4, 1, 8, 8), generator=_generator(), dtype=torch.uint8)
    first = dequantize(images, _generator(1), 0.05)
    torch.rand(7)  # the global state is of no account
    assert torch.equal(first, dequantize(images, _generator(1), 0.05))
    assert not torch.equal(first, dequantize(images, _generator(2), 0.05))
    running = _generator(1)
    dequantize(images, running, 0.05)
    assert not torch.equal(first, dequantize(images, running, 0.05))


def test_dequantisation_leaves_the_global_random_state_and_the_images_alone():
    images = _every_level(1)
    state = torch.get_rng_state()
    dequantize(images, _generator(), 0.05)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, _every_level(1))


def test_quantisation_clips():
    x = torch.tensor([-3.0, -1.0, -1 + 1 / 128, 1.0, 5.0]).view(1, 1, 1, 5)
    assert quantize(x).flatten().tolist() == [0, 0, 1, 255, 255]


def test_density_of_one_grey_level_costs_no_bits():
    """Uniform on an interval of length 2/256 in each of D dimensions."""
    assert bits_per_dim(torch.tensor(12 * math.log(2 / 256)), 12).item() == pytest.approx(0.0, abs=1e-5)
