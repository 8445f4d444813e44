"""Detection of images of none of the classes, by scores that are larger the less an image fits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import numpy as np

from nfpi.config.base import PositiveFloat
from nfpi.runtime.formats import Record

_QUANTILES = (0.05, 0.5, 0.95)
_KNOWN = 0.99
"""share of validation images with an atypicality of at most 1"""
_SMALLEST = 1e-6
"""smallest distance between two quantiles, relative to the median; tied ones are that far apart"""


class Typicality(Record):
    """Quantiles of the distance of validation images to the nearest class Gaussian, (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D.

    Images of none of the classes may be too far from all Gaussians or, if they are smooth, too close to a mean: the
    density is largest there, although hardly any image of the classes lies there (Nalisnick et al., 2019, "Do deep
    generative models know what they don't know?", and "Detecting out-of-distribution inputs using typicality").

    Attributes:
        low, median, high: 5 %, 50 % and 95 % quantiles of the distance.
        limit: 99 % quantile of the deviation from the median, relative to that of the quantile on the same side.
    """

    low: float
    median: float
    high: float
    limit: PositiveFloat

    @classmethod
    def from_validation(cls, distance: np.ndarray) -> Self:
        """Compute the quantiles of the distances (N,) of validation images."""
        low, median, high = np.quantile(distance, _QUANTILES).tolist()
        found = cls(low=low, median=median, high=high, limit=1.0)
        limit = float(np.quantile(found.measure(distance), _KNOWN))
        return found.model_copy(update={"limit": limit or 1.0})  # 0: all distances are tied

    def measure(self, distance: np.ndarray) -> np.ndarray:
        """Compute the atypicality of images from their distances, (N,): above 1 for 1 % of the validation images."""
        deviation = distance - self.median
        scale = np.where(deviation > 0, self.high - self.median, self.median - self.low)
        scale = np.maximum(scale, _SMALLEST * self.median or 1.0)
        atypicality: np.ndarray = np.abs(deviation) / scale / self.limit
        return atypicality


def measure_detection(scores: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Compute the metrics auroc_… and fpr95_… of scores by name, each for known (N,) and unknown images (M,)."""
    found = {f"auroc_{name}": compute_auroc(*of_images) for name, of_images in scores.items()}
    return found | {f"fpr95_{name}": compute_fpr95(*of_images) for name, of_images in scores.items()}


def compute_auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Compute P(score of an unknown image > that of a known one), plus half of P(equal), in percent.

    Args:
        known: scores of images of the classes, (N,).
        unknown: scores of other images, (M,).
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([known, unknown]))[len(known) :].sum()
    return float(100 * (ranks - len(unknown) * (len(unknown) + 1) / 2) / (len(known) * len(unknown)))


def compute_fpr95(known: np.ndarray, unknown: np.ndarray) -> float:
    """Compute the share of unknown images, in percent, below the smallest limit that keeps 95 % of the known ones.

    Args:
        known: scores of images of the classes, (N,).
        unknown: scores of other images, (M,).
    """
    limit = np.sort(known)[math.ceil(0.95 * len(known)) - 1]
    return float(100 * (unknown <= limit).mean())
