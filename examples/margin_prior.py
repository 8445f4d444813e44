"""A prior of one's own, learned along with the flow: means that keep a margin: `priors: {margin: {method: margin}}`."""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from nfpi.config.base import Settings
from nfpi.priors import GaussianPrior, PriorLearner, register_prior


class Margin(Settings):
    """Settings of means with a margin."""

    margin: PositiveFloat = 10.0
    """Euclidean distance of two means from which on they do not repel each other"""
    learning_rate: PositiveFloat = 0.01
    """learning rate of Adam"""


@register_prior("margin", Margin, learned=True)
class MarginLearner(PriorLearner):
    """Gaussians with learned means and the initial variances; Adam makes a step on every batch of the flow."""

    every_epochs = None  # no fits to all training latents, but a step with every step of the flow

    def __init__(self, initial: GaussianPrior, weight: float, settings: Margin) -> None:
        super().__init__()
        self.mean = nn.Parameter(initial.mean)
        self.register_buffer("variance", initial.variance)
        self.weight, self.margin = weight, settings.margin
        self.optimizer = torch.optim.Adam([self.mean], lr=settings.learning_rate)

    def forward(self) -> GaussianPrior:
        """Return the current Gaussians."""
        return GaussianPrior(self.mean, self.variance)

    def repulsion(self, prior: GaussianPrior) -> Tensor:
        """Compute λ times the sum of max(0, 1 − ‖μ_i − μ_j‖ / margin)² over the pairs of classes."""
        return self.weight * (1 - torch.pdist(prior.mean) / self.margin).relu().square().sum()
