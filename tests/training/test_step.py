"""The step of a training: what the loop and the checks of a device share."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from nfpi.flows.networks import ResidualNet
from nfpi.runtime.device import Device
from nfpi.training.flow import continue_training
from nfpi.training.flow_training import FlowTraining

from .conftest import CPU, SEED, assert_equal_states, start


class OnGpu(Device):
    """The CPU in the place of a GPU, where convolutions are chosen by trial in steps."""

    @contextmanager
    def fixed_shapes(self):
        own, self.device = self.device, SimpleNamespace(type="cuda")
        with super().fixed_shapes():
            self.device = own
            yield


def test_the_steps_of_a_training_are_these(make_data, device):
    """An epoch by hand is one of the loop."""
    data = make_data(epochs=2, evaluate_every=2)
    begun, by_hand = start(data, device), start(data, device).state
    state = continue_training(begun.state, begun.prior, data, device)
    training = FlowTraining(by_hand, begun.prior, data, device, 2)
    for x, labels in data.stream(SEED, 1):
        training.step(x, labels)
    bits = data.domain.bits_per_dim(by_hand.epoch_loss / 60, 64)
    assert state.log[-1]["train_bits_per_dim"] == pytest.approx(float(bits), rel=1e-6)
    by_hand.log.append(state.log[-1])
    by_hand.epoch_loss = state.epoch_loss
    assert_equal_states(by_hand, state)


def test_only_steps_choose_convolutions_by_trial(make_data, device, monkeypatch):
    data, seen, forward = make_data(evaluate_every=1), set(), ResidualNet.forward

    def noted(self, x):
        seen.add((torch.is_grad_enabled(), torch.backends.cudnn.benchmark))
        return forward(self, x)

    monkeypatch.setattr(ResidualNet, "forward", noted)
    begun = start(data, OnGpu(CPU))
    continue_training(begun.state, begun.prior, data, OnGpu(CPU))
    assert seen == {(True, True), (False, False)}  # steps; initialisation, statistics and evaluations
