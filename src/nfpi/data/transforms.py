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
    """Make the augmentation of a flow's training images, which preserves their shape.

    Args:
        augmentation: "flip": random horizontal flip; "shift": flip, pad by one pixel (repeating the edge) and random
            crop; "released": that of the released code, see :func:`_make_released_transforms`; "none": no augmentation.
        shape: (C, H, W) of the images.
        flip: whether mirrored images keep their class; otherwise there are no flips.

    Returns:
        The transform, or None if it is the identity.
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
            return compose(flip, *_make_released_transforms(shape))


def compose(flip: bool, *steps: Transform) -> Transform | None:
    """Chain transforms, after a random horizontal flip if `flip`; None if there are none."""
    steps = (v2.RandomHorizontalFlip(), *steps) if flip else steps
    return v2.Compose(steps) if steps else None


def _make_released_transforms(shape: Shape) -> list[v2.Transform]:
    """Return colour jitter (three channels only), rotation by up to 12°, and random crop.

    At 32×32, images are padded by 8 pixels (repeating the edge), rotated, centre-cropped to 36×36 and randomly cropped.
    Other sizes use the same ratios, H/4 and H + H/8, rounded down. The centre crop contains no black corners of the
    rotated image: along the rotated axes, the crop reaches at most 0.5625 H (cos 12° + sin 12°) ≈ 0.67 H from the
    centre, and the padded image reaches 0.75 H (if H = W).
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
