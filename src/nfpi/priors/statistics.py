"""Mean and covariance of the latents of each class, accumulated in one pass."""

from __future__ import annotations

import torch
from torch import Tensor


class ClassStatistics:
    """Count, mean and unbiased variance (or covariance) of the latents of each class.

    It stores counts, means and sums of squared deviations, which can be merged (Chan, Golub and LeVeque, 1983), so that
    memory, O(K D) or O(K D²) with covariances, does not depend on the number of latents. The arithmetic is float64.

    Args:
        count: (K,), number of latents of each class.
        mean: (K, D).
        variance: (K, D), with divisor N − 1.
        covariance: (K, D, D), with divisor N − 1, instead of or in addition to the variance.
    """

    def __init__(
        self, count: Tensor, mean: Tensor, variance: Tensor | None = None, covariance: Tensor | None = None
    ) -> None:
        if variance is None:
            if covariance is None:
                raise ValueError("expected variance or covariance")
            variance = covariance.diagonal(dim1=1, dim2=2)
        # copied, because update() works in place
        self.count = count.to(torch.float64, copy=True)
        self.mean = mean.to(torch.float64, copy=True)
        freedom = (self.count - 1).clamp(min=0)
        self._squares = torch.where(freedom[:, None] > 0, variance.to(torch.float64), 0.0) * freedom[:, None]
        self._scatter = None
        if covariance is not None:
            defined = torch.where(freedom[:, None, None] > 0, covariance.to(torch.float64), 0.0)
            self._scatter = defined * freedom[:, None, None]
        for name, tensor in (("mean", self.mean), ("variance", self._squares)):
            if tensor.dim() != 2 or len(tensor) != len(self.count):
                raise ValueError(f"{name}: expected ({len(self.count)}, D), received {tuple(tensor.shape)}")

    @classmethod
    def empty(
        cls,
        num_classes: int,
        num_dimensions: int,
        covariance: bool = False,
        device: torch.device | str = "cpu",
    ) -> ClassStatistics:
        """Create statistics without any latents."""
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
            y: (N,), labels.
            num_classes: K; None: the largest label plus one.
            covariance: whether to compute full covariances.
        """
        classes = num_classes if num_classes is not None else int(y.max()) + 1
        return cls.empty(classes, z.flatten(1).shape[1], covariance, z.device).update(z, y)

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
            y: (B,), labels.

        Returns:
            self.

        Raises:
            ValueError: a label is out of range or the latents have another size.
            FloatingPointError: a latent is not finite.
        """
        z = z.detach().flatten(1).to(self.mean.device).to(torch.float64)  # in this order: MPS has no float64
        y = y.to(self.mean.device)
        if z.shape[1] != self.mean.shape[1]:
            raise ValueError(f"latents: expected D = {self.mean.shape[1]}, received {z.shape[1]}")
        if len(y) and (int(y.min()) < 0 or int(y.max()) >= self.num_classes):
            raise ValueError(f"labels: expected 0…{self.num_classes - 1}, received {int(y.min())}…{int(y.max())}")
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
        for name, tensor in (("count", self.count), ("mean", self.mean), ("variance", self._squares)):
            if not tensor.isfinite().all():
                raise ValueError(f"{name}: a number is not finite")
        if bool((self.count < 2).any()):
            worst = int(self.count.argmin())
            raise ValueError(f"class {worst}: its variance needs at least 2 samples, received {int(self.count[worst])}")
        flat = (self._squares <= 0).nonzero()
        if len(flat):
            place, variance = tuple(flat[0].tolist()), float(self.variance[tuple(flat[0])])
            reason = "does not vary (variance 0)" if variance == 0 else f"has the variance {variance:g}"
            raise ValueError(f"class {place[0]}: dimension {place[1]} {reason}")
