"""Whether latents follow class Gaussians: measures against NumPy, and against the fixed point that determines them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from nfpi.config.priors import compute_relative_weight
from nfpi.priors import ClassStatistics, FixedPointConfig, GaussianPrior, fit_fixed_point
from nfpi.priors.following import Following, estimate_moments, measure_following

K, D = 4, 6


@pytest.fixture
def latents() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (N, D) and labels (N,), of unequal numbers per class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(K).repeat_interleave(torch.tensor([9, 20, 35, 36]))
    means = 2 * torch.randn(K, D, generator=generator, dtype=torch.float64)
    mixing = torch.randn(D, D, generator=generator, dtype=torch.float64)
    return means[labels] + torch.randn(len(labels), D, generator=generator, dtype=torch.float64) @ mixing, labels


def make_prior(full: bool) -> GaussianPrior:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(K, D, generator=generator, dtype=torch.float64)
    root = torch.randn(K, D, 2 * D, generator=generator, dtype=torch.float64)
    covariance = root @ root.mT / D
    return GaussianPrior(mean, covariance=covariance) if full else GaussianPrior(mean, covariance.diagonal(0, 1, 2))


@pytest.mark.parametrize("full", [False, True])
def test_the_measures_are_those_of_numpy(latents, full: bool):
    z, labels = latents
    prior = make_prior(full)
    found = measure_following(prior, ClassStatistics.from_latents(z, labels, covariance=full))

    x, y, mu = z.numpy(), labels.numpy(), prior.mean.numpy()
    sigma = prior.covariance.numpy() if full else np.stack([np.diag(v) for v in prior.variance.numpy()])
    precision = np.linalg.inv(sigma)
    m = np.stack([x[y == k].mean(0) for k in range(K)])
    a, b = mu - mu.mean(0), m - m.mean(0)
    shared, own, theirs = (np.einsum("ki,kij,kj", u, precision, v) for u, v in ((b, a), (a, a), (b, b)))
    distance = np.mean([(x[n] - mu[y[n]]) @ precision[y[n]] @ (x[n] - mu[y[n]]) / D for n in range(len(x))])
    own_sigma = np.stack([np.cov(x[y == k], rowvar=False) * (1 if full else np.eye(D)) for k in range(K)])
    densities = [
        [multivariate_normal(means[y[n]], covariances[y[n]]).logpdf(x[n]) for n in range(len(x))]
        for means, covariances in ((m, own_sigma), (mu, sigma))
    ]
    mismatch = np.mean(np.subtract(*densities)) / (D * np.log(2))
    expected = Following(shared / own, distance, own / (K * D), theirs / (K * D), mismatch)
    np.testing.assert_allclose(list(vars(found).values()), list(vars(expected).values()), rtol=1e-10)


@pytest.mark.parametrize("full", [False, True])
def test_latents_follow_their_own_moments(latents, full: bool):
    statistics = ClassStatistics.from_latents(*latents, covariance=full)
    found = measure_following(estimate_moments(statistics), statistics)
    assert found.beta == pytest.approx(1)
    assert found.mismatch == 0
    assert found.prior_separation == pytest.approx(found.latent_separation)
    assert found.distance == pytest.approx(float(1 - K / statistics.count.sum()))  # variances have divisor N − 1


def test_equal_means_have_no_beta(latents):
    statistics = ClassStatistics.from_latents(*latents)
    found = measure_following(GaussianPrior(torch.zeros(K, D), torch.ones(K, D)), statistics)
    assert found.beta is None
    assert found.prior_separation == 0


@pytest.mark.parametrize("weight", [3.0, 30.0, 300.0])
@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_the_fitted_means_are_as_far_apart_as_the_weight_demands(latents, weight: float, alpha: float):
    """s (1 − β) = s₀ for fitted means, Σ = I and pairwise π."""
    statistics = ClassStatistics.from_latents(*latents)
    initial = GaussianPrior(statistics.mean, torch.ones(K, D, dtype=torch.float64))
    config = FixedPointConfig(
        weight=weight, alpha=alpha, update="exact", fit_variance=False, tolerance=1e-11, max_iterations=200_000
    )
    result = fit_fixed_point(statistics, config, initial)
    assert result.converged
    found = measure_following(result.prior, statistics)
    assert found.beta is not None
    assert 0 < found.beta < 1
    wanted = compute_relative_weight(weight, alpha, K, D)
    assert found.prior_separation * (1 - found.beta) == pytest.approx(wanted, rel=1e-6)
