"""ResNet18 for small images (He et al., 2016)."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import ResNet, resnet18


def small_image_resnet18(num_classes: int, in_channels: int = 3, **architecture: Any) -> ResNet:
    """torchvision's ResNet18 with a 3×3 stem of stride 1 and no max-pooling: 11.17 M parameters for 10 classes.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, H, W) → (B, K) logits.
        architecture: arguments of torchvision's model that differ.
    """
    model = resnet18(num_classes=num_classes, **architecture)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
