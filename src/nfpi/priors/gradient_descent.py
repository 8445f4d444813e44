"""Class Gaussians learned by gradient descent along with the flow (the paper's second baseline, Section 5.2).

Variances are v = a·sigmoid(b·s) + c, which keeps them in (c, a + c) whatever a step does to s. The gradient over all
training latents needs only the statistics of each class, because the likelihood of a class under its Gaussian does.
Notation: K classes, D dimensions, N_i latents of class i, N latents in all, `[i, j]` a pair of classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nfpi.config.priors import GradientDescentConfig
from nfpi.priors.divergence import Scale, pairwise_kld, separation_loss
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics

__all__ = [
    "GaussianLearner",
    "GradientDescentConfig",
    "ValueRange",
    "mean_class_nll",
    "released_objective",
    "repulsion",
]

# initial variances keep at least this share of a from the ends of (c, a + c), where the sigmoid is flat
_MARGIN = 0.01
# the released code's weight of the divergences at the first epoch and from the hundredth on, and its margin of ranges
_FIRST_KLD_WEIGHT, _LAST_KLD_WEIGHT, _KLD_WEIGHT_EPOCHS = 50.0, 25.0, 100
_WIDENING = 0.2


class ValueRange:
    """Smallest and largest of the values seen so far, batch by batch.

    Attributes:
        ends: both, (2,); None before the first values.
    """

    def __init__(self) -> None:
        self.ends: Tensor | None = None

    def update(self, values: Tensor) -> ValueRange:
        """Add values of any shape, at least one.

        Returns:
            self.
        """
        ends = torch.stack(values.detach().aminmax())
        if self.ends is not None:
            ends = torch.stack([torch.minimum(self.ends[0], ends[0]), torch.maximum(self.ends[1], ends[1])])
        self.ends = ends
        return self

    @property
    def width(self) -> float:
        """(max + 0.2 |max|) − (min − 0.2 |min|), the released code's width of a range.

        It is 1 where all values are 0, as the divergences of Gaussians that coincide are: their gradient is 0 too and
        needs no scaling.
        """
        if self.ends is None:
            raise ValueError("range: expected at least one value, received none")
        smallest, largest = self.ends.tolist()
        return (largest - smallest + _WIDENING * (abs(smallest) + abs(largest))) or 1.0


def mean_class_nll(prior: GaussianPrior, statistics: ClassStatistics) -> Tensor:
    """(1/N_i) Σ_n −log N(z_n; μ_i, v_i) = ½ Σ_d [log 2πv_i + (s_i + (m_i − μ_i)²) / v_i], s_i with divisor N_i.

    Args:
        prior: K diagonal Gaussians.
        statistics: of the latents, at least two of each class.

    Returns:
        (K,), nats.
    """
    biased = statistics.variance * ((statistics.count - 1) / statistics.count)[:, None]
    distance = (biased + (statistics.mean - prior.mean).square()) / prior.variance
    return 0.5 * ((2 * torch.pi * prior.variance).log() + distance).sum(1)


def repulsion(prior: GaussianPrior, weight: float, alpha: float = 10.0, scale: Scale = "pairwise") -> Tensor:
    """λ L_KLD = λ/(K(K−1)) Σ_{i≠j} exp(−KLD_ij / (π_ij α)), Eqs. 3 and 4; no gradient through π."""
    classes = prior.num_classes
    return weight / (classes * (classes - 1)) * separation_loss(prior, alpha, scale)


def released_objective(
    prior: GaussianPrior, statistics: ClassStatistics, nll_range: ValueRange, kld_weight: float
) -> Tensor:
    """NLL / R − w Σ_{i,j} KLD_ij / (K D R′), the objective of the released code; no gradient through the ranges.

    NLL is the mean over all latents. The released code divides the sum of the divergences by K·D as well.

    Args:
        prior: K Gaussians in D dimensions.
        statistics: of the latents.
        nll_range: of −log p(x | y) of all images, log-determinant included, in nats; R is its width.
        kld_weight: w.

    Returns:
        (), where R′ is the width of the range of Σ_j (KLD_ij + KLD_ji) / (K − 1) over the classes i.
    """
    kld = pairwise_kld(prior)
    each_class = (kld.sum(0) + kld.sum(1)) / (prior.num_classes - 1)
    nll = (mean_class_nll(prior, statistics) * statistics.count).sum() / statistics.count.sum()
    separation = kld.sum() / (prior.mean.numel() * ValueRange().update(each_class).width)
    return nll / nll_range.width - kld_weight * separation


class GaussianLearner(nn.Module):
    """Gaussians as parameters, with the Adam that learns them; float64.

    Args:
        initial: initial values, with diagonal covariances. Variances that are learned are clamped to at least a/100
            inside (c, a + c).
        config: what is learned, and how.

    Attributes:
        mean: (K, D).
        spread: (K, D), s; where variances are not learned, the variances themselves.
        optimizer: Adam, on what is learned.
        steps: number of steps made.
        loss: value of the objective before the last step of :meth:`descend`; None: there was none.

    Raises:
        ValueError: the covariances are full, or the objective needs more classes.
    """

    def __init__(self, initial: GaussianPrior, config: GradientDescentConfig) -> None:
        super().__init__()
        if initial.is_full:
            raise ValueError("gradient descent: expected diagonal covariances, received full ones")
        if initial.num_classes < 2 and (config.weight > 0 or config.objective == "released"):
            raise ValueError(f"the repulsion needs at least 2 classes, received {initial.num_classes}")
        initial.check()
        mean, variance = (tensor.detach().to(torch.float64, copy=True) for tensor in (initial.mean, initial.variance))
        if config.fit_variance:
            share = (variance - config.smallest_variance) / config.variance_range
            variance = torch.logit(share, eps=_MARGIN) / config.variance_slope
        self.config = config
        self.mean = nn.Parameter(mean, requires_grad=config.fit_mean)
        self.spread = nn.Parameter(variance, requires_grad=config.fit_variance)
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(learned, lr=config.learning_rate)
        self.steps = 0
        self.loss: float | None = None

    def forward(self) -> GaussianPrior:
        """Return the current Gaussians, with their gradient."""
        config = self.config
        if not config.fit_variance:
            return GaussianPrior(self.mean, self.spread)
        share = torch.sigmoid(config.variance_slope * self.spread)
        return GaussianPrior(self.mean, config.variance_range * share + config.smallest_variance)

    @property
    def prior(self) -> GaussianPrior:
        """Copy of the current Gaussians."""
        prior = self()
        return GaussianPrior(prior.mean.detach().clone(), prior.variance.detach().clone())

    def repulsion(self, prior: GaussianPrior) -> Tensor:
        """Compute λ L_KLD of these Gaussians, ()."""
        if self.config.weight == 0:
            return prior.mean.new_zeros(())
        return repulsion(prior, self.config.weight, self.config.alpha, self.config.scale)

    def objective(self, statistics: ClassStatistics, nll_range: ValueRange | None = None) -> Tensor:
        """Compute Σ_i (1/N_i) Σ_n −log N(z_n; μ_i, v_i) + λ L_KLD (Eq. 4), or :func:`released_objective`; ().

        Args:
            statistics: of all training latents.
            nll_range: of −log p(x | y) of their images; required by the released objective.
        """
        prior = self()
        if self.config.objective == "equation_4":
            return mean_class_nll(prior, statistics).sum() + self.repulsion(prior)
        if nll_range is None:
            raise ValueError("released objective: expected the range of the likelihoods, received none")
        done = min(1.0, self.steps / (_KLD_WEIGHT_EPOCHS - 1))
        kld_weight = _FIRST_KLD_WEIGHT + (_LAST_KLD_WEIGHT - _FIRST_KLD_WEIGHT) * done
        return released_objective(prior, statistics, nll_range, kld_weight)

    def descend(self, statistics: ClassStatistics, progress: float, nll_range: ValueRange | None = None) -> None:
        """Make one step on the objective over all training latents; `progress` is u of the step size."""
        objective = self.objective(statistics, nll_range)
        objective.backward()
        self.loss = objective.item()
        self.step(progress)

    def step(self, progress: float) -> None:
        """Make one step of Adam along the accumulated gradient, and reset it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.step_size(progress)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
