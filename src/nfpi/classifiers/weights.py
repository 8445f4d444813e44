"""Read the weights of classifiers from files."""

from __future__ import annotations

import errno
import os
import pickle
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nfpi.runtime.tensors import FormatError, load_state, require_finite, verify_archive


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named weights from a file of safetensors or of `torch.save`, without executing code in it.

    Raises:
        FormatError: the file is missing, damaged, or holds something else, or a number in it is not finite.
    """
    weights = _read(path)
    require_finite(path, weights)
    return weights


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with path.open("rb"):  # safetensors calls a file that may not be read missing
            pass
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):  # files of torch < 1.6 are not zip archives
            verify_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise FormatError(f"{path}: expected a readable file of weights ({error.strerror})") from None
    except pickle.UnpicklingError:  # torch's message is of many lines, and advises to execute what is in the file
        raise FormatError(
            f"{path}: expected a file of tensors only, received one that is damaged or contains other objects: save "
            "its state_dict"
        ) from None
    except Exception as error:  # loading a damaged pickle may raise any exception
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path}: expected a file of weights, received a damaged one ({reason})") from None
    for key in ("state_dict", "model"):  # common keys of checkpoints that contain more than weights
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors_by_name = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
    if not tensors_by_name:
        raise FormatError(f"{path}: expected tensors by name, received something else")
    return dict(content)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path | None) -> None:
    """Load weights of any floating-point precision into a model; errors name `path`.

    Raises:
        FormatError: names or shapes differ.
    """
    try:
        load_state(model, weights, any_precision=True)
    except ValueError as error:
        reason = describe_prefix(weights, model.state_dict()) or str(error)
        raise FormatError(f"{path}: expected the weights of this classifier, received others ({reason})") from None


def find_prefix(weights: Mapping[str, Tensor], expected: Iterable[str]) -> str:
    """Return the prefix that weights have in common, such as `module.`, if they are named as expected without it.

    Args:
        weights: the weights, by name.
        expected: names of the weights of the model.

    Returns:
        The prefix that more than half of the expected names have in `weights`; empty if there is no such prefix.
    """
    names = set(expected)
    counts: Counter[str] = Counter()
    for name in weights:
        parts = name.split(".")
        for first in range(len(parts)):
            if ".".join(parts[first:]) in names:
                counts["".join(f"{part}." for part in parts[:first])] += 1
    prefix, count = next(iter(counts.most_common(1)), ("", 0))
    return prefix if 2 * count > len(names) else ""


def describe_prefix(weights: Mapping[str, Tensor], expected: Iterable[str]) -> str:
    """Describe the prefix of :func:`find_prefix` and what to do; empty if there is none."""
    names = list(expected)
    prefix = find_prefix(weights, names)
    if not prefix:
        return ""
    example = next(name for name in names if f"{prefix}{name}" in weights)
    return f"expected {example}, received {prefix}{example}: remove the prefix '{prefix}' from the names in the file"
