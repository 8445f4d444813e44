"""Coupling layers: half of the channels is transformed depending on the other half.

The couplings of the paper's flow are y₂ = e^{S(x₁)} x₂ + b(x₁) at every pixel. The matrix S is full or of low rank
(Xiao and Liu, 2020), diagonal (Dinh et al., RealNVP, 2017) or zero (Dinh et al., NICE, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nfpi.flows.bijection import Bijection
from nfpi.flows.networks import CouplingNet, ResidualNet
from nfpi.linalg import exponential_action, phi_action

LARGEST_DENSE = 24
"""largest number of channels of x₂ for which S is a full matrix"""
RANK = 3
"""rank of S for more channels"""
_LOW_RANK_OFFSET = 1e-8


class Coupling(Bijection):
    """Base class of couplings: the first ⌈C/2⌉ channels x₁ are unchanged, the others x₂ are transformed.

    Subclasses transform x₂, (B, C₂, P) for P pixels, with the net's output for x₁, (B, `count_parameters(C₂)`, P).

    Args:
        channels: C.
        make_net: builds the net from its numbers of input and output channels.
    """

    def __init__(self, channels: int, make_net: Callable[[int, int], CouplingNet]) -> None:
        super().__init__()
        self.split = (math.ceil(channels / 2), channels // 2)
        if self.split[1] == 0:
            raise ValueError(f"a coupling needs at least 2 channels, received {channels}")
        self.net = make_net(self.split[0], self.count_parameters(self.split[1]))

    @staticmethod
    def count_parameters(channels: int) -> int:
        """Return the number of parameters per pixel for C₂ = `channels` channels."""
        raise NotImplementedError

    def transform(self, parameters: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Return y₂ and log |det ∂y₂/∂x₂| of shape (B,)."""
        raise NotImplementedError

    def transform_inverse(self, parameters: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """Return x₂ and log |det ∂x₂/∂y₂| of shape (B,)."""
        raise NotImplementedError

    def _apply_to_second(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        kept, mapped = x.split(self.split, 1)
        parameters = self.net(kept).to(x.dtype, memory_format=torch.contiguous_format).flatten(2)
        vector = mapped.flatten(2)
        change = self.transform_inverse if inverse else self.transform
        result, log_abs_det = change(parameters, vector)
        return torch.cat([kept, result.view_as(mapped)], 1), log_abs_det

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (x₁, x₂) to (x₁, y₂)."""
        return self._apply_to_second(x, inverse=False)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map (x₁, y₂) to (x₁, x₂)."""
        return self._apply_to_second(y, inverse=True)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise the net on x₁."""
        self.net.initialize(x[:, : self.split[0]])
        z: Tensor = self(x)[0]
        return z


class _ResidualCoupling(Coupling):
    """Base class of the paper's couplings, whose net is a residual network.

    Args:
        channels: C.
        hidden_channels, num_blocks, initialization: width, residual blocks and initialisation of the net.
    """

    def __init__(self, channels: int, hidden_channels: int, num_blocks: int, initialization: str = "normal") -> None:
        super().__init__(
            channels, lambda kept, out: ResidualNet(kept, hidden_channels, out, num_blocks, initialization)
        )


class AdditiveCoupling(_ResidualCoupling):
    """Additive coupling y₂ = x₂ + b(x₁)."""

    @staticmethod
    def count_parameters(channels: int) -> int:
        """Return C₂, for b."""
        return channels

    def transform(self, parameters: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Add b."""
        return x2 + parameters, x2.new_zeros(len(x2))

    def transform_inverse(self, parameters: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract b."""
        return y2 - parameters, y2.new_zeros(len(y2))


class _BoundedExponent(torch.autograd.Function):
    """S = r t + u with t = tanh(s x + b) of an array x and four numbers s, b, r and u of shape (1,).

    Backward, with ∂v for the gradient of the loss with respect to v and G = ∂S: ∂r = Σ G t and ∂u = Σ G; with
    H = r G (1 − t²): ∂x = s H, ∂s = Σ H x and ∂b = Σ H. Autograd alone gives the same bits, but its backward of
    `addcmul` also multiplies by `value` = 1: four more operations, which copy x and t.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, rescale: Tensor, reshift: Tensor) -> Tensor:
        bounded = torch.tanh(torch.addcmul(shift, scale, x))
        ctx.save_for_backward(x, bounded, scale, rescale)
        return torch.addcmul(reshift, rescale, bounded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, bounded, scale, rescale = ctx.saved_tensors
        inner = torch.ops.aten.tanh_backward(gradient * rescale, bounded)
        scalar_gradients = (inner * x, inner, gradient * bounded, gradient)  # to be summed over the entries
        return inner * scale, *(terms.sum_to_size(1) for terms in scalar_gradients)


class _BoundedCoupling(_ResidualCoupling):
    """Base class of couplings with exponent rescale · tanh(scale · out + shift) + reshift and learned scalars."""

    def __init__(self, channels: int, hidden_channels: int, num_blocks: int, initialization: str = "normal") -> None:
        super().__init__(channels, hidden_channels, num_blocks, initialization)
        self.scale = nn.Parameter(torch.full((1,), 1 / 8))
        self.shift = nn.Parameter(torch.zeros(1))
        self.rescale = nn.Parameter(torch.full((1,), 1 / self.split[1]))
        self.reshift = nn.Parameter(torch.zeros(1))

    def exponent(self, out: Tensor) -> Tensor:
        """Return the entries of S, or of W₁ and W₂ for an S of low rank, bounded by |rescale| + |reshift|."""
        exponent: Tensor = _BoundedExponent.apply(out, self.scale, self.shift, self.rescale, self.reshift)
        return exponent


class AffineCoupling(_BoundedCoupling):
    """Affine coupling y₂ = e^{s(x₁)} ⊙ x₂ + b(x₁), with log |det| = Σ s."""

    @staticmethod
    def count_parameters(channels: int) -> int:
        """Return 2 C₂, for b and s."""
        return 2 * channels

    def transform(self, parameters: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift."""
        bias, out = parameters.chunk(2, 1)
        exponent = self.exponent(out)
        return torch.addcmul(bias, exponent.exp(), x2), exponent.flatten(1).sum(1)

    def transform_inverse(self, parameters: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the shift and the scale."""
        bias, out = parameters.chunk(2, 1)
        exponent = self.exponent(out)
        return (y2 - bias) * torch.exp(-exponent), -exponent.flatten(1).sum(1)


class SeriesCoupling(_BoundedCoupling):
    """Base class of couplings that sum the exponential series, up to a length that follows from :meth:`limit_norm`.

    Reading the norm from a GPU synchronises with it at every coupling. Training may therefore hold a bound over many
    steps (:class:`nfpi.flows.series.SeriesBounds`), which also makes the length a constant of a compiled graph.

    Attributes:
        held_bound: bound of |S_ij|, or of the entries of W₁ and W₂ if S is of low rank, in training mode; None: the
            norm is measured at every call, as in evaluation mode.
    """

    held_bound: float | None = None

    def limit_norm(self, matrices: Tensor) -> float:
        """Return the largest ‖·‖_∞ of the matrices (B, C, C, P), column by column, or a bound of it that is held.

        A norm that is not a number, as of images that overflow, is replaced by the bound that the weights give.
        """
        if self.training and self.held_bound is not None:
            return self.bound_norm(self.held_bound)
        norm = matrices.detach().abs().sum(1).amax().item()  # vector_norm takes 18 times as long, or more
        return self.bound_norm((self.rescale.abs() + self.reshift.abs()).item()) if math.isnan(norm) else norm

    def bound_norm(self, entry_bound: float) -> float:
        """Return a bound of the norm of the matrices of :meth:`limit_norm`."""
        raise NotImplementedError

    def bound_series_norm(self, entry_bound: float) -> float:
        """Return a bound of the norm of the matrix whose exponential is summed as a series."""
        return self.bound_norm(entry_bound)


class MatrixExponentialCoupling(SeriesCoupling):
    """Coupling y₂ = e^{S(x₁)} x₂ + b(x₁) with a full C₂×C₂ matrix S at every pixel, and log |det| = Σ_pixels tr S.

    The net returns b, then S column by column.
    """

    @staticmethod
    def count_parameters(channels: int) -> int:
        """Return C₂ + C₂², for b and S."""
        return channels + channels**2

    def bound_norm(self, entry_bound: float) -> float:
        """Return C₂ max |S_ij| ≥ ‖S‖_∞."""
        return self.split[1] * entry_bound

    def _unpack(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        channels = self.split[1]
        bias, out = parameters.split([channels, channels**2], 1)
        field = self.exponent(out).unflatten(1, (channels, channels))
        trace = field.diagonal(dim1=1, dim2=2).flatten(1).sum(1)
        return bias, field, trace, self.limit_norm(field)

    def transform(self, parameters: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Apply e^S, then the shift."""
        bias, field, trace, norm = self._unpack(parameters)
        return exponential_action(field, x2, norm) + bias, trace

    def transform_inverse(self, parameters: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the shift, then apply e^{−S}."""
        bias, field, trace, norm = self._unpack(parameters)
        return exponential_action(-field, y2 - bias, norm), -trace


class LowRankMatrixExponentialCoupling(SeriesCoupling):
    """Coupling with S = W₂ W₁ of rank k = 3: e^S = I + W₂ φ(W₁W₂) W₁, φ(M) = Σ Mⁿ/(n+1)!, log |det| = Σ tr W₁W₂.

    The net returns b, then the k rows of W₁, then the k columns of W₂. The inverse of e^S is I − W₂ φ(−W₁W₂) W₁.
    """

    @staticmethod
    def count_parameters(channels: int) -> int:
        """Return C₂ + 2k C₂, for b, W₁ and W₂."""
        return channels + 2 * RANK * channels

    def bound_series_norm(self, entry_bound: float) -> float:
        """Return a bound of ‖M‖_∞ + 1, which :func:`nfpi.linalg.phi_action` gives its series."""
        return self.bound_norm(entry_bound) + 1.0

    def bound_norm(self, entry_bound: float) -> float:
        """Return k C₂ max |W|² ≥ ‖M‖_∞."""
        return RANK * self.split[1] * (entry_bound + _LOW_RANK_OFFSET) ** 2

    def _unpack(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]:
        channels = self.split[1]
        bias, out = parameters.split([channels, 2 * RANK * channels], 1)
        rows, columns = (self.exponent(out) + _LOW_RANK_OFFSET).unflatten(1, (2, RANK, channels)).unbind(1)
        # (B, k, C, P) both; M_ab = Σ_c W₁[a, c] W₂[c, b] is kept column by column, [b, a]
        core = (rows.unsqueeze(1) * columns.unsqueeze(2)).sum(3)
        trace = core.diagonal(dim1=1, dim2=2).flatten(1).sum(1)
        return bias, rows, columns, core, trace, self.limit_norm(core)

    def transform(self, parameters: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Compute x₂ + W₂ φ(M) W₁ x₂ + b."""
        bias, rows, columns, core, trace, norm = self._unpack(parameters)
        coefficients = phi_action(core, (rows * x2.unsqueeze(1)).sum(2), norm)
        return x2 + (columns * coefficients.unsqueeze(2)).sum(1) + bias, trace

    def transform_inverse(self, parameters: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """Compute ỹ − W₂ φ(−M) W₁ ỹ with ỹ = y₂ − b."""
        bias, rows, columns, core, trace, norm = self._unpack(parameters)
        centred = y2 - bias
        coefficients = phi_action(-core, (rows * centred.unsqueeze(1)).sum(2), norm)
        return centred - (columns * coefficients.unsqueeze(2)).sum(1), -trace


def make_coupling(
    kind: str, channels: int, hidden_channels: int, num_blocks: int, initialization: str = "normal"
) -> Coupling:
    """Build a coupling: `matrix_exponential` (full or low-rank, depending on C), `affine` or `additive`."""
    if kind == "matrix_exponential":
        dense = channels // 2 <= LARGEST_DENSE
        layer: type[_ResidualCoupling] = MatrixExponentialCoupling if dense else LowRankMatrixExponentialCoupling
    else:
        layer = {"affine": AffineCoupling, "additive": AdditiveCoupling}[kind]
    return layer(channels, hidden_channels, num_blocks, initialization)
