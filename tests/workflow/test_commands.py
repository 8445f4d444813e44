"""What the rules hand to the stages."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import Project


def options(call: dict[str, Any]) -> dict[str, str]:
    """--name → value."""
    arguments = call["arguments"]
    return {name: value for name, value in itertools.pairwise(arguments) if name.startswith("--")}


def calls_of(project: Project, stage: str) -> list[dict[str, str]]:
    return [options(call) for call in project.read_calls() if call["stage"] == stage]


def test_a_stage_gets_only_the_settings_it_reads(finished_project: Project) -> None:
    (prepare,) = calls_of(finished_project, "prepare-data")
    assert "overrides" not in json.loads(prepare["--dataset"])
    assert json.loads(prepare["--dataset"])["flip"] is False
    (start,) = calls_of(finished_project, "start-flow")
    training = json.loads(start["--training"])
    assert training["batch_size"] == 128
    flow = json.loads(start["--flow"])
    assert (flow["kind"], flow["num_flows"]) == ("matrix_exponential", [4, 4])
    assert "training" not in flow
    assert {json.loads(call["--training"])["epochs"] for call in calls_of(finished_project, "train-flow")} == {40}


def test_without_a_weight_the_flow_is_trained_under_the_initial_gaussians(finished_project: Project) -> None:
    initial = "results/demo/digits/mef/initial/data/seed=0"
    trainings = {call["--output"]: call for call in calls_of(finished_project, "train-flow")}
    assert {call["--initial"] for call in trainings.values()} == {initial}
    baseline = trainings.pop("results/demo/digits/mef/baseline/lambda=0/seed=0")
    assert not {"--prior", "--learn", "--weight"} & baseline.keys()
    assert {folder: call["--prior"] for folder, call in trainings.items()} == {
        folder: f"{folder}/fit/prior.safetensors" for folder in trainings
    }
    fits = calls_of(finished_project, "fit-prior")
    assert {call["--weight"] for call in fits} == {"1000", "10000", "30000", "100000"}
    assert {call["--initial"] for call in fits} == {initial}
    assert {json.loads(call["--prior"])["method"] for call in fits} == {"fixed_point"}


def test_a_prior_that_is_learned_along_with_the_flow_is_handed_to_its_training(complete_project: Project) -> None:
    trainings = {call["--output"]: call for call in calls_of(complete_project, "train-flow")}
    learned = trainings["results/demo/digits/mef/nfgd_linear/lambda=10000/seed=0"]
    assert json.loads(learned["--learn"])["method"] == "gradient_descent"
    assert learned["--weight"] == "10000"
    assert "--prior" not in learned


def test_threads_are_handed_on(finished_project: Project) -> None:
    assert {call["threads"] for call in finished_project.read_calls()} == {"1"}


def test_a_table_gets_what_it_shows_and_its_rows(finished_project: Project) -> None:
    (call,) = calls_of(finished_project, "table")
    table = json.loads(call["--table"])
    assert table["metrics"] == ["nf_acc", "cnn_acc"]
    assert "experiments" not in table
    rows = json.loads(call["--rows"])
    assert [row["lambda"] for row in rows] == [0, 1e3, 1e4, 3e4, 1e5]
    assert {row["prior"] for row in rows} == {"fpi"}
    assert [row["flow_runs"][0]["prior"] for row in rows] == ["baseline", "fpi", "fpi", "fpi", "fpi"]
    assert {row["classifier_runs"][0]["classifier"] for row in rows} == {"resnet18"}


def test_runs_are_told_who_they_are(finished_project: Project) -> None:
    flow = {"dataset": "digits", "seed": 0, "flow": "mef", "prior": "fpi", "lambda": 1e4}
    folder = "results/demo/digits/mef/fpi/lambda=10000/seed=0"
    evaluated = {call["--output"]: json.loads(call["--identity"]) for call in calls_of(finished_project, "evaluate")}
    assert evaluated[folder] == flow
    calls = calls_of(finished_project, "test-classifier")
    tested = {call["--output"]: json.loads(call["--identity"]) for call in calls}
    assert tested[f"{folder}/resnet18"] == flow | {"classifier": "resnet18"}
    (collected,) = calls_of(finished_project, "collect")
    runs = json.loads(collected["--runs"])
    assert sorted(map(str, runs)) == sorted(map(str, [*evaluated.values(), *tested.values()]))
    assert collected["--root"] == "results/demo"


def test_a_stage_that_later_ones_read_the_model_of_gets_its_folder(finished_project: Project) -> None:
    for stage in ("evaluate", "generate"):
        for call in calls_of(finished_project, stage):
            run = call["--output"].partition("/generated")[0]
            assert call["--model"] == f"{run}/model"


def test_overrides_of_a_data_set_reach_its_stages(fresh_project: Project) -> None:
    text = fresh_project.run_snakemake("table2", "--config", "preset=paper", "--dry-run", "--printshellcmds").stdout
    assert "--per-class 500 --batch-size 1000 --seed 1999" in text
    assert "--per-class 5000" not in text
    assert re.search(r"""--name resnet18 --classifier '{"model": "resnet18",.* "epochs": 50,""", text)


@pytest.fixture
def latin_1(tmp_path: Path) -> dict[str, str]:
    """Variables of a locale whose letters are those of ISO 8859-1, which has no λ."""
    name = "de_DE.ISO-8859-1"
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / name)]
    if shutil.which("localedef") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine has no sources of locales")
    return {"LOCPATH": str(tmp_path), "LC_ALL": name}


def test_commands_are_ascii_for_locales_that_are_not_utf_8(fresh_project: Project, latin_1: dict[str, str]) -> None:
    experiment = {"dataset": "digits", "lambdas": [1e4], "classifier": None, "label": "Größe λ"}
    overlay = {"tables": {"table2": {"title": "λ ≥ 0", "experiments": [experiment]}}}
    fresh_project.run_snakemake("table2", overlay=overlay, **latin_1)
    (table,) = calls_of(fresh_project, "table")
    assert json.loads(table["--table"])["title"] == "λ ≥ 0"
    assert json.loads(table["--rows"])[0]["label"] == "Größe λ"
    assert all(argument.isascii() for call in fresh_project.read_calls() for argument in call["arguments"])


def test_logs_and_times_lie_beside_the_results(finished_project: Project) -> None:
    logs = finished_project.folder / "results/demo/logs"
    times = finished_project.folder / "results/demo/benchmarks"
    assert (logs / "digits/mef/fpi/lambda=1000/seed=0/train_flow.log").exists()
    assert (times / "digits/mef/fpi/lambda=1000/seed=0/train_flow.tsv").exists()
    assert len(list(logs.rglob("*.log"))) == len(list(times.rglob("*.tsv"))) == len(finished_project.read_calls())


def test_check_device_is_a_target_of_its_own(fresh_project: Project) -> None:
    assert fresh_project.plan_jobs("check_device") == {("check-device", "demo.json")}


def test_benchmark_is_a_target_of_its_own(fresh_project: Project) -> None:
    text = fresh_project.run_snakemake("benchmark", "--dry-run", "--printshellcmds").stdout
    assert "/run.py --output results/benchmark" in text
    assert re.search(r"^total +1$", text, flags=re.MULTILINE)
