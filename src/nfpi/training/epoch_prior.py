"""What an epoch of training is under: Gaussians that are given, learned every epoch, or learned every step."""

from __future__ import annotations

import torch
from torch import Tensor

from nfpi.runtime.signals import Interruption
from nfpi.priors.gradient_descent import GaussianLearner, ValueRange
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.processes import ALONE, Processes
from nfpi.training.batches import TrainingData, latent_statistics
from nfpi.training.state import TrainingState, diverged, require_finite


class FixedGaussians:
    """Gaussians that an epoch leaves as they are; `objective` is what they were learned by, if they were."""

    def __init__(self, prior: GaussianPrior, device: torch.device, objective: float | None = None) -> None:
        self._prior = _as_flow_has_it(prior, device)
        self._objective = objective

    def of_batch(self) -> GaussianPrior:
        """In the flow's precision and on its device."""
        return self._prior

    def loss(self, nll: Tensor) -> Tensor:
        """What a batch with these likelihoods, (B,), is trained on; ()."""
        return nll.mean()

    def step(self, progress: float) -> None:
        """There is none to make."""

    def in_the_end(self, mean_nll: float) -> tuple[GaussianPrior, float | None]:
        """The Gaussians after an epoch with this mean of the likelihoods, and the value of their objective."""
        return self._prior, self._objective


class LearnedGaussians:
    """Gaussians that learn from every batch, and from the shares of all processes."""

    def __init__(self, learner: GaussianLearner, device: torch.device, processes: Processes = ALONE) -> None:
        self._learner = learner
        self._device = device
        self._processes = processes
        self._current = learner.prior

    def of_batch(self) -> GaussianPrior:
        """In the flow's precision and on its device; with their gradient."""
        self._current = self._learner()
        return _as_flow_has_it(self._current, self._device)

    def loss(self, nll: Tensor) -> Tensor:
        """What a batch with these likelihoods, (B,), under the last :meth:`of_batch` is trained on; ()."""
        return nll.mean() + self._learner.repulsion(self._current).to(nll) / self._current.num_classes

    def step(self, progress: float) -> None:
        """Along the gradient that the batch left; u is the share of the learning that is done."""
        for parameter in self._learner.optimizer.param_groups[0]["params"]:
            parameter.grad = self._processes.total(parameter.grad) / self._processes.count
        self._learner.step(progress)

    def in_the_end(self, mean_nll: float) -> tuple[GaussianPrior, float | None]:
        """The Gaussians after an epoch with this mean of the likelihoods, and the value of their objective."""
        prior = self._learner.prior
        repulsion = self._learner.repulsion(prior).item() / prior.num_classes
        return _as_flow_has_it(prior, self._device), mean_nll + repulsion


def _as_flow_has_it(prior: GaussianPrior, device: torch.device) -> GaussianPrior:
    return prior.to(dtype=torch.get_default_dtype()).to(device)  # in this order: MPS has no float64


def gaussians_of_epoch(
    state: TrainingState, given: GaussianPrior, data: TrainingData, interruption: Interruption
) -> FixedGaussians | LearnedGaussians:
    """What the epoch after those of the log is trained under; makes the step that is due before it, if one is.

    It may be stopped at once while it passes over the training images, which changes nothing.
    """
    config, learner = data.config, state.learner
    epoch = len(state.log)
    learned_epochs = epoch - config.fit_after_epochs
    if learner is None or learned_epochs < 0:
        return FixedGaussians(given, data.device)
    if learner.config.every == "step":
        return LearnedGaussians(learner, data.device, data.processes)
    if learner.steps <= learned_epochs:  # it may have been made before the run was cut
        nll_range = ValueRange() if learner.config.objective == "released" else None
        prior = _as_flow_has_it(learner.prior, data.device)
        try:
            with interruption.at_once():
                statistics = latent_statistics(state.flow, data, state.seed, prior, nll_range)
        except ArithmeticError:
            raise diverged(state.step, state.seed, config) from None
        learner.descend(statistics, learning_progress(state, data), nll_range)
        require_finite(state, config, epoch + 1)
    return FixedGaussians(learner.prior, data.device, learner.loss)


def learning_progress(state: TrainingState, data: TrainingData) -> float:
    """The share of the steps after `fit_after_epochs` that are made."""
    before = data.config.fit_after_epochs * data.steps_per_epoch
    return (state.step - before) / (data.config.epochs * data.steps_per_epoch - before)
