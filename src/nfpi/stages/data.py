"""Stages from a source to image sets, and from image sets to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nfpi.config import DatasetConfig, Name
from nfpi.stages.base import HeavyStage


class PrepareData(HeavyStage):
    """Write a data set's splits in the one on-disk form, downloading it first where it is not in a folder."""

    name: Name = "digits"
    """what the data set is called"""
    dataset: DatasetConfig = DatasetConfig()
    download_folder: Path = Path("results/downloads")
    """where downloads are kept"""
    output: Path
    """folder of the splits: output/{train,validation,test}"""

    def run(self) -> None:
        """Prepare the three splits."""
        from nfpi.data import prepare_dataset

        prepare_dataset(self.name, self.dataset, self.output, self.download_folder)


class Export(HeavyStage):
    """Write an image set (real, generated or augmented) in a form that other programs read."""

    images: Path
    """folder of the image set"""
    format: Literal["imagefolder"] = "imagefolder"
    """imagefolder: output/class/NNNNN.png"""
    output: Path
    """folder"""

    def run(self) -> None:
        """Read and write."""
        from nfpi.data import export_imagefolder, read_image_set
        from nfpi.outcome import raise_if_marked

        raise_if_marked(self.images / "meta.json")
        export_imagefolder(read_image_set(self.images), self.output)
