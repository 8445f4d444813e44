"""The relative weight s₀: λ in units that mean the same for every number of classes and dimensions."""

from __future__ import annotations

import pytest

from nfpi.config.priors import compute_relative_weight, compute_weight

PIXELS = 3 * 32 * 32


def test_the_released_weights_of_cifar_are_one_relative_weight():
    assert compute_relative_weight(3e5, 10, 10, PIXELS) == pytest.approx(1.767, abs=1e-3)
    assert compute_relative_weight(3e6, 10, 100, PIXELS) == compute_relative_weight(3e5, 10, 10, PIXELS)


def test_a_weight_has_four_significant_digits():
    assert compute_weight(2, 10, 3, PIXELS) == 101900
    assert compute_weight(0.2, 10, 10, 64) == 707.3
    assert compute_weight(0, 10, 10, 64) == 0


@pytest.mark.parametrize("alpha", [0.5, 10, 300])
def test_each_of_the_weights_gives_the_other(alpha):
    weight = compute_weight(3, alpha, 10, PIXELS)
    assert compute_relative_weight(weight, alpha, 10, PIXELS) == pytest.approx(3, rel=5e-4)
