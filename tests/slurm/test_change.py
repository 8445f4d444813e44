"""After a change, only what depends on it is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .conftest import login_node


def with_lambdas(*lambdas: float) -> dict[str, Any]:
    experiment = {"dataset": "digits", "lambdas": list(lambdas), "classifier": None}
    return {"tables": {"table2": {"experiments": [experiment]}}}


def test_a_changed_weight_submits_only_its_own_jobs(tmp_path: Path) -> None:
    project = login_node(tmp_path / "clone", stub=True)
    project.snakemake("table2", overlay=with_lambdas(0, 1e3))
    assert project.jobs() == []
    project.submit("table2", "--profile", "slurm", "--config", "preset=demo", overlay=with_lambdas(0, 2e3))
    assert [job["Comment"] for job in project.jobs()] == [
        f"rule_{rule}_wildcards_digits_fpi_2000_0" for rule in ("fit_prior", "train_flow", "evaluate")
    ]
