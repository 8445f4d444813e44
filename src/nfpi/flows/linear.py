"""Invertible 1×1 convolution by the matrix exponential (Xiao and Liu, 2020)."""

from __future__ import annotations

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from nfpi.flows.bijection import Bijection
from nfpi.flows.initialization import initialization_skipped
from nfpi.linalg import matrix_exponential


def random_rotation_logarithm(channels: int, generator: torch.Generator | None = None) -> Tensor:
    """The real skew-symmetric logarithm of a random rotation (Haar), (C, C)."""
    if channels == 1:
        return torch.zeros(1, 1)
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    rotation = scipy.stats.special_ortho_group.rvs(channels, random_state=np.random.default_rng(seed))
    logarithm = scipy.linalg.logm(rotation).real
    return torch.from_numpy((logarithm - logarithm.T) / 2).to(torch.get_default_dtype())


class MatrixExponentialConv1x1(Bijection):
    """y = e^A x at every pixel, with log |det| = H·W·tr A.

    The inverse is e^{−A}, so no matrix is ever inverted.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        empty = initialization_skipped()
        self.weight = nn.Parameter(torch.empty(channels, channels) if empty else random_rotation_logarithm(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One product with the C×C matrix e^A; the log-determinant is the same for every image: ()."""
        return self._mix(x, self.weight)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The same with −A."""
        return self._mix(y, -self.weight)

    @staticmethod
    def _mix(x: Tensor, logarithm: Tensor) -> tuple[Tensor, Tensor]:
        # in mixed precision this product stays exact, so that the inverse is one: it is small beside the convolutions
        with torch.autocast(x.device.type, enabled=False):
            mixed = torch.matmul(matrix_exponential(logarithm), x.flatten(2)).view_as(x)
        return mixed, logarithm.trace() * x.shape[2:].numel()
