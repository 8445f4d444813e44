"""The workflow with its real stages, killed again and again on its way: the table is that of a run by itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfpi.cli import main

from .conftest import Project, clone_project

TABLE = "results/demo/tables/table2.csv"
RUN = Path("results/demo/digits/mef/fpi/lambda=100/seed=0")
SETTINGS = {
    "seeds": [0],
    "datasets": {"digits": {"train_per_class": 20, "test_per_class": 8}},
    "flows": {"mef": {"num_flows": [1, 1], "num_blocks": [0, 0], "hidden_channels": [8, 8]}},
    "training": {
        **{"epochs": 40, "batch_size": 20, "warmup_steps": 5, "initialization_images": 60, "augmentation": "none"},
        **{"checkpoint_minutes": 0.001},
    },
    "tables": {
        "table2": {"experiments": [{"dataset": "digits", "prior": "fpi", "lambdas": [100], "classifier": None}]}
    },
}
TIMES = {"hours", "seconds_per_epoch", "seconds_per_1000_samples"}
"""Metrics that are measured by the clock."""


def project_with_real_stages(folder: Path) -> Project:
    project = clone_project(folder)
    project.write("overlay.yaml", SETTINGS)
    project.use_real_stages()
    return project


def list_processes_in(folder: Path) -> dict[int, str]:
    """Running processes that work in the project's folder, with their commands."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").resolve() == folder:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def start_snakemake(project: Project, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start Snakemake in the project's folder; the project's commands are the only ones on the path."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    environment |= {"PATH": str(project.tools), "XDG_CACHE_HOME": str(project.folder / ".cache")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "snakemake", "--nocolor", *arguments]
    return subprocess.Popen(command, cwd=project.folder, env=environment, text=True, **options)


@contextlib.contextmanager
def running(project: Project) -> Iterator[subprocess.Popen[str]]:
    """Snakemake at work; nothing of it is left behind."""
    arguments = ("--cores", "2", "--retries", "2", TABLE, "--configfile", "overlay.yaml")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = start_snakemake(project, *arguments, **streams, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 90
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.01)


def checkpoint_time(folder: Path) -> float:
    latest = 0.0
    for path in (folder / RUN).glob(".checkpoint-*"):
        with contextlib.suppress(FileNotFoundError):  # it has just been renamed
            latest = max(latest, path.stat().st_mtime)
    return latest


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes by /proc")
def test_a_killed_workflow_gives_the_table_of_an_uninterrupted_one(tmp_path, monkeypatch):
    project = project_with_real_stages(tmp_path / "killed")
    folder = project.folder.resolve()

    def job_at_work(but: set[int]) -> int:
        """The training, once it has kept a state of its own."""
        before = checkpoint_time(folder)
        wait_for(lambda: checkpoint_time(folder) > before and bool(jobs() - but), snakemake)
        (job,) = jobs() - but
        return job

    def jobs() -> set[int]:
        return {
            pid
            for pid, command in list_processes_in(folder).items()
            if re.search(r"nfpi --log \S+ train-flow", command)
        }

    with running(project) as snakemake:
        first = job_at_work(set())
        os.kill(first, signal.SIGTERM)  # as before the end of the time: Snakemake tries again
        second = job_at_work({first})
        os.kill(second, signal.SIGKILL)  # as by a machine without memory: the same
        job_at_work({first, second})
        for pid in list_processes_in(folder):  # as by a power failure
            os.kill(pid, signal.SIGKILL)
        output = snakemake.communicate(timeout=60)[0]
    assert "trying again" in output
    path = folder / f"results/demo/logs/{RUN.relative_to('results/demo')}/train_flow.log"
    log = path.read_text()
    assert re.match(r"attempt [23] of train-flow, .*; attempt \d (stopped|did not end)", log)
    assert "resuming from step" in log
    assert checkpoint_time(folder) > 0
    assert not (folder / RUN / "model/model.safetensors").exists()

    # what was killed still holds its lock on the folder: no other run comes between
    arguments = ("--cores", "2", TABLE, "--configfile", "overlay.yaml")
    refused = project.run_snakemake(*arguments, check=False)
    assert refused.returncode != 0
    assert "lock" in refused.stdout
    project.run_snakemake(*arguments, "--unlock")
    project.run_snakemake(*arguments, OMP_NUM_THREADS="1")
    assert checkpoint_time(folder) == 0

    # the same commands, one after the other
    text = project.run_snakemake(*arguments, "--dry-run", "--forceall", "--printshellcmds").stdout
    commands = re.findall(r"^Shell command: exec nfpi --log \S+ (.+)$", text, flags=re.MULTILINE)
    assert len(commands) == 6
    other = clone_project(tmp_path / "by hand").folder
    monkeypatch.chdir(other)
    for command in in_order(commands):
        assert main(shlex.split(command)) == 0, command
    assert (folder / TABLE).read_bytes() == (other / TABLE).read_bytes()
    records = [json.loads((place / RUN / "metrics.json").read_text()) for place in (folder, other)]
    measured, again = records
    assert {"versions", "git_commit", "device", "seed", "settings", "n"} <= measured.keys()
    for key in measured.keys() - {"seconds", "git_commit", "metrics"}:  # no git is on the workflow's PATH here
        assert measured[key] == again[key], key
    values = [{name: record["metrics"][name] for name in record["metrics"] if name not in TIMES} for record in records]
    assert values[0] == values[1]
    assert values[0].keys() | TIMES == measured["metrics"].keys()


def in_order(commands: list[str]) -> list[str]:
    order = ["prepare-data", "start-flow", "fit-prior", "train-flow", "evaluate", "table"]
    return sorted(commands, key=lambda command: order.index(command.split()[0]))
