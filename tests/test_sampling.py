from __future__ import annotations

import pytest
import torch
from torch import nn

from nfpi.data.domain import LatentDomain, PixelDomain
from nfpi.flows import MatrixExponentialFlow
from nfpi.flows.dequantization import dequantize
from nfpi.priors import GaussianPrior
from nfpi.runtime.randomness import make_generator
from nfpi.sampling import balanced_labels, sample_images

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def flow() -> MatrixExponentialFlow:
    """A flow that is not the identity anywhere."""
    torch.manual_seed(0)
    flow = MatrixExponentialFlow(SHAPE, [2, 1], [1, 1], [8, 8])
    flow.initialize(dequantize(torch.randint(0, 256, (64, *SHAPE), dtype=torch.uint8), make_generator(CPU, 0)))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return flow


@pytest.fixture(scope="module")
def prior(flow: MatrixExponentialFlow) -> GaussianPrior:
    """Three classes whose means are the latents of a dark, a grey and a bright image."""
    x = torch.stack([torch.full(SHAPE, level) for level in (-0.5, 0.0, 0.5)])
    with torch.no_grad():
        mean = flow(x + 0.1 * torch.rand(x.shape, generator=make_generator(CPU, 9)))[0].flatten(1)
    return GaussianPrior(mean.double(), torch.full((3, 64), 0.04, dtype=torch.float64))


def test_nothing_is_drawn_after_the_last_batch(flow, prior):
    """A process may have been stopped after its last batch was written."""
    settings = {"temperature": 1.0, "seed": 3, "batch_size": 2, "domain": PixelDomain(0.05)}
    assert list(sample_images(flow, prior, balanced_labels(3, 2), **settings, start_batch=3)) == []


def sample(flow: nn.Module, prior: GaussianPrior, labels: torch.Tensor, **changes) -> tuple[torch.Tensor, torch.Tensor]:
    settings = {"temperature": 1.0, "seed": 3, "batch_size": 16, "domain": PixelDomain(0.05)} | changes
    parts = list(sample_images(flow, prior, labels, **settings))
    return torch.cat([images for images, _ in parts]), torch.cat([classes for _, classes in parts])


def test_the_seed_is_all_of_the_randomness(flow, prior):
    labels = balanced_labels(3, 15)
    images, classes = sample(flow, prior, labels)
    torch.manual_seed(88)
    again, _ = sample(flow, prior, labels)
    assert torch.equal(images, again)
    assert not torch.equal(images, sample(flow, prior, labels, seed=4)[0])
    assert torch.equal(classes, labels)
    assert len(images.flatten(1).unique(dim=0)) == 45  # no batch repeats another's noise


def test_images_are_bytes_in_the_order_of_the_labels(flow, prior):
    labels = torch.tensor([2, 0, 1, 2, 2, 0, 1] * 5)
    images, classes = sample(flow, prior, labels, batch_size=4)
    assert images.dtype == torch.uint8
    assert images.shape == (35, *SHAPE)
    assert torch.equal(classes, labels)
    brightness = torch.stack([images[labels == k].float().mean() for k in range(3)])
    assert (brightness.diff() > 20).all(), brightness


def test_an_image_is_the_inverse_of_the_latent_that_was_drawn(flow, prior):
    """f of the dequantised image is the latent again, up to the step of quantisation."""
    labels = balanced_labels(3, 5)
    images, _ = sample(flow, prior, labels, temperature=0.5)
    latents = prior.to(dtype=torch.float32).sample(labels, 0.5, make_generator(CPU, 3, "sample", 0))
    with torch.no_grad():
        x = flow.inverse(latents)[0]
        assert (flow(x)[0].flatten(1) - latents).abs().max() < 1e-3
    inside = (x > -1) & (x < 1)
    assert inside.float().mean() > 0.9
    centre = dequantize(images, None) + 1 / 256
    assert (centre - x)[inside].abs().max() <= 1 / 256 + 1e-5


def test_at_temperature_zero_all_images_of_a_class_are_its_mean(flow, prior):
    images, _ = sample(flow, prior, balanced_labels(3, 4), temperature=0.0)
    with torch.no_grad():
        expected = dequantize(images[::4], None)
        means = flow.inverse(prior.mean.float())[0]
    assert all(torch.equal(group, group[:1].expand_as(group)) for group in images.split(4))
    assert (expected + 1 / 256 - means.clamp(-1, 1)).abs().max() <= 1 / 256 + 1e-5


def test_images_spread_with_the_temperature(flow, prior):
    labels = torch.ones(64, dtype=torch.int64)
    spread = [sample(flow, prior, labels, temperature=t)[0].float().std(0).mean() for t in (0.25, 0.5, 1.0)]
    assert spread[0] * 1.5 < spread[1] < spread[2] / 1.3


class Faulty(nn.Module):
    """An inverse that is the identity but overflows for some latents."""

    def __init__(self, overflows) -> None:
        super().__init__()
        self.overflows = overflows
        self.calls: list[int] = []
        self.shape = SHAPE

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls.append(len(z))
        x = z.view(-1, *SHAPE).clone()
        x[self.overflows(z.flatten(1)), 0, 0, 0] = torch.inf
        return x, torch.zeros(len(z))


def test_latents_whose_inverse_overflows_are_drawn_again(prior):
    flow = Faulty(lambda z: z[:, 0] > 0)
    wide = GaussianPrior(torch.zeros_like(prior.mean), prior.variance)  # every second one overflows
    labels = balanced_labels(3, 20)
    images, classes = sample(flow, wide, labels, batch_size=60)
    assert torch.equal(classes, labels)
    assert len(images) == 60
    assert flow.calls[-1] < flow.calls[1] < flow.calls[0] == 60
    assert all(later <= earlier for earlier, later in zip(flow.calls, flow.calls[1:], strict=False))
    kept, _ = sample(Faulty(lambda z: torch.zeros(len(z), dtype=torch.bool)), wide, labels, batch_size=60)
    unchanged = (kept == images).flatten(1).all(1).float().mean()
    assert 0.2 < unchanged < 0.8  # what was fine from the beginning stays


def test_images_that_stay_not_finite_are_an_error(prior):
    flow = Faulty(lambda z: torch.arange(len(z)) == 0)
    message = r"sampling at temperature 0\.9: 1 of 6 images are still not finite after 10 draws; try a smaller"
    with pytest.raises(FloatingPointError, match=message):
        sample(flow, prior, balanced_labels(3, 2), temperature=0.9)


def test_balanced_labels():
    assert balanced_labels(3, 2).tolist() == [0, 0, 1, 1, 2, 2]


def test_latents_are_drawn_in_half_precision(flow, prior):
    """They are what the flow gives, rounded and not quantised, though it lies beyond [−1, 1]."""
    labels = balanced_labels(3, 4)
    domain = LatentDomain(0.05, torch.ones(SHAPE))
    latents, classes = sample(flow, prior, labels, temperature=2.0, domain=domain)
    assert latents.dtype == torch.float16
    assert torch.equal(classes, labels)
    with torch.no_grad():
        z = prior.to(dtype=torch.float32).sample(labels, 2.0, make_generator(CPU, 3, "sample", 0))
        x = flow.inverse(z)[0]
    assert x.abs().max() > 1
    torch.testing.assert_close(latents.float(), x, rtol=2**-10, atol=1e-6)
