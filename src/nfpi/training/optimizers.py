"""Optimizers of flows and classifiers, schedules of their learning rates, and moments by names of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.flows import TrainingConfig

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamax": torch.optim.Adamax,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def make_optimizer(module: nn.Module, config: TrainingConfig | ClassifierConfig) -> torch.optim.Optimizer:
    """Make the optimizer of a module's parameters."""
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if isinstance(config, ClassifierConfig) and config.optimizer == "sgd":
        settings["momentum"] = config.momentum
    return _OPTIMIZERS[config.optimizer](module.parameters(), **settings)


def compute_learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Compute the learning rate of a flow's step: linear warm-up, then constant or half a cosine wave down to 0.

    Args:
        config: training settings.
        step: counted from 1.
        steps: number of steps of the whole training.
    """
    warmup = config.warmup_steps
    rate = config.learning_rate * min(1.0, step / max(1, warmup))
    if config.schedule == "cosine" and step > warmup:
        rate *= (1 + math.cos(math.pi * (step - 1 - warmup) / (steps - warmup))) / 2
    return rate


def make_schedule(optimizer: torch.optim.Optimizer, config: ClassifierConfig, steps_per_epoch: int) -> LRScheduler:
    """Make the schedule of a classifier's learning rate.

    one_cycle (Smith & Topin, 2019): from `learning_rate` up to `max_learning_rate` in 30 % of the steps, then down to
    `learning_rate`/10⁴, at constant momentum or, with `cycle_momentum`, momentum from 0.95 down to 0.85 and back.
    cosine (Loshchilov & Hutter, 2017): linearly up to `learning_rate`, then half a cosine wave down to 0.
    The warm-up is shorter than the training, which `config` checks.
    """
    steps, warmup = (epochs * steps_per_epoch for epochs in (config.epochs, config.warmup_epochs))
    match config.schedule:
        case "one_cycle":
            return OneCycleLR(
                optimizer,
                max_lr=config.max_learning_rate,
                total_steps=max(2, steps),
                div_factor=config.max_learning_rate / config.learning_rate,
                cycle_momentum=config.cycle_momentum,
            )
        case "constant":
            return LambdaLR(optimizer, lambda _: 1.0)
        case "cosine":
            if not (warmup and steps):
                return CosineAnnealingLR(optimizer, max(1, steps))
            rise = LinearLR(optimizer, 1 / warmup, total_iters=warmup)
            return SequentialLR(optimizer, [rise, CosineAnnealingLR(optimizer, steps - warmup)], milestones=[warmup])


def collect_moments(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's moments of each parameter of a module, named `parameter.moment`."""
    names = _list_optimized_names(optimizer, module)
    return {
        f"{names[index]}.{key}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for key, value in moments.items()
        if value is not None  # SGD without momentum
    }


def load_moments(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore the moments of :func:`collect_moments`; `tensors` is empty before the first step.

    Raises:
        KeyError: a moment belongs to no parameter.
        ValueError: a moment has another shape, or parameters have different kinds of moments. A parameter that has
            never had a gradient has none.
    """
    names, parameters = _list_optimized_names(optimizer, module), dict(module.named_parameters())
    index_of = {name: index for index, name in enumerate(names)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, moment = key.rpartition(".")
        if value.dim() and value.shape != parameters[name].shape:
            raise ValueError(f"{key}: expected {tuple(parameters[name].shape)}, received {tuple(value.shape)}")
        state.setdefault(index_of[name], {})[moment] = value
    if len({frozenset(moments) for moments in state.values()}) > 1:
        raise ValueError("moments: expected the same kinds for every parameter, some are missing")
    if state:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _list_optimized_names(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[str]:
    """Return the names of the optimizer's parameters in a module, in the optimizer's order."""
    name_of = {parameter: name for name, parameter in module.named_parameters()}
    return [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
