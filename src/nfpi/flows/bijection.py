"""The contract that every part of a flow keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def forward_through(parts: Iterable[Bijection], x: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
    """Apply bijections in their order.

    Args:
        parts: the bijections.
        x: input of the first one.
        log_abs_det: of what was applied before, (B,).

    Returns:
        Output of the last one, and the log-determinant of all, (B,).
    """
    for part in parts:
        x, change = part(x)
        log_abs_det = log_abs_det + change
    return x, log_abs_det


def inverse_through(parts: Sequence[Bijection], y: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the inverses of bijections in the opposite order; arguments as of :func:`forward_through`."""
    for part in reversed(parts):
        y, change = part.inverse(y)
        log_abs_det = log_abs_det + change
    return y, log_abs_det


@torch.no_grad()
def initialize_through(parts: Iterable[Bijection], x: Tensor) -> Tensor:
    """Initialise bijections in their order, each on the output of the one before; gives the output of the last one."""
    for part in parts:
        x = part.initialize(x)
    return x
