"""Swin transformer for small images (Liu et al., 2021), as in Table 5."""

from __future__ import annotations

from functools import partial

from timm.models import SwinTransformer
from torch import nn

from nfpi.config.classifiers import SwinSettings


def swin(num_classes: int, in_channels: int, image_size: int, settings: SwinSettings) -> SwinTransformer:
    """Build timm's Swin transformer, by default with patches of 2×2 pixels and windows of 4×4 patches.

    7.05 M parameters for 10 classes of 32×32×3 pixels; the paper says 7M.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, S, S) → (B, K) logits.
        image_size: S.
        settings: architecture.
    """
    architecture = settings.model_dump(exclude={"layer_norm_eps"})
    norm = partial(nn.LayerNorm, eps=settings.layer_norm_eps)
    return SwinTransformer(
        img_size=image_size,
        num_classes=num_classes,
        in_chans=in_channels,
        norm_layer=norm,  # type: ignore[arg-type]  # timm declares a class, but only calls it
        **architecture,
    )
