"""Class Gaussians fitted repeatedly by fixed-point iteration during the training of the flow.

The paper finds a single fit sufficient (Section 4.2); repeated fits allow a comparison.
"""

from __future__ import annotations

from torch import Tensor

from nfpi.config.priors import RepeatedFixedPointConfig, RepeatedFixedPointSettings
from nfpi.priors.fixed_point import fit_fixed_point
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.gradient_descent import mean_class_nll, repulsion
from nfpi.priors.learner import PriorLearner, ValueRange
from nfpi.priors.statistics import ClassStatistics


def make_learner(initial: GaussianPrior, weight: float, settings: RepeatedFixedPointSettings) -> RepeatedFixedPoint:
    """Make the learner of the method `repeated_fixed_point`."""
    return RepeatedFixedPoint(initial, RepeatedFixedPointConfig(weight=weight, **settings.model_dump()))


class RepeatedFixedPoint(PriorLearner):
    """Gaussians that are replaced by every fit, which starts from the current ones; float64.

    Args:
        initial: initial Gaussians, with diagonal covariances.
        config: λ, settings of the fits, and the number of epochs between them.

    Attributes:
        mean, variance: (K, D).
        every_epochs: number of epochs between two fits.
        steps: number of fits made.
        loss: value of Eq. 4 after the last fit, on its statistics; None before the first.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, initial: GaussianPrior, config: RepeatedFixedPointConfig) -> None:
        super().__init__()
        self.register_buffer("mean", initial.mean.detach().double().clone())
        self.register_buffer("variance", initial.variance.detach().double().clone())
        self.config = config
        self.every_epochs = config.every_epochs

    def forward(self) -> GaussianPrior:
        """Return the current Gaussians."""
        return GaussianPrior(self.mean, self.variance)

    def fit(self, statistics: ClassStatistics, progress: float = 0.0, nll_range: ValueRange | None = None) -> None:
        """Fit the Gaussians, starting from the current ones, see :func:`nfpi.priors.fit_fixed_point`.

        Args:
            statistics: statistics of all training latents under the current flow; without covariances, unless the
                Gaussians are isotropic.
            progress, nll_range: not used.

        Raises:
            ValueError: the fit would have full covariances, shapes are inconsistent, or a class has fewer than two
                latents.
            FixedPointDiverged: the iteration diverged; the Gaussians are unchanged.
        """
        config = self.config
        if statistics.covariance is not None and not config.isotropic_variance:
            raise ValueError("repeated fixed point: expected statistics without covariances, received full ones")
        result = fit_fixed_point(statistics, config, self.prior).warn_unless_converged()
        self.mean, self.variance = result.prior.mean, result.prior.variance
        separation = repulsion(result.prior, config.weight, config.alpha, config.scale)
        self.loss = (mean_class_nll(result.prior, statistics).sum() + separation).item()
