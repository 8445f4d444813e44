"""Detection of images of none of the classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from nfpi.results.statistics.detection import Typicality, compute_auroc, compute_fpr95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [0, 9], ids=["ties", "no ties"])
def test_auroc_and_fpr_are_those_of_scikit_learn(seed, decimals):
    generator = np.random.default_rng(seed)
    known, unknown = (generator.normal(shift, 2, n).round(decimals) for shift, n in ((0, 200), (1, 150)))
    truth, scores = np.repeat([0, 1], [200, 150]), np.concatenate([known, unknown])
    assert compute_auroc(known, unknown) == pytest.approx(100 * roc_auc_score(truth, scores), abs=1e-9)
    accepted_unknown, accepted_known, _ = roc_curve(1 - truth, -scores, drop_intermediate=False)
    assert compute_fpr95(known, unknown) == pytest.approx(100 * accepted_unknown[accepted_known >= 0.95][0], abs=1e-9)


def test_atypical_is_what_is_too_far_or_too_close():
    distance = np.random.default_rng(0).gamma(20, 1 / 20, 1000)
    typicality = Typicality.from_validation(distance)
    assert (typicality.measure(distance) > 1).mean() == pytest.approx(0.01, abs=0.001)
    close, middle, far = typicality.measure(np.array([0.0, np.median(distance), 5.0]))
    assert middle < 0.01
    assert close > 1
    assert far > 1


@pytest.mark.parametrize("distance", [np.zeros(100), np.ones(100), np.repeat([0.5, 1.0, 1.1], [3, 95, 2])])
def test_tied_quantiles_leave_every_atypicality_finite(distance):
    typicality = Typicality.from_validation(distance)
    assert (typicality.measure(distance) <= 1).mean() >= 0.97
    assert np.isfinite(typicality.measure(np.array([0.0, 2.0]))).all()
    assert typicality.measure(np.array([2.0])) > 1
