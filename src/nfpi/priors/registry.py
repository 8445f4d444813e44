"""Initial Gaussians, registration of the methods that fit Gaussians from them, and calls of these methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import torch

from nfpi.config.base import ConfigError, Settings, Start
from nfpi.config.priors import PRIORS, LearnedMethod, PriorBlock, compute_relative_weight
from nfpi.priors.fixed_point import FixedPointResult
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.learner import PriorLearner
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.randomness import make_generator

Builder = TypeVar("Builder", bound=Callable[..., GaussianPrior | FixedPointResult | PriorLearner])


def register_prior(
    name: str, settings: type[Settings] = Settings, *, uses_weight: bool = True, learned: bool = False
) -> Callable[[Builder], Builder]:
    """Register a function or class as the prior method `name`.

    A function that fits the Gaussians once is called with `(statistics, initial, weight, settings)` — the statistics of
    the training latents after `fit_after_epochs` epochs, the initial Gaussians, λ, and the method's settings — and
    returns a :class:`GaussianPrior`. With `learned=True`, a subclass of :class:`PriorLearner` is called with
    `(initial, weight, settings)`, and its Gaussians are learned along with the flow.

    Args:
        name: name of the method, selected by `method: name` in a block of `priors:` in config.yaml.
        settings: settings class of the method.
        uses_weight: whether the method depends on λ; otherwise `weight` is 0 and experiments need no `lambdas`.
        learned: whether the Gaussians are learned along with the flow.

    Raises:
        ConfigError: the name is taken; or the function or class has other arguments; or a learned method has a setting
            `weight`.

    Examples:
        >>> @register_prior("class_means", uses_weight=False)
        ... def fit_class_means(statistics, initial, weight, settings):
        ...     return GaussianPrior(statistics.mean, torch.ones_like(statistics.mean))
    """

    if learned and "weight" in settings.model_fields:
        raise ConfigError(f"prior method '{name}': expected no setting 'weight', which is the name of λ: rename it")

    def register(builder: Builder) -> Builder:
        PRIORS.register(name, settings, builder, uses_weight=uses_weight, learned=learned)
        return builder

    return register


def initial_prior(statistics: ClassStatistics, start: Start, seed: int) -> GaussianPrior:
    """Make the initial Gaussians of the training.

    Args:
        statistics: statistics of the training latents, at least two per class.
        start: `data`: class means with class variances; `isotropic`: class means with covariances v_i I, where v_i is
            the mean of the class's variances; `identity`: class means with identity covariances; `random`: means drawn
            from N(0, I) with identity covariances.
        seed: seed of the run, which determines the random means.

    Returns:
        K diagonal Gaussians, float64.

    Raises:
        ValueError: unknown start, or a class has fewer than two latents or a constant dimension.
    """
    if start not in get_args(Start):
        raise ValueError(f"start: expected one of {', '.join(get_args(Start))}, received {start!r}")
    statistics.check()
    mean = statistics.mean
    if start == "random":
        generator = make_generator("cpu", seed, "random means")
        mean = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
    if start == "data":
        return GaussianPrior(mean, statistics.variance)
    if start == "isotropic":
        return GaussianPrior(mean, statistics.variance).to_isotropic()
    return GaussianPrior(mean, torch.ones_like(mean))


@dataclass(frozen=True)
class FittedPrior:
    """Gaussians that a method fitted, and what is recorded of the fit.

    Attributes:
        prior: the Gaussians, float64.
        record: method, λ and settings; of a fixed point also the number of iterations, and whether it converged.
        residuals: changes of means and variances in each iteration of a fixed point; empty for other methods.
    """

    prior: GaussianPrior
    record: dict[str, Any]
    residuals: list[list[float]]


def describe_prior(block: PriorBlock, weight: float) -> dict[str, Any]:
    """Return the record of a block of `priors:` with λ, as JSON values."""
    return {"method": block.method, "lambda": weight, "settings": block.model_dump(mode="json")}


def find_relative_weight(record: Mapping[str, Any], num_classes: int, num_dimensions: int) -> float | None:
    """Return s₀ of λ (:func:`nfpi.config.priors.compute_relative_weight`) from the record of a prior; None: unknown."""
    weight, alpha = record.get("lambda"), record.get("settings", {}).get("alpha")
    if not weight or alpha is None:
        return weight
    return compute_relative_weight(weight, alpha, num_classes, num_dimensions)


def is_fitted_to_means(record: Mapping[str, Any]) -> bool:
    """Return whether a fit or the initial state determined the means of a prior, so that latents may differ from them.

    They may not if the means were learned along with the flow, as by a method that is not known, or estimated from the
    latents after the training; if only the variances were fitted, the means are the initial ones.
    """
    settings, method, refit = record.get("settings", {}), record.get("method"), record.get("refit")
    if method is None:  # λ = 0
        return refit is None
    is_fitted = method in PRIORS and not PRIORS[method].traits["learned"]
    return is_fitted and settings.get("fit_mean", True) and refit != "moments"


def fit_prior(block: PriorBlock, statistics: ClassStatistics, initial: GaussianPrior, weight: float) -> FittedPrior:
    """Fit the class Gaussians by a block of `priors:` that does not learn them along with the flow.

    Args:
        block: method and settings.
        statistics: statistics of the training latents, K classes in D dimensions.
        initial: initial Gaussians.
        weight: λ.

    Raises:
        Diverged: raised by the method.
        ValueError: the method learns the Gaussians along with the flow, or the result is not K valid Gaussians in D
            dimensions.
    """
    if PRIORS[block.method].traits["learned"]:
        raise ValueError(
            f"prior method '{block.method}': expected one that fits the Gaussians once, received a learner"
        )
    prior = PRIORS[block.method].build(statistics, initial, weight, PRIORS.extract_settings(block))
    record, residuals = describe_prior(block, weight), []
    if isinstance(prior, FixedPointResult):
        record |= {"iterations": prior.iterations, "converged": prior.converged}
        residuals = prior.residuals.tolist()
        prior = prior.prior
    _check(block.method, prior, statistics.mean.shape)
    return FittedPrior(prior.to(dtype=torch.float64), record, residuals)


def make_learner(method: LearnedMethod, initial: GaussianPrior) -> PriorLearner:
    """Make the learner of a registered method.

    Args:
        method: the method, with λ and its settings.
        initial: initial Gaussians, K classes in D dimensions.

    Raises:
        ValueError: the method does not support the initial Gaussians; or the result is not a :class:`PriorLearner` of K
            valid Gaussians in D dimensions with diagonal covariances, or its optimizer has tensors of others.
    """
    if initial.is_full:
        raise ValueError(f"prior method '{method.name}': expected diagonal covariances, received full ones")
    # copies, which the learner may keep and change
    mean, variance = (tensor.detach().to(torch.float64, copy=True) for tensor in (initial.mean, initial.variance))
    learner = PRIORS[method.name].build(GaussianPrior(mean, variance), method.weight, method.settings)
    if not isinstance(learner, PriorLearner):
        received = type(learner).__name__
        raise ValueError(f"prior method '{method.name}': expected a PriorLearner, received {received}")
    prior = learner()
    _check(method.name, prior, initial.mean.shape)
    if prior.is_full:
        raise ValueError(f"prior method '{method.name}': expected diagonal covariances, received full ones")
    own = set(learner.parameters())
    groups = learner.optimizer.param_groups if learner.optimizer is not None else []
    if any(parameter not in own for group in groups for parameter in group["params"]):
        raise ValueError(f"prior method '{method.name}': optimizer: expected the learner's parameters, received others")
    learner.method = method
    return learner


def _check(method: str, prior: object, shape: torch.Size) -> None:
    if not isinstance(prior, GaussianPrior):
        raise ValueError(f"prior method '{method}': expected a GaussianPrior, received {type(prior).__name__}")
    if prior.mean.shape != shape:
        expected, received = tuple(shape), tuple(prior.mean.shape)
        raise ValueError(f"prior method '{method}': expected (K, D) = {expected}, received {received}")
    try:
        prior.check()
    except ValueError as error:
        raise ValueError(f"prior method '{method}': {error}") from None
