"""A preset whose flow and classifier are tiny."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nfpi.checks.batches import Subject
from nfpi.checks.questions import Line
from nfpi.config.resolution import Resolved, resolve
from nfpi.config.settings import merge

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "flows": {"mef": {"num_flows": [1, 1], "num_blocks": [1, 1], "hidden_channels": [8, 8]}},
    "training": {"batch_size": 8, "warmup_steps": 10},
    "classifiers": {"resnet18": {"batch_size": 8}},
    "evaluation": {"batch_size": 64},
    "generation": {"batch_size": 64},
}


@pytest.fixture
def resolve_demo(tmp_path: Path) -> Callable[..., Resolved]:
    """Resolve preset demo with a tiny flow, nothing prepared, and further settings."""

    def make(**overrides: Any) -> Resolved:
        settings = merge(TINY, {"results": str(tmp_path / "results")}, overrides)
        return resolve(ROOT / "config.yaml", ROOT / "presets", settings)

    return make


@pytest.fixture
def make_subject(resolve_demo: Callable[..., Resolved]) -> Callable[..., Subject]:
    """Make the subject of the checks: the tiny flow on digits, on the CPU."""

    def make(**overrides: Any) -> Subject:
        subject = Subject.find(resolve_demo(**overrides), torch.device("cpu"))
        subject.work = [work for work in subject.work if work.subject == "mef" or work.stage != "train_flow"]
        return subject

    return make


def only_table(metrics: list[str], *experiments: dict[str, Any]) -> dict[str, Any]:
    """Settings of a preset with one table, and no figure or claim."""
    tables = {"*": None, "t": {"metrics": metrics, "experiments": [*experiments]}}
    return {"tables": tables, "figures": {"*": None}, "claims": {"*": None}}


def only(lines) -> Line:
    """Return the only line."""
    (line,) = lines
    return line
