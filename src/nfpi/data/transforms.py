"""Random changes of training images: pipelines of transforms on uint8 tensors (C, H, W).

All randomness comes from torch's global generator, which :func:`nfpi.data.batches` seeds for each image.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from nfpi.config.classifiers import StandardAugmentation
from nfpi.data.batches import Transform

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


def classifier_transform(
    standard: StandardAugmentation | None, shape: Shape, flip: bool, fill: Sequence[float] = (0.5, 0.5, 0.5)
) -> Transform | None:
    """The standard augmentations of a classifier that change one image: mirror, crop, AutoAugment, RandAugment.

    Args:
        standard: what is done; none: nothing is.
        shape: (C, H, W) of the images.
        flip: whether mirrored images are still of their class; nothing mirrors otherwise.
        fill: colour in [0, 1] that RandAugment shows beyond an image's edge.

    Returns:
        The pipeline, or none where nothing would change.

    """
    if standard is None:
        return None
    steps: list[Transform] = []
    if standard.crop_padding:
        steps.append(v2.RandomCrop(shape[1:], padding=standard.crop_padding))
    if standard.auto_augment:
        steps.append(v2.AutoAugment(v2.AutoAugmentPolicy(standard.auto_augment)))
    if standard.rand_augment:
        steps.append(RandAugment(standard.rand_augment, shape, fill))
    return _pipeline(flip and standard.flip, *steps)


class BatchAugmentation:
    """The standard augmentations of a classifier that act on a normalised batch: random erasing, mixup, cutmix.

    Random erasing (timm's) fills a rectangle of some images with noise N(0, 1). Mixup and cutmix (torchvision's) mix
    each image and its label with its neighbour's, every batch; where both are wanted, one or the other is tossed for.

    Args:
        standard: what is done; none: nothing is.
        num_classes: K.
        device: where batches are.
    """

    def __init__(self, standard: StandardAugmentation | None, num_classes: int, device: torch.device) -> None:
        from timm.data.random_erasing import RandomErasing

        standard = standard or StandardAugmentation()
        self._erase = (
            RandomErasing(standard.random_erasing, mode="pixel", device=device) if standard.random_erasing else None
        )
        mixes: list[v2.Transform] = []
        if standard.mixup:
            mixes.append(v2.MixUp(alpha=standard.mixup, num_classes=num_classes))
        if standard.cutmix:
            mixes.append(v2.CutMix(alpha=standard.cutmix, num_classes=num_classes))
        self._mix = v2.RandomChoice(mixes) if mixes else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Changed images (B, C, H, W), in place or not, and labels (B,) or shares of the classes (B, K).

        Draws from torch's global generators.
        """
        if self._erase is not None:
            with seeded_globals(int(torch.randint(2**32, ()))):
                images = self._erase(images)
        if self._mix is not None:
            images, labels = self._mix(images, labels)
        return images, labels


class RandAugment:
    """timm's RandAugment (Cubuk et al., 2020) on one uint8 image (C, H, W), grey or RGB.

    Args:
        policy: timm's text, e.g. `rand-m9-mstd0.5-inc1`: magnitude, its deviation, operations that grow with it.
        shape: (C, H, W); translations reach up to 0.45 of the shorter side.
        fill: colour in [0, 1] beyond the image's edge.
    """

    def __init__(self, policy: str, shape: Shape, fill: Sequence[float]) -> None:
        from timm.data.auto_augment import rand_augment_transform  # takes a second that nobody else needs to wait

        colour = tuple(round(255 * value) for value in fill)
        self.change = rand_augment_transform(
            policy, {"translate_const": int(0.45 * min(shape[1:])), "img_mean": colour}
        )
        for operation in self.change.ops:
            if operation.name.startswith("Posterize"):
                operation.level_fn = partial(_at_least_one_bit, operation.level_fn)

    def __call__(self, image: Tensor) -> Tensor:
        """A changed image of the same shape."""
        channels = len(image)
        with seeded_globals(int(torch.randint(2**32, ()))):
            # the operations know RGB alone; what is done to equal channels leaves them equal
            changed = self.change(functional.to_pil_image(image.expand(3, -1, -1)))
        return functional.pil_to_tensor(changed)[:channels]


def _at_least_one_bit(bits_at: Callable[..., tuple[int]], level: float, settings: dict[str, Any]) -> tuple[int]:
    """Bits that timm's posterisation keeps; at the ends of its scale these would be none, which Pillow refuses."""
    return (max(1, bits_at(level, settings)[0]),)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Python's and NumPy's global generators start at `seed` (in [0, 2³²)), and afterwards are as they were.

    For timm's augmentations, which draw from both.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


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


def _pipeline(flip: bool, *steps: Transform) -> Transform | None:
    steps = (v2.RandomHorizontalFlip(), *steps) if flip else steps
    return v2.Compose(steps) if steps else None
