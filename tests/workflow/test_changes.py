"""Which jobs Snakemake plans, before and after a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .conftest import COLLECTION, DEMO, DEMO_RUNS, Project, list_jobs_of_run


def with_lambdas(*lambdas: float | str) -> dict[str, Any]:
    """The demo's table with other λ."""
    experiment = {"dataset": "digits", "prior": "fpi", "lambdas": list(lambdas)}
    return {"tables": {"table2": {"experiments": [experiment]}}}


def run(weight: str) -> str:
    return f"digits/mef/fpi/lambda={weight}/seed=0"


def test_a_real_run_makes_what_was_planned(finished_project: Project) -> None:
    assert finished_project.list_finished_jobs() == DEMO


def test_a_second_call_does_nothing(finished_project: Project) -> None:
    targets = ("table2", "accuracy_against_weight")
    assert "Nothing to be done" in finished_project.run_snakemake(*targets, "--dry-run").stdout


def test_a_new_weight_makes_only_its_own_run_and_then_there_is_nothing_to_do(
    finished_project: Project, tmp_path: Path
) -> None:
    project = finished_project.copy(tmp_path / "copy")
    project.forget_calls()
    overlay = with_lambdas(0, 1e3, 2e3, 1e4, 3e4, 1e5)
    project.run_snakemake("table2", overlay=overlay)
    assert project.list_finished_jobs() == list_jobs_of_run(run("2000")) | COLLECTION
    assert project.plan_jobs("table2", overlay=overlay) == set()


def test_equal_weights_are_one_run_however_they_are_written(finished_project: Project) -> None:
    written = with_lambdas(0, "1e3", 10000, "1e4", 1.0e4, "10_000.0", 30000, "1.0e+5")
    assert finished_project.plan_jobs("table2", overlay=written) == set()


def test_a_seed_and_a_temperature_more_leave_the_others_alone(finished_project: Project) -> None:
    new = [run_.replace("seed=0", "seed=1") for run_ in DEMO_RUNS]
    started = {("start-flow", "digits/mef/initial/data/seed=1")}
    assert finished_project.plan_jobs("table2", "--config", "seeds=[0, 1]") == started | COLLECTION | set().union(
        *map(list_jobs_of_run, new)
    )
    planned = finished_project.plan_jobs("table2", "--config", "generation={temperatures: [0.9, 1]}")
    new_images = set().union(*(list_jobs_of_run(run_, ["0.9"]) for run_ in DEMO_RUNS))
    of_classifiers = ("generate", "train-classifier", "test-classifier")
    assert planned == {job for job in new_images if job[0] in of_classifiers} | COLLECTION


def test_a_setting_of_the_fit_keeps_the_initial_state_and_the_baseline(finished_project: Project) -> None:
    planned = finished_project.plan_jobs("table2", "--config", "priors={fpi: {tolerance: 0.01}}")
    kept = {("prepare-data", "digits/splits"), ("start-flow", "digits/mef/initial/data/seed=0")}
    assert planned == DEMO - kept - list_jobs_of_run(DEMO_RUNS[0])


def test_what_changes_no_result_runs_nothing(finished_project: Project, tmp_path: Path) -> None:
    """Weights that were not kept are not missed."""
    project = finished_project.copy(tmp_path / "copy")
    for run_ in DEMO_RUNS:
        (project.folder / f"results/demo/{run_}/resnet18/temperature=1/model.safetensors").unlink()
    rule = project.folder / "workflow/rules/flow.smk"
    rule.write_text(rule.read_text().replace("exec nfpi --log", "exec  nfpi  --log"))
    overlay = {
        "training": {"workers": 3, "checkpoint_minutes": 1, "evaluate_every": 7, "tracking": "tensorboard"},
        "classifiers": {"resnet18": {"keep": False}},
        "resources": {"train_flow": {"gpu": 4, "threads": 7, "mem_mb": 9, "runtime": 9}},
    }
    assert project.plan_jobs("table2", overlay=overlay) == set()


def test_priors_that_start_alike_share_their_baseline(fresh_project: Project) -> None:
    names = ("fpi", "variance_only", "mean_only")
    experiments = [{"dataset": "digits", "prior": name, "lambdas": [0, 1e3]} for name in names]
    planned = fresh_project.plan_jobs("table2", overlay={"tables": {"table2": {"experiments": experiments}}})
    assert planned == COLLECTION | {
        ("prepare-data", "digits/splits"),
        ("start-flow", "digits/mef/initial/data/seed=0"),
        ("start-flow", "digits/mef/initial/identity/seed=0"),
    } | set().union(
        list_jobs_of_run("digits/mef/baseline/lambda=0/seed=0"),
        list_jobs_of_run("digits/mef/baseline-identity/lambda=0/seed=0"),
        *(list_jobs_of_run(f"digits/mef/{name}/lambda=1000/seed=0") for name in names),
    )


def test_a_failed_run_does_not_stop_the_others(fresh_project: Project) -> None:
    fit = f"fit-prior results/demo/{run('1000')}/fit"
    process = fresh_project.run_snakemake("table2", check=False, STUB_FAILS=fit)
    assert process.returncode != 0
    assert "told to fail" in process.stdout  # the log of the failed job is shown
    assert fresh_project.list_finished_jobs() == DEMO - list_jobs_of_run(run("1000")) - COLLECTION
