"""Times and memory of jobs, by table and stage."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from nfpi.cli import main
from nfpi.config.settings import Config
from nfpi.results.costs import lay_out_costs, read_jobs, sum_costs
from nfpi.results.recorded.calls import StoredSettings, write_settings
from nfpi.runs import Run

FLOW = Run(dataset="digits", seed=0, flow="mef", prior="fpi", weight=1e4)
OTHER = replace(FLOW, weight=1e5)
TAUGHT = replace(FLOW, classifier="resnet18")
ALONE = Run(dataset="digits", seed=0, classifier="swin", augmentation="none")
COMMON = {"digits/splits/prepare_data", "digits/mef/initial/data/seed=0/start_flow"}
TABLES = {
    "flows": COMMON | {f"{run.folder}/{stage}" for run in (FLOW, OTHER) for stage in ("train_flow", "evaluate")},
    "taught": COMMON
    | {f"{FLOW.folder}/{stage}" for stage in ("train_flow", "evaluate", "generated/temperature=1/generate")}
    | {f"{TAUGHT.folder}/temperature=1/train_classifier"},
    "real": {"digits/splits/prepare_data", f"{ALONE.folder}/trained/train_classifier"},
}
"""The jobs that tables depend on."""


def note(root: Path, folder: str, stage: str, seconds: float | str, memory: float | str = 1024) -> None:
    path = root / "benchmarks" / folder / f"{stage}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\tmax_rss\tcpu_time\n{seconds}\t{memory}\t1800\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "results/demo"
    note(root, "digits/splits", "prepare_data", 360)
    note(root, "digits/mef/initial/data/seed=0", "start_flow", 360)
    note(root, "digits/mef/initial/identity/seed=0", "start_flow", 7200)
    for run in (FLOW, OTHER):
        note(root, run.folder, "train_flow", 3600, 2048)
        note(root, run.folder, "evaluate", 36)
    note(root, f"{FLOW.folder}/generated/temperature=1", "generate", 72)
    note(root, f"{TAUGHT.folder}/temperature=1", "train_classifier", 720)
    note(root, f"{ALONE.folder}/trained", "train_classifier", 1440)
    return root


def row_of(frame, table, stage="all"):
    (row,) = frame[(frame["table"] == table) & (frame["stage"] == stage)].to_dict("records")
    return row


def test_a_job_counts_in_each_table_that_depends_on_it_and_once_in_all(root):
    frame = sum_costs(read_jobs(root), TABLES)
    hours = {table: row_of(frame, table)["hours"] for table in (*TABLES, "all")}
    assert hours["flows"] == pytest.approx(0.1 + 0.1 + 2 * 1.01)
    assert hours["taught"] == pytest.approx(0.1 + 0.1 + 1.01 + 0.02 + 0.2)
    assert hours["real"] == pytest.approx(0.1 + 0.4)
    assert hours["all"] == pytest.approx(0.1 + 0.1 + 2 + 2 * 1.01 + 0.02 + 0.2 + 0.4)
    assert row_of(frame, "all")["jobs"] == 10
    assert row_of(frame, "all")["cpu_hours"] == pytest.approx(10 * 0.5)


def test_rows_have_the_largest_memory_of_their_jobs(root):
    training = row_of(sum_costs(read_jobs(root), TABLES), "flows", "train_flow")
    assert (training["jobs"], training["memory"]) == (2, 2.0)


def test_a_job_whose_time_is_not_known_is_counted_as_such(root):
    note(root, FLOW.folder, "train_flow", "NA", "NA")
    frame = sum_costs(read_jobs(root), {})
    training = row_of(frame, "all", "train_flow")
    assert (training["jobs"], training["unknown"], training["hours"]) == (2, 1, pytest.approx(1.0))
    assert not any(math.isnan(value) for value in frame["hours"])


def test_no_time_is_rounded_to_zero(root):
    note(root, FLOW.folder, "fit_prior", 1)
    costs = lay_out_costs(sum_costs(read_jobs(root), {}))
    assert {row[0]: row[2] for row in costs.rows}["fit_prior"] == "1 s"


def test_a_table_may_depend_on_no_job(root):
    assert set(sum_costs(read_jobs(root), {"t": {"other/splits/prepare_data"}})["table"]) == {"all"}


def test_the_command_prints_and_writes_them(root, capsys):
    experiment = {"dataset": "digits", "lambdas": [1e4, 1e5], "classifier": None}
    config = Config.model_validate(
        {
            **{"seeds": [0], "datasets": {"digits": {}}, "flows": {"mef": {}}, "priors": {"fpi": {}}},
            "tables": {"table2": {"metrics": ["nf_acc"], "experiments": [experiment]}},
        }
    )
    write_settings(root, StoredSettings.of("demo", config))
    assert main(["costs", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "table2" in printed
    assert (root / "costs.md").read_text() == printed
    assert (root / "costs.csv").is_file()


def test_the_parent_of_results_stands_for_all_in_it(root, capsys):
    for name in ("demo", "other"):
        write_settings(root.parent / name, StoredSettings.of(name, Config()))
    for command in ("costs", "page"):
        assert main([command, str(root.parent)]) == 0
    assert all((folder / "index.html").is_file() for folder in root.parent.iterdir())
    assert (root / "costs.md").is_file()
    assert not (root.parent / "other/costs.md").exists()  # no job has ended there
    assert main(["costs", str(root.parent / "none")]) == 1
