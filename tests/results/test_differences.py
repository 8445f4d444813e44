"""In what two folders of results differ, and how it is printed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nfpi.cli import main
from nfpi.results.differences import compare_results
from nfpi.results.recorded.records import write_metrics
from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged, mark_diverged

RUN = Run(dataset="digits", seed=0, flow="mef", prior="fpi", weight=1e4)
STRONGER = replace(RUN, weight=3e4)
TAUGHT = replace(RUN, classifier="resnet18")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same three runs."""
    first, second = tmp_path / "first", tmp_path / "second"
    for run, values in (
        (RUN, {"nf_acc": 99.0, "hours": 1.0}),
        (STRONGER, {"nf_acc": 98.0}),
        (TAUGHT, {"cnn_acc": 95.0, "ece": 1.0}),
    ):
        settings = {"training": {"epochs": 40, "optimizer": "adamax"}}
        path = first / run.folder / "metrics.json"
        write_metrics(path, values, run=run, n=360, seed=0, settings=settings, device="cpu", seconds=1.0)
    shutil.copytree(first, second)
    return first, second


def change(root: Path, run: Run, edit: Callable[[dict[str, Any]], object]) -> None:
    path = root / run.folder / "metrics.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def test_the_same_results_differ_in_nothing(folders, capsys):
    first, second = folders
    change(second, RUN, lambda record: record["metrics"].update(hours=2.0))
    assert main(["compare", str(first), str(second)]) == 0
    assert "0 settings and 0 numbers differ" in capsys.readouterr().out
    assert compare_results(first, second, times=True).numbers == [
        [RUN.folder, "Training (h)", "1.000", "2.000", "+1.000"]
    ]


def test_settings_numbers_and_software_that_differ_are_listed(folders):
    first, second = folders
    for run in (RUN, STRONGER):
        change(second, run, lambda record: record["settings"]["training"].update(epochs=12))
    change(second, RUN, lambda record: record["metrics"].update(nf_acc=97.5))
    change(second, TAUGHT, lambda record: record["metrics"].pop("ece"))
    change(second, TAUGHT, lambda record: record.update(device="a GPU"))
    found = compare_results(first, second)
    assert found.common == 3
    assert found.settings == [["training.epochs", "40", "12", "2"]]
    assert found.numbers == [
        [RUN.folder, "NF-Acc (%)", "99.00", "97.50", "-1.50"],
        [TAUGHT.folder, "ECE (%)", "1.000", "", ""],
    ]
    assert found.software == [["device", "cpu", "a GPU", "1"]]
    assert not found.runs


def test_runs_that_are_missing_diverged_or_damaged_are_listed(folders):
    first, second = folders
    shutil.rmtree(second / STRONGER.folder)
    mark_diverged([second / RUN.folder / "metrics.json"], Diverged(2, 1, "mean", 1e9))
    (first / TAUGHT.folder / "metrics.json").write_text("{")
    assert compare_results(first, second).runs == [
        [RUN.folder, "present", "diverged: mean of class 1 at iteration 2"],
        [TAUGHT.folder, "damaged", "present"],
        [STRONGER.folder, "present", "missing"],
    ]


def test_a_folder_without_runs_is_refused(folders, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(folders[0]), str(tmp_path / "empty")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "empty") in line


def test_brackets_in_settings_are_no_markup_of_a_terminal(folders, monkeypatch, capsys):
    first, second = folders
    change(second, RUN, lambda record: record["settings"]["training"].update(notes="[long]"))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["compare", str(first), str(second)]) == 0
    assert "[long]" in capsys.readouterr().out
