"""Class Gaussians learned by gradient descent along with the flow (the paper's second baseline, Section 5.2).

Variances are v = a·sigmoid(b·s) + c, which keeps them in (c, a + c) whatever a step does to s. A step of all training
latents needs the statistics of each class only, because the likelihood of a class under its Gaussian does.
Letters: K classes, D dimensions, N_i latents of class i, N of all, `[i, j]` a pair of classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nfpi.priors.divergence import Scale, pairwise_kld, separation_loss
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics

# nearer to the ends of (c, a + c) than this share of a no variance starts: the sigmoid is flat there
_MARGIN = 0.01
# of the released code: weight of the divergences at the first epoch and from the hundredth on, widening of the ranges
_FIRST_KLD_WEIGHT, _LAST_KLD_WEIGHT, _KLD_WEIGHT_EPOCHS = 50.0, 25.0, 100
_WIDENING = 0.2


@dataclass(frozen=True)
class GradientDescentConfig:
    """What is descended, when, and with which steps.

    Attributes:
        weight: λ of Eq. 4; the released objective has its own weights.
        every: a step an `epoch`, on all training latents; or at every `step` of the flow, on its batch.
        objective: `equation_4`, or `released` (every epoch only).
        alpha: α of Eq. 3.
        scale: π of Eq. 3: `pairwise` (Eq. 9) or `average` (Eq. 10).
        fit_mean, fit_variance: what is not fitted keeps its initial value.
        learning_rate, final_learning_rate, power: η₀, η₁ and p of Adam's step size η(u) = η₀ + (η₁ − η₀) uᵖ at the
            share u of the training that is done: 0 at the first step, below 1 at the last. (The released sizes are
            0.1 → 0.1 → 0.01 → 0.001 at epochs 0, 10, 11 and 100, linearly or geometrically between them.)
        variance_range, variance_slope, smallest_variance: a, b and c.
    """

    weight: float
    every: Literal["epoch", "step"] = "epoch"
    objective: Literal["equation_4", "released"] = "equation_4"
    alpha: float = 10.0
    scale: Scale = "pairwise"
    fit_mean: bool = True
    fit_variance: bool = True
    learning_rate: float = 0.1
    final_learning_rate: float = 0.001
    power: float = 1.0
    variance_range: float = 1.0
    variance_slope: float = 1.0
    smallest_variance: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight: expected a finite number ≥ 0, received {self.weight}")
        for name in (
            *("alpha", "learning_rate", "final_learning_rate", "power"),
            *("variance_range", "variance_slope", "smallest_variance"),
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a finite number > 0, received {getattr(self, name)}")
        for name, known in (
            ("every", ("epoch", "step")),
            ("objective", ("equation_4", "released")),
            ("scale", ("pairwise", "average")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected {' or '.join(known)}, received {getattr(self, name)!r}")
        if self.objective == "released" and self.every != "epoch":
            raise ValueError("objective: released is of all training latents, expected every = epoch, received step")
        if not (self.fit_mean or self.fit_variance):
            raise ValueError("fit_mean, fit_variance: expected at least one to be learned, received neither")

    def step_size(self, progress: float) -> float:
        """η(u) at the share u of the training that is done."""
        return self.learning_rate + (self.final_learning_rate - self.learning_rate) * progress**self.power


class ValueRange:
    """Smallest and largest of the values seen so far, batch by batch.

    Attributes:
        ends: these two, (2,); none before the first values.
    """

    def __init__(self) -> None:
        self.ends: Tensor | None = None

    def update(self, values: Tensor) -> ValueRange:
        """Take in values of any shape, at least one.

        Returns:
            itself.
        """
        ends = torch.stack(values.detach().aminmax())
        if self.ends is not None:
            ends = torch.stack([torch.minimum(self.ends[0], ends[0]), torch.maximum(self.ends[1], ends[1])])
        self.ends = ends
        return self

    @property
    def width(self) -> float:
        """(max + 0.2 |max|) − (min − 0.2 |min|), as the released code widens a range.

        Where all values are 0 it is 1: the divergences of Gaussians that coincide are, and so is their gradient, which
        has no scale to be freed of.
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
    """NLL / R − w Σ_{i,j} KLD_ij / (K D R′), what the released code descends; no gradient through the ranges.

    NLL is the mean over all latents; that the sum of the divergences is divided by K·D besides is as it is there.

    Args:
        prior: K Gaussians in D dimensions.
        statistics: of the latents.
        nll_range: of −log p(x | y) of each image, log-determinant included, in nats; R is its width.
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
    """Gaussians and the Adam that learns them, float64.

    Args:
        initial: where they start, with diagonal covariances. Learned variances start at least a hundredth of a inside
            (c, a + c): those outside, or nearer to its ends, are clamped.
        config: what is learned, and how.

    Attributes:
        mean: (K, D).
        spread: (K, D), s; where variances are not learned, the variances themselves.
        optimizer: Adam, on what is learned.
        steps: made.
        loss: value of the objective at the last step of :meth:`descend`, before it.

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
        """The Gaussians now, with their gradient."""
        config = self.config
        if not config.fit_variance:
            return GaussianPrior(self.mean, self.spread)
        share = torch.sigmoid(config.variance_slope * self.spread)
        return GaussianPrior(self.mean, config.variance_range * share + config.smallest_variance)

    @property
    def prior(self) -> GaussianPrior:
        """A copy of the Gaussians as they are now."""
        prior = self()
        return GaussianPrior(prior.mean.detach().clone(), prior.variance.detach().clone())

    def repulsion(self, prior: GaussianPrior) -> Tensor:
        """λ L_KLD of these Gaussians, ()."""
        if self.config.weight == 0:
            return prior.mean.new_zeros(())
        return repulsion(prior, self.config.weight, self.config.alpha, self.config.scale)

    def objective(self, statistics: ClassStatistics, nll_range: ValueRange | None = None) -> Tensor:
        """Σ_i (1/N_i) Σ_n −log N(z_n; μ_i, v_i) + λ L_KLD (Eq. 4), or :func:`released_objective`; ().

        Args:
            statistics: of all training latents.
            nll_range: of their likelihoods; the released objective needs it.
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
        """One step down the objective of all training latents; `progress` is the u of the step size."""
        objective = self.objective(statistics, nll_range)
        objective.backward()
        self.loss = objective.item()
        self.step(progress)

    def step(self, progress: float) -> None:
        """One step of Adam along the gradient that has gathered, which is then forgotten."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.step_size(progress)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
