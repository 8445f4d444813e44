"""Calibration by a temperature (Guo et al., 2017, "On calibration of modern neural networks").

The class probabilities are p(y | x) = softmax_y(log p(x | y) / τ). τ > 1 makes a model less sure; its predictions stay.
"""

from __future__ import annotations

import logging

import numpy as np

logger = logging.getLogger(__name__)

_LARGEST = 10.0
"""Largest |log τ|, as in scikit-learn's `CalibratedClassifierCV(method="temperature")`."""


def fit_temperature(log_prob: np.ndarray, labels: np.ndarray) -> float:
    """Fit τ by the likelihood of labels, τ = argmin −Σ_n log p(y_n | x_n), which is convex in 1/τ.

    If all predictions are correct, the likelihood grows up to 1 as τ → 0: the labels do not determine τ, which is 1,
    and a warning is logged.

    Args:
        log_prob: log p(x | y) of a flow, or logits of a classifier, (N, K).
        labels: indices of classes, (N,).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    shifted = log_prob.astype(np.float64)
    shifted = shifted - shifted.max(1, keepdims=True)
    rows = np.arange(len(labels))
    if (log_prob.argmax(1) == labels).all():
        logger.warning("temperature: expected held-out images with errors, received %d without: it is 1", len(labels))
        return 1.0

    def compute_nll(log_inverse: float) -> float:
        return float(-log_softmax(np.exp(log_inverse) * shifted, axis=1)[rows, labels].mean())

    found = minimize_scalar(compute_nll, bounds=(-_LARGEST, _LARGEST), method="bounded", options={"xatol": 1e-12})
    # by rounding, the optimum may be behind τ = 1
    return float(np.exp(-min((float(found.x), 0.0), key=compute_nll)))
