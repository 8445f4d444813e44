"""What the benchmark compares must be the same thing, done in two ways; how fast is not asked here."""

from __future__ import annotations

import pytest
import torch
from fixed_point import iterate_by_broadcasting, make_random_statistics, measure_large_fit

from nfpi.priors import FixedPointConfig, fit_fixed_point


@pytest.mark.parametrize("weight", [0.0, 30.0])
@pytest.mark.parametrize(
    "settings",
    [
        {"update": "exact"},
        {"update": "released"},
        {"update": "released", "isotropic_mean_update": False},
        {"update": "released", "pooled_mean_gaps": False},
        {"update": "released", "isotropic_mean_update": False, "pooled_mean_gaps": False},
        {"update": "released", "alpha": 3.0},
    ],
)
def test_the_broadcast_iteration_is_the_same_iteration(settings, weight):
    statistics = make_random_statistics(5, 7)
    config = FixedPointConfig(weight=weight, max_iterations=1, **settings)
    mean, variance = iterate_by_broadcasting(statistics.mean, statistics.variance, config)
    prior = fit_fixed_point(statistics, config).prior
    torch.testing.assert_close(mean, prior.mean, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(variance, prior.variance, rtol=1e-11, atol=1e-11)


def test_the_peak_memory_of_a_fit_is_a_plausible_amount():
    """In GiB: a process with torch in it takes more than 0.05 of them, this test less than 20."""
    seconds, peak = measure_large_fit(3, 4)
    assert seconds.ours > 0
    assert 0.05 < peak.ours < 20
