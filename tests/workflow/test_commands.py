"""What the rules hand to the stages."""

from __future__ import annotations

import json
import subprocess
import sys

from .conftest import Project


def test_the_first_lines_of_a_dry_run_can_be_read_alone(fresh_project: Project) -> None:
    """`head` closes the pipe while Snakemake still prints."""
    shell = ["bash", "-c", f"{sys.executable} -m snakemake all --dry-run | head -n 1"]
    process = subprocess.run(shell, cwd=fresh_project.folder, capture_output=True, text=True, timeout=120)
    assert process.stdout.count("\n") == 1
    assert "Error" not in process.stderr


def test_check_device_gets_the_settings_of_the_call(fresh_project: Project) -> None:
    settings = ("preset=paper", "training={batch_size: 64}")
    call = ("check_device", "--dry-run", "--printshellcmds", "--config", *settings)
    printed = fresh_project.run_snakemake(*call).stdout
    (line,) = (line for line in printed.splitlines() if "check-device --config-file" in line)
    passed = json.loads(line[line.index("{") : line.rindex("}") + 1])
    assert passed["preset"] == "paper"
    assert int(passed["training"]["batch_size"]) == 64


def test_planning_imports_nothing_heavy_and_no_snakemake() -> None:
    code = "import sys; from nfpi.workflow import internals, records; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "pandas", "scipy", "sklearn", "timm", "matplotlib", "lightning_fabric", "snakemake"}
    assert not heavy & set(answer.stdout.split())
