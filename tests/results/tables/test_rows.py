"""Rows of tables with the runs behind each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nfpi.config.base import ConfigError
from nfpi.config.datasets import DatasetBlock
from nfpi.config.metrics import METRICS
from nfpi.config.settings import Config
from nfpi.results import register_metric
from nfpi.results.tables.columns import check_tables, select_printed_properties
from nfpi.results.tables.rows import TableRow, compute_split_ratio, find_best_flow, list_table_rows
from nfpi.runs import Run, parse_run_folder

FLOW = {"dataset": "digits", "flow": "mef", "prior": "fpi"}


def test_an_experiment_has_a_row_a_weight_with_a_run_a_seed(make_rows):
    rows = make_rows(
        {**FLOW, "lambdas": [1e3, 0, "1e3"], "label": "x"}, {**FLOW, "lambdas": [5], "classifier": None}, seeds=(1, 2)
    )
    assert [(row.experiment, row.weight) for row in rows] == [(0, 0), (0, 1e3), (1, 5)]
    assert rows[0].flow_runs == tuple(
        Run(dataset="digits", flow="mef", prior="baseline", weight=0, seed=s) for s in (1, 2)
    )
    assert rows[1].flow_runs == tuple(Run(**FLOW, weight=1e3, seed=s) for s in (1, 2))
    assert rows[1].classifier_runs == tuple(Run(**FLOW, weight=1e3, seed=s, classifier="resnet18") for s in (1, 2))
    assert rows[2].classifier_runs == ()
    assert (rows[0].label, rows[0].prior, rows[0].classifier) == ("x", "fpi", "resnet18")


@pytest.mark.parametrize(("chosen_by", "best"), [("validation_nf_acc", 10), ("validation_bits_per_dim", 0)])
def test_the_best_flow_has_the_largest_accuracy_or_the_fewest_bits(make_config, tmp_path: Path, chosen_by, best):
    config = make_config({**FLOW, "lambdas": [0, 10], "classifier": None})
    (name,) = config.tables
    for row in list_table_rows(config, name):
        (tmp_path / row.flow_runs[0].folder / "model").mkdir(parents=True)
    values = {"experiment": 0, "lambda": [0, 10], "validation": [3.0, 5.0], "chosen_by": chosen_by}
    found = find_best_flow(tmp_path, config, {name: pd.DataFrame(values)})
    assert found is not None
    assert found.weight == best


def test_a_row_about_a_classifier_of_real_images_has_no_run_of_a_flow(make_rows):
    alone, augmented = make_rows(
        {"dataset": "digits", "prior": None, "classifier": "swin"},
        {**FLOW, "lambdas": [10], "classifier": "swin", "augmentation": "nfa"},
    )
    assert alone.runs == (Run(dataset="digits", seed=0, classifier="swin", augmentation="standard"),)
    assert augmented.runs == (Run(**FLOW, weight=10, seed=0, classifier="swin", augmentation="nfa"),)
    assert alone.is_trained_on_real_images
    assert augmented.is_trained_on_real_images
    assert (alone.flow, alone.prior, alone.weight) == (None, None, None)
    assert (augmented.flow, augmented.prior, augmented.weight) == ("mef", "fpi", 10)


def test_a_row_has_runs_of_the_reference_and_of_the_samples_where_the_table_names_their_metrics(make_config):
    config = make_config(
        {**FLOW, "lambdas": [10], "refit": "moments"},
        {**FLOW, "lambdas": [10], "classifier": None},
        {"dataset": "digits", "prior": None, "classifier": "swin"},
        seeds=(1, 2),
        metrics=["nf_acc", "cnn_acc", "real_acc", "fid_resnet18"],
    )
    row, *others = list_table_rows(config, "t")
    of_classifier = {"classifier": "resnet18", "augmentation": "standard"}
    assert row.reference_runs == tuple(Run(dataset="digits", seed=seed, **of_classifier) for seed in (1, 2))
    flow = {**FLOW, "prior": "fpi+moments", "weight": 10}
    assert row.sample_runs == tuple(Run(**flow, seed=seed, **of_classifier) for seed in (1, 2))
    assert row.runs == row.flow_runs + row.classifier_runs + row.reference_runs + row.sample_runs
    for run in row.sample_runs:
        assert run.measures_samples
        assert run.without_flow in row.reference_runs
        assert parse_run_folder(run.folder) == run
    assert not any(other.reference_runs + other.sample_runs for other in others)
    assert TableRow.model_validate_json(row.model_dump_json()) == row
    assert row.with_seeds([2]).sample_runs == row.sample_runs[1:]


def test_a_claim_on_such_a_metric_needs_its_runs_too(make_config):
    config = make_config({**FLOW, "lambdas": [0, 10]})
    rows = {"first": {"table": "t", "lambda": 10}, "second": {"lambda": 0}}
    claims = {"c": {"statement": "better", "comparisons": [{**rows, "metric": "gan_test", "smallest_effect": 1}]}}
    settings = config.model_dump() | {"claims": claims}
    assert all(row.sample_runs for row in list_table_rows(Config.model_validate(settings), "t"))


PER_SEED = {"split_seed": "per_seed"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({**PER_SEED, "test_fraction": 0.2, "validation_fraction": 0.2}, 0.2 / 0.64),
        ({**PER_SEED, "test_fraction": 0.2, "validation_fraction": 0.2, "refit": True}, 0.25),
        ({"test_fraction": 0.2, "split_seed": 3}, 0.0),
        ({**PER_SEED, "source": "cifar10"}, 0.0),
        ({**PER_SEED, "source": "imagefolder", "folder": "x", "test_fraction": 0.5, "validation_fraction": 0.5}, 2.0),
        ({**PER_SEED, "source": "imagefolder", "folder": "x", "real_labels": True}, 0.0),
    ],
    ids=["digits", "refit", "common splits", "a test split", "unknown", "ImageNet"],
)
def test_splits_overlap_if_seeds_draw_them_from_the_same_images(settings, expected):
    assert compute_split_ratio(DatasetBlock(**settings)) == pytest.approx(expected, rel=1e-12)


def test_a_row_has_the_ratio_of_its_data_set(make_config):
    config = make_config({**FLOW, "lambdas": [1]}, {**FLOW, "dataset": "digits_8x8", "lambdas": [1]})
    own = config.model_dump() | {"datasets": {"digits": {}, "digits_8x8": PER_SEED}}
    rows = list_table_rows(Config.model_validate(own), "t")
    assert [row.split_ratio for row in rows] == pytest.approx([0, 0.2 / 0.8 / 0.95])
    assert [TableRow.model_validate_json(row.model_dump_json()) for row in rows] == rows
    assert rows[1].with_seeds([4, 5]).split_ratio == rows[1].split_ratio


# ---- rows that can be told apart ------------------------------------------------------------------------------


ALONE = {"dataset": "digits", "lambdas": [10], "classifier": None}
GENERATED = {"dataset": "digits", "lambdas": [10]}
REAL = {"dataset": "digits", "prior": None, "classifier": "swin", "augmentation": "none"}
AUGMENTED = {"dataset": "digits", "lambdas": [10], "classifier": "swin", "augmentation": "nfa"}
A, B = {"label": "A"}, {"label": "B"}


@pytest.mark.parametrize(
    "experiments",
    [
        [ALONE | A, ALONE | A],
        [ALONE | A, GENERATED | A],
        [ALONE | A | {"lambdas": [0, 10]}, ALONE | A | {"lambdas": [10, 20]}],
        [ALONE, ALONE],
        [REAL | A, REAL | A | {"augmentation": "standard"}],
    ],
)
@pytest.mark.parametrize("best_only", [False, True])
def test_rows_that_cannot_be_told_apart_are_refused(make_config, experiments, best_only):
    with pytest.raises(ConfigError, match=r"tables\.t\.experiments\.1: .*experiments\.0, .*'digits'") as error:
        check_tables(make_config(*experiments, metrics=["ece"], best_only=best_only))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "experiments",
    [
        [ALONE | A, ALONE | B],
        [ALONE | A, ALONE | A | {"dataset": "cifar10"}],
        [ALONE | A, ALONE | A | {"lambdas": [0, 20]}],
        [ALONE | A, ALONE | A | {"flow": "glow"}],
        [ALONE, ALONE | {"prior": "mean_only"}],
        [ALONE, GENERATED],
        [REAL, REAL | {"augmentation": "standard"}],
        [ALONE | A, ALONE | A | {"prior": "mean_only"}, ALONE],  # without a label, the prior is printed for all
        [REAL | A, AUGMENTED | A],
    ],
)
def test_rows_may_differ_in_any_column_that_is_printed(make_config, experiments):
    check_tables(make_config(*experiments, metrics=["ece"]))


def test_the_backbone_is_printed_unless_the_labels_tell_it():
    columns = {name: ["x", "x"] for name in ("prior", "classifier", "augmentation")}
    for labels, flows, printed in (
        (["A", "A"], ["mef", "glow"], ["flow"]),
        (["A", "B"], ["mef", "glow"], []),
        (["A", "B"], ["mef", "mef"], []),
        (["A", ""], ["mef", "glow"], ["flow"]),
        (["A", "A"], ["mef", ""], []),  # a row without a flow
    ):
        assert select_printed_properties({"row": labels, "flow": flows, **columns}) == printed


@pytest.mark.parametrize(
    "name",
    ["best", "lambda", "status", "validation", "paper_mine", "mine_std", "mine_p", "mine_difference", "nf_acc_seeds"],
)
def test_a_metric_with_the_name_of_another_column_is_refused(make_config, name):
    register_metric(name, label="Own")
    try:
        with pytest.raises(ConfigError, match=f"'{name}'"):
            check_tables(make_config(ALONE, metrics=[name]))
    finally:
        METRICS.remove(name)
