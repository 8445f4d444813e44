"""EVA02-B/14 (Fang et al., 2023), pretrained on ImageNet-22k, fine-tuned on ImageNet: Table 6 of the replicated paper.

The K = 1000 logits of the published weights are in the order of ImageNet's synsets sorted by name (n01440764 first),
which is also the order of class folders. So labels of a data set in ImageNet's class folders need no conversion.
"""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
from timm.models import get_pretrained_cfg
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor, nn

from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.classifiers.weights import describe_prefix, find_prefix
from nfpi.config.classifiers import Eva02Settings

NAME = "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k"


def eva02(num_classes: int, in_channels: int, image_size: int, settings: Eva02Settings) -> nn.Module:
    """Build timm's EVA02-B with random weights, by default with patches of 14×14 pixels.

    It has 87.12 M parameters for 1000 classes and images of 448×448×3.

    Args:
        num_classes: K.
        in_channels: C; the model maps images (B, C, S, S) to logits (B, K).
        image_size: S.
        settings: architecture.
    """
    architecture = settings.model_dump(exclude_none=True)
    return timm.create_model(NAME, num_classes=num_classes, in_chans=in_channels, img_size=image_size, **architecture)


def pretrained_eva02(
    num_classes: int, in_channels: int, image_size: int, settings: Eva02Settings, weights: Mapping[str, Tensor] | None
) -> nn.Module:
    """Build the model of :func:`eva02` with given weights, or with those that timm has published.

    timm adapts the weights to the model: it interpolates position embeddings for another image size, converts the stem
    for another number of channels, and keeps the random head if the number of classes differs.

    Args:
        num_classes, in_channels, image_size, settings: see :func:`eva02`.
        weights: state_dict; None: the published weights, from timm's cache or the hub.

    Raises:
        ValueError: the given weights lack a parameter of the model other than those of its head, have more blocks, or
            have names with a prefix other than that of CLIP's image tower, which timm removes.
    """
    architecture = settings.model_dump(exclude_none=True)
    if weights is not None:
        _require_parameters(weights, num_classes, in_channels, image_size, settings)
        # timm relies on declared sizes, not on the shapes of the weights
        head, stem = weights.get("head.weight"), weights.get("patch_embed.proj.weight")
        architecture["pretrained_cfg_overlay"] = {
            "state_dict": dict(weights),
            "num_classes": len(head) if head is not None else 0,
            "input_size": (stem.shape[1] if stem is not None else 3, image_size, image_size),
        }
    return timm.create_model(
        NAME, pretrained=True, num_classes=num_classes, in_chans=in_channels, img_size=image_size, **architecture
    )


def _require_parameters(
    weights: Mapping[str, Tensor], num_classes: int, in_channels: int, image_size: int, settings: Eva02Settings
) -> None:
    """Raise ValueError for weights of another depth or name, which timm accepts if the number of classes differs."""
    with torch.device("meta"):
        expected = eva02(num_classes, in_channels, image_size, settings)
    known = checkpoint_filter_fn(dict(weights), expected)
    names = [name for name, _ in expected.named_parameters() if not name.startswith(("head.", "fc_norm."))]
    missing = [name for name in names if name not in known]
    surplus = [name for name in known if name.startswith("blocks.") and name not in expected.state_dict()]
    prefix = find_prefix(weights, names)
    if prefix and any(f"{prefix}{name}" in weights for name in missing):
        raise ValueError(describe_prefix(weights, names))
    # timm removes the prefix of the image tower of CLIP
    removed = f", after removal of the prefix '{prefix}', as in checkpoints of CLIP" if prefix else ""
    for what, some in (("missing", missing), ("unexpected", surplus)):
        if some:
            raise ValueError(f"{what} {', '.join(some[:3])}{', ...' if len(some) > 3 else ''}{removed}")


def get_eva02_preprocessing() -> Preprocessing:
    """Return timm's preprocessing for the published weights: OpenAI CLIP's mean and std, images squashed to squares."""
    published = get_pretrained_cfg(NAME)
    assert published is not None  # timm knows its own models
    return Preprocessing(tuple(published.mean), tuple(published.std), squash=published.crop_mode == "squash")
