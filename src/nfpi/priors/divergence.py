"""Kullback-Leibler divergences between the class Gaussians, and the repulsion based on them (Eq. 3)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.inputs import is_finite_number

Scale = Literal["pairwise", "average"]


def pairwise_kld(prior: GaussianPrior) -> Tensor:
    """Compute KLD(N_i ‖ N_j) = ½ [log det Σ_j − log det Σ_i − D + tr(Σ_j⁻¹ Σ_i) + Δ_ijᵀ Σ_j⁻¹ Δ_ij], where
    Δ_ij = μ_i − μ_j.

    Sums over pairs are computed as matrix products. Means are centred first to reduce cancellation. Memory: K² + K·D
    (K·D² with full covariances).

    Args:
        prior: K Gaussians in D dimensions.

    Returns:
        (K, K), indexed [i, j], with zeros on the diagonal.
    """
    mean = prior.mean - prior.mean.mean(0)
    if prior.covariance is None:
        precision = prior.variance.reciprocal()
        log_det = prior.variance.log().sum(1)
        weighted = mean * precision
        second_moment = prior.variance + mean.square()
    else:
        root = torch.linalg.cholesky(prior.covariance)
        inverse = torch.cholesky_inverse(root)
        log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
        weighted = (inverse @ mean.unsqueeze(2)).squeeze(2)
        precision = inverse.flatten(1)
        second_moment = (prior.covariance + mean.unsqueeze(2) * mean.unsqueeze(1)).flatten(1)
    own = log_det + (mean * weighted).sum(1)
    doubled = second_moment @ precision.T - 2 * (mean @ weighted.T) + own - log_det.unsqueeze(1) - prior.num_dimensions
    return 0.5 * doubled.masked_fill(torch.eye(len(mean), dtype=torch.bool, device=mean.device), 0.0)


def kld_scale(kld: Tensor, scale: Scale) -> Tensor:
    """Compute π of Eq. 3: the divergences themselves (`pairwise`, Eq. 9) or their mean over i ≠ j (`average`, Eq. 10).

    Args:
        kld: (K, K), zero on the diagonal.

    Returns:
        (K, K), with an arbitrary 1 on the diagonal.

    Raises:
        ValueError: unknown scale.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale: expected 'pairwise' or 'average', received {scale!r}")
    classes = len(kld)
    identity = torch.eye(classes, dtype=torch.bool, device=kld.device)
    if scale == "average":
        kld = (kld.sum() / (classes * (classes - 1))).expand_as(kld)
    return kld.masked_fill(identity, 1.0)


def separation_loss(prior: GaussianPrior, alpha: float = 10.0, scale: Scale = "pairwise") -> Tensor:
    """Compute Σ_{i≠j} exp(−KLD_ij / (π_ij α)), Eq. 3, without gradients through π.

    With pairwise π the value is the constant K(K−1) e^{−1/α}; its gradient is not zero.

    Args:
        prior: K Gaussians.
        alpha: α > 0.
        scale: definition of π.

    Returns:
        ().

    Raises:
        ValueError: α is not a finite positive number, or unknown scale.
    """
    _check_alpha(alpha)
    kld = pairwise_kld(prior)
    terms = torch.exp(-kld / (kld_scale(kld, scale).detach() * alpha))
    return terms.sum() - terms.diagonal().sum()


def repulsion_kernel(kld: Tensor, alpha: float, scale: Scale) -> Tensor:
    """Compute κ_ij = exp(−KLD_ij / (π_ij α)) / (π_ij α), the kernel of Proposition 1, with κ_ii = 0.

    Args:
        kld: (K, K).

    Returns:
        (K, K); not finite where KLD_ij = 0 (identical classes) if π is pairwise.

    Raises:
        ValueError: α is not a finite positive number, or unknown scale.
    """
    _check_alpha(alpha)
    denominator = kld_scale(kld, scale) * alpha
    kernel = torch.exp(-kld / denominator) / denominator
    return kernel.masked_fill(torch.eye(len(kld), dtype=torch.bool, device=kld.device), 0.0)


def _check_alpha(alpha: float) -> None:
    if not (is_finite_number(alpha) and alpha > 0):
        raise ValueError(f"alpha: expected a finite number above 0, received {alpha!r}")
