"""Tables with metrics that no row has are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from nfpi.config.base import ConfigError
from nfpi.config.settings import Config

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


@pytest.mark.parametrize(
    ("experiment", "metrics", "received"),
    [
        (FLOW, ["nf_acc", "top1"], "top1"),
        (FLOW, ["nf_acc", "cnn_acc"], "cnn_acc"),
        (FLOW, ["nf_acc", "cnn_ece"], "cnn_ece"),
        (FLOW, ["nf_acc", "temperature"], "temperature"),
        (FLOW, ["nf_acc", "divergence"], "divergence"),
        (GENERATED, ["nf_acc", "top5"], "top5"),
        (REAL, ["top1", "nf_acc"], "nf_acc"),
        (AUGMENTED, ["top1", "parameters"], "parameters"),
        (AUGMENTED, ["top1", "validation_ece"], "validation_ece"),
    ],
)
def test_a_metric_that_no_row_has_is_refused(project, experiment, metrics, received):
    with pytest.raises(ConfigError, match=rf"tables\.t\.metrics: .*{received}"):
        resolve_table(project, experiment, metrics=metrics)
    below = {"metrics": ["ece"], "experiments": [experiment]}
    with pytest.raises(ConfigError, match=rf"tables\.t\.metrics: .*{received}"):
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
        with pytest.raises(ConfigError, match="nf_acc"):
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
    with pytest.raises(ConfigError, match="cnn_brier"):
        project.resolve_config(extensions=extensions, tables={"t": table})
