"""Metrics computed from log-probabilities and labels of images.

`log_prob` (N, K) is log p(x | y) of a flow or the log-softmax of a classifier; under equal class frequencies the
posterior of both is softmax(log_prob).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nfpi.config.metrics import METRICS
from nfpi.results.metrics.calibration import BINS, assign_bins
from nfpi.results.recorded.records import MetricsError, to_finite_float


def compute_metrics(names: Iterable[str], log_prob: Tensor, labels: Tensor) -> dict[str, float]:
    """Compute metrics.

    Each function receives copies of the tensors, so that one that works in place changes nothing else.

    Args:
        names: names of computed metrics (:func:`nfpi.config.list_computed_metrics`).
        log_prob: (N, K).
        labels: indices of classes, (N,).

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
        values[name] = to_finite_float(entry.build(log_prob.clone(), labels.clone()), f"metric '{name}'")
    return values


def expected_calibration_error(log_prob: Tensor, labels: Tensor) -> float:
    """Compute ECE = Σ_m |B_m| / N · |accuracy(B_m) − confidence(B_m)| in percent.

    The bins B_m of the confidence are those of :mod:`nfpi.results.metrics.calibration`: 15 of equal width.

    Args:
        log_prob: (N, K).
        labels: indices of classes, (N,).
    """
    _check(log_prob, labels)
    confidence, predicted = log_prob.detach().double().softmax(1).max(1)
    correct = (predicted == labels).double()
    bins = torch.from_numpy(assign_bins(confidence.cpu().numpy())).to(log_prob.device)
    gaps = torch.zeros(BINS, dtype=torch.float64, device=log_prob.device)
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
