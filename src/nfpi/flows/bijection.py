"""The contract that every part of a flow keeps."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bijection(nn.Module):
    """An invertible map of images with the logarithm of its Jacobian determinant.

    For x of shape (B, C, H, W), `forward(x)` gives `(y, log_abs_det)` with log_abs_det = log |det ∂y/∂x| of shape
    (B,) or, where it is the same for every x, (); `inverse(y)` gives `(x, log_abs_det)` with the determinant of the
    inverse map, ∂x/∂y.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log |det ∂y/∂x|."""
        raise NotImplementedError

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x = f⁻¹(y) and log |det ∂x/∂y|."""
        raise NotImplementedError

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Set the parameters that depend on data from a batch of it, and return f(x)."""
        return self(x)[0]
