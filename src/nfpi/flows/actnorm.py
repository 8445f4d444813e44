"""Activation normalisation (Kingma and Dhariwal, Glow, 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nfpi.flows.bijection import Bijection

_SMALLEST_SCALE = 1e-12


def inverse_softplus(y: Tensor) -> Tensor:
    """The x with log(1 + eˣ) = y, for y > 0: y + log(1 − e^{−y}), which overflows for no y."""
    return y + torch.log(-torch.expm1(-y))


class ActNorm(Bijection):
    """y = softplus(scale) ⊙ x + shift, with log |det| = Σ log softplus(scale), a scale counted as often as it is used.

    Its data-dependent initialisation gives zero mean and unit variance over the batch to what shares a scale and shift.

    Args:
        shape: (C, H, W): every element has its own scale and shift; (C, 1, 1): every channel has.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(inverse_softplus(torch.ones(shape)))
        self.shift = nn.Parameter(torch.zeros(shape))

    def _positive_scale(self) -> Tensor:
        # softplus underflows to 0 far below zero, where a step of the optimizer may lead
        return F.softplus(self.scale) + _SMALLEST_SCALE

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift; the log-determinant is the same for every image: ()."""
        scale = self._positive_scale()
        return torch.addcmul(self.shift, scale, x), self._log_abs_det(scale, x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(y − shift) / scale."""
        scale = self._positive_scale()
        return (y - self.shift) / scale, -self._log_abs_det(scale, y)

    @staticmethod
    def _log_abs_det(scale: Tensor, x: Tensor) -> Tensor:
        return scale.log().sum() * (x[0].numel() // scale.numel())

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Zero mean and unit variance; what is constant over the batch is centred and keeps scale 1."""
        shared = [0, *(axis for axis, size in enumerate(self.scale.shape, start=1) if size < x.shape[axis])]
        spread, mean = (value.view_as(self.scale) for value in torch.std_mean(x, shared, correction=0))
        # rounding leaves a constant element a spread of some units in the last place of its value
        constant = spread <= 1e-5 * (mean.abs() + torch.finfo(x.dtype).tiny ** 0.5)
        scale = torch.where(constant, torch.ones_like(spread), 1 / spread)
        self.scale.copy_(inverse_softplus(scale))
        self.shift.copy_(-mean * self._positive_scale())
        return self(x)[0]
