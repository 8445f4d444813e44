"""The header that rules share: where a job prints, and what it asks for."""

from __future__ import annotations

import platform
import subprocess
from typing import Any

import pytest

from nfpi.runs import FLOW_RUN
from nfpi.workflow import Jobs
from nfpi.workflow.jobs import has_gpu

from .conftest import make_plan

LINE = {"gpu": 2, "threads": 3, "mem_mb": 400, "runtime": 50}


def make_jobs(**overrides: Any) -> Jobs:
    return Jobs(make_plan(**overrides))


def asked(jobs: Jobs, name: Any, attempt: int = 1, **changes: Any) -> dict[str, int | str]:
    return {kind: resource({}, attempt) for kind, resource in jobs.resources(name, **changes).items()}


def test_logs_and_times_lie_beside_the_results() -> None:
    jobs = make_jobs()
    assert jobs.log("train_flow", FLOW_RUN) == f"results/demo/logs/{FLOW_RUN}/train_flow.log"
    assert jobs.benchmark("train_flow", FLOW_RUN) == f"results/demo/benchmarks/{FLOW_RUN}/train_flow.tsv"


def test_a_job_asks_for_what_its_line_says() -> None:
    jobs = make_jobs(resources={"train_flow": LINE})
    assert jobs.threads("train_flow") == 3
    assert asked(jobs, "train_flow") == {"mem_mb": 400, "runtime": 50, "local_gpu": 1, "gpu": 2}
    assert jobs.devices("train_flow")({}, 1) == 2


def test_a_job_without_a_gpu_trains_on_one_device() -> None:
    jobs = make_jobs(resources={"train_flow": LINE | {"gpu": 0}})
    assert jobs.devices("train_flow")({}, 1) == 1
    assert "local_gpu" not in asked(jobs, "train_flow")


def test_a_rule_may_need_no_gpu_whatever_its_line_says() -> None:
    jobs = make_jobs(resources={"figure": LINE})
    assert asked(jobs, "figure")["gpu"] == 2
    assert asked(jobs, "figure", gpu=0) == {"mem_mb": 400, "runtime": 50}


def test_a_rule_may_need_less_time_than_its_line_says() -> None:
    jobs = make_jobs(resources={"train_flow": {"gpu": 1, "runtime": 1200}})
    resources = jobs.resources("train_flow", runtime=30)
    assert {kind: resource({}, 1) for kind, resource in resources.items() if kind in ("gpu", "runtime")} == {
        "gpu": 1,
        "runtime": 30,
    }
    assert jobs.resources("train_flow", runtime=3000)["runtime"]({}, 1) == 1200


def test_what_begins_anew_asks_for_more_when_it_is_tried_again() -> None:
    jobs = make_jobs(resources={"evaluate": LINE, "train_flow": LINE})
    assert asked(jobs, "evaluate", attempt=2)["runtime"] == 100
    assert asked(jobs, "train_flow", attempt=2)["runtime"] == 50


def test_a_cluster_is_asked_in_its_own_words() -> None:
    cluster = {"account": "abc", "partition": "gpu", "cores_per_gpu": 8, "options": "--exclusive"}
    jobs = make_jobs(resources={"train_flow": LINE}, cluster=cluster)
    assert jobs.threads("train_flow") == 16
    resources = asked(jobs, "train_flow")
    assert resources["gres"] == "gpu:2"
    assert jobs.sbatch_command(resources) == (
        "sbatch --account={resources.slurm_account} --partition={resources.slurm_partition} --gres={resources.gres}"
        " --cpus-per-task={resources.cpus_per_task} --time={resources.runtime} --mem={resources.mem_mb}"
        " {resources.slurm_extra}"
    )
    silent = make_jobs(resources={"train_flow": LINE}, cluster=cluster | {"ask_memory": False})
    assert "--mem" not in silent.sbatch_command(asked(silent, "train_flow"))


@pytest.mark.parametrize(
    ("answers", "visible", "expected"),
    [
        ({"nvidia-smi": "GPU 0: NVIDIA"}, None, True),
        ({"rocm-smi": "GPU[0]"}, None, True),
        *(({"nvidia-smi": "GPU 0: NVIDIA"}, value, False) for value in ("", "-1", "NoDevFiles", "none", "void")),
        ({"nvidia-smi": "GPU 0: NVIDIA"}, "1", True),
        ({"nvidia-smi": "No devices were found"}, None, False),
        ({}, None, False),
    ],
)
def test_a_gpu_is_seen_where_jobs_would_find_it(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], visible: str | None, expected: bool
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if command[0] not in answers:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, stdout=answers[command[0]])

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert has_gpu() is expected


def test_on_the_cpu_on_purpose_no_gpu_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setenv("NFPI_DEVICE", "cpu")
    assert not has_gpu()


def test_a_mac_with_apples_processor_has_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert has_gpu()
