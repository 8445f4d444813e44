"""Invertible 1×1 convolution by the matrix exponential (Xiao and Liu, 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from nfpi.flows.bijection import Bijection
from nfpi.flows.initialization import is_initialization_skipped
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
