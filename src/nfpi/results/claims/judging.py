"""Comparison of table rows, and verdicts on the paper's claims (:mod:`nfpi.results.claims.verdicts`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nfpi.config.claims import DIVERGENCE, Claim, ClaimComparison
from nfpi.results.claims.sides import ClaimData, Side, find_common_seeds, find_sides, find_split_ratio
from nfpi.results.claims.verdicts import (
    Verdict,
    judge_claim,
    judge_difference,
    judge_non_inferiority,
    judge_with_diverged,
)
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL
from nfpi.results.statistics.significance import Comparison, compute_seeds_needed, holm, mcnemar, paired_t
from nfpi.results.tables.building import check_same_images
from nfpi.results.tables.rows import TableRow


@dataclass(frozen=True)
class _Judged:
    """A comparison with its test.

    Attributes:
        first, second: the sides.
        comparison: its settings.
        result: result of the test.
        p_adjusted: adjusted p-value.
        num_tests: number of tests of the claim.
    """

    first: Side
    second: Side
    comparison: ClaimComparison
    result: Comparison
    p_adjusted: float
    num_tests: int

    @property
    def seeds(self) -> list[int]:
        """The compared seeds."""
        seeds = find_common_seeds(self.first, self.second)
        of_images = self.result.test == "McNemar" and self.comparison.metric != DIVERGENCE
        return seeds[:1] if of_images else seeds  # only the images of one seed are compared

    @property
    def split_ratio(self) -> float:
        """The ratio by which the test was corrected."""
        return find_split_ratio(self.first, self.second) if self.result.test == "paired t" else 0.0

    @property
    def paper_difference(self) -> float:
        """The paper's difference."""
        paper = self.comparison.paper_difference
        return self.first.paper - self.second.paper if paper is None else paper

    @property
    def verdict_of_values(self) -> Verdict:
        """The verdict from the seeds that both sides have."""
        result, smallest = self.result, self.comparison.smallest_effect
        sign = -1.0 if self.comparison.direction == "less" else 1.0
        low, high = sorted((sign * result.low, sign * result.high))
        if self.comparison.direction == "not_less":
            return judge_non_inferiority(low, high, smallest)
        return judge_difference(sign * result.difference, high, self.p_adjusted, smallest)

    @property
    def verdict(self) -> Verdict:
        """The verdict with regard to diverged runs."""
        ran = self.first.ran & self.second.ran
        is_of_divergence = self.comparison.metric == DIVERGENCE
        return judge_with_diverged(
            self.verdict_of_values,
            pairs=len(find_common_seeds(self.first, self.second)),
            first_diverged=0 if is_of_divergence else len(self.first.diverged & ran),
            second_diverged=0 if is_of_divergence else len(self.second.diverged & ran),
            ran=len(ran),
        )

    @property
    def seeds_needed(self) -> int | None:
        """Number of seeds that would decide an inconclusive comparison; None if only its diverged runs make it so."""
        if self.verdict_of_values != "inconclusive":
            return None
        return _compute_seeds_needed(self.comparison, self.result, self.num_tests, self.split_ratio)


_OF_CLAIMS = {"claim": "str", "number": "int64", "statement": "str", "paper": "str", "claim_verdict": "str"}
_OF_COMPARISONS: dict[str, tuple[str, Callable[[_Judged], Any]]] = {
    "dataset": ("str", lambda judged: judged.first.row.dataset),
    "metric": ("str", lambda judged: judged.comparison.metric),
    "first": ("str", lambda judged: judged.first.name),
    "first_lambda": ("float64", lambda judged: judged.first.weight),
    "first_value": ("float64", lambda judged: judged.first.compute_mean(judged.seeds)),
    "second": ("str", lambda judged: judged.second.name),
    "second_lambda": ("float64", lambda judged: judged.second.weight),
    "second_value": ("float64", lambda judged: judged.second.compute_mean(judged.seeds)),
    "direction": ("str", lambda judged: judged.comparison.direction),
    "smallest_effect": ("float64", lambda judged: judged.comparison.smallest_effect),
    "test": ("str", lambda judged: judged.result.test),
    "difference": ("float64", lambda judged: judged.result.difference),
    "low": ("float64", lambda judged: judged.result.low),
    "high": ("float64", lambda judged: judged.result.high),
    "std": ("float64", lambda judged: judged.result.std),
    "p_value": ("float64", lambda judged: judged.result.p_value),
    "p_adjusted": ("float64", lambda judged: judged.p_adjusted),
    "seeds": ("int64", lambda judged: judged.result.seeds),
    "planned_seeds": ("int64", lambda judged: len({run.seed for run in judged.first.row.runs})),
    "first_diverged": ("int64", lambda judged: len(judged.first.diverged)),
    "second_diverged": ("int64", lambda judged: len(judged.second.diverged)),
    "paper_difference": ("float64", lambda judged: judged.paper_difference),
    "verdict": ("str", lambda judged: judged.verdict),
    "seeds_needed": ("Int64", lambda judged: judged.seeds_needed),
    "split_ratio": ("float64", lambda judged: judged.split_ratio),
}
COLUMNS = _OF_CLAIMS | {name: kind for name, (kind, _) in _OF_COMPARISONS.items()}
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


def judge_claims(claims: Mapping[str, Claim], data: ClaimData) -> pd.DataFrame:
    """Judge all claims.

    Returns:
        A frame with the columns :data:`COLUMNS` and one row per comparison, sorted by the number of the claim.

    Raises:
        TableError: a row named by a claim is missing, a metric has two values for one run, or two runs that are
            compared have predictions of different test images.
        MetricsError: predictions cannot be read.
    """
    ordered = sorted(claims.items(), key=lambda item: (item[1].number or math.inf, item[0]))
    rows = [row for name, claim in ordered for row in _judge(name, claim, data)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _judge(name: str, claim: Claim, data: ClaimData) -> list[dict[str, Any]]:
    data = data.without_seeds(claim.without_seeds)
    sides = [find_sides(comparison, data) for comparison in claim.comparisons]
    results = [_test_difference(*pair, of, data) for pair, of in zip(sides, claim.comparisons, strict=True)]
    tested = [
        math.nan if comparison.direction == "not_less" else result.p_value
        for result, comparison in zip(results, claim.comparisons, strict=True)
    ]
    num_tests = max(1, sum(not math.isnan(p_value) for p_value in tested))
    judged = [
        _Judged(*pair, comparison, result, p_adjusted, num_tests)
        for pair, comparison, result, p_adjusted in zip(sides, claim.comparisons, results, holm(tested), strict=True)
    ]
    verdict = judge_claim([each.verdict for each in judged])
    common = (name, claim.number, claim.statement, claim.paper, verdict)
    return [
        dict(zip(_OF_CLAIMS, common, strict=True)) | {key: value(each) for key, (_, value) in _OF_COMPARISONS.items()}
        for each in judged
    ]


def _test_difference(first: Side, second: Side, comparison: ClaimComparison, data: ClaimData) -> Comparison:
    """Test the difference first − second."""
    seeds = find_common_seeds(first, second)
    test = comparison.choose_test(len({run.seed for run in first.row.runs}))
    if test == "paired_t" or not seeds:
        return paired_t(first.values, second.values, split_ratio=find_split_ratio(first, second))
    if comparison.metric == DIVERGENCE:
        diverged = [np.array([side.values[seed] > 0 for seed in seeds]) for side in (first, second)]
        result = replace(mcnemar(*diverged), seeds=len(seeds))
        # the approximate interval of a single pair is too narrow to judge by
        return result if len(seeds) > 1 else replace(result, low=math.nan, high=math.nan, p_value=math.nan)
    predictions = _read_predictions(first.row, second.row, comparison.metric, seeds[0], data)
    return mcnemar(*(each.is_correct for each in predictions))


def _read_predictions(
    first: TableRow, second: TableRow, name: str, seed: int, data: ClaimData
) -> tuple[Predictions, Predictions]:
    """Read the predictions of both sides at one seed, for the same test images."""
    runs = [next(run for run in row.runs_of(name) if run.seed == seed) for row in (first, second)]
    a, b = map(data.read_predictions, runs)
    check_same_images(runs, a, b)
    return a, b


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
    effect = smallest
    if comparison.direction == "not_less":
        level = SIGNIFICANCE_LEVEL
    elif not math.isnan(result.difference):
        difference = -result.difference if comparison.direction == "less" else result.difference
        effect = min(smallest or math.inf, max(difference, smallest - difference))
    needed = compute_seeds_needed(result.std, effect, level=level, split_ratio=split_ratio)
    return None if needed is None else max(needed, result.seeds + 1)
