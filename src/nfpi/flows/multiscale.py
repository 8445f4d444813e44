"""The multiscale flow: levels of squeeze, flows and split (Dinh et al., 2017; Kingma and Dhariwal, 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nfpi.flows.actnorm import ActNorm
from nfpi.flows.bijection import Bijection
from nfpi.flows.coupling import make_coupling
from nfpi.flows.linear import MatrixExponentialConv1x1


def squeeze(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, 4C, H/2, W/2): each 2×2 square becomes one pixel, its channels ordered (row, column, C)."""
    batch, channels, height, width = x.shape
    squares = x.view(batch, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 3, 5, 1, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)


def unsqueeze(y: Tensor) -> Tensor:
    """(B, 4C, H, W) → (B, C, 2H, 2W), the inverse of :func:`squeeze`."""
    batch, channels, height, width = y.shape
    squares = y.view(batch, 2, 2, channels // 4, height, width)
    return squares.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * height, 2 * width)


class Flow(Bijection):
    """One flow: activation normalisation, 1×1 convolution, coupling.

    Args:
        shape: (C, H, W) of its input and output.
        hidden_channels, num_blocks: of the coupling net.
        coupling: kind of the coupling.
    """

    def __init__(self, shape: tuple[int, int, int], hidden_channels: int, num_blocks: int, coupling: str) -> None:
        super().__init__()
        self.actnorm = ActNorm(shape)
        self.linear = MatrixExponentialConv1x1(shape[0])
        self.coupling = make_coupling(coupling, shape[0], hidden_channels, num_blocks)

    def _parts(self) -> tuple[Bijection, Bijection, Bijection]:
        return self.actnorm, self.linear, self.coupling

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The three parts in their order."""
        log_abs_det = x.new_zeros(len(x))
        for part in self._parts():
            x, change = part(x)
            log_abs_det = log_abs_det + change
        return x, log_abs_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Their inverses in the opposite order."""
        log_abs_det = y.new_zeros(len(y))
        for part in reversed(self._parts()):
            y, change = part.inverse(y)
            log_abs_det = log_abs_det + change
        return y, log_abs_det

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise each part on the output of the one before."""
        for part in self._parts():
            x = part.initialize(x)
        return x


class MatrixExponentialFlow(Bijection):
    """The backbone of the paper: levels of flows on images of growing depth and shrinking size.

    A level squeezes its input to (4C, H/2, W/2) and applies its flows. The first half of the channels goes on to the
    next level; at the end the levels' latents are put back where they came from, so z has the shape of the image.

    Args:
        shape: (C, H, W) of the images; H and W must be multiples of 2^levels.
        num_flows, num_blocks, hidden_channels: one entry a level: flows, residual blocks of a coupling net, its width.
        coupling: `matrix_exponential`, `affine` or `additive`.

    Raises:
        ValueError: the lists differ in length, or the size does not divide.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_flows: Sequence[int],
        num_blocks: Sequence[int],
        hidden_channels: Sequence[int],
        coupling: str = "matrix_exponential",
    ) -> None:
        super().__init__()
        levels = len(num_flows)
        if not levels or {len(num_blocks), len(hidden_channels)} != {levels}:
            raise ValueError(
                "num_flows, num_blocks and hidden_channels need one entry a level each, received "
                f"{levels}, {len(num_blocks)} and {len(hidden_channels)}"
            )
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape: expected (C, H, W), received {tuple(shape)}")
        channels, height, width = shape
        if height % 2**levels or width % 2**levels:
            raise ValueError(
                f"{levels} levels halve the image {levels} times: height and width must be multiples of {2**levels}, "
                f"received {height}×{width}"
            )
        self.shape = (channels, height, width)
        self.settings = {
            "shape": list(shape),
            "num_flows": list(num_flows),
            "num_blocks": list(num_blocks),
            "hidden_channels": list(hidden_channels),
            "coupling": coupling,
        }
        self.levels = nn.ModuleList()
        for flows, blocks, hidden in zip(num_flows, num_blocks, hidden_channels, strict=True):
            channels, height, width = 4 * channels, height // 2, width // 2
            size = (channels, height, width)
            self.levels.append(nn.ModuleList(Flow(size, hidden, blocks, coupling) for _ in range(flows)))
            channels //= 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(x) and log |det ∂z/∂x|.

        Args:
            x: (B, C, H, W) in [−1, 1].

        Returns:
            z: (B, C, H, W) and log_abs_det: (B,).

        Raises:
            ValueError: x has another shape.
        """
        total = x.new_zeros(len(x))

        def apply(flow: Flow, x: Tensor) -> Tensor:
            nonlocal total
            x, log_abs_det = flow(x)
            total = total + log_abs_det
            return x

        return self._through(x, apply), total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = f⁻¹(z) and log |det ∂x/∂z|.

        Args:
            z: (B, C, H, W) or (B, D) with D = C·H·W.

        Returns:
            x: (B, C, H, W) and log_abs_det: (B,).
        """
        if z.dim() == 2 and z.shape[1] == torch.Size(self.shape).numel():
            z = z.view(len(z), *self.shape)
        self._check(z)
        kept: list[Tensor] = []
        for _ in self.levels:
            z, rest = squeeze(z).chunk(2, 1)
            kept.append(rest)
        log_abs_det = z.new_zeros(len(z))
        for level in reversed(self._flows()):
            z = torch.cat([z, kept.pop()], 1)
            for flow in reversed(level):
                z, change = flow.inverse(z)
                log_abs_det = log_abs_det + change
            z = unsqueeze(z)
        return z, log_abs_det

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Data-dependent initialisation: every normalisation gives zero mean and unit variance on this batch.

        Args:
            x: (B, C, H, W) in [−1, 1], some hundred images.

        Returns:
            z: (B, C, H, W).
        """
        return self._through(x, lambda flow, x: flow.initialize(x))

    def _flows(self) -> list[list[Flow]]:
        return [list(level) for level in self.levels]  # type: ignore[call-overload]

    def _through(self, x: Tensor, apply: Callable[[Flow, Tensor], Tensor]) -> Tensor:
        """z of the images x, with each flow applied by `apply`."""
        self._check(x)
        kept: list[Tensor] = []
        for level in self._flows():
            x = squeeze(x)
            for flow in level:
                x = apply(flow, x)
            x, rest = x.chunk(2, 1)
            kept.append(rest)
        # after the last level nothing is left to go on: its halves come together again
        for rest in reversed(kept):
            x = unsqueeze(torch.cat([x, rest], 1))
        return x

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"expected images (B, {', '.join(map(str, self.shape))}), received {tuple(x.shape)}")
