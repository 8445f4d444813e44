"""Trainings that take a second, and comparisons of their states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nfpi.config.flows import TrainingConfig
from nfpi.config.priors import GradientDescentSettings, LearnedMethod, RepeatedFixedPointSettings
from nfpi.data.store import ImageSet
from nfpi.priors import PriorLearner
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.device import Device, make_device
from nfpi.training.batches import TrainingData
from nfpi.training.flow import InitialState, continue_training, start_training
from nfpi.training.state import TrainingState


def repeat_fits(weight: float = 20.0, **settings: Any) -> LearnedMethod:
    return LearnedMethod("repeated_fixed_point", weight, RepeatedFixedPointSettings(**settings))


def descend(weight: float = 20.0, **settings: Any) -> LearnedMethod:
    return LearnedMethod("gradient_descent", weight, GradientDescentSettings(**settings))


LEARNED = {
    "epoch": descend(),
    "step": descend(every="step", learning_rate=0.01),
    "released": descend(objective="released", fit_variance=False),
    "fits": repeat_fits(),
}
SETTINGS = {"num_flows": [2, 1], "num_blocks": [1, 1], "hidden_channels": [8, 8]}
CPU = torch.device("cpu")
SEED = 3


@pytest.fixture(scope="module")
def device() -> Device:
    return make_device()


def describe_flow(data: TrainingData, **changes: object) -> dict[str, Any]:
    return {"kind": "matrix_exponential", "shape": list(data.train.shape), "settings": SETTINGS | changes}


@pytest.fixture(scope="module")
def make_data(make_images: Callable[..., ImageSet]) -> Callable[..., TrainingData]:
    """60 training images in 4 batches of 16, the last one smaller; 30 validation images."""

    def make(shape: tuple[int, int, int] = (1, 8, 8), **changes: object) -> TrainingData:
        settings = {
            "epochs": 3,
            "batch_size": 16,
            "warmup_steps": 6,
            "initialization_images": 40,
            "augmentation": "shift",
            "evaluate_every": 2,
            "checkpoint_minutes": 1e-9,
        }
        config = TrainingConfig(**(settings | changes))
        return TrainingData(make_images(shape), make_images(shape, per_class=10, seed=1), config, CPU)

    return make


def replace_config(data: TrainingData, **changes: object) -> TrainingData:
    return replace(data, config=TrainingConfig(**(data.config.model_dump() | changes)))


def start(data: TrainingData, device: Device, kind: str = "data") -> InitialState:
    return start_training(data, describe_flow(data), kind, SEED, device)


def train_in_one_go(data: TrainingData, device: Device, learned: LearnedMethod | None = None) -> TrainingState:
    """Train all epochs in one go, from the initial Gaussians, which may be learned from the epoch that `data` sets."""
    begun = start(replace_config(data, fit_after_epochs=0), device)
    return continue_training(begun.state, begun.prior, data, device, learned=learned)


_trained: dict[tuple[str, bytes, str], TrainingState] = {}


def train_once(data: TrainingData, device: Device, learned: LearnedMethod | None = None) -> TrainingState:
    """Return the state of :func:`train_in_one_go`, trained once for all tests that compare theirs with it."""
    key = (data.config.model_dump_json(), data.train.images.tobytes(), repr(learned))
    if key not in _trained:
        _trained[key] = train_in_one_go(data, device, learned)
    return _trained[key]


def assert_equal_states(one: TrainingState, other: TrainingState) -> None:
    """Assert that two states are equal bit for bit, including the logs except for seconds."""
    assert one.step == other.step
    for name in ("flow", "averaged_flow", "optimizer"):
        left, right = getattr(one, name).state_dict(), getattr(other, name).state_dict()
        if name == "optimizer":
            left, right = flatten_moments(left), flatten_moments(right)
        assert left.keys() == right.keys()
        assert len(left) > 0
        for key, value in left.items():
            assert torch.equal(value, right[key]), f"{name}: {key}"
    assert drop_seconds(one.log) == drop_seconds(other.log)
    assert torch.equal(one.epoch_loss, other.epoch_loss)
    assert_equal_learners(one.learner, other.learner)


def assert_equal_learners(one: PriorLearner | None, other: PriorLearner | None) -> None:
    """Assert that Gaussians, moments and counts are equal bit for bit, or both None."""
    if one is None or other is None:
        assert one is other
        return
    assert (one.method, one.steps, one.loss) == (other.method, other.steps, other.loss)
    assert type(one) is type(other)
    states_of = [lambda learner: learner.state_dict()]
    if one.optimizer is not None:
        states_of.append(lambda learner: flatten_moments(learner.optimizer.state_dict()))
    for state_of in states_of:
        left, right = state_of(one), state_of(other)
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]), f"learner: {key}"


def flatten_moments(state: dict) -> dict[str, torch.Tensor]:
    return {f"{index}.{key}": value for index, moments in state["state"].items() for key, value in moments.items()}


def drop_seconds(log: list) -> list:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log]


class Cut(Exception):
    """The training is cut off."""


def make_checkpoints(folder: Path, data: TrainingData) -> Checkpoints:
    return Checkpoints(folder, "f" * 64, data.config.checkpoint_minutes)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Cut a training off after the checkpoint of step `made`, when that step is saved for the `times`-th time."""

    def run(made: int, function: Callable[..., object], *arguments: object, times: int = 1, **options: object) -> None:
        save, left = Checkpoints.save, iter(range(times - 1))

        def save_and_cut(checkpoints: Checkpoints, step: int, *content: object) -> None:
            save(checkpoints, step, *content)
            if step == made and next(left, None) is None:
                raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", save_and_cut)
            with pytest.raises(Cut):
                function(*arguments, **options)
        torch.manual_seed(5)

    return run


@pytest.fixture
def cut_and_resume(cut: Callable[..., None], device: Device, tmp_path: Path) -> Callable[..., TrainingState]:
    """Cut a training off after the checkpoint of step `made`, and resume it."""

    def run(data: TrainingData, made: int, learned: LearnedMethod | None = None, times: int = 1) -> TrainingState:
        begun, again = start(data, device), start(data, device)
        checkpoints = make_checkpoints(tmp_path, data)
        arguments = (continue_training, begun.state, begun.prior, data, device, checkpoints)
        cut(made, *arguments, learned=learned, times=times)
        checkpoints = make_checkpoints(tmp_path, data)
        return continue_training(again.state, again.prior, data, device, checkpoints, learned=learned)

    return run
