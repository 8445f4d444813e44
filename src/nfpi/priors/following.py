"""Whether the latents of a flow follow its class Gaussians, and Gaussians estimated again from the latents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics


@dataclass(frozen=True)
class Following:
    """How latents with class means m_y, over all of which the mean is m̄, lie in the class Gaussians N(μ_y, Σ_y).

    All classes have the same weight in sums over classes.

    Attributes:
        beta: β = Σ_y (m_y − m̄)ᵀ Σ_y⁻¹ (μ_y − μ̄) / Σ_y (μ_y − μ̄)ᵀ Σ_y⁻¹ (μ_y − μ̄), the regression of the means of the
            latents on those of the Gaussians: 1 if they are where the prior wants them, 0 if they do not depend on the
            class; None if all Gaussians have the same mean.
        distance: mean of (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D over the latents: 1 if they are the prior's.
        prior_separation: s = Σ_y (μ_y − μ̄)ᵀ Σ_y⁻¹ (μ_y − μ̄) / (K D).
        latent_separation: the same of the latents, Σ_y (m_y − m̄)ᵀ Σ_y⁻¹ (m_y − m̄) / (K D).
        mismatch: bits/dim of the latents under N(μ_y, Σ_y) less those under their own class moments N(m_y, S_y): 0 if
            these are the same; None if a class has too few latents for S_y. As m_y and S_y are fitted to the same
            latents, n of each class, it is about 1 / (n log 2) even if the latents are the prior's.
    """

    beta: float | None
    distance: float
    prior_separation: float
    latent_separation: float
    mismatch: float | None


def measure_following(prior: GaussianPrior, statistics: ClassStatistics) -> Following:
    """Measure how latents lie in class Gaussians.

    Args:
        prior: K Gaussians in D dimensions.
        statistics: statistics of the latents, with covariances if the prior has full ones; every class has latents.
    """
    prior = prior.to(dtype=torch.float64).to(statistics.mean.device)
    return Following(
        beta=compute_beta(prior, statistics),
        distance=_compute_distance(prior, statistics),
        prior_separation=_compute_product(prior, prior.mean, prior.mean),
        latent_separation=_compute_product(prior, statistics.mean, statistics.mean),
        mismatch=_compute_mismatch(prior, statistics),
    )


def compute_beta(prior: GaussianPrior, statistics: ClassStatistics) -> float | None:
    """Return β of :class:`Following`, which depends only on the means of the latents."""
    prior = prior.to(dtype=torch.float64).to(statistics.mean.device)
    separation = _compute_product(prior, prior.mean, prior.mean)
    return _compute_product(prior, statistics.mean, prior.mean) / separation if separation > 0 else None


def _compute_product(prior: GaussianPrior, a: Tensor, b: Tensor) -> float:
    """Return Σ_y (a_y − ā)ᵀ Σ_y⁻¹ (b_y − b̄) / (K D) of vectors (K, D)."""
    return float(((a - a.mean(0)) * _whiten(prior, b - b.mean(0))).mean())


def _whiten(prior: GaussianPrior, vectors: Tensor) -> Tensor:
    """Return Σ_y⁻¹ v_y for every class, (K, D)."""
    if prior.covariance is None:
        return vectors / prior.variance
    found: Tensor = torch.linalg.solve(prior.covariance, vectors)
    return found


def _compute_distance(prior: GaussianPrior, statistics: ClassStatistics) -> float:
    """Return the mean of (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D = [(N_y − 1) tr(Σ_y⁻¹ S_y) / N_y + d_yᵀ Σ_y⁻¹ d_y] / D, where
    N_y, m_y and S_y are number, mean and unbiased covariance of the latents, and d_y = m_y − μ_y."""
    gap = statistics.mean - prior.mean
    between = (gap * _whiten(prior, gap)).sum(1)
    if prior.covariance is None:
        trace = (statistics.variance / prior.variance).sum(1)
    else:
        assert statistics.covariance is not None, "full covariances need statistics with covariances"
        trace = torch.linalg.solve(prior.covariance, statistics.covariance).diagonal(dim1=1, dim2=2).sum(1)
    # a class with a single latent has no variance
    within = torch.where(statistics.count > 1, trace * (statistics.count - 1), 0.0)
    total = (within + statistics.count * between).sum()
    return float(total / (statistics.count.sum() * prior.num_dimensions))


def _compute_mismatch(prior: GaussianPrior, statistics: ClassStatistics) -> float | None:
    try:
        moments = estimate_moments(statistics)
    except ValueError:
        return None
    return (_compute_nll(prior, statistics) - _compute_nll(moments, statistics)) / math.log(2)


def _compute_nll(prior: GaussianPrior, statistics: ClassStatistics) -> float:
    """Return the mean of −log N(z; μ_y, Σ_y) / D over the latents."""
    classes = torch.arange(prior.num_classes, device=prior.mean.device)
    normalizer = -prior.log_prob_of(prior.mean, classes)  # ½ (D log 2π + log det Σ_y)
    share = statistics.count / statistics.count.sum()
    return _compute_distance(prior, statistics) / 2 + float((share * normalizer).sum()) / prior.num_dimensions


def estimate_moments(statistics: ClassStatistics) -> GaussianPrior:
    """Return Gaussians with the means and variances of the latents, or their covariances where they are known.

    Raises:
        ValueError: a class has too few latents for its variance or covariance, or a constant dimension.
    """
    statistics.check()
    if statistics.covariance is None:
        return GaussianPrior(statistics.mean, statistics.variance)
    prior = GaussianPrior(statistics.mean, covariance=statistics.covariance)
    prior.check()
    return prior
