"""EVA02-B/14 (Fang et al., 2023), pretrained on ImageNet-22k and fine-tuned on ImageNet, as in Table 6.

Its K = 1000 logits are in the order of ImageNet's synsets sorted by name (n01440764 first), which is that of sorted
class folders; so a data set of ImageNet's class folders needs no translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from nfpi.classifiers.preprocessing import Preprocessing

IMAGENET_SIZE = 448
"""side of the images of the published weights, pixels"""
PUBLISHED_CLASSES = 1000
NAME = "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k"


def eva02(num_classes: int, in_channels: int, image_size: int, **architecture: Any) -> nn.Module:
    """timm's EVA02-B with patches of 14×14 pixels and random weights: 87.12 M parameters for 1000 classes of 448×448×3.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, S, S) → (B, K) logits.
        image_size: S.
        architecture: arguments of timm's `Eva` that differ, e.g. `patch_size`, `embed_dim`, `depth`, `num_heads`.
    """
    settings = {"img_size": image_size, **architecture}
    return timm.create_model(NAME, num_classes=num_classes, in_chans=in_channels, **settings)


def pretrained_eva02(
    weights: Mapping[str, Tensor] | None, num_classes: int, in_channels: int, image_size: int, **architecture: Any
) -> nn.Module:
    """The same model with given weights, or (none) with those that timm has published, from its cache or the hub.

    timm fits them to the model: position embeddings are resampled for other sizes, the stem's for other channels, and
    a head for another K than theirs is left random.
    """
    settings = {"img_size": image_size, **architecture}
    if weights is not None:  # timm compares with what is said of them, not with what they are
        head, stem = weights.get("head.weight"), weights.get("patch_embed.proj.weight")
        settings["pretrained_cfg_overlay"] = {
            "state_dict": dict(weights),
            "num_classes": len(head) if head is not None else 0,
            "input_size": (stem.shape[1] if stem is not None else 3, image_size, image_size),
        }
    return timm.create_model(NAME, pretrained=True, num_classes=num_classes, in_chans=in_channels, **settings)


def eva02_preprocessing() -> Preprocessing:
    """As timm evaluates it: OpenAI CLIP's mean and deviation, and images squashed to a square, not cropped."""
    published = get_pretrained_cfg(NAME)
    assert published is not None  # timm knows its own models
    return Preprocessing(tuple(published.mean), tuple(published.std), squash=published.crop_mode == "squash")
