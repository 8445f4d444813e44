"""Bins of the confidence, with their accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nfpi.results.metrics import BINS, assign_bins, compute_bins, expected_calibration_error
from nfpi.results.statistics.intervals import wilson_interval


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


def test_bins_are_the_mean_confidence_and_accuracy_of_their_images():
    confidence = np.array([0.95, 0.34, 0.99, 0.36, 0.97, 1.0])
    is_correct = np.array([True, False, True, True, False, True])
    low, high = compute_bins(confidence, is_correct)
    assert (low.low, low.high, low.n) == (5 / 15, 6 / 15, 2)
    assert (high.low, high.high, high.n) == (14 / 15, 1.0, 4)
    assert (low.confidence, low.accuracy) == (pytest.approx(0.35), 0.5)
    assert (high.confidence, high.accuracy) == (pytest.approx(0.9775), 0.75)
    assert high.interval == pytest.approx(tuple(bound / 100 for bound in wilson_interval(75, 4)))


def test_without_images_there_are_no_bins():
    assert compute_bins(np.zeros(0), np.zeros(0, dtype=bool)) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_ece_is_the_weighted_gap_of_the_bins(seed):
    log_prob, labels = draw_predictions(400, 4, seed)
    posterior = np.exp(log_prob) / np.exp(log_prob).sum(1, keepdims=True)
    bins = compute_bins(posterior.max(1), posterior.argmax(1) == labels)
    assert sum(bin.n for bin in bins) == 400
    gap = sum(bin.n * abs(bin.accuracy - bin.confidence) for bin in bins) / 400
    ece = expected_calibration_error(torch.from_numpy(log_prob), torch.from_numpy(labels))
    assert ece == pytest.approx(100 * gap, rel=1e-10)
