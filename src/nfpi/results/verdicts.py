"""The rule by which comparisons, and the claims that they are parts of, are judged. It was written before the runs.

**A comparison** has the mean paired difference d = first − second, its 95 % interval [l, h], the two-sided p-value,
adjusted by Holm's method over the claim's comparisons that claim a difference, and the smallest effect that matters, m.
Signs are such that the claim is d > 0 (those of `less` are turned around).

| verdict | when |
|---|---|
| holds | p < 0.05 and d ≥ m |
| too small to matter | p < 0.05 and 0 < d < m |
| does not hold | p < 0.05 and d < 0, or h < m: an effect that matters is excluded |
| inconclusive | otherwise, and with fewer than two seeds that both rows have, unless images are tested |
| not run | no value of one of the rows is there |

Non-inferiority (`not_less`) is judged by the interval alone: it holds where l > −m, does not hold where h < −m. It is
left out of Holm's adjustment, for no difference is claimed.

**Runs that diverged** have no value. The difference is that of the seeds that both rows have, and the others are
counted. Where all seeds of the first row diverged, the comparison does not hold; where all of the second did, it is
inconclusive, as there is nothing to compare with. What holds while at most half of the seeds that ran have a pair is
inconclusive: seeds that diverge are not a sample at random.

**A claim** is

| verdict | when its comparisons |
|---|---|
| not run | are all not run |
| replicated | all hold |
| replicated in part | are all run, and some hold, or are too small to matter and none does not hold |
| not replicated | are all decided, and none holds |
| inconclusive | otherwise |

With no effect at all, a claimed difference holds, or is too small to matter, with a probability of at most 2.5 %: the
half of the two-sided level that lies in the claimed direction. Holm's adjustment bounds the probability that any such
comparison of a claim does, and with it that of `replicated` and `replicated in part`, by 5 %. This does not hold for a
claim with a part of non-inferiority, which is true where there is no effect: that part alone may make the claim
`replicated in part`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

from nfpi.results.intervals import SIGNIFICANCE_LEVEL

Verdict = Literal["holds", "too small to matter", "does not hold", "inconclusive", "not run"]
"""Of a comparison."""
ClaimVerdict = Literal["replicated", "replicated in part", "not replicated", "inconclusive", "not run"]
"""Of a claim."""


def judge_difference(difference: float, low: float, high: float, p_adjusted: float, smallest_effect: float) -> Verdict:
    """Judge a claimed difference d > 0.

    Args:
        difference: d.
        low, high: bounds of its 95 % interval; NaN: unknown.
        p_adjusted: two-sided, adjusted by Holm's method; NaN: not tested.
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
    """Judge that d > −margin by the 95 % interval [low, high] of d; NaN: unknown."""
    if low > -margin:
        return "holds"
    return "does not hold" if high < -margin else "inconclusive"


def judge_with_diverged(
    verdict: Verdict, *, pairs: int, first_diverged: int, second_diverged: int, ran: int
) -> Verdict:
    """Take into account that some runs diverged.

    Args:
        verdict: of the seeds that both rows have.
        pairs: how many seeds these are.
        first_diverged, second_diverged: seeds of each row that diverged.
        ran: seeds of which both rows have a run, diverged or not.
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
    found = set(verdicts)
    if found == {"not run"}:
        return "not run"
    if "not run" in found:  # a part of a claim does not stand for the whole
        return "inconclusive"
    if found == {"holds"}:
        return "replicated"
    if "holds" in found or ("too small to matter" in found and "does not hold" not in found):
        return "replicated in part"
    if found <= {"does not hold", "too small to matter"}:
        return "not replicated"
    return "inconclusive"
