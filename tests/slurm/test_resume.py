"""A job that its time limit cuts in mid-training is resumed by the next job, to the same result."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from .conftest import CUT, CUT_RUN, Run, SlurmJob, Submitting

pytestmark = pytest.mark.long  # several jobs wait for their time limit of a minute


@pytest.fixture(scope="module")
def project(long_runs: dict[str, tuple[Submitting, Run]]) -> Submitting:
    project, run = long_runs["cut"]
    run.wait_for_success()
    return project


@pytest.fixture(scope="module")
def jobs(project: Submitting) -> list[SlurmJob]:
    return project.list_jobs_of_rule("train_flow")


def test_the_time_limit_ends_three_jobs_and_another_one_follows(jobs: list[SlurmJob]) -> None:
    assert {job["TimeLimit"] for job in jobs} == {"00:01:00"}
    assert len(jobs) >= 4
    assert jobs[-1]["JobState"] == "COMPLETED"
    assert not {job["JobState"] for job in jobs[:-1]} & {"COMPLETED", "CANCELLED"}


def test_each_job_resumes_from_the_checkpoint_of_the_last(project: Submitting) -> None:
    # Snakemake removes outputs and log of a job that failed; the checkpoint and the log's second name are none of them.
    log = project.folder / "results/demo/logs/digits/mef/baseline/lambda=0/seed=0/train_flow.log"
    logs = [*sorted(log.parent.glob("train_flow.log.[0-9]*")), log]
    steps = [int(step) for file in logs for step in re.findall(r"resuming from step (\d+)", file.read_text())]
    assert len(steps) >= 3, logs
    assert steps == sorted(set(steps))


def test_the_result_is_that_of_an_uninterrupted_training(project: Submitting, tmp_path: Path) -> None:
    cut, uncut = project.folder / CUT_RUN, tmp_path / "clone" / CUT_RUN
    project.copy(tmp_path / "clone")
    shutil.rmtree(uncut)
    Submitting(tmp_path / "clone").submit(
        f"{CUT_RUN}/model/model.safetensors", "--cores", "1", "--config", "preset=demo", overlay=CUT
    )
    for name in ("model/config.json", "model/model.safetensors"):
        assert (cut / name).read_bytes() == (uncut / name).read_bytes()
    logs = [pd.read_csv(run / "log.csv").drop(columns="seconds") for run in (cut, uncut)]
    pd.testing.assert_frame_equal(*logs)
