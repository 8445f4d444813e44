"""EVA02-B/14 (Fang et al., 2023), pretrained on ImageNet-22k and fine-tuned on ImageNet, as in Table 6.

The K = 1000 logits of the published weights are in the order of ImageNet's synsets sorted by name (n01440764 first),
which is that of sorted class folders. So a data set of ImageNet's class folders needs no translation.
"""

from __future__ import annotations

from collections.abc import Mapping

import timm
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.config.classifiers import Eva02Settings

NAME = "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k"


def eva02(num_classes: int, in_channels: int, image_size: int, settings: Eva02Settings) -> nn.Module:
    """timm's EVA02-B with random weights, by default with patches of 14×14 pixels.

    87.12 M parameters for 1000 classes of 448×448×3 pixels.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, S, S) → (B, K) logits.
        image_size: S.
        settings: architecture.
    """
    architecture = settings.model_dump(exclude_none=True)
    return timm.create_model(NAME, num_classes=num_classes, in_chans=in_channels, img_size=image_size, **architecture)


def pretrained_eva02(
    num_classes: int, in_channels: int, image_size: int, settings: Eva02Settings, weights: Mapping[str, Tensor] | None
) -> nn.Module:
    """Build the same model with these weights; None: timm's published ones, from its cache or the hub.

    timm adapts them to the model: position embeddings are interpolated for other sizes, the stem is converted to other
    channels, and the head is left random where K is another.
    """
    architecture = settings.model_dump(exclude_none=True)
    if weights is not None:  # timm goes by what is declared of the weights, not by their shapes
        head, stem = weights.get("head.weight"), weights.get("patch_embed.proj.weight")
        architecture["pretrained_cfg_overlay"] = {
            "state_dict": dict(weights),
            "num_classes": len(head) if head is not None else 0,
            "input_size": (stem.shape[1] if stem is not None else 3, image_size, image_size),
        }
    return timm.create_model(
        NAME, pretrained=True, num_classes=num_classes, in_chans=in_channels, img_size=image_size, **architecture
    )


def eva02_preprocessing() -> Preprocessing:
    """As timm evaluates the published weights: OpenAI CLIP's mean and deviation; images are squashed, not cropped."""
    published = get_pretrained_cfg(NAME)
    assert published is not None  # timm knows its own models
    return Preprocessing(tuple(published.mean), tuple(published.std), squash=published.crop_mode == "squash")
