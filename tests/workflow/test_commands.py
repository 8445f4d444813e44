"""What the rules hand to the stages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Project


def test_threads_are_handed_on(finished_project: Project) -> None:
    assert {call["threads"] for call in finished_project.read_calls()} == {"1"}


def test_overrides_of_a_data_set_reach_its_stages(fresh_project: Project) -> None:
    text = fresh_project.run_snakemake("table2", "--config", "preset=paper", "--dry-run", "--printshellcmds").stdout
    assert re.search(r"per.class\W+500\b", text)
    assert not re.search(r"per.class\W+5000\b", text)


@pytest.fixture
def latin_1(tmp_path: Path) -> dict[str, str]:
    """Variables of a locale whose letters are those of ISO 8859-1, which has no λ."""
    name = "de_DE.ISO-8859-1"
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / name)]
    if shutil.which("localedef") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine has no sources of locales")
    return {"LOCPATH": str(tmp_path), "LC_ALL": name}


def test_commands_work_in_locales_that_are_not_utf_8(fresh_project: Project, latin_1: dict[str, str]) -> None:
    experiment = {"dataset": "digits", "lambdas": [1e4], "classifier": None, "label": "Größe λ"}
    overlay = {"tables": {"table2": {"title": "λ ≥ 0", "experiments": [experiment]}}}
    fresh_project.run_snakemake("table2", overlay=overlay, **latin_1)
    assert all(argument.isascii() for call in fresh_project.read_calls() for argument in call["arguments"])


def test_logs_and_times_lie_beside_the_results(finished_project: Project) -> None:
    logs = finished_project.folder / "results/demo/logs"
    times = finished_project.folder / "results/demo/benchmarks"
    assert (logs / "digits/mef/fpi/lambda=1000/seed=0/train_flow.log").exists()
    assert (times / "digits/mef/fpi/lambda=1000/seed=0/train_flow.tsv").exists()
    assert len(list(logs.rglob("*.log"))) == len(list(times.rglob("*.tsv"))) == len(finished_project.read_calls())


def test_the_first_lines_of_a_dry_run_can_be_read_alone(fresh_project: Project) -> None:
    """`head` closes the pipe while Snakemake still prints."""
    shell = ["bash", "-c", f"{sys.executable} -m snakemake all --dry-run | head -n 1"]
    process = subprocess.run(shell, cwd=fresh_project.folder, capture_output=True, text=True, timeout=120)
    assert process.stdout.count("\n") == 1
    assert "Error" not in process.stderr


def test_check_device_is_a_target_of_its_own(fresh_project: Project) -> None:
    assert fresh_project.plan_jobs("check_device") == {("check-device", "demo.json")}


def test_benchmark_is_a_target_of_its_own(fresh_project: Project) -> None:
    text = fresh_project.run_snakemake("benchmark", "--dry-run", "--printshellcmds").stdout
    assert "/run.py --output results/benchmark" in text
    assert re.search(r"^total +1$", text, flags=re.MULTILINE)
