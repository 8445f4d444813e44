"""A second Snakemake on the same results is refused, wherever it is called; a dry run is not."""

from __future__ import annotations

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
