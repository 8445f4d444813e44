"""Snakemake's reasons in the words of config.yaml."""

from __future__ import annotations

import json

import pytest

from nfpi.workflow.changes import describe_reason, find_changes

from .conftest import Project

WILDCARDS = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "1000", "seed": "0"}


def reason(before: list[str], now: list[str], more: str = "") -> str:
    """As Snakemake writes it: the values that only one of both calls has, in no order."""
    return (
        "Params have changed since last execution: Union of exclusive params before and now across all output: "
        f"before: {', '.join(map(repr, before))} now: {', '.join(map(repr, now))}{more}"
    )


@pytest.mark.parametrize(
    ("rule", "before", "now", "changes"),
    [
        (
            "train_flow",
            {"epochs": 40, "batch_size": 128},
            {"epochs": 12, "batch_size": 128},
            "training.epochs: 40 → 12",
        ),
        ("train_flow", {"augmentation": "none"}, {"augmentation": "flip"}, "training.augmentation: none → flip"),
        ("train_flow", {"kind": "glow", "depth": 3}, {"kind": "glow", "depth": 4}, "flows.mef.depth: 3 → 4"),
        ("fit_prior", {"tolerance": 0.1}, {"tolerance": 0.2}, "priors.fpi.tolerance: 0.1 → 0.2"),
        ("fit_prior", {"damping": {"first": 1}}, {"damping": {"first": 2}}, "priors.fpi.damping.first: 1 → 2"),
        ("draw_figure1", {"points": 3}, {"points": None}, "figures.figure1.points: 3 → null"),
        ("train_flow", {"method": "gmm", "rate": 1}, {"method": "gmm", "rate": 2}, "priors.fpi.rate: 1 → 2"),
        ("draw_figure2", {"nfa": {"axes": 3}}, {"nfa": {"axes": 4}}, "nfa.axes: 3 → 4"),
        (
            "judge_claims",
            {"one": {"statement": "a", "comparisons": []}},
            {"one": {"statement": "b", "comparisons": []}},
            "claims.one.statement: a → b",
        ),
        ("judge_claims", {"t": {"best_by": None}}, {"t": {"best_by": "ece"}}, "tables.t.best_by: null → ece"),
        ("table", {"rows": [{"a": 1}, {"a": 2}]}, {"rows": [{"a": 1}, {"a": 3}]}, "tables.table.rows.1.a: 2 → 3"),
        ("table", {"rows": [{"a": 1}]}, {"rows": [{"a": 1}, {"a": 3}]}, "tables.table.rows: 1 entry → 2 entries"),
        ("evaluate", {"batch_size": 3, "bins": 5}, {"bins": 5}, "evaluation.batch_size: 3 → null"),
        (
            "table",
            {"title": "Before: now: 'A'; B"},
            {"title": "Now; C now: 'A'"},
            "tables.table.title: Before: now: 'A'; B → Now; C now: 'A'",
        ),
    ],
)
def test_a_changed_setting_is_named_as_in_the_config(rule, before, now, changes) -> None:
    text = reason([json.dumps(before)], [json.dumps(now)])
    assert find_changes(text, rule, WILDCARDS) == [changes]
    assert describe_reason(text, rule, WILDCARDS) == f"Settings have changed: {changes}"


def test_tables_of_claims_and_their_rows_are_not_taken_for_one_another() -> None:
    before = [json.dumps({"t": {"best_by": None}}), json.dumps({"t": [{"lambda": 1}]})]
    now = [json.dumps({"t": [{"lambda": 2}]}), json.dumps({"t": {"best_by": "ece"}})]
    described = describe_reason(reason(before, now), "judge_claims", WILDCARDS)
    assert described == "Settings and other params have changed: tables.t.best_by: null → ece"


def test_what_follows_in_a_reason_is_kept() -> None:
    text = reason(['{"epochs": 1}'], ['{"epochs": 2}'], "; Input files updated by another job: a.csv")
    assert describe_reason(text, "train_flow", WILDCARDS) == (
        "Settings have changed: training.epochs: 1 → 2; Input files updated by another job: a.csv"
    )


def test_other_params_that_changed_too_are_mentioned() -> None:
    text = reason(['{"epochs": 1}', "3 files"], ['{"epochs": 2}', "4 files"])
    described = describe_reason(text, "train_flow", WILDCARDS)
    assert described == "Settings and other params have changed: training.epochs: 1 → 2"


def test_input_files_of_a_figure_are_other_params() -> None:
    text = reason(['{"points": 1}', '{"model": "a/b"}'], ['{"points": 2}', '{"model": "a/c"}'])
    described = describe_reason(text, "draw_figure1", WILDCARDS)
    assert described == "Settings and other params have changed: figures.figure1.points: 1 → 2"


def test_changed_input_files_of_a_figure_are_no_settings() -> None:
    text = reason(['{"model": "a/b"}'], ['{"model": "a/c"}'])
    assert find_changes(text, "draw_figure2", WILDCARDS) == []


@pytest.mark.parametrize(
    "text",
    [
        "Missing output files: a.csv",
        "Code has changed since last execution",
        reason(["a digest"], ["another digest"]),
        reason(["--metrics", "brier"], []),
    ],
)
def test_other_reasons_stay_as_they_are(text) -> None:
    assert find_changes(text, "train_flow", WILDCARDS) == []
    assert describe_reason(text, "train_flow", WILDCARDS) == text


def test_a_dry_run_names_the_setting_of_the_real_reason(finished_project: Project) -> None:
    text = finished_project.run_snakemake("table2", "--dry-run", "--config", "training={epochs: 12}").stdout
    assert "Reason: Settings have changed: training.epochs: 40 → 12\n" in text
    assert "Params have changed" not in text
