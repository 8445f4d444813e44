"""Standard augmentations of a classifier's training images: of one uint8 image (C, H, W), and of a normalised batch.

All random numbers come from torch's global generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from nfpi.config.classifiers import StandardAugmentation
from nfpi.data.batches import Transform
from nfpi.data.transforms import Shape, compose


def classifier_transform(
    standard: StandardAugmentation, shape: Shape, flip: bool, fill: Sequence[float] = (0.5, 0.5, 0.5)
) -> Transform | None:
    """Make the standard augmentations of single images: mirroring, crop, AutoAugment, RandAugment.

    Args:
        standard: settings of the augmentations.
        shape: (C, H, W) of the images.
        flip: whether a mirrored image keeps its class; otherwise images are never mirrored.
        fill: colour in [0, 1] with which RandAugment fills areas beyond an image's edge.

    Returns:
        The transform, or None if all augmentations are off.
    """
    steps: list[Transform] = []
    if standard.crop_padding:
        steps.append(v2.RandomCrop(shape[1:], padding=standard.crop_padding))
    if standard.auto_augment:
        steps.append(v2.AutoAugment(v2.AutoAugmentPolicy(standard.auto_augment)))
    if standard.rand_augment:
        steps.append(RandAugment(standard.rand_augment, shape[0], fill))
    return compose(flip and standard.flip, *steps)  # mirroring comes first


class BatchAugmentation:
    """The standard augmentations of a normalised batch: random erasing, mixup, cutmix.

    Random erasing (timm's) fills a rectangle of some images with noise N(0, 1), or with 0, the mean of normalised
    images. Mixup and cutmix (torchvision's) mix each image of a batch and its label with those of its neighbour,
    with probability `mix_probability` per batch; if both are on, one is chosen at random for each batch.

    Args:
        standard: settings of the augmentations.
        num_classes: K.
        device: device of the batches.
    """

    def __init__(self, standard: StandardAugmentation, num_classes: int, device: torch.device) -> None:
        self._erase = None
        if standard.random_erasing:
            from timm.data.random_erasing import RandomErasing  # slow to import, and rarely used

            self._erase = RandomErasing(
                standard.random_erasing,
                max_area=standard.erasing_max_area,
                mode={"noise": "pixel", "mean": "const"}[standard.erasing_fill],
                device=device,
            )
        mixes: list[v2.Transform] = []
        if standard.mixup:
            mixes.append(v2.MixUp(alpha=standard.mixup, num_classes=num_classes))
        if standard.cutmix:
            mixes.append(v2.CutMix(alpha=standard.cutmix, num_classes=num_classes))
        self._mix: v2.Transform | None = v2.RandomChoice(mixes) if mixes else None
        if self._mix is not None and standard.mix_probability < 1:
            self._mix = v2.RandomApply([self._mix], p=standard.mix_probability)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            images: (B, C, H, W); may be changed in place.
            labels: (B,).

        Returns:
            images (B, C, H, W), and labels (B,) or probabilities of the classes (B, K).
        """
        if self._erase is not None:
            seed_globals(int(torch.randint(2**32, ())))
            images = self._erase(images)
        if self._mix is not None:
            images, labels = self._mix(images, labels)
        return images, labels


class RandAugment:
    """timm's RandAugment (Cubuk et al., 2020) of one uint8 image (C, H, W), grey or RGB.

    Args:
        policy: timm's notation, e.g. `rand-m9-mstd0.5-inc1`: magnitude 9 with standard deviation 0.5, and operations
            whose severity increases with the magnitude.
        channels: C.
        fill: colour in [0, 1] beyond the image's edge; its mean for grey images.
    """

    def __init__(self, policy: str, channels: int, fill: Sequence[float]) -> None:
        from timm.data.auto_augment import rand_augment_transform  # slow to import, and rarely used

        if channels == 1:
            fill = [fmean(fill)] * 3  # the operations require RGB, whose three channels must stay equal
        self.change = rand_augment_transform(policy, {"img_mean": tuple(round(255 * value) for value in fill)})
        for operation in self.change.ops:
            if operation.name.startswith("Posterize"):
                operation.level_fn = partial(_keep_at_least_one_bit, operation.level_fn)

    def __call__(self, image: Tensor) -> Tensor:
        """Augment one image, keeping its shape."""
        channels = len(image)
        seed_globals(int(torch.randint(2**32, ())))
        changed = self.change(functional.to_pil_image(image.expand(3, -1, -1)))
        pixels: Tensor = functional.pil_to_tensor(changed)
        return pixels[:channels]


def _keep_at_least_one_bit(bits_at: Callable[..., tuple[int]], level: float, settings: dict[str, Any]) -> tuple[int]:
    """Return the number of bits that posterisation keeps, at least 1: timm may choose 0, which Pillow refuses."""
    return (max(1, bits_at(level, settings)[0]),)


def seed_globals(seed: int) -> None:
    """Seed Python's and NumPy's global generators, which timm uses, with a seed in [0, 2³²)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
