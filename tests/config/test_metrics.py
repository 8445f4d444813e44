"""Entries of metrics."""

from __future__ import annotations

import pytest

from nfpi.config.base import ConfigError
from nfpi.config.metrics import METRICS, list_computed_metrics, metric, register_metric


def test_a_computed_metric_has_an_entry_for_classifiers_of_generated_images():
    ece, cnn_ece = metric("ece"), metric("cnn_ece")
    assert cnn_ece.label == "CNN ECE"
    assert (cnn_ece.unit, cnn_ece.higher_is_better, cnn_ece.decimals) == (ece.unit, ece.higher_is_better, ece.decimals)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cnn_naerness", "cnn_nearness"),
        ("cnn_ecce", "cnn_ece"),
        ("cnn_hours", ""),
        ("cnn_", ""),
        ("nf_ece", ""),
        ("fid", "'fid_resnet18' or 'fid_inception'"),
    ],
)
def test_an_unknown_metric_is_refused_and_the_nearest_name_suggested(name, meant):
    register_metric("nearness", lambda log_prob, labels: 0.0, label="Nearness")
    with pytest.raises(ConfigError, match=f"unknown metric '{name}'.*{meant}"):
        metric(name)


def test_those_of_the_project_are_always_computed_and_the_users_when_they_are_shown():
    own = list_computed_metrics()
    assert {"ece", "worst_class_acc"} <= set(own)
    assert list_computed_metrics(["mine", "ece"]) == [*own, "mine"]


def test_a_decorated_function_stays_a_function():
    @register_metric("mine", label="Mine")
    def mine(log_prob, labels):
        return 3.0

    assert mine(None, None) == 3.0
    assert METRICS["mine"].build(None, None) == 3.0
    with pytest.raises(ConfigError, match="metric 'mine'"):
        register_metric("mine", label="Mine")


def test_a_refused_function_leaves_its_name_free():
    with pytest.raises(ConfigError, match="called with"):
        register_metric("refused", label="Refused")(lambda log_prob: 1.0)
    register_metric("refused", label="Refused")(lambda log_prob, labels: 1.0)


@pytest.mark.parametrize("name", ["cnn_mine", "validation_mine", "acc", "", "my metric", "a/b", "a,b", "-a"])
def test_a_name_that_means_something_else_or_cannot_be_written_everywhere_is_refused(name):
    with pytest.raises(ConfigError, match=f"'{name}'"):
        register_metric(name, label="Mine")
    assert name not in METRICS
