"""Random initial values are left out where loaded weights replace them at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_skipped = ContextVar("_skipped", default=False)


@contextmanager
def skip_initialization() -> Iterator[None]:
    """Modules that are made in this block may leave their random parameters undefined."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def initialization_skipped() -> bool:
    """Whether this is called in a block of :func:`skip_initialization`."""
    return _skipped.get()
