"""torch.compile with the backend inductor: whether a training is compiled, and whether the compiler works."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

BACKEND = "inductor"
_LOWEST_CAPABILITY = 8
"""lowest major compute capability of NVIDIA GPUs (A100) that Triton supports"""


def choose_compiler(wanted: bool | Literal["auto"], device: torch.device) -> str | None:
    """Return the backend of :func:`torch.compile` for a training on a device; None: it is not compiled.

    Args:
        wanted: `auto` compiles on GPUs that Triton supports, if the compiler works.
        device: device of the training.

    Raises:
        ValueError: `wanted` is True, but the compiler does not work.
    """
    if not wanted or (wanted == "auto" and not _has_triton(device)):
        return None
    try:
        backend = require_compiler("training.compile", device)
    except ValueError as error:
        if wanted != "auto":
            raise
        logger.warning("not compiled: %s", error)
        return None
    logger.info("training.compile: %s on %s", backend, device.type)
    return backend


def require_compiler(purpose: str, device: torch.device) -> str:
    """Return the backend of :func:`torch.compile` for a device, if it works.

    The backend needs a C++ compiler for CPUs, and Triton with a C compiler for GPUs. A trivial function is compiled to
    test whether it works.

    Args:
        purpose: setting or method that requires the compiler, for the error message.
        device: device to compile for.

    Raises:
        ValueError: the compiler does not work.
    """
    fault = _find_compiler_fault(device)
    if fault is None:
        return BACKEND
    needs = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler (g++ or clang++)"
    raise ValueError(f"{purpose}: expected {needs}, received an error ({fault})")


def _has_triton(device: torch.device) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= _LOWEST_CAPABILITY


def _find_compiler_fault(device: torch.device) -> str | None:
    try:
        torch.compile(_trivial_function, backend=BACKEND)(torch.ones(16, device=device))
    except Exception as error:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return None


def _trivial_function(x: Tensor) -> Tensor:
    return x.sin() + 1
