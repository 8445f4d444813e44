"""Weights of classifiers, from files."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nfpi.runtime.tensors import FormatError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights by name from a file of safetensors or of torch; nothing in it is executed.

    Raises:
        FormatError: the file is missing, damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path}: expected a file of weights, received a damaged one ({reason})") from None
    for key in ("state_dict", "model"):  # where training programs put them, beside other things
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise FormatError(f"{path}: expected tensors by name, received something else")
    return dict(content)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path | None) -> None:
    """Load weights into a model that has exactly these; errors name `path`.

    Raises:
        FormatError: names or shapes differ.
    """
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = " ".join(" ".join(str(error).splitlines()[1:2]).split())[:200]
        raise FormatError(f"{path}: expected the weights of this classifier, received others ({reason})") from None
