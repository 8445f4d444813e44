"""Glow: a multiscale flow of affine couplings (Kingma and Dhariwal, Glow, 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nfpi.config.flows import GlowSettings
from nfpi.flows.actnorm import ActNorm
from nfpi.flows.bijection import Bijection
from nfpi.flows.coupling import Coupling
from nfpi.flows.multiscale import FlowStep, MultiscaleFlow
from nfpi.flows.networks import CouplingNet, NormalizedConv2d
from nfpi.linalg import precise_device, precise_dtype
from nfpi.runtime.precision import choose_convolution_format

_LOG_SCALE_FACTOR = 3.0
_LOGIT_OFFSET = 2.0


class LowerUpperConv1x1(Bijection):
    """1×1 convolution y = W x with W = P L U and log |det| = n Σ log U_ii for n pixels (Glow, Eqs. 10 and 11).

    P is a fixed signed permutation, L is lower triangular with ones on its diagonal, U is upper triangular with a
    positive diagonal. W is initialised to a random orthogonal matrix.

    Args:
        channels: C.
    """

    permutation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation, triangle = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
        rotation = rotation * triangle.diagonal().sign()  # uniform over the orthogonal matrices
        permutation, lower, upper = torch.linalg.lu(rotation)
        signs = upper.diagonal().sign()
        # P L U = (P S)(S L S)(S U) with S = diag(signs) = S⁻¹
        dtype = torch.get_default_dtype()
        self.register_buffer("permutation", (permutation * signs).to(torch.int8))
        self.lower = nn.Parameter((signs[:, None] * lower * signs).tril(-1).to(dtype))
        self.upper = nn.Parameter((signs[:, None] * upper).triu(1).to(dtype))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log().to(dtype))

    def _compute_factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return P, L and U in the device's highest precision: they are small, and their error affects all pixels."""
        device = self.lower.device
        dtype, precise = precise_dtype(device), precise_device(device)
        permutation, lower, upper, log_diagonal = (
            value.to(precise, dtype) for value in (self.permutation, self.lower, self.upper, self.log_diagonal)
        )
        identity = torch.eye(len(lower), dtype=dtype, device=precise)
        return permutation, lower.tril(-1) + identity, upper.triu(1) + torch.diag(log_diagonal.exp())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply every pixel by W; the log-determinant is the same for every image and has shape ()."""
        permutation, lower, upper = self._compute_factors()
        return self._mix(permutation @ lower @ upper, x), self._log_abs_det(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply every pixel by W⁻¹ = U⁻¹ L⁻¹ Pᵀ."""
        permutation, lower, upper = self._compute_factors()
        half = torch.linalg.solve_triangular(lower, permutation.T, upper=False, unitriangular=True)
        return self._mix(torch.linalg.solve_triangular(upper, half, upper=True), y), -self._log_abs_det(y)

    def _log_abs_det(self, x: Tensor) -> Tensor:
        return self.log_diagonal.sum() * x.shape[2:].numel()

    @staticmethod
    def _mix(weight: Tensor, x: Tensor) -> Tensor:
        # excluded from mixed precision so that the inverse stays accurate; it is cheap beside the convolutions
        with torch.autocast(x.device.type, enabled=False):
            return torch.matmul(weight.to(x.device, x.dtype), x.flatten(2)).view_as(x)


class ScaledConv2d(nn.Conv2d):
    """3×3 convolution scaled by e^{3s}, with one learned s per channel; initialised to zero."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.log_scale = nn.Parameter(torch.zeros(out_channels))

    def reset_parameters(self) -> None:
        """Set weights and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        return super().forward(x) * torch.exp(_LOG_SCALE_FACTOR * self.log_scale)[:, None, None]


class GlowNet(CouplingNet):
    """Convolutions 3×3, 1×1 and 3×3 with ReLU between them; the first two are normalised, the last starts at zero.

    Args:
        in_channels, hidden_channels, out_channels: widths.
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = NormalizedConv2d(in_channels, hidden_channels, 3)
        self.conv2 = NormalizedConv2d(hidden_channels, hidden_channels, 1)
        self.out = ScaledConv2d(hidden_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        hidden = F.relu(self.conv1(x.contiguous(memory_format=choose_convolution_format(x.device))), inplace=True)
        hidden = F.relu(self.conv2(hidden), inplace=True)
        y: Tensor = self.out(hidden)
        return y

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise the convolutions in order."""
        hidden = F.relu(self.conv1.initialize(x))
        y: Tensor = self.out(F.relu(self.conv2.initialize(hidden)))
        return y


class GlowCoupling(Coupling):
    """Affine coupling y₂ = s(x₁) ⊙ x₂ + t(x₁) with s = sigmoid(r(x₁) + 2), and log |det| = Σ log s.

    y₂ is computed as in Glow's Table 1 (Glow's code computes s ⊙ (x₂ + t) instead), and s as in Glow's code. The scale
    is below 1, but log s has no lower bound: the inverse loses precision where r is far below −2.

    Args:
        channels: C.
        hidden_channels: width of the net, whose outputs are t and r.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__(channels, lambda kept, out: GlowNet(kept, hidden_channels, out))

    @staticmethod
    def count_parameters(channels: int) -> int:
        """Return 2 C₂, the number of outputs of the net per pixel for C₂ = `channels` channels: t and r."""
        return 2 * channels

    def transform(self, parameters: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift."""
        shift, logit = parameters.chunk(2, 1)
        log_scale = F.logsigmoid(logit + _LOGIT_OFFSET)
        return torch.addcmul(shift, log_scale.exp(), x2), log_scale.flatten(1).sum(1)

    def transform_inverse(self, parameters: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the shift and the scale."""
        shift, logit = parameters.chunk(2, 1)
        log_scale = F.logsigmoid(logit + _LOGIT_OFFSET)
        return (y2 - shift) * torch.exp(-log_scale), -log_scale.flatten(1).sum(1)


class GlowFlow(MultiscaleFlow):
    """Glow; each step is an actnorm with one scale and shift per channel, a 1×1 convolution and an affine coupling.

    As in :class:`nfpi.flows.MatrixExponentialFlow`, the latents of all levels are reassembled to the shape of the image
    and have one prior, instead of Glow's learned prior at every split.

    Args:
        shape: (C, H, W) of the images; H and W must be multiples of 2^levels.
        settings: lists with one entry per level.

    Raises:
        ValueError: H or W is not a multiple of 2^levels.
    """

    kind = "glow"
    settings: GlowSettings

    def make_step(self, level: int, shape: tuple[int, int, int]) -> FlowStep:
        """Build an actnorm, a 1×1 convolution and a coupling with this level's width."""
        channels = shape[0]
        return FlowStep(
            ActNorm((channels, 1, 1)),
            LowerUpperConv1x1(channels),
            GlowCoupling(channels, self.settings.hidden_channels[level]),
        )
