"""Seconds of jobs before any was measured."""

from __future__ import annotations

from pathlib import Path

from nfpi.config.resolution import resolve
from nfpi.projection.seconds import estimate_jobs

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
