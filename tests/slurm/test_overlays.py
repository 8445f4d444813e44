"""A job as Jean Zay would get it, submitted to the SLURM of the test; dry runs: tests/workflow/test_profiles.py."""

from __future__ import annotations

import re
import shlex

import pytest

from .conftest import SlurmJob, Submitting, login_node

LEAF = "results/demo/digits/fpi/lambda=1000/seed=0"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Submitting:
    project = login_node(tmp_path_factory.mktemp("overlay") / "clone", stub=True)
    project.snakemake("results/demo/digits/start/data/seed=0/state.safetensors")
    # There is no accounting here to ask whether an account exists.
    accounts = project.folder / "commands/sacctmgr"
    accounts.write_text("#!/bin/sh\nprintf 'abc@%s\\n' h100 cpu\n")
    accounts.chmod(0o755)
    return project


@pytest.fixture(scope="module")
def printed(project: Submitting) -> str:
    arguments = (f"{LEAF}/flow.safetensors", "--verbose", "--config", "preset=demo")
    return project.submit("--profile", "jean-zay-h100", *arguments, IDRPROJ="abc")


def only(jobs: list[SlurmJob]) -> SlurmJob:
    (job,) = jobs
    return job


def test_a_job_with_a_gpu(project: Submitting, printed: str) -> None:
    job = only(project.jobs_of("train_flow"))
    assert (job["Account"], job["Partition"], job["Features"]) == ("abc@h100", "gpu_p6", "h100")
    assert (job["TresPerNode"], job["CPUs/Task"], job["TimeLimit"]) == ("gres/gpu:1", "24", "00:30:00")
    # SLURM shows no QoS where there is no accounting, and never hints and signals.
    (call,) = re.findall(r"^sbatch call: (.*_train_flow_.*)$", printed, flags=re.MULTILINE)
    options = set(shlex.split(call.split(" --wrap")[0]))
    assert {"--qos=qos_gpu_h100-t3", "--hint=nomultithread", "--signal=TERM@120"} <= options
    assert not [option for option in options if option.startswith("--mem")]


def test_a_job_without_one(project: Submitting, printed: str) -> None:
    job = only(project.jobs_of("fit_prior"))
    assert (job["Account"], job["Partition"], job["CPUs/Task"]) == ("abc@cpu", "cpu_p1", "1")
    assert job["Features"] == "(null)"
    assert "TresPerNode" not in job
