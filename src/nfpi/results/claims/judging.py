"""Verdicts on the paper's claims, by rules that were fixed before the runs were made.

**A comparison** is judged by the mean paired difference d = first − second (for `less`, second − first, so that the
claim is always d > 0), its 95 % interval [l, h], its two-sided p-value p, and the smallest effect that matters, m. p is
adjusted by Holm's method over the claim's comparisons other than those of non-inferiority.

| verdict | when |
|---|---|
| holds | p < 0.05 and d ≥ m |
| too small to matter | p < 0.05 and 0 < d < m |
| contradicted | p < 0.05 and d ≤ −m |
| does not hold | p < 0.05 and −m < d < 0; or p ≥ 0.05 and h < m, which excludes an effect that matters |
| inconclusive | otherwise; also with fewer than two common seeds, unless test images are compared |
| not run | there is no seed with runs of both rows |

Non-inferiority (`not_less`) is judged by the interval only: it holds if l > −m and is contradicted if h < −m. It is
excluded from Holm's adjustment, since no difference is claimed.

**Diverged runs** have no value, except of the metric `divergence`, to which this paragraph does not apply. The
difference is over the seeds for which both rows have one. If all seeds of the first row diverged, the comparison does
not hold; if all of the second did, it is inconclusive, as there is nothing to compare with. A comparison that would
hold, or be contradicted, is inconclusive if at most half of the seeds have a value in both rows, since seeds do not
diverge at random.

**A claim** is

| verdict | when its comparisons |
|---|---|
| not run | are all not run |
| contradicted | are all contradicted |
| contradicted in part | are contradicted in part, whatever the others say |
| replicated | all hold |
| replicated in part | have all run; and some hold, or else some are too small to matter and none "does not hold" |
| not replicated | each does not hold or is too small to matter, and at least one does not hold |
| inconclusive | otherwise |

With no effect at all, a claimed difference holds, or is too small to matter, with a probability of at most 2.5 %: the
half of the two-sided level that lies in the claimed direction. With Holm's adjustment, the probability that at least
one such comparison of a claim does so is at most 5 %; so is the probability that the claim is `replicated` or
`replicated in part`. This bound does not apply to a claim with a comparison of non-inferiority: without an effect,
non-inferiority is true, and it alone may make the claim `replicated in part`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from nfpi.config.claims import DIVERGENCE, Claim, ClaimComparison
from nfpi.results.claims.sides import ClaimData, Side, find_common_seeds, find_sides, find_split_ratio
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL, std_interval
from nfpi.results.statistics.significance import Comparison, compute_seeds_needed, holm, mcnemar, paired_t
from nfpi.results.tables.building import check_same_images
from nfpi.results.tables.rows import TableRow

Verdict = Literal["holds", "too small to matter", "does not hold", "contradicted", "inconclusive", "not run"]
"""Verdict on a comparison."""
ClaimVerdict = Literal[
    "replicated",
    "replicated in part",
    "not replicated",
    "contradicted in part",
    "contradicted",
    "inconclusive",
    "not run",
]
"""Verdict on a claim."""


# ---- the rules ------------------------------------------------------------------------------------------------


def judge_difference(difference: float, high: float, p_adjusted: float, smallest_effect: float) -> Verdict:
    """Judge a claimed difference d > 0.

    Args:
        difference: d.
        high: h, the upper bound of its 95 % interval; NaN: unknown.
        p_adjusted: two-sided p-value, adjusted by Holm's method; NaN: not tested.
        smallest_effect: m ≥ 0.
    """
    if math.isnan(p_adjusted):
        return "inconclusive"
    if p_adjusted < SIGNIFICANCE_LEVEL and difference > 0:
        return "holds" if difference >= smallest_effect else "too small to matter"
    if p_adjusted < SIGNIFICANCE_LEVEL and difference < 0 and difference <= -smallest_effect:
        return "contradicted"
    if p_adjusted < SIGNIFICANCE_LEVEL or high < smallest_effect:
        return "does not hold"
    return "inconclusive"


def judge_non_inferiority(low: float, high: float, margin: float) -> Verdict:
    """Judge whether d > −margin by the 95 % interval [low, high] of d; NaN: unknown."""
    if low > -margin:
        return "holds"
    return "contradicted" if high < -margin else "inconclusive"


def judge_with_diverged(
    verdict: Verdict, *, pairs: int, first_diverged: int, second_diverged: int, ran: int
) -> Verdict:
    """Adjust a verdict for diverged runs.

    Args:
        verdict: verdict from the seeds for which both rows have a value.
        pairs: number of these seeds.
        first_diverged, second_diverged: number of diverged seeds of each row.
        ran: number of seeds for which both rows have a run, diverged or not.
    """
    if ran == 0:
        return "not run"
    if pairs == 0 and first_diverged == ran:
        return "does not hold"
    is_decided = verdict in ("holds", "contradicted")
    if pairs == 0 or (is_decided and 2 * pairs <= ran and first_diverged + second_diverged > 0):
        return "inconclusive"
    return verdict


def judge_claim(verdicts: Collection[Verdict]) -> ClaimVerdict:
    """Judge a claim by its comparisons."""
    distinct = set(verdicts)
    if distinct == {"not run"}:
        return "not run"
    if "contradicted" in distinct:
        return "contradicted" if len(distinct) == 1 else "contradicted in part"
    if "not run" in distinct:
        return "inconclusive"
    if distinct == {"holds"}:
        return "replicated"
    if "holds" in distinct or ("too small to matter" in distinct and "does not hold" not in distinct):
        return "replicated in part"
    if distinct <= {"does not hold", "too small to matter"}:
        return "not replicated"
    return "inconclusive"


# ---- comparisons of rows --------------------------------------------------------------------------------------


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
    def seeds_needed(self) -> tuple[int | None, int | None]:
        """Numbers of seeds that would decide an inconclusive comparison.

        They are those for the bounds of the 95 % interval of the standard deviation over seeds; None if only diverged
        runs make the comparison inconclusive, or no number suffices.
        """
        if self.verdict_of_values != "inconclusive":
            return None, None
        low, high = (
            _count_seeds_needed(self.comparison, self.result, std, self.num_tests, self.split_ratio)
            for std in std_interval(self.result.std, self.result.seeds)
        )
        return low, high


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
    "seeds_needed_low": ("Int64", lambda judged: judged.seeds_needed[0]),
    "seeds_needed_high": ("Int64", lambda judged: judged.seeds_needed[1]),
    "split_ratio": ("float64", lambda judged: judged.split_ratio),
}
COLUMNS = _OF_CLAIMS | {name: kind for name, (kind, _) in _OF_COMPARISONS.items()}
"""Columns of the verdicts and their types; one row per comparison.

`planned_seeds` is the number of seeds of the preset. `seeds` is the number of compared seeds: all for which both rows
have a value, or one for McNemar's test of an accuracy. `first_value`, `second_value` and `difference` (first − second,
in the metric's unit) are means over these seeds.
`p_adjusted` is adjusted by Holm's method over the comparisons of the claim, without those of direction `not_less`.
`seeds_needed_low` and `_high` are given for inconclusive verdicts, for the bounds of the 95 % interval of the standard
deviation over seeds, unless no number of seeds suffices, it is unknown, or only diverged runs make the comparison
inconclusive.
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


def _count_seeds_needed(
    comparison: ClaimComparison, result: Comparison, std: float, num_tests: int, split_ratio: float
) -> int | None:
    """Return the number of seeds that would decide the comparison with a power of 80 %, given a standard deviation.

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
    needed = compute_seeds_needed(std, effect, level=level, split_ratio=split_ratio)
    return None if needed is None else max(needed, result.seeds + 1)
