from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from counting import Operation, OperationCounter, SavedMemory, make_fake, make_fake_mode
from torch import nn


def sum_flops(operations: list[Operation]) -> int:
    return sum(operation.flops for operation in operations)


def test_views_and_allocations_do_no_work():
    with OperationCounter() as counter:
        x = torch.empty(4, 6)
        x.view(6, 4).transpose(0, 1)[1:]
    assert counter.operations == []
    batched, linear = torch.ones(2, 3, 4, 5), nn.Linear(5, 7, bias=False)
    with OperationCounter() as counter:
        batched @ batched.transpose(2, 3)
        linear(batched)
    assert [one.name for one in counter.operations] == ["aten.bmm.default", "aten.mm.default"]


def test_flops_and_bytes_are_those_of_the_operation():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    with OperationCounter() as counter:
        a @ b
        a + a.new_ones(1).expand(3, 5)
    product, ones, added = counter.operations
    assert product.flops == 2 * 3 * 5 * 7
    assert product.bytes == 4 * (3 * 5 + 5 * 7 + 3 * 7)
    assert product.dtype is torch.float32
    assert (ones.flops, added.flops) == (0, 0)
    assert added.bytes == 4 * (15 + 1 + 15)  # what is expanded lies in memory once


def test_a_destination_is_only_written():
    a, b, out = torch.ones(8), torch.ones(8), torch.ones(8)
    with OperationCounter() as counter:
        torch.add(a, b, out=out)
        out.copy_(a)
        out.zero_()
        torch.zeros_like(a)
        out.add_(a)
        torch._foreach_add_([out, a], 1.0)
        torch._foreach_zero_([out, a])
    assert [one.bytes // (4 * 8) for one in counter.operations] == [3, 2, 1, 1, 3, 4, 2]


def test_the_attention_of_a_cpu_is_counted():
    q = torch.randn(2, 3, 8, 16)
    with OperationCounter() as counter:
        nn.functional.scaled_dot_product_attention(q, q, q)
    assert sum_flops(counter.operations) == 2 * 2 * (2 * 3) * 8 * 8 * 16


def test_fake_tensors_are_counted_like_real_ones():
    def step(module: nn.Module, x: torch.Tensor) -> None:
        module(x).square().sum().backward()

    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ELU(), nn.Conv2d(4, 2, 1))
    with OperationCounter() as real:
        step(module, torch.randn(2, 3, 8, 8))
    mode, fake = make_fake_mode(), OperationCounter()
    make_fake(module, mode)
    with mode:
        x = torch.randn(2, 3, 8, 8)
        with fake:
            step(module, x)
    assert sum_flops(fake.operations) == sum_flops(real.operations) > 0
    assert {op.name for op in fake.operations} == {op.name for op in real.operations} - {"aten.randn.default"}


def test_numbers_that_fake_tensors_do_not_have_say_that_all_is_well():
    with make_fake_mode(), OperationCounter():
        x = torch.empty(4, 3)
        assert x.sum().item() == 0.2
        assert torch.isfinite(x).all()
        assert not torch.isnan(x).any()
        with pytest.raises(NotImplementedError, match=r"aten\.masked_select"):
            torch.masked_select(x, x > 0)


def test_memory_for_the_backward_pass_is_counted_once_and_without_parameters():
    weight = nn.Parameter(torch.ones(5))
    x = torch.ones(7, 5)
    saved = SavedMemory()
    with saved:
        y = x * weight  # keeps x and the weight
        y.square() + (x * weight)  # keeps y, and x again
    assert saved.bytes == 4 * (7 * 5 + 7 * 5)


@pytest.mark.parametrize("is_fake", [False, True])
def test_weights_of_layers_are_not_counted_as_memory_for_the_backward_pass(is_fake):
    """A linear layer saves its transposed weight, a view."""
    module, mode = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(1), nn.Linear(8, 5), nn.Linear(5, 3)), make_fake_mode()
    saved = SavedMemory()
    with mode if is_fake else nullcontext():
        x = torch.ones(7, 1, 4, 4)
        with saved:
            (make_fake(module, mode) if is_fake else module)(x)
    assert saved.bytes == 4 * 7 * (16 + 8 + 5)  # the inputs of the layers
