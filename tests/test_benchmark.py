"""What the benchmark compares must be the same thing, done in two ways; how fast is not asked here."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from nfpi import benchmark
from nfpi.benchmark import Measurement, broadcast_iteration
from nfpi.flows import MatrixExponentialFlow
from nfpi.priors import FixedPointConfig, fit_fixed_point

CPU = torch.device("cpu")
FOUND = [
    Measurement("an action", "its plain form", 0.0015, 0.03, 20.0, "s", "at least 8×"),
    Measurement("a fit's memory", "one array", 0.5, 30.5, None, "GiB", "at most 1.5 GiB"),
    Measurement("alone", "nothing", 2.0, None, None, "s", "none"),
]


# ---- both sides of a ratio ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 30.0])
@pytest.mark.parametrize(
    "settings",
    [
        {"update": "exact"},
        {"update": "released"},
        {"update": "released", "isotropic_mean_update": False},
        {"update": "released", "pooled_mean_gaps": False},
        {"update": "released", "alpha": 3.0},
    ],
)
def test_the_broadcast_iteration_is_the_same_iteration(settings, weight):
    statistics = benchmark._statistics(5, 7)
    config = FixedPointConfig(weight=weight, max_iterations=1, **settings)
    mean, variance = broadcast_iteration(statistics.mean, statistics.variance, config)
    prior = fit_fixed_point(statistics, config).prior
    torch.testing.assert_close(mean, prior.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(variance, prior.variance, rtol=1e-10, atol=1e-10)


def test_the_statistics_are_the_same_every_time():
    one, other = benchmark._statistics(4, 6), benchmark._statistics(4, 6)
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.variance, other.variance)
    one.check()


@pytest.mark.parametrize("coupling", ["matrix_exponential", "affine"])
def test_the_bare_convolutions_are_those_of_the_flow(coupling):
    flow = MatrixExponentialFlow((1, 8, 8), [2, 1], [3, 1], [8, 6], coupling)
    x = 2 * torch.rand(4, 1, 8, 8) - 1
    flow.initialize(x)
    inputs, convolutions = benchmark._record_convolutions(flow, x)
    couplings = [level_flow.coupling for level in flow.levels for level_flow in level]
    expected: list[tuple[torch.Size, torch.Size]] = []
    conv2d = F.conv2d

    def note(image, weight, bias=None, stride=1, padding=0, *_):
        expected.append((image.shape, weight.shape))
        return conv2d(image, weight, bias, padding=padding)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "conv2d", note)
        patch.setattr(torch.nn.Conv2d, "forward", lambda self, image: note(image, self.weight, self.bias, 1, 1))
        for coupled, kept in zip(couplings, inputs, strict=True):
            coupled.net(kept)
    assert len(expected) == 2 * (2 + 3 * 3) + (2 + 3 * 1)  # the first, three a block, and the last one
    assert [kept.shape for kept in inputs] == [(4, 2, 4, 4), (4, 2, 4, 4), (4, 4, 2, 2)]
    assert [(image.shape, weight.shape) for image, weight, _, _ in convolutions] == expected
    for image, weight, bias, padding in convolutions:
        out = conv2d(image, weight, bias, padding=padding)
        assert out.shape[2:] == image.shape[2:]
        out.sum().backward()
        assert all(tensor.grad is not None for tensor in (image, weight, bias))
    assert all(parameter.grad is None for parameter in flow.parameters())  # they are copies
    hooks = sum(len(module._forward_pre_hooks) for module in flow.modules())
    assert hooks == 0


# ---- how it is measured -------------------------------------------------------------------------------------


def test_the_sides_run_in_turn_and_once_before_it_counts(monkeypatch):
    order: list[str] = []
    now = 0.0
    costs = {"a": iter([100.0, 1.0, 50.0, 3.0]), "b": iter([200.0, 7.0, 5.0, 6.0])}

    def side(name: str) -> None:
        nonlocal now
        order.append(name)
        now += next(costs[name])

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)
    assert benchmark._medians(CPU, 3, lambda: side("a"), lambda: side("b")) == [3.0, 6.0]
    assert "".join(order) == "abababab"


def test_the_report_has_a_row_for_every_measurement():
    lines = benchmark._markdown(FOUND, CPU, 7).splitlines()
    assert "7 runs" in lines[0]
    assert torch.__version__ in lines[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert rows[2:] == [
        ["an action", "its plain form", "1.50 ms", "30.00 ms", "20.00×", "at least 8×"],
        ["a fit's memory", "one array", "0.50 GiB", "30.50 GiB", "", "at most 1.5 GiB"],
        ["alone", "nothing", "2000.00 ms", "", "", "none"],
    ]


def test_everything_that_is_measured_is_written(tmp_path, monkeypatch):
    received = []

    def measure(device, repeats):
        received.append(repeats)
        yield replace(FOUND[0], name=f"number {len(received)}")

    names = ("_actions", "_training_step", "_use", "_fixed_point", "_fixed_point_memory")
    for name in names:
        monkeypatch.setattr(benchmark, name, measure)
    found = benchmark.run_benchmarks(tmp_path / "new", 2)
    assert received == [2] * 5
    assert [measurement.name for measurement in found] == [f"number {n}" for n in range(1, 6)]
    table = pd.read_csv(tmp_path / "new/benchmark.csv")
    assert table["name"].tolist() == [measurement.name for measurement in found]
    assert table["ratio"].tolist() == [20.0] * 5
    text = (tmp_path / "new/benchmark.md").read_text()
    assert all(f"number {n} " in text for n in range(1, 6))


def test_the_peak_memory_of_a_fit_is_a_plausible_amount():
    """In GiB: a process with torch in it takes more than 0.05 of them, this test less than 20."""
    assert 0.05 < benchmark.peak_memory_of_a_fit(3, 4) < 20
