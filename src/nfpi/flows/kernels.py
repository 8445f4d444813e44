"""Scale the kernels of many convolutions by output channel in a few operations.

The nets of a level of the paper's flow have up to 200 such kernels. On an accelerator, each multiplication and each of
its gradients is a separate launch, so kernels of the same size are stacked and scaled together. In mixed precision the
shifts of all convolutions are cast together too, as each cast and its gradient would be launches as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfpi.linalg import has_launch_overhead
from nfpi.runtime.precision import choose_convolution_format


def should_stack_kernels(device: torch.device) -> bool:
    """Return whether to stack kernels and scale them together: on accelerators, unless a compiler fuses operations."""
    return has_launch_overhead(device) and not torch.compiler.is_compiling()


def scale_kernels(
    weights: Sequence[Tensor], scales: Sequence[Tensor], shifts: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Return the kernel s ⊙ W and the bias of every convolution, in the memory format and precision it runs in.

    Args:
        weights: W, (out, in, k, k) each.
        scales: s, (out,) each.
        shifts: biases, (out,) each.

    Returns:
        (out, in, k, k) and (out,) each.
    """
    device = weights[0].device
    channels_last = choose_convolution_format(device) == torch.channels_last
    mixed = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if mixed else weights[0].dtype
    places: dict[torch.Size, list[int]] = {}
    for place, weight in enumerate(weights):
        places.setdefault(weight.shape, []).append(place)
    kernels = list(weights)
    for group in places.values():
        parameters = [weights[place] for place in group] + [scales[place] for place in group]
        scaled = _ScaledKernels.apply(channels_last, dtype, *parameters)
        for place, kernel in zip(group, scaled, strict=True):
            kernels[place] = kernel
    biases = torch.cat(list(shifts)).to(dtype).split([len(shift) for shift in shifts]) if mixed else shifts
    return list(zip(kernels, biases, strict=True))


class _ScaledKernels(torch.autograd.Function):
    """K = s ⊙ W for n kernels of one size; ∂W = s ⊙ ∂K, contiguous like W, and ∂s = Σ W ⊙ ∂K."""

    @staticmethod
    def forward(ctx: Any, channels_last: bool, dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
        count = len(parameters) // 2
        weights = torch.stack(parameters[:count])
        scales = torch.stack(parameters[count:])[..., None, None, None]
        ctx.save_for_backward(weights, scales)
        if channels_last:
            number, out, in_, height, width = weights.shape
            kernels = weights.new_empty((number, out, height, width, in_), dtype=dtype).movedim(-1, 2)
        else:
            kernels = torch.empty_like(weights, dtype=dtype)
        return torch.mul(weights, scales, out=kernels).unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, scales = ctx.saved_tensors
        stacked = torch.stack(gradients)
        weight_gradients = torch.mul(stacked, scales, out=torch.empty_like(weights))
        scale_gradients = (stacked * weights).sum((2, 3, 4))
        return None, None, *weight_gradients.unbind(), *scale_gradients.unbind()
