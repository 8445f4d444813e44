"""Comparison of table rows, and verdicts on the paper's claims (:mod:`nfpi.results.claims.verdicts`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from nfpi.config.claims import DIVERGENCE, Claim, ClaimComparison
from nfpi.config.metrics import ACCURACIES
from nfpi.results.claims.sides import Evidence, Side, find_side
from nfpi.results.claims.verdicts import (
    Verdict,
    judge_claim,
    judge_difference,
    judge_non_inferiority,
    judge_with_diverged,
)
from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL
from nfpi.results.statistics.significance import Comparison, bootstrap, compute_seeds_needed, holm, mcnemar, paired_t
from nfpi.results.tables.summaries import TableError
from nfpi.runs import Run

COLUMNS = {
    "claim": "str",
    "number": "int64",
    "statement": "str",
    "paper": "str",
    "claim_verdict": "str",
    "dataset": "str",
    "metric": "str",
    "first": "str",
    "first_lambda": "float64",
    "first_value": "float64",
    "second": "str",
    "second_lambda": "float64",
    "second_value": "float64",
    "direction": "str",
    "smallest_effect": "float64",
    "test": "str",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "std": "float64",
    "p_value": "float64",
    "p_adjusted": "float64",
    "seeds": "int64",
    "planned_seeds": "int64",
    "first_diverged": "int64",
    "second_diverged": "int64",
    "paper_difference": "float64",
    "verdict": "str",
    "seeds_needed": "Int64",
    "split_ratio": "float64",
}
"""Columns of the verdicts and their types; one row per comparison.

`planned_seeds` is the number of seeds of the preset. `seeds` is the number of compared seeds: all for which both rows
have a value, or one for McNemar's test of an accuracy. `first_value`, `second_value` and `difference` (first − second,
in the metric's unit) are means over these seeds.
`p_adjusted` is adjusted by Holm's method over the comparisons of the claim, without those of direction `not_less`.
`seeds_needed` is given for inconclusive verdicts, unless no number of seeds suffices, the standard deviation over seeds
is unknown, or only diverged runs make the comparison inconclusive.
`split_ratio` corrects the paired t test if the splits of different seeds overlap: it is the number of test images per
training image. 0: the test is not corrected.
"""


def judge_claims(claims: Mapping[str, Claim], evidence: Evidence) -> pd.DataFrame:
    """Judge all claims.

    Returns:
        A frame with the columns :data:`COLUMNS` and one row per comparison, sorted by the number of the claim.

    Raises:
        TableError: a row named by a claim is missing, a metric has two values for one run, or two runs that are
            compared have predictions of different test images.
        MetricsError: predictions cannot be read.
    """
    ordered = sorted(claims.items(), key=lambda item: (item[1].number or math.inf, item[0]))
    rows = [row for name, claim in ordered for row in _judge(name, claim, evidence)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _judge(name: str, claim: Claim, evidence: Evidence) -> list[dict[str, Any]]:
    comparisons = claim.comparisons
    first = [find_side(comparison.first, comparison.metric, evidence) for comparison in comparisons]
    second = [find_side(comparison.second, comparison.metric, evidence) for comparison in comparisons]
    sides = list(zip(first, second, strict=True))
    results = [
        _test_difference(*pair, comparison, evidence) for pair, comparison in zip(sides, comparisons, strict=True)
    ]
    tested = [
        math.nan if comparison.direction == "not_less" else result.p_value
        for result, comparison in zip(results, comparisons, strict=True)
    ]
    adjusted, num_tests = holm(tested), max(1, sum(not math.isnan(p_value) for p_value in tested))
    rows = [
        _make_row(*pair, comparison, result, p_value, num_tests)
        for pair, comparison, result, p_value in zip(sides, comparisons, results, adjusted, strict=True)
    ]
    common = {"claim": name, "number": claim.number, "statement": claim.statement, "paper": claim.paper}
    verdict = judge_claim([row["verdict"] for row in rows])
    return [common | {"claim_verdict": verdict} | row for row in rows]


def _make_row(
    first: Side, second: Side, comparison: ClaimComparison, result: Comparison, p_adjusted: float, num_tests: int
) -> dict[str, Any]:
    """Return one row of the verdicts."""
    common = _find_common_seeds(first, second)
    if result.test == "McNemar" and comparison.metric != DIVERGENCE:
        common = common[:1]  # only the images of one seed are compared
    verdict_of_values = _judge_values(comparison, result, p_adjusted)
    verdict = _consider_diverged(verdict_of_values, first, second, comparison)
    paper = comparison.paper_difference
    ratio = _find_split_ratio(first, second) if result.test == "paired t" else 0.0
    return {
        "dataset": first.row.dataset if first.row is not None else "",
        "metric": comparison.metric,
        "first": first.name,
        "first_lambda": first.weight,
        "first_value": _compute_mean(first, common),
        "second": second.name,
        "second_lambda": second.weight,
        "second_value": _compute_mean(second, common),
        "direction": comparison.direction,
        "smallest_effect": comparison.smallest_effect,
        "test": result.test,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "std": result.std,
        "p_value": result.p_value,
        "p_adjusted": p_adjusted,
        "seeds": result.seeds,
        "planned_seeds": first.planned,
        "first_diverged": len(first.diverged),
        "second_diverged": len(second.diverged),
        "paper_difference": first.paper - second.paper if paper is None else paper,
        "verdict": verdict,
        # None if only diverged runs make the comparison inconclusive, which more seeds would not necessarily change
        "seeds_needed": (
            _compute_seeds_needed(comparison, result, num_tests, ratio) if verdict_of_values == "inconclusive" else None
        ),
        "split_ratio": ratio,
    }


def _find_common_seeds(first: Side, second: Side) -> list[int]:
    """Return the seeds for which both sides have a value."""
    return sorted(first.values if second.constant is not None else first.values.keys() & second.values.keys())


def _compute_mean(side: Side, seeds: list[int]) -> float:
    if side.constant is not None:
        return side.constant
    return float(np.mean([side.values[seed] for seed in seeds])) if seeds else math.nan


# ---- the test and its verdict -------------------------------------------------------------------------------


def _test_difference(first: Side, second: Side, comparison: ClaimComparison, evidence: Evidence) -> Comparison:
    """Test the difference first − second."""
    seeds, test = _find_common_seeds(first, second), comparison.choose_test(first.planned)
    if second.constant is not None:
        constant = dict.fromkeys(first.values, second.constant)
        return paired_t(first.values, constant, split_ratio=_find_split_ratio(first, second))
    if test == "paired_t" or not seeds:
        return paired_t(first.values, second.values, split_ratio=_find_split_ratio(first, second))
    if comparison.metric == DIVERGENCE:
        diverged = [np.array([side.values[seed] > 0 for seed in seeds]) for side in (first, second)]
        result = replace(mcnemar(*diverged), seeds=len(seeds))
        # the approximate interval of a single pair is too narrow to judge by
        return result if len(seeds) > 1 else replace(result, low=math.nan, high=math.nan, p_value=math.nan)
    if test == "mcnemar":
        correct_first, correct_second, _ = _read_correct_images(first, second, comparison.metric, seeds[0], evidence)
        return mcnemar(correct_first, correct_second)
    correct = [_read_correct_images(first, second, comparison.metric, seed, evidence) for seed in seeds]
    is_same_order = all(np.array_equal(labels, correct[0][2]) for _, _, labels in correct)
    same_images = is_same_order and _find_split_ratio(first, second) == 0  # else, each seed draws its own test images
    return bootstrap([a for a, _, _ in correct], [b for _, b, _ in correct], same_images=same_images)


def _find_split_ratio(first: Side, second: Side) -> float:
    """Return the larger split ratio of the two rows; the ratios differ only if the data sets differ."""
    return max(side.row.split_ratio if side.row is not None else 0.0 for side in (first, second))


def _read_correct_images(
    first: Side, second: Side, name: str, seed: int, evidence: Evidence
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which test images each side classifies correctly at one seed, and their labels."""
    runs = [_find_run(side, name, seed) for side in (first, second)]
    a, b = (evidence.read_predictions(run) for run in runs)
    if not np.array_equal(a.label, b.label):
        raise TableError(
            f"{', '.join(map(str, runs))}: expected predictions of the same test images, received different labels"
        )
    return a.predicted == a.label, b.predicted == b.label, a.label


def _find_run(side: Side, name: str, seed: int) -> Run:
    assert side.row is not None
    runs = side.row.flow_runs if ACCURACIES[name] == "flow" else side.row.classifier_runs
    return next(run for run in runs if run.seed == seed)


def _judge_values(comparison: ClaimComparison, result: Comparison, p_adjusted: float) -> Verdict:
    """Return the verdict of one comparison from the seeds that both sides have."""
    sign = -1.0 if comparison.direction == "less" else 1.0
    low, high = sorted((sign * result.low, sign * result.high))
    if comparison.direction == "not_less":
        return judge_non_inferiority(low, high, comparison.smallest_effect)
    return judge_difference(sign * result.difference, high, p_adjusted, comparison.smallest_effect)


def _consider_diverged(verdict: Verdict, first: Side, second: Side, comparison: ClaimComparison) -> Verdict:
    """Adjust the verdict of one comparison for its diverged runs."""
    ran = first.ran if second.constant is not None else first.ran & second.ran
    return judge_with_diverged(
        verdict,
        pairs=len(_find_common_seeds(first, second)),
        first_diverged=0 if comparison.metric == DIVERGENCE else len(first.diverged & ran),
        second_diverged=0 if comparison.metric == DIVERGENCE else len(second.diverged & ran),
        ran=len(ran),
    )


def _compute_seeds_needed(
    comparison: ClaimComparison, result: Comparison, num_tests: int, split_ratio: float
) -> int | None:
    """Return the number of seeds that would decide the comparison with a power of 80 %, given the observed variance.

    A comparison is decided once the difference is distinguished from zero or from the smallest effect that matters. The
    effect to detect is the distance of the observed difference from the farther of these two; if the smallest effect is
    not 0, the effect to detect is at most the smallest effect. For claims of non-inferiority, which are judged by
    unadjusted intervals, the effect to detect is the smallest effect.
    """
    smallest, level = comparison.smallest_effect, SIGNIFICANCE_LEVEL / num_tests
    if comparison.direction == "not_less":
        needed = compute_seeds_needed(result.std, smallest, level=SIGNIFICANCE_LEVEL, split_ratio=split_ratio)
    elif math.isnan(result.difference):
        needed = compute_seeds_needed(result.std, smallest, level=level, split_ratio=split_ratio)
    else:
        difference = -result.difference if comparison.direction == "less" else result.difference
        effect = min(smallest or math.inf, max(difference, smallest - difference))
        needed = compute_seeds_needed(result.std, effect, level=level, split_ratio=split_ratio)
    return None if needed is None else max(needed, result.seeds + 1)
