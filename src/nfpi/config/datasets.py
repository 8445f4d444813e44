"""Settings of data sets, and the registry of their sources."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from nfpi.config.base import EXECUTION, UNIQUE, Augmentation, LocalPath, Name, PositiveInt, Settings
from nfpi.config.registry import Registry


class DataError(ValueError):
    """A data set is missing, damaged or unexpected; the message is one line and names the file or folder."""


Overridden = Literal["flows", "training", "generation", "nfa", "classifiers", "evaluation"]


PER_SEED: Literal["per_seed"] = "per_seed"
"""Value of `split_seed`: the runs of each seed have their own splits, drawn with that seed."""

SplitSeed = Annotated[int, Field(ge=0, lt=2**32)]
"""Limited to 32 bits, as are the seeds of NumPy and scikit-learn."""


class FeaturesSettings(Settings):
    """A data set of features: the inputs of the last linear layer of a trained classifier."""

    dataset: Name
    """data set of the images, whose splits are kept"""
    classifier: Name
    """a classifier with train_on: real, trained on the training images, with `split_seed` as its seed"""
    trained_on: Name | None = None
    """data set of the images that it is trained on, for features of unknown images; None: the same"""
    augmentation: Augmentation = "none"
    """augmentation with which it is trained"""


_IF_GIVEN = Field(exclude_if=lambda value: value is None)
"""Left out of what is written if it is null: data sets without the setting are declared as if it did not exist."""


class DatasetBlock(Settings):
    """A block of `datasets:`: the source of a data set, its splits, and settings specific to it."""

    source: Annotated[str, AfterValidator(lambda name: SOURCES[name].name)] = "digits"
    """digits, fashion_mnist, cifar10, cifar100, imagefolder, arrays, features, or a source registered by the user"""
    folder: Annotated[LocalPath | None, EXECUTION] = None
    """folder of the files in torchvision's layout; for imagefolder, a folder or archive that contains split/class/image
    or class/image; for arrays, a file of vectors (npz, csv or parquet), or a folder with train and test files; None:
    the files are downloaded (imagefolder and arrays need a folder)"""
    features: Annotated[FeaturesSettings | None, _IF_GIVEN] = None
    """features: what they are features of"""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """share of the training images held out for model selection, stratified"""
    refit: bool = False
    """whether the validation images are used for training too, which makes model selection impossible"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share held out for testing if the source has no test split (digits, or an image folder class/image)"""
    split_seed: SplitSeed | Literal["per_seed"] = 0
    """seed of the random choice of held-out images and of the images kept per class; per_seed: the runs of each seed
    have their own splits, drawn with that seed"""
    train_per_class: PositiveInt | None = None
    """training images kept per class, validation not included; None: all"""
    test_per_class: PositiveInt | None = None
    image_size: PositiveInt | None = None
    """imagefolder: size that images are resized and centre-cropped to; None: all must have the same size"""
    skip: Annotated[tuple[str, ...] | None, _IF_GIVEN] = None
    """imagefolder: files that are not read, such as damaged ones, relative to the folder"""
    classes: Annotated[PositiveInt | None, _IF_GIVEN] = None
    """number of classes of an imagefolder, for `relative_weights`; None: unknown until the images are read"""
    only_classes: Annotated[Annotated[tuple[str, ...], Field(min_length=2), UNIQUE] | None, _IF_GIVEN] = None
    """names of the classes that are kept, such as all but those left out as unknown; None: all"""
    shape: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt] | None, _IF_GIVEN] = None
    """(H, W, C) of an imagefolder's images after resizing, for `relative_weights`; None: unknown"""
    label: Annotated[str, Field(exclude_if=lambda value: value == "label")] = "label"
    """arrays: name of the column, or of the array of an npz file, with the classes"""
    flip: bool = True
    """whether mirrored images keep their class (not so for digits)"""
    vae: Annotated[LocalPath | None, EXECUTION] = None
    """folder of a diffusers AutoencoderKL, in whose latent space flows are trained; None: on pixels"""
    encode_batch_size: Annotated[PositiveInt, EXECUTION] = 32
    """batch size of the autoencoder"""
    real_labels: bool = False
    """whether classifiers are also evaluated on the ImageNet-ReaL labels, which needs test files with the names of
    ImageNet's validation images"""
    overrides: dict[Overridden, dict[str, Any]] = {}
    """settings of other groups that differ for this data set"""

    @property
    def num_classes(self) -> int | None:
        """K; None: unknown before the images are read."""
        if self.only_classes is not None:
            return len(self.only_classes)
        return self.classes or SOURCES[self.source].traits.get("classes")

    @property
    def num_dimensions(self) -> int | None:
        """D = H·W·C; None: unknown before the images are read, or latents of an autoencoder."""
        traits = SOURCES[self.source].traits
        if self.vae is not None:
            return None
        if self.shape is None and "channels" in traits and "size" in traits:
            return int(traits["channels"] * traits["size"] ** 2)
        return math.prod(self.shape) if self.shape is not None else None

    @model_validator(mode="after")
    def _check(self) -> DatasetBlock:
        if self.only_classes is not None and self.vae is not None:
            raise ValueError("only_classes: expected null for a data set with a vae; give a folder without the others")
        if (self.source == "features") != (self.features is not None):
            raise ValueError(f"features: expected them with source features and no other, received {self.source}")
        size = SOURCES[self.source].traits.get("size")
        if self.image_size is not None and size is not None:
            raise ValueError(
                f"image_size: expected null for source {self.source}, whose images have {size}×{size} pixels, received "
                f"{self.image_size}"
            )
        return self


class DatasetConfig(DatasetBlock):
    """Settings of a data set whose splits are drawn with one seed."""

    split_seed: SplitSeed = 0
    """seed of the random choice of held-out images and of the images kept per class"""


SOURCES = Registry("source", ("config", "download_folder"))
"""Builders read a data set into memory: (DatasetConfig, download_folder) → nfpi.data.SourceImages.
Traits: `published`, whether the files are checked against known digests, so that their folder does not matter to
results; `size`, the image size, if it is known. Sources whose content is known before they are read also have
`channels`, `classes` (the number of classes), `images` (the number of images from which the validation split is
taken), and `test_split=False` if the test split is taken from the same images."""

_PUBLISHED = "nfpi.data.sources.published"
_DIGITS: dict[str, Any] = {
    "published": True,
    "size": 8,
    "channels": 1,
    "classes": 10,
    "images": 1797,
    "test_split": False,
}
_FASHION_MNIST = {"size": 28, "channels": 1, "classes": 10, "images": 60000}
_CIFAR = {"published": True, "size": 32, "channels": 3, "images": 50000}
SOURCES.register("digits", DatasetConfig, f"{_PUBLISHED}:load_digits", **_DIGITS)
SOURCES.register("fashion_mnist", DatasetConfig, f"{_PUBLISHED}:load_fashion_mnist", **_FASHION_MNIST)
SOURCES.register("cifar10", DatasetConfig, f"{_PUBLISHED}:load_cifar", classes=10, **_CIFAR)
SOURCES.register("cifar100", DatasetConfig, f"{_PUBLISHED}:load_cifar", classes=100, **_CIFAR)
SOURCES.register("features", DatasetConfig)
SOURCES.register("arrays", DatasetConfig, "nfpi.data.sources.arrays:load_arrays")
SOURCES.register("imagefolder", DatasetConfig, "nfpi.data.sources.imagefolder:load_imagefolder")
