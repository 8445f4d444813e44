"""Agreement of predictions with labels: confusion matrix and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfpi.page.pictures import Picture, embed_array
from nfpi.results.metrics.measures import Bin, compute_bins
from nfpi.results.recorded.predictions import read_predictions
from nfpi.results.recorded.records import MetricsError

_LARGEST_TABLE = 16
"""Maximum number of classes for which the confusion matrix is a table of counts; otherwise it is a picture."""
_SHOWN_MISTAKES = 5
"""Maximum number of pairs of class and prediction that are listed as mistakes."""


@dataclass(frozen=True)
class Agreement:
    """Confusion matrix and calibration of predictions.

    Attributes:
        classes: names of the classes.
        counts: number of images by class (rows) and prediction (columns); empty if there is a picture.
        picture: picture of the confusion matrix if there are too many classes for a table.
        mistakes: the most frequent mistakes: class, prediction, number of images.
        bins: non-empty bins of the confidence.
    """

    classes: list[str]
    counts: list[list[int]]
    picture: Picture | None
    mistakes: list[tuple[str, str, int]]
    bins: list[Bin]

    @property
    def shares(self) -> list[list[float]]:
        """`counts` as shares of each class."""
        return [[count / max(1, sum(row)) for count in row] for row in self.counts]


def read_agreement(path: Path, classes: list[str]) -> Agreement:
    """Compute confusion matrix and calibration from predictions.npz.

    Args:
        path: the file.
        classes: names of the classes; if their number differs from that in the file, classes are numbered.

    Raises:
        MetricsError: the file is damaged, does not contain predictions, or they lack `class_log_prob`.
        FormatError: the file marks a divergence, and the metrics.json beside it is damaged.
        Diverged: the run diverged.
        OSError: the file cannot be read.
    """
    predictions = read_predictions(path)
    num_classes = predictions.class_log_prob.shape[1]
    if not num_classes:
        raise MetricsError(f"{path}: expected predictions with class_log_prob, received some without")
    names = classes if len(classes) == num_classes else [str(index) for index in range(num_classes)]
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (predictions.label, predictions.predicted), 1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    most = np.argsort(-wrong, axis=None, kind="stable")[:_SHOWN_MISTAKES]
    pairs = [(int(index // num_classes), int(index % num_classes)) for index in most]
    mistakes = [(names[row], names[column], int(wrong[row, column])) for row, column in pairs if wrong[row, column]]
    is_table = num_classes <= _LARGEST_TABLE
    picture = None if is_table else _draw_counts(counts)
    confidence = np.exp(predictions.class_log_prob.max(1).astype(np.float64)).clip(0, 1)
    bins = compute_bins(confidence, predictions.label == predictions.predicted)
    return Agreement(names, counts.tolist() if is_table else [], picture, mistakes, bins)


def _draw_counts(counts: np.ndarray) -> Picture:
    """Draw the confusion matrix, one pixel per pair of classes, darker for a larger share of the class."""
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    white, blue = np.array([255.0, 255.0, 255.0]), np.array([11.0, 83.0, 148.0])
    pixels = white + np.sqrt(shares)[..., None] * (blue - white)
    return embed_array(
        pixels.round().astype(np.uint8),
        f"Confusion matrix of {len(counts)} classes: a row for each class, a column for each prediction",
    )
