"""Augmentation of a flow's training images: torchvision transforms of uint8 tensors (C, H, W).

All random numbers come from torch's global generator, which :mod:`nfpi.data.batches` seeds for each image.
"""

from __future__ import annotations

from typing import Literal

from torchvision.transforms import v2

from nfpi.data.batches import Transform

Shape = tuple[int, int, int]


def training_transform(
    augmentation: Literal["none", "flip", "shift", "released"], shape: Shape, flip: bool
) -> Transform | None:
    """Make the augmentation of a flow's training images, which keeps their shape.

    Args:
        augmentation: "flip" mirrors; "shift" pads by one pixel, repeating the edge, crops, and mirrors;
            "released" is the augmentation of the released code, see :func:`_released`; "none" changes nothing.
        shape: (C, H, W) of the images.
        flip: whether mirrored images are still of their class; nothing mirrors otherwise.

    Returns:
        the transform, or None where nothing would change.
    """
    size = shape[1:]
    match augmentation:
        case "none":
            return None
        case "flip":
            return compose(flip)
        case "shift":
            return compose(flip, v2.RandomCrop(size, padding=1, padding_mode="edge"))
        case "released":
            return compose(flip, *_released(shape))


def compose(flip: bool, *steps: Transform) -> Transform | None:
    """Chain transforms, after a random mirroring where `flip` is true; None where there are none."""
    steps = (v2.RandomHorizontalFlip(), *steps) if flip else steps
    return v2.Compose(steps) if steps else None


def _released(shape: Shape) -> list[v2.Transform]:
    """Colour jitter (of three channels only), rotation by up to 12°, random crop.

    At 32×32 the edge is repeated 8 pixels outwards, and the crop is taken from the rotated centre of 36×36.
    Other sizes keep these ratios: H/4 and H + H/8, rounded down. The rotation leaves black corners, but none in that
    centre: it reaches out to 0.5625 H (cos 12° + sin 12°) ≈ 0.67 H, and 0.75 H are filled (H = W).
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
