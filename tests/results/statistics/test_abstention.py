"""Abstention by margins, and its guarantee on the risk."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nfpi.results.statistics.abstention import EVERYTHING, Thresholds, compute_margins, compute_p_values, compute_risks

ROOT = Path(__file__).parents[3]
DRAWS, N, DELTA = 2000, 400, 0.1
LIMIT = DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / DRAWS)


def test_margins_are_between_the_two_likeliest_classes():
    assert compute_margins(np.array([[3.0, -1.0, 1.0], [0.0, 0.0, -5.0]])).tolist() == [2.0, 0.0]
    assert compute_margins(np.array([[3.0]])).tolist() == [math.inf]


@pytest.mark.parametrize("seed", range(3))
def test_risks_are_the_errors_among_the_surest(seed):
    generator = np.random.default_rng(seed)
    margins, is_correct = generator.exponential(size=50), generator.random(50) < 0.7
    expected = []
    for n in range(1, 51):
        threshold = sorted(margins, reverse=True)[n - 1]
        expected.append(sum(not right for m, right in zip(margins, is_correct, strict=True) if m >= threshold) / n)
    np.testing.assert_allclose(compute_risks(margins, is_correct), expected, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 7, 100, 288])
def test_thresholds_have_their_coverage(n):
    margins = np.random.default_rng(n).exponential(size=n)
    found = Thresholds.from_validation(margins, margins > 1)
    assert found.accepted == [math.ceil(percent * n / 100 - 1e-9) for percent in range(1, 101)]
    for coverage in (0.01, 0.07, 0.29, 0.9, 0.901, 1):
        assert (margins > found.find_by_coverage(coverage)).mean() >= coverage - 1e-12
    assert (margins > found.find_by_coverage(1)).all()
    assert found.errors[-1] == (margins <= 1).sum()


def draw_population(generator, slope):
    """Margins u and predictions whose probability of an error is 0.11 + slope · (½ − u): above u > t, the population
    risk is 0.11 − slope · t / 2."""
    margins = generator.random(N)
    return margins, generator.random(N) >= 0.11 + slope * (0.5 - margins)


def count_violations(slope, max_risk=0.1):
    """Return the share of draws in which the population risk of the chosen threshold exceeds `max_risk`."""
    generator, violations = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        threshold = Thresholds.from_validation(*draw_population(generator, slope)).find_by_risk(max_risk, DELTA)
        violations += threshold < math.inf and 0.11 - slope * max(threshold, 0) / 2 > max_risk
    return violations / DRAWS


@pytest.mark.parametrize("slope", [0, 0.02, 0.2])
def test_the_risk_is_kept_as_often_as_promised(slope):
    assert count_violations(slope) <= LIMIT


def test_a_threshold_found_behind_one_that_failed_would_break_the_promise(monkeypatch):
    """Of as many thresholds, one passes too often if it may be any of them."""

    def find_any(self, max_risk, delta):
        passed = compute_p_values(self.errors, self.accepted, max_risk) <= delta
        return self.margins[np.flatnonzero(passed)[-1]] if passed.any() else math.inf

    monkeypatch.setattr(Thresholds, "find_by_risk", find_any)
    assert count_violations(slope=0) > LIMIT


def find_by_bonferroni(found, max_risk, delta):
    """Return the threshold of largest coverage of 20 that passes at δ / 20."""
    passed = compute_p_values(found.errors[4::5], found.accepted[4::5], max_risk) <= delta / 20
    return found.margins[4::5][np.flatnonzero(passed)[-1]] if passed.any() else math.inf


@pytest.mark.parametrize(
    ("slope", "expected"), [(0.05, ["0.05", "86", "0.01", "98"]), (0.2, ["0.54", "9", "0.27", "41"])]
)
def test_the_sequence_answers_more_often_than_bonferroni(slope, expected):
    """Mean coverage, and percentage of draws without any answer, of both: the table of docs/decisions.md."""
    generator = np.random.default_rng(0)
    drawn = [Thresholds.from_validation(*draw_population(generator, slope)) for _ in range(DRAWS)]
    printed = []
    for find in (Thresholds.find_by_risk, find_by_bonferroni):
        thresholds = np.array([find(found, 0.1, DELTA) for found in drawn])
        coverage = np.where(np.isinf(thresholds), 0, 1 - thresholds.clip(0))
        printed += [f"{coverage.mean():.2f}", f"{100 * np.isinf(thresholds).mean():.0f}"]
    assert printed == expected
    text = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    assert f"| {' | '.join([f'{11 + 50 * slope:g} to {11 - 50 * slope:g}', *expected])} |" in text


def test_the_guarantee_is_of_use():
    """Of 2000 images with an error in 100, at most 5 % errors are certified for all of them."""
    generator = np.random.default_rng(1)
    found = Thresholds.from_validation(generator.random(2000), generator.random(2000) > 0.01)
    assert found.find_by_risk(0.05, 0.05) == EVERYTHING
    assert found.find_by_risk(0.001, 0.05) == math.inf


@pytest.mark.parametrize(("n", "errors", "answers"), [(44, 0, False), (45, 0, True), (45, 1, False), (77, 1, True)])
def test_a_promise_needs_enough_images_for_its_errors(n, errors, answers):
    """(1 − 0.05)ⁿ ≤ 0.1 from n = 45 on, and (1 − 0.05)ⁿ + 0.05 n (1 − 0.05)ⁿ⁻¹ from 77 on."""
    margins = np.arange(1.0, n + 1)
    found = Thresholds.from_validation(margins, np.arange(n) >= errors)
    assert (found.find_by_risk(0.05, 0.1) < math.inf) == answers


@pytest.mark.parametrize(
    ("method", "values", "name"),
    [
        ("find_by_coverage", (0,), "coverage"),
        ("find_by_coverage", (90,), "coverage"),
        ("find_by_risk", (5, 0.1), "max_risk"),
        ("find_by_risk", (0.05, 0), "delta"),
    ],
)
def test_shares_out_of_range_are_refused(method, values, name):
    found = Thresholds.from_validation(np.arange(5.0), np.ones(5, dtype=bool))
    with pytest.raises(ValueError, match=name):
        getattr(found, method)(*values)
