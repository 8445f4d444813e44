import math

import numpy as np
import pytest
import torch

from nfpi.data import DataError, choose_domain
from nfpi.flows.dequantization import dequantize, quantize

SHAPE = (4, 3, 2)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def spread():
    """A different one for each element, one of them zero."""
    return torch.arange(24, dtype=torch.float32).view(SHAPE) / 10


@pytest.fixture
def latents():
    return torch.randn(5, *SHAPE, generator=_generator()).clamp(-1, 1).half()


@pytest.fixture
def meta(spread):
    return {"name": "toy", "dtype": "float16", "extra": {"spread": spread.tolist(), "flip": True}}


def test_vectors_are_standardised_with_noise():
    extra = {"mean": [3.0, -2.0], "std": [2.0, 0.5]}
    meta = {"name": "toy", "dtype": "float32", "extra": extra}
    domain = choose_domain(meta, grey_noise=0.05, latent_noise=0.1)
    vectors = torch.tensor([3.0, -2.0]) + torch.tensor([2.0, 0.5]) * torch.randn(5000, 2, generator=_generator())
    vectors = vectors[..., None, None]
    clean, noisy = domain.to_flow(vectors, None), domain.to_flow(vectors, _generator(1))
    torch.testing.assert_close(clean.std((0, 2, 3)), torch.ones(2), rtol=0.03, atol=0)
    assert (noisy - clean).std().item() == pytest.approx(0.1, rel=0.03)
    torch.testing.assert_close(domain.to_images(clean), vectors)
    # no levels: bits of the standardised vectors
    assert domain.bits_per_dim(torch.tensor(16 * math.log(2)), 16).item() == pytest.approx(1)
    with pytest.raises(DataError, match="std"):
        choose_domain(meta | {"extra": extra | {"std": [1.0, 0.0]}}, grey_noise=0, latent_noise=0)


def test_pixels_are_dequantised_with_grey_noise_and_quantised():
    domain = choose_domain({"name": "toy", "dtype": "uint8", "extra": {}}, grey_noise=0.05, latent_noise=0.3)
    images = torch.randint(256, (2, 1, 4, 4), generator=_generator(), dtype=torch.uint8)
    x = domain.to_flow(images, _generator(1))
    assert torch.equal(x, dequantize(images, _generator(1), 0.05))
    assert torch.equal(domain.to_images(x), quantize(x))
    # uniform on [−1, 1]^D: 8 bits a dimension
    assert domain.bits_per_dim(torch.tensor(16 * math.log(2)), 16).item() == pytest.approx(8)
    assert domain.dtype == "uint8"


def test_samples_lose_the_mean_of_the_grey_noise():
    domain = choose_domain({"name": "toy", "dtype": "uint8", "extra": {}}, grey_noise=0.05, latent_noise=0.3)
    images = torch.randint(13, 243, (1, 1, 200, 200), generator=_generator(), dtype=torch.uint8)
    noisy = domain.to_images(domain.to_flow(images, _generator(1)))
    found = domain.subtract_noise(noisy.permute(0, 2, 3, 1).numpy()).astype(float)
    assert (found - images.permute(0, 2, 3, 1).numpy()).mean() == pytest.approx(0, abs=0.5)
    assert domain.subtract_noise(np.full((1, 2, 2, 1), 3, np.uint8)).tolist() == np.zeros((1, 2, 2, 1)).tolist()
    colour = np.full((1, 2, 2, 3), 30, np.uint8)
    assert (domain.subtract_noise(colour) == colour).all()


def test_latents_get_gaussian_noise_in_proportion_to_each_elements_spread(meta, spread):
    domain = choose_domain(meta, grey_noise=0.05, latent_noise=0.25)
    latents = torch.full((1, *SHAPE), 0.5).half().expand(20_000, -1, -1, -1)
    noise = domain.to_flow(latents, _generator()) - 0.5
    torch.testing.assert_close(noise.std(0), 0.25 * spread, rtol=0.03, atol=1e-6)
    assert (noise.mean(0) <= 4 * 0.25 * spread / math.sqrt(20_000)).all()
    standard = (noise / (0.25 * spread))[:, 1:].flatten()
    assert standard.pow(4).mean().item() == pytest.approx(3, rel=0.02)  # that of a normal distribution


def test_the_same_generator_gives_the_same_noise_and_none_gives_none(meta, latents):
    domain = choose_domain(meta, grey_noise=0.0, latent_noise=0.05)
    first = domain.to_flow(latents, _generator(1))
    torch.rand(3)
    assert torch.equal(first, domain.to_flow(latents, _generator(1)))
    assert not torch.equal(first, domain.to_flow(latents, _generator(2)))
    assert torch.equal(domain.to_flow(latents, None), latents.float())
    without = choose_domain(meta, grey_noise=0.0, latent_noise=0.0)
    assert torch.equal(without.to_flow(latents, _generator(1)), latents.float())


def test_latents_without_noise_come_back_bit_for_bit(meta, latents):
    domain = choose_domain(meta, grey_noise=0.0, latent_noise=0.05)
    back = domain.to_images(domain.to_flow(latents, None))
    assert back.dtype == torch.float16
    assert torch.equal(back, latents)
    far = domain.to_images(torch.tensor([1e6, -1e6]))
    assert far.tolist() == [65504.0, -65504.0]


def test_bits_of_latents_do_not_depend_on_what_they_were_divided_by(meta):
    """Change of variables: the entropy of u ~ N(0, σ²), found from the density of u / scale, is that of u."""
    sigma, expected = 7.0, math.log2(7.0) + 0.5 * math.log2(2 * math.pi * math.e)
    for scale in (0.25, 1.0, 31.5):
        meta["extra"]["scale"] = scale
        domain = choose_domain(meta, grey_noise=0.0, latent_noise=0.05)
        of_divided = torch.distributions.Normal(0.0, torch.tensor(sigma / scale, dtype=torch.float64))
        assert domain.bits_per_dim(24 * of_divided.entropy(), 24).item() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "2"])
def test_a_scale_is_a_positive_number(meta, scale):
    meta["extra"]["scale"] = scale
    with pytest.raises(DataError, match=r"toy: .*scale"):
        choose_domain(meta, grey_noise=0.0, latent_noise=0.05)


@pytest.mark.parametrize(
    "spread",
    [None, [[[0.1, float("nan")]]], [[[0.1, float("inf")]]], [[[0.1, -0.2]]], [0.1, 0.2], [[[0.1], [0.2, 0.3]]]],
)
def test_latents_without_a_proper_spread_are_refused(spread):
    meta = {"name": "toy", "dtype": "float16", "extra": {} if spread is None else {"spread": spread}}
    with pytest.raises(DataError, match="toy"):
        choose_domain(meta, grey_noise=0.0, latent_noise=0.05)
