"""Tensors with a JSON header, as safetensors files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nfpi.runtime.divergence import raise_if_diverged
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError, check_divergence, parse_json

__all__ = ["FormatError", "load_state", "load_tensors", "require_finite", "save_tensors", "verify_archive"]


_TYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header, whole or not at all.

    Raises:
        FormatError: a tensor is not finite.
    """
    require_finite(path, tensors)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, metadata={"nfpi": json.dumps(header, allow_nan=False)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header, on the CPU.

    Raises:
        FormatError: the file is missing, damaged or not one of ours, or a number in it is not finite.
        Diverged: the file stands for a fit that diverged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {}).get("nfpi", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, AttributeError) as error:  # AttributeError: a type torch has not
        raise FormatError(f"{path}: expected a safetensors file, received a damaged one ({error})") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: expected a file of this project, received one without its header")
    check_divergence(header, path)
    raise_if_diverged(header)
    require_finite(path, tensors)
    return tensors, header


def require_finite(path: Path | None, tensors: Mapping[str, Tensor]) -> None:
    """Check the numbers of a file that is read or is to be written.

    Raises:
        FormatError: a tensor is not finite, or of a type that is not among those of this project.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES:
            raise FormatError(f"{path}: {name}: expected real or whole numbers, received {_name(tensor.dtype)}")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FormatError(f"{path}: {name}: expected finite numbers, received NaN or infinity")


def load_state(module: nn.Module, weights: Mapping[str, Tensor], any_precision: bool = False) -> None:
    """Load weights into a module that has exactly these: their names, shapes and types.

    Args:
        module: gets the weights.
        weights: its state_dict.
        any_precision: whether real numbers may be of another precision, as torch takes all types.

    Raises:
        ValueError: they are others; one line.
    """
    for name, own in module.state_dict().items():
        found = weights.get(name)
        if found is None or found.dtype == own.dtype:
            continue
        if not (any_precision and found.is_floating_point() and own.is_floating_point()):
            raise ValueError(f"{name}: expected {_name(own.dtype)}, received {_name(found.dtype)}")
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(" ".join(lines[1:2] or lines)[:300]) from None


def verify_archive(path: Path) -> None:
    """Compare the parts of a checkpoint of torch, which is a zip archive, with their checksums: torch does not.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # what zipfile and zlib raise for damaged archives has no common base
        raise ValueError(f"expected an archive of torch, received something else ({error})") from None
    if damaged is not None:
        raise ValueError(f"{damaged} does not agree with its checksum")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
