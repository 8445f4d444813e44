from __future__ import annotations

import torch
from torch._inductor import metrics
from torch._inductor.graph import GraphLowering

from nfpi.benchmark import compiled
from nfpi.benchmark.compiled import bytes_outside_convolutions, measure_compiled_step
from nfpi.flows import MatrixExponentialFlow


def test_a_compiled_step_moves_less_than_eager_mode_and_at_least_its_activations():
    metrics.reset()
    batch, channels = 64, 16
    moved, eager = bytes_outside_convolutions(MatrixExponentialFlow((1, 4, 4), [1], [1], [channels]), batch)
    activation = 4 * batch * channels * 2 * 2
    elus, sums = 4, 1
    assert (5 * elus + 2 * sums) * activation < moved < eager
    assert metrics.generated_kernel_count == 0


def test_a_torch_of_another_plan_is_named_and_does_not_end_the_benchmark(monkeypatch, caplog):
    count = bytes_outside_convolutions

    def count_small(flow, batch):
        return count(MatrixExponentialFlow((1, 4, 4), [1], [0], [4]), 2)

    monkeypatch.setattr(compiled, "bytes_outside_convolutions", count_small)
    monkeypatch.delattr(GraphLowering, "_update_scheduler")
    assert list(measure_compiled_step(torch.device("cpu"), 1)) == []
    assert f"not measured: bytes of a compiled step (torch {torch.__version__}: " in caplog.text
    assert "_update_scheduler" in caplog.text
