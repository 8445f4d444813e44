"""Invertible 1×1 convolution by the matrix exponential (Xiao and Liu, 2020)."""

from __future__ import annotations

from collections.abc import Sequence

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

    def forward(self, x: Tensor, exponential: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One product with the C×C matrix e^A; the log-determinant is the same for every image: ().

        Args:
            x: (B, C, H, W).
            exponential: e^A, where it is known already.
        """
        return self._mix(x, self.weight, exponential)

    def inverse(self, y: Tensor, exponential: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same with −A."""
        return self._mix(y, -self.weight, exponential)

    @staticmethod
    def _mix(x: Tensor, logarithm: Tensor, exponential: Tensor | None) -> tuple[Tensor, Tensor]:
        # in mixed precision this product stays exact, so that the inverse is one: it is small beside the convolutions
        with torch.autocast(x.device.type, enabled=False):
            if exponential is None:
                exponential = matrix_exponential(logarithm)
            pixels = x.flatten(2)
            if x.device.type == "cpu":
                mixed = torch.matmul(exponential, pixels)
            else:  # the same without the transposed copies that this product of a matrix and a batch makes
                mixed = torch.bmm(exponential.expand(len(x), -1, -1), pixels)
            mixed = mixed.view_as(x)
        return mixed, logarithm.trace() * x.shape[2:].numel()


def exponentials(convolutions: Sequence[MatrixExponentialConv1x1], inverse: bool = False) -> tuple[Tensor, ...]:
    """e^A of each of several convolutions of one size, or e^{−A}, in the operations of one."""
    if not convolutions:
        return ()
    logarithms = torch.stack([convolution.weight for convolution in convolutions])
    with torch.autocast(logarithms.device.type, enabled=False):
        return matrix_exponential(-logarithms if inverse else logarithms).unbind()
