"""Methods that fit the class Gaussians: how one is registered, and how one is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from nfpi.config.base import Settings
from nfpi.config.priors import PRIORS
from nfpi.priors.fixed_point import FixedPointResult
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics

Builder = TypeVar("Builder", bound=Callable[..., GaussianPrior | FixedPointResult])


def register_prior(
    name: str, settings: type[Settings] = Settings, *, uses_weight: bool = True
) -> Callable[[Builder], Builder]:
    """Register a function as the prior method `name`.

    The function is called as `(statistics, initial, weight, settings)` and returns a :class:`GaussianPrior`: statistics
    of the training latents after the first epochs, the initial Gaussians, λ, and the method's settings.

    Args:
        name: what a block under `priors:` in config.yaml selects it by, `method: name`.
        settings: class of its settings.
        uses_weight: whether it depends on λ. Where it does not, `weight` is 0 and experiments need no `lambdas`.

    Raises:
        ConfigError: the name is taken.

    Example:
        >>> @register_prior("class_means", uses_weight=False)
        ... def fit_class_means(statistics, initial, weight, settings):
        ...     return GaussianPrior(statistics.mean, torch.ones_like(statistics.mean))
    """

    def register(builder: Builder) -> Builder:
        PRIORS.register(name, settings, builder, uses_weight=uses_weight, learned=False)
        return builder

    return register


def fit(
    method: str, statistics: ClassStatistics, initial: GaussianPrior, weight: float, settings: Settings
) -> GaussianPrior | FixedPointResult:
    """Fit the class Gaussians by a registered method.

    Args:
        method: its name.
        statistics: of the training latents, K classes in D dimensions.
        initial: the initial Gaussians.
        weight: λ.
        settings: those of the method.

    Returns:
        what the method returns, checked; a bare prior in float64.

    Raises:
        Diverged: the method says so.
        ValueError: it returned something other than K proper Gaussians in D dimensions.
    """
    result = PRIORS[method].build(statistics, initial, weight, settings)
    if isinstance(result, FixedPointResult):
        _check(method, result.prior, statistics)
        return result
    _check(method, result, statistics)
    return result.to(dtype=torch.float64)


def _check(method: str, prior: object, statistics: ClassStatistics) -> None:
    if not isinstance(prior, GaussianPrior):
        raise ValueError(f"prior method '{method}': expected a GaussianPrior, received {type(prior).__name__}")
    if prior.mean.shape != statistics.mean.shape:
        expected, received = tuple(statistics.mean.shape), tuple(prior.mean.shape)
        raise ValueError(f"prior method '{method}': expected (K, D) = {expected}, received {received}")
    try:
        prior.check()
    except ValueError as error:
        raise ValueError(f"prior method '{method}': {error}") from None
