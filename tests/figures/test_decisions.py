"""Reliability diagram, and risk against coverage."""

from __future__ import annotations

import numpy as np
import pytest

from nfpi.figures.decisions import draw_reliability, draw_risk_coverage
from nfpi.results.recorded.predictions import Predictions


def make_predictions(seed: int, sharpness: float = 20.0) -> Predictions:
    """Predictions whose logits are `sharpness` times those by which labels are drawn."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.standard_normal((2, 4000, 3))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(2).astype(np.int32)
    sharp = (sharpness * logits).astype(np.float32)
    return Predictions(labels[0], sharp[0].argmax(1), sharp[0, :, 0], sharp[0], labels[1], sharp[1])


def test_calibrated_probabilities_lie_on_the_diagonal():
    before, after = draw_reliability({"a": [make_predictions(0), make_predictions(1)]}).axes
    gaps = [np.subtract(*axes.lines[1].get_data()) for axes in (before, after)]
    assert gaps[0].max() > 0.2  # confidence above accuracy
    assert gaps[0].min() > -0.1
    assert np.abs(gaps[1]).max() < 0.1


def test_the_risk_grows_with_coverage_up_to_the_error():
    found = {"a": [make_predictions(0), make_predictions(1)], "b": [make_predictions(2)]}
    (axes,) = draw_risk_coverage(found).axes
    for line, of_seeds in zip(axes.lines, found.values(), strict=True):
        coverage, risk = line.get_data()
        assert coverage.tolist() == pytest.approx(list(range(1, 101)))
        assert risk[-1] == pytest.approx(100 - 100 * np.mean([one.is_correct.mean() for one in of_seeds]))
        assert risk[9] < risk[49] < risk[-1]
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["a", "b"]
