"""Optimizer and learning rate as the settings say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nfpi.config.flows import TrainingConfig
from nfpi.training.optimizers import compute_learning_rate, make_optimizer


@pytest.mark.parametrize(
    ("name", "kind"), [("adamax", torch.optim.Adamax), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_the_optimizer_is_the_one_of_the_settings(name, kind):
    config = TrainingConfig(optimizer=name, learning_rate=0.02, weight_decay=0.3)
    optimizer = make_optimizer(nn.Linear(3, 2), config)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.3)
    assert [tuple(parameter.shape) for parameter in group["params"]] == [(2, 3), (2,)]


def rates(steps: int, **settings: object) -> list[float]:
    config = TrainingConfig(learning_rate=0.1, **settings)
    return [compute_learning_rate(config, step, steps) for step in range(1, steps + 1)]


@pytest.mark.parametrize("warmup", [0, 4])
def test_the_cosine_falls_to_zero_at_the_end_of_training(warmup):
    found = rates(12, warmup_steps=warmup, schedule="cosine")[warmup:]
    steps = 12 - warmup
    assert found == pytest.approx([0.05 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)])
    assert found[0] == 0.1
    assert found == sorted(found, reverse=True)


def test_a_warm_up_longer_than_the_training_never_falls():
    assert rates(3, warmup_steps=5, schedule="cosine") == pytest.approx([0.02, 0.04, 0.06])
