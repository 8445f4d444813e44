"""Presets of the user's own, and targets."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Project, list_collection_jobs, list_flow_jobs_of_run, list_jobs_of_run

ROW: dict[str, Any] = {"dataset": "digits", "lambdas": [1e4]}
TABLE7: dict[str, Any] = {"metrics": ["nf_acc"], "experiments": [ROW | {"classifier": None}]}
RUN = "digits/mef/fpi/lambda=10000/seed=0"
BEFORE = {("prepare-data", "digits/splits"), ("start-flow", "digits/mef/initial/data/seed=0")}


def test_a_table_of_ones_own_preset_is_a_target(fresh_project: Project) -> None:
    fresh_project.write("mine.yaml", {"extends": "demo", "tables": {"table7": TABLE7}})
    mine = ("table7", "--config", "preset=mine.yaml")
    fresh_project.run_snakemake(*mine)
    assert fresh_project.list_finished_jobs() == BEFORE | list_flow_jobs_of_run(RUN) | {
        ("fit-prior", f"{RUN}/fit")
    } | list_collection_jobs("table7")
    assert fresh_project.plan_jobs(*mine) == set()


def test_a_file_with_the_name_of_a_preset_of_the_project_is_refused(fresh_project: Project) -> None:
    fresh_project.write("mine/demo.yaml", {"extends": "paper"})
    message = fresh_project.read_refusal("table2", "--config", "preset=mine/demo.yaml")
    assert message.endswith("'demo' is the name of a preset of the project: rename the file")


@pytest.mark.parametrize("name", ["all", "samples"])
def test_a_table_is_not_called_like_another_target(fresh_project: Project, name: str) -> None:
    refused = fresh_project.run_snakemake("table2", "-n", overlay={"tables": {name: TABLE7}}, check=False)
    assert refused.returncode != 0
    assert f" {name} " in refused.stdout
    assert "Traceback" not in refused.stdout


def test_a_prior_may_become_one_that_is_learned_along_with_the_flow(fresh_project: Project) -> None:
    by_gradient = ("--config", "priors={fpi: {method: gradient_descent}}")
    weights = ("0", "1000", "10000", "30000", "100000")
    runs = [f"digits/mef/fpi/lambda={weight}/seed=0" for weight in weights]
    jobs = set().union(*map(list_jobs_of_run, runs))
    fits = {job for job in jobs if job[0] == "fit-prior"}
    assert fresh_project.plan_jobs("table2", *by_gradient) == BEFORE | (jobs - fits) | list_collection_jobs(
        "table2"
    ) | {("figure", "figures/accuracy_against_weight")}
    assert "figures.residuals: " in fresh_project.read_refusal("residuals", *by_gradient)
