"""On accelerators a flow takes few large operations in place of many small ones, and computes the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nfpi import linalg
from nfpi.flows import MatrixExponentialFlow, networks
from nfpi.flows import matrix_exponential as paper_flow
from nfpi.flows.bijection import skip_initialization
from nfpi.flows.coupling import SeriesCoupling, _BoundedExponent
from nfpi.flows.networks import _ScaledKernels, scale_kernels
from nfpi.linalg import _BatchedExponential, _BatchedTaylorAction, matrix_exponential


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def as_on_accelerators() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (linalg, networks, paper_flow):
            patch.setattr(module, "has_launch_overhead", lambda device: True)
        yield patch


def _run(flow: MatrixExponentialFlow, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    z, log_abs_det = flow(x)
    (z.square().sum() - log_abs_det.sum()).backward()
    gradients = [parameter.grad for parameter in flow.parameters()] + [x.grad]
    flow.zero_grad(set_to_none=True)
    with torch.no_grad():
        inverse = flow.inverse(z)
    return [z.detach(), log_abs_det.detach(), *inverse, *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("coupling", ["matrix_exponential", "affine"])
def test_a_flow_is_the_same_in_few_operations(coupling, as_on_accelerators, randomize):
    torch.manual_seed(0)
    # channels of the couplings: 6, 12, 24 (full matrices) and 48 (low rank)
    flow = randomize(MatrixExponentialFlow((3, 16, 16), [2, 1, 1, 2], [2, 1, 1, 1], [4] * 4, coupling).double(), 0)
    x = _random(2, 3, 16, 16)
    together = _run(flow, x)
    as_on_accelerators.undo()
    alone = _run(flow, x)
    assert len(together) == len(alone) == 5 + len(list(flow.parameters()))
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_exponentials_of_several_matrices_are_those_of_each():
    matrices = _random(3, 4, 4)
    alone = torch.stack([matrix_exponential(one) for one in matrices])
    assert torch.equal(matrix_exponential(matrices), alone)
    torch.testing.assert_close(_BatchedExponential.apply(matrices), alone, rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(_BatchedExponential.apply, matrices.requires_grad_())


def test_gradients_of_the_batched_series_are_its_derivatives():
    field, vector = _random(2, 3, 3, 4).requires_grad_(), _random(2, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: _BatchedTaylorAction.apply(a, b, 7), (field, vector))


def test_the_bounded_exponent_has_the_bits_of_plain_operations():
    """It leaves out multiplications by 1 only."""
    inputs = [_random(3, 4, 5), *(_random(1, seed=seed) for seed in range(1, 5))]
    upstream = _random(3, 4, 5, seed=5).float()

    def results(exponent) -> list[torch.Tensor]:
        leaves = [one.float().requires_grad_() for one in inputs]
        value = exponent(*leaves)
        return [value, *torch.autograd.grad(value, leaves, upstream)]

    def plainly(x, scale, shift, rescale, reshift):
        return torch.addcmul(reshift, rescale, torch.tanh(torch.addcmul(shift, scale, x)))

    assert all(map(torch.equal, results(_BoundedExponent.apply), results(plainly)))
    assert torch.autograd.gradcheck(_BoundedExponent.apply, [one.requires_grad_() for one in inputs])


@pytest.mark.parametrize("channels_last", [False, True])
def test_kernels_scaled_together_are_those_scaled_alone(channels_last):
    weights = [_random(3, 2, 3, 3, seed=seed).requires_grad_() for seed in range(2)]
    scales = [_random(3, seed=seed).requires_grad_() for seed in (2, 3)]
    found = _ScaledKernels.apply(channels_last, torch.float64, *weights, *scales)
    order = torch.channels_last if channels_last else torch.contiguous_format
    for kernel, weight, scale in zip(found, weights, scales, strict=True):
        assert torch.equal(kernel, weight * scale[:, None, None, None])
        assert kernel.is_contiguous(memory_format=order)
    sum(kernel.square().sum() for kernel in found).backward()
    assert all(weight.grad.is_contiguous() for weight in weights)  # the order in which the optimizer has its moments
    assert torch.autograd.gradcheck(
        lambda *parameters: _ScaledKernels.apply(channels_last, torch.float64, *parameters), (*weights, *scales)
    )
    half = _ScaledKernels.apply(channels_last, torch.bfloat16, *weights, *scales)
    assert all(kernel.dtype == torch.bfloat16 for kernel in half)


def test_shifts_cast_together_are_those_cast_alone():
    """So are their gradients, which convolutions compute in bfloat16."""
    shifts = [_random(size, seed=size).float().requires_grad_() for size in (3, 5)]
    weights = [torch.ones(len(shift), 1, 1, 1) for shift in shifts]
    with torch.autocast("cpu", torch.bfloat16):
        scaled = scale_kernels(weights, [torch.ones(len(shift)) for shift in shifts], shifts)
    biases = [bias for _, bias in scaled]
    assert all(torch.equal(bias, shift.bfloat16()) for bias, shift in zip(biases, shifts, strict=True))
    upstream = [_random(len(shift), seed=len(shift) + 1).bfloat16() for shift in shifts]
    found = torch.autograd.grad(biases, shifts, upstream)
    assert all(torch.equal(one, given.float()) for one, given in zip(found, upstream, strict=True))
    assert all(bias is shift for (_, bias), shift in zip(scale_kernels(weights, shifts, shifts), shifts, strict=True))


def test_kernels_are_forgotten_after_a_pass(as_on_accelerators):
    """A net that kept them would keep computing with old weights."""
    flow = MatrixExponentialFlow((1, 4, 4), [2], [1], [4])
    x = torch.rand(2, 1, 4, 4)
    with torch.no_grad():
        flow(x)
        flow.levels[0][0].coupling.net.head.shift += 1
        flow.levels[0][0].coupling.net.head.scale *= 2
        changed = flow(x)[0]
        as_on_accelerators.undo()
        torch.testing.assert_close(changed, flow(x)[0])
    assert all(step.coupling.net._kernels is None for step in flow.levels[0])


class _Count(TorchDispatchMode):
    """Operations that are no views."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        view = any(out.alias_info and not out.alias_info.is_write for out in func._schema.returns)
        self.total += func.namespace == "aten" and not view
        return func(*args, **(kwargs or {}))


def _operations(flows: int, mixed: bool) -> int:
    """Of forward and backward of the paper's flow with fewer flow steps a level, on tensors without values."""
    with FakeTensorMode(), skip_initialization():
        flow = MatrixExponentialFlow((3, 32, 32), [flows] * 3, [8, 4, 2], [128] * 3).train()
        for module in flow.modules():
            if isinstance(module, SeriesCoupling):
                module.held_bound = 1.25 / module.split[1]  # that of new weights with a margin
        with _Count() as count:
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                z, log_abs_det = flow(torch.empty(2, 3, 32, 32))
            (z.square().sum() - log_abs_det.sum()).backward()
    return count.total


@pytest.mark.parametrize(("mixed", "limit"), [(False, 4600), (True, 4800)])
def test_a_step_of_the_papers_flow_takes_few_operations(as_on_accelerators, mixed, limit):
    one, two = _operations(1, mixed), _operations(2, mixed)
    assert 3000 < one + 7 * (two - one) <= limit
