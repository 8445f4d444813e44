"""Optimizer and learning rate of a flow."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from nfpi.config.training import TrainingConfig

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamax": torch.optim.Adamax,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def make_optimizer(flow: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Make the optimizer of a flow's parameters."""
    make = _OPTIMIZERS[config.optimizer]
    return make(flow.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def compute_learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Compute the learning rate of a step: linear warm-up, then constant or half a cosine wave down to 0.

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
