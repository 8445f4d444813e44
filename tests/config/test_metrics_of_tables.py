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
    ("experiment", "metric"),
    [
        *((FLOW, name) for name in ("top1", "cnn_ece", "temperature", "gan_test", "real_acc", "divergence")),
        (GENERATED, "top5"),
        *((REAL, name) for name in ("nf_acc", "fid_resnet18")),
        *((AUGMENTED, name) for name in ("parameters", "validation_ece")),
    ],
)
def test_a_table_of_a_metric_that_no_row_has_is_refused(project, experiment, metric):
    with pytest.raises(ConfigError, match=rf"tables\.t\.metrics: .*{metric}"):
        resolve_table(project, experiment, metrics=[metric])
    below = {"metrics": ["ece"], "experiments": [experiment]}
    with pytest.raises(ConfigError, match=rf"tables\.t\.metrics: .*{metric}"):
        resolve_table(project, below=below, metrics=[metric])


def test_one_row_that_has_a_metric_is_enough(project):
    metrics = ["nf_acc", "cnn_ece", "top5", "ece"]
    assert resolve_table(project, FLOW, GENERATED, REAL, metrics=metrics).tables["t"].metrics == metrics


def test_rows_without_a_classifier_have_the_metrics_of_the_flow_whatever_the_augmentation(project):
    (experiment,) = resolve_table(project, FLOW | {"augmentation": "nfa"}, metrics=["nf_acc"]).tables["t"].experiments
    assert experiment.models == ["flow"]


def test_a_table_without_any_metric_of_its_rows_is_refused(project):
    for below in (None, {"metrics": ["nf_acc", "cnn_acc"], "experiments": [GENERATED]}):
        with pytest.raises(ConfigError, match="nf_acc"):
            resolve_table(project, REAL, below=below)


METRICS = """
from nfpi.results import register_metric

register_metric("noted", label="Noted by a stage of one's own")

@register_metric("sureness", label="Sureness")
def sureness(log_prob, labels):
    return 0.0
"""


def test_a_metric_of_ones_own_is_accepted(project):
    extensions = [str(project.write("metrics.py", METRICS))]
    for experiment in (FLOW, GENERATED, REAL, AUGMENTED):
        table = {"metrics": ["sureness", "noted"], "experiments": [experiment]}
        assert project.resolve_config(extensions=extensions, tables={"t": table})
    table = {"metrics": ["cnn_sureness"], "experiments": [FLOW]}
    with pytest.raises(ConfigError, match="cnn_sureness"):
        project.resolve_config(extensions=extensions, tables={"t": table})
