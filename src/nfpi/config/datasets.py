"""Data sets: their settings, and the registry of sources that `source:` selects from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nfpi.config.base import LocalPath, PositiveInt, Settings
from nfpi.config.registry import Registry

Overridden = Literal["flows", "training", "generation", "nfa", "classifiers"]


class DatasetConfig(Settings):
    """Where a data set comes from, how it is split, and what is special about it."""

    source: Annotated[str, AfterValidator(lambda name: SOURCES.known(name))] = "digits"
    """digits, fashion_mnist, cifar10, cifar100, imagefolder, or one of the user's own"""
    folder: LocalPath | None = None
    """folder that holds the files already (torchvision's layout, or split/class/image); None: downloaded"""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """share of the training images held out, stratified, for every choice that is made"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share held out for the test where the source has no test split of its own (digits)"""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    train_per_class: PositiveInt | None = None
    """training images kept a class, validation not counted; None: all"""
    test_per_class: PositiveInt | None = None
    image_size: PositiveInt | None = None
    """imagefolder: side that images are resized and centre-cropped to; None: they must all have one size"""
    flip: bool = True
    """mirrored images are still of their class (not so for digits)"""
    vae: LocalPath | None = None
    """folder of a diffusers AutoencoderKL: flows see its latents of the images; None: they see pixels"""
    encode_batch_size: PositiveInt = 32
    """images the autoencoder takes at a time"""
    real_labels: bool = False
    """also score classifiers on ImageNet-ReaL's labels (test files named as ImageNet's validation images)"""
    overrides: dict[Overridden, dict[str, Any]] = {}
    """settings of other stages that differ for this data set"""


SOURCES = Registry("source")
"""Builders read a data set into memory: (DatasetConfig, download_folder) → nfpi.data.SourceImages.
Traits: `published`, the files are compared with known digests, so that another folder is no other data set; `size`,
the side of the images, where all have one."""

SOURCES.register("digits", DatasetConfig, "nfpi.data.sources.digits:load_digits", published=True, size=8)
SOURCES.register("fashion_mnist", DatasetConfig, "nfpi.data.sources.fashion_mnist:load_fashion_mnist", size=28)
SOURCES.register("cifar10", DatasetConfig, "nfpi.data.sources.cifar:load_cifar10", published=True, size=32)
SOURCES.register("cifar100", DatasetConfig, "nfpi.data.sources.cifar:load_cifar100", published=True, size=32)
SOURCES.register("imagefolder", DatasetConfig, "nfpi.data.sources.imagefolder:load_imagefolder")
