"""Metrics computed from log-probabilities and labels of images.

`log_prob` (N, K) is log p(x | y) of a flow or the log-softmax of a classifier; under equal class frequencies the
posterior of both is softmax(log_prob). A function below `register_metric` is a metric of tables and claims.

The confidence of a prediction is the largest posterior max_y p(y | x). Its bins B_1, …, B_15 have equal width:
(m − 1) / 15 < confidence ≤ m / 15 in B_m (Guo et al., 2017, "On calibration of modern neural networks").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nfpi.config.metrics import METRICS, Metric, metric, register_metric
from nfpi.results.recorded.records import MetricsError, to_finite_float

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = [
    "Metric",
    "assign_bins",
    "compute_metrics",
    "expected_calibration_error",
    "metric",
    "per_class_accuracy",
    "register_metric",
    "worst_class_accuracy",
]

BINS = 15
"""Number of bins."""


def compute_metrics(
    names: Iterable[str], log_prob: Tensor, labels: Tensor, temperature: float | None = None
) -> dict[str, float]:
    """Compute metrics.

    Each function receives copies of the tensors, so that one that works in place changes nothing else.

    Args:
        names: names of computed metrics (:func:`nfpi.config.list_computed_metrics`).
        log_prob: (N, K).
        labels: indices of classes, (N,).
        temperature: τ, by which calibrated metrics divide log p; None: they are left out.

    Raises:
        ConfigError: unknown metric.
        MetricsError: a value is not finite, or a metric is recorded by a stage and cannot be computed.
        ValueError: inconsistent shapes, or no images.
    """
    _check(log_prob, labels)
    values = {}
    for name in names:
        entry = METRICS[name]
        if entry.builder is None:
            raise MetricsError(f"metric '{name}': expected one that is computed, received one that stages record")
        if not entry.traits["metric"].is_calibrated:
            given = log_prob.clone()
        elif temperature is None:
            continue
        else:
            given = log_prob / temperature
        values[name] = to_finite_float(entry.build(given, labels.clone()), f"metric '{name}'")
    return values


@register_metric(
    "ece", label="ECE", unit="%", higher_is_better=False, decimals=2, meaning="expected calibration error, 15 bins"
)
def expected_calibration_error(log_prob: Tensor, labels: Tensor) -> float:
    """Compute ECE = Σ_m |B_m| / N · |accuracy(B_m) − confidence(B_m)| in percent.

    Args:
        log_prob: (N, K).
        labels: indices of classes, (N,).
    """
    _check(log_prob, labels)
    confidence, predicted = log_prob.detach().double().softmax(1).max(1)
    correct = (predicted == labels).double()
    bins = predicted.new_tensor(assign_bins(confidence.cpu().numpy()))
    gaps = confidence.new_zeros(BINS)
    gaps.index_add_(0, bins, correct - confidence)  # the sum over B_m is |B_m| · (accuracy − confidence)
    return float(100 * gaps.abs().sum() / len(labels))


def per_class_accuracy(log_prob: Tensor, labels: Tensor) -> Tensor:
    """Compute the accuracy on the images of each class in percent, (K,); NaN for a class without images.

    Args:
        log_prob: (N, K).
        labels: indices of classes, (N,).
    """
    _check(log_prob, labels)
    classes = log_prob.shape[1]
    correct = labels[log_prob.argmax(1) == labels]
    return 100 * correct.bincount(minlength=classes).double() / labels.bincount(minlength=classes)


@register_metric("nll", label="NLL", higher_is_better=False, decimals=3, meaning="mean of −log p(y | x), in nats")
def negative_log_likelihood(log_prob: Tensor, labels: Tensor) -> float:
    """Compute the mean of −log p(y | x) in nats, with the class y of the image.

    Args:
        log_prob: (N, K).
        labels: indices of classes, (N,).
    """
    return float(-log_prob.double().log_softmax(1).gather(1, labels.long()[:, None]).mean())


@register_metric(
    "brier", label="Brier", higher_is_better=False, decimals=3, meaning="mean of Σ_k (p(k | x) − [k = y])², 0 to 2"
)
def brier_score(log_prob: Tensor, labels: Tensor) -> float:
    """Compute the mean over images of Σ_k (p(k | x) − [k = y])², 0 (certain and right) to 2 (Brier, 1950).

    Args:
        log_prob: (N, K).
        labels: indices of classes, (N,).
    """
    probability, truth = log_prob.double().softmax(1), labels.long()[:, None]
    gaps = probability.scatter_add(1, truth, -probability.new_ones(truth.shape))
    return float(gaps.square().sum(1).mean())


@register_metric(
    "aurc",
    label="AURC",
    unit="%",
    higher_is_better=False,
    decimals=2,
    meaning="mean error of the n images with the largest margins, over n = 1, …, N",
)
def area_under_risk_coverage(log_prob: Tensor, labels: Tensor) -> float:
    """Compute (1/N) Σ_n risk_n in percent, with risk_n the share of errors among the n images of largest margin.

    Images are ordered by the margin of :mod:`nfpi.results.statistics.abstention`, which no temperature changes.

    Args:
        log_prob: (N, K).
        labels: indices of classes, (N,).
    """
    from nfpi.results.statistics.abstention import compute_margins, compute_risks

    is_correct = (log_prob.argmax(1) == labels).cpu().numpy()
    return float(100 * compute_risks(compute_margins(log_prob.double().cpu().numpy()), is_correct).mean())


for _name in ("ece", "nll", "brier"):
    _label = metric(_name).label
    _changes: dict[str, Any] = {"label": f"{_label} after τ", "meaning": f"{_label} of softmax(log p(x | y) / τ)"}
    _entry = replace(metric(_name), name=f"{_name}_calibrated", is_calibrated=True, **_changes)
    METRICS.register(_entry.name, builder=METRICS[_name].builder, metric=_entry)


@register_metric(
    "worst_class_acc",
    label="Worst class",
    unit="%",
    higher_is_better=True,
    meaning="lowest accuracy of a class",
    group="accuracy",
)
def worst_class_accuracy(log_prob: Tensor, labels: Tensor) -> float:
    """Compute the lowest per-class accuracy, in percent.

    Args:
        log_prob: (N, K).
        labels: indices of classes, (N,).
    """
    accuracies = per_class_accuracy(log_prob, labels)
    return float(accuracies[~accuracies.isnan()].min())


def _check(log_prob: Tensor, labels: Tensor) -> None:
    if log_prob.ndim != 2 or labels.shape != log_prob.shape[:1] or not len(labels):
        raise ValueError(
            "expected log_prob (N, K) and labels (N,), N ≥ 1, received "
            f"{tuple(log_prob.shape)} and {tuple(labels.shape)}"
        )


# ---- bins of the confidence -----------------------------------------------------------------------------------


def assign_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin m − 1 of each image, 0 to 14, (N,) int64.

    Args:
        confidence: max_y p(y | x), from 0 to 1, (N,).
    """
    import numpy as np

    return np.searchsorted(np.arange(1, BINS) / BINS, confidence)
