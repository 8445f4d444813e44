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


@pytest.mark.parametrize("results", ["mine", "mine/below", "/sys/nfpi"])
def test_results_that_cannot_be_written_are_refused_in_one_line(fresh_project, results):
    """At or below a file, and below a folder that even root cannot write."""
    fresh_project.write("mine", "a file")
    process = fresh_project.run_snakemake("table2", "--config", f"results={results}", check=False)
    assert process.returncode == 1
    assert len(re.findall(f"^.*{results}.*$", process.stdout, re.MULTILINE)) == 1, process.stdout
    assert "Traceback" not in process.stdout
