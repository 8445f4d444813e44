"""Accuracy of predictions in bins of their confidence, the largest posterior max_y p(y | x).

The bins B_1, …, B_15 have equal width: (m − 1) / 15 < confidence ≤ m / 15 in B_m (Guo et al., 2017, "On calibration of
modern neural networks").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nfpi.results.statistics.intervals import wilson_interval

BINS = 15
"""Number of bins."""
_EDGES = np.linspace(0, 1, BINS + 1)


@dataclass(frozen=True)
class Bin:
    """Images whose confidence is in one bin.

    Attributes:
        low, high: bounds of the bin, from 0 to 1.
        n: number of images.
        confidence: mean confidence.
        accuracy: share of correct predictions.
        interval: 95 % interval of the accuracy.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


def assign_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin m − 1 of each image, 0 to 14, (N,) int64.

    Args:
        confidence: max_y p(y | x), from 0 to 1, (N,).
    """
    return np.searchsorted(_EDGES[1:-1], confidence)


def compute_bins(confidence: np.ndarray, is_correct: np.ndarray) -> list[Bin]:
    """Compute mean confidence and accuracy of the bins that have images, in increasing order.

    Args:
        confidence: max_y p(y | x), from 0 to 1, (N,).
        is_correct: whether each prediction is correct, (N,) bool.
    """
    bin_indices = assign_bins(confidence)
    bins = []
    for index in np.unique(bin_indices):
        members = bin_indices == index
        n, accuracy = int(members.sum()), float(is_correct[members].mean())
        low, high = wilson_interval(100 * accuracy, n)
        mean = float(confidence[members].mean())
        bins.append(Bin(float(_EDGES[index]), float(_EDGES[index + 1]), n, mean, accuracy, (low / 100, high / 100)))
    return bins
