"""Exponential moving average of a flow's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


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
