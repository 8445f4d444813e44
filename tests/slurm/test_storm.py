"""Real trainings, and what a cluster does to them: the result is that of one by itself, and one process writes it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from .conftest import TINY_FLOWS, Controller, Run, SlurmJob, Submitting, make_login_node, wait_until

RUN = "results/demo/digits/mef/baseline/lambda=0/seed=0"
TABLE = "results/demo/tables/table2.csv"
LOG = "results/demo/logs/digits/mef/baseline/lambda=0/seed=0/train_flow.log"
TIMES = ["hours", "seconds_per_epoch", "seconds_per_1000_samples"]
"""Columns that are measured by the clock."""
SETTINGS = {
    "flows": TINY_FLOWS,
    "training": {"epochs": 12, "checkpoint_minutes": 0.01},
    "tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": [0], "classifier": None}]}},
}
PROFILE = ("--profile", "slurm", "--config", "preset=demo", "resources={train_flow: {gpu: 0}, evaluate: {gpu: 0}}")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Submitting:
    """A clone in which everything before the training is there."""
    project = make_login_node(tmp_path_factory.mktemp("begun") / "clone", stub=False)
    initial = "results/demo/digits/mef/initial/data/seed=0/state.safetensors"
    project.submit(initial, "--cores", "1", "--config", "preset=demo", overlay=SETTINGS)
    return project


@pytest.fixture(scope="module")
def alone(begun: Submitting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, brought to its end on this machine."""
    folder = tmp_path_factory.mktemp("alone") / "clone"
    begun.copy(folder)
    Submitting(folder).submit("table2", "--cores", "1", "--config", "preset=demo", overlay=SETTINGS)
    return folder


@pytest.fixture
def project(begun: Submitting, tmp_path: Path) -> Submitting:
    """A copy to work in."""
    begun.copy(tmp_path / "clone")
    return Submitting((tmp_path / "clone").resolve())


def assert_same(folder: Path, other: Path) -> None:
    """Weights, logs and tables agree but for measured times, and nothing else is left."""
    for name in ("model/config.json", "model/model.safetensors"):
        assert (folder / RUN / name).read_bytes() == (other / RUN / name).read_bytes()
    logs = [pd.read_csv(place / RUN / "log.csv").drop(columns="seconds") for place in (folder, other)]
    pd.testing.assert_frame_equal(*logs)
    tables = [pd.read_csv(place / TABLE).drop(columns=TIMES, errors="ignore") for place in (folder, other)]
    pd.testing.assert_frame_equal(*tables)
    assert not [file for file in (folder / RUN).rglob(".*") if "checkpoint" in file.name or file.suffix == ".tmp"]


def text_of(log: Path) -> str:
    """What a log says; Snakemake removes it before a job, which then finds what was in it."""
    try:
        return log.read_text()
    except FileNotFoundError:
        return ""


def epochs(log: str) -> list[int]:
    """The epochs that are reported, in order."""
    return [int(epoch) for epoch in re.findall(r" epoch (\d+)/12", log)]


def training(project: Submitting) -> SlurmJob:
    """The last job of the training."""
    return project.list_jobs_of_rule("train_flow")[-1]


def wait_for_progress(project: Submitting, log: Path) -> None:
    """Wait until the training has kept a state and gone on since."""

    def checkpoint() -> float:
        times = [0.0]
        for path in (project.folder / RUN).glob(".checkpoint-*"):
            try:
                times.append(path.stat().st_mtime)
            except FileNotFoundError:  # it was renamed
                continue
        return max(times)

    before, seen = checkpoint(), len(epochs(text_of(log)))
    wait_until(lambda: checkpoint() > before and len(epochs(text_of(log))) > seen)


@pytest.mark.long
def test_snakemake_killed_and_started_again_at_once(project: Submitting, alone: Path) -> None:
    log = project.folder / LOG
    run = project.start("table2", *PROFILE, "--retries", "0", overlay=SETTINGS, PAUSE="0.1")
    wait_for_progress(project, log)
    (project.folder / "hold").touch()
    run.process.kill()
    run.process.wait()
    project.submit("table2", *PROFILE, "--unlock", overlay=SETTINGS)
    again = project.start("table2", *PROFILE, "--retries", "0", overlay=SETTINGS, PAUSE="0.1")
    try:
        wait_until(lambda: "waiting until it ends" in text_of(log))
        (project.folder / "hold").unlink()
        again.wait_for_success()
    finally:
        again.stop()

    assert [job["JobState"] for job in project.list_jobs_of_rule("train_flow")] == ["COMPLETED"] * 2
    text = text_of(log)
    assert "the other process has made it" in text
    assert len(epochs(text)) == len(set(epochs(text)))  # one process trained
    assert_same(project.folder, alone)


@pytest.fixture
def by_itself(long_runs: dict[str, tuple[Submitting, Run]]) -> None:
    """No other test's jobs run on the node."""
    for _, run in long_runs.values():
        run.wait_for_end()


@pytest.fixture
def node() -> Iterator[str]:
    """The name of the only node, which is up again in the end."""
    name = sinfo("%n").split()[0]
    yield name
    if re.search("down|drain", sinfo("%t")):
        scontrol("update", f"NodeName={name}", "State=RESUME")


def sinfo(form: str) -> str:
    return subprocess.run(["sinfo", "-h", "-o", form], capture_output=True, text=True, check=True).stdout


def scontrol(*arguments: str) -> None:
    subprocess.run(["scontrol", *arguments], check=True)


@pytest.mark.long
def test_a_job_survives_requeueing_lost_daemons_and_a_failing_node(
    project: Submitting, alone: Path, by_itself: None, node: str, controller: Controller
) -> None:
    log = project.folder / LOG
    run = project.start("table2", *PROFILE, "--retries", "0", overlay=SETTINGS, PAUSE="0.4")

    def wait_for_attempt(number: int) -> None:
        """Wait until the job runs again; SLURM gives its processes two minutes to end first, if need be."""
        wait_until(lambda: training(project)["JobState"] == "PENDING")
        job_id = training(project)["JobId"]
        steps = ["pgrep", "-f", rf"slurmstepd: \[{job_id}\."]
        wait_until(lambda: subprocess.run(steps, capture_output=True).returncode != 0)
        time.sleep(5)  # slurmd refuses a job that it still knows, and SLURM drains the node then
        scontrol("update", f"JobId={job_id}", "StartTime=now")
        wait_until(lambda: f"attempt {number} of train-flow" in text_of(log))

    try:
        wait_for_progress(project, log)
        scontrol("requeue", training(project)["JobId"])
        wait_for_attempt(2)

        wait_for_progress(project, log)
        controller.stop()
        controller.start()

        wait_for_progress(project, log)
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True).stdout
        (pid_file,) = re.findall(r"^SlurmdPidFile\s*= (\S+)$", shown, flags=re.MULTILINE)
        os.kill(int(Path(pid_file).read_text()), 9)
        wait_for_progress(project, log)
        subprocess.run(["slurmd"], check=True)

        scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=test")
        scontrol("update", f"NodeName={node}", "State=RESUME")
        wait_for_attempt(3)
        run.wait_for_success()
    finally:
        run.stop()
    (job,) = project.list_jobs_of_rule("train_flow")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "2")
    text = text_of(log)
    assert len(re.findall("resuming from step", text)) == 2
    assert epochs(text) == sorted(epochs(text))  # one after the other; the failing node lost part of one
    assert_same(project.folder, alone)
