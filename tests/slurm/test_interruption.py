"""A job that is cancelled, and a Snakemake that is killed, lose nothing that had ended."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import Submitting, login_node, wait_until

LAMBDAS = ("1000", "10000", "30000")
LEAVES = [f"results/demo/digits/fpi/lambda={weight}/seed=0" for weight in LAMBDAS]
FLOWS = [f"{leaf}/flow.safetensors" for leaf in LEAVES]
PROFILE = ("--profile", "slurm", "--config", "preset=demo", "--retries", "0")


@pytest.fixture
def project(tmp_path: Path) -> Submitting:
    """Everything before the trainings is there."""
    project = login_node(tmp_path / "clone", stub=True)
    project.snakemake(*(f"{leaf}/fit/prior.safetensors" for leaf in LEAVES))
    project.forget_calls()
    return project


def test_cancelled_and_killed(project: Submitting) -> None:
    def states() -> list[str]:
        return [job["JobState"] for job in project.jobs_of("train_flow")]

    def trained() -> list[str]:
        return [call["arguments"][call["arguments"].index("--output") + 1] for call in project.calls()]

    # Two GPUs: the third training begins when another one has ended, and is cancelled.
    process = project.start(*PROFILE, "--", *FLOWS, STUB_SECONDS="5")
    wait_until(lambda: sorted(states()) == ["COMPLETED", "COMPLETED", "RUNNING"])
    running = next(job for job in project.jobs_of("train_flow") if job["JobState"] == "RUNNING")
    subprocess.run(["scancel", running["JobId"]], check=True)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert f"SLURM-job '{running['JobId']}' failed, SLURM status is: 'CANCELLED'" in printed
    ended = trained()
    assert len(ended) == 2

    # Snakemake is killed while the third runs again; its job goes on to its end.
    process = project.start(*PROFILE, "--", *FLOWS, STUB_SECONDS="3")
    wait_until(lambda: states()[3:] == ["RUNNING"])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: states()[3:] == ["COMPLETED"])

    project.submit("--profile", "slurm", "--config", "preset=demo", "--unlock", "--", *FLOWS)
    printed = project.submit(*PROFILE, "--rerun-incomplete", "--", *FLOWS)
    assert "Nothing to be done" in printed
    (third,) = set(LEAVES) - set(ended)
    assert trained() == [*ended, third]
    assert len(states()) == 4
    assert all((project.folder / flow).exists() for flow in FLOWS)
