"""A coupling flow of transformer blocks on patches, as in Jet (Kolesnikov et al., 2024, arXiv 2412.15129)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nfpi.config.flows import TransformerSettings
from nfpi.flows.actnorm import ActNorm
from nfpi.flows.bijection import (
    Bijection,
    ImageFlow,
    forward_through,
    initialize_through,
    inverse_through,
    is_initialization_skipped,
)

_LARGEST_SCALE = 2.0
_HIDDEN_RATIO = 4
_TOKENS, _CHANNELS = 1, 2


class Patches(Bijection):
    """Map of images (B, C, H, W) to their patches (B, N, D), row by row.

    The D = C·patch_size² numbers of a patch are ordered (row, column, C).

    Args:
        shape: (C, H, W) of the images.
        patch_size: side of a patch.
    """

    def __init__(self, shape: tuple[int, int, int], patch_size: int) -> None:
        super().__init__()
        channels, height, width = self.shape = shape
        self.patch_size = patch_size
        self.grid = (height // patch_size, width // patch_size)
        self.num_channels = channels * patch_size**2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cut images into patches; the log-determinant is 0."""
        rows, columns = self.grid
        patches = x.view(len(x), self.shape[0], rows, self.patch_size, columns, self.patch_size)
        return patches.permute(0, 2, 4, 3, 5, 1).reshape(len(x), -1, self.num_channels), x.new_zeros(())

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Reassemble images from patches."""
        patches = y.view(len(y), *self.grid, self.patch_size, self.patch_size, self.shape[0])
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(y), *self.shape), y.new_zeros(())


class XavierLinear(nn.Linear):
    """A linear layer initialised with Xavier-uniform weights and zero bias."""

    def reset_parameters(self) -> None:
        """Initialise weights and bias, unless they are about to be loaded."""
        if not is_initialization_skipped():
            nn.init.xavier_uniform_(self.weight)
            nn.init.zeros_(self.bias)


class TransformerBlock(nn.Module):
    """Pre-norm transformer block h = x + attention(norm(x)), y = h + MLP(norm(h)), with GELU.

    Args:
        width: size of a token.
        num_heads: number of attention heads, which divides the width.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (XavierLinear(width, width) for _ in range(4))
        self.mlp = nn.Sequential(
            XavierLinear(width, _HIDDEN_RATIO * width), nn.GELU(), XavierLinear(_HIDDEN_RATIO * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, width) to (B, N, width)."""
        normed = self.norm1(x)
        query, key, value = (
            layer(normed).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class TransformerNet(nn.Module):
    """Linear embedding, learned positions, transformer blocks, norm, and a linear layer initialised to zero.

    Args:
        num_tokens: N.
        in_channels, out_channels: size of an input and of an output token.
        width, num_heads: see :class:`TransformerBlock`.
        depth: number of blocks.
    """

    def __init__(
        self, num_tokens: int, in_channels: int, out_channels: int, width: int, num_heads: int, depth: int
    ) -> None:
        super().__init__()
        self.embedding = XavierLinear(in_channels, width)
        self.positions = nn.Parameter(torch.randn(num_tokens, width) / math.sqrt(width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out_channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, in) to (B, N, out)."""
        out: Tensor = self.out(self.norm(self.blocks(self.embedding(x) + self.positions)))
        return out


class TransformerCoupling(Bijection):
    """Affine coupling y₂ = (x₂ + b(x₁)) ⊙ s(x₁) with s = 2 sigmoid(r(x₁)), and log |det| = Σ log s.

    x₁ is the first half, rounded up, of the tokens or of the channels in `order`. The scale is below 2, but log s
    has no lower bound: the inverse loses precision where r is far below 0.

    Args:
        num_tokens: number of tokens N.
        num_channels: number of channels D of a token.
        axis: axis that is split: 1 (tokens) or 2 (channels).
        order: permutation of the indices along this axis, kept as a buffer.
        settings: width, num_heads and depth of the net.
    """

    order: Tensor

    def __init__(
        self, num_tokens: int, num_channels: int, axis: int, order: Tensor, settings: TransformerSettings
    ) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("order", order)
        kept, mapped = [num_tokens, num_channels], [num_tokens, num_channels]
        kept[axis - 1], mapped[axis - 1] = self._compute_sizes()
        self.net = TransformerNet(kept[0], kept[1], 2 * mapped[1], settings.width, settings.num_heads, settings.depth)

    def _compute_sizes(self) -> tuple[int, int]:
        return len(self.order) - len(self.order) // 2, len(self.order) // 2

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the indices of x₂, and x₂, b and log s, which have the same shape."""
        kept, mapped = self.order.split(self._compute_sizes())
        x2 = x.index_select(self.axis, mapped)
        parameters = self.net(x.index_select(self.axis, kept)).to(x.dtype)
        # with an odd number of tokens, x₁ has one more than x₂
        shift, logit = parameters[:, : x2.shape[1]].chunk(2, 2)
        return mapped, x2, shift, F.logsigmoid(logit) + math.log(_LARGEST_SCALE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, N, D) to (B, N, D), with log |det| of shape (B,)."""
        mapped, x2, shift, log_scale = self._split(x)
        return x.index_copy(self.axis, mapped, (x2 + shift) * log_scale.exp()), log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Compute x₂ = y₂ / s − b."""
        mapped, y2, shift, log_scale = self._split(y)
        return y.index_copy(self.axis, mapped, y2 * torch.exp(-log_scale) - shift), -log_scale.flatten(1).sum(1)


class TransformerFlow(ImageFlow):
    """Couplings with transformer nets on the patches of an image.

    A coupling splits either the channels in a random order, or the patches by checkerboard colour, by parity of the
    row or by parity of the column; where these parts differ in size, some patches move to the smaller one. The
    couplings that split channels form pairs with the same split, the second with the halves exchanged, and so do the
    couplings that split patches. Unlike in Jet, an actnorm comes first, so that the latents of a new flow have zero
    mean and unit variance.

    Args:
        shape: (C, H, W) of the images; the patch size divides H and W.
        settings: settings of the patches, couplings and transformers.

    Raises:
        ValueError: the patch size does not divide H and W, or there are too few patches or channels to split.
    """

    kind = "transformer"
    settings: TransformerSettings

    def __init__(self, shape: Sequence[int], settings: TransformerSettings) -> None:
        super().__init__(shape, settings)
        height, width = self.shape[1:]
        size = settings.patch_size
        if height % size or width % size:
            raise ValueError(f"height and width must be multiples of patch_size {size}, received {height}×{width}")
        self.actnorm = ActNorm(self.shape)
        self.patches = Patches(self.shape, size)
        (rows, columns), num_channels = self.patches.grid, self.patches.num_channels
        if rows * columns < 2 or (num_channels < 2 and settings.channel_couplings):
            numbers = " of two numbers each" if settings.channel_couplings else ""
            raise ValueError(
                f"patch_size {size}: expected at least two patches{numbers}, "
                f"received {rows * columns} of {num_channels} numbers from images of shape {tuple(shape)}"
            )
        by_tokens = _pair_with_reverses(_generate_token_orders(rows, columns))
        by_channels = _pair_with_reverses(_generate_channel_orders(num_channels))
        axes = cycle([_CHANNELS] * settings.channel_couplings + [_TOKENS])
        self.couplings = nn.ModuleList()
        for _, axis in zip(range(settings.num_flows), axes, strict=False):
            order = next(by_tokens if axis == _TOKENS else by_channels)
            self.couplings.append(TransformerCoupling(rows * columns, num_channels, axis, order, settings))

    def _list_parts(self) -> list[Bijection]:
        couplings: list[Bijection] = list(self.couplings)  # type: ignore[arg-type]
        return [self.actnorm, self.patches, *couplings]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = f(x) of shape (B, C, H, W) and log |det ∂z/∂x| of shape (B,), for images x in [−1, 1]."""
        self.check_images(x)
        tokens, log_abs_det = forward_through(self._list_parts(), x, x.new_zeros(len(x)))
        return self.patches.inverse(tokens)[0], log_abs_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = f⁻¹(z) and log |det ∂x/∂z|, for z of shape (B, C, H, W) or (B, C·H·W)."""
        tokens = self.patches(self.as_images(z))[0]
        return inverse_through(self._list_parts(), tokens, z.new_zeros(len(z)))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise the actnorm to give each element zero mean and unit variance; new couplings are the identity."""
        self.check_images(x)
        return self.patches.inverse(initialize_through(self._list_parts(), x))[0]


def _pair_with_reverses(orders: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield each order, followed by its reverse, which exchanges the halves."""
    for order in orders:
        yield order
        yield order.flip(0)


def _generate_token_orders(rows: int, columns: int) -> Iterator[Tensor]:
    """Yield the patches ordered by checkerboard colour, by parity of the row, and by parity of the column, in turn."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    for place in cycle([row + column, row, column]):
        yield torch.argsort(place.flatten() % 2, stable=True)


def _generate_channel_orders(num_channels: int) -> Iterator[Tensor]:
    """Yield random permutations."""
    while True:
        yield torch.randperm(num_channels)
