import math

import torch
from torch import nn

from nfpi.flows.dequantization import bits_per_dim, dequantize
from nfpi.priors.gaussian import GaussianPrior
from nfpi.training.likelihood import NegativeLogLikelihood, negative_log_likelihood, weigh_posterior


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


class _Quantile(nn.Module):
    """x ↦ Φ⁻¹((x + 1)/2) takes the uniform density of [−1, 1] to a standard normal one."""

    def forward(self, x):
        standard = torch.distributions.Normal(0.0, 1.0)
        z = standard.icdf((x + 1) / 2)
        return z, (-standard.log_prob(z) - math.log(2)).flatten(1).sum(1)


def test_uniform_density_costs_eight_bits_a_dimension():
    images = torch.randint(1, 255, (5, 3, 4, 4), generator=_generator(), dtype=torch.uint8)
    x = dequantize(images, _generator()).double()
    dimensions = x[0].numel()
    prior = GaussianPrior(torch.zeros(2, dimensions).double(), torch.ones(2, dimensions).double())
    nll = negative_log_likelihood(_Quantile(), prior, x, torch.tensor([0, 1, 0, 1, 1]))
    assert nll.shape == (5,)
    torch.testing.assert_close(nll, torch.full((5,), dimensions * math.log(2), dtype=torch.float64))
    torch.testing.assert_close(bits_per_dim(nll, dimensions), torch.full((5,), 8.0, dtype=torch.float64))


class _Doubling(nn.Module):
    def forward(self, x):
        return 2 * x, x.new_full((len(x),), x[0].numel() * math.log(2))


def test_likelihood_is_that_of_the_transformed_variable():
    """z = 2x with z ~ N(μ, v) is x ~ N(μ/2, v/4)."""
    x = torch.randn(4, 1, 2, 3, generator=_generator(), dtype=torch.float64)
    mean = torch.randn(3, 6, generator=_generator(1), dtype=torch.float64)
    variance = torch.rand(3, 6, generator=_generator(2), dtype=torch.float64) + 0.5
    labels = torch.tensor([2, 0, 1, 2])
    expected = torch.distributions.Normal(mean[labels] / 2, variance[labels].sqrt() / 2).log_prob(x.flatten(1)).sum(1)
    torch.testing.assert_close(
        negative_log_likelihood(_Doubling(), GaussianPrior(mean, variance), x, labels), -expected
    )


def test_the_posterior_is_weighed_by_gamma():
    """γ log p(y | x) = γ (log p(x | y) − log Σ_k p(x | k)), with gradients for flow and Gaussians."""
    flow = nn.Linear(6, 6).double()
    x = torch.randn(4, 6, generator=_generator(), dtype=torch.float64)
    mean = torch.randn(3, 6, generator=_generator(1), dtype=torch.float64, requires_grad=True)
    prior = GaussianPrior(mean, torch.rand(3, 6, generator=_generator(2), dtype=torch.float64) + 0.5)
    labels = torch.tensor([2, 0, 1, 2])

    def transform(x):
        return flow(x).view(-1, 1, 2, 3), x.new_full((len(x),), 7.0)

    nll, loss = weigh_posterior(transform, prior, x, labels, 30.0)
    every = torch.stack([negative_log_likelihood(transform, prior, x, torch.full((4,), label)) for label in range(3)])
    torch.testing.assert_close(nll, every[labels, torch.arange(4)])
    torch.testing.assert_close(loss, nll - 30 * (-nll - torch.logsumexp(-every, 0)))
    found = torch.autograd.grad(loss.sum(), [mean, flow.weight], retain_graph=True)
    expected = torch.autograd.grad((31 * nll + 30 * torch.logsumexp(-every, 0)).sum(), [mean, flow.weight])
    torch.testing.assert_close(found, expected)


def test_without_it_the_loss_is_the_likelihood():
    x, labels = torch.randn(4, 1, 2, 3, generator=_generator()), torch.tensor([2, 0, 1, 2])
    prior = GaussianPrior(torch.zeros(3, 6), torch.ones(3, 6))
    nll, loss = NegativeLogLikelihood(_Doubling())(prior, x, labels)
    assert torch.equal(nll, loss)
