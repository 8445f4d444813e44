"""Rows whose Gaussians are estimated again after the training share all before it with the rows without."""

from __future__ import annotations

from typing import Any

from nfpi.stages import jobs
from nfpi.stages.models import RefitPrior
from nfpi.stages.train_flow import TrainFlow

from .conftest import Job, Project, list_collection_jobs, list_jobs_of_run, make_planning

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


def test_a_refit_adds_no_training_and_needs_nothing_after_it(fresh_project: Project) -> None:
    again = set().union(*(list_jobs_of_refit(run.format("+moments")) for run in RUNS))
    beside = fresh_project.plan_jobs("mine", overlay=make_table(None, "moments"))
    assert beside == BEFORE | TRAINED | list_collection_jobs("mine") | again
    trained = {job for job in TRAINED if job[0] in ("fit-prior", "train-flow")}
    alone = fresh_project.plan_jobs("mine", overlay=make_table("moments"))
    assert alone == BEFORE | trained | again | list_collection_jobs("mine")


def test_a_refit_is_made_again_where_it_would_differ_and_the_training_is_not() -> None:
    changes: tuple[dict[str, Any], ...] = ({}, {"evaluation": {"batch_size": 7}})
    before, after = (make_planning(**make_table("moments"), **changed).keys for changed in changes)
    run = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "10000", "seed": "0"}
    trained, refitted = jobs.Job.of(TrainFlow, run), jobs.Job.of(RefitPrior, run | {"prior": "fpi+moments"})
    assert before.of(trained) == after.of(trained)
    assert before.of(refitted) != after.of(refitted)
