"""Activation normalisation (Kingma and Dhariwal, Glow, 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nfpi.flows.bijection import Bijection

_SMALLEST_SCALE = 1e-12


def inverse_softplus(y: Tensor) -> Tensor:
    """Return x with log(1 + eˣ) = y, for y > 0, as y + log(1 − e^{−y}), which never overflows."""
    return y + torch.log(-torch.expm1(-y))


class ActNorm(Bijection):
    """Activation normalisation y = softplus(scale) ⊙ x + shift, with log |det| = Σ log softplus(scale) over elements.

    After its data-dependent initialisation, the elements that share a scale have zero mean and unit variance.

    Args:
        shape: (C, H, W) for one scale and shift per element, (C, 1, 1) for one per channel.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(inverse_softplus(torch.ones(shape)))
        self.shift = nn.Parameter(torch.zeros(shape))

    def _compute_scale(self) -> Tensor:
        # softplus underflows to 0 for very negative values, which an optimizer step may reach
        return F.softplus(self.scale) + _SMALLEST_SCALE

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift; the log-determinant is the same for every image and has shape ()."""
        scale = self._compute_scale()
        return torch.addcmul(self.shift, scale, x), self._log_abs_det(scale, x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y − shift) / scale."""
        scale = self._compute_scale()
        return (y - self.shift) / scale, -self._log_abs_det(scale, y)

    @staticmethod
    def _log_abs_det(scale: Tensor, x: Tensor) -> Tensor:
        return scale.log().sum() * (x[0].numel() // scale.numel())

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Set scale and shift to normalise the outputs for x, and return the outputs.

        Constant elements are only centred.
        """
        shared = [0, *(axis for axis, size in enumerate(self.scale.shape, start=1) if size < x.shape[axis])]
        spread, mean = (value.view_as(self.scale) for value in torch.std_mean(x, shared, correction=0))
        # rounding gives a constant element a standard deviation of some units in the last place of its value
        constant = spread <= 1e-5 * (mean.abs() + torch.finfo(x.dtype).tiny ** 0.5)
        scale = torch.where(constant, torch.ones_like(spread), 1 / spread)
        self.scale.copy_(inverse_softplus(scale))
        self.shift.copy_(-mean * self._compute_scale())
        z: Tensor = self(x)[0]
        return z
