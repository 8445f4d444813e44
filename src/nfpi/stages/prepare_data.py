"""Stages that prepare image sets and published weights, and that export image sets for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from nfpi.config.base import EXECUTION, ConfigError, Name, PositiveInt
from nfpi.config.datasets import DatasetConfig
from nfpi.runs import IMAGE_SET_FILES
from nfpi.runtime.files import write_atomically
from nfpi.stages.base import Stage
from nfpi.stages.planned import Planned, Wildcards

META = IMAGE_SET_FILES["meta"]
"""file of an image set with the digests of its other files"""
_SPLITS = ("train", "validation", "test")
_SPLIT_OUTPUTS = {
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
    outputs = _SPLIT_OUTPUTS
    product = "data"
    timed = ("sources",)
    replaces_folder = True
    blocks = {"name": "dataset", "dataset": "datasets.{dataset}"}
    uses = ("dataset",)

    name: Name = "digits"
    """name of the data set"""
    dataset: DatasetConfig = DatasetConfig()
    download_folder: Path = Path("results/downloads")
    """folder where downloads are kept"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        dataset = planned.config.get_dataset(wildcards["dataset"], wildcards["splits"])
        return super().select_options(planned, wildcards) | {"dataset": dataset}

    def run(self) -> None:
        """Write the train, validation and test splits."""
        from nfpi.data.prepare import prepare_dataset

        prepare_dataset(self.name, self.dataset, self.output, self.download_folder)


class EncodeData(PrepareData):
    """Encode the splits of a data set with an autoencoder.

    For data sets with a `vae`. Resumes if stopped.
    """

    command = "encode-data"
    outputs = _SPLIT_OUTPUTS | {f"{split}_files": f"{split}/files.json" for split in _SPLITS}

    workers: Annotated[PositiveInt, EXECUTION] = 1
    """threads that read images; the result does not depend on them"""

    def run(self) -> None:
        """Encode the three splits, and write their latents."""
        from nfpi.data.encode import encode_dataset
        from nfpi.runtime.device import make_device

        device = make_device().device
        encode_dataset(self.name, self.dataset, self.output, self.download_folder, device, self.workers)


class DownloadWeights(Stage):
    """Download the published weights of a classifier.

    Needs internet access, so that the stages that use the weights do not.
    """

    command = "download-weights"
    outputs = {"weights": "{model}.safetensors"}
    product = "published weights"
    label = "{model}"

    model: Literal["eva02"] = "eva02"

    def run(self) -> None:
        """Download the weights, and write them."""
        from safetensors.torch import save

        from nfpi.classifiers.registry import published_weights

        write_atomically(self.get_path("weights"), save(published_weights(self.model)))


class Export(Stage):
    """Export an image set for other programs.

    Writes output/class/NNNNN.png into a new or an empty folder. The images may be real, generated or augmented.
    """

    command = "export"
    inputs = {"images": (META,)}
    replaces_folder = True

    images: Path
    """folder of the image set"""

    def run(self) -> None:
        """Read the image set, and write its files.

        Raises:
            ConfigError: the folder of the output contains something, which may not be ours to delete.
        """
        from nfpi.data.sources.imagefolder import export_imagefolder
        from nfpi.data.store import read_image_set

        if self.output.is_dir() and any(self.output.iterdir()):
            raise ConfigError(f"{self.output}: expected a new or an empty folder for --output, received one with files")
        export_imagefolder(read_image_set(self.images), self.output)
