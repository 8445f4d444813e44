"""Classifiers in 16 bits: the scale of 16-mixed overflows and is found; the order of an image's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from nfpi.runtime.device import Device, make_device
from nfpi.runtime.divergence import TrainingDiverged

from .test_training import Small, assert_same, note_steps, train


@pytest.fixture
def half() -> Callable[[float], tuple[Device, torch.amp.GradScaler]]:
    """A CPU that trains as a GPU does in 16-mixed, with a scale to begin with: torch can, trainings may not."""

    def make(scale: float) -> tuple[Device, torch.amp.GradScaler]:
        device = Device(torch.device("cpu"), "16-mixed")
        device._scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return device, device._scaler

    return make


@pytest.mark.filterwarnings("error")
def test_a_scale_that_overflows_costs_steps_and_no_error(make_images, half, monkeypatch):
    images = make_images(noise=60)
    made = note_steps(monkeypatch, torch.optim.SGD)
    device, scaler = half(2.0**24)
    trained = train(device, images, images, gradient_clip=0.5)
    left_out = 12 - len(made)
    assert 0 < left_out < 12
    assert scaler.get_scale() == 2.0 ** (24 - left_out)
    assert all(math.isfinite(row["train_loss"]) for row in trained.state.log)
    # the schedule ends with the epochs, whatever was left out
    float32 = train(make_device(), images, images, gradient_clip=0.5)
    rates = [[row["learning_rate"] for row in one.state.log] for one in (trained, float32)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("gradient_clip", [0.0, 0.5])
def test_a_divergence_in_16_bits_is_one(make_images, half, gradient_clip):
    images = make_images(noise=60)
    device, _ = half(2.0**10)
    with pytest.raises(TrainingDiverged, match=r"step \d+"):
        train(device, images, images, gradient_clip=gradient_clip, max_learning_rate=1e30)


@pytest.mark.parametrize("saves", [1, 5])  # before the first step that is not left out, and after it
def test_the_scale_is_resumed_too(make_images, half, tmp_path, monkeypatch, cut_after, saves):
    images = make_images(noise=60)
    settings = {"checkpoint_minutes": 1e-9, "gradient_clip": 0.5}
    device, expected = half(2.0**24)
    whole = train(device, images, images, **settings)
    with monkeypatch.context() as patch:
        cut_after(patch, saves)
        with pytest.raises(KeyboardInterrupt):
            train(half(2.0**24)[0], images, images, folder=tmp_path, **settings)
    device, scaler = half(2.0**24)
    resumed = train(device, images, images, model=Small(), folder=tmp_path, **settings)
    assert_same(whole, resumed)
    assert scaler.get_scale() == expected.get_scale()
