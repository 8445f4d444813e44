from __future__ import annotations

import torch

from nfpi.benchmark import start_up


def test_processes_that_load_a_stage_are_compared_with_one_that_imports_torch(monkeypatch):
    ran = []
    monkeypatch.setattr(start_up, "_run", ran.append)
    found = list(start_up.measure_start_up(torch.device("cpu"), 7))
    assert [line.name for line in found] == ["start-up of train-flow", "start-up of evaluate"]
    assert "import torch" in ran
    assert all(line.ratio is not None for line in found)


def test_what_is_run_is_possible():
    start_up._run(start_up._STAGE_START.format(command="evaluate"))
