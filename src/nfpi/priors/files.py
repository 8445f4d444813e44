"""Safetensors files of priors and statistics, with their origin in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfpi.config.base import Seed
from nfpi.linalg import is_symmetric
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.formats import FormatError, Record, check_record
from nfpi.runtime.tensors import load_tensors, save_tensors

_ROUNDING = 1e-9
"""Largest relative rounding error of covariances in float64."""


class _Header(Record):
    """The checked part of the header: the origin of priors and statistics."""

    seed: Seed | None = None
    start: str | None = None
    """kind of initial Gaussians"""


def serialize_prior(prior: GaussianPrior) -> dict[str, Tensor]:
    """Return the mean, and the variance or covariance, by name.

    Raises:
        ValueError: a mean is not finite, or a covariance not symmetric or not positive definite.
    """
    prior.check()
    second = {"covariance": prior.covariance} if prior.covariance is not None else {"variance": prior.variance}
    return {"mean": prior.mean, **second}


def deserialize_prior(path: Path, tensors: Mapping[str, Tensor]) -> GaussianPrior:
    """Create a prior from the result of :func:`serialize_prior`.

    Args:
        path: file named in errors.
        tensors: tensors by name; those of less than 32 bits become float32, as torch has no Cholesky factors of them.

    Raises:
        FormatError: the tensors are not those of class Gaussians.
    """
    try:
        _check_names(tensors, {"mean"}, {"mean", "variance", "covariance"})
        converted = {
            name: tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor
            for name, tensor in tensors.items()
        }
        prior = GaussianPrior(converted["mean"], converted.get("variance"), converted.get("covariance"))
        prior.check()
    except ValueError as error:
        raise FormatError(f"{path}: expected class Gaussians, received others ({error})") from None
    return prior


def save_prior(path: Path, prior: GaussianPrior, header: Mapping[str, Any]) -> None:
    """Write class Gaussians.

    Raises:
        ValueError: a mean is not finite, or a covariance not symmetric or not positive definite.
    """
    save_tensors(path, serialize_prior(prior), header)


def load_prior(path: Path) -> tuple[GaussianPrior, dict[str, Any]]:
    """Read class Gaussians and their header.

    Raises:
        FormatError: the file is missing, damaged, or has other contents.
        Diverged: the file marks a diverged fit.
    """
    tensors, header = load_tensors(path)
    check_record(_Header, header, path, "class Gaussians with their origin")
    return deserialize_prior(path, tensors), header


def save_statistics(path: Path, statistics: ClassStatistics, header: Mapping[str, Any]) -> None:
    """Write class statistics; ValueError if a class has fewer than two latents, or a constant dimension."""
    statistics.check()
    tensors = {"count": statistics.count, "mean": statistics.mean, "variance": statistics.variance}
    if statistics.covariance is not None:
        tensors["covariance"] = statistics.covariance
    save_tensors(path, tensors, header)


def load_statistics(path: Path) -> ClassStatistics:
    """Read class statistics in which all variances are positive.

    Raises:
        FormatError: the file is missing, damaged, or has other contents.
        Diverged: the file marks a diverged fit.
    """
    tensors, header = load_tensors(path)
    check_record(_Header, header, path, "class statistics with their origin")
    try:
        _check_names(tensors, {"count", "mean", "variance"}, {"count", "mean", "variance", "covariance"})
        tensors = {name: tensor.to(torch.float64) for name, tensor in tensors.items()}
        statistics = ClassStatistics(**tensors)
        _check_consistency(tensors)
        statistics.check()
    except ValueError as error:
        raise FormatError(f"{path}: expected class statistics, received others ({error})") from None
    return statistics


def _check_names(tensors: Mapping[str, Tensor], required: set[str], known: set[str]) -> None:
    missing, others = required - tensors.keys(), tensors.keys() - known
    if missing or others:
        what = f"without {min(missing)}" if missing else f"with {min(others)}"
        raise ValueError(f"tensors {what}")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: not floating-point numbers")


def _check_consistency(tensors: Mapping[str, Tensor]) -> None:
    """Check the invariants of :class:`ClassStatistics` on values, which its constructor does not check."""
    count, variance, covariance = tensors["count"], tensors["variance"], tensors.get("covariance")
    if bool((count != count.round()).any()):
        raise ValueError("count: not K whole numbers")
    if covariance is None:
        return
    if not is_symmetric(covariance, _ROUNDING):
        raise ValueError("covariance: not symmetric")
    if not torch.allclose(covariance.diagonal(dim1=1, dim2=2), variance, rtol=_ROUNDING):
        raise ValueError("variance: not the diagonal of the covariance")
    eigenvalues = torch.linalg.eigvalsh(covariance)
    if bool((eigenvalues[:, 0] < -_ROUNDING * eigenvalues[:, -1]).any()):
        raise ValueError("covariance: a variance along some direction is negative")
