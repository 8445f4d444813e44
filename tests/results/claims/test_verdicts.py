"""The rule of the verdicts: what it says where the truth is known, and how often it errs where there is no effect."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from nfpi.results.claims.judging import (
    ClaimVerdict,
    Verdict,
    judge_claim,
    judge_difference,
    judge_non_inferiority,
    judge_with_diverged,
)
from nfpi.results.statistics.significance import holm

SMALLEST = 0.5
DRAWS = 2000


@pytest.mark.parametrize(
    ("difference", "high", "p_value", "expected"),
    [
        (2.0, 3.0, 0.001, "holds"),
        (0.5, 0.9, 0.02, "holds"),
        (0.3, 0.5, 0.02, "too small to matter"),
        (0.3, 0.9, 0.02, "too small to matter"),
        (-2.0, -1.0, 0.001, "contradicted"),
        (-0.5, -0.1, 0.02, "contradicted"),
        (-0.4, -0.1, 0.02, "does not hold"),
        (-2.0, 1.0, 0.2, "inconclusive"),
        (0.0, 0.4, 1.0, "does not hold"),
        (0.3, 0.8, 0.2, "inconclusive"),
        (2.0, 3.9, 0.08, "inconclusive"),  # after Holm's adjustment
        (2.0, math.nan, math.nan, "inconclusive"),
    ],
)
def test_a_claimed_difference(difference, high, p_value, expected):
    assert judge_difference(difference, high, p_value, SMALLEST) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.4, 0.2, "holds"),
        (0.1, 0.2, "holds"),
        (-0.6, 0.2, "inconclusive"),
        (-2.0, -0.6, "contradicted"),
        (math.nan, math.nan, "inconclusive"),
    ],
)
def test_non_inferiority(low, high, expected):
    assert judge_non_inferiority(low, high, SMALLEST) == expected


@pytest.mark.parametrize(
    ("verdict", "pairs", "first", "second", "ran", "expected"),
    [
        ("holds", 10, 0, 0, 10, "holds"),
        ("holds", 8, 2, 0, 10, "holds"),
        ("holds", 5, 5, 0, 10, "inconclusive"),
        ("contradicted", 5, 5, 0, 10, "inconclusive"),
        ("does not hold", 5, 5, 0, 10, "does not hold"),
        ("inconclusive", 0, 10, 0, 10, "does not hold"),
        ("inconclusive", 0, 10, 10, 10, "does not hold"),
        ("inconclusive", 0, 0, 10, 10, "inconclusive"),
        ("inconclusive", 0, 0, 0, 0, "not run"),
    ],
)
def test_runs_that_diverged(verdict, pairs, first, second, ran, expected):
    found = judge_with_diverged(verdict, pairs=pairs, first_diverged=first, second_diverged=second, ran=ran)
    assert found == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["holds", "holds"], "replicated"),
        (["holds", "inconclusive"], "replicated in part"),
        (["holds", "does not hold"], "replicated in part"),
        (["holds", "not run"], "inconclusive"),
        (["contradicted", "holds"], "contradicted in part"),
        (["contradicted", "not run"], "contradicted in part"),
        (["contradicted", "contradicted"], "contradicted"),
        (["too small to matter", "inconclusive"], "replicated in part"),
        (["too small to matter"], "replicated in part"),
        (["too small to matter", "does not hold"], "not replicated"),
        (["does not hold", "does not hold"], "not replicated"),
        (["does not hold", "inconclusive"], "inconclusive"),
        (["inconclusive"], "inconclusive"),
        (["inconclusive", "not run"], "inconclusive"),
        (["not run", "not run"], "not run"),
    ],
)
def test_a_claim(verdicts: list[Verdict], expected: ClaimVerdict):
    assert judge_claim(verdicts) == expected


# ---- what the rule does in the long run ---------------------------------------------------------------------


def simulate(effects: list[float], *, seeds: int, std: float, smallest: float) -> list[ClaimVerdict]:
    """Verdicts on a claim of several comparisons with these true effects, all with the same first row."""
    generator, shape = np.random.default_rng(0), (DRAWS, seeds, len(effects))
    first = generator.normal(0, std / math.sqrt(2), shape[:2])[..., None]
    differences = first - generator.normal(-np.array(effects), std / math.sqrt(2), shape)
    result = ttest_1samp(differences, 0, axis=1)  # as `paired_t` for one draw
    _, high = result.confidence_interval(0.95)
    mean = differences.mean(axis=1)
    # Holm's adjustment: the k-th smallest of n is multiplied by n − k + 1, and none is below a smaller one.
    order = result.pvalue.argsort(axis=1)
    scaled = np.take_along_axis(result.pvalue, order, 1) * np.arange(len(effects), 0, -1)
    adjusted = np.empty_like(scaled)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(scaled, axis=1), 1), 1)
    assert adjusted[0] == pytest.approx(holm(list(result.pvalue[0])))
    return [
        judge_claim([judge_difference(*values, smallest) for values in zip(*draw, strict=True)])
        for draw in zip(mean, high, adjusted, strict=True)
    ]


@pytest.mark.parametrize(("count", "seeds"), [(1, 2), (1, 3), (1, 10), (4, 3), (4, 10)])
@pytest.mark.parametrize("smallest", [0.0, 0.5, 2.0])
def test_without_an_effect_a_claim_is_seldom_replicated(count, seeds, smallest):
    found = simulate([0.0] * count, seeds=seeds, std=1.0, smallest=smallest)
    false_alarms = sum(verdict.startswith("replicated") for verdict in found) / DRAWS
    assert false_alarms <= 0.06


def test_without_an_effect_that_matters_enough_seeds_say_so():
    found = simulate([0.0], seeds=10, std=0.5, smallest=1.0)
    assert found.count("not replicated") / DRAWS > 0.9


@pytest.mark.parametrize(
    ("effect", "seeds", "power"),
    [(1.0, 10, 0.8), (2.0, 10, 0.99), (2.0, 3, 0.3)],  # in standard deviations of a difference
)
def test_an_effect_is_found(effect, seeds, power):
    found = simulate([effect], seeds=seeds, std=1.0, smallest=0.3)
    share = found.count("replicated") / DRAWS
    assert share >= power
    assert found.count("not replicated") / DRAWS <= 0.06
