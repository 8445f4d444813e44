"""The prior of an epoch of training: given, updated between epochs, or learned at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from nfpi.priors.fixed_point import FixedPointDiverged
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.learner import PriorLearner, ValueRange
from nfpi.runtime.divergence import NOT_FINITE, TrainingDiverged
from nfpi.runtime.processes import ALONE, Processes
from nfpi.runtime.signals import Interruption
from nfpi.training.batches import TrainingData, latent_statistics
from nfpi.training.loop import make_loss_error
from nfpi.training.state import TrainingState, require_finite


class FixedPrior:
    """Gaussians that stay the same during an epoch.

    Args:
        prior: the Gaussians.
        device: device of the flow.
        objective: `loss` of the learner if it was fitted right before the epoch; None: unknown, or there was no fit.
    """

    def __init__(self, prior: GaussianPrior, device: torch.device, objective: float | None = None) -> None:
        self._prior = _cast_for_flow(prior, device)
        self._objective = objective

    def get_gaussians(self) -> GaussianPrior:
        """Return the Gaussians of the next batch, in the flow's precision and on its device."""
        return self._prior

    def compute_loss(self, nll: Tensor) -> Tensor:
        """Compute the loss, (), of a batch from its −log p(x | y), (B,)."""
        return nll.mean()

    def step(self, progress: float) -> None:
        """Do nothing: the Gaussians are fixed."""

    def summarize_epoch(self, mean_nll: float) -> tuple[GaussianPrior, float | None]:
        """Return the Gaussians of the epoch and the objective for the log; `mean_nll`: mean of −log p(x | y)."""
        return self._prior, self._objective


class LearnedPrior:
    """Gaussians that are learned at every step, from the batches of all processes.

    Args:
        learner: the Gaussians.
        device: device of the flow.
        processes: group of processes that share every batch.
    """

    def __init__(self, learner: PriorLearner, device: torch.device, processes: Processes = ALONE) -> None:
        self._learner = learner
        self._device = device
        self._processes = processes
        self._current = learner.prior

    def get_gaussians(self) -> GaussianPrior:
        """Return the Gaussians of the next batch, with their gradient, in the flow's precision and on its device."""
        self._current = self._learner()
        return _cast_for_flow(self._current, self._device)

    def compute_loss(self, nll: Tensor) -> Tensor:
        """Compute the loss, (), of a batch from its −log p(x | y), (B,), under the last result of `get_gaussians`."""
        return nll.mean() + self._learner.repulsion(self._current).to(nll) / self._current.num_classes

    def step(self, progress: float) -> None:
        """Make a step by the gradient of the batch; `progress`: see :func:`compute_learning_progress`."""
        for parameter in self._learner.parameters():
            if parameter.grad is not None:
                parameter.grad = self._processes.sum(parameter.grad) / self._processes.count
        self._learner.step(progress)

    def summarize_epoch(self, mean_nll: float) -> tuple[GaussianPrior, float | None]:
        """Return the Gaussians and the value of their objective after an epoch; `mean_nll`: mean of −log p(x | y)."""
        prior = self._learner.prior
        repulsion = self._learner.repulsion(prior).item() / prior.num_classes
        return _cast_for_flow(prior, self._device), mean_nll + repulsion


def _cast_for_flow(prior: GaussianPrior, device: torch.device) -> GaussianPrior:
    return prior.to(dtype=torch.float32).to(device)  # in this order: MPS has no float64


def prepare_epoch_prior(
    state: TrainingState, given: GaussianPrior, data: TrainingData, interruption: Interruption
) -> FixedPrior | LearnedPrior:
    """Make any fit or step of the Gaussians that is due before the next epoch, and return the prior of that epoch.

    The next epoch is the first one that is not in the log. A signal may interrupt the pass over the training images,
    as the pass changes no state.
    """
    learner, learned_epochs = state.learner, len(state.log) - data.config.fit_after_epochs
    if learner is None or learned_epochs < 0:
        return FixedPrior(given, data.device)
    if learner.every_epochs is None:
        return LearnedPrior(learner, data.device, data.processes)
    fits_before_due, epochs_since_fit = divmod(learned_epochs, learner.every_epochs)
    # otherwise the fit due has been made, before an earlier epoch or before the training was interrupted
    if learner.steps <= fits_before_due:
        nll_range, epoch = ValueRange() if learner.uses_nll_range else None, len(state.log) + 1
        try:
            with interruption.at_once():
                prior = _cast_for_flow(learner.prior, data.device)
                statistics = latent_statistics(state.flow, data, state.seed, prior, nll_range)
        except NOT_FINITE:
            raise make_loss_error(state, data.config) from None
        try:
            learner.update(statistics, compute_learning_progress(state, data), nll_range)
        except FixedPointDiverged as fault:
            message = f"training: epoch {epoch}, step {state.step}: {fault} (seed {state.seed})"
            diverged = TrainingDiverged(message, state.step, fault.quantity)
            diverged.class_index = fault.class_index
            raise diverged from None
        require_finite(state, data.config, epoch)
    return FixedPrior(learner.prior, data.device, learner.loss if epochs_since_fit == 0 else None)


def compute_learning_progress(state: TrainingState, data: TrainingData) -> float:
    """Compute the share of the steps after `fit_after_epochs` that have been made."""
    before = data.config.fit_after_epochs * data.steps_per_epoch
    return (state.step - before) / (data.config.epochs * data.steps_per_epoch - before)
