"""Registration of methods that fit the class Gaussians, and calls of these methods."""

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

    The function is called with `(statistics, initial, weight, settings)` — the statistics of the training latents after
    the first epochs, the initial Gaussians, λ, and the method's settings — and returns a :class:`GaussianPrior`.

    Args:
        name: name of the method, selected by `method: name` in a block of `priors:` in config.yaml.
        settings: settings class of the method.
        uses_weight: whether the method depends on λ; otherwise `weight` is 0 and experiments need no `lambdas`.

    Raises:
        ConfigError: the name is taken; or the function has other arguments.

    Examples:
        >>> @register_prior("class_means", uses_weight=False)
        ... def fit_class_means(statistics, initial, weight, settings):
        ...     return GaussianPrior(statistics.mean, torch.ones_like(statistics.mean))
    """

    PRIORS.require_name(name)

    def register(builder: Builder) -> Builder:
        PRIORS.register(name, settings, builder, uses_weight=uses_weight, learned=False)
        return builder

    return register


def fit(
    method: str, statistics: ClassStatistics, initial: GaussianPrior, weight: float, settings: Settings
) -> GaussianPrior | FixedPointResult:
    """Fit the class Gaussians by a registered method.

    Args:
        method: name of the method.
        statistics: statistics of the training latents, K classes in D dimensions.
        initial: initial Gaussians.
        weight: λ.
        settings: settings of the method.

    Returns:
        The checked result of the method; a :class:`GaussianPrior` is converted to float64.

    Raises:
        Diverged: raised by the method.
        ValueError: the result is not K valid Gaussians in D dimensions.
    """
    result: GaussianPrior | FixedPointResult = PRIORS[method].build(statistics, initial, weight, settings)
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
