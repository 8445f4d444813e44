"""Compare the start-up time of stages with the import of torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import torch

from nfpi.benchmark.measurement import Measurement, compare_times, measure_medians

_STAGE_START = """
from nfpi.cli import create_commands_model
from nfpi.stages.options import COMMANDS
import pkgutil
create_commands_model()
pkgutil.resolve_name(next(command.work for command in COMMANDS if command.command == {command!r}))
"""
"""Code that does what a stage does at its start: build the parser of all commands, and import the stage's modules."""


def measure_start_up(device: torch.device, repeats: int) -> Iterator[Measurement]:
    """Time the start-up of train-flow and evaluate, and a process that only imports torch."""
    stages = ("train-flow", "evaluate")
    sides = [*(_STAGE_START.format(command=command) for command in stages), "import torch"]
    *times, import_torch = measure_medians(
        torch.device("cpu"), min(repeats, 3), *(lambda code=code: _run(code) for code in sides)
    )
    for stage, seconds in zip(stages, times, strict=True):
        yield compare_times(f"start-up of {stage}", 'python -c "import torch"', seconds, import_torch, "at most 1.60×")


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
