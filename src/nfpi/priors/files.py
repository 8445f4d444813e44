"""Priors and statistics as safetensors files, with what they were made from in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.tensors import FormatError, load_tensors, save_tensors


def prior_tensors(prior: GaussianPrior) -> dict[str, Tensor]:
    """Mean, and variance or covariance, by name.

    Raises:
        ValueError: a mean is not finite, or a variance is not positive.
    """
    prior.check()
    second = {"covariance": prior.covariance} if prior.covariance is not None else {"variance": prior.variance}
    return {"mean": prior.mean, **second}


def prior_of_tensors(path: Path, tensors: Mapping[str, Tensor]) -> GaussianPrior:
    """The prior of :func:`prior_tensors`; `path` is named in errors.

    Raises:
        FormatError: they are none.
    """
    try:
        prior = GaussianPrior(tensors["mean"], tensors.get("variance"), tensors.get("covariance"))
        prior.check()
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: expected class Gaussians, received others ({error})") from None
    return prior


def save_prior(path: Path, prior: GaussianPrior, header: Mapping[str, Any]) -> None:
    """Write class Gaussians; ValueError where one is not proper."""
    save_tensors(path, prior_tensors(prior), header)


def load_prior(path: Path) -> tuple[GaussianPrior, dict[str, Any]]:
    """Read class Gaussians, and the header that was written with them."""
    tensors, header = load_tensors(path)
    return prior_of_tensors(path, tensors), header


def save_statistics(path: Path, statistics: ClassStatistics, header: Mapping[str, Any]) -> None:
    """Write class statistics; ValueError where a class has no variance."""
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
