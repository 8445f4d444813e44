"""Mean and covariance of the latents of each class, accumulated in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from nfpi.linalg import precise_device
from nfpi.priors.inputs import check_label_range, check_labels, check_latents


class ClassStatistics:
    """Count, mean and unbiased variance (or covariance) of the latents of each class.

    It stores counts, means and sums of squared deviations, which can be merged (Chan, Golub and LeVeque, 1983), so that
    memory, O(K D) or O(K D²) with covariances, does not depend on the number of latents. The arithmetic is float64.

    Args:
        count: (K,), number of latents of each class.
        mean: (K, D).
        variance: (K, D), with divisor N − 1.
        covariance: (K, D, D), with divisor N − 1, instead of or in addition to the variance.

    Raises:
        ValueError: shapes are inconsistent, there is no class or no dimension, or neither variance nor covariance is
            given.
    """

    def __init__(
        self, count: Tensor, mean: Tensor, variance: Tensor | None = None, covariance: Tensor | None = None
    ) -> None:
        _check_shapes(count, mean, variance, covariance)
        if variance is None:
            if covariance is None:
                raise ValueError("expected variance or covariance")
            variance = covariance.diagonal(dim1=1, dim2=2)
        # copied, because update() works in place
        self.count = count.to(torch.float64, copy=True)
        # the mean of a class without latents may be undefined
        self.mean = torch.where(self.count[:, None] > 0, mean.to(torch.float64), 0.0)
        freedom = (self.count - 1).clamp(min=0)
        self._squares = torch.where(freedom[:, None] > 0, variance.to(torch.float64), 0.0) * freedom[:, None]
        self._scatter = None
        if covariance is not None:
            defined = torch.where(freedom[:, None, None] > 0, covariance.to(torch.float64), 0.0)
            self._scatter = defined * freedom[:, None, None]

    @classmethod
    def empty(
        cls,
        num_classes: int,
        num_dimensions: int,
        covariance: bool = False,
        device: torch.device | str = "cpu",
    ) -> ClassStatistics:
        """Create statistics without any latents.

        Raises:
            ValueError: there is no class or no dimension.
        """
        if num_classes < 1 or num_dimensions < 1:
            raise ValueError(f"statistics: expected K ≥ 1 and D ≥ 1, received {num_classes} and {num_dimensions}")
        zeros = torch.zeros(num_classes, num_dimensions, dtype=torch.float64, device=device)
        full = zeros.new_zeros(num_classes, num_dimensions, num_dimensions) if covariance else None
        return cls(zeros.new_zeros(num_classes), zeros, zeros.clone(), full)

    @classmethod
    def from_latents(
        cls, z: Tensor, y: Tensor, num_classes: int | None = None, covariance: bool = False
    ) -> ClassStatistics:
        """Compute the statistics of latents in memory.

        Args:
            z: (N, D) or (N, C, H, W).
            y: (N,), labels, integers in [0, K).
            num_classes: K; None: the largest label plus one.
            covariance: whether to compute full covariances.

        Raises:
            ValueError: latents or labels have another shape, labels are not integers or out of range, or `num_classes`
                is None and there are no labels.
            FloatingPointError: a latent is not finite.
        """
        if z.dim() < 2:
            raise ValueError(f"latents: expected (N, D) or (N, C, H, W), received shape {tuple(z.shape)}")
        y = check_labels(y, len(z))
        if num_classes is None:
            if not len(y):
                raise ValueError("labels: expected at least one, or the number of classes, received none")
            num_classes = max(1, int(y.max()) + 1)
        return cls.empty(num_classes, z.flatten(1).shape[1], covariance, precise_device(z.device)).update(z, y)

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.count)

    @property
    def variance(self) -> Tensor:
        """(K, D), with divisor N − 1; NaN for a class with fewer than two latents."""
        return self._squares / self._degrees_of_freedom()[:, None]

    @property
    def covariance(self) -> Tensor | None:
        """(K, D, D), with divisor N − 1; None if only variances are stored."""
        return None if self._scatter is None else self._scatter / self._degrees_of_freedom()[:, None, None]

    def _degrees_of_freedom(self) -> Tensor:
        return torch.where(self.count > 1, self.count - 1, torch.nan)

    def update(self, z: Tensor, y: Tensor) -> ClassStatistics:
        """Add a batch of latents, in place.

        Args:
            z: (B, D) or (B, C, H, W).
            y: (B,), labels, integers in [0, K).

        Returns:
            self.

        Raises:
            ValueError: latents or labels have another shape, or labels are not integers or out of range.
            FloatingPointError: a latent is not finite.
        """
        z = check_latents(z.detach(), self.mean.shape[1])
        y = check_labels(y, len(z)).to(self.mean.device)
        check_label_range(y, self.num_classes)
        z = z.to(self.mean.device).to(torch.float64)  # in this order: MPS has no float64
        if not torch.isfinite(z).all():
            raise FloatingPointError("latents: a value is not finite")
        if not len(y):
            return self
        present, index = y.unique(return_inverse=True)
        count = torch.bincount(index, minlength=len(present)).to(torch.float64)
        mean = z.new_zeros(len(present), z.shape[1]).index_add_(0, index, z) / count[:, None]
        deviation = z - mean[index]
        squares = torch.zeros_like(mean).index_add_(0, index, deviation.square())
        scatter = None
        if self._scatter is not None:
            scatter = torch.stack([deviation[index == i].T @ deviation[index == i] for i in range(len(present))])
        self._merge(present, count, mean, squares, scatter)
        return self

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """Add other statistics of the same classes, in place.

        Returns:
            self.

        Raises:
            ValueError: they differ in size, or only one of them has covariances.
        """
        if other.mean.shape != self.mean.shape or (other._scatter is None) != (self._scatter is None):
            expected, received = self._describe(), other._describe()
            raise ValueError(f"statistics: expected {expected}, received {received}")
        all_classes = torch.arange(self.num_classes, device=self.mean.device)
        self._merge(all_classes, other.count, other.mean, other._squares, other._scatter)
        return self

    def _describe(self) -> str:
        return f"(K, D) = {tuple(self.mean.shape)} {'without' if self._scatter is None else 'with'} covariances"

    def _merge(self, classes: Tensor, count: Tensor, mean: Tensor, squares: Tensor, scatter: Tensor | None) -> None:
        before = self.count[classes]
        total = (before + count).clamp(min=1)
        gap = mean - self.mean[classes]
        self.count[classes] = before + count
        self.mean[classes] += gap * (count / total)[:, None]
        between = before * count / total
        self._squares[classes] += squares + gap.square() * between[:, None]
        if self._scatter is not None and scatter is not None:
            self._scatter[classes] += scatter + gap[:, :, None] * gap[:, None, :] * between[:, None, None]

    def check(self) -> None:
        """Check that all numbers are finite and all variances positive.

        Raises:
            ValueError: a class has fewer than two latents or a constant dimension, or a number is not finite.
        """
        named = (("count", self.count), ("mean", self.mean), ("variance", self._squares), ("covariance", self._scatter))
        for name, tensor in named:
            if tensor is not None and not tensor.isfinite().all():
                raise ValueError(f"{name}: a number is not finite")
        self.check_counts()
        flat = (self._squares <= 0).nonzero()
        if len(flat):
            place, variance = tuple(flat[0].tolist()), float(self.variance[tuple(flat[0])])
            reason = "does not vary (variance 0)" if variance == 0 else f"has the variance {variance:g}"
            raise ValueError(f"class {place[0]}: dimension {place[1]} {reason}")

    def check_counts(self) -> None:
        """Check that all classes have a variance.

        Raises:
            ValueError: a class has fewer than two latents.
        """
        if bool((self.count < 2).any()):
            worst = int(self.count.argmin())
            raise ValueError(f"class {worst}: its variance needs at least 2 samples, received {int(self.count[worst])}")


def _check_shapes(count: Tensor, mean: Tensor, variance: Tensor | None, covariance: Tensor | None) -> None:
    """Raise ValueError unless the shapes are (K,), (K, D), (K, D) and (K, D, D) with K and D of at least 1."""
    if count.dim() != 1 or not len(count):
        raise ValueError(f"count: expected (K,) with K ≥ 1, received {tuple(count.shape)}")
    if mean.dim() != 2 or len(mean) != len(count) or not mean.numel():
        raise ValueError(f"mean: expected ({len(count)}, D), received {tuple(mean.shape)}")
    for name, tensor, expected in (
        ("variance", variance, mean.shape),
        ("covariance", covariance, (*mean.shape, mean.shape[1])),
    ):
        if tensor is not None and tensor.shape != expected:
            raise ValueError(f"{name}: expected {tuple(expected)}, received {tuple(tensor.shape)}")
