"""Tables whose rows cannot be told apart, or with metrics that no row has, are refused in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nfpi.config import Config, ConfigError
from nfpi.config.tables import select_printed_properties

FLOW: dict[str, Any] = {"dataset": "digits", "lambdas": [10], "classifier": None}
GENERATED: dict[str, Any] = {"dataset": "digits", "lambdas": [10]}
REAL: dict[str, Any] = {"dataset": "digits", "prior": None, "classifier": "swin", "augmentation": "none"}
AUGMENTED: dict[str, Any] = {"dataset": "digits", "lambdas": [10], "classifier": "swin", "augmentation": "nfa"}


def resolve_table(project, *experiments, below=None, **settings) -> Config:
    """Resolve a preset with one table; `below` is the block of this table in the preset that it extends."""
    presets = {"below": {"tables": {} if below is None else {"t": below}}}
    if experiments:
        settings["experiments"] = list(experiments)
    presets["small"] = {"extends": "below", "tables": {"t": settings}}
    return project.resolve_config(presets=presets)


# ---- rows ---------------------------------------------------------------------------------------------------


A, B = {"label": "A"}, {"label": "B"}


@pytest.mark.parametrize(
    ("experiments", "received"),
    [
        ([FLOW | A, FLOW | A], "label 'A' on 'digits' with λ = 10"),
        ([FLOW | A, GENERATED | A], "label 'A' on 'digits' with λ = 10"),
        ([FLOW | A, FLOW | A | {"prior": "mean_only"}], "label 'A' on 'digits' with λ = 10"),
        ([FLOW | A | {"lambdas": [0, 10]}, FLOW | A | {"lambdas": [10, 20]}], "label 'A' on 'digits' with λ = 10"),
        ([FLOW, FLOW], "no label on 'digits' with λ = 10"),
        ([REAL | A, REAL | A | {"augmentation": "standard"}], "label 'A' on 'digits'"),
    ],
)
@pytest.mark.parametrize("best_only", [False, True])
def test_rows_that_cannot_be_told_apart_are_refused(project, experiments, received, best_only):
    expected = (
        "preset small: tables.t.experiments.1: expected a row that can be told apart from that of experiments.0, "
        f"received {received} in both: set another label"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        resolve_table(project, *experiments, metrics=["ece"], best_only=best_only)


@pytest.mark.parametrize(
    "experiments",
    [
        [FLOW | A, FLOW | B],
        [FLOW | A, FLOW | A | {"dataset": "other"}],
        [FLOW | A, FLOW | A | {"lambdas": [0, 20]}],
        [FLOW | A, FLOW | A | {"flow": "glow"}],
        [FLOW, FLOW | {"prior": "mean_only"}],
        [FLOW, GENERATED],
        [REAL, REAL | {"augmentation": "standard"}],
        [FLOW | A, FLOW | A | {"prior": "mean_only"}, FLOW],  # without a label, the prior is printed for all
        [REAL | A, AUGMENTED | A],
    ],
)
def test_rows_may_differ_in_any_column_that_is_printed(project, experiments):
    assert len(resolve_table(project, *experiments, metrics=["ece"]).tables["t"].experiments) == len(experiments)


def test_stored_settings_with_such_rows_are_read(project):
    config = resolve_table(project, FLOW | A, metrics=["nf_acc"]).model_dump(mode="json")
    config["tables"]["t"]["experiments"] *= 2
    config["tables"]["t"]["metrics"] = ["top1"]
    assert len(Config.model_validate(config).tables["t"].experiments) == 2


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


# ---- metrics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "metrics", "received"),
    [
        (FLOW, ["nf_acc", "top1"], "top1, which only classifiers trained on real images have"),
        (FLOW, ["nf_acc", "cnn_acc"], "cnn_acc, which only classifiers trained on generated images have"),
        (FLOW, ["nf_acc", "cnn_ece"], "cnn_ece, which only classifiers trained on generated images have"),
        (FLOW, ["nf_acc", "temperature"], "temperature, which only classifiers trained on generated images have"),
        (FLOW, ["nf_acc", "divergence"], "divergence, which only claims compare"),
        (GENERATED, ["nf_acc", "top5"], "top5, which only classifiers trained on real images have"),
        (REAL, ["top1", "nf_acc"], "nf_acc, which only flows have"),
        (AUGMENTED, ["top1", "parameters"], "parameters, which only flows have"),
        (AUGMENTED, ["top1", "validation_ece"], "validation_ece, which only flows have"),
    ],
)
def test_a_metric_that_no_row_has_is_refused(project, experiment, metrics, received):
    expected = f"preset small: tables.t.metrics: expected metrics that a row of the table has, received {received}"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        resolve_table(project, experiment, metrics=metrics)
    below = {"metrics": ["ece"], "experiments": [experiment]}
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        resolve_table(project, below=below, metrics=metrics)


def test_one_row_that_has_a_metric_is_enough(project):
    metrics = ["nf_acc", "cnn_ece", "top5", "ece"]
    assert resolve_table(project, FLOW, GENERATED, REAL, metrics=metrics).tables["t"].metrics == metrics


def test_metrics_that_were_set_before_the_experiments_may_be_without_a_row(project):
    below = {"metrics": ["nf_acc", "cnn_acc"], "experiments": [GENERATED]}
    assert resolve_table(project, FLOW, below=below).tables["t"].metrics == ["nf_acc", "cnn_acc"]
    assert resolve_table(project, FLOW).tables["t"].metrics == ["nf_acc", "cnn_acc"]  # the default


def test_a_table_without_any_metric_of_its_rows_is_refused(project):
    for below in (None, {"metrics": ["nf_acc", "cnn_acc"], "experiments": [GENERATED]}):
        with pytest.raises(ConfigError, match="received nf_acc, which only flows have"):
            resolve_table(project, REAL, below=below)


def test_a_table_that_was_removed_in_between_inherits_no_metrics(project):
    presets = {
        "first": {"tables": {"t": {"metrics": ["nf_acc", "top1"], "experiments": [FLOW, REAL]}}},
        "second": {"extends": "first", "tables": {"t": None}},
        "third": {"extends": "second", "tables": {"t": {"experiments": [FLOW]}}},
    }
    assert project.resolve_config({"preset": "third"}, presets=presets).tables["t"].metrics == ["nf_acc", "cnn_acc"]


METRICS = """
from nfpi.results import register_metric

register_metric("noted", label="Noted by a stage of one's own")

@register_metric("brier", label="Brier")
def brier(log_prob, labels):
    return 0.0
"""


def test_a_metric_of_ones_own_is_accepted(project):
    extensions = [str(project.write("metrics.py", METRICS))]
    for experiment in (FLOW, GENERATED, REAL, AUGMENTED):
        table = {"metrics": ["brier", "noted"], "experiments": [experiment]}
        assert project.resolve_config(extensions=extensions, tables={"t": table})
    table = {"metrics": ["cnn_brier"], "experiments": [FLOW]}
    with pytest.raises(ConfigError, match="received cnn_brier, which only classifiers trained on generated images"):
        project.resolve_config(extensions=extensions, tables={"t": table})
