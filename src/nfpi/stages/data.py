"""Stages from a source to image sets, and from image sets to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nfpi.config.settings import DatasetConfig
from nfpi.config.base import Name, PositiveInt
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
        from nfpi.data.prepare import prepare_dataset

        prepare_dataset(self.name, self.dataset, self.output, self.download_folder)


class EncodeData(HeavyStage):
    """Write a data set's splits as latents of an autoencoder, for data sets with a `vae`."""

    name: Name
    """what the data set is called"""
    dataset: DatasetConfig
    """an imagefolder with a vae"""
    download_folder: Path = Path("results/downloads")
    """where an archive is unpacked"""
    workers: PositiveInt = 1
    """threads that read images; they change no result"""
    output: Path
    """folder of the splits: output/{train,validation,test}"""

    def run(self) -> None:
        """Encode the three splits."""
        from nfpi.data.encode import encode_dataset
        from nfpi.runtime.devices import make_fabric

        device = make_fabric().device
        encode_dataset(self.name, self.dataset, self.output, self.download_folder, device, self.workers)


class DownloadWeights(HeavyStage):
    """Fetch the published weights of a classifier, on a machine with internet, for stages that run without."""

    model: Literal["eva02"] = "eva02"
    output: Path
    """file of weights (safetensors)"""

    def run(self) -> None:
        """Fetch and write."""
        from safetensors.torch import save

        from nfpi.classifiers.models import published_weights
        from nfpi.runtime.files import write_atomically

        write_atomically(self.output, save(published_weights(self.model)))


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
        from nfpi.data.sources.imagefolder import export_imagefolder
        from nfpi.data.store import read_image_set
        from nfpi.runtime.divergence import raise_if_marked

        raise_if_marked(self.images / "meta.json")
        export_imagefolder(read_image_set(self.images), self.output)
