import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from nfpi.priors import GaussianPrior, pairwise_kld, separation_loss
from nfpi.priors.divergence import kld_scale, repulsion_kernel

KINDS = ["diagonal", "full"]
SCALES = ["pairwise", "average"]


def _prior(kind, classes=4, dimensions=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = 2 * torch.randn(classes, dimensions, generator=generator, dtype=torch.float64)
    if kind == "diagonal":
        return GaussianPrior(mean, torch.rand(classes, dimensions, generator=generator, dtype=torch.float64) + 0.2)
    factor = torch.randn(classes, dimensions, 2 * dimensions, generator=generator, dtype=torch.float64)
    return GaussianPrior(mean, covariance=factor @ factor.mT / dimensions)


def _plain(prior):
    """KLD(N_i ‖ N_j) of every pair by torch.distributions, [i, j]."""
    if prior.is_full:
        gaussians = [MultivariateNormal(m, c) for m, c in zip(prior.mean, prior.covariance, strict=True)]
    else:
        gaussians = [Independent(Normal(m, v.sqrt()), 1) for m, v in zip(prior.mean, prior.variance, strict=True)]
    return torch.stack([torch.stack([kl_divergence(p, q) for q in gaussians]) for p in gaussians])


def _like(prior, mean):
    return GaussianPrior(mean, None if prior.is_full else prior.variance, prior.covariance)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_divergences_are_those_of_the_distributions(kind, classes, dimensions, seed):
    prior = _prior(kind, classes, dimensions, seed)
    kld = pairwise_kld(prior)
    assert not kld.diagonal().any()
    assert (kld >= 0).all()
    torch.testing.assert_close(kld, _plain(prior), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_divergences_are_those_of_the_distributions(kind):
    prior = _prior(kind)
    inputs = [prior.mean.requires_grad_(), (prior.covariance if prior.is_full else prior.variance).requires_grad_()]
    upstream = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    upstream.fill_diagonal_(0)
    found = torch.autograd.grad(pairwise_kld(prior), inputs, upstream)
    expected = torch.autograd.grad(_plain(prior), inputs, upstream)
    torch.testing.assert_close(found[0], expected[0])
    # only the symmetric part of a gradient with respect to a symmetric matrix means something
    for one, other in [(found[1], expected[1])]:
        if prior.is_full:
            one, other = one + one.mT, other + other.mT
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [1.0, 1e3, 1e6])
def test_divergences_do_not_know_where_the_origin_is(kind, offset):
    prior = _prior(kind)
    shift = offset * torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64)
    tolerance = 1e-13 * offset + 1e-12
    torch.testing.assert_close(
        pairwise_kld(_like(prior, prior.mean + shift)), pairwise_kld(prior), rtol=50 * tolerance, atol=50 * tolerance
    )


def test_divergences_do_not_know_the_units():
    """An invertible linear map of the latents changes nothing."""
    prior = _prior("full")
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mapped = GaussianPrior(prior.mean @ matrix.T, covariance=matrix @ prior.covariance @ matrix.T)
    torch.testing.assert_close(pairwise_kld(mapped), pairwise_kld(prior), rtol=1e-8, atol=1e-8)


def test_diagonal_matrices_diverge_as_their_diagonals():
    prior = _prior("diagonal")
    full = GaussianPrior(prior.mean, covariance=prior.variance.diag_embed())
    torch.testing.assert_close(pairwise_kld(full), pairwise_kld(prior))


def test_divergence_written_down():
    prior = GaussianPrior(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
    expected = [[0, 0.5 * (math.log(4) - 1 + 1 / 4 + 1)], [0.5 * (-math.log(4) - 1 + 4 + 4), 0]]
    torch.testing.assert_close(pairwise_kld(prior), torch.tensor(expected))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_separation_loss_is_the_plain_sum(kind, scale, alpha):
    prior = _prior(kind)
    kld = _plain(prior)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    average = sum(kld[i, j] for i, j in pairs) / len(pairs)
    expected = sum(math.exp(-kld[i, j] / ((kld[i, j] if scale == "pairwise" else average) * alpha)) for i, j in pairs)
    assert separation_loss(prior, alpha, scale).item() == pytest.approx(expected, rel=1e-10)
    if scale == "pairwise":
        assert separation_loss(prior, alpha, scale).item() == pytest.approx(12 * math.exp(-1 / alpha), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_pairwise_loss_is_that_of_the_logarithms(kind):
    """−(e^{−1/α}/α) Σ log KLD_ij, because π is a constant to it."""
    prior, alpha = _prior(kind), 10.0
    mean = prior.mean.requires_grad_()
    (found,) = torch.autograd.grad(separation_loss(prior, alpha), mean)
    kld = _plain(prior)
    off_diagonal = kld[~torch.eye(4, dtype=torch.bool)]
    (expected,) = torch.autograd.grad(-math.exp(-1 / alpha) / alpha * off_diagonal.log().sum(), mean)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_average_loss_has_none_through_the_average(kind):
    prior, alpha = _prior(kind), 10.0
    mean = prior.mean.requires_grad_()
    (found,) = torch.autograd.grad(separation_loss(prior, alpha, "average"), mean)
    kld = _plain(prior)
    average = kld.sum().item() / 12
    off_diagonal = kld[~torch.eye(4, dtype=torch.bool)]
    (expected,) = torch.autograd.grad(torch.exp(-off_diagonal / (average * alpha)).sum(), mean)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scale", SCALES)
def test_kernel_is_minus_the_derivative_of_the_loss(scale):
    """κ_ij = −∂/∂KLD_ij exp(−KLD_ij/(π_ij α))."""
    kld = pairwise_kld(_prior("diagonal")).requires_grad_()
    pi = kld_scale(kld, scale).detach()
    loss = torch.exp(-kld / (pi * 10.0))
    (gradient,) = torch.autograd.grad(loss[~torch.eye(4, dtype=torch.bool)].sum(), kld)
    torch.testing.assert_close(repulsion_kernel(kld.detach(), 10.0, scale), -gradient)
    expected = kld.sum() / 12 if scale == "average" else kld[2, 1]
    torch.testing.assert_close(pi[2, 1], expected.detach())


def test_kernel_of_coinciding_classes_is_not_finite():
    """0/0 where both divergences are 0; whoever uses it has to look."""
    kernel = repulsion_kernel(torch.zeros(2, 2), 10.0, "pairwise")
    assert not kernel[0, 1].isfinite()
    assert not kernel[1, 0].isfinite()
    assert not kernel.diagonal().any()


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf, None])
def test_alpha_that_is_not_positive_is_refused(alpha):
    prior = _prior("diagonal")
    for compute in (separation_loss, lambda prior, alpha: repulsion_kernel(pairwise_kld(prior), alpha, "average")):
        with pytest.raises(ValueError, match=f"^alpha:.*{alpha}$"):
            compute(prior, alpha)


@pytest.mark.parametrize("scale", ["mean", "Average", None])
def test_unknown_scales_are_refused(scale):
    prior = _prior("diagonal")
    with pytest.raises(ValueError, match=f"^scale:.*{scale!r}$"):
        separation_loss(prior, 10.0, scale)
    with pytest.raises(ValueError, match=f"^scale:.*{scale!r}$"):
        repulsion_kernel(pairwise_kld(prior), 10.0, scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_a_single_class_has_no_pairs(kind, scale):
    prior = _prior(kind, classes=1)
    mean = prior.mean.requires_grad_()
    loss = separation_loss(prior, 10.0, scale)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, mean)
    assert not gradient.any()
