"""Seconds of jobs before any was measured."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from nfpi.config.resolution import resolve
from nfpi.projection.seconds import count_images, estimate_jobs

ROOT = Path(__file__).parents[2]


def estimate(**changes) -> tuple[dict[str, tuple[int, float]], bool]:
    resolved = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo", **changes})
    tables = {"table2": resolved.config.tables["table2"]}
    return estimate_jobs(resolved.config.model_copy(update={"tables": tables}))


def test_jobs_of_the_demo_take_what_was_measured():
    jobs, is_complete = estimate()
    assert is_complete
    assert {stage: count for stage, (count, _) in jobs.items()} == {
        "start_flow": 1,
        "train_flow": 5,
        "evaluate": 5,
        "generate": 5,
        "train_classifier": 5,
    }
    measured = {"train_flow": 80, "train_classifier": 45}  # seconds, on one core of a server of 2020
    assert all(0.5 < jobs[stage][1] / seconds < 2 for stage, seconds in measured.items())


def test_other_backbones_and_images_that_are_not_there_are_left_out(tmp_path):
    experiment = {"dataset": "digits", "flow": "glow", "lambdas": [0]}
    jobs, is_complete = estimate(tables={"table2": {"experiments": [experiment]}})
    assert (set(jobs), is_complete) == ({"train_classifier"}, False)
    assert estimate(datasets={"digits": {"source": "imagefolder", "folder": str(tmp_path / "none")}}) == ({}, False)


def test_images_of_classes_that_are_left_out_take_no_time(tmp_path):
    for name in ("ape", "bee", "cow", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10 if name != "dog" else 1):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    pets = {
        "source": "imagefolder",
        "folder": str(tmp_path),
        "shape": [8, 8, 3],
        "validation_fraction": 0.2,
        "only_classes": ["cow", "ape"],
    }
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo", "datasets": {"pets": pets}}).config
    images = count_images(config, "pets")
    assert images is not None
    assert (images.train + images.validation + images.test, images.classes) == (20, 2)
