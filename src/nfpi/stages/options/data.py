"""Stages from a source to image sets, and from image sets to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nfpi.config import DatasetConfig, Name, PositiveInt
from nfpi.config.figures import IMAGE_SET
from nfpi.stages.options.base import Stage

META = "meta.json"
"""The file of an image set that holds the digests of the others."""
IMAGE_OUTPUTS = {file.partition(".")[0]: file for file in IMAGE_SET}
_SPLITS = ("train", "validation", "test")
SPLIT_OUTPUTS = {
    **{f"{split}_{name}": f"{split}/{file}" for split in _SPLITS for name, file in IMAGE_OUTPUTS.items()},
    "sources": "sources.npz",
}


def of_splits(*splits: str) -> tuple[str, ...]:
    """The files of some splits that a stage checks before it reads them; they hold the digests of the others."""
    return tuple(f"{split}/{META}" for split in splits)


class PrepareData(Stage):
    """Write a data set's splits in the one on-disk form.

    The data set is downloaded where it is not in a folder.
    """

    command = "prepare-data"
    work = "nfpi.stages.data:prepare_data"
    outputs = SPLIT_OUTPUTS
    product = "data"
    replaces_folder = True

    name: Name = "digits"
    """what the data set is called"""
    dataset: DatasetConfig = DatasetConfig()
    download_folder: Path = Path("results/downloads")
    """where downloads are kept"""


class EncodeData(Stage):
    """Write a data set's splits as an autoencoder's latents.

    For data sets with a `vae`. Resumes if stopped.
    """

    command = "encode-data"
    work = "nfpi.stages.pretrained:encode_data"
    outputs = SPLIT_OUTPUTS | {f"{split}_files": f"{split}/files.json" for split in _SPLITS}
    product = "data"
    replaces_folder = True

    name: Name
    """what the data set is called"""
    dataset: DatasetConfig
    """an imagefolder with a vae"""
    download_folder: Path = Path("results/downloads")
    """where an archive is unpacked"""
    workers: PositiveInt = 1
    """threads that read images; they change no result"""


class DownloadWeights(Stage):
    """Fetch the published weights of a classifier.

    On a machine with internet, for stages that run without.
    """

    command = "download-weights"
    work = "nfpi.stages.pretrained:download_weights"
    outputs = {"weights": "{model}.safetensors"}
    product = "published weights"
    label = "{model}"

    model: Literal["eva02"] = "eva02"


class Export(Stage):
    """Write an image set in a form that other programs read.

    Real, generated or augmented images.
    """

    command = "export"
    work = "nfpi.stages.data:export"
    inputs = {"images": (META,)}
    replaces_folder = True

    images: Path
    """folder of the image set"""
    format: Literal["imagefolder"] = "imagefolder"
    """imagefolder: output/class/NNNNN.png"""
