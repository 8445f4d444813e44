"""The backbone of the paper: matrix-exponential convolutions and couplings over levels (Xiao and Liu, 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from nfpi.config.base import explain
from nfpi.config.flows import MatrixExponentialSettings
from nfpi.flows.actnorm import ActNorm
from nfpi.flows.coupling import make_coupling
from nfpi.flows.linear import MatrixExponentialConv1x1
from nfpi.flows.multiscale import FlowStep, MultiscaleFlow


class MatrixExponentialFlow(MultiscaleFlow):
    """The backbone of the paper; each step is an actnorm, a 1×1 convolution by matrix exponential and a coupling.

    Args:
        shape: (C, H, W) of the images; H and W must be multiples of 2^levels.
        num_flows, num_blocks, hidden_channels: one entry a level: flow steps, residual blocks of a coupling net, its
            width.
        coupling: `matrix_exponential`, `affine` or `additive`.
        initialization: of the coupling nets, `normal` or `uniform` (:class:`nfpi.flows.networks.ResidualNet`).

    Raises:
        ValueError: the lists differ in length, or the size does not divide.
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

    def make_step(self, level: int, shape: tuple[int, int, int]) -> FlowStep:
        """Actnorm, 1×1 convolution and coupling with this level's net."""
        settings = self.settings
        return matrix_exponential_step(
            shape,
            settings.hidden_channels[level],
            settings.num_blocks[level],
            settings.coupling,
            settings.initialization,
        )


def matrix_exponential_step(
    shape: tuple[int, int, int],
    hidden_channels: int,
    num_blocks: int,
    coupling: str = "matrix_exponential",
    initialization: str = "normal",
) -> FlowStep:
    """One step of the paper's flow.

    Args:
        shape: (C, H, W) of its input and output.
        hidden_channels, num_blocks, initialization: of the coupling net.
        coupling: kind of the coupling.
    """
    channels = shape[0]
    return FlowStep(
        ActNorm(shape),
        MatrixExponentialConv1x1(channels),
        make_coupling(coupling, channels, hidden_channels, num_blocks, initialization),
    )


def matrix_exponential_flow(shape: Sequence[int], settings: MatrixExponentialSettings) -> MatrixExponentialFlow:
    """The flow of these settings."""
    return MatrixExponentialFlow(shape, **settings.model_dump())
