"""Tensors with a JSON header, as safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nfpi.runtime.divergence import raise_if_diverged
from nfpi.runtime.files import write_atomically


class FormatError(ValueError):
    """A file that is not what it should be; the message is one line and names it."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header, whole or not at all.

    Raises:
        FormatError: a tensor is not finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FormatError(f"{path}: {name}: expected finite numbers, received NaN or infinity")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, metadata={"nfpi": json.dumps(header, allow_nan=False)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header, on the CPU.

    Raises:
        FormatError: the file is missing, damaged or not one of ours.
        Diverged: the file stands for a fit that diverged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("nfpi", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path}: expected a safetensors file, received a damaged one ({error})") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: expected a file of this project, received one without its header")
    raise_if_diverged(header)
    return tensors, header
