"""Stages that prepare image sets, and that export them for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nfpi.config import DatasetConfig, Name, PositiveInt
from nfpi.runs import IMAGE_SET_FILES
from nfpi.stages.options.base import Stage

META = IMAGE_SET_FILES["meta"]
"""file of an image set with the digests of its other files"""
_SPLITS = ("train", "validation", "test")
SPLIT_OUTPUTS = {
    **{f"{split}_{name}": f"{split}/{file}" for split in _SPLITS for name, file in IMAGE_SET_FILES.items()},
    "sources": "sources.npz",
}


def list_meta_files(*splits: str) -> tuple[str, ...]:
    """Return the path of each split's meta.json, whose digests verify the split's other files."""
    return tuple(f"{split}/{META}" for split in splits)


class PrepareData(Stage):
    """Write the splits of a data set in the on-disk format.

    Downloads CIFAR-10, CIFAR-100 and Fashion-MNIST unless a folder is given.
    """

    command = "prepare-data"
    work = "nfpi.stages.data:prepare_data"
    outputs = SPLIT_OUTPUTS
    product = "data"
    timed = ("sources",)
    replaces_folder = True

    name: Name = "digits"
    """name of the data set"""
    dataset: DatasetConfig = DatasetConfig()
    download_folder: Path = Path("results/downloads")
    """folder where downloads are kept"""


class EncodeData(Stage):
    """Encode the splits of a data set with an autoencoder.

    For data sets with a `vae`. Resumes if stopped.
    """

    command = "encode-data"
    work = "nfpi.stages.pretrained:encode_data"
    outputs = SPLIT_OUTPUTS | {f"{split}_files": f"{split}/files.json" for split in _SPLITS}
    product = "data"
    timed = ("sources",)
    replaces_folder = True

    name: Name
    """name of the data set"""
    dataset: DatasetConfig
    """data set whose source is imagefolder, with a `vae`"""
    download_folder: Path = Path("results/downloads")
    """folder where an archive is unpacked"""
    workers: PositiveInt = 1
    """threads that read images; the result does not depend on them"""


class DownloadWeights(Stage):
    """Download the published weights of a classifier.

    Needs internet access, so that the stages that use the weights do not.
    """

    command = "download-weights"
    work = "nfpi.stages.pretrained:download_weights"
    outputs = {"weights": "{model}.safetensors"}
    product = "published weights"
    label = "{model}"

    model: Literal["eva02"] = "eva02"


class Export(Stage):
    """Export an image set for other programs.

    The images may be real, generated or augmented.
    """

    command = "export"
    work = "nfpi.stages.data:export"
    inputs = {"images": (META,)}
    replaces_folder = True

    images: Path
    """folder of the image set"""
    format: Literal["imagefolder"] = "imagefolder"
    """imagefolder: output/class/NNNNN.png"""
