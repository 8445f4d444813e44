"""A job that is cancelled, and a Snakemake that is killed, lose nothing that had ended."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import Submitting, make_login_node, wait_until

LAMBDAS = ("1000", "10000")
RUNS = [f"results/demo/digits/mef/fpi/lambda={weight}/seed=0" for weight in LAMBDAS]
MODELS = [f"{run}/model/model.safetensors" for run in RUNS]
PROFILE = ("--profile", "slurm", "--config", "preset=demo", "resources={train_flow: {gpu: 0}}")
ONCE = ("--retries", "0")


@pytest.fixture
def project(tmp_path: Path) -> Submitting:
    """Everything before the trainings is there."""
    project = make_login_node(tmp_path / "clone", stub=True)
    project.run_snakemake(*(f"{run}/fit/prior.safetensors" for run in RUNS))
    project.forget_calls()
    return project


def test_cancelled_and_killed(project: Submitting) -> None:
    def states() -> list[str]:
        return [job["JobState"] for job in project.list_jobs_of_rule("train_flow")]

    def trained() -> list[str]:
        return [call["arguments"][call["arguments"].index("--output") + 1] for call in project.read_calls()]

    # The second training takes long, and is cancelled when the first one has ended.
    run = project.start(*PROFILE, *ONCE, "--", *MODELS, STUB_SECONDS="60", STUB_SLOW=RUNS[1])
    wait_until(lambda: sorted(states()) == ["COMPLETED", "RUNNING"])
    running = next(job for job in project.list_jobs_of_rule("train_flow") if job["JobState"] == "RUNNING")
    subprocess.run(["scancel", running["JobId"]], check=True)
    printed = run.wait_for_end()
    assert run.process.returncode != 0
    assert "1 job failed" in printed
    assert sorted(states()) == ["CANCELLED", "COMPLETED"]
    assert trained() == RUNS[:1]

    # Snakemake is killed while the second one runs again; its job runs to its end.
    run = project.start(*PROFILE, *ONCE, "--", *MODELS, STUB_SECONDS="3")
    wait_until(lambda: states()[2:] == ["RUNNING"])
    run.process.kill()
    run.process.wait()
    wait_until(lambda: states()[2:] == ["COMPLETED"])

    project.submit(*PROFILE, "--unlock", "--", *MODELS)
    assert "Nothing to be done" in project.submit(*PROFILE, "--rerun-incomplete", "--", *MODELS)
    assert trained() == RUNS
    assert len(states()) == 3
    assert all((project.folder / model).exists() for model in MODELS)
