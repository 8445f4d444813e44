"""Rows whose Gaussians are estimated again after the training share all before it with the rows without."""

from __future__ import annotations

from typing import Any

from .conftest import Job, Project, list_collection_jobs, list_jobs_of_run

BEFORE: set[Job] = {("prepare-data", "digits/splits"), ("start-flow", "digits/mef/initial/data/seed=0")}
RUNS = ("digits/mef/baseline{}/lambda=0/seed=0", "digits/mef/fpi{}/lambda=10000/seed=0")
TRAINED: set[Job] = set().union(*(list_jobs_of_run(run.format("")) for run in RUNS))


def make_table(*refits: str | None) -> dict[str, Any]:
    row = {"dataset": "digits", "lambdas": [0, 1e4]}
    return {"tables": {"mine": {"experiments": [{**row, "refit": refit} for refit in refits]}}}


def list_jobs_of_refit(run: str) -> set[Job]:
    """List the jobs of a run after its training."""
    usual = {job for job in list_jobs_of_run(run) if job[0] not in ("fit-prior", "train-flow")}
    return usual | {("refit-prior", run)}


def test_a_refit_adds_no_training(fresh_project: Project) -> None:
    collection = list_collection_jobs("mine")
    assert fresh_project.plan_jobs("mine", overlay=make_table(None)) == BEFORE | TRAINED | collection
    for refit in ("moments", "prior"):
        again = set().union(*(list_jobs_of_refit(run.format(f"+{refit}")) for run in RUNS))
        planned = fresh_project.plan_jobs("mine", overlay=make_table(None, refit))
        assert planned == BEFORE | TRAINED | collection | again


def test_a_refit_alone_needs_the_training_and_nothing_after_it(fresh_project: Project) -> None:
    trained = {job for job in TRAINED if job[0] in ("fit-prior", "train-flow")}
    again = set().union(*(list_jobs_of_refit(run.format("+moments")) for run in RUNS))
    planned = fresh_project.plan_jobs("mine", overlay=make_table("moments"))
    assert planned == BEFORE | trained | again | list_collection_jobs("mine")


def test_a_refit_is_made_once_and_follows_what_it_depends_on(fresh_project: Project) -> None:
    table = make_table(None, "moments")
    fresh_project.run_snakemake("mine", "--cores", "2", overlay=table)
    assert fresh_project.plan_jobs("mine", overlay=table) == set()
    added = fresh_project.plan_jobs("mine", overlay=make_table(None, "moments", "prior"))
    assert {stage for stage, _ in added} == {
        *("refit-prior", "evaluate", "generate", "train-classifier", "test-classifier", "collect", "table"),
    }
    changed = fresh_project.plan_jobs("mine", overlay=table | {"evaluation": {"batch_size": 7}})
    assert {run for stage, run in changed if stage == "refit-prior"} == {run.format("+moments") for run in RUNS}
    assert not {"fit-prior", "train-flow"} & {stage for stage, _ in changed}


def test_a_flow_augments_images_by_refitted_gaussians(fresh_project: Project) -> None:
    row = {"dataset": "digits", "lambdas": [1e4], "classifier": "swin", "augmentation": "nfa"}
    plain, again = (
        fresh_project.plan_jobs(
            "mine", overlay={"tables": {"mine": {"metrics": ["top1"], "experiments": [experiment]}}}
        )
        for experiment in (row, {**row, "refit": "moments"})
    )
    renamed = {(stage, run.replace("/fpi/", "/fpi+moments/")) for stage, run in plain}
    assert again - renamed == {job for job in plain if job[0] in ("fit-prior", "train-flow")} | {
        ("refit-prior", "digits/mef/fpi+moments/lambda=10000/seed=0")
    }
