from __future__ import annotations

import torch
from counting import count_classifier_step, count_flow_step, count_pass
from test_counting import sum_flops
from torch import nn

from nfpi.config.flows import TrainingConfig
from nfpi.flows import MatrixExponentialFlow


def flow() -> MatrixExponentialFlow:
    return MatrixExponentialFlow((1, 8, 8), [1], [1], [8])


def test_a_step_of_a_flow_grows_with_the_batch_in_bytes_and_not_in_operations():
    small, large = count_flow_step(flow(), 4, "32-true"), count_flow_step(flow(), 8, "32-true")
    assert len(small.operations) == len(large.operations)
    assert sum_flops(large.passes) > 1.9 * sum_flops(small.passes)
    assert large.saved > 1.5 * small.saved
    assert large.state == small.state


def test_the_state_is_weights_gradients_average_and_moments():
    parameters = sum(parameter.numel() for parameter in flow().parameters())
    step = count_flow_step(flow(), 2, "32-true", TrainingConfig(optimizer="adam"))
    assert step.state == 4 * parameters * (1 + 1 + 1 + 2)


def test_mixed_precision_multiplies_in_bfloat16():
    def types(precision: str) -> set[torch.dtype]:
        operations = count_flow_step(flow(), 2, precision).passes
        return {operation.dtype for operation in operations if "convolution" in operation.name}

    assert types("32-true") == {torch.float32}
    assert types("bf16-mixed") == {torch.bfloat16}


def test_a_step_of_a_classifier_is_its_two_products_three_times_over_but_for_the_images():
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Linear(7, 3))

    def make(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    step = count_classifier_step(build, (5, 3, 2, 2), "32-true", make)
    first, second = 2 * 5 * 12 * 7, 2 * 5 * 7 * 3
    assert sum_flops(step.passes) == 2 * first + 3 * second
    assert step.state == 4 * (12 * 7 + 7 + 7 * 3 + 3) * 3


def test_an_inverse_takes_the_convolutions_of_the_forward_pass():
    there = count_pass(flow(), (4, 1, 8, 8))
    back = count_pass(flow(), (4, 64), "inverse")

    def convolutions(step):
        return sum(operation.flops for operation in step.operations if "convolution" in operation.name)

    assert convolutions(there) == convolutions(back) > 0
