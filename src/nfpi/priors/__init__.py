"""Class Gaussians in the latent space: density, divergences, statistics, and their fit by fixed-point iteration."""

from nfpi.priors.divergence import pairwise_kld, separation_loss
from nfpi.priors.fixed_point import FixedPointConfig, FixedPointDiverged, FixedPointResult, fit_fixed_point
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics

__all__ = [
    "ClassStatistics",
    "FixedPointConfig",
    "FixedPointDiverged",
    "FixedPointResult",
    "GaussianPrior",
    "fit_fixed_point",
    "pairwise_kld",
    "separation_loss",
]
