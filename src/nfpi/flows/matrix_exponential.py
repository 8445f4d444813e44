"""The backbone of the paper: multiscale, with matrix-exponential convolutions and couplings (Xiao and Liu, 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from torch import Tensor

from nfpi.config.base import explain
from nfpi.config.flows import MatrixExponentialSettings
from nfpi.flows.actnorm import ActNorm
from nfpi.flows.bijection import Bijection
from nfpi.flows.coupling import make_coupling
from nfpi.flows.linear import Exponential, MatrixExponentialConv1x1, compute_exponentials
from nfpi.flows.multiscale import FlowStep, MultiscaleFlow
from nfpi.flows.networks import ResidualNet, scaled_weights


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
        settings = self.settings
        return matrix_exponential_step(
            shape,
            settings.hidden_channels[level],
            settings.num_blocks[level],
            settings.coupling,
            settings.initialization,
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


def matrix_exponential_step(
    shape: tuple[int, int, int],
    hidden_channels: int,
    num_blocks: int,
    coupling: str = "matrix_exponential",
    initialization: str = "normal",
) -> MatrixExponentialStep:
    """Build one step of the paper's flow.

    Args:
        shape: (C, H, W) of the step's input and output.
        hidden_channels, num_blocks, initialization: width, residual blocks and initialisation of the coupling net.
        coupling: `matrix_exponential`, `affine` or `additive`.
    """
    channels = shape[0]
    return MatrixExponentialStep(
        ActNorm(shape),
        MatrixExponentialConv1x1(channels),
        make_coupling(coupling, channels, hidden_channels, num_blocks, initialization),
    )


def matrix_exponential_flow(shape: Sequence[int], settings: MatrixExponentialSettings) -> MatrixExponentialFlow:
    """Build the flow from its settings."""
    return MatrixExponentialFlow(shape, **settings.model_dump())
