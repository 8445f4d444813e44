"""Class Gaussians that are learned along with the flow: the base class of such methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nfpi.config.priors import LearnedMethod
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics

# as in the released code, each end of a range is moved outwards by this share of the end's absolute value
_WIDENING = 0.2


class ValueRange:
    """Running minimum and maximum of values.

    Attributes:
        ends: minimum and maximum, (2,); None before the first update.
    """

    def __init__(self) -> None:
        self.ends: Tensor | None = None

    def update(self, values: Tensor) -> ValueRange:
        """Include values of any shape, at least one.

        Returns:
            self.

        Raises:
            ValueError: there are no values.
        """
        if not values.numel():
            raise ValueError("range: expected at least one value, received none")
        ends = torch.stack(values.detach().aminmax())
        if self.ends is not None:
            ends = torch.stack([torch.minimum(self.ends[0], ends[0]), torch.maximum(self.ends[1], ends[1])])
        self.ends = ends
        return self

    @property
    def width(self) -> float:
        """(max + 0.2 |max|) − (min − 0.2 |min|), as in the released code.

        It is 1 if all values are 0, as for the divergences of identical Gaussians, whose gradient is 0 too.
        """
        if self.ends is None:
            raise ValueError("range: expected at least one value, received none")
        smallest, largest = self.ends.tolist()
        return (largest - smallest + _WIDENING * (abs(smallest) + abs(largest))) or 1.0


class PriorLearner(nn.Module):
    """Base class of Gaussians that are learned along with the flow; K classes in D dimensions, diagonal covariances.

    A subclass is called with `(initial, weight, settings)`: the initial Gaussians, λ, and the settings of its method.
    It keeps everything that determines its Gaussians in parameters and buffers, which are saved with the training; they
    are float64 and on the device of `initial.mean`. It uses no random numbers, as each process makes its own learner,
    and a resumed training makes it again. It defines :meth:`forward`, and :meth:`fit` or `optimizer`:

    * with `every_epochs = n`, :meth:`fit` is called before every n-th epoch with the statistics of all training
      latents, and the epochs until the next call are trained under the result;
    * with `every_epochs = None`, `optimizer` makes one step with every step of the flow, by the gradient of
      mean(−log p(x | y)) + repulsion / K over the batch, where repulsion is the result of :meth:`repulsion`.

    Attributes:
        every_epochs: number of epochs between two fits to all training latents; None: a step on every batch.
        uses_nll_range: whether :meth:`fit` needs the range of −log p(x | y) over the training images.
        optimizer: optimizer of the parameters; None: no parameter is optimised. Its moments are saved with the
            training, and must be scalar tensors or have the shape of their parameter. Its learning rates are not saved:
            set them in :meth:`step`.
        method: method that the learner belongs to, set by :func:`nfpi.priors.registry.make_learner`.
        steps: number of fits or steps made.
        loss: value of the objective of the last :meth:`fit`, which the log shows; None: unknown.
    """

    every_epochs: int | None = 1
    uses_nll_range: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.optimizer: torch.optim.Optimizer | None = None
        self.method: LearnedMethod | None = None
        self.steps = 0
        self.loss: float | None = None

    def forward(self) -> GaussianPrior:
        """Return the current Gaussians as a differentiable function of the parameters."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method forward, which returns the Gaussians")

    @property
    def prior(self) -> GaussianPrior:
        """Copy of the current Gaussians, without gradients."""
        prior = self()
        return GaussianPrior(prior.mean.detach().clone(), prior.variance.detach().clone())

    def repulsion(self, prior: GaussianPrior) -> Tensor:
        """Compute the term of the objective that separates the classes, (), such as λ/(K(K−1)) L_KLD of Eq. 4; here 0.

        Args:
            prior: the last result of :meth:`forward`.
        """
        return prior.mean.new_zeros(())

    def fit(self, statistics: ClassStatistics, progress: float, nll_range: ValueRange | None = None) -> None:
        """Change the Gaussians, given all training latents, and set `loss` if there is an objective.

        Args:
            statistics: statistics of the latents under the current flow, without covariances.
            progress: u ∈ [0, 1], the completed share of the training after `fit_after_epochs`.
            nll_range: range of −log p(x | y) of the training images, in nats; None unless `uses_nll_range`.

        Raises:
            FixedPointDiverged: there is no result.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a method fit, as every_epochs is not None")

    def update(self, statistics: ClassStatistics, progress: float, nll_range: ValueRange | None = None) -> None:
        """Call :meth:`fit` and count it in `steps`; called by the training, not to be overridden."""
        before = self.steps
        self.fit(statistics, progress, nll_range)
        self.steps = before + 1
        self.loss = None if self.loss is None else float(self.loss)

    def step(self, progress: float) -> None:
        """Make one step of the optimizer along the accumulated gradient, and reset the gradient.

        A subclass may override it to set learning rates by `progress` before it calls this method.

        Args:
            progress: u ∈ [0, 1], the completed share of the training after `fit_after_epochs`.
        """
        if self.optimizer is None:
            raise ValueError(f"{type(self).__name__}: expected an optimizer, as every_epochs is None")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
