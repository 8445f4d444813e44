"""All that the next step of a training depends on, its file, and when it is beyond use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from nfpi.config.settings import TrainingConfig
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.linalg import precise_device
from nfpi.priors.gradient_descent import GaussianLearner, GradientDescentConfig
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.tensors import FormatError, build_flow, load_tensors, save_tensors

LogRow = dict[str, float | int | None]


class TrainingDiverged(ArithmeticError):
    """The loss or a learned Gaussian is no longer finite; the message is one line."""


@dataclass
class TrainingState:
    """All that the next step depends on.

    Attributes:
        flow: the weights that are trained.
        average: their exponential moving average, decay min(ema_decay, 1 − (1 + n)^−ema_power) at its n-th step; it
            follows the weights during the first epoch and is what is evaluated and sampled from.
        optimizer: Adamax, with its moments.
        seed: of the run.
        step: steps made.
        epoch_nll: sum of the losses of the current epoch's images so far, in nats; ().
        log: a row for each epoch.
        learner: the Gaussians that are learned along with the flow, with their Adam; none: they are fixed.
    """

    flow: MatrixExponentialFlow
    average: ModelEmaV3
    optimizer: torch.optim.Adamax
    seed: int
    step: int
    epoch_nll: Tensor
    log: list[LogRow] = field(default_factory=list)
    learner: GaussianLearner | None = None

    @classmethod
    def new(cls, flow: MatrixExponentialFlow, config: TrainingConfig, seed: int, steps_per_epoch: int) -> TrainingState:
        """The state before the first step."""
        average = ModelEmaV3(
            flow,
            decay=config.ema_decay,
            use_warmup=True,
            warmup_gamma=1.0,
            warmup_power=config.ema_power,
            update_after_step=steps_per_epoch,
        )
        optimizer = torch.optim.Adamax(flow.parameters(), lr=config.learning_rate)
        device = next(flow.parameters()).device
        return cls(flow, average, optimizer, seed, 0, torch.zeros((), device=device))

    @property
    def averaged_flow(self) -> MatrixExponentialFlow:
        """The flow with averaged weights."""
        return self.average.module

    def content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state as tensors and what JSON knows."""
        tensors = {f"flow.{name}": value for name, value in self.flow.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.averaged_flow.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in _moments(self.optimizer, self.flow).items()}
        tensors["epoch_nll"] = self.epoch_nll
        own = {"flow": self.flow.settings, "seed": self.seed, "step": self.step, "log": self.log}
        if self.learner is not None:
            learner = self.learner
            tensors |= {f"gaussians.{name}": value for name, value in learner.state_dict().items()}
            tensors |= {f"adam.{name}": value for name, value in _moments(learner.optimizer, learner).items()}
            own["learner"] = {"config": asdict(learner.config), "steps": learner.steps, "loss": learner.loss}
        return tensors, own

    def save(self, path: Path, header: dict[str, Any]) -> None:
        """Write the state, with more settings in its header."""
        tensors, own = self.content()
        save_tensors(path, tensors, {**header, **own})

    @classmethod
    def load(
        cls, path: Path, config: TrainingConfig, steps_per_epoch: int, device: torch.device
    ) -> tuple[TrainingState, dict[str, Any]]:
        """Read a state that :meth:`save` wrote, and its header.

        Raises:
            FormatError: the file is missing, damaged, or holds something else.
        """
        tensors, header = load_tensors(path)
        return cls.of_content(path, tensors, header, config, steps_per_epoch, device), header

    @classmethod
    def of_content(
        cls,
        path: Path,
        tensors: Mapping[str, Tensor],
        header: Mapping[str, Any],
        config: TrainingConfig,
        steps_per_epoch: int,
        device: torch.device,
    ) -> TrainingState:
        """The state with this :meth:`content`, which may stand among other tensors; `path` is named in errors.

        Raises:
            FormatError: it is none.
        """

        def under(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        try:
            flow = build_flow(path, under("flow."), header).to(device)
            state = cls.new(flow, config, int(header["seed"]), steps_per_epoch)
            state.averaged_flow.load_state_dict(under("average."))
            _load_moments(state.optimizer, flow, under("optimizer."))
            state.step, state.log = int(header["step"]), list(header["log"])
            state.epoch_nll.copy_(tensors["epoch_nll"])
            if "learner" in header:
                record, gaussians = header["learner"], under("gaussians.")
                prior = GaussianPrior(gaussians["mean"], torch.ones_like(gaussians["mean"]))
                learner = new_learner(prior, GradientDescentConfig(**record["config"]), device)
                learner.load_state_dict(gaussians)
                _load_moments(learner.optimizer, learner, under("adam."))
                learner.steps, learner.loss = record["steps"], record["loss"]
                state.learner = learner
        except (KeyError, RuntimeError, TypeError) as error:
            first_line = str(error).splitlines()[0]
            raise FormatError(f"{path}: expected a training state, received something else ({first_line})") from None
        return state


def new_learner(initial: GaussianPrior, config: GradientDescentConfig, device: torch.device) -> GaussianLearner:
    """A learner beside a flow on `device`."""
    return GaussianLearner(initial.to(precise_device(device)), config)


def require_finite(state: TrainingState, config: TrainingConfig, epoch: int) -> None:
    """Make sure that the learned Gaussians and the loss are finite, in an epoch counted from 1.

    Raises:
        TrainingDiverged: they are not; the Gaussians come first, since a class says more than a loss.
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
                f"learning_rate of the Gaussians (now {learner.config.learning_rate:g}) or of the flow "
                f"(now {config.learning_rate:g}), or a smaller weight (now {learner.config.weight:g})"
            ) from None
    if not torch.isfinite(state.epoch_nll):
        raise diverged(state.step, state.seed, config)


def diverged(step: int, seed: int, config: TrainingConfig) -> TrainingDiverged:
    """The loss is not finite by a step."""
    return TrainingDiverged(
        f"training: the loss is not finite by step {step} (seed {seed}): "
        f"try a smaller learning_rate (now {config.learning_rate:g}) or a gradient_clip "
        f"(now {config.gradient_clip:g}; 0 is none)"
    )


def _moments(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """What the optimizer of a module's parameters keeps for each, as `parameter.moment`."""
    names = _optimized(module)
    return {
        f"{names[index]}.{key}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for key, value in moments.items()
    }


def _load_moments(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give back what :func:`_moments` took; nothing where no step was made yet."""
    index_of = {name: index for index, name in enumerate(_optimized(module))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, moment = key.rpartition(".")
        state.setdefault(index_of[name], {})[moment] = value
    if state:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _optimized(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]
