"""A second Snakemake on the same results is refused, wherever it is called; a dry run is not."""

from __future__ import annotations

import re

import pytest

from nfpi.runtime.locks import locked


def test_a_second_snakemake_is_refused_in_one_line(fresh_project):
    root = fresh_project.folder / "results/demo"
    root.mkdir(parents=True)
    with locked(root / ".snakemake.lock", "make these results"):
        assert fresh_project.run_snakemake("table2", "--dry-run").returncode == 0
        process = fresh_project.run_snakemake("table2", check=False)
    assert process.returncode == 1
    lines = [line for line in process.stdout.splitlines() if "expected no other process to make these results" in line]
    assert len(lines) == 1
    assert "at the same time, received process " in lines[0]
    assert "Traceback" not in process.stdout
    fresh_project.run_snakemake("table2")
    assert not (root / ".snakemake.lock").exists()


@pytest.mark.parametrize("results", ["file", "file/below"])
def test_a_file_in_the_place_of_the_results_is_refused_in_the_dry_run(fresh_project, results):
    fresh_project.write("file", "mine")
    line = fresh_project.read_refusal("table2", "--config", f"results={results}")
    assert line == "config: results: expected a folder, received file, which is none"


def test_results_that_cannot_be_written_are_refused_in_one_line(fresh_project):
    """Below a folder that even root cannot write."""
    process = fresh_project.run_snakemake("table2", "--config", "results=/sys/nfpi", check=False)
    assert process.returncode == 1
    assert len(re.findall("^.*/sys/nfpi.*$", process.stdout, re.MULTILINE)) == 1, process.stdout
    assert "Traceback" not in process.stdout
