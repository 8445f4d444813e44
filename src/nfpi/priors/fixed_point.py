"""Fixed-point iteration of Proposition 1 for the means and covariances of the classes (Eqs. 5-7).

Notation: K classes, D dimensions, Δ_ij = μ_i − μ_j, κ the kernel of the repulsion, m_i and σ²_i the mean and variance
of class i's latents, v_i the variance of its Gaussian, A_i and B_i the matrices of Eq. 7. The divisor of σ²_i is N − 1
with `unbiased_variance`, else N as in Eq. 7; with N, the fixed point of the exact update is a stationary point of
Eq. 4. Means and covariances are updated simultaneously. Sums over pairs are computed as products of the K×K kernel with
K×D (or K×D²) matrices.

Isotropic covariances Σ_i = v_i I (`isotropic_variance`): the gradient of Eq. 4 with respect to a full Σ_i is
½ (A_i − Σ_i⁻¹ B_i Σ_i⁻¹), which is zero if Σ_i A_i Σ_i = B_i (Eq. 6). Restricted to Σ_i = v_i I it is
dL/dv_i = tr(∂L/∂Σ_i) = ½ (tr A_i − tr B_i / v_i²), so the stationary point is

    v_i = (tr B_i / tr A_i)^{1/2},

that is, Eq. 6 with traces instead of matrices; A_i only needs a positive trace, and only class variances are needed,
not covariances. The update of the authors' code (`update: released`) has A′ = ΣAΣ in place of A, and
v_i = (tr B_i / tr A′_i)^{1/2}.
At λ = 0 the exact update converges to the mean σ̄²_i of σ²_i over dimensions, and the released one to (σ̄²_i)^{1/3}; with
diagonal covariances, the same holds per dimension. The update of the means is the same as for other covariances.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from nfpi.config.priors import FixedPointConfig, FixedPointSettings, compute_relative_weight
from nfpi.linalg import geometric_mean, symmetric_power
from nfpi.priors.divergence import Scale, kld_scale, pairwise_kld, repulsion_kernel
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.divergence import Diverged

__all__ = ["FixedPointConfig", "FixedPointDiverged", "FixedPointResult", "fit_fixed_point", "fit_prior"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Moments:
    """Moments of the latents of each class.

    Attributes:
        mean, variance: (K, D).
        covariance: (K, D, D); None if covariances are diagonal.
    """

    mean: Tensor
    variance: Tensor
    covariance: Tensor | None


@dataclass(frozen=True)
class FixedPointResult:
    """Result of the fixed-point iteration.

    Attributes:
        prior: the Gaussians of the last iteration, float64.
        iterations: number of iterations.
        residuals: (iterations, 2), max_i ‖δμ_i‖₂ and max_i ‖δv_i‖₂ of each iteration.
        converged: whether the last residuals are within the tolerance.
    """

    prior: GaussianPrior
    iterations: int
    residuals: Tensor
    converged: bool

    def warn_unless_converged(self) -> Self:
        """Log a warning if the iteration did not converge, and return self."""
        if not self.converged:
            logger.warning(
                "not converged after %d iterations: the last Gaussians are used; more iterations or, unless it is 0, a "
                "smaller λ may converge",
                self.iterations,
            )
        return self


class FixedPointDiverged(Diverged):
    """A quantity of the iteration became infinite, NaN, not positive definite, or smaller than its rounding error.

    Attributes:
        iteration: number of the iteration, from 1.
        class_index: index of a class at which this happened, the first or the worst conditioned.
        quantity: name of the quantity.
        weight: λ.
        relative_weight: s₀ of λ.
        residuals: max_i ‖δμ_i‖₂ and max_i ‖δv_i‖₂ of the preceding iterations.
        context: further information on the run (seed, settings), added by callers.
    """

    class_index: int
    weight: float

    def __init__(self, iteration: int, class_index: int, quantity: str, weight: float) -> None:
        super().__init__(iteration, class_index, quantity, weight)
        self.residuals: list[tuple[float, float]] = []

    def __str__(self) -> str:
        return self.message or f"fixed-point iteration {self.describe_fit()}"


def fit_fixed_point(
    statistics: ClassStatistics, config: FixedPointConfig, initial: GaussianPrior | None = None
) -> FixedPointResult:
    """Iterate Eqs. 5 and 6 until they converge.

    Args:
        statistics: statistics of the training latents; if they have covariances, full matrices are fitted (exact update
            only), unless `isotropic_variance` is set.
        config: λ and the settings of the iteration.
        initial: initial Gaussians, whose means or covariances are kept if not fitted; None: the class statistics. With
            `isotropic_variance`, variances are first averaged over dimensions.

    Raises:
        FixedPointDiverged: the iteration diverged.
        ValueError: statistics or initial Gaussians are invalid, there is only one class, shapes are inconsistent, or
            full covariances meet the released update or statistics without covariances.
    """
    statistics.check()
    if statistics.num_classes < 2:
        raise ValueError(f"the repulsion needs at least 2 classes, received {statistics.num_classes}")
    full = statistics.covariance is not None or (initial is not None and initial.is_full)
    full = full and not config.isotropic_variance
    if full and config.update != "exact":
        raise ValueError("the released update is diagonal: expected update='exact' for full covariances")
    if full and statistics.covariance is None:
        raise ValueError("a full initial prior needs statistics with covariances")
    moments = _compute_moments(statistics, config, full)
    if initial is None:
        initial = GaussianPrior(moments.mean, None if full else moments.variance, moments.covariance)
    elif full and not initial.is_full:
        initial = GaussianPrior(initial.mean, covariance=torch.diag_embed(initial.variance))
    prior = initial.to(statistics.mean.device, torch.float64)
    if config.isotropic_variance:
        prior = prior.to_isotropic()
    if prior.mean.shape != statistics.mean.shape:
        raise ValueError(
            f"initial: expected (K, D) = {tuple(statistics.mean.shape)}, received {tuple(prior.mean.shape)}"
        )
    prior.check()
    step = _full_step if full else _diagonal_step

    residuals: list[tuple[float, float]] = []
    try:
        for iteration in range(1, config.max_iterations + 1):
            kld = pairwise_kld(prior)
            kernel = repulsion_kernel(kld, config.alpha, config.scale)
            _require(torch.isfinite(kernel).all(1), iteration, "repulsion kernel", config)
            resolved = _is_resolved(kld, config.scale, prior.num_dimensions)
            _require(resolved.all(1), iteration, "KLDs (below rounding error)", config)
            updated = step(moments, prior, kernel, config, iteration)
            residuals.append(_compute_largest_change(updated, prior))
            prior = updated
            if max(residuals[-1]) <= config.tolerance:
                break
    except FixedPointDiverged as fault:
        fault.residuals = residuals
        fault.relative_weight = compute_relative_weight(config.weight, config.alpha, *statistics.mean.shape)
        raise
    return FixedPointResult(
        prior=prior,
        iterations=len(residuals),
        residuals=torch.tensor(residuals, dtype=torch.float64),
        converged=max(residuals[-1]) <= config.tolerance,
    )


def fit_prior(
    statistics: ClassStatistics, initial: GaussianPrior, weight: float, settings: FixedPointSettings
) -> FixedPointResult:
    """Fit class Gaussians by the prior method `fixed_point`, see :func:`fit_fixed_point`."""
    config = FixedPointConfig(weight=weight, **settings.model_dump())
    return fit_fixed_point(statistics, config, initial).warn_unless_converged()


def _compute_moments(statistics: ClassStatistics, config: FixedPointConfig, full: bool) -> _Moments:
    """Return the moments of the latents with the configured divisor, and covariances only if `full`."""
    variance, covariance = statistics.variance, statistics.covariance if full else None
    if not config.unbiased_variance:
        share = (statistics.count - 1) / statistics.count
        variance = variance * share[:, None]
        covariance = covariance * share[:, None, None] if covariance is not None else None
    return _Moments(statistics.mean, variance, covariance)


def _is_resolved(kld: Tensor, scale: Scale, dimensions: int) -> Tensor:
    """Return whether π of Eq. 3, a divisor in the kernel, exceeds the rounding error of the largest divergence; (K, K).

    With pairwise π, it does not if two classes coincide, or if another class has moved very far away.
    """
    rounding = 64 * torch.finfo(kld.dtype).eps * (dimensions + kld.max())
    return (kld_scale(kld, scale) > rounding) | torch.eye(len(kld), dtype=torch.bool, device=kld.device)


def _compute_largest_change(new: GaussianPrior, old: GaussianPrior) -> tuple[float, float]:
    """Compute max_i ‖δμ_i‖₂ and max_i ‖δv_i‖₂ (Frobenius norm for matrices)."""
    if new.covariance is not None and old.covariance is not None:
        spread = (new.covariance - old.covariance).flatten(1)
    else:
        spread = new.variance - old.variance
    return (new.mean - old.mean).norm(dim=1).max().item(), spread.norm(dim=1).max().item()


def _diagonal_step(
    moments: _Moments,
    prior: GaussianPrior,
    kernel: Tensor,
    config: FixedPointConfig,
    iteration: int,
) -> GaussianPrior:
    """Make one iteration with diagonal covariances; means and variances are K×D."""
    strength = config.weight / (len(kernel) * (len(kernel) - 1))
    # only differences of means matter: centring reduces cancellation
    centre = prior.mean.mean(0)
    mean, variance = prior.mean - centre, prior.variance
    precision = variance.reciprocal()
    outward, inward = kernel, kernel.T  # Σ_j κ_ij · and Σ_j κ_ji ·
    new_mean, new_variance = prior.mean, variance

    released = config.update == "released"
    pooled_precision = outward @ precision

    if config.fit_mean:
        # Σ_i, Σ_j⁻¹ and Σ_j κ_ij Σ_j⁻¹ of Eq. 5; in the released code averaged over dimensions
        spread, tightness, pooled_tightness = variance, precision, pooled_precision
        if released and config.isotropic_mean_update:
            spread, tightness = variance.mean(1, keepdim=True), precision.mean(1, keepdim=True)
            pooled_tightness = outward @ tightness
        push = mean * pooled_tightness - outward @ (tightness * mean)
        push += tightness * (mean * inward.sum(1, keepdim=True) - inward @ mean)
        new_mean = torch.addcmul(moments.mean, spread, push, value=strength)
        # checks row sums, which are not finite if an element is not: cheaper than checking each element
        _require(torch.isfinite(new_mean.sum(1)), iteration, "mean", config)

    if config.fit_variance:
        balance = 1 + strength * (outward - inward).sum(1, keepdim=True)
        square = mean.square()
        if released and config.pooled_mean_gaps:
            # Σ_k Δ_kj² for each class j, in place of Δ_ij²
            gaps = torch.addcmul(len(mean) * square + square.sum(0), mean, mean.sum(0), value=-2)
            scatter = inward @ gaps.add_(variance)
        else:
            scatter = square * inward.sum(1, keepdim=True) - 2 * mean * (inward @ mean) + inward @ (square + variance)
        # A′ = ΣAΣ, from which A = A′/v² for diagonal Σ
        conjugated = torch.addcmul(strength * scatter, variance, balance)
        a = conjugated if released else conjugated * precision.square()
        data = moments.variance if released else moments.variance + (moments.mean - prior.mean).square()
        b = torch.addcmul(data, variance.square(), pooled_precision, value=strength)
        if config.isotropic_variance:
            a, b = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
        _require(a.amin(1) > 0, iteration, "A (not positive definite)", config)
        new_variance = (b / a).sqrt()
        if config.isotropic_variance:
            new_variance = new_variance.repeat(1, prior.num_dimensions)
        valid = (new_variance.amin(1) > 0) & torch.isfinite(new_variance.sum(1))
        _require(valid, iteration, "variance", config)

    return GaussianPrior(new_mean, new_variance)


def _full_step(
    moments: _Moments,
    prior: GaussianPrior,
    kernel: Tensor,
    config: FixedPointConfig,
    iteration: int,
) -> GaussianPrior:
    """Make one iteration of the exact update with full covariances, K×D×D."""
    strength = config.weight / (len(kernel) * (len(kernel) - 1))
    assert prior.covariance is not None
    assert moments.covariance is not None
    centre = prior.mean.mean(0)
    mean, covariance = prior.mean - centre, prior.covariance
    precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    outward, inward = kernel, kernel.T
    new_mean, new_covariance = prior.mean, covariance

    def weighted_sum(weights: Tensor, matrices: Tensor) -> Tensor:
        return (weights @ matrices.flatten(1)).view_as(matrices)

    pooled_precision = weighted_sum(outward, precision)
    if config.fit_mean:
        pulled = (precision @ mean.unsqueeze(2)).squeeze(2)
        push = (pooled_precision @ mean.unsqueeze(2)).squeeze(2) - outward @ pulled
        gaps = mean * inward.sum(1, keepdim=True) - inward @ mean
        push = (covariance @ push.unsqueeze(2)).squeeze(2) + gaps
        new_mean = moments.mean + strength * push
        _require(torch.isfinite(new_mean).all(1), iteration, "mean", config)

    if config.fit_variance:
        balance = 1 + strength * (outward - inward).sum(1)
        outer = mean.unsqueeze(2) * mean.unsqueeze(1)
        cross = mean.unsqueeze(2) * (inward @ mean).unsqueeze(1)
        inner = outer * inward.sum(1)[:, None, None] - cross - cross.mT + weighted_sum(inward, outer + covariance)
        a = precision * balance[:, None, None] + strength * precision @ inner @ precision
        gap = moments.mean - prior.mean
        b = moments.covariance + gap.unsqueeze(2) * gap.unsqueeze(1)
        b = b + strength * covariance @ pooled_precision @ covariance
        a, b = (a + a.mT) / 2, (b + b.mT) / 2
        for name, matrix in (("A", a), ("B", b)):
            finite = torch.isfinite(matrix).flatten(1).all(1)
            _require(finite, iteration, name, config)
            _require(torch.linalg.cholesky_ex(matrix).info == 0, iteration, f"{name} (not positive definite)", config)
        try:
            new_covariance = geometric_mean(symmetric_power(a, -1.0), b)
        except torch.linalg.LinAlgError as fault:
            # A and B passed Cholesky, but one is singular up to rounding errors: report the worst-conditioned class
            worst = int((torch.linalg.cond(a) * torch.linalg.cond(b)).argmax())
            raise FixedPointDiverged(iteration, worst, "covariance (not positive definite)", config.weight) from fault
        definite = torch.linalg.cholesky_ex(new_covariance).info == 0
        _require(definite, iteration, "covariance (not positive definite)", config)

    return GaussianPrior(new_mean, covariance=new_covariance)


def _require(valid: Tensor, iteration: int, quantity: str, config: FixedPointConfig) -> None:
    """Raise :class:`FixedPointDiverged` for the first class at which `valid`, (K,), is false."""
    if not bool(valid.all()):
        raise FixedPointDiverged(iteration, int((~valid).nonzero()[0, 0]), quantity, config.weight)
