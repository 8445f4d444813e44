"""The demo, smaller, with its real stages."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from .conftest import STUBS, Run, SlurmJob, Submitting

ON_GPU = ("start_flow", "train_flow", "evaluate", "generate", "train_classifier", "test_classifier")


@pytest.fixture(scope="module")
def project(long_runs: dict[str, tuple[Submitting, Run]]) -> Submitting:
    project, run = long_runs["demo"]
    run.wait_for_success()
    return project


@pytest.fixture(scope="module")
def jobs(project: Submitting) -> list[SlurmJob]:
    return project.list_jobs()


def rule_of(job: SlurmJob) -> str:
    return job["Comment"].removeprefix("rule_").split("_wildcards_")[0]


def test_all_jobs_end_in_a_table(project: Submitting, jobs: list[SlurmJob]) -> None:
    table = pd.read_csv(project.folder / "results/demo/tables/table2.csv")
    assert table["lambda"].tolist() == [1e4]
    assert table[["nf_acc", "cnn_acc"]].notna().all(axis=None)
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert sorted(map(rule_of, jobs)) == sorted([*ON_GPU, "fit_prior"])


def test_gpu_stages_hold_one_gpu_and_others_none(jobs: list[SlurmJob]) -> None:
    held = {rule_of(job): job.get("JOB_GRES") for job in jobs}  # what SLURM allocated
    assert held == {**dict.fromkeys(ON_GPU, "gpu:1"), "fit_prior": "(null)"}


def test_two_jobs_with_gpus_run_at_once(jobs: list[SlurmJob]) -> None:
    spans = [(job["StartTime"], job["EndTime"]) for job in jobs if rule_of(job) in ON_GPU]
    assert any(a[0] < b[1] and b[0] < a[1] for a, b in itertools.combinations(spans, 2))


def test_compute_stages_reach_for_no_network(project: Submitting, jobs: list[SlurmJob]) -> None:
    assert not (project.folder / "connections").exists()


def test_reaching_for_a_network_would_be_seen(tmp_path: Path) -> None:
    notes = tmp_path / "connections"
    code = "import offline, urllib.request; urllib.request.urlopen('http://192.0.2.1')"
    environment = {"PYTHONPATH": str(STUBS), "CONNECTIONS": str(notes)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode != 0
    assert "socket.getaddrinfo" in notes.read_text()
