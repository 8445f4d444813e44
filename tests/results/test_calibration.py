"""Bins of the confidence, with their accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from nfpi.results.metrics import BINS, assign_bins, expected_calibration_error


def draw_predictions(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities, (N, K), and labels, (N,)."""
    generator = np.random.default_rng(seed)
    return 3 * generator.standard_normal((n, classes)), generator.integers(classes, size=n)


def test_a_bin_includes_its_upper_bound_and_excludes_its_lower_bound():
    edges = np.arange(1, 16) / 15
    assert BINS == 15
    assert assign_bins(edges).tolist() == list(range(15))
    assert assign_bins(np.nextafter(edges[:-1], 1)).tolist() == list(range(1, 15))
    assert assign_bins(np.array([0.0, 1e-300])).tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_the_ece_is_the_weighted_gap_of_the_bins(seed):
    log_prob, labels = draw_predictions(400, 4, seed)
    posterior = np.exp(log_prob) / np.exp(log_prob).sum(1, keepdims=True)
    confidence = posterior.max(1)
    accuracies, means = calibration_curve(posterior.argmax(1) == labels, confidence, n_bins=BINS)
    _, counts = np.unique(assign_bins(confidence), return_counts=True)
    gap = (counts * abs(accuracies - means)).sum() / 400
    ece = expected_calibration_error(torch.from_numpy(log_prob), torch.from_numpy(labels))
    assert ece == pytest.approx(100 * gap, rel=1e-10)
