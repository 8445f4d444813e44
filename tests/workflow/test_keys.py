"""Outdated products are made again whatever Snakemake remembers: moved or swapped results, lost records, other files.

The stages are real ones, made small.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from nfpi.cli import main

from .conftest import Project, clone_project
from .test_killed import SETTINGS as KILLED
from .test_killed import list_processes_in, running, wait_for

RUNS = "results/demo/digits/mef"
SETTINGS = KILLED | {
    "training": KILLED["training"] | {"epochs": 2},
    "tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": [0, 100], "classifier": None}]}},
    "figures": {"accuracy_against_weight": None},
}
EVERYTHING_AFTER_THE_TRAINING = {"train_flow", "evaluate", "table"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = clone_project(tmp_path_factory.mktemp("finished") / "clone")
    project.use_real_stages()
    project.run_snakemake("table2", "--cores", "2", overlay=SETTINGS)
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy whose records of Snakemake are lost."""
    project = finished.copy(tmp_path / "clone")
    shutil.rmtree(project.folder / ".snakemake")
    return project


def list_rules(project: Project, **changes: object) -> set[str]:
    """Return the rules whose jobs a dry run plans."""
    text = project.run_snakemake("table2", "--dry-run", overlay=SETTINGS | changes).stdout
    return set(re.findall(r"^(\w+) +\d+  ", text, re.MULTILINE))


def test_lost_records_of_snakemake_make_nothing_again(project):
    assert list_rules(project) == set()


def test_changed_settings_are_noticed_without_records(project):
    training = SETTINGS["training"] | {"epochs": 3}
    assert list_rules(project, training=training) == EVERYTHING_AFTER_THE_TRAINING
    text = project.run_snakemake("table2", "--dry-run", overlay=SETTINGS | {"training": training}).stdout
    assert "changed: training.epochs: 2 → 3" in text
    assert list_rules(project, evaluation={"batch_size": 77}) == EVERYTHING_AFTER_THE_TRAINING - {"train_flow"}


def test_swapped_models_are_trained_again_and_the_table_is_as_before(project):
    table = project.folder / "results/demo/tables/table2.csv"
    before = re.sub(r",[0-9.e-]+,[^,]*$", "", table.read_text(), flags=re.MULTILINE)
    runs = [project.folder / RUNS / run for run in ("baseline/lambda=0/seed=0", "fpi/lambda=100/seed=0")]
    for name in ("model", "model.manifest.json", "log.csv"):
        one, other = (run / name for run in runs)
        one.rename(project.folder / "swapped")
        other.rename(one)
        (project.folder / "swapped").rename(other)
    assert list_rules(project) == EVERYTHING_AFTER_THE_TRAINING
    project.run_snakemake("table2", "--cores", "2", overlay=SETTINGS)
    assert re.sub(r",[0-9.e-]+,[^,]*$", "", table.read_text(), flags=re.MULTILINE) == before
    assert list_rules(project) == set()


def test_what_was_edited_by_hand_is_named_and_made_again(project):
    table = project.folder / "results/demo/tables/table2.md"
    before = table.read_bytes()
    table.write_bytes(before.replace(b"NF-Acc", b"CNN-Acc"))
    assert table.read_bytes() != before
    assert list_rules(project) == {"table"}
    done = project.run_snakemake("table2", "--cores", "2", overlay=SETTINGS)
    assert "table2.md: expected what table wrote, received another content" in done.stdout
    assert table.read_bytes() == before
    assert list_rules(project) == set()
    model = project.folder / RUNS / "fpi/lambda=100/seed=0/model"
    model.rename(project.folder / "on another disk")
    model.symlink_to(project.folder / "on another disk")
    assert list_rules(project) == set()


def test_a_renamed_preset_and_moved_results_make_nothing_again(project):
    results = project.folder / "results"
    (results / "demo").rename(results / "renamed")
    project.write("renamed.yaml", {"extends": "demo"})
    call = ("table2", "--dry-run", "--config", "preset=renamed.yaml")
    assert "Nothing to be done" in project.run_snakemake(*call, overlay=SETTINGS).stdout


@pytest.mark.parametrize(
    ("lost", "changes"),
    [
        ("digits/splits/**/*", {"datasets": {"digits": SETTINGS["datasets"]["digits"] | {"split_seed": 7}}}),
        ("**/model*", {"training": SETTINGS["training"] | {"epochs": 3}}),
    ],
    ids=["splits", "models"],
)
def test_changed_settings_of_what_is_not_there_are_noticed(project, lost, changes):
    for path in [path for path in (project.folder / "results/demo").glob(lost) if path.is_file()]:
        path.unlink()
    assert "table" in list_rules(project, **changes)


@pytest.mark.parametrize("command", [("verify",), ("evidence", "--output", "evidence")], ids=["verify", "evidence"])
def test_an_edited_number_whose_manifest_is_missing_is_named(project, command, monkeypatch):
    run = project.folder / RUNS / "fpi/lambda=100/seed=0"
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["metrics"]["nf_acc"] = 99.9
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "metrics.manifest.json").unlink()
    monkeypatch.chdir(project.folder)
    name, *options = command
    assert main([name, "results/demo", *options]) == 1


def test_a_copy_without_dates_makes_nothing_again(project):
    for file in sorted((project.folder / "results").rglob("*"), reverse=True):
        if file.is_file():
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content)
    assert list_rules(project) == set()


def test_a_setting_that_is_reverted_after_ctrl_c_makes_nothing_again(finished, tmp_path):
    project = finished.copy(tmp_path / "clone")
    project.write("overlay.yaml", SETTINGS | {"training": SETTINGS["training"] | {"epochs": 1000}})
    log = project.folder / "results/demo/logs/digits/mef/fpi/lambda=100/seed=0/train_flow.log.json"
    before = log.stat().st_mtime_ns
    with running(project) as snakemake:
        wait_for(
            lambda: log.exists() and log.stat().st_mtime_ns > before and "epoch_seconds" in log.read_text(), snakemake
        )
        os.killpg(snakemake.pid, signal.SIGINT)  # as a terminal does
        with contextlib.suppress(subprocess.TimeoutExpired):
            snakemake.wait(60)
        assert list_processes_in(project.folder.resolve()) == {}
    assert list_rules(project) == set()


def test_after_a_failed_call_with_settings_that_are_reverted_nothing_is_outdated(finished, tmp_path):
    project = finished.copy(tmp_path / "clone")
    project.add_command("nfpi", "raise SystemExit(1)\n")
    training = SETTINGS["training"] | {"epochs": 3}
    project.run_snakemake("table2", "--cores", "2", overlay=SETTINGS | {"training": training}, check=False)
    project.use_real_stages()
    project.run_snakemake("table2", "--cores", "2", overlay=SETTINGS)
    assert main(["verify", str(project.folder / "results/demo")]) == 0
