"""Initial Gaussians of the training."""

from __future__ import annotations

from typing import get_args

import torch

from nfpi.config.base import Start
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.randomness import make_generator


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
