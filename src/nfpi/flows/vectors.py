"""Flows of vectors: those of the package zuko, and the identity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nfpi.config.base import ConfigError, Settings
from nfpi.config.flows import ZukoSettings
from nfpi.flows.bijection import ImageFlow


class TransformFlow(ImageFlow):
    """A transform of zuko, or a module that returns one when it is called, as a flow.

    Args:
        shape: (C, H, W); (D, 1, 1) for vectors.
        settings: settings of this kind of flow.
        transform: a flow or lazy transform of zuko on D = C·H·W features, without context; it maps data to latents.
    """

    def __init__(self, shape: Sequence[int], settings: ZukoSettings, transform: nn.Module) -> None:
        super().__init__(shape, settings)
        self.transform = transform

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and log |det ∂z/∂x|."""
        self.check_images(x)
        with torch.autocast(x.device.type, enabled=False):  # which would make log-determinants bfloat16
            z, log_abs_det = self.transform().call_and_ladj(x.flatten(1))
        return self.as_images(z), log_abs_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and log |det ∂x/∂z|."""
        with torch.autocast(y.device.type, enabled=False):
            x, log_abs_det = self.transform().inv.call_and_ladj(self.as_images(y).flatten(1))
        return self.as_images(x), log_abs_det


def zuko_flow(shape: Sequence[int], settings: ZukoSettings) -> TransformFlow:
    """Build a flow of zuko: NSF (Durkan et al., 2019), MAF (Papamakarios et al., 2017) or NICE (Dinh et al., 2014).

    Raises:
        ConfigError: zuko is not installed.
    """
    try:
        from zuko import flows
    except ImportError:
        raise ConfigError("flow 'zuko': expected the package zuko: pip install 'nfpi[vectors]'") from None
    options: dict[str, object] = {"transforms": settings.num_flows, "hidden_features": settings.hidden_features}
    if settings.architecture != "NICE":  # whose transforms are couplings anyway
        options["passes"] = 2 if settings.coupling else None
    features = torch.Size(shape).numel()
    return TransformFlow(shape, settings, getattr(flows, settings.architecture)(features, **options).transform)


class IdentityFlow(ImageFlow):
    """z = x: class Gaussians of the data, without a flow."""

    kind = "identity"

    def __init__(self, shape: Sequence[int], settings: Settings) -> None:
        super().__init__(shape, settings)
        self.nothing = nn.Parameter(torch.zeros(0))  # a training needs a parameter, which the loss depends on

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and 0."""
        self.check_images(x)
        return x, x.new_zeros(len(x)) + self.nothing.sum()

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and 0."""
        z = self.as_images(y)
        return z, z.new_zeros(len(z))
