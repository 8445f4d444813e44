"""Whether the training on a device is compiled, by torch.compile with its backend inductor."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch

BACKEND = "inductor"


def choose_compiler(wanted: bool | Literal["auto"], device: torch.device) -> str | None:
    """Return the backend of :func:`torch.compile` for a training on a device; None: it is not compiled.

    Args:
        wanted: `auto` compiles on NVIDIA's and AMD's GPUs where Triton is installed and supports the card.
        device: where it trains.

    Raises:
        ValueError: it is to be compiled, but there is no compiler.
    """
    if wanted == "auto":
        return BACKEND if device.type == "cuda" and _has_triton(device) else None
    if not wanted:
        return None
    if device.type == "cuda" and find_spec("triton") is None:
        raise ValueError("training.compile: expected Triton, which compiles for GPUs (pip install triton), found none")
    if device.type == "cpu":
        _require_cpp_compiler()
    return BACKEND


def _has_triton(device: torch.device) -> bool:
    if find_spec("triton") is None:
        return False
    # Triton itself promises NVIDIA's cards from compute capability 8.0 (A100) on
    return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8


def _require_cpp_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"training.compile: expected a C++ compiler (g++ or clang++), found none ({first})") from None
