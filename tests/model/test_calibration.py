"""A model that has learned from validation images how sure it may be."""

from __future__ import annotations

import numpy as np
import pytest

from nfpi import ClassConditionalFlow
from nfpi.results.statistics.abstention import compute_margins


@pytest.fixture
def calibrated(fitted, held_out):
    return fitted.calibrate(held_out.images, held_out.labels)


def test_the_likelihood_of_the_labels_rises_and_predictions_stay(fitted, calibrated, held_out):
    def compute_nll(model):
        log_proba = model.predict_log_proba(held_out.images)
        return -log_proba[np.arange(len(log_proba)), held_out.labels].mean()

    assert compute_nll(calibrated) <= compute_nll(fitted)
    assert (calibrated.predict(held_out.images) == fitted.predict(held_out.images)).all()
    assert "calibration" not in fitted.config
    probability = calibrated.predict_proba(held_out.images)
    np.testing.assert_allclose(probability.sum(1), 1)
    temperature = calibrated.calibration.temperature
    scaled = fitted.log_prob(held_out.images) / temperature
    np.testing.assert_allclose(probability, np.exp(scaled - np.logaddexp.reduce(scaled, 1, keepdims=True)))
    found = calibrated.evaluate(held_out.images, held_out.labels)
    assert found["ece"] == fitted.evaluate(held_out.images, held_out.labels)["ece"]
    assert 0 <= found["ece_calibrated"] <= 100


def test_a_calibrated_model_is_saved_and_a_refitted_one_is_not_calibrated(calibrated, images, tmp_path):
    calibrated.save_pretrained(tmp_path)
    again = ClassConditionalFlow.from_pretrained(tmp_path)
    assert again.calibration == calibrated.calibration
    assert (again.predict_proba(images.images) == calibrated.predict_proba(images.images)).all()
    with pytest.raises(ValueError, match="expected a calibrated model"):
        calibrated.refit(images.images, images.labels).predict(images.images, coverage=0.5)


@pytest.mark.parametrize("coverage", [0.25, 0.8, 1.0])
def test_no_class_is_predicted_for_the_images_of_smallest_margin(calibrated, held_out, coverage):
    predicted, margins = (
        calibrated.predict(held_out.images, coverage=coverage),
        compute_margins(calibrated.log_prob(held_out.images)),
    )
    assert (predicted >= 0).sum() == round(coverage * len(predicted))
    sure = predicted >= 0
    assert (predicted[sure] == calibrated.predict(held_out.images)[sure]).all()
    assert margins[sure].min() > margins[~sure].max(initial=-1)


def test_a_risk_that_cannot_be_guaranteed_leaves_no_class(calibrated, held_out):
    assert (calibrated.predict(held_out.images, max_risk=0.001) == -1).all()
    with pytest.raises(ValueError, match="received both"):
        calibrated.predict(held_out.images, max_risk=0.1, coverage=0.5)


def test_noise_is_unknown(calibrated, held_out):
    noise = np.random.default_rng(0).integers(0, 256, held_out.images.shape, dtype=np.uint8)
    assert (calibrated.decide(noise, coverage=0.5) == "unknown").mean() > 0.9
    decisions = calibrated.decide(held_out.images, coverage=0.5).tolist()
    assert decisions.count("unknown") <= 1
    assert 0.4 * len(decisions) <= decisions.count("sure") <= 0.5 * len(decisions)
