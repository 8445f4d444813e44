"""The stage that judges claims, on two runs whose metrics and predictions are written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nfpi.results.claims.layout import read_claims
from nfpi.results.recorded.predictions import write_predictions
from nfpi.results.recorded.records import write_metrics
from nfpi.results.tables.rows import TableRow
from nfpi.runs import Run

from .conftest import STAGE, check_call, list_files

REFERENCE = Path(__file__).parents[2] / "workflow/reference/paper.csv"
LABELS = torch.arange(200) % 4
CLAIM = {
    "statement": "Ours is better",
    "comparisons": [
        {
            "first": {"table": "t", "row": "ours"},
            "second": {"table": "t", "row": "theirs"},
            "smallest_effect": 0.5,
            "test": "mcnemar",
        }
    ],
}


def row_of(name: str, experiment: int) -> TableRow:
    run = Run(dataset="digits", flow="mef", prior=name, weight=10, seed=0)
    common: dict[str, Any] = {"label": name, "dataset": "digits", "flow": "mef", "prior": name}
    return TableRow(experiment=experiment, weight=10, flow_runs=(run,), **common)


def write_run(root: Path, row: TableRow, wrong: int) -> None:
    """A run that misclassifies the first `wrong` images."""
    (run,) = row.flow_runs
    predicted = torch.where(torch.arange(200) < wrong, (LABELS + 1) % 4, LABELS)
    write_predictions(root / run.folder / "predictions.npz", LABELS, torch.eye(4)[predicted] * 9)
    accuracy = 100 - wrong / 2
    values = {"nf_acc": accuracy, "validation_nf_acc": accuracy}
    of_run: dict[str, Any] = {"run": run, "n": 200, "seed": 0, "settings": {}, "device": "cpu", "seconds": 1.0}
    write_metrics(root / run.folder / "metrics.json", values, **of_run)


@pytest.mark.parametrize(
    ("wrong", "verdict", "of_claim"),
    [
        ({"ours": 10, "theirs": 50}, "holds", "replicated"),
        ({"ours": 50, "theirs": 10}, "does not hold", "not replicated"),
        ({"ours": 10, "theirs": 12}, "inconclusive", "inconclusive"),
        ({"ours": 10}, "not run", "not run"),
    ],
    ids=["better", "worse", "equal", "missing"],
)
def test_verdicts_are_written_in_all_forms(tmp_path, wrong, verdict, of_claim):
    rows = {name: row_of(name, index) for index, name in enumerate(("ours", "theirs"))}
    for name, count in wrong.items():
        write_run(tmp_path / "runs", rows[name], count)
    options = {
        "claims": {"better": CLAIM},
        "tables": {"t": {}},
        "rows": {"t": [row.model_dump(mode="json") for row in rows.values()]},
        "seeds": [0],
    }
    texts = [text for name, value in options.items() for text in (f"--{name}", json.dumps(value))]
    paths = ("--root", tmp_path / "runs", "--reference", REFERENCE, "--output", tmp_path / "out")
    check_call("claims", *texts, *paths)
    assert list_files(tmp_path / "out") == set(STAGE["claims"].get_output_files().values())
    (row,) = read_claims(tmp_path / "out/claims.csv").to_dict("records")
    assert (row["verdict"], row["claim_verdict"]) == (verdict, of_claim)
