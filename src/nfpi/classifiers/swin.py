"""Swin transformer for small images (Liu et al., 2021), as in Table 5."""

from __future__ import annotations

from typing import Any

from timm.models import SwinTransformer

ARCHITECTURE: dict[str, Any] = {
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 96,
    "depths": (2, 6, 4),
    "num_heads": (3, 6, 12),
    "mlp_ratio": 2,
    "drop_path_rate": 0.1,
}


def small_image_swin(num_classes: int, in_channels: int, image_size: int, **architecture: Any) -> SwinTransformer:
    """timm's Swin transformer with patches of 2×2 pixels and windows of 4×4 patches.

    7.05 M parameters for 10 classes of 32×32×3 pixels, the paper's « 7M ».

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, S, S) → (B, K) logits.
        image_size: S.
        architecture: arguments of timm's model that differ from :data:`ARCHITECTURE`.
    """
    settings = {"img_size": image_size, **ARCHITECTURE, **architecture}
    return SwinTransformer(num_classes=num_classes, in_chans=in_channels, **settings)
