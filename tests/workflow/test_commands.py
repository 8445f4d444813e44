"""What the rules hand to the stages."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

from .conftest import Project


def options(call: dict[str, Any]) -> dict[str, str]:
    """--name → value."""
    arguments = call["arguments"]
    return {name: value for name, value in itertools.pairwise(arguments) if name.startswith("--")}


def calls_of(project: Project, stage: str) -> list[dict[str, str]]:
    return [options(call) for call in project.calls() if call["stage"] == stage]


def test_a_stage_gets_only_the_settings_it_reads(finished: Project) -> None:
    (prepare,) = calls_of(finished, "prepare-data")
    assert "overrides" not in json.loads(prepare["--dataset"])
    assert json.loads(prepare["--dataset"])["flip"] is False
    (start,) = calls_of(finished, "start-flow")
    training = json.loads(start["--training"])
    assert training["batch_size"] == 128
    assert json.loads(start["--flow"])["num_flows"] == [4, 4]
    assert {json.loads(call["--training"])["epochs"] for call in calls_of(finished, "train-flow")} == {40}


def test_without_a_weight_the_flow_is_trained_under_the_initial_gaussians(finished: Project) -> None:
    start = "results/demo/digits/start/data/seed=0"
    priors = {call["--output"]: call["--prior"] for call in calls_of(finished, "train-flow")}
    assert priors.pop("results/demo/digits/baseline/lambda=0/seed=0") == f"{start}/prior.safetensors"
    assert priors == {folder: f"{folder}/fit/prior.safetensors" for folder in priors}
    fits = calls_of(finished, "fit-prior")
    assert {call["--weight"] for call in fits} == {"1000", "10000", "30000", "100000"}
    assert {(call["--initial"], call["--statistics"]) for call in fits} == {
        (f"{start}/prior.safetensors", f"{start}/statistics.safetensors")
    }


def test_threads_are_handed_on(finished: Project) -> None:
    assert {call["threads"] for call in finished.calls()} == {"1"}


def test_a_table_gets_its_experiments_and_their_priors(finished: Project) -> None:
    (table,) = calls_of(finished, "table")
    (experiment,) = json.loads(table["--table"])["experiments"]
    assert experiment["lambdas"] == [0, 1e3, 1e4, 3e4, 1e5]
    assert json.loads(table["--priors"])["fpi"]["start"] == "data"


def test_overrides_of_a_data_set_reach_its_stages(fresh: Project) -> None:
    text = fresh.snakemake("table2", "--config", "preset=paper", "--dry-run", "--printshellcmds").stdout
    assert "--per-class 500 --batch-size 1000 --seed 1999" in text
    assert "--per-class 5000" not in text
    assert re.search(r"""--name resnet18 --classifier '{"model": "resnet18",.* "epochs": 50,""", text)


def test_logs_and_times_lie_beside_the_results(finished: Project) -> None:
    logs = finished.folder / "results/demo/logs"
    times = finished.folder / "results/demo/benchmarks"
    assert (logs / "digits/fpi/lambda=1000/seed=0/train_flow.log").exists()
    assert (times / "digits/fpi/lambda=1000/seed=0/train_flow.tsv").exists()
    assert len(list(logs.rglob("*.log"))) == len(list(times.rglob("*.tsv"))) == len(finished.calls())


def test_benchmark_is_a_target_of_its_own(fresh: Project) -> None:
    assert fresh.plan("benchmark") == {("benchmark", "results/benchmark")}
