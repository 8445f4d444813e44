"""Class Gaussians in the latent space: density, divergences, statistics; fit by fixed point or gradient."""

from nfpi.priors.divergence import pairwise_kld, separation_loss
from nfpi.priors.fixed_point import FixedPointConfig, FixedPointDiverged, FixedPointResult, fit_fixed_point
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.gradient_descent import GaussianLearner, GradientDescentConfig, ValueRange
from nfpi.priors.statistics import ClassStatistics

__all__ = [
    "ClassStatistics",
    "FixedPointConfig",
    "FixedPointDiverged",
    "FixedPointResult",
    "GaussianLearner",
    "GaussianPrior",
    "GradientDescentConfig",
    "ValueRange",
    "fit_fixed_point",
    "pairwise_kld",
    "separation_loss",
]
