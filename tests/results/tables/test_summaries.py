"""The choice of the best λ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nfpi.results.tables.summaries import mark_best

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
    rows: Any = [
        SimpleNamespace(
            validation=SimpleNamespace(mean=mean, count=4),
            diverged=[0, 1, 2] if mean == FEW_LEFT else [0, 1] if mean == HALF_LEFT else [],
            **{"seeds": 4, "chosen_by": name, "summaries": {}, "is_best": False},
        )
        for mean in means
    ]
    mark_best(rows, must_have_values=False)
    assert [index for index, row in enumerate(rows) if row.is_best] == ([] if expected is None else [expected])
