"""ResNet18 for small images (He et al., 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision import models

from nfpi.config.classifiers import ResNet18Settings
from nfpi.runtime.precision import choose_convolution_format


def resnet18(num_classes: int, in_channels: int, image_size: int, settings: ResNet18Settings) -> models.ResNet:
    """Build torchvision's ResNet18 with a 3×3 stem of stride 1 and no max-pooling: 11.17 M parameters for 10 classes.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, H, W) → (B, K) logits.
        image_size: ignored; images may have any size.
        settings: how the stem is initialised.
    """
    model = models.resnet18(num_classes=num_classes)
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
