"""The state of a flow's training: everything that its next step depends on, its file, and when it has diverged."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nfpi.config.base import ConfigError, NonNegativeInt, Seed, explain
from nfpi.config.flows import TrainingConfig
from nfpi.config.priors import LearnedMethod
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.check import FlowError
from nfpi.flows.registry import build_flow
from nfpi.linalg import precise_device
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.learner import PriorLearner
from nfpi.priors.registry import make_learner
from nfpi.runtime.divergence import TrainingDiverged
from nfpi.runtime.faults import format_error
from nfpi.runtime.formats import FormatError, Record, check_record
from nfpi.runtime.tensors import load_state, load_tensors, save_tensors, select_prefix
from nfpi.training.loop import LogRow, State, make_loss_error
from nfpi.training.optimizers import collect_moments, load_moments, make_optimizer

Module = TypeVar("Module", bound=nn.Module)


class _Learner(Record):
    method: str
    config: dict[str, Any]
    steps: NonNegativeInt
    loss: float | None


class _Header(Record):
    """Header entries that are needed to read a state."""

    flow: dict[str, Any]
    optimizer: str
    seed: Seed
    step: NonNegativeInt
    log: list[LogRow]
    learner: _Learner | None = None
    series_bounds: list[float] | None = None


class WeightAverage(Generic[Module]):
    """Exponential moving average θ̄ ← d θ̄ + (1 − d) θ of a module's parameters and buffers.

    The decay grows with the steps, d = min(decay, 1 − (1 + n)^−power) with n = step − update_after_step − 1; for n ≤ 0,
    θ̄ equals θ. Integer buffers are copied.

    Args:
        module: module whose weights are averaged.
        decay: largest decay.
        power: exponent of the growth of the decay.
        update_after_step: step after which averaging begins.

    Attributes:
        module: a copy of the module with averaged weights, in evaluation mode.
    """

    def __init__(self, module: Module, decay: float, power: float, update_after_step: int) -> None:
        self.module = copy.deepcopy(module).eval()
        self._decay, self._power, self._update_after_step = decay, power, update_after_step
        self._source = module
        # optimizers and load_state_dict change parameters in place; buffers may be replaced
        self._averaged: list[Tensor] = list(self.module.parameters())
        self._current: list[Tensor] = list(module.parameters())

    def compute_decay(self, step: int) -> float:
        """Compute the decay of a step, counted from 1."""
        averaged_steps = step - self._update_after_step - 1
        return min(self._decay, 1 - (1 + averaged_steps) ** -self._power) if averaged_steps > 0 else 0.0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after a step, counted from 1."""
        weight = 1 - self.compute_decay(step)
        torch._foreach_lerp_(self._averaged, self._current, weight=weight)
        for averaged, current in zip(self.module.buffers(), self._source.buffers(), strict=True):
            if averaged.is_floating_point():
                averaged.lerp_(current, weight)
            else:
                averaged.copy_(current)


@dataclass(kw_only=True)
class TrainingState(State):
    """Everything that the next step of a flow depends on; `epoch_loss` is the sum of −log p(x | y), in nats.

    Attributes:
        module: the flow that is trained.
        average: exponential moving average of its weights, used for evaluation and sampling; equal to the weights
            during the first epoch.
        learner: Gaussians that are learned along with the flow, and their optimizer if they have one; None: no
            Gaussians are learned.
        series_bounds: bound of |S_ij| that each coupling holds (:class:`nfpi.flows.series.SeriesBounds`); None: no
            bounds are held.
        series_largest: largest bound of |S_ij| that each coupling's weights gave in the steps since `series_bounds`
            were chosen, (number of couplings,); None: no bounds are held.
    """

    name: ClassVar[str] = "flow"
    module: ImageFlow
    average: WeightAverage[ImageFlow]
    learner: PriorLearner | None = None
    series_bounds: list[float] | None = None
    series_largest: Tensor | None = None

    @classmethod
    def new(cls, flow: ImageFlow, config: TrainingConfig, seed: int, steps_per_epoch: int) -> TrainingState:
        """Make the state before the first step.

        Raises:
            ValueError: the flow has no parameters.
        """
        optimizer = make_optimizer(flow, config)
        average = WeightAverage(flow, config.ema_decay, config.ema_power, update_after_step=steps_per_epoch)
        zero = torch.zeros((), device=next(flow.parameters()).device)
        return cls(module=flow, average=average, optimizer=optimizer, seed=seed, epoch_loss=zero)

    @property
    def flow(self) -> ImageFlow:
        """The flow that is trained."""
        return self.module

    @property
    def averaged_flow(self) -> ImageFlow:
        """The flow with averaged weights."""
        return self.average.module

    def serialize(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors and a JSON header."""
        tensors, header = super().serialize()
        tensors |= {f"average.{name}": value for name, value in self.averaged_flow.state_dict().items()}
        header |= {"flow": self.flow.description, "optimizer": type(self.optimizer).__name__}
        if self.series_bounds is not None:
            header["series_bounds"] = self.series_bounds
        if self.series_largest is not None:
            tensors["series_largest"] = self.series_largest
        if self.learner is not None:
            learner = self.learner
            # copies, as the file format refuses tensors that share memory
            tensors |= {f"gaussians.{name}": value.clone() for name, value in learner.state_dict().items()}
            if learner.optimizer is not None:
                moments = collect_moments(learner.optimizer, learner)
                tensors |= {f"adam.{name}": value for name, value in moments.items()}  # of any optimizer
            if learner.method is None:
                raise ValueError(f"{type(learner).__name__}: expected a learner made by make_learner")
            header["learner"] = {
                "method": learner.method.name,
                "config": learner.method.to_json(),
                "steps": learner.steps,
                "loss": learner.loss,
            }
        return tensors, header

    @classmethod
    def deserialize(
        cls,
        path: Path,
        tensors: Mapping[str, Tensor],
        header: Mapping[str, Any],
        config: TrainingConfig,
        steps_per_epoch: int,
        device: torch.device,
        initial: GaussianPrior | None = None,
    ) -> TrainingState:
        """Make a state from the result of :meth:`serialize`.

        Args:
            path: path of the file that the state was read from, for error messages.
            tensors, header: result of :meth:`serialize`, possibly with further entries.
            config: settings of the training.
            steps_per_epoch: number of steps per epoch.
            device: device of the state.
            initial: initial Gaussians of the run, required if Gaussians are learned.

        Raises:
            FormatError: tensors and header are not a training state.
            ConfigError: the kind of the flow, or the method that learns the Gaussians, is not registered.
            FlowError: the builder of the flow does not return a valid :class:`ImageFlow`.
        """

        found = check_record(_Header, header, path, "a training state")
        try:
            flow = build_flow(found.flow, select_prefix(tensors, "flow."), path).to(device)
            state = cls.new(flow, config, found.seed, steps_per_epoch)
            if found.optimizer != type(state.optimizer).__name__:
                raise ValueError(f"trained by {found.optimizer}, not by {type(state.optimizer).__name__}")
            state.restore(tensors, header)
            load_state(state.averaged_flow, select_prefix(tensors, "average."))
            state.series_bounds = found.series_bounds
            if "series_largest" in tensors:
                state.series_largest = tensors["series_largest"].to(device)
                if state.series_largest.shape != (len(found.series_bounds or ()),):
                    raise ValueError("series_largest: expected one number for each of series_bounds")
            if found.learner is not None:
                if initial is None:
                    raise ValueError("its Gaussians are learned: expected the initial ones, received none")
                method = LearnedMethod.from_json(found.learner.method, found.learner.config)
                learner = make_learner(method, initial.to(precise_device(device)))
                load_state(learner, select_prefix(tensors, "gaussians."))
                if learner.optimizer is not None:
                    load_moments(learner.optimizer, learner, select_prefix(tensors, "adam."))
                learner.steps, learner.loss = found.learner.steps, found.learner.loss
                state.learner = learner
        except (ConfigError, FlowError, FormatError):
            raise
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else format_error(error, 300)
            raise FormatError(f"{path}: expected a training state, received something else ({reason})") from None
        return state

    def save(self, path: Path, header: Mapping[str, Any]) -> None:
        """Write the state, with further settings in the header.

        The seconds of the log are left out, so that equal states give equal files.
        """
        tensors, own = self.serialize()
        own["log"] = [{**row, "seconds": None} for row in self.log]
        save_tensors(path, tensors, {**header, **own})

    @classmethod
    def load(
        cls,
        path: Path,
        config: TrainingConfig,
        steps_per_epoch: int,
        device: torch.device,
        initial: GaussianPrior | None = None,
    ) -> tuple[TrainingState, dict[str, Any]]:
        """Read a state that :meth:`save` wrote, and its header; see :meth:`deserialize`.

        Raises:
            FormatError: the file is missing, damaged, or holds something else.
            Diverged: the file records a fit that diverged.
            ConfigError, FlowError: see :meth:`deserialize`.
        """
        tensors, header = load_tensors(path)
        return cls.deserialize(path, tensors, header, config, steps_per_epoch, device, initial), header


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
            raise TrainingDiverged(
                f"training: epoch {epoch}, step {state.step}: learned {fault} (seed {state.seed}): try a smaller "
                f"learning_rate of the flow (now {config.learning_rate:g}) or of the Gaussians, or a smaller weight",
                state.step,
                "learned Gaussians",
            ) from None
    if not torch.isfinite(state.epoch_loss):
        raise make_loss_error(state, config)
