"""Rows of a table with the runs behind each."""

from __future__ import annotations

from typing import Any

from nfpi.results.rows import TableRow
from nfpi.runs import Run
from nfpi.workflow.tables import list_table_rows

from .conftest import make_plan

FLOW = {"dataset": "digits", "flow": "mef"}


def rows_of(*experiments: dict[str, Any], **overrides: Any) -> list[TableRow]:
    rows = [{"dataset": "digits", **experiment} for experiment in experiments]
    plan = make_plan(tables={"mine": {"experiments": rows}}, **overrides)
    return list_table_rows(plan.config, "mine")


def test_a_row_a_weight_in_ascending_order_with_a_run_a_seed() -> None:
    rows = rows_of({"lambdas": [100, 0, "1e2"]}, seeds=[0, 3])
    assert [(row.experiment, row.weight, row.prior) for row in rows] == [(0, 0, "fpi"), (0, 100, "fpi")]
    assert rows[0].flow_runs == tuple(Run(**FLOW, prior="baseline", weight=0, seed=seed) for seed in (0, 3))
    assert rows[1].classifier_runs == tuple(
        Run(**FLOW, prior="fpi", weight=100, seed=seed, classifier="resnet18") for seed in (0, 3)
    )
    assert {row.augmentation for row in rows} == {"standard"}


def test_a_flow_alone_has_no_classifier() -> None:
    (row,) = rows_of({"lambdas": [10], "classifier": None, "flow": "glow", "label": "Glow"})
    assert row.runs == (Run(dataset="digits", flow="glow", prior="fpi", weight=10, seed=0),)
    assert (row.flow, row.label, row.classifier, row.augmentation) == ("glow", "Glow", None, None)


def test_a_row_of_real_images_is_about_the_classifier() -> None:
    alone, augmented = rows_of(
        {"prior": None, "classifier": "swin", "augmentation": "none"},
        {"lambdas": [10], "classifier": "swin", "augmentation": "nfa"},
    )
    assert alone.runs == (Run(dataset="digits", seed=0, classifier="swin", augmentation="none"),)
    assert (alone.flow, alone.prior, alone.weight) == (None, None, None)
    assert augmented.runs == (Run(**FLOW, prior="fpi", weight=10, seed=0, classifier="swin", augmentation="nfa"),)
    assert alone.is_trained_on_real_images
    assert augmented.is_trained_on_real_images
