"""Compare the start-up time of stages with the import of torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import torch

from nfpi.benchmark.measurement import Measurement, compare_times, measure_medians

_STAGE_START = """
from nfpi.cli import create_commands_model
create_commands_model()
import {modules}
"""
"""Code that does what a stage does at its start: build the parser of all commands, and import what it needs."""
_STAGES = {
    "train-flow": "nfpi.model.trained, nfpi.training.loop",
    "evaluate": "nfpi.model.trained, nfpi.evaluation, nfpi.results.metrics.measures, nfpi.sampling",
}
"""stages → modules that they import when they run"""


def measure_start_up(device: torch.device, repeats: int) -> Iterator[Measurement]:
    """Time the start-up of train-flow and evaluate, and a process that only imports torch."""
    sides = [*(_STAGE_START.format(modules=modules) for modules in _STAGES.values()), "import torch"]
    *times, import_torch = measure_medians(
        torch.device("cpu"), min(repeats, 3), *(lambda code=code: _run(code) for code in sides)
    )
    for stage, seconds in zip(_STAGES, times, strict=True):
        yield compare_times(f"start-up of {stage}", 'python -c "import torch"', seconds, import_torch, "at most 1.60×")


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
