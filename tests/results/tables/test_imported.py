"""Rows of imported models: one training, however many draws of noise."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from nfpi.config.experiments import TableSettings
from nfpi.results.statistics.intervals import wilson_interval
from nfpi.results.tables.building import accuracy_table, read_table
from nfpi.results.tables.layout import to_markdown, write_table
from nfpi.results.tables.rows import TableRow
from nfpi.runs import OWN, Run

TABLE = TableSettings(metrics=["nf_acc"])
SEEDS = range(3)


def make_row(index: int, label: str, flow: str, prior: str) -> TableRow:
    runs = tuple(Run(dataset="digits", flow=flow, prior=prior, weight=10.0, seed=seed) for seed in SEEDS)
    return TableRow(
        experiment=index, label=label, dataset="digits", flow=flow, prior=prior, weight=10.0, flow_runs=runs
    )


@pytest.fixture
def make_table(make_metric_rows, make_frame) -> Any:
    def make(*rows: TableRow, **of_imported: float) -> pd.DataFrame:
        found = []
        for row in rows:
            for run in row.flow_runs:
                more = of_imported if row.is_imported else {}
                found.append(make_metric_rows(run, nf_acc=90.0 + run.seed + row.experiment, **more))
        return accuracy_table(make_frame(*found), TABLE, pd.DataFrame(columns=["row", "dataset"]), rows)

    return make


def test_draws_are_no_trainings(make_table):
    frame = make_table(make_row(0, "ours", "mef", "fpi"), make_row(1, "theirs", "theirs", OWN), unseen=360.0)
    ours, theirs = frame.to_dict("records")
    assert (ours["nf_acc_seeds"], theirs["nf_acc_seeds"]) == (3, 1)
    assert theirs["nf_acc"] == 92
    assert theirs["nf_acc_std"] == 1
    assert (theirs["nf_acc_low"], theirs["nf_acc_high"]) == pytest.approx(wilson_interval(92.0, 360))
    assert [ours["nf_acc_test"], theirs["nf_acc_test"]] == ["", ""]
    assert theirs["draws"] == 3
    assert math.isnan(ours["unseen"])
    assert "3 draws" in to_markdown(frame, "Mine")


def test_what_a_model_was_trained_on_may_be_unknown(make_table, tmp_path):
    rows = make_row(0, "one", "one", OWN), make_row(1, "two", "two", "own+moments")
    frame = make_table(*rows)
    assert "not known: one, λ = 10; two" in to_markdown(frame, "Mine")
    write_table(frame, tmp_path, "mine", "Mine")
    pd.testing.assert_frame_equal(read_table(tmp_path / "mine.csv"), frame)


def test_a_table_without_such_rows_has_no_columns_of_them(make_table):
    frame = make_table(make_row(0, "ours", "mef", "fpi"))
    assert not {"draws", "unseen"} & {*frame.columns}
