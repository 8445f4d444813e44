"""How far runs are: `nfpi status`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nfpi.results.recorded.calls import read_planned, read_progress, write_planned
from nfpi.runs import Run
from nfpi.runtime.job_log import STATE_SUFFIX
from nfpi.runtime.locks import locked, read_holder

from .conftest import call, read_error_line

ROOT = Path(__file__).parents[2]
RUN = "digits/mef/fpi/lambda=1000/seed=0"
OTHER = "digits/mef/baseline/lambda=0/seed=0"
FLOW = Run(dataset="digits", seed=0, flow="mef", prior="fpi", weight=1000.0)
BASELINE = Run(dataset="digits", seed=0, flow="mef", prior="baseline", weight=0.0)
EPOCHS = {"epoch": 2, "epochs": 40, "epoch_seconds": 6.0}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """results/demo, of which two runs were asked for."""
    folder = tmp_path / "results" / "demo"
    folder.mkdir(parents=True)
    write_planned(folder, [BASELINE, FLOW])
    return folder


def log(root: Path, text: str, name: str = "train_flow", run: str = RUN) -> Path:
    path = root / "logs" / run / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def record(root: Path, state: str, name: str = "train_flow", run: str = RUN, **values: object) -> Path:
    """Leave the state of a job."""
    path = log(root, json.dumps({"state": state} | values), name, run)
    return path.rename(path.with_name(path.name + STATE_SUFFIX))


def measure(root: Path, run: Run, **metrics: float) -> None:
    """Leave the end of an evaluation."""
    path = root / run.folder / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": run.to_json(), "metrics": metrics}))


def state(root: Path, run: Run = FLOW) -> tuple[str, str]:
    """State and detail of a run."""
    (found,) = [item for item in read_progress(root) if item.run == run]
    return found.state, found.detail


def test_what_was_asked_for_and_left_nothing_waits(root) -> None:
    assert [(item.run, item.state) for item in read_progress(root)] == [(BASELINE, "waiting"), (FLOW, "waiting")]
    record(root, "done", "fit_prior")
    assert state(root) == ("waiting", "after fit_prior")


def test_what_runs_has_its_epoch_and_the_time_left(root) -> None:
    record(root, "running", **EPOCHS)
    with locked(root / RUN / ".model.lock", "train"):
        name, detail = state(root)
    assert name == "running"
    assert detail.startswith("train_flow, epoch 2/40, about 3 min 48 s left, process ")  # 38 epochs of 6 s
    assert state(root) == ("stopped", "train_flow, epoch 2/40")  # it was killed


def test_a_job_in_a_folder_of_the_run_counts_and_one_of_its_classifier_does_not(root) -> None:
    with locked(root / RUN / "generated" / ".temperature=1.generated-images.lock", "generate"):
        assert state(root)[0] == "running"
    with locked(root / RUN / "resnet18" / "temperature=1" / ".classifier.lock", "train"):
        assert state(root)[0] == "waiting"


def test_the_lock_of_a_killed_process_has_no_holder(tmp_path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / ".a.lock"
    path.write_text(f"process {ended.pid} on {platform.node()}, since 2026-01-01\n")
    assert read_holder(path) == ""
    path.write_text("process 17 on another-node, since 2026-01-01\n")
    assert read_holder(path) == "process 17 on another-node, since 2026-01-01"
    path.write_text("")
    assert read_holder(path) == read_holder(tmp_path / "missing") == ""


@pytest.mark.parametrize(
    ("ended", "values", "expected"),
    [
        ("failed", {"error": "out of memory"}, ("failed", "train_flow: out of memory")),
        ("stopped", EPOCHS | {"error": "stopped by SIGTERM: kept step 4"}, ("stopped", "train_flow, epoch 2/40")),
    ],
)
def test_what_failed_has_its_line_and_what_was_stopped_its_epoch(root, ended, values, expected) -> None:
    record(root, ended, **values)
    assert state(root) == expected


def test_a_damaged_state_is_that_of_a_killed_job(root) -> None:
    for text in ("", "[]", '{"state": "running", "other": 1}'):
        record(root, "running").write_text(text)
        assert state(root) == ("stopped", "train_flow")


def test_what_is_measured_is_done_until_a_later_job_fails(root) -> None:
    measure(root, FLOW, nf_acc=98.0)
    os.utime(record(root, "failed", error="an old fault"), (1, 1))
    assert state(root) == ("done", "")
    os.utime(record(root, "failed", "evaluate", error="a new fault"), (time.time() + 5,) * 2)
    assert state(root) == ("failed", "evaluate: a new fault")
    os.utime(record(root, "running", **EPOCHS), (time.time() + 9,) * 2)  # and was killed
    assert state(root) == ("stopped", "train_flow, epoch 2/40")


def test_a_failed_job_is_seen_after_another_of_its_run_has_ended(root) -> None:
    run = replace(FLOW, classifier="swin")
    earlier, later = (f"{run.folder}/temperature={temperature}" for temperature in ("0.8", "1"))
    os.utime(record(root, "failed", "train_classifier", earlier, error="out of memory"), (1, 1))
    record(root, "done", "train_classifier", later)
    assert state(root, run) == ("failed", "train_classifier: out of memory")
    os.utime(record(root, "stopped", "train_classifier", earlier, **EPOCHS), (1, 1))
    assert state(root, run) == ("stopped", "train_classifier, epoch 2/40")
    os.utime(record(root, "done", "train_classifier", earlier), (1, 1))
    assert state(root, run) == ("waiting", "after train_classifier")


def test_a_divergence_is_told(root) -> None:
    path = root / RUN / "metrics.json"
    path.parent.mkdir(parents=True)
    mark = {"iteration": 3, "class_index": 2, "quantity": "variance", "lambda": 1000.0, "context": {}}
    path.write_text(json.dumps({"diverged": mark}))
    assert state(root) == ("diverged", "variance of class 2 at iteration 3")


def test_a_damaged_result_is_told(root) -> None:
    measure(root, FLOW, nf_acc=98.0)
    path = root / RUN / "metrics.json"
    path.write_text(path.read_text()[:-9])
    assert state(root)[0] == "damaged"


def test_hours_are_those_of_the_runs_own_jobs(root) -> None:
    for folder, seconds in {RUN: 3600, f"{RUN}/generated/temperature=1": 1800, f"{RUN}/resnet18": 7200}.items():
        path = root / "benchmarks" / folder / "job.tsv"
        path.parent.mkdir(parents=True)
        path.write_text(f"s\tmax_rss\n{seconds}\t1\n")
    assert [item.seconds for item in read_progress(root) if item.run == FLOW] == [5400]


@pytest.mark.parametrize("content", ["", "[]", '{"runs": 3}', '{"runs": ["no run"]}'])
def test_a_damaged_plan_lists_no_runs(root, content) -> None:
    (root / "planned.json").write_text(content)
    assert read_planned(root) == []


# ---- the commands -------------------------------------------------------------------------------------------


def test_status_is_a_table(root, capsys, monkeypatch) -> None:
    measure(root, FLOW, nf_acc=93.0, validation_nf_acc=96.0)
    monkeypatch.chdir(root.parents[1])
    for folders in ([], [root], [root.parent]):
        assert call("status", *folders) == 0
        head, _, *rows = capsys.readouterr().out.splitlines()
        assert "results/demo: 1 waiting, 1 done" in head
        assert [row.split("\t")[:3] for row in rows] == [[OTHER, "waiting", ""], [RUN, "done", "NF-Acc 93.0 %"]]


def test_what_does_not_follow_its_prior_is_said(root, capsys) -> None:
    measure(root, BASELINE, nf_acc=94.0, mismatch=0.05, beta=0.98)
    assert state(root, BASELINE) == ("done", "")
    measure(root, FLOW, nf_acc=93.0, mismatch=1.0, beta=0.184)
    assert state(root) == ("done", "does not follow its prior: mismatch 1.00 bits/dim, β 0.18")
    assert call("status", root) == 0
    assert "λ" in capsys.readouterr().err.splitlines()[-1]


def test_without_results_status_is_one_line(tmp_path, capsys) -> None:
    assert call("status", tmp_path) == 1
    assert str(tmp_path) in read_error_line(capsys)
