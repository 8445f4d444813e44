"""Errors of trainings whose loss, learned Gaussians or fit diverged."""

from __future__ import annotations

import math

import torch

from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.training import TrainingConfig
from nfpi.priors.fixed_point import FixedPointDiverged
from nfpi.runtime.divergence import TrainingDiverged
from nfpi.training.loop import State
from nfpi.training.state import TrainingState

__all__ = ["TrainingDiverged", "make_fit_error", "make_loss_error", "require_finite"]


def require_finite(state: TrainingState, config: TrainingConfig, epoch: int) -> None:
    """Check that the learned Gaussians are valid and the loss is finite.

    Args:
        state: state of the training.
        config: settings of the training.
        epoch: current epoch, counted from 1, for the error message.

    Raises:
        TrainingDiverged: a value is not finite, or a covariance not positive definite. The Gaussians are checked first,
            because their message names a class.
    """
    learner = state.learner
    if learner is not None:
        try:
            learner.prior.check()
            if learner.loss is not None and not math.isfinite(learner.loss):
                raise ValueError("prior: objective is not finite")
        except ValueError as fault:
            method = learner.method
            rate = getattr(method.settings, "learning_rate", None) if method is not None else None
            of_gaussians = f" of the Gaussians (now {rate:g}) or" if isinstance(rate, int | float) else ""
            weight = f", or a smaller weight (now {method.weight:g})" if method is not None and method.weight else ""
            raise TrainingDiverged(
                f"training: epoch {epoch}, step {state.step}: learned {fault} (seed {state.seed}): try a smaller "
                f"learning_rate{of_gaussians} of the flow (now {config.learning_rate:g}){weight}",
                state.step,
                "learned Gaussians",
            ) from None
    if not torch.isfinite(state.epoch_loss):
        raise make_loss_error(state, config)


def make_fit_error(fault: FixedPointDiverged, state: TrainingState, epoch: int) -> TrainingDiverged:
    """Make the exception for a fit that diverged before `epoch` (counted from 1), with its class and quantity."""
    diverged = TrainingDiverged(
        f"training: epoch {epoch}, step {state.step}: {fault} (seed {state.seed})", state.step, fault.quantity
    )
    diverged.class_index = fault.class_index
    return diverged


def make_loss_error(
    state: State, config: TrainingConfig | ClassifierConfig, step: int | None = None
) -> TrainingDiverged:
    """Make the exception for a loss that became infinite or NaN at `step` (None: that of the state) or earlier."""
    step = state.step if step is None else step
    setting = "max_learning_rate" if config.schedule == "one_cycle" else "learning_rate"
    return TrainingDiverged(
        f"{'training' if state.name == 'flow' else state.name}: the loss is not finite by step {step} "
        f"(seed {state.seed}): try a smaller {setting} (now {getattr(config, setting):g}) or a gradient_clip "
        f"(now {config.gradient_clip:g}; 0: off)",
        step,
        f"loss of the {state.name}",
    )
