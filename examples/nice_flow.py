"""A backbone of one's own: NICE (Dinh et al., 2015). Selected by `flows: {nice: {kind: nice, couplings: 4}}`."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from nfpi.config.base import Settings
from nfpi.flows import ImageFlow, register_flow


class NiceSettings(Settings):
    """Settings of NICE."""

    couplings: PositiveInt = 4
    hidden: PositiveInt = 256
    """width of the two hidden layers of each coupling's net"""


@register_flow("nice", NiceSettings)
class NiceFlow(ImageFlow):
    """Additive couplings that change the even and the odd pixels in turn, then a scale for every dimension."""

    def __init__(self, shape: tuple[int, int, int], settings: NiceSettings) -> None:
        super().__init__(shape, settings)
        dimensions = torch.Size(shape).numel()
        self.halves = (-(-dimensions // 2), dimensions // 2)  # even and odd pixels
        self.nets = nn.ModuleList(
            self._net(self.halves[index % 2], self.halves[1 - index % 2], settings.hidden)
            for index in range(settings.couplings)
        )
        self.log_scale = nn.Parameter(torch.zeros(dimensions))

    @staticmethod
    def _net(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
        head = nn.Linear(hidden, outputs)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), head)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = f(x), (B, C, H, W), and log |det ∂z/∂x|, (B,)."""
        self.check_images(x)
        parts = list(self._split(x.flatten(1)))
        for index, net in enumerate(self.nets):
            parts[1 - index % 2] = parts[1 - index % 2] + net(parts[index % 2])
        z = self._join(*parts) * self.log_scale.exp()
        return z.view(len(x), *self.shape), self.log_scale.sum().expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = f⁻¹(z), (B, C, H, W), and log |det ∂x/∂z|, (B,)."""
        z = self.as_images(z)
        parts = list(self._split(z.flatten(1) * (-self.log_scale).exp()))
        for index in reversed(range(len(self.nets))):
            parts[1 - index % 2] = parts[1 - index % 2] - self.nets[index](parts[index % 2])
        return self._join(*parts).view(len(z), *self.shape), -self.log_scale.sum().expand(len(z))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Scale every dimension to unit variance over the batch; constant ones keep their scale."""
        self.check_images(x)
        spread = x.flatten(1).std(0)
        self.log_scale.copy_(torch.where(spread > 1e-5, -spread.clamp(min=1e-5).log(), torch.zeros_like(spread)))
        return self(x)[0]

    @staticmethod
    def _split(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, ::2], x[:, 1::2]

    @staticmethod
    def _join(even: Tensor, odd: Tensor) -> Tensor:
        x = even.new_empty(len(even), even.shape[1] + odd.shape[1])
        x[:, ::2], x[:, 1::2] = even, odd
        return x
