"""Multiscale flows: levels of squeeze, flow steps and split (Dinh et al., 2017; Kingma and Dhariwal, 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nfpi.config.flows import LevelSettings
from nfpi.flows.bijection import Bijection, ImageFlow, forward_through, initialize_through, inverse_through


def squeeze(x: Tensor) -> Tensor:
    """Map (B, C, H, W) to (B, 4C, H/2, W/2): a 2×2 square becomes a pixel with channels ordered (row, column, C)."""
    batch, channels, height, width = x.shape
    squares = x.view(batch, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 3, 5, 1, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)


def unsqueeze(y: Tensor) -> Tensor:
    """Map (B, 4C, H, W) to (B, C, 2H, 2W), the inverse of :func:`squeeze`."""
    batch, channels, height, width = y.shape
    squares = y.view(batch, 2, 2, channels // 4, height, width)
    return squares.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * height, 2 * width)


class FlowStep(Bijection):
    """One flow step: activation normalisation, 1×1 convolution, coupling.

    Args:
        actnorm, linear, coupling: the three bijections.
    """

    def __init__(self, actnorm: Bijection, linear: Bijection, coupling: Bijection) -> None:
        super().__init__()
        self.actnorm = actnorm
        self.linear = linear
        self.coupling = coupling

    def _list_parts(self) -> tuple[Bijection, Bijection, Bijection]:
        return self.actnorm, self.linear, self.coupling

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the three parts in order."""
        return forward_through(self._list_parts(), x, x.new_zeros(len(x)))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the inverses of the three parts in reverse order."""
        return inverse_through(self._list_parts(), y, y.new_zeros(len(y)))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise each part on the output of the previous one."""
        return initialize_through(self._list_parts(), x)


class MultiscaleFlow(ImageFlow):
    """Levels of flow steps, each at half the resolution of the previous one.

    A level squeezes its input to (4C, H/2, W/2) and applies its steps. The first half of the channels passes to the
    next level, and the rest are latents; at the end, the latents of all levels are reassembled, so that z has the shape
    of the image. Subclasses define the steps by `make_step`.

    Args:
        shape: (C, H, W) of the images; H and W must be multiples of 2^levels.
        settings: lists with one entry per level.

    Raises:
        ValueError: H or W is not a multiple of 2^levels.
    """

    def __init__(self, shape: Sequence[int], settings: LevelSettings) -> None:
        super().__init__(shape, settings)
        channels, height, width = self.shape
        levels = len(settings.num_flows)
        if height % 2**levels or width % 2**levels:
            raise ValueError(
                f"{levels} levels halve the image {levels} times: height and width must be multiples of {2**levels}, "
                f"received {height}×{width}"
            )
        self.levels = nn.ModuleList()
        for level, steps in enumerate(settings.num_flows):
            channels, height, width = 4 * channels, height // 2, width // 2
            size = (channels, height, width)
            self.levels.append(nn.ModuleList(self.make_step(level, size) for _ in range(steps)))
            channels //= 2

    def make_step(self, level: int, shape: tuple[int, int, int]) -> Bijection:
        """Build a step of this level for inputs of this shape (C, H, W)."""
        raise NotImplementedError

    def apply_level(self, steps: Sequence[Bijection], x: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the steps of a level; a subclass may override this to share computations between steps.

        Args:
            steps: steps of the level.
            x: squeezed input of the level, (B, C, H, W).
            log_abs_det: accumulated by the previous levels, (B,).

        Returns:
            The level's output, and the accumulated log-determinant, (B,).
        """
        return forward_through(steps, x, log_abs_det)

    def invert_level(self, steps: Sequence[Bijection], y: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the inverses of the steps in reverse order; for the arguments see :meth:`apply_level`."""
        return inverse_through(steps, y, log_abs_det)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = f(x) and log |det ∂z/∂x|.

        Args:
            x: (B, C, H, W) in [−1, 1].

        Returns:
            z: (B, C, H, W) and log_abs_det: (B,).

        Raises:
            ValueError: x has another shape.
        """
        log_abs_det = x.new_zeros(len(x))

        def apply(level: list[Bijection], x: Tensor) -> Tensor:
            nonlocal log_abs_det
            x, log_abs_det = self.apply_level(level, x, log_abs_det)
            return x

        return self._apply_levels(x, apply), log_abs_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = f⁻¹(z) and log |det ∂x/∂z|.

        Args:
            z: (B, C, H, W) or (B, D) with D = C·H·W.

        Returns:
            x: (B, C, H, W) and log_abs_det: (B,).
        """
        z = self.as_images(z)
        kept: list[Tensor] = []
        for _ in self.levels:
            z, rest = squeeze(z).chunk(2, 1)
            kept.append(rest)
        log_abs_det = z.new_zeros(len(z))
        for level in reversed(self._list_levels()):
            z = torch.cat([z, kept.pop()], 1)
            z, log_abs_det = self.invert_level(level, z, log_abs_det)
            z = unsqueeze(z)
        return z, log_abs_det

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise the flow on data: on this batch, outputs of every normalisation have zero mean and unit variance.

        Elements of a normalisation that are constant on the batch keep scale 1.

        Args:
            x: (B, C, H, W) in [−1, 1], hundreds of images.

        Returns:
            z: (B, C, H, W).
        """
        return self._apply_levels(x, initialize_through)

    def _list_levels(self) -> list[list[Bijection]]:
        return [list(level) for level in self.levels]  # type: ignore[call-overload]

    def _apply_levels(self, x: Tensor, apply: Callable[[list[Bijection], Tensor], Tensor]) -> Tensor:
        """Return z of the images x, using `apply` to apply the steps of each level."""
        self.check_images(x)
        kept: list[Tensor] = []
        for level in self._list_levels():
            x, rest = apply(level, squeeze(x)).chunk(2, 1)
            kept.append(rest)
        # both halves of the last level's output are latents
        for rest in reversed(kept):
            x = unsqueeze(torch.cat([x, rest], 1))
        return x
