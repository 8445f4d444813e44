"""torch's defaults for new tensors, regardless of those of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def standard_defaults() -> Iterator[None]:
    """Make tensors in float32 on the CPU within the context, where no dtype or device is given. Also a decorator.

    A caller may have set others by :func:`torch.set_default_dtype` or :func:`torch.set_default_device`. The default
    dtype is shared by all threads, so a context in one thread may end another's early; the default device belongs to
    the current thread.
    """
    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
    try:
        with cpu_by_default():
            yield
    finally:
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)


@contextmanager
def cpu_by_default() -> Iterator[None]:
    """Make tensors on the CPU within the context, where no device is given."""
    # the context of a device slows every operation down, so it is entered only where it changes something
    with nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"):
        yield
