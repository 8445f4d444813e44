"""Cores and GPUs, on one machine and on a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Project, read_settings


def models(preset: str, *runs: str) -> list[str]:
    """The models of runs of the paper's backbone, as targets."""
    return [f"results/{preset}/digits/mef/{run}/seed=0/model/model.safetensors" for run in runs]


RUNS = ("fpi/lambda=1000", "fpi/lambda=10000")
TWO_FLOWS = models("demo", *RUNS)


def add_gpu(project: Project) -> None:
    """From now on the machine seems to have a GPU."""
    project.add_command("nvidia-smi", "print('GPU 0: pretended')\n")


def trainings_overlap(project: Project) -> bool:
    first, second = sorted(
        (call["begin"], call["end"]) for call in project.read_calls() if call["stage"] == "train-flow"
    )
    return second[0] < first[1]


@pytest.mark.parametrize("gpu", [False, True])
def test_two_trainings_share_a_machine_but_not_its_gpu(fresh_project: Project, gpu: bool) -> None:
    if gpu:
        add_gpu(fresh_project)
    fresh_project.run_snakemake(
        *TWO_FLOWS, "--cores", "2", overlay={"resources": {"train_flow": {"gpu": 4}}}, STUB_SECONDS="1"
    )
    assert trainings_overlap(fresh_project) is not gpu
    called = [call for call in fresh_project.read_calls() if "--devices" in call["arguments"]]
    devices = {(call["stage"], call["arguments"][call["arguments"].index("--devices") + 1]) for call in called}
    assert devices == {("start-flow", "1"), ("train-flow", "4")}


def test_a_cluster_is_limited_neither_by_cores_nor_by_gpus_of_this_machine(
    fresh_project: Project, tmp_path: Path
) -> None:
    add_gpu(fresh_project)
    log = tmp_path / "jobs.jsonl"
    threads = 999  # more than this machine has
    overlay = {
        "resources": {"train_flow": {"threads": threads, "gpu": 4}},
        "training": {"warmup_steps": 7},
        "cluster": {},
    }
    fresh_project.write("presets_of_mine/quick.yaml", {"extends": "demo", "training": {"learning_rate": 0.007}})
    fresh_project.run_snakemake(
        *models("quick", *RUNS, "baseline/lambda=0"),
        *("--executor", "recorder", "--jobs", "20", "--seconds-between-status-checks", "0"),
        *("--config", "preset=presets_of_mine/quick.yaml", "training={batch_size: 99}"),
        overlay=overlay,
        RECORDER_LOG=str(log),
    )
    jobs = [json.loads(line) for line in log.read_text().splitlines()]
    trained = [job for job in jobs if job["rule"] == "train_flow"]
    assert {(job["threads"], job["gres"]) for job in trained} == {(threads, "gpu:4")}
    assert max(job["at_once"] for job in trained) >= 2
    assert {job["gres"] for job in jobs if job["rule"] == "fit_prior"} == {None}
    assert "prepare_data" not in {job["rule"] for job in jobs}  # it runs where the internet is

    # The Snakemake inside the job saw the same settings.
    (start,) = [call for call in fresh_project.read_calls() if call["stage"] == "start-flow"]
    training = read_settings(start["arguments"])["training"]
    assert (training["batch_size"], training["warmup_steps"], training["learning_rate"]) == (99, 7, 0.007)
