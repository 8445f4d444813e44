"""The interface of every part of a flow, and the initialisation of its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_skipped = ContextVar("_skipped", default=False)


class Bijection(nn.Module):
    """An invertible map of images with the logarithm of its Jacobian determinant.

    For x of shape (B, C, H, W), `forward(x)` returns `(y, log_abs_det)` with log_abs_det = log |det ∂y/∂x| of shape
    (B,), or () if it is the same for every x; `inverse(y)` returns `(x, log_abs_det)` with the determinant of the
    inverse map, ∂x/∂y.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y = f(x) and log |det ∂y/∂x|."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method forward, received none")

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = f⁻¹(y) and log |det ∂x/∂y|."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method inverse, received none")

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise data-dependent parameters from a batch of images, and return f(x)."""
        z: Tensor = self(x)[0]
        return z


def forward_through(parts: Iterable[Bijection], x: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
    """Apply bijections in order.

    Args:
        parts: the bijections.
        x: input of the first one.
        log_abs_det: accumulated by the preceding bijections, (B,).

    Returns:
        Output of the last one, and the accumulated log-determinant, (B,).
    """
    for part in parts:
        x, change = part(x)
        log_abs_det = log_abs_det + change
    return x, log_abs_det


def inverse_through(parts: Sequence[Bijection], y: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the inverses of bijections in reverse order; for the arguments see :func:`forward_through`."""
    for part in reversed(parts):
        y, change = part.inverse(y)
        log_abs_det = log_abs_det + change
    return y, log_abs_det


@torch.no_grad()
def initialize_through(parts: Iterable[Bijection], x: Tensor) -> Tensor:
    """Initialise bijections in order, each on the output of the previous one, and return the last output."""
    for part in parts:
        x = part.initialize(x)
    return x


@contextmanager
def skip_initialization() -> Iterator[None]:
    """Make modules built in this block leave their random parameters uninitialised."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def is_initialization_skipped() -> bool:
    """Return whether this is called in a block of :func:`skip_initialization`."""
    return _skipped.get()
