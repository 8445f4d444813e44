"""Random initial values, left out where loaded weights replace them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_skipped = ContextVar("_skipped", default=False)


@contextmanager
def skip_initialization() -> Iterator[None]:
    """Modules that are made in this block leave their costly random parameters undefined."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def initial_value(shape: Sequence[int], draw: Callable[[Tensor], Tensor]) -> Tensor:
    """`draw(empty)` for an empty tensor of this shape; the empty tensor itself in :func:`skip_initialization`."""
    empty = torch.empty(*shape)
    return empty if _skipped.get() else draw(empty)
