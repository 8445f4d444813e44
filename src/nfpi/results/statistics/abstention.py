"""Abstention: predictions only for images whose margin between the two likeliest classes exceeds a threshold.

The margin is log p(x | y₁) − log p(x | y₂), y₁ and y₂ being the likeliest classes. Nothing in it is fitted to
validation images: the temperature divides all margins alike. Unlike probabilities rounded to 1, margins have no ties.

The coverage of a threshold is the share of images above it, and its risk the share of errors among these. The guarantee
for a risk is that of Learn then Test (Angelopoulos et al., 2025, Annals of Applied Statistics 19(2)): thresholds are
tested by the exact binomial distribution in a fixed sequence, from the largest on, until a test fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from nfpi.runtime.formats import Record

COVERAGES = 100
"""Number of thresholds: one for each percent of coverage."""
_ERRORS = 4
"""Errors with which the first threshold of the sequence would pass its test; with fewer, a model with few errors would
often fail it by chance."""
EVERYTHING = -1.0
"""A threshold that all margins exceed."""

_PerCoverage = Field(min_length=COVERAGES, max_length=COVERAGES)


def compute_margins(log_prob: np.ndarray) -> np.ndarray:
    """Compute the margin of each image in nats, (N,); infinite for a single class.

    Args:
        log_prob: log p(x | y) of a flow, or the log-softmax of a classifier, (N, K).
    """
    ranked = np.sort(log_prob, 1)
    margins: np.ndarray = ranked[:, -1] - ranked[:, :-1].max(1, initial=-np.inf)
    return margins


def compute_risks(margins: np.ndarray, is_correct: np.ndarray) -> np.ndarray:
    """Compute the share of errors among the n images of largest margin for n = 1, …, N, (N,).

    Args:
        margins: (N,).
        is_correct: whether each prediction is correct, (N,) bool.
    """
    order = np.argsort(-margins, kind="stable")
    risks: np.ndarray = np.cumsum(~is_correct[order]) / np.arange(1, len(order) + 1)
    return risks


class Thresholds(Record):
    """Thresholds of the margin by their coverage on N validation images.

    The threshold at coverage c is the (⌈c N⌉ + 1)-th largest margin, which the ⌈c N⌉ largest exceed.

    Attributes:
        margins: thresholds at coverages of 1, 2, …, 100 %.
        accepted: numbers of validation images above them.
        errors: numbers of wrong predictions among these.
    """

    margins: Annotated[list[float], _PerCoverage]
    accepted: Annotated[list[int], _PerCoverage]
    errors: Annotated[list[int], _PerCoverage]

    @classmethod
    def from_validation(cls, margins: np.ndarray, is_correct: np.ndarray) -> Thresholds:
        """Compute the thresholds.

        Args:
            margins: margins of images that neither trained nor selected the model, (N,).
            is_correct: whether each prediction is correct, (N,) bool.
        """
        descending = np.append(np.sort(margins)[::-1], EVERYTHING)
        ranks = -(-np.arange(1, COVERAGES + 1) * len(margins) // COVERAGES)
        chosen = descending[ranks]
        above = margins > chosen[:, None]
        return cls(
            margins=chosen.tolist(), accepted=above.sum(1).tolist(), errors=(above & ~is_correct).sum(1).tolist()
        )

    def find_by_coverage(self, coverage: float) -> float:
        """Return the threshold at a coverage, which is rounded up to a whole percent.

        Raises:
            ValueError: the coverage is not in (0, 1].
        """
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage: expected a share above 0 and at most 1, received {coverage!r}")
        return self.margins[math.ceil(round(COVERAGES * coverage, 9)) - 1]

    def find_by_risk(self, max_risk: float, delta: float) -> float:
        """Return the threshold of largest coverage whose risk is at most `max_risk` with probability 1 − δ.

        If new images come from the same distribution as those of :meth:`from_validation`, and these are independent of
        each other and of the model, then with probability 1 − δ over them at most a share `max_risk` of the new images
        above the threshold is misclassified. Given that a threshold is some order statistic of the margins, those above
        it are independent draws, so that their errors have a binomial distribution; a threshold passes if so few of
        them have probability δ or less at the risk `max_risk`.

        Thresholds are tested in the order of coverage until one fails, which needs no correction for their number: the
        first whose risk is too large passes with probability δ at most, and those after it only if it does. The first
        threshold is that of the smallest coverage at which one error would pass, whatever the images show.

        Returns:
            the last threshold before the first that fails; infinite if the first does, or one error would not pass.

        Raises:
            ValueError: `max_risk` or δ is not in (0, 1).
        """
        for name, value in (("max_risk", max_risk), ("delta", delta)):
            if not 0 < value < 1:
                raise ValueError(f"{name}: expected a share between 0 and 1, received {value!r}")
        images = self.accepted[-1]
        ranks = -(-np.arange(1, COVERAGES + 1) * images // COVERAGES)  # ties may leave fewer images above a threshold
        passing = compute_p_values(range(_ERRORS + 1), [images] * (_ERRORS + 1), max_risk) <= delta
        tested = compute_p_values([passing.sum() - 1] * COVERAGES, ranks.tolist(), max_risk) <= delta
        fails = compute_p_values(self.errors, self.accepted, max_risk) > delta
        found = math.inf
        for margin, has_failed in zip(np.array(self.margins)[tested].tolist(), fails[tested], strict=True):
            if has_failed:
                break
            found = margin
        return found


def compute_p_values(errors: Sequence[int], accepted: Sequence[int], risk: float) -> np.ndarray:
    """Compute P(E ≤ errors) of a binomial number E of errors among `accepted` at a risk, for each threshold."""
    from scipy.stats import binom

    p_values: np.ndarray = binom.cdf(errors, accepted, risk)
    return p_values
