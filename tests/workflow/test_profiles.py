"""Profiles of clusters: which preset they run, and what their jobs ask for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from .conftest import DEMO, ROOT, Project

OVERLAYS = ("jean-zay-v100", "jean-zay-a100", "jean-zay-h100")
ACCOUNT = {"IDRPROJ": "abc"}


def folders(project: Project, *arguments: str, overlay: dict[str, Any] | None = None) -> set[str]:
    """Where a dry run would write."""
    text = project.run_snakemake(*arguments, "--dry-run", "--printshellcmds", overlay=overlay).stdout
    return set(re.findall(r"--output (results/\w+)/", text))


def test_the_cluster_runs_the_papers_preset(fresh_project: Project) -> None:
    assert fresh_project.plan_jobs("--profile", "slurm", "table2") == fresh_project.plan_jobs(
        "table2", "--config", "preset=paper"
    )


def test_no_setting_of_the_user_loses_the_preset(fresh_project: Project) -> None:
    assert folders(fresh_project, "--profile", "slurm", "table2", "--config", "seeds=[3]") == {"results/paper"}


def test_the_user_may_choose_another_preset(fresh_project: Project) -> None:
    assert fresh_project.plan_jobs("--profile", "slurm", "table2", "--config", "preset=demo") == DEMO


def test_a_file_of_settings_goes_beside_the_profiles_own(fresh_project: Project) -> None:
    overlay = {"seeds": [3]}
    message = fresh_project.read_refusal("--profile", "slurm", "table2", overlay=overlay)
    assert "give both, as in --configfile slurm/settings.yaml mine.yaml" in message
    fresh_project.write("mine.yaml", overlay)
    both = ("--profile", "slurm", "table2", "--configfile", "slurm/settings.yaml", "mine.yaml")
    assert fresh_project.plan_jobs(*both) == fresh_project.plan_jobs("table2", "--config", "preset=paper", "seeds=[3]")


def test_a_preset_of_the_users_own_keeps_the_profiles_settings(fresh_project: Project) -> None:
    fresh_project.write("mine.yaml", {"extends": "paper", "seeds": [3]})
    mine = ("--profile", "slurm", "table2", "--config", "preset=mine.yaml")
    assert folders(fresh_project, *mine) == {"results/mine"}
    assert fresh_project.plan_jobs(*mine) == fresh_project.plan_jobs("table2", "--config", "preset=paper", "seeds=[3]")
    of_profile = asked_by_job(fresh_project, "--profile", "jean-zay-h100", "table2", **ACCOUNT)
    assert asked_by_job(fresh_project, "--profile", "jean-zay-h100", *mine[2:], **ACCOUNT) == of_profile


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
    return read_asked(project.run_snakemake(*arguments, "--dry-run", **environment).stdout)


def read_asked(text: str) -> dict[str, str]:
    """The same, from what the dry run printed."""
    lines = set(re.findall(r"^Job \d+: (\w+ \w+).*\n  (.*)$", text, flags=re.MULTILINE))
    asked = dict(lines)
    assert len(asked) == len(lines)
    return asked


ON_GPU = {
    "jean-zay-v100": "account=abc@v100 partition=gpu_p13 constraint=v100-32g qos=qos_gpu-t3 cpus_per_task=10",
    "jean-zay-a100": "account=abc@a100 partition=gpu_p5 constraint=a100 qos=qos_gpu_a100-t3 cpus_per_task=8",
    "jean-zay-h100": "account=abc@h100 partition=gpu_p6 constraint=h100 qos=qos_gpu_h100-t3 cpus_per_task=24",
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_dry_run_says_what_jean_zay_is_asked_for(fresh_project: Project, overlay: str) -> None:
    asked = asked_by_job(fresh_project, "--profile", overlay, "table2", **ACCOUNT)
    of_cpu = "account=abc@cpu partition=cpu_p1 cpus_per_task=4"
    hint, warned = "slurm_extra=--hint=nomultithread", "--signal=TERM@120"
    expected = {
        "Initialise mef": (ON_GPU[overlay], 480, warned),
        "Fit the": (of_cpu, 60, ""),
        "Train mef": (ON_GPU[overlay], 1200, warned),
        "Evaluate mef": (ON_GPU[overlay], 60, ""),
        "Generate images": (ON_GPU[overlay], 120, warned),
        "Train resnet18": (ON_GPU[overlay], 1200, warned),
        "Test the": (ON_GPU[overlay], 60, ""),
    }
    assert asked.keys() == expected.keys()
    for job, (options, minutes, signal) in expected.items():
        gpu = "" if options is of_cpu else "gres=gpu:1"
        options = re.sub("(account|partition)=", r"slurm_\1=", options)
        words = f"{options} {gpu} runtime={minutes} {hint} {signal}".split()
        assert sorted(asked[job].split()) == sorted(words), job


def test_any_other_cluster_is_asked_for_resources_alone(fresh_project: Project) -> None:
    text = fresh_project.run_snakemake("--profile", "slurm", "table2", "--dry-run").stdout
    asked = {job: set(resources.split()) for job, resources in read_asked(text).items()}
    gpu = {"gres=gpu:1", "cpus_per_task=8"}
    assert asked["Train mef"] == gpu | {"runtime=1200", "mem_mb=32000", "slurm_extra=--signal=TERM@120"}
    assert asked["Evaluate mef"] == gpu | {"runtime=60", "mem_mb=16000"}
    assert asked["Fit the"] == {"cpus_per_task=4", "runtime=60", "mem_mb=8000"}
    on_the_login_node = (
        "Prepare cifar100/splits",
        "Collect the metrics of table2",
        "Write table2",
        "Draw accuracy against λ",
    )
    for message in on_the_login_node:
        assert re.search(rf"^Job \d+: {message}\nReason", text, flags=re.MULTILINE)


def test_an_account_that_is_missing_is_named(fresh_project: Project) -> None:
    message = fresh_project.read_refusal("--profile", "jean-zay-a100", "table2")
    assert message.endswith("cluster.account: environment variable $IDRPROJ is not set")


def test_a_job_over_the_limit_requests_the_limit(fresh_project: Project) -> None:
    setting = "resources={train_flow: {runtime: 1201}}"
    asked = asked_by_job(fresh_project, "--profile", "jean-zay-v100", "table2", "--config", setting, **ACCOUNT)
    assert "runtime=1200" in asked["Train mef"].split()


def test_a_longer_limit_takes_a_longer_qos(fresh_project: Project) -> None:
    settings = ("resources={train_flow: {runtime: 3000}}", "cluster={max_runtime: 6000}")
    asked = asked_by_job(fresh_project, "--profile", "jean-zay-v100", "table2", "--config", *settings, **ACCOUNT)
    assert {"qos=qos_gpu-t4", "runtime=3000"} < set(asked["Train mef"].split())
    assert "qos=qos_gpu-t3" in asked["Evaluate mef"].split()


def test_results_may_lie_where_a_variable_says(fresh_project: Project) -> None:
    setting = "results=$NFPI_TEST_SCRATCH/here"
    text = fresh_project.run_snakemake(
        "table2", "--dry-run", "--config", setting, NFPI_TEST_SCRATCH="/some/where"
    ).stdout
    assert "/some/where/here/demo/tables/table2.csv" in text
    assert fresh_project.read_refusal("table2", "--config", setting) == (
        "config: results: environment variable $NFPI_TEST_SCRATCH is not set"
    )


def test_a_profile_without_its_plugin_is_refused_by_snakemake(fresh_project: Project) -> None:
    hidden = """
import pkgutil

find = pkgutil.iter_modules
pkgutil.iter_modules = lambda *args: (m for m in find(*args) if not m.name.startswith("snakemake_executor_plugin_"))
"""
    fresh_project.write("hidden/sitecustomize.py", hidden)
    process = fresh_project.run_snakemake(
        "--profile", "slurm", "table2", check=False, PYTHONPATH=str(fresh_project.folder / "hidden")
    )
    assert process.returncode != 0
    assert "argument --executor/-e: invalid choice: 'slurm'" in process.stdout.splitlines()[-1]
