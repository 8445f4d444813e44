from __future__ import annotations

import timing
from timing import Measurement, compare_times, measure_medians


def test_the_sides_run_in_turn_and_more_often_than_their_times_count(monkeypatch):
    monkeypatch.setattr(timing, "_SECONDS", 1e-9)
    order: list[str] = []
    found = measure_medians(3, lambda: order.append("a"), lambda: order.append("b"))
    assert all(0 < seconds < 1 for seconds in found)
    rounds = "".join(name for name, before in zip(order, ["", *order], strict=False) if name != before)
    assert rounds == "ababab"


def test_a_ratio_is_that_of_which_its_target_speaks():
    assert compare_times("step", "nets", 3.0, 2.0, "at most 1.10×").ratio == 1.5
    assert compare_times("action", "plain", 2.0, 20.0, "at least 8×").ratio == 10.0


def test_a_row_has_a_cell_for_every_column():
    whole = Measurement("an action", "its plain form", 0.0015, 0.03, 20.0, "s", "at least 8×").format()
    part = Measurement("a step", "", 4321.0, unit="operations").format()
    assert "| 1.50 ms | 30.00 ms | 20.00× |" in whole
    assert whole.count("|") == part.count("|")
