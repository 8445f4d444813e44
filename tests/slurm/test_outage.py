"""SLURM's controller is down for a while: jobs are submitted when it is back, and those that run are not forgotten."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from .conftest import Controller, Submitting, make_login_node, wait_until

RUN = "results/demo/digits/mef/fpi/lambda=1000/seed=0"
MODEL = f"{RUN}/model/model.safetensors"
AWAY = float(os.environ.get("NFPI_OUTAGE_SECONDS", "0"))
"""How long the controller is away, besides the time until that is seen; two minutes were tried by hand."""
PROFILE = ("--profile", "slurm", "--config", "preset=demo", "resources={train_flow: {gpu: 0}}")


@pytest.fixture
def project(tmp_path: Path) -> Submitting:
    """Everything before the training is there."""
    project = make_login_node(tmp_path / "clone", stub=True)
    project.run_snakemake(f"{RUN}/fit/prior.safetensors")
    project.forget_calls()
    return project


def test_jobs_are_submitted_once_the_controller_is_back(project: Submitting, controller: Controller) -> None:
    controller.stop()
    run = project.start(*PROFILE, "--retries", "0", "--", MODEL)
    wait_until(lambda: "controller does not answer" in run.output.read_text())
    time.sleep(AWAY)
    controller.start()
    run.wait_for_success()
    assert len(project.list_jobs_of_rule("train_flow")) == 1


def test_a_job_that_runs_while_the_controller_is_away_is_not_forgotten(
    project: Submitting, controller: Controller
) -> None:
    run = project.start(*PROFILE, "--retries", "0", "--", MODEL, STUB_SECONDS="10")
    begun = project.folder / "results/demo/logs/digits/mef/fpi/lambda=1000/seed=0/train_flow.log"
    wait_until(begun.exists)
    controller.stop()
    wait_until(lambda: "running jobs are checked again" in run.output.read_text())
    time.sleep(AWAY)
    controller.start()
    run.wait_for_success()
    assert [job["JobState"] for job in project.list_jobs_of_rule("train_flow")] == ["COMPLETED"]
