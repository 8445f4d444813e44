"""The temperature of class probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import calibration

from nfpi.results.statistics.calibration import fit_temperature


def draw(seed: int, sharpness: float, n: int = 500, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits of classes, and labels drawn from their softmax; the logits are then multiplied by `sharpness`."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.standard_normal((n, classes))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(1)
    return sharpness * logits + 1e3 * generator.standard_normal((n, 1)), labels


def compute_nll(log_prob: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    scaled = log_prob / temperature
    return float((np.logaddexp.reduce(scaled, 1) - scaled[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 70.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_undoes_overconfidence_and_raises_the_likelihood(sharpness, seed):
    log_prob, labels = draw(seed, sharpness)
    found = fit_temperature(log_prob, labels)
    assert found == pytest.approx(sharpness, rel=0.15)
    best = compute_nll(log_prob, labels, found)
    assert best <= compute_nll(log_prob, labels, 1.0)
    assert all(best < compute_nll(log_prob, labels, factor * found) for factor in (0.9, 0.99, 1.01, 1.1))


def test_images_that_are_all_classified_right_leave_the_temperature_at_1(caplog):
    assert fit_temperature(5 * np.eye(3), np.arange(3)) == 1
    assert "received 3 without" in caplog.text


@pytest.mark.skipif(not hasattr(calibration, "_TemperatureScaling"), reason="scikit-learn before 1.8")
@pytest.mark.parametrize("classes", [2, 4])
def test_the_temperature_is_that_of_scikit_learn(classes):
    log_prob, labels = draw(0, 30.0, classes=classes)
    theirs = calibration._TemperatureScaling().fit(log_prob, labels.astype(np.float64))
    assert fit_temperature(log_prob, labels) == pytest.approx(1 / theirs.beta_, rel=1e-6)
