"""Metrics computed from log-probabilities and labels."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nfpi.config.base import ConfigError
from nfpi.config.metrics import METRICS
from nfpi.results.metrics import (
    compute_metrics,
    expected_calibration_error,
    per_class_accuracy,
    worst_class_accuracy,
)
from nfpi.results.recorded.records import MetricsError


def drawn(n: int, classes: int, seed: int, *, sharpness: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_prob = sharpness * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return log_prob, torch.randint(classes, (n,), generator=generator)


def confidences_of(values: list[float]) -> Tensor:
    """log-probabilities of two classes, the first of which has these posteriors."""
    first = torch.tensor(values, dtype=torch.float64)
    return torch.stack([first, 1 - first], 1).log()


@pytest.mark.parametrize("seed", range(3))
def test_ece_is_its_definition(seed):
    log_prob, labels = drawn(500, 7, seed)
    posteriors = log_prob.softmax(1).tolist()
    ece = 0.0
    for m in range(15):
        inside = [
            (max(row), row.index(max(row)) == label)
            for row, label in zip(posteriors, labels.tolist(), strict=True)
            if m / 15 < max(row) <= (m + 1) / 15
        ]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(value for value, _ in inside) / len(inside)
            ece += len(inside) / len(labels) * abs(accuracy - confidence)
    assert expected_calibration_error(log_prob, labels) == pytest.approx(100 * ece, rel=1e-12)
    assert expected_calibration_error(log_prob, labels.to(torch.uint8)) == pytest.approx(100 * ece, rel=1e-12)


def test_ece_of_what_is_calibrated_is_zero_and_of_what_is_sure_and_wrong_a_hundred():
    labels = torch.tensor([0, 0, 0, 1])
    assert expected_calibration_error(confidences_of([0.75] * 4), labels) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(confidences_of([1.0] * 4), labels) == pytest.approx(25)
    assert expected_calibration_error(confidences_of([1.0] * 4), torch.ones(4, dtype=torch.int64)) == pytest.approx(100)


def test_ece_is_computed_where_its_inputs_are():
    """Another device is the default here: what is made without naming one would not meet the inputs."""
    log_prob, labels = drawn(50, 3, 0)
    expected = expected_calibration_error(log_prob, labels)
    with torch.device("meta"):
        assert expected_calibration_error(log_prob, labels) == expected


def test_a_constant_of_each_image_does_not_matter():
    """log p(x | y) of a flow is not normalised over classes, and may be far from 0."""
    log_prob, labels = drawn(200, 5, 0)
    shift = 1e4 * torch.randn(200, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert expected_calibration_error(log_prob + shift, labels) == pytest.approx(
        expected_calibration_error(log_prob, labels), rel=1e-6
    )
    assert torch.equal(per_class_accuracy(log_prob + shift, labels), per_class_accuracy(log_prob, labels))


def test_accuracies_of_the_classes_average_to_the_accuracy():
    log_prob, labels = drawn(300, 6, 2)
    accuracies, count = per_class_accuracy(log_prob, labels), labels.bincount(minlength=6)
    assert accuracies.shape == (6,)
    assert float((accuracies * count).sum() / 300) == pytest.approx(
        100 * float((log_prob.argmax(1) == labels).double().mean())
    )
    assert worst_class_accuracy(log_prob, labels) == float(accuracies.min())


def test_a_class_without_images_has_no_accuracy():
    log_prob = torch.eye(4, dtype=torch.float64)[torch.tensor([0, 0, 1])]
    accuracies = per_class_accuracy(log_prob, torch.tensor([0, 1, 1]))
    assert accuracies[:2].tolist() == [100.0, 50.0]
    assert accuracies[2:].isnan().all()
    assert worst_class_accuracy(log_prob, torch.tensor([0, 1, 1])) == 50.0


def compute_as_mine(monkeypatch, function):
    """Register a function as the metric `mine` until the test ends."""
    monkeypatch.setitem(METRICS._variants, "mine", replace(METRICS["ece"], builder=function))


def test_a_metric_that_works_in_place_changes_nothing_else(monkeypatch):
    def overwrite(log_prob, labels):
        return float(log_prob.exp_().sum() + labels.zero_().sum())

    compute_as_mine(monkeypatch, overwrite)
    log_prob, labels = drawn(100, 3, 0)
    before = log_prob.clone(), labels.clone()
    values = compute_metrics(["mine", "ece"], log_prob, labels)
    assert torch.equal(log_prob, before[0])
    assert torch.equal(labels, before[1])
    assert values["ece"] == expected_calibration_error(log_prob, labels)


def test_what_is_recorded_or_unknown_is_not_computed():
    log_prob, labels = drawn(10, 3, 0)
    with pytest.raises(MetricsError, match="metric 'hours'"):
        compute_metrics(["hours"], log_prob, labels)
    with pytest.raises(ConfigError, match=r"unknown metric 'eec' \(did you mean 'ece'\?\)"):
        compute_metrics(["eec"], log_prob, labels)


def test_a_metric_that_is_no_number_is_refused(monkeypatch):
    for wrong in (math.nan, torch.zeros(10), [0, 1]):
        compute_as_mine(monkeypatch, lambda log_prob, labels, wrong=wrong: wrong)
        with pytest.raises(MetricsError, match="metric 'mine'"):
            compute_metrics(["mine"], *drawn(10, 3, 0))


@pytest.mark.parametrize(("log_prob", "labels"), [((4, 3), (5,)), ((4,), (4,)), ((4, 3), (4, 1)), ((0, 3), (0,))])
def test_shapes_that_do_not_fit_are_refused(log_prob, labels):
    with pytest.raises(ValueError, match="log_prob"):
        expected_calibration_error(torch.zeros(log_prob), torch.zeros(labels, dtype=torch.int64))


@pytest.mark.parametrize("seed", range(3))
def test_nll_and_brier_score_are_those_of_scikit_learn(seed):
    from sklearn.metrics import brier_score_loss, log_loss

    log_prob, labels = drawn(400, 5, seed)
    probability = log_prob.softmax(1).numpy()
    found = compute_metrics(["nll", "brier"], log_prob, labels)
    assert found["nll"] == pytest.approx(log_loss(labels, probability), abs=1e-9)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probability), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_aurc_is_the_mean_error_above_every_threshold(seed):
    log_prob, labels = drawn(300, 4, seed)
    best, second = log_prob.topk(2, 1).values.T
    wrong = (log_prob.argmax(1) != labels).double()
    risks = [float(wrong[best - second >= threshold].mean()) for threshold in best - second]
    assert compute_metrics(["aurc"], log_prob, labels)["aurc"] == pytest.approx(100 * sum(risks) / 300, abs=1e-9)
    sharper = compute_metrics(["aurc"], 50 * log_prob, labels)["aurc"]
    assert sharper == pytest.approx(100 * sum(risks) / 300, abs=1e-9)


def test_calibrated_metrics_are_those_of_the_divided_log_probabilities():
    log_prob, labels = drawn(100, 3, 0)
    names = ["ece", "nll", "brier"]
    divided = compute_metrics(names, log_prob / 4, labels)
    calibrated = compute_metrics([f"{name}_calibrated" for name in names], log_prob, labels, 4.0)
    assert calibrated == {f"{name}_calibrated": value for name, value in divided.items()}
    assert compute_metrics(["nll_calibrated"], log_prob, labels) == {}
