"""Class Gaussians learned by gradient descent along with the flow (the paper's second baseline, Section 5.2).

Variances are v = a·sigmoid(b·s) + c with learned s, so they stay in (c, a + c). With `every: epoch`, a pass over the
training images before each step computes the statistics of each class, on which alone the likelihood depends.
Notation: K classes, D dimensions, N_i latents of class i.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nfpi.config.priors import GradientDescentConfig, GradientDescentSettings
from nfpi.priors.divergence import Scale, pairwise_kld, separation_loss
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.learner import PriorLearner, ValueRange
from nfpi.priors.statistics import ClassStatistics

__all__ = ["GaussianLearner", "GradientDescentConfig"]

# initial variances keep this distance, as a share of a, from the ends of (c, a + c), where the sigmoid is flat
_MARGIN = 0.01
# in the released code: weight w of the divergences at the first epoch and from the hundredth on
_FIRST_KLD_WEIGHT, _LAST_KLD_WEIGHT, _KLD_WEIGHT_EPOCHS = 50.0, 25.0, 100


def mean_class_nll(prior: GaussianPrior, statistics: ClassStatistics) -> Tensor:
    """Compute (1/N_i) Σ_n −log N(z_n; μ_i, v_i) = ½ Σ_d [log 2πv_i + (σ²_i + (m_i − μ_i)²) / v_i].

    m_i and σ²_i are mean and variance of class i's latents; σ²_i has the divisor N_i.

    Args:
        prior: K diagonal Gaussians.
        statistics: statistics of the latents, at least two per class.

    Returns:
        (K,), nats.

    Raises:
        ValueError: shapes are inconsistent, covariances are full, or a class has fewer than two latents.
    """
    if prior.is_full:
        raise ValueError("likelihood of class statistics: expected diagonal covariances, received full ones")
    if statistics.mean.shape != prior.mean.shape:
        expected, received = tuple(prior.mean.shape), tuple(statistics.mean.shape)
        raise ValueError(f"statistics: expected (K, D) = {expected}, received {received}")
    statistics.check_counts()
    biased = statistics.variance * ((statistics.count - 1) / statistics.count)[:, None]
    distance = (biased + (statistics.mean - prior.mean).square()) / prior.variance
    return 0.5 * ((2 * torch.pi * prior.variance).log() + distance).sum(1)


def repulsion(prior: GaussianPrior, weight: float, alpha: float = 10.0, scale: Scale = "pairwise") -> Tensor:
    """Compute λ/(K(K−1)) L_KLD, L_KLD = Σ_{i≠j} exp(−KLD_ij / (π_ij α)), Eqs. 3 and 4, without gradients through π.

    Raises:
        ValueError: there is only one class, α is not a finite positive number, or unknown scale.
    """
    _require_pairs(prior)
    classes = prior.num_classes
    return weight / (classes * (classes - 1)) * separation_loss(prior, alpha, scale)


def released_objective(
    prior: GaussianPrior, statistics: ClassStatistics, nll_range: ValueRange, kld_weight: float
) -> Tensor:
    """Compute NLL / R − w Σ_{i,j} KLD_ij / (K D R′), the objective of the released code.

    NLL is the mean over all latents. R and R′ are widths (`ValueRange.width`, which adds a margin): R of the range of
    −log p(x | y), R′ of that of Σ_j (KLD_ij + KLD_ji) / (K − 1) over the classes i. No gradients flow through them.

    Args:
        prior: K Gaussians in D dimensions.
        statistics: statistics of the latents.
        nll_range: range of −log p(x | y) of all images, including the log-determinant, in nats.
        kld_weight: w.

    Returns:
        ().

    Raises:
        ValueError: there is only one class, shapes are inconsistent, or a class has fewer than two latents.
    """
    _require_pairs(prior)
    kld = pairwise_kld(prior)
    each_class = (kld.sum(0) + kld.sum(1)) / (prior.num_classes - 1)
    nll = (mean_class_nll(prior, statistics) * statistics.count).sum() / statistics.count.sum()
    separation = kld.sum() / (prior.mean.numel() * ValueRange().update(each_class).width)
    return nll / nll_range.width - kld_weight * separation


def _require_pairs(prior: GaussianPrior) -> None:
    if prior.num_classes < 2:
        raise ValueError(f"the repulsion needs at least 2 classes, received {prior.num_classes}")


def make_learner(initial: GaussianPrior, weight: float, settings: GradientDescentSettings) -> GaussianLearner:
    """Make the learner of the method `gradient_descent`."""
    return GaussianLearner(initial, GradientDescentConfig(weight=weight, **settings.model_dump()))


class GaussianLearner(PriorLearner):
    """Learnable Gaussians and their Adam optimizer; float64.

    Args:
        initial: initial values, with diagonal covariances. Initial values of learned variances are clamped to
            [c + a/100, c + 99a/100].
        config: settings, including λ.

    Attributes:
        mean: (K, D).
        spread: (K, D), s, or the variances if they are not learned.
        optimizer: Adam on the learned parameters.
        every_epochs: None with `every: step`, else 1.
        steps: number of steps made.
        loss: value of the objective before the last step of :meth:`fit`; None before the first.

    Raises:
        ValueError: the covariances are full.
    """

    def __init__(self, initial: GaussianPrior, config: GradientDescentConfig) -> None:
        super().__init__()
        if initial.is_full:
            raise ValueError("gradient descent: expected diagonal covariances, received full ones")
        mean, variance = (tensor.detach().to(torch.float64, copy=True) for tensor in (initial.mean, initial.variance))
        if config.fit_variance:
            share = (variance - config.smallest_variance) / config.variance_range
            variance = torch.logit(share, eps=_MARGIN) / config.variance_slope
        self.config = config
        self.mean = nn.Parameter(mean, requires_grad=config.fit_mean)
        self.spread = nn.Parameter(variance, requires_grad=config.fit_variance)
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(learned, lr=config.learning_rate)
        self.every_epochs = None if config.every == "step" else 1
        self.uses_nll_range = config.objective == "released"

    def forward(self) -> GaussianPrior:
        """Return the current Gaussians as a differentiable function of the parameters."""
        config = self.config
        if not config.fit_variance:
            return GaussianPrior(self.mean, self.spread)
        share = torch.sigmoid(config.variance_slope * self.spread)
        return GaussianPrior(self.mean, config.variance_range * share + config.smallest_variance)

    def repulsion(self, prior: GaussianPrior) -> Tensor:
        """Compute λ/(K(K−1)) L_KLD of these Gaussians, ()."""
        if self.config.weight == 0:
            return prior.mean.new_zeros(())
        return repulsion(prior, self.config.weight, self.config.alpha, self.config.scale)

    def objective(self, statistics: ClassStatistics, nll_range: ValueRange | None = None) -> Tensor:
        """Compute Σ_i (1/N_i) Σ_n −log N(z_n; μ_i, v_i) + λ/(K(K−1)) L_KLD (Eq. 4), or :func:`released_objective`; ().

        Args:
            statistics: statistics of all training latents.
            nll_range: range of −log p(x | y) of their images; required by the released objective.

        Raises:
            ValueError: the statistics are those of other classes or dimensions, a class has fewer than two latents, or
                the range is missing.
        """
        prior = self()
        if self.config.objective == "equation_4":
            return mean_class_nll(prior, statistics).sum() + self.repulsion(prior)
        if nll_range is None:
            raise ValueError("released objective: expected the range of the likelihoods, received none")
        done = min(1.0, self.steps / (_KLD_WEIGHT_EPOCHS - 1))
        kld_weight = _FIRST_KLD_WEIGHT + (_LAST_KLD_WEIGHT - _FIRST_KLD_WEIGHT) * done
        return released_objective(prior, statistics, nll_range, kld_weight)

    def fit(self, statistics: ClassStatistics, progress: float, nll_range: ValueRange | None = None) -> None:
        """Make one step on the objective over all training latents; for `progress` see :meth:`step`."""
        objective = self.objective(statistics, nll_range)
        objective.backward()
        self.loss = objective.item()
        self.step(progress)

    def step(self, progress: float) -> None:
        """Make one step of Adam along the accumulated gradient, and reset the gradient.

        Args:
            progress: u ∈ [0, 1], the completed share of the training after `fit_after_epochs`, which determines the
                step size.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.step_size(progress)
        super().step(progress)
