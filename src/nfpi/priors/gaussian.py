"""One Gaussian per class: densities and sampling."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from nfpi.linalg import has_launch_overhead, is_symmetric, precise_dtype
from nfpi.priors.inputs import check_label_range, check_labels, check_latents, is_finite_number

_ASYMMETRY = 1e-5
"""Largest asymmetry of a covariance, relative to its largest element; rounding in float32 causes about 1e-6."""


class GaussianPrior:
    """N(μ_i, Σ_i) for the classes i = 1…K, with diagonal or full covariances.

    Args:
        mean: (K, D).
        variance: (K, D), the diagonals of the Σ_i; or
        covariance: (K, D, D), the Σ_i themselves.

    Raises:
        ValueError: shapes are inconsistent, there is no class or no dimension, numbers are not floating-point, or both
            or neither of variance and covariance are given.
    """

    def __init__(self, mean: Tensor, variance: Tensor | None = None, covariance: Tensor | None = None) -> None:
        if (variance is None) == (covariance is None):
            raise ValueError("expected either variance or covariance")
        if mean.dim() != 2:
            raise ValueError(f"mean: expected (K, D), received {tuple(mean.shape)}")
        if variance is not None and variance.shape != mean.shape:
            raise ValueError(f"variance: expected {tuple(mean.shape)}, received {tuple(variance.shape)}")
        if covariance is not None and covariance.shape != (*mean.shape, mean.shape[1]):
            raise ValueError(f"covariance: expected {(*mean.shape, mean.shape[1])}, received {tuple(covariance.shape)}")
        if not mean.numel():
            raise ValueError(f"mean: expected (K, D) with K ≥ 1 and D ≥ 1, received {tuple(mean.shape)}")
        for name, tensor in (("mean", mean), ("variance", variance), ("covariance", covariance)):
            if tensor is not None and not tensor.is_floating_point():
                raise ValueError(f"{name}: expected floating-point numbers, received {tensor.dtype}")
        self.mean = mean
        self._variance = variance
        self.covariance = covariance
        self._kept_factor: Tensor | None = None

    @property
    def variance(self) -> Tensor:
        """Diagonals of the covariances, (K, D)."""
        if self._variance is not None:
            return self._variance
        assert self.covariance is not None
        return self.covariance.diagonal(dim1=1, dim2=2)

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.mean.shape[0]

    @property
    def num_dimensions(self) -> int:
        """Number of dimensions, D."""
        return self.mean.shape[1]

    @property
    def is_full(self) -> bool:
        """Whether the covariances are full matrices."""
        return self.covariance is not None

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GaussianPrior:
        """Return the Gaussians on another device or in another precision; tensors that already fit are not copied.

        In a lower precision, full covariances keep the Cholesky factors of the higher one, since rounded matrices may
        not be positive definite.
        """

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device=device, dtype=dtype)

        moved = GaussianPrior(self.mean.to(device=device, dtype=dtype), move(self._variance), move(self.covariance))
        if self.covariance is not None and moved.covariance is not None:
            moved._kept_factor = move(self._kept_factor)
            if self._kept_factor is None and moved.covariance.dtype.itemsize < self.covariance.dtype.itemsize:
                factor, info = torch.linalg.cholesky_ex(self.covariance)
                moved._kept_factor = None if info.any() else move(factor)
        return moved

    def to_distribution(self) -> Distribution:
        """Return the K Gaussians as one distribution of torch, of batch shape (K,) and event shape (D,)."""
        if self.covariance is None:
            return Independent(Normal(self.mean, self.variance.sqrt()), 1)
        return MultivariateNormal(self.mean, scale_tril=self._cholesky)

    def to_isotropic(self) -> GaussianPrior:
        """Return Gaussians with diagonal covariances, every Σ_i replaced by (tr Σ_i / D) I."""
        average = self.variance.mean(1, keepdim=True)
        return GaussianPrior(self.mean, average.expand_as(self.mean).clone())

    def check(self) -> None:
        """Check that means are finite and covariances symmetric and positive definite.

        Raises:
            ValueError: a class, which the message names, has a mean that is not finite, or a covariance that is not
                symmetric or not positive definite.
        """
        for name, valid in (
            ("mean is not finite", torch.isfinite(self.mean).all(1)),
            ("variance is not positive and finite", ((self.variance > 0) & self.variance.isfinite()).all(1)),
        ):
            if not valid.all():
                raise ValueError(f"prior: {name} in class {int((~valid).nonzero()[0, 0])}")
        if self.covariance is not None:
            matrices = self.covariance.to(precise_dtype(self.covariance.device))
            info = torch.linalg.cholesky_ex(matrices).info  # reads one triangle only
            if info.any():
                raise ValueError(f"prior: covariance of class {int(info.nonzero()[0, 0])} is not positive definite")
            for index, covariance in enumerate(self.covariance):
                if not is_symmetric(covariance, _ASYMMETRY):
                    raise ValueError(f"prior: covariance of class {index} is not symmetric")

    @cached_property
    def _inverse_deviation(self) -> Tensor:
        return self.variance.rsqrt()

    @cached_property
    def _cholesky(self) -> Tensor:
        assert self.covariance is not None
        factor: Tensor = torch.linalg.cholesky(self.covariance) if self._kept_factor is None else self._kept_factor
        return factor

    @cached_property
    def _precise(self) -> GaussianPrior:
        """The same Gaussians in the highest precision of their device; cached for the Cholesky factors."""
        return self.to(dtype=precise_dtype(self.mean.device))

    @cached_property
    def _log_normalizer(self) -> Tensor:
        """½ (D log 2π + log det Σ_i), (K,)."""
        if self.covariance is None:
            log_det = self.variance.log().sum(1)
        else:
            log_det = 2 * self._cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        return 0.5 * (self.num_dimensions * math.log(2 * math.pi) + log_det)

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log N(z; μ_i, Σ_i) of every latent under every class.

        With diagonal covariances the squared distance is expanded into two matrix products, z² · 1/v and z · μ/v. To
        limit cancellation, means are centred and the arithmetic is float64 (float32 on MPS).

        Args:
            z: (B, D) or (B, C, H, W).

        Returns:
            (B, K).

        Raises:
            ValueError: the latents have another shape.
        """
        z = check_latents(z, self.num_dimensions)
        dtype = precise_dtype(self.mean.device)
        if not self.mean.dtype == self.variance.dtype == dtype:
            return (self.to(dtype=dtype) if self.covariance is None else self._precise).log_prob(z)
        centre = self.mean.mean(0)
        z, mean = z.to(dtype) - centre, self.mean - centre
        if self.covariance is None:
            precision = self.variance.reciprocal()
            weighted = mean * precision
            distance = z.square() @ precision.T - 2 * (z @ weighted.T) + (mean * weighted).sum(1)
        else:
            # |L_i⁻¹ (z − μ_i)|², one class at a time: B·D instead of B·K·D memory
            distance = torch.stack(
                [
                    torch.linalg.solve_triangular(root, (z - m).T, upper=False).square().sum(0)
                    for root, m in zip(self._cholesky, mean, strict=True)
                ],
                1,
            )
        return -0.5 * distance - self._log_normalizer

    def compute_distances(self, log_prob: Tensor) -> Tensor:
        """Compute (z − μ_i)ᵀ Σ_i⁻¹ (z − μ_i) / D from the result of :meth:`log_prob`, (B, K)."""
        return -2 * (log_prob + self._log_normalizer.to(log_prob.dtype)) / self.num_dimensions

    def precompute(self) -> None:
        """Compute and cache the terms of :meth:`log_prob_of` that do not depend on z."""
        _ = self._log_normalizer, self._inverse_deviation if self.covariance is None else self._cholesky

    def log_prob_of(self, z: Tensor, labels: Tensor) -> Tensor:
        """Compute log N(z_n; μ_{y_n}, Σ_{y_n}) of each latent under the class of its label.

        Args:
            z: (B, D) or (B, C, H, W).
            labels: (B,), integers in [0, K). On a GPU, their range is not checked, to avoid waiting for it.

        Returns:
            (B,).

        Raises:
            ValueError: latents or labels have another shape, or labels are not integers or, on the CPU, out of range.
        """
        z = check_latents(z, self.num_dimensions)
        labels = check_labels(labels, len(z))
        if not has_launch_overhead(labels.device):
            check_label_range(labels, self.num_classes)
        difference = z - self.mean[labels]
        if self.covariance is None:
            scaled = difference * self._inverse_deviation[labels]
        else:
            scaled = torch.linalg.solve_triangular(
                self._cholesky[labels], difference.unsqueeze(2), upper=False
            ).squeeze(2)
        return -0.5 * scaled.square().sum(1) - self._log_normalizer[labels]

    def sample(self, labels: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """Draw z = μ_y + T Σ_y^{1/2} ε with ε ~ N(0, I).

        Args:
            labels: (B,), the class of each sample, integers in [0, K).
            temperature: T ≥ 0, factor of the standard deviations.
            generator: random number generator on the device of the prior; None: torch's default.

        Returns:
            (B, D).

        Raises:
            ValueError: labels have another shape, are not integers or out of range, or the temperature is not a finite
                number of at least 0.
        """
        labels = check_labels(labels)
        check_label_range(labels, self.num_classes)
        if not (is_finite_number(temperature) and temperature >= 0):
            raise ValueError(f"temperature: expected a number of at least 0, received {temperature!r}")
        noise = torch.randn(
            len(labels),
            self.num_dimensions,
            generator=generator,
            device=self.mean.device,
            dtype=self.mean.dtype,
        )
        if self.covariance is None:
            deviation = noise / self._inverse_deviation[labels]
        else:
            deviation = (self._cholesky[labels] @ noise.unsqueeze(2)).squeeze(2)
        return self.mean[labels] + temperature * deviation
