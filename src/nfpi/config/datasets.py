"""Data sets: their settings, and the registry of sources that `source:` selects from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from nfpi.config.base import LocalPath, PositiveInt, Settings, added_setting
from nfpi.config.registry import Registry

Overridden = Literal["flows", "training", "generation", "nfa", "classifiers"]


PER_SEED: Literal["per_seed"] = "per_seed"
"""A split seed: every seed of the runs has a split of its own, drawn with that seed."""

SplitSeed = Annotated[int, Field(ge=0, lt=2**32)]
"""Seeds that scikit-learn and NumPy take."""


def _check_split_seed(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:
        expected = f"expected a whole number from 0 to 2³² − 1, or {PER_SEED}"
        raise ValueError(f"{expected}, received {value!r}") from None


class DatasetBlock(Settings):
    """Where a data set comes from, how it is split, and what is special about it, as presets have it."""

    source: Annotated[str, AfterValidator(lambda name: SOURCES.known(name))] = "digits"
    """digits, fashion_mnist, cifar10, cifar100, imagefolder, or one of the user's own"""
    folder: LocalPath | None = None
    """folder that holds the files already (torchvision's layout, or split/class/image); None: downloaded"""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """share of the training images held out, stratified, for every choice that is made"""
    refit: bool = added_setting(False)
    """train on the validation images too: nothing is held out, so nothing can be chosen"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share held out for the test where the source has no test split of its own (digits)"""
    split_seed: Annotated[SplitSeed | Literal["per_seed"], WrapValidator(_check_split_seed)] = 0
    """seed of the random choice of held-out images, and of those kept a class; per_seed: runs of each seed have a split
    of their own, drawn with that seed"""
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

    def with_split_seed(self, seed: int) -> DatasetConfig:
        """The settings of one split, which a stage makes."""
        return DatasetConfig.model_validate(self.model_dump() | {"split_seed": seed})


class DatasetConfig(DatasetBlock):
    """Where a data set comes from, how it is split, and what is special about it: the settings of one split."""

    split_seed: SplitSeed = 0
    """seed of the random choice of held-out images, and of those kept a class"""


SOURCES = Registry("source")
"""Builders read a data set into memory: (DatasetConfig, download_folder) → nfpi.data.SourceImages.
Traits: `published`, the files are compared with known digests, so that another folder is no other data set; `size`,
the side of the images, where all have one."""

SOURCES.register("digits", DatasetConfig, "nfpi.data.sources.digits:load_digits", published=True, size=8)
SOURCES.register("fashion_mnist", DatasetConfig, "nfpi.data.sources.fashion_mnist:load_fashion_mnist", size=28)
SOURCES.register("cifar10", DatasetConfig, "nfpi.data.sources.cifar:load_cifar10", published=True, size=32)
SOURCES.register("cifar100", DatasetConfig, "nfpi.data.sources.cifar:load_cifar100", published=True, size=32)
SOURCES.register("imagefolder", DatasetConfig, "nfpi.data.sources.imagefolder:load_imagefolder")
