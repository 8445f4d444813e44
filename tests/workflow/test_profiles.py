"""Profiles of clusters: which preset they run, and what their jobs ask for."""

from __future__ import annotations

import re

import pytest
import yaml

from .conftest import ROOT, Project

OVERLAYS = ("jean-zay-v100", "jean-zay-a100", "jean-zay-h100")
ACCOUNT = {"IDRPROJ": "abc"}


def test_the_cluster_runs_the_papers_preset(fresh_project: Project) -> None:
    assert fresh_project.plan_jobs("--profile", "slurm", "table2") == fresh_project.plan_jobs(
        "table2", "--config", "preset=paper"
    )


def test_a_file_of_settings_goes_beside_the_profiles_own(fresh_project: Project) -> None:
    overlay = {"seeds": [3]}
    message = fresh_project.read_refusal("--profile", "slurm", "table2", overlay=overlay)
    assert "slurm/settings.yaml" in message
    fresh_project.write("mine.yaml", overlay)
    both = ("--profile", "slurm", "table2", "--configfile", "slurm/settings.yaml", "mine.yaml")
    assert fresh_project.plan_jobs(*both) == fresh_project.plan_jobs("table2", "--config", "preset=paper", "seeds=[3]")


def test_a_preset_of_the_users_own_keeps_the_profiles_settings(fresh_project: Project) -> None:
    fresh_project.write("mine.yaml", {"extends": "paper", "seeds": [3]})
    profile = ("--profile", "jean-zay-h100", "table2")
    asked = asked_by_job(fresh_project, *profile, "--config", "preset=mine.yaml", **ACCOUNT)
    assert asked == asked_by_job(fresh_project, *profile, **ACCOUNT)


def test_the_profiles_differ_in_their_settings_only() -> None:
    profile = (ROOT / "profiles/slurm/config.yaml").read_text()
    for name in OVERLAYS:
        assert (ROOT / "profiles" / name / "config.yaml").read_text() == profile
    generic = yaml.safe_load((ROOT / "profiles/slurm/settings.yaml").read_text())
    for name in OVERLAYS:
        settings = yaml.safe_load((ROOT / "profiles" / name / "settings.yaml").read_text())
        assert set(settings) == set(generic)
        assert set(settings["cluster"]) <= set(generic["cluster"])


def asked_by_job(project: Project, *arguments: str, **environment: str) -> dict[str, str]:
    """What jobs do, in two words → what they request, as a dry run says; alike for all jobs that do it."""
    text = project.run_snakemake(*arguments, "--dry-run", **environment).stdout
    lines = set(re.findall(r"^\w+ +\d+  (\w+ \w+).*\n +(.*=.*)$", text, flags=re.MULTILINE))
    asked = dict(lines)
    assert len(asked) == len(lines)
    return asked


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_dry_run_says_what_jean_zay_is_asked_for(fresh_project: Project, overlay: str) -> None:
    asked = asked_by_job(fresh_project, "--profile", overlay, "table2", **ACCOUNT)
    card = overlay.removeprefix("jean-zay-")
    training, fit, evaluation = (set(asked[job].split()) for job in ("Train mef", "Fit the", "Evaluate mef"))
    on_gpu = {f"slurm_account=abc@{card}", "gres=gpu:1", "slurm_extra=--hint=nomultithread"}
    assert training >= on_gpu | {"--signal=TERM@120", "runtime=1200"}
    assert evaluation >= on_gpu | {"runtime=60"}
    assert {"slurm_account=abc@cpu", "slurm_partition=cpu_p1"} < fit
    assert not [word for word in fit if "gres" in word or "signal" in word]


def test_any_other_cluster_is_asked_for_resources_alone(fresh_project: Project) -> None:
    printed = asked_by_job(fresh_project, "--profile", "slurm", "table2")
    asked = {job: set(resources.split()) for job, resources in printed.items()}
    gpu = {"gres=gpu:1", "cpus_per_task=8"}
    assert asked["Train mef"] == gpu | {"runtime=1200", "mem_mb=32000", "slurm_extra=--signal=TERM@120"}
    assert asked["Evaluate mef"] == gpu | {"runtime=60", "mem_mb=16000"}
    assert asked["Fit the"] == {"cpus_per_task=4", "runtime=60", "mem_mb=8000"}
    assert not {"Prepare cifar100", "Write table2", "Draw accuracy"} & asked.keys()  # on the login node


def test_an_account_that_is_missing_is_named(fresh_project: Project) -> None:
    message = fresh_project.read_refusal("--profile", "jean-zay-a100", "table2")
    assert "cluster.account: " in message
    assert "$IDRPROJ" in message


def test_a_job_over_the_limit_requests_the_limit_and_a_longer_limit_takes_a_longer_qos(fresh_project: Project) -> None:
    profile = ("--profile", "jean-zay-v100", "table2", "--config", "resources={train_flow: {runtime: 3000}}")
    assert "runtime=1200" in asked_by_job(fresh_project, *profile, **ACCOUNT)["Train mef"].split()
    asked = asked_by_job(fresh_project, *profile, "cluster={max_runtime: 6000}", **ACCOUNT)
    assert {"qos=qos_gpu-t4", "runtime=3000"} < set(asked["Train mef"].split())
    assert "qos_gpu-t3" in asked["Evaluate mef"]


def test_results_may_lie_where_a_variable_says(fresh_project: Project) -> None:
    setting = "results=$NFPI_TEST_SCRATCH/here"
    call = ("table2", "--dry-run", "--printshellcmds", "--config", setting)
    text = fresh_project.run_snakemake(*call, NFPI_TEST_SCRATCH="/some/where").stdout
    assert "/some/where/here/demo/tables/table2.csv" in text
    assert "$NFPI_TEST_SCRATCH" in fresh_project.read_refusal("table2", "--config", setting)
