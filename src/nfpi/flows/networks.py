"""The networks inside couplings.

The nets of a level of the paper's flow have up to 200 kernels, each scaled by output channel. On an accelerator, each
multiplication and each of its gradients is a separate launch, so kernels of the same size are stacked and scaled
together. In mixed precision the shifts of all convolutions are cast together too, as each cast and its gradient would
be launches as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nfpi.flows.bijection import is_initialization_skipped
from nfpi.linalg import has_launch_overhead
from nfpi.runtime.precision import choose_convolution_format


class CouplingNet(nn.Module):
    """Interface of the networks of couplings, with a data-dependent initialisation."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        raise NotImplementedError

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise data-dependent parameters from a batch of inputs, and return the output."""
        raise NotImplementedError


Scaled = tuple[Tensor, Tensor]
"""scaled kernel of a convolution, and its bias"""

_HEAD_SCALE = 0.77
"""mean initial scale of a coupling net's first convolution in the released code, at the size of the paper's flow"""


class NormalizedConv2d(nn.Module):
    """Convolution scale ⊙ conv(x) + shift per output channel, initialised to normalise the first batch.

    The scale and the shift are folded into the kernel and the bias, so they need no operation on the image.

    Args:
        in_channels, out_channels: numbers of channels of the convolution.
        kernel_size: odd; the image keeps its size.
        starts_at_zero: the initialisation sets the scale and the shift to 0 instead.
        initial_scale: None: the kernel is normal with variance 1/fan_in, and the initialisation sets the scale; a
            number: the kernel is uniform, and the initialisation divides it by the standard deviation of its outputs
            and by this number, which becomes the scale.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        starts_at_zero: bool = False,
        initial_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.scale = nn.Parameter(torch.ones(out_channels))
        self.shift = nn.Parameter(torch.zeros(out_channels))
        self.padding = kernel_size // 2
        self.starts_at_zero = starts_at_zero
        self.initial_scale = initial_scale
        if is_initialization_skipped():
            return
        if initial_scale is None:
            nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        else:
            nn.init.kaiming_uniform_(self.weight, nonlinearity="linear")

    def forward(self, x: Tensor, scaled: Scaled | None = None) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W).

        Args:
            x: the image.
            scaled: product of weight and scale, and the bias, if already computed.
        """
        kernel, bias = scaled or (self.weight * self.scale[:, None, None, None], self.shift)
        return F.conv2d(x, kernel, bias, padding=self.padding)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Normalise every output channel to zero mean and unit variance; constant channels are only centred."""
        if not self.starts_at_zero or self.initial_scale is not None:
            spread, mean = torch.std_mean(F.conv2d(x, self.weight, padding=self.padding), (0, 2, 3), correction=0)
            constant = spread <= 1e-6 * (mean.abs() + 1e-6)
            scale = torch.where(constant, torch.ones_like(spread), 1 / spread)
            self.scale.copy_(scale)
            self.shift.copy_(-mean * self.scale)
            if self.initial_scale is not None:
                self.weight.mul_((scale / self.initial_scale)[:, None, None, None])
                self.scale.fill_(self.initial_scale)
        if self.starts_at_zero:
            self.scale.zero_()
            self.shift.zero_()
        y: Tensor = self(x)
        return y


class ResidualBlock(nn.Module):
    """Residual block ELU(x + conv₃ₓ₃(ELU(conv₁ₓ₁(ELU(conv₃ₓ₃(x)))))); initialised to ELU(x)."""

    def __init__(self, channels: int, initial_scale: float | None = None) -> None:
        super().__init__()
        self.conv1 = NormalizedConv2d(channels, channels, 3, initial_scale=initial_scale)
        self.conv2 = NormalizedConv2d(channels, channels, 1, initial_scale=initial_scale)
        self.conv3 = NormalizedConv2d(channels, channels, 3, starts_at_zero=True, initial_scale=initial_scale)

    def forward(self, x: Tensor, kernels: Sequence[Scaled | None] = (None, None, None)) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W); `kernels`: scaled kernels and biases, if already computed."""
        hidden = F.elu(self.conv1(x, kernels[0]), inplace=True)
        hidden = F.elu(self.conv2(hidden, kernels[1]), inplace=True)
        return F.elu(self.conv3(hidden, kernels[2]).add_(x), inplace=True)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise the convolutions in order."""
        hidden = F.elu(self.conv1.initialize(x))
        hidden = F.elu(self.conv2.initialize(hidden))
        return F.elu(self.conv3.initialize(hidden) + x)


class ResidualNet(CouplingNet):
    """3×3 convolution, ELU, residual blocks, and a 3×3 convolution initialised to zero.

    Args:
        in_channels, hidden_channels, out_channels: widths.
        num_blocks: residual blocks.
        initialization: `normal`, or `uniform` as in the released code: uniform kernels divided by the standard
            deviation of their outputs, that of the first convolution also by 0.77. The scale is 0.77 for the first
            convolution, 0 for the last of each block and 1 for the others.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_blocks: int,
        initialization: str = "normal",
    ) -> None:
        super().__init__()
        scale, head_scale = (1.0, _HEAD_SCALE) if initialization == "uniform" else (None, None)
        self.head = NormalizedConv2d(in_channels, hidden_channels, 3, initial_scale=head_scale)
        self.blocks = nn.ModuleList(ResidualBlock(hidden_channels, scale) for _ in range(num_blocks))
        self.out = nn.Conv2d(hidden_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self._kernels: list[Scaled] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        kernels = self._kernels or self._scale_kernels()
        hidden = F.elu(
            self.head(x.contiguous(memory_format=choose_convolution_format(x.device)), kernels[0]), inplace=True
        )
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, kernels[3 * number + 1 : 3 * number + 4])
        y: Tensor = self.out(hidden)
        return y

    def _list_convolutions(self) -> list[NormalizedConv2d]:
        return [module for module in self.modules() if isinstance(module, NormalizedConv2d)]

    def _scale_kernels(self) -> Sequence[Scaled | None]:
        convolutions = self._list_convolutions()
        if not should_stack_kernels(self.head.weight.device):  # a kernel scaled right before use is still in the cache
            return [None] * len(convolutions)
        return _scale_together(convolutions)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise the parts in order."""
        hidden = F.elu(self.head.initialize(x))
        for block in self.blocks:
            hidden = block.initialize(hidden)  # type: ignore[operator]
        y: Tensor = self.out(hidden)
        return y


def _scale_together(convolutions: Sequence[NormalizedConv2d]) -> list[Scaled]:
    weights, scales = [conv.weight for conv in convolutions], [conv.scale for conv in convolutions]
    return scale_kernels(weights, scales, [conv.shift for conv in convolutions])


def scaled_weights(nets: Sequence[ResidualNet]) -> AbstractContextManager[None]:
    """Scale the kernels of several nets all at once, for use within the context; no-op unless kernels are stacked."""
    if nets and should_stack_kernels(nets[0].head.weight.device):
        return _using_kernels(nets)
    return nullcontext()


@contextmanager
def _using_kernels(nets: Sequence[ResidualNet]) -> Iterator[None]:
    convolutions = [conv for net in nets for conv in net._list_convolutions()]
    kernels = iter(_scale_together(convolutions))
    try:
        for net in nets:
            net._kernels = list(islice(kernels, len(net._list_convolutions())))
        yield
    finally:
        for net in nets:
            net._kernels = None


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
