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

from nfpi.runtime.divergence import raise_divergence
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError, parse_json

_TYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to a safetensors file, atomically.

    Raises:
        FormatError: a tensor is not finite or has an unsupported dtype.
    """
    require_finite(path, tensors)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, metadata={"nfpi": json.dumps(header, allow_nan=False)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, onto the CPU, and the header of a file written by :func:`save_tensors`.

    Raises:
        FormatError: the file is missing, damaged or not of this project, or a number in it is not finite.
        Diverged: the file records a fit that diverged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {}).get("nfpi", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, AttributeError) as error:  # AttributeError: a dtype that torch lacks
        raise FormatError(f"{path}: expected a safetensors file, received a damaged one ({error})") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: expected a file of this project, received one without its header")
    raise_divergence(header, path)
    require_finite(path, tensors)
    return tensors, header


def require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check that all tensors of a file have supported dtypes and finite numbers.

    Raises:
        FormatError: a tensor is not finite or has an unsupported dtype.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES:
            raise FormatError(
                f"{path}: {name}: expected floating-point or whole numbers, received {_format_dtype(tensor.dtype)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FormatError(f"{path}: {name}: expected finite numbers, received NaN or infinity")


def load_state(module: nn.Module, weights: Mapping[str, Tensor], any_precision: bool = False) -> None:
    """Load weights into a module whose names, shapes and dtypes match exactly.

    Args:
        module: module to load the weights into.
        weights: state_dict of the module.
        any_precision: whether floating-point dtypes may differ.

    Raises:
        ValueError: a name, shape or dtype differs; the message is one line.
    """
    for name, own in module.state_dict().items():
        found = weights.get(name)
        if found is None or found.dtype == own.dtype:
            continue
        if not (any_precision and found.is_floating_point() and own.is_floating_point()):
            raise ValueError(f"{name}: expected {_format_dtype(own.dtype)}, received {_format_dtype(found.dtype)}")
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(" ".join(lines[1:2] or lines)[:300]) from None


def select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def verify_archive(path: Path) -> None:
    """Verify the checksums of a torch checkpoint, a zip archive; :func:`torch.load` does not.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or not a zip archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # exceptions of zipfile and zlib for damaged archives have no common base
        raise ValueError(f"expected an archive of torch, received something else ({error})") from None
    if damaged is not None:
        raise ValueError(f"{damaged} does not agree with its checksum")


def _format_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
