"""Paired tests, their adjustment, and the seeds that they need."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nfpi.results.statistics.intervals import std_interval, t_interval
from nfpi.results.statistics.significance import (
    _compute_power,
    compute_seeds_needed,
    holm,
    mcnemar,
    paired_t,
)

NAN = math.nan


def right(*counts: tuple[int, bool, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays from (images, first is right, second is right)."""
    first = np.concatenate([np.full(count, a) for count, a, _ in counts])
    second = np.concatenate([np.full(count, b) for count, _, b in counts])
    return first, second


# ---- over seeds ----------------------------------------------------------------------------------------------


def test_the_paired_t_test_is_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.normal(90, 1, 8), rng.normal(89.5, 1, 8)
    expected = stats.ttest_rel(first, second)
    found = paired_t(dict(enumerate(first)), dict(enumerate(second)))
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.difference == pytest.approx(np.mean(first - second))
    assert found.std == pytest.approx(np.std(first - second, ddof=1))
    assert (found.test, found.seeds) == ("paired t", 8)


def test_seeds_that_one_of_them_lacks_are_left_out():
    found = paired_t({0: 1.0, 1: 3.0, 2: 100.0, 5: 5.0}, {5: 2.0, 3: 0.0, 1: 1.0, 0: 1.0})
    assert found.seeds == 3
    assert found.difference == pytest.approx((0 + 2 + 3) / 3)


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        ([90.0, 91.0], [90.0, 91.0], 1.0),
        ([90.0, 91.0, 95.0], [89.5, 90.5, 94.5], 0.25),
        ([0.3, 0.3], [0.1 + 0.2, 0.3], 1.0),
        ([90.0] * 10, [89.0] * 10, 2**-9),
    ],
    ids=["none", "all the same", "rounding", "ten seeds"],
)
def test_differences_without_variance_are_those_of_a_sign_test(first, second, p_value):
    found = paired_t(dict(enumerate(first)), dict(enumerate(second)))
    assert found.p_value == p_value
    assert found.std == 0
    if len(first) < 6:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    else:
        assert found.low == found.high == found.difference


def test_equal_accuracies_on_few_images_are_no_false_alarm():
    rng, draws = np.random.default_rng(0), 2000
    values = 100 * rng.binomial(100, 0.98, (draws, 2, 2)) / 100  # of rows that do not differ, on two seeds
    found = [paired_t(dict(enumerate(a)), dict(enumerate(b))) for a, b in values]
    assert np.mean([one.p_value < 0.05 for one in found]) < 0.05


def test_the_correction_for_overlapping_splits_by_hand():
    # differences 1, 2, 3: mean 2, s = 1; s √(1/3 + 1/4) = 0.76376, t = 2 / 0.76376 = 2.61861 with 2 degrees of freedom,
    # p = 1 − t / √(t² + 2) = 0.12012, and 4.302653 · 0.76376 = 3.28621
    first, second = {0: 1.0, 1: 2.0, 2: 3.0}, dict.fromkeys(range(3), 0.0)
    found = paired_t(first, second, split_ratio=0.25)
    assert found.p_value == pytest.approx(0.12012, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((2 - 3.28621, 2 + 3.28621), abs=1e-4)
    assert (found.difference, found.std, found.seeds, found.test) == (2.0, 1.0, 3, "paired t")
    assert t_interval(np.array([1.0, 2.0, 3.0]), 0.25) == (found.low, found.high)
    plain = paired_t(first, second)
    assert plain == paired_t(first, second, split_ratio=0.0)
    assert t_interval(np.array([1.0, 2.0, 3.0])) == (plain.low, plain.high)


def test_splits_of_the_same_images_raise_false_alarms_unless_corrected():
    # Two classifiers, each with one of two exchangeable features and a threshold that it learns, so that neither is
    # better; every one of ten seeds splits the same 100 images into 64 to learn from and 20 to test on.
    rng, data_sets, seeds = np.random.default_rng(0), 600, 10
    labels = rng.integers(2, size=(data_sets, 1, 100))
    order = rng.random((data_sets, seeds, 100)).argsort(axis=-1)
    labels_of = np.take_along_axis(np.broadcast_to(labels, order.shape), order, axis=-1)
    learned, tested = labels_of[..., :64], labels_of[..., 80:]
    accuracies = []
    for _ in range(2):
        feature = labels + rng.normal(size=(data_sets, 1, 100))
        feature_of = np.take_along_axis(np.broadcast_to(feature, order.shape), order, axis=-1)
        means = [feature_of[..., :64].mean(axis=-1, where=learned == label) for label in (0, 1)]
        right = (feature_of[..., 80:] > np.mean(means, axis=0)[..., None]) == tested
        accuracies.append(100 * right.mean(axis=-1))
    pairs = [(dict(enumerate(a)), dict(enumerate(b))) for a, b in zip(*accuracies, strict=True)]
    alarms = [np.mean([paired_t(*pair, split_ratio=r).p_value < 0.05 for pair in pairs]) for r in (0.0, 20 / 64)]
    assert alarms[0] > 0.15
    assert alarms[1] < 0.06


def test_one_seed_tests_nothing():
    found = paired_t({0: 2.0}, {0: 1.5, 1: 1.0})
    assert (found.difference, found.seeds) == (0.5, 1)
    assert all(map(math.isnan, (found.p_value, found.low, found.high, found.std)))
    assert math.isnan(paired_t({0: 1.0}, {1: 1.0}).difference)


# ---- over images ---------------------------------------------------------------------------------------------


def test_mcnemars_p_is_that_of_a_fair_coin():
    # 8 images that only the first gets right, 1 that only the second does:
    # P(X ≤ 1 or X ≥ 8) of 9 tosses = 2 (1 + 9) / 2⁹
    first, second = right((80, True, True), (8, True, False), (1, False, True), (11, False, False))
    found = mcnemar(first, second)
    assert found.p_value == pytest.approx(20 / 512)
    assert found.difference == pytest.approx(7.0)
    assert found.test == "McNemar"
    other = mcnemar(second, first)
    assert other.p_value == found.p_value
    assert (other.difference, other.low, other.high) == pytest.approx((-found.difference, -found.high, -found.low))


def test_mcnemars_interval_is_agresti_and_mins():
    first, second = right((80, True, True), (8, True, False), (1, False, True), (11, False, False))
    found, n = mcnemar(first, second), 102
    difference, share = 7 / n, (8.5 + 1.5) / n
    half = 1.959964 * math.sqrt((share - difference**2) / n)
    assert (found.low, found.high) == pytest.approx((100 * (difference - half), 100 * (difference + half)), rel=1e-5)


def test_equal_predictions_do_not_differ():
    first, _ = right((5, True, True), (5, False, False))
    found = mcnemar(first, first)
    assert (found.difference, found.p_value) == (0, 1)
    assert found.low < 0 < found.high


def test_bounds_are_possible_differences():
    first, second = right((3, True, False))
    found = mcnemar(first, second)
    assert found.low < found.difference == found.high == 100


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.array([True]), np.array([True, False])),
        (np.array([1, 0]), np.array([True, False])),
        (np.array([], dtype=bool), np.array([], dtype=bool)),
    ],
    ids=["lengths", "no bool", "empty"],
)
def test_other_arrays_are_refused(first, second):
    with pytest.raises(ValueError, match="bool"):
        mcnemar(first, second)


# ---- many tests, and how many seeds --------------------------------------------------------------------------


def test_holm_by_hand():
    # ascending 0.01 · 3, 0.03 · 2, 0.04 · 1 → 0.03, 0.06, and never less than one before it
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_unknown_p_values_do_not_count():
    adjusted = holm([NAN, 0.02, NAN, 0.04])
    assert [adjusted[1], adjusted[3]] == pytest.approx([0.04, 0.04])
    assert math.isnan(adjusted[0])
    assert all(map(math.isnan, holm([NAN, NAN])))


def test_the_tests_raise_false_alarms_at_their_level_and_their_intervals_cover():
    rng, draws = np.random.default_rng(0), 1000
    alarms, covered = 0, 0
    for _ in range(draws):
        values = rng.normal(90, 1, (2, 5))
        found = paired_t(dict(enumerate(values[0])), dict(enumerate(values[1])))
        alarms += found.p_value < 0.05
        covered += found.low < 0 < found.high
    assert alarms / draws == pytest.approx(0.05, abs=0.02)
    assert covered == draws - alarms
    alarms = covered = 0
    for _ in range(draws):
        first, second = rng.random((2, 300)) < np.array([[0.92], [0.90]])
        found = mcnemar(first, second)
        covered += found.low < 2 < found.high
        alarms += mcnemar(first, rng.random(300) < 0.92).p_value < 0.05
    assert alarms / draws < 0.06  # an exact test of whole images stays below its level
    assert covered / draws == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("effect", "expected"), [(1.0, 10), (0.5, 34), (5.0, 3), (8.0, 3), (12.0, 2), (1e6, 2)])
def test_seeds_needed_are_those_of_tables_of_power(effect, expected):
    assert compute_seeds_needed(1.0, effect) == compute_seeds_needed(1.0, -effect) == expected
    assert compute_seeds_needed(3.0, 3 * effect) == expected


def test_the_seeds_that_are_needed_give_the_power():
    rng, count = np.random.default_rng(0), compute_seeds_needed(2.0, 2.5)
    differences = rng.normal(2.5, 2.0, (4000, count))
    found = np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05)
    assert 0.78 < found < 0.9


def test_small_effects_need_as_many_seeds_as_the_normal_law_says():
    assert compute_seeds_needed(1.0, 0.01) == pytest.approx(78489, abs=3)
    assert compute_seeds_needed(1.0, 0.001) == pytest.approx(7848880, rel=1e-6)


@pytest.mark.parametrize("shift", [0.01, 0.5, 3.0, 11.3, 40.0, 1e6])
@pytest.mark.parametrize("level", [0.05, 0.005])
@pytest.mark.parametrize("count", [2, 5, 10, 1000])
def test_the_power_is_that_of_the_noncentral_t_distribution_and_never_nan(count, level, shift):
    found = _compute_power(shift, count - 1, level)
    quantile = stats.t.isf(level / 2, count - 1)
    expected = stats.nct.sf(quantile, count - 1, shift) + stats.nct.cdf(-quantile, count - 1, shift)
    assert 0 < found < 1 + 1e-12
    if not math.isnan(expected):
        assert found == pytest.approx(expected, abs=1e-6)


def test_equal_differences_need_as_many_seeds_as_the_sign_test():
    assert compute_seeds_needed(0.0, 1.0) == 6
    assert compute_seeds_needed(0.0, 1.0, level=2**-5) == 7, "p = 2⁻⁵ with six is not below the level"
    for seeds in (5, 6):
        found = paired_t(dict.fromkeys(range(seeds), 2.0), dict.fromkeys(range(seeds), 1.0))
        assert (found.p_value < 0.05) == (seeds == 6)


def test_seeds_with_overlapping_splits_do_not_detect_every_effect():
    ratio = 0.3125
    # The standard error stays above s √r = 0.559; detection takes 1.96 + 0.8416 of it, 1.566.
    assert compute_seeds_needed(1.0, 1.56, split_ratio=ratio) is None
    assert compute_seeds_needed(2.0, 3.12, split_ratio=ratio) is None
    assert compute_seeds_needed(1.0, 1e-200, split_ratio=ratio) is None
    assert compute_seeds_needed(1.0, 1.5662, split_ratio=ratio) > 10_000
    count = compute_seeds_needed(1.0, 1.7, split_ratio=ratio)
    shifts = [1.7 / math.sqrt(1 / n + ratio) for n in (count - 1, count)]
    powers = [
        stats.nct.sf(stats.t.isf(0.025, n - 1), n - 1, shift)
        for n, shift in zip((count - 1, count), shifts, strict=True)
    ]
    assert powers[0] < 0.8 <= powers[1]
    assert count > compute_seeds_needed(1.0, 1.7)


def test_what_is_unknown_needs_an_unknown_number():
    assert compute_seeds_needed(NAN, 1.0) is None
    assert compute_seeds_needed(1.0, NAN) is None
    assert compute_seeds_needed(1.0, 0.0) is None
    with pytest.raises(ValueError, match=r"0 < level < 0\.8"):
        compute_seeds_needed(1.0, 1.0, level=0.9)


def test_the_interval_of_a_standard_deviation_is_that_of_tables_of_chi_squared():
    assert std_interval(1.0, 10) == pytest.approx((0.688, 1.826), abs=5e-4)
    assert std_interval(2.0, 3) == pytest.approx((1.041, 12.569), abs=5e-4)
    assert std_interval(0.0, 5) == (0.0, 0.0)
    assert all(map(math.isnan, std_interval(math.nan, 1)))
