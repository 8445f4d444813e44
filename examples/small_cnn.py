"""A classifier of one's own: `classifiers: {cnn: {model: small_cnn, architecture: {width: 16}, epochs: 5}}`."""

from pydantic import PositiveInt
from torch import nn

from nfpi.classifiers import register_classifier
from nfpi.config.base import Settings


class SmallCnnSettings(Settings):
    """Architecture of a small convolutional network."""

    width: PositiveInt = 32
    """channels of the first convolution; the second has twice as many"""


@register_classifier("small_cnn", SmallCnnSettings)
def small_cnn(num_classes: int, in_channels: int, image_size: int, settings: SmallCnnSettings) -> nn.Module:
    """Build two convolutions, a mean over pixels, and a linear layer: images (B, C, S, S) → logits (B, K)."""
    width = settings.width
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )
