"""The choice of the best λ."""

from __future__ import annotations

import math

import pytest

from nfpi.results.tables.summaries import Score, choose_best

UNKNOWN = Score(math.nan, 4, 4)
FEW_LEFT = Score(99.0, 3, 4)
HALF_LEFT = Score(97.0, 2, 4)
ALL_LEFT = Score(95.0, 0, 4)


@pytest.mark.parametrize(
    ("scores", "higher_is_better", "expected"),
    [
        ([], True, None),
        ([UNKNOWN], True, None),
        ([UNKNOWN, FEW_LEFT], True, 1),
        ([FEW_LEFT, ALL_LEFT], True, 1),
        ([FEW_LEFT, ALL_LEFT, HALF_LEFT], True, 2),
        ([FEW_LEFT, ALL_LEFT, HALF_LEFT], None, 2),
        ([FEW_LEFT, HALF_LEFT, ALL_LEFT], False, 2),
        ([UNKNOWN, ALL_LEFT, ALL_LEFT], True, 1),
    ],
)
def test_the_best_is_of_those_at_which_at_most_half_of_the_seeds_diverged(scores, higher_is_better, expected):
    assert choose_best(scores, higher_is_better=higher_is_better) == expected
