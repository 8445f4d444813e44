"""The benchmark as the rule runs it, with the smallest sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

RUN = Path(__file__).parents[2] / "benchmarks/run.py"


@pytest.mark.long
def test_everything_that_is_measured_is_written(tmp_path):
    command = [sys.executable, str(RUN), "--smallest", "--repeats", "1", "--output", str(tmp_path / "new")]
    without_compiler = {**os.environ, "CXX": "missing"}  # compilation takes long
    done = subprocess.run(command, capture_output=True, text=True, env=without_compiler)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "new/benchmark.csv")
    assert (table["ours"] >= 0).all()
    text = (tmp_path / "new/benchmark.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text and f"| {name} |" in done.stdout for name in table["name"])
    assert (pd.read_csv(tmp_path / "new/scaling.csv")["seconds"] > 0).all()
    assert all((tmp_path / f"new/scaling.{suffix}").stat().st_size > 5000 for suffix in ("png", "pdf"))
