"""The project's classifiers: ResNet18 of torchvision, Swin and EVA02 of timm.

torchvision and timm are imported when a model is built, as each is slow to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.config.classifiers import Eva02Settings, ResNet18Settings, SwinSettings
from nfpi.runtime.precision import choose_convolution_format

EVA02 = "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k"
"""EVA02-B/14 (Fang et al., 2023), pretrained on ImageNet-22k, fine-tuned on ImageNet: Table 6 of the replicated paper.

The K = 1000 logits of the published weights are in the order of ImageNet's synsets sorted by name (n01440764 first),
which is also the order of class folders. So labels of a data set in ImageNet's class folders need no conversion."""


def resnet18(num_classes: int, in_channels: int, image_size: int, settings: ResNet18Settings) -> nn.Module:
    """Build ResNet18 (He et al., 2016) with a 3×3 stem of stride 1 and no max-pooling.

    11.17 M parameters for 10 classes.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, H, W) → (B, K) logits.
        image_size: ignored; images may have any size.
        settings: how the stem is initialised.
    """
    from torchvision.models import resnet18 as build

    model: nn.Module = build(num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    if settings.stem_init == "kaiming_normal":
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    model.register_forward_pre_hook(_convert_memory_format)
    return model


def _convert_memory_format(model: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """Convert inputs to the memory format that is fast on a GPU; the following layers keep it."""
    (images,) = inputs
    if images.device.type == "cpu":
        return images
    return images.contiguous(memory_format=choose_convolution_format(images.device))


def swin(num_classes: int, in_channels: int, image_size: int, settings: SwinSettings) -> nn.Module:
    """Build the Swin transformer (Liu et al., 2021) of Table 5.

    By default, patches have 2×2 pixels and windows 4×4 patches.
    7.05 M parameters for 10 classes of 32×32×3 pixels; the paper says 7M.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, S, S) → (B, K) logits.
        image_size: S.
        settings: architecture.
    """
    from timm.models import SwinTransformer

    architecture = settings.model_dump(exclude={"layer_norm_eps"})
    norm = partial(nn.LayerNorm, eps=settings.layer_norm_eps)
    return SwinTransformer(
        img_size=image_size,
        num_classes=num_classes,
        in_chans=in_channels,
        norm_layer=norm,  # type: ignore[arg-type]  # timm declares a class, but only calls it
        **architecture,
    )


def eva02(num_classes: int, in_channels: int, image_size: int, settings: Eva02Settings) -> nn.Module:
    """Build timm's EVA02-B with random weights, by default with patches of 14×14 pixels.

    It has 87.12 M parameters for 1000 classes and images of 448×448×3.

    Args:
        num_classes: K.
        in_channels: C; the model maps images (B, C, S, S) to logits (B, K).
        image_size: S.
        settings: architecture.
    """
    import timm

    architecture = settings.model_dump(exclude_none=True)
    return timm.create_model(EVA02, num_classes=num_classes, in_chans=in_channels, img_size=image_size, **architecture)


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
        ValueError: the given weights lack a parameter of the model other than those of its head, or have more blocks.
    """
    import timm

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
        EVA02, pretrained=True, num_classes=num_classes, in_chans=in_channels, img_size=image_size, **architecture
    )


def _require_parameters(
    weights: Mapping[str, Tensor], num_classes: int, in_channels: int, image_size: int, settings: Eva02Settings
) -> None:
    """Raise ValueError for weights of another depth or name, which timm accepts if the number of classes differs."""
    from timm.models.eva import checkpoint_filter_fn

    with torch.device("meta"):
        expected = eva02(num_classes, in_channels, image_size, settings)
    known = checkpoint_filter_fn(dict(weights), expected)
    names = [name for name, _ in expected.named_parameters() if not name.startswith(("head.", "fc_norm."))]
    missing = [name for name in names if name not in known]
    surplus = [name for name in known if name.startswith("blocks.") and name not in expected.state_dict()]
    for what, some in (("missing", missing), ("unexpected", surplus)):
        if some:
            raise ValueError(f"{what} {', '.join(some[:3])}{', ...' if len(some) > 3 else ''}")


def get_eva02_preprocessing() -> Preprocessing:
    """Return timm's preprocessing for the published weights: OpenAI CLIP's mean and std, images squashed to squares."""
    from timm.models import get_pretrained_cfg

    published = get_pretrained_cfg(EVA02)
    assert published is not None  # timm knows its own models
    return Preprocessing(tuple(published.mean), tuple(published.std), squash=published.crop_mode == "squash")
