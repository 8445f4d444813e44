"""Times and memory of jobs, by stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nfpi.results.costs import lay_out_costs, read_jobs
from nfpi.runs import Run

FLOW = Run(dataset="digits", seed=0, flow="mef", prior="fpi", weight=1e4)
OTHER = replace(FLOW, weight=1e5)
TAUGHT = replace(FLOW, classifier="resnet18")
ALONE = Run(dataset="digits", seed=0, classifier="swin", augmentation="none")


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


def show(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the cells of each stage."""
    return {stage: cells for stage, *cells in lay_out_costs(read_jobs(root)).rows}


def test_the_jobs_of_a_stage_are_added_up_with_their_largest_memory(root):
    shown = show(root)
    assert shown["train_flow"] == ["2", "2 h", "1 h", "2.0"]
    assert shown["train_classifier"] == ["2", "36 min", "1 h", "1.0"]
    assert next(iter(shown)) == "start_flow", "the longest comes first"
    assert shown["all"][:1] == ["10"]


def test_a_job_whose_time_is_not_known_is_counted_as_such(root):
    note(root, FLOW.folder, "train_flow", "NA", "NA")
    assert show(root)["train_flow"] == ["2", "1 h", "1 h", "2.0", "1"]


def test_no_time_is_rounded_to_zero(root):
    note(root, FLOW.folder, "fit_prior", 1)
    assert show(root)["fit_prior"][1] == "1 s"
