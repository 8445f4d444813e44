"""A user's flow whose formulas are right only while its scale is 0 is reported after the first epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from nfpi.config.flows import FLOWS
from nfpi.config.registry import registering_from
from nfpi.flows import FlowError, ImageFlow, check_flow, register_flow
from nfpi.runtime.divergence import TrainingDiverged
from nfpi.training.batches import TrainingData, draw_initialization_images
from nfpi.training.flow import InitialState, start_training

from .conftest import SEED, assert_equal_states, make_checkpoints

LEARNING = {"learning_rate": 0.1, "warmup_steps": 0}  # after four steps, the scale is far from 0


class Scaling(ImageFlow):
    """z = exp(s) x, with s = 0 before the training; its inverse draws random numbers, which change nothing."""

    def __init__(self, shape, settings):
        super().__init__(shape, settings)
        self.log_scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x * self.log_scale.exp(), (x[0].numel() * self.log_scale).expand(len(x))

    def inverse(self, z):
        torch.rand(1)
        return z * (-self.log_scale).exp(), (-z[0].numel() * self.log_scale).expand(len(z))


class WrongInverse(Scaling):
    def inverse(self, z):
        return z * self.log_scale.exp(), super().inverse(z)[1]


class WrongLogDeterminant(Scaling):
    def inverse(self, z):
        x, log_abs_det = super().inverse(z)
        return x, -log_abs_det


class Shifted(Scaling):
    """z = exp(s) x + 10⁸ s, which float32 rounds coarsely once s is not 0."""

    def forward(self, x):
        z, log_abs_det = super().forward(x)
        return z + 1e8 * self.log_scale, log_abs_det

    def inverse(self, z):
        return super().inverse(z - 1e8 * self.log_scale)


WRONG = {WrongInverse: "inverse", WrongLogDeterminant: "log-determinant"}


@pytest.fixture
def begin(device) -> Iterator[Callable[..., InitialState]]:
    """Register a flow, in a user's file or not, and train its first epochs."""

    def run(kind: type[ImageFlow], data: TrainingData, *, in_extension: bool = True, checkpoints=None) -> InitialState:
        if "scaling" in FLOWS:
            FLOWS.remove("scaling")
        with registering_from(Path("scaling.py")) if in_extension else nullcontext():
            register_flow("scaling")(kind)
        description = {"kind": "scaling", "shape": list(data.train.shape), "settings": {}}
        return start_training(data, description, "identity", SEED, device, checkpoints)

    yield run
    FLOWS.remove("scaling")


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("epochs", [1, 2])
def test_formulas_that_training_shows_to_be_wrong_are_reported(make_data, begin, wrong, epochs):
    with pytest.raises(FlowError, match=f"^training: after epoch {epochs}: flow 'scaling': .*{WRONG[wrong]}") as caught:
        begin(wrong, make_data(fit_after_epochs=epochs, **LEARNING))
    assert "\n" not in str(caught.value)


def test_rounding_in_float32_is_not_taken_for_wrong_formulas(make_data, begin):
    data = make_data(**LEARNING)
    flow = begin(Shifted, data).state.flow
    images = draw_initialization_images(data, SEED)[:4]
    with pytest.raises(FlowError):
        check_flow(flow, images, jacobian=False)
    check_flow(deepcopy(flow).double(), images.double(), jacobian=False)


def test_they_are_reported_by_a_training_that_resumes_at_its_end(make_data, begin, tmp_path, cut):
    data = make_data(**LEARNING)
    cut(4, begin, WrongInverse, data, checkpoints=make_checkpoints(tmp_path, data), times=2)
    with pytest.raises(FlowError, match="training: after epoch 1: flow 'scaling'"):
        begin(WrongInverse, data, checkpoints=make_checkpoints(tmp_path, data))


def test_the_check_after_the_first_epochs_changes_nothing(make_data, begin, monkeypatch):
    """Nor is it made for flows that no extension registered."""
    calls: list[int] = []
    inverse = Scaling.inverse
    monkeypatch.setattr(Scaling, "inverse", lambda flow, z: calls.append(len(z)) or inverse(flow, z))
    data = make_data(**LEARNING)
    found = []
    for in_extension, expected in ((True, [4, 4]), (False, [4])):
        begun = begin(Scaling, data, in_extension=in_extension)
        assert calls == expected
        calls.clear()
        found.append((begun, torch.random.get_rng_state(), [part.training for part in begun.state.flow.modules()]))
    (one, generator, modes), (other, other_generator, other_modes) = found
    assert_equal_states(one.state, other.state)
    assert torch.equal(one.statistics.mean, other.statistics.mean)
    assert torch.equal(generator, other_generator)
    assert modes == other_modes


def test_a_training_that_diverged_is_not_taken_for_wrong_formulas(make_data, begin):
    with pytest.raises(TrainingDiverged):
        begin(WrongInverse, make_data(batch_size=60, learning_rate=1e3, warmup_steps=0))  # a single step
