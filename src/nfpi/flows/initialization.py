"""Skip the random initialisation of modules whose weights are about to be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_skipped = ContextVar("_skipped", default=False)


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
