"""A short run's numbers, up to the rounding of processors: no change of the program may move them unintended."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import SmallRun, read_json

FLOW = {
    "nf_acc": 92.33333333333333,
    "nf_top5": 99.0,
    "bits_per_dim": 6.827753240022042,
    "validation_nf_acc": 98.61111111111111,
    "validation_bits_per_dim": 6.771554057533419,
}
CLASSIFIER = {"cnn_acc": 23.333333333333332, "validation_cnn_acc": 29.166666666666668}
TOLERANCE = {
    "nf_acc": 100 / 300,
    "nf_top5": 100 / 300,
    "bits_per_dim": 1e-6,
    "validation_nf_acc": 100 / 72,
    "validation_bits_per_dim": 1e-6,
    "cnn_acc": 3.0,
    "validation_cnn_acc": 6.0,
}
"""The last bits of float32 sums depend on the processor. Instruction sets from SSE4.1 to AVX-512 moved bits/dim by up
to 1.3e-7, no image's class by the flow, and CNN-Acc, whose network sees such differences grow, by up to 1 percentage
point (4.2 on the 72 images of the validation split). Accuracies of the flow may move by one image."""


def assert_recorded(received: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert received[name] == pytest.approx(value, rel=0, abs=TOLERANCE[name]), name


def test_a_short_run_keeps_its_numbers(tmp_path: Path) -> None:
    run = SmallRun(
        tmp_path,
        weight=1000,
        images={"train_per_class": 100, "test_per_class": 30, "flip": False},
        flow={"num_flows": [2, 1], "num_blocks": [1, 1], "hidden_channels": [16, 16]},
        training={
            **{"epochs": 2, "batch_size": 64, "warmup_steps": 5, "initialization_images": 200},
            **{"augmentation": "none"},
        },
        classifier={
            **{"epochs": 2, "batch_size": 15, "optimizer": "adamw", "learning_rate": 1e-4, "max_learning_rate": 1e-3},
            **{"standard": {"crop_padding": 0}},
        },
        temperatures=(0.8,),
        generation={"per_class": 15, "batch_size": 200},
    )
    run.begin()
    run.train()
    assert_recorded(read_json(run.folder / "metrics.json")["metrics"], FLOW)
    run.classify()
    assert_recorded(read_json(run.root / run.tested.folder / "metrics.json")["metrics"], CLASSIFIER)
