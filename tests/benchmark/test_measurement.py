from __future__ import annotations

import torch

from nfpi.benchmark import measurement
from nfpi.benchmark.measurement import Measurement, compare_times, format_table, measure_medians

CPU = torch.device("cpu")


def test_the_sides_run_in_turn_and_once_before_it_counts(monkeypatch):
    order: list[str] = []
    now = 0.0
    costs = {"a": iter([100.0, 1.0, 50.0, 3.0]), "b": iter([200.0, 7.0, 5.0, 6.0])}

    def side(name: str) -> None:
        nonlocal now
        order.append(name)
        now += next(costs[name])

    monkeypatch.setattr(measurement.time, "perf_counter", lambda: now)
    assert measure_medians(CPU, 3, lambda: side("a"), lambda: side("b")) == [3.0, 6.0]
    assert "".join(order) == "abababab"


def test_the_time_of_a_gpu_ends_when_its_work_does(monkeypatch):
    events: list[str] = []
    for kind in ("cuda", "mps"):
        monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda *_: events.append("wait"))
        events.clear()
        measure_medians(torch.device(kind), 1, lambda: events.append("run"))
        assert events == ["wait", "run", "wait"] * 2


def test_a_ratio_is_that_of_which_its_target_speaks():
    assert compare_times("step", "nets", 3.0, 2.0, "at most 1.10×").ratio == 1.5
    assert compare_times("action", "plain", 2.0, 20.0, "at least 8×", larger_is_better=True).ratio == 10.0


def test_the_report_has_a_row_for_every_measurement():
    found = [
        Measurement("an action", "its plain form", 0.0015, 0.03, 20.0, "s", "at least 8×"),
        Measurement("a fit's memory", "one array", 0.5, 30.5, None, "GiB", "at most 1.5 GiB"),
        Measurement("alone", "nothing", 2.0, None, None, "s", "none"),
        Measurement("a step", "", 4321.0, None, None, "operations", "at most 5000"),
    ]
    lines = format_table(found, CPU, 7).splitlines()
    assert "7 runs (at most 3 of a start-up, one of the fit of K = 1000)" in lines[0]
    assert torch.__version__ in lines[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert rows[2:] == [
        ["an action", "its plain form", "1.50 ms", "30.00 ms", "20.00×", "at least 8×"],
        ["a fit's memory", "one array", "0.50 GiB", "30.50 GiB", "", "at most 1.5 GiB"],
        ["alone", "nothing", "2000.00 ms", "", "", "none"],
        ["a step", "", "4321", "", "", "at most 5000"],
    ]
