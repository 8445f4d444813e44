"""Flows, priors and statistics as safetensors files with their settings in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nfpi.files import write_atomically
from nfpi.flows import MatrixExponentialFlow
from nfpi.outcome import raise_if_diverged
from nfpi.priors import ClassStatistics, GaussianPrior


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
        FixedPointDiverged: the file stands for a fit that diverged.
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


def save_prior(path: Path, prior: GaussianPrior, header: Mapping[str, Any]) -> None:
    """Write class Gaussians; refuses what are none (ValueError)."""
    prior.check()
    second = {"covariance": prior.covariance} if prior.covariance is not None else {"variance": prior.variance}
    save_tensors(path, {"mean": prior.mean, **second}, header)


def load_prior(path: Path) -> tuple[GaussianPrior, dict[str, Any]]:
    """Read class Gaussians and the header that was written with them."""
    tensors, header = load_tensors(path)
    try:
        prior = GaussianPrior(tensors["mean"], tensors.get("variance"), tensors.get("covariance"))
        prior.check()
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: expected class Gaussians, received others ({error})") from None
    return prior, header


def save_statistics(path: Path, statistics: ClassStatistics, header: Mapping[str, Any]) -> None:
    """Write class statistics; refuses a class without a variance (ValueError)."""
    statistics.check()
    tensors = {"count": statistics.count, "mean": statistics.mean, "variance": statistics.variance}
    if statistics.covariance is not None:
        tensors["covariance"] = statistics.covariance
    save_tensors(path, tensors, header)


def load_statistics(path: Path) -> ClassStatistics:
    """Read class statistics."""
    tensors, _ = load_tensors(path)
    try:
        return ClassStatistics(tensors["count"], tensors["mean"], tensors.get("variance"), tensors.get("covariance"))
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: expected class statistics, received others ({error})") from None


def save_flow(path: Path, flow: MatrixExponentialFlow, header: Mapping[str, Any]) -> None:
    """Write the weights of a flow, with its architecture."""
    save_tensors(path, flow.state_dict(), {**header, "flow": flow.settings})


def load_flow(path: Path) -> tuple[MatrixExponentialFlow, dict[str, Any]]:
    """Read a flow and the header that was written with it."""
    tensors, header = load_tensors(path)
    return build_flow(path, tensors, header), header


def build_flow(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> MatrixExponentialFlow:
    """The flow of the header's architecture with these weights; `path` is named in errors."""
    try:
        flow = MatrixExponentialFlow(**header["flow"])
        flow.load_state_dict(dict(tensors))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise FormatError(f"{path}: expected the weights of a flow, received others ({first_line})") from None
    return flow
