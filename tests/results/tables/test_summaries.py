"""The choice of the best λ."""

from __future__ import annotations

import pytest

from nfpi.results.tables.summaries import choose_best, choose_best_run
from nfpi.runs import Run

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


def test_the_best_run_is_chosen_over_its_seeds():
    few, half, none = (Run(dataset="a", flow="b", prior="c", weight=float(weight), seed=0) for weight in range(3))
    values = {few: [99.0], half: [96.0, 98.0], none: []}
    assert choose_best_run(values, {few: 3, half: 2, none: 4}, "nf_acc") == half
    assert choose_best_run({none: []}, {none: 4}, "nf_acc") is None
