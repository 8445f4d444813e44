"""Rules for the verdicts on comparisons and claims, fixed before the runs were made.

**A comparison** is judged by the mean paired difference d = first − second (for `less`, second − first, so that the
claim is always d > 0), its 95 % interval [l, h], its two-sided p-value p, and the smallest effect that matters, m. p is
adjusted by Holm's method over the claim's comparisons other than those of non-inferiority.

| verdict | when |
|---|---|
| holds | p < 0.05 and d ≥ m |
| too small to matter | p < 0.05 and 0 < d < m |
| does not hold | p < 0.05 and d < 0; or p ≥ 0.05 and h < m, which excludes an effect that matters |
| inconclusive | otherwise; also with fewer than two common seeds, unless test images are compared |
| not run | there is no seed with runs of both rows |

Non-inferiority (`not_less`) is judged by the interval only: it holds if l > −m and does not hold if h < −m. It is
excluded from Holm's adjustment, since no difference is claimed.

**Diverged runs** have no value, except of the metric `divergence`, to which this paragraph does not apply. The
difference is over the seeds for which both rows have one. If all seeds of the first row diverged, the comparison does
not hold; if all of the second did, it is inconclusive, as there is nothing to compare with. A comparison that would
hold is inconclusive if at most half of the seeds have a value in both rows, since seeds do not diverge at random.

**A claim** is

| verdict | when its comparisons |
|---|---|
| not run | are all not run |
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
from collections.abc import Collection
from typing import Literal

from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL

Verdict = Literal["holds", "too small to matter", "does not hold", "inconclusive", "not run"]
"""Verdict on a comparison."""
ClaimVerdict = Literal["replicated", "replicated in part", "not replicated", "inconclusive", "not run"]
"""Verdict on a claim."""


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
    if p_adjusted < SIGNIFICANCE_LEVEL or high < smallest_effect:
        return "does not hold"
    return "inconclusive"


def judge_non_inferiority(low: float, high: float, margin: float) -> Verdict:
    """Judge whether d > −margin by the 95 % interval [low, high] of d; NaN: unknown."""
    if low > -margin:
        return "holds"
    return "does not hold" if high < -margin else "inconclusive"


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
    if pairs == 0 or (verdict == "holds" and 2 * pairs <= ran and first_diverged + second_diverged > 0):
        return "inconclusive"
    return verdict


def judge_claim(verdicts: Collection[Verdict]) -> ClaimVerdict:
    """Judge a claim by its comparisons."""
    distinct = set(verdicts)
    if distinct == {"not run"}:
        return "not run"
    if "not run" in distinct:
        return "inconclusive"
    if distinct == {"holds"}:
        return "replicated"
    if "holds" in distinct or ("too small to matter" in distinct and "does not hold" not in distinct):
        return "replicated in part"
    if distinct <= {"does not hold", "too small to matter"}:
        return "not replicated"
    return "inconclusive"
