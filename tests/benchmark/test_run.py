from __future__ import annotations

from dataclasses import replace

import pandas as pd

from nfpi.benchmark import run
from nfpi.benchmark.measurement import Measurement
from nfpi.benchmark.scaling import Scale, draw_scaling, measure_scaling

FOUND = Measurement("an action", "its plain form", 0.0015, 0.03, 20.0, "s", "at least 8×")


def test_everything_that_is_measured_is_written(tmp_path, monkeypatch):
    received = []

    def measure(device, repeats):
        received.append(repeats)
        yield replace(FOUND, name=f"number {len(received)}")

    monkeypatch.setattr(run, "CPU_MEASURES", (measure, measure))
    monkeypatch.setattr(run, "DEVICE_MEASURES", (measure,))
    scales = (Scale("images", "a line", (1, 2), lambda size, _: float(size), 1),)
    monkeypatch.setattr(run, "measure_scaling", lambda device: measure_scaling(device, scales))
    monkeypatch.setattr(run, "draw_scaling", lambda frame: draw_scaling(frame, scales))
    found = run.run_benchmarks(tmp_path / "new", 2)
    assert received == [2] * 3
    assert [measurement.name for measurement in found] == [f"number {n}" for n in range(1, 4)]
    table = pd.read_csv(tmp_path / "new/benchmark.csv")
    assert table["name"].tolist() == [measurement.name for measurement in found]
    assert table["ratio"].tolist() == [20.0] * 3
    text = (tmp_path / "new/benchmark.md").read_text()
    assert all(f"number {n} " in text for n in range(1, 4))
    assert pd.read_csv(tmp_path / "new/scaling.csv")["seconds"].tolist() == [1.0, 2.0]
    assert all((tmp_path / f"new/scaling.{suffix}").is_file() for suffix in ("png", "pdf"))
