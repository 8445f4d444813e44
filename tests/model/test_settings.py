"""Settings that a fit chooses by the size of the images, and those that a user passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from nfpi.config.flows import FLOWS
from nfpi.flows import build_flow
from nfpi.model.fitting import choose_default_settings, choose_flow, choose_num_levels, choose_prior, choose_training

PRESETS = Path(__file__).parents[2] / "presets"


@pytest.mark.parametrize(("preset", "side"), [("digits", 8), ("cifar10_small", 32), ("fashion_mnist_small", 28)])
def test_the_flow_of_a_size_is_that_of_its_preset(preset, side):
    block = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"))["flows"]["mef"]
    found = choose_default_settings("matrix_exponential", side, side)
    assert {name: found[name] for name in block} == block


@pytest.mark.parametrize(
    ("num_images", "batch_size", "epochs"),
    [(2, 16, 800), (259, 16, 48), (1279, 16, 20), (1280, 32, 20), (50_000, 32, 20)],
)
def test_small_data_get_800_steps_and_large_data_20_epochs(num_images, batch_size, epochs):
    training = choose_training(None, None, "matrix_exponential", 8, num_images)
    assert (training.batch_size, training.epochs, training.precision) == (batch_size, epochs, "auto")
    steps = epochs * -(-num_images // batch_size)
    assert steps >= 800
    assert training.warmup_steps == min(100, steps // 10)


def test_a_given_batch_size_or_number_of_epochs_is_kept():
    assert choose_training({"batch_size": 128}, None, "glow", 8, 259).epochs == 267
    few = choose_training(None, 4, "glow", 8, 50_000)
    assert (few.epochs, few.batch_size) == (4, 32)


@pytest.mark.parametrize("epochs", [np.int64(24), 24.0])
def test_numbers_of_other_types_have_the_same_warm_up(epochs):
    assert choose_training(None, epochs, "glow", 8, 1000) == choose_training(None, 24, "glow", 8, 1000)


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((8, 8), 2),
        ((28, 28), 2),
        ((32, 32), 3),
        ((128, 96), 5),
        ((6, 6), 1),
        ((2, 50), 1),
    ],
)
def test_levels_are_as_many_as_the_size_can_be_halved(size, levels):
    assert choose_num_levels(*size) == levels


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (33, 33)])
def test_odd_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"{size[0]}×{size[1]}"):
        choose_num_levels(*size)


@pytest.mark.parametrize("kind", ["matrix_exponential", "glow", "transformer"])
@pytest.mark.parametrize("side", [8, 12, 28])
def test_every_kind_has_a_flow_for_every_size(kind, side):
    block = choose_flow(kind, side, side)
    settings = FLOWS.extract_settings(block).model_dump(mode="json")
    assert build_flow({"kind": kind, "shape": [1, side, side], "settings": settings}).shape == (1, side, side)


def test_what_is_unknown_is_refused_in_one_line():
    for call, message in (
        (lambda: choose_flow({"num_flow": [1]}, 8, 8), "num_flow"),
        (lambda: choose_prior("fixd_point"), "fixed_point"),
        (lambda: choose_training({"epoch": 3}, None, "glow", 8, 100), "epochs"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert len(str(error.value).splitlines()) == 1
