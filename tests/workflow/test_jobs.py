"""The header that rules share: where a job prints, and what it asks for."""

from __future__ import annotations

import platform
import subprocess
from typing import Any

import pytest

from nfpi.config.cluster import JobName
from nfpi.runs import FLOW_RUN
from nfpi.workflow import Jobs
from nfpi.workflow.jobs import has_gpu

from .conftest import resolve_settings

LINE = {"gpu": 2, "threads": 3, "mem_mb": 400, "runtime": 50}


def make_jobs(**overrides: Any) -> Jobs:
    return Jobs(resolve_settings(**overrides))


def asked(jobs: Jobs, name: Any, attempt: int = 1, **changes: Any) -> dict[str, int | str]:
    return {kind: resource({}, attempt) for kind, resource in jobs.resources(name, **changes).items()}


def test_logs_and_benchmarks_lie_beside_results() -> None:
    jobs = make_jobs(results="elsewhere")
    assert jobs.log("evaluate", FLOW_RUN) == f"elsewhere/demo/logs/{FLOW_RUN}/evaluate.log"
    assert jobs.benchmark("evaluate", FLOW_RUN) == f"elsewhere/demo/benchmarks/{FLOW_RUN}/evaluate.tsv"


def test_a_job_asks_for_what_its_line_says() -> None:
    jobs = make_jobs(resources={"train_flow": LINE})
    assert jobs.threads("train_flow") == 3
    assert asked(jobs, "train_flow") == {"mem_mb": 400, "runtime": 50, "local_gpu": 1, "gpu": 2}
    assert jobs.devices("train_flow")({}, 1) == 2


def test_a_job_may_need_no_gpu_and_another_time_than_its_line_says() -> None:
    jobs = make_jobs(resources={"figure": LINE, "train_flow": LINE | {"gpu": 0}})
    assert asked(jobs, "figure", gpu=0, runtime=30) == {"mem_mb": 400, "runtime": 30}
    assert jobs.devices("train_flow")({}, 1) == 1


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
    requests = set(jobs.list_requests(resources).split())
    assert {"gres={resources.gres}", "runtime={resources.runtime}", "mem_mb={resources.mem_mb}"} < requests
    silent = make_jobs(resources={"train_flow": LINE}, cluster=cluster | {"ask_memory": False})
    assert "mem_mb" not in silent.list_requests(asked(silent, "train_flow"))


def test_jobs_of_the_longest_chain_come_first() -> None:
    jobs = make_jobs()
    chains: list[list[JobName]] = [
        ["prepare_data", "start_flow", "fit_prior", "train_flow", "generate", "train_classifier", "test_classifier"],
        ["test_classifier", "table", "figure"],
    ]
    for chain in chains:
        priorities = [jobs.priority(name) for name in chain]
        assert priorities == sorted(priorities, reverse=True)
    assert jobs.priority("train_flow") > jobs.priority("train_classifier") > jobs.priority("evaluate")


@pytest.mark.parametrize(
    ("answers", "visible", "expected"),
    [
        ({"nvidia-smi": "GPU 0: NVIDIA"}, None, True),
        *(({"nvidia-smi": "GPU 0: NVIDIA"}, value, False) for value in ("", "-1", "NoDevFiles")),
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


@pytest.mark.parametrize("device", ["", "cpu"])
def test_a_mac_with_apples_processor_has_a_gpu_unless_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setenv("NFPI_DEVICE", device)
    assert has_gpu() is (device == "")
