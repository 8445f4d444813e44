from __future__ import annotations

import pytest
import torch
from torch import nn

from nfpi.benchmark.counting import OperationCounter, SavedMemory, make_fake, make_fake_mode


def test_views_and_allocations_do_no_work():
    with OperationCounter() as counter:
        x = torch.empty(4, 6)
        x.view(6, 4).transpose(0, 1)[1:]
    assert counter.counts.operations == []
    batched, linear = torch.ones(2, 3, 4, 5), nn.Linear(5, 7, bias=False)
    with OperationCounter() as counter:
        batched @ batched.transpose(2, 3)
        linear(batched)
    assert [one.name for one in counter.counts.operations] == ["aten.bmm.default", "aten.mm.default"]


def test_flops_and_bytes_are_those_of_the_operation():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    with OperationCounter() as counter:
        a @ b
        a + a.new_ones(1).expand(3, 5)
    product, ones, added = counter.counts.operations
    assert product.flops == 2 * 3 * 5 * 7
    assert product.bytes == 4 * (3 * 5 + 5 * 7 + 3 * 7)
    assert product.dtype is torch.float32
    assert (ones.flops, added.flops) == (0, 0)
    assert added.bytes == 4 * (15 + 1 + 15)  # what is expanded lies in memory once
    assert counter.counts.flops == product.flops
    assert counter.counts.bytes == product.bytes + ones.bytes + added.bytes


def test_the_attention_of_a_cpu_is_counted():
    q = torch.randn(2, 3, 8, 16)
    with OperationCounter() as counter:
        nn.functional.scaled_dot_product_attention(q, q, q)
    assert counter.counts.flops == 2 * 2 * (2 * 3) * 8 * 8 * 16


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
    assert fake.counts.flops == real.counts.flops > 0
    assert {op.name for op in fake.counts.operations} == {op.name for op in real.counts.operations} - {
        "aten.randn.default"
    }


def test_numbers_that_fake_tensors_do_not_have_say_that_all_is_well():
    mode = make_fake_mode()
    with mode, OperationCounter(value=0.25):
        x = torch.empty(4, 3)
        assert x.sum().item() == 0.25
        assert torch.isfinite(x).all()
        assert not torch.isnan(x).any()
        assert len((x > 0).nonzero()) == 0
        with pytest.raises(NotImplementedError, match=r"no value is known for aten\.masked_select"):
            torch.masked_select(x, x > 0)


def test_memory_for_the_backward_pass_is_counted_once_and_without_parameters():
    weight = nn.Parameter(torch.ones(5))
    x = torch.ones(7, 5)
    saved = SavedMemory()
    with saved.counting():
        y = x * weight  # keeps x and the weight
        y.square() + (x * weight)  # keeps y, and x again
    assert saved.bytes == 4 * (7 * 5 + 7 * 5)
