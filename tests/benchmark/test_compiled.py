from __future__ import annotations

from torch._inductor import metrics

from nfpi.benchmark.compiled import bytes_outside_convolutions
from nfpi.flows import MatrixExponentialFlow


def test_a_compiled_step_moves_less_than_eager_mode_and_at_least_its_activations():
    metrics.reset()
    batch, channels = 64, 16
    compiled, eager = bytes_outside_convolutions(MatrixExponentialFlow((1, 4, 4), [1], [1], [channels]), batch)
    activation = 4 * batch * channels * 2 * 2
    elus, sums = 4, 1
    assert (5 * elus + 2 * sums) * activation < compiled < eager
    assert metrics.generated_kernel_count == 0
