"""The choice of the best λ."""

from __future__ import annotations

import pytest

from nfpi.results.tables.summaries import choose_best

FEW_LEFT, HALF_LEFT, ALL_LEFT = 99.0, 97.0, 95.0


@pytest.mark.parametrize(
    ("means", "name", "expected"),
    [
        ([], "nf_acc", None),
        ([FEW_LEFT], "nf_acc", 0),
        ([FEW_LEFT, ALL_LEFT], "nf_acc", 1),
        ([FEW_LEFT, ALL_LEFT, HALF_LEFT], "nf_acc", 2),
        ([FEW_LEFT, ALL_LEFT, HALF_LEFT], "parameters", 2),
        ([FEW_LEFT, HALF_LEFT, ALL_LEFT], "bits_per_dim", 2),
        ([ALL_LEFT, ALL_LEFT], "nf_acc", 0),
    ],
)
def test_the_best_is_of_those_at_which_at_most_half_of_the_seeds_diverged(means, name, expected):
    unsteady = {index for index, mean in enumerate(means) if mean == FEW_LEFT}
    assert choose_best(dict(enumerate(means)), unsteady, name) == expected
