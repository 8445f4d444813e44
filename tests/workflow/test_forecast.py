"""How long the jobs that are left take."""

from __future__ import annotations

from collections import Counter

import pytest

from nfpi.workflow.terminal import Forecast


def test_jobs_are_forecast_by_those_of_their_rule() -> None:
    forecast = Forecast(Counter(train=3, evaluate=2), {"train": [90.0, 110.0], "evaluate": [5.0]})
    assert forecast.estimate_seconds_left() == (pytest.approx(310), True)
    assert forecast.estimate_seconds_left(("train", 0.0)) == (pytest.approx(155), True)


def test_this_call_counts_more_than_earlier_ones() -> None:
    forecast = Forecast(Counter(train=3), {"train": [1000.0]})
    forecast.record_end("train", 10.0)
    assert forecast.compute_mean_seconds("train") == 10
    assert forecast.estimate_seconds_left() == (pytest.approx(20), True)


def test_trainings_that_diverge_at_once_do_not_shorten_the_forecast() -> None:
    forecast = Forecast(Counter(train=4), {"train": [2.0, 300.0]})
    assert forecast.estimate_seconds_left() == (pytest.approx(1200), True)
    forecast.record_end("train", 2.0)
    forecast.record_end("train", 400.0)
    assert forecast.estimate_seconds_left() == (pytest.approx(800), True)


def test_a_rule_without_a_time_makes_the_forecast_a_lower_bound() -> None:
    forecast = Forecast(Counter(train=1, evaluate=1), {"train": [10.0]})
    assert forecast.estimate_seconds_left() == (pytest.approx(10), False)


def test_what_runs_already_is_subtracted_but_no_job_takes_less_than_nothing() -> None:
    forecast = Forecast(Counter(train=2), {"train": [100.0]})
    assert forecast.estimate_seconds_left(("train", 30.0)) == (pytest.approx(170 / 2), True)
    assert forecast.estimate_seconds_left(("train", 500.0)) == (pytest.approx(100 / 2), True)


def test_a_failed_job_is_not_waited_for_unless_it_is_tried_again() -> None:
    forecast = Forecast(Counter(train=2), {"train": [100.0]})
    forecast.record_end("train", None)
    assert forecast.estimate_seconds_left() == (pytest.approx(100), True)
    forecast.unfinished["train"] += 1
    assert forecast.estimate_seconds_left() == (pytest.approx(200), True)
