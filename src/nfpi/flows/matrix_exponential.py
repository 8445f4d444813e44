"""The backbone of the paper: multiscale, with matrix-exponential convolutions and couplings (Xiao and Liu, 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nfpi.config.base import explain
from nfpi.config.flows import MatrixExponentialSettings
from nfpi.flows.actnorm import ActNorm
from nfpi.flows.bijection import Bijection, is_initialization_skipped
from nfpi.flows.coupling import make_coupling
from nfpi.flows.multiscale import FlowStep, MultiscaleFlow
from nfpi.flows.networks import ResidualNet, scaled_weights
from nfpi.linalg import has_launch_overhead, matrix_exponential

Exponential = tuple[Tensor, Tensor]
"""e^A (C, C) and tr A ()"""


def draw_rotation_logarithm(channels: int, generator: torch.Generator | None = None) -> Tensor:
    """Return the real skew-symmetric logarithm of a Haar-distributed random rotation, (C, C)."""
    if channels == 1:
        return torch.zeros(1, 1)
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    rotation = scipy.stats.special_ortho_group.rvs(channels, random_state=np.random.default_rng(seed))
    logarithm = scipy.linalg.logm(rotation).real
    return torch.from_numpy((logarithm - logarithm.T) / 2).to(torch.get_default_dtype())


class MatrixExponentialConv1x1(Bijection):
    """1×1 convolution y = e^A x, with log |det| = H·W·tr A.

    The inverse is e^{−A}, so no matrix is ever inverted.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        empty = is_initialization_skipped()
        self.weight = nn.Parameter(torch.empty(channels, channels) if empty else draw_rotation_logarithm(channels))

    def forward(self, x: Tensor, exponential: Exponential | None = None) -> tuple[Tensor, Tensor]:
        """Multiply every pixel by the C×C matrix e^A; the log-determinant is the same for every image and has shape ().

        Args:
            x: (B, C, H, W).
            exponential: e^A and tr A, if already computed.
        """
        return self._mix(x, self.weight, exponential)

    def inverse(self, y: Tensor, exponential: Exponential | None = None) -> tuple[Tensor, Tensor]:
        """Multiply every pixel by e^{−A}; `exponential` is e^{−A} and −tr A."""
        return self._mix(y, -self.weight, exponential)

    @staticmethod
    def _mix(x: Tensor, logarithm: Tensor, exponential: Exponential | None) -> tuple[Tensor, Tensor]:
        # no mixed precision, so that the inverse stays accurate; this product is cheap beside the coupling networks
        with torch.autocast(x.device.type, enabled=False):
            matrix, trace = exponential or (matrix_exponential(logarithm), logarithm.trace())
            pixels = x.flatten(2)
            if has_launch_overhead(x.device):  # equal to matmul, without its copies
                mixed = torch.bmm(matrix.expand(len(x), -1, -1), pixels)
            else:
                mixed = torch.matmul(matrix, pixels)
        return mixed.view_as(x), trace * x.shape[2:].numel()


def compute_exponentials(convolutions: Sequence[MatrixExponentialConv1x1], inverse: bool = False) -> list[Exponential]:
    """Return e^A and tr A of several convolutions of the same size, or e^{−A} and −tr A if `inverse`.

    On accelerators they are computed as one batch.
    """
    if not convolutions:
        return []
    logarithms = torch.stack([convolution.weight for convolution in convolutions])
    if inverse:
        logarithms = -logarithms
    with torch.autocast(logarithms.device.type, enabled=False):
        found = matrix_exponential(logarithms).unbind()
        if has_launch_overhead(logarithms.device):
            traces = list(logarithms.diagonal(dim1=1, dim2=2).sum(1).unbind())
        else:
            traces = [logarithm.trace() for logarithm in logarithms]
    return list(zip(found, traces, strict=True))


class MatrixExponentialStep(FlowStep):
    """Actnorm, 1×1 convolution by matrix exponential, and coupling; accepts a precomputed e^A."""

    linear: MatrixExponentialConv1x1

    def forward(self, x: Tensor, exponential: Exponential | None = None) -> tuple[Tensor, Tensor]:
        """Apply the three parts in order.

        Args:
            x: (B, C, H, W).
            exponential: e^A and tr A of the convolution; None: computed here.
        """
        normalized, actnorm_log_det = self.actnorm(x)
        mixed, linear_log_det = self.linear(normalized, exponential)
        y, coupling_log_det = self.coupling(mixed)
        return y, actnorm_log_det + linear_log_det + coupling_log_det

    def inverse(self, y: Tensor, exponential: Exponential | None = None) -> tuple[Tensor, Tensor]:
        """Apply the inverses in reverse order; `exponential` is e^{−A} and −tr A."""
        mixed, coupling_log_det = self.coupling.inverse(y)
        normalized, linear_log_det = self.linear.inverse(mixed, exponential)
        x, actnorm_log_det = self.actnorm.inverse(normalized)
        return x, coupling_log_det + linear_log_det + actnorm_log_det


class MatrixExponentialFlow(MultiscaleFlow):
    """The backbone of the paper; each step is an actnorm, a 1×1 convolution by matrix exponential and a coupling.

    Args:
        shape: (C, H, W) of the images; H and W must be multiples of 2^levels.
        num_flows, num_blocks, hidden_channels: flow steps, residual blocks per coupling net, and width of the nets, one
            entry per level.
        coupling: `matrix_exponential`, `affine` or `additive`.
        initialization: initialisation of the coupling nets, `normal` or `uniform`; see
            :class:`nfpi.flows.networks.ResidualNet`.

    Raises:
        ValueError: the lists differ in length, or H or W is not a multiple of 2^levels.
    """

    kind = "matrix_exponential"
    settings: MatrixExponentialSettings

    def __init__(
        self,
        shape: Sequence[int],
        num_flows: Sequence[int],
        num_blocks: Sequence[int],
        hidden_channels: Sequence[int],
        coupling: str = "matrix_exponential",
        initialization: str = "normal",
    ) -> None:
        try:
            settings = MatrixExponentialSettings(
                num_flows=list(num_flows),
                num_blocks=list(num_blocks),
                hidden_channels=list(hidden_channels),
                coupling=coupling,  # type: ignore[arg-type]
                initialization=initialization,  # type: ignore[arg-type]
            )
        except ValidationError as error:
            raise ValueError(explain(error)) from None
        super().__init__(shape, settings)

    def make_step(self, level: int, shape: tuple[int, int, int]) -> MatrixExponentialStep:
        """Build an actnorm, a 1×1 convolution and a coupling with this level's net."""
        channels, settings = shape[0], self.settings
        blocks, width = settings.num_blocks[level], settings.hidden_channels[level]
        return MatrixExponentialStep(
            ActNorm(shape),
            MatrixExponentialConv1x1(channels),
            make_coupling(settings.coupling, channels, width, blocks, settings.initialization),
        )

    def apply_level(self, steps: Sequence[Bijection], x: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the steps; matrix exponentials and the nets' scaled weights are computed for all steps at once."""
        found = compute_exponentials(_list_convolutions(steps))
        with scaled_weights(_list_nets(steps)):
            for step, exponential in zip(steps, found, strict=True):
                x, change = step(x, exponential)
                log_abs_det = log_abs_det + change
        return x, log_abs_det

    def invert_level(self, steps: Sequence[Bijection], y: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the inverses in reverse order, with the same shared computations."""
        found = compute_exponentials(_list_convolutions(steps), inverse=True)
        with scaled_weights(_list_nets(steps)):
            for step, exponential in zip(reversed(steps), reversed(found), strict=True):
                y, change = step.inverse(y, exponential)  # type: ignore[call-arg]
                log_abs_det = log_abs_det + change
        return y, log_abs_det


def _list_convolutions(steps: Sequence[Bijection]) -> list[MatrixExponentialConv1x1]:
    return [step.linear for step in steps if isinstance(step, MatrixExponentialStep)]


def _list_nets(steps: Sequence[Bijection]) -> list[ResidualNet]:
    return [module for step in steps for module in step.modules() if isinstance(module, ResidualNet)]


def matrix_exponential_flow(shape: Sequence[int], settings: MatrixExponentialSettings) -> MatrixExponentialFlow:
    """Build the flow from its settings."""
    return MatrixExponentialFlow(shape, **settings.model_dump())
