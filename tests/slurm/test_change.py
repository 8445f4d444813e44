"""After a change, only what depends on it is submitted: here, with the options that Jean Zay wants."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfpi.runtime.manifests import read_manifest

from .conftest import TINY_FLOWS, Submitting, make_login_node, wait_until


def with_lambdas(*lambdas: float) -> dict[str, Any]:
    experiment = {"dataset": "digits", "lambdas": list(lambdas), "classifier": None}
    return {"tables": {"table2": {"experiments": [experiment]}}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Submitting:
    """The table of two λ is finished."""
    project = make_login_node(tmp_path_factory.mktemp("change") / "clone", stub=True)
    project.run_snakemake("table2", overlay=with_lambdas(0, 1e3))
    return project


def pretend_accounts(project: Submitting) -> None:
    """Answer for the accounting, which is not there to be asked whether an account exists."""
    accounts = project.folder / "commands/sacctmgr"
    accounts.write_text("#!/bin/sh\nprintf 'abc@%s\\n' h100 cpu\n")
    accounts.chmod(0o755)


@pytest.fixture(scope="module")
def printed(project: Submitting) -> str:
    """What Snakemake prints when one λ has become another."""
    pretend_accounts(project)
    assert project.list_jobs() == []
    profile = ("--profile", "jean-zay-h100", "--config", "preset=demo")
    return project.submit("table2", "--verbose", *profile, overlay=with_lambdas(0, 2e3), IDRPROJ="abc")


def test_a_changed_weight_submits_only_its_own_jobs(project: Submitting, printed: str) -> None:
    assert [job["Comment"] for job in project.list_jobs()] == [
        f"rule_{rule}_wildcards_digits_mef_fpi_2000_0" for rule in ("fit_prior", "train_flow", "evaluate")
    ]


def test_jobs_ask_for_what_goes_with_a_gpu_or_without_one(project: Submitting, printed: str) -> None:
    (fit,), (job,) = (project.list_jobs_of_rule(rule) for rule in ("fit_prior", "train_flow"))
    assert (fit["Account"], fit["Partition"], "TresPerNode" in fit) == ("abc@cpu", "cpu_p1", False)
    assert (job["Account"], job["Partition"], job["TresPerNode"]) == ("abc@h100", "gpu_p6", "gres/gpu:1")
    # SLURM shows no QoS where there is no accounting, and never hints and signals.
    (call,) = re.findall(r"^sbatch call: (.*_train_flow_.*)$", printed, flags=re.MULTILINE)
    options = set(shlex.split(call.split(" --wrap")[0]))
    assert {"--qos=qos_gpu_h100-t3", "--hint=nomultithread", "--signal=TERM@120"} <= options
    assert not [option for option in options if option.startswith("--mem")]


@pytest.fixture
def closed_partition() -> Iterator[Callable[[], None]]:
    """Jobs without a GPU wait, until this is called."""

    def set_state(state: str) -> None:
        subprocess.run(["scontrol", "update", "PartitionName=cpu_p1", f"State={state}"], check=True)

    set_state("DOWN")
    yield lambda: set_state("UP")
    set_state("UP")


def test_a_job_refuses_settings_that_were_edited_while_it_waited(
    tmp_path: Path, closed_partition: Callable[[], None]
) -> None:
    project = make_login_node(tmp_path / "clone", stub=False)
    pretend_accounts(project)
    settings = {"extends": "demo", "flows": TINY_FLOWS, "priors": {"fpi": {"max_iterations": 90}}}
    project.write("mine.yaml", settings)
    fit = "results/mine/digits/mef/fpi/lambda=1000/seed=0/fit/prior.safetensors"
    state = "results/mine/digits/mef/initial/data/seed=0/state.safetensors"
    project.submit(state, "--cores", "1", "--config", "preset=mine.yaml")
    call = (fit, "--profile", "jean-zay-h100", "--retries", "0", "--config", "preset=mine.yaml")
    run = project.start(*call, IDRPROJ="abc")
    wait_until(lambda: [job["JobState"] for job in project.list_jobs()] == ["PENDING"])
    project.write("mine.yaml", settings | {"priors": {"fpi": {"max_iterations": 80}}})
    closed_partition()
    assert "expected the settings and inputs of the call that planned this job" in run.wait_for_end()
    assert not (project.folder / fit).exists()
    project.write("mine.yaml", settings)
    project.submit(*call, IDRPROJ="abc")
    (of_slurm,) = (project.folder / fit).parent.glob("*.manifest.json")
    content = read_manifest(of_slurm).content
    project.submit(fit, "--cores", "1", "--forcerun", "fit_prior", "--config", "preset=mine.yaml")
    assert read_manifest(of_slurm).content == content
