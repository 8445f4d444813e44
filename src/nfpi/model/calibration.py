"""What a model learns from validation images: how sure it may be, and how far from its classes their images lie."""

from __future__ import annotations

from typing import Self

import numpy as np

from nfpi.config.base import PositiveFloat
from nfpi.results.statistics.abstention import Thresholds, compute_margins
from nfpi.results.statistics.calibration import fit_temperature
from nfpi.results.statistics.detection import Typicality
from nfpi.runtime.formats import Record

NO_CLASS = -1
"""Prediction for an image for which the model abstains."""


class Calibration(Record):
    """Temperature, thresholds and quantiles of validation images.

    Attributes:
        temperature: τ of p(y | x) = softmax(log p(x | y) / τ).
        thresholds: thresholds of the margin between the two likeliest classes.
        typicality: quantiles of the distance to the nearest class Gaussian.
    """

    temperature: PositiveFloat
    thresholds: Thresholds
    typicality: Typicality

    @classmethod
    def fit(cls, log_prob: np.ndarray, labels: np.ndarray, distance: np.ndarray) -> Self:
        """Fit to validation images.

        Args:
            log_prob: log p(x | y), (N, K).
            labels: indices of classes, (N,).
            distance: (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D to the nearest class, (N,).
        """
        is_correct = log_prob.argmax(1) == labels
        return cls(
            temperature=fit_temperature(log_prob, labels),
            thresholds=Thresholds.from_validation(compute_margins(log_prob), is_correct),
            typicality=Typicality.from_validation(distance),
        )

    def predict(
        self, log_prob: np.ndarray, coverage: float | None, max_risk: float | None = None, delta: float = 0.05
    ) -> np.ndarray:
        """Return argmax_y log p(x | y), or :data:`NO_CLASS` where the margin is too small, (N,).

        Raises:
            ValueError: a share is out of range, or both coverage and risk are given, or neither.
        """
        if (coverage is None) == (max_risk is None):
            raise ValueError("coverage, max_risk: expected one of them, received both or neither")
        if coverage is not None:
            threshold = self.thresholds.find_by_coverage(coverage)
        else:
            assert max_risk is not None
            threshold = self.thresholds.find_by_risk(max_risk, delta)
        return np.where(compute_margins(log_prob) > threshold, log_prob.argmax(1), NO_CLASS)

    def decide(self, log_prob: np.ndarray, distance: np.ndarray, coverage: float) -> np.ndarray:
        """Return `sure`, `not sure` or, for atypical images, `unknown`, (N,)."""
        decisions = np.where(self.predict(log_prob, coverage) == NO_CLASS, "not sure", "sure")
        return np.where(self.typicality.measure(distance) > 1, "unknown", decisions)
