"""Random changes of training images: pipelines of torchvision's transforms on uint8 tensors (C, H, W).

All randomness comes from torch's global generator, which :func:`nfpi.data.batches` seeds for each image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torchvision.transforms import v2

Transform = Callable[[Tensor], Tensor]
Shape = tuple[int, int, int]


def training_transform(
    augmentation: Literal["none", "flip", "shift", "released"], shape: Shape, flip: bool
) -> Transform | None:
    """Augmentation of the flow's training images; the shape stays (C, H, W).

    Args:
        augmentation: "flip" mirrors; "shift" pads by one pixel, repeating the edge, crops, and mirrors;
            "released" is the released runs' augmentation, see :func:`_released`; "none" is none.
        shape: (C, H, W) of the images.
        flip: whether mirrored images are still of their class; nothing mirrors otherwise.

    Returns:
        The pipeline, or none where nothing would change.
    """
    size = shape[1:]
    match augmentation:
        case "none":
            return None
        case "flip":
            return _pipeline(flip)
        case "shift":
            return _pipeline(flip, v2.RandomCrop(size, padding=1, padding_mode="edge"))
        case "released":
            return _pipeline(flip, *_released(shape))


def classifier_transform(crop_padding: int, shape: Shape, flip: bool) -> Transform | None:
    """Random crops of images (C, H, W) padded by `crop_padding` black pixels, and mirroring if `flip`."""
    return _pipeline(flip, *([v2.RandomCrop(shape[1:], padding=crop_padding)] if crop_padding else []))


def _released(shape: Shape) -> list[v2.Transform]:
    """Colour jitter (three channels only), rotation by up to 12°, random crop.

    At 32×32 the edge is repeated 8 pixels outwards, and the crop is taken from the rotated centre of 36×36.
    Other sizes keep these ratios: H/4 and H + H/8, rounded down. No corner that the rotation leaves black is
    in that centre: it reaches out to 0.5625 H (cos 12° + sin 12°) ≈ 0.67 H, and 0.75 H are filled (H = W).
    """
    channels, height, width = shape
    jitter = [v2.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.05)] if channels == 3 else []
    return [
        *jitter,
        v2.Pad([width // 4, height // 4], padding_mode="edge"),
        v2.RandomRotation(12),
        v2.CenterCrop([height + height // 8, width + width // 8]),
        v2.RandomCrop([height, width]),
    ]


def _pipeline(flip: bool, *steps: v2.Transform) -> Transform | None:
    steps = (v2.RandomHorizontalFlip(), *steps) if flip else steps
    return v2.Compose(steps) if steps else None
