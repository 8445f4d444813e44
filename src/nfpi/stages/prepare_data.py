"""Stages that prepare image sets and published weights, and that export image sets for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from nfpi.config.base import EXECUTION, ConfigError, Name, PositiveInt, Split
from nfpi.config.datasets import SOURCES, DatasetConfig
from nfpi.runs import IMAGE_SET_FILES, SPLITS, Run
from nfpi.runtime.chains import Chain
from nfpi.runtime.files import write_atomically
from nfpi.runtime.manifests import read_inputs
from nfpi.stages.base import Stage
from nfpi.stages.jobs import Job, Need, Needs, Planned, Wildcards

META = IMAGE_SET_FILES["meta"]
"""file of an image set with the digests of its other files"""
_SPLITS: tuple[Split, ...] = get_args(Split)
_SPLIT_OUTPUTS = {f"{split}_{name}": f"{split}/{file}" for split in _SPLITS for name, file in IMAGE_SET_FILES.items()}


def list_meta_files(*splits: str) -> tuple[str, ...]:
    """Return the path of each split's meta.json, whose digests verify the split's other files."""
    return tuple(f"{split}/{META}" for split in splits)


class PrepareData(Stage):
    """Write the splits of a data set in the on-disk format.

    Downloads CIFAR-10, CIFAR-100 and Fashion-MNIST unless a folder is given.
    """

    command = "prepare-data"
    places = (SPLITS,)
    outputs = _SPLIT_OUTPUTS
    product = "data"
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
        downloads = planned.root.parent / "downloads"
        return super().select_options(planned, wildcards) | {"dataset": dataset, "download_folder": downloads}

    @classmethod
    def makes(cls, planned: Planned, wildcards: Wildcards) -> bool:
        """Return whether the splits of this data set are made in this way."""
        return job_of_splits(planned, wildcards["dataset"], wildcards["splits"]).stage is cls

    def list_path_options(self, needs: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the words of the command line that name the inputs, if any, and the folder of downloads."""
        return [*super().list_path_options(needs), "--download-folder", self.download_folder.as_posix()]

    def list_sources(self) -> dict[str, Path]:
        """Return the folder or archive of images, unless published digests verify it, and that of the autoencoder."""
        if self.dataset.folder is None:  # it is downloaded, or prepare-data says that it is missing
            return {}
        is_published = SOURCES[self.dataset.source].traits.get("published", False)
        folders = {"folder": None if is_published else self.dataset.folder, "vae": self.dataset.vae}
        return {name: folder for name, folder in folders.items() if folder is not None}

    def digest_source(self, name: str, downloads: Path | None = None) -> str:
        """Return the digest of names and contents of the images, or of the files of the autoencoder."""
        from nfpi.data.sources.files import list_autoencoder, list_source  # imports NumPy

        folder = self.list_sources()[name]
        skip = self.dataset.skip or ()
        files = list_source(self.dataset.source, folder, skip) if name == "folder" else list_autoencoder(folder)
        return files.compute_digest(downloads or self.download_folder)

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
        from nfpi.data.autoencoder import encode_dataset
        from nfpi.runtime.device import make_device

        device = make_device().device
        encode_dataset(self.name, self.dataset, self.output, self.download_folder, device, self.workers)


class ExtractFeatures(PrepareData):
    """Make a data set of vectors: the features of a trained classifier for the images of another data set.

    For data sets with `features`. The splits are those of the images, of which the classifier has seen the same ones.
    """

    command = "extract-features"
    inputs = {"data": list_meta_files(*_SPLITS), "classifier": ("model.safetensors",)}
    apart = ("data", "classifier")  # what is made of features is not compared with the images

    data: Path
    """folder of the splits of the images"""
    classifier: Path
    """folder of the trained classifier"""

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits of the images, and the classifier."""
        from nfpi.stages.train_classifier import TrainClassifier  # which needs this module

        of, seed = self.dataset.features, self.dataset.split_seed
        assert of is not None
        data, trained_on = need_splits(planned, of.dataset, str(seed)), of.trained_on or of.dataset
        run = Run(dataset=trained_on, seed=seed, classifier=of.classifier, augmentation=of.augmentation)
        return {"data": [data], "classifier": [Need(Job.of(TrainClassifier, run.wildcards))]}

    def run(self) -> None:
        """Compute the features of the three splits, and write them.

        Raises:
            ManifestError: the classifier was trained on other splits of these images.
        """
        from nfpi.classifiers.scoring import LoadedClassifier
        from nfpi.data.prepare import SourceImages, write_splits
        from nfpi.data.store import read_image_set
        from nfpi.runtime.device import make_device

        if self.dataset.features is None or self.dataset.features.trained_on is None:
            Chain().check_together(read_inputs(self.list_inputs(), self.output), self.output)
        classifier = LoadedClassifier.read(self.classifier / "model.safetensors", make_device().device)
        sets = {split: read_image_set(self.data / split) for split in _SPLITS}
        images = {split: some for split, some in sets.items() if len(some)}
        found = {split: (classifier.extract_features(some).numpy(), some.labels) for split, some in images.items()}
        vectors = {split: (features[:, None, None], labels) for split, (features, labels) in found.items()}
        dataset = self.dataset.model_copy(update={"refit": "validation" not in images})
        write_splits(self.name, dataset, SourceImages(images["train"].classes, vectors), self.output)


def job_of_splits(planned: Planned, dataset: str, splits: str) -> Job:
    """Return the job that makes the splits of a data set."""
    settings = planned.config.datasets[dataset]
    stage = EncodeData if settings.vae is not None else PrepareData if settings.features is None else ExtractFeatures
    return Job.of(stage, {"dataset": dataset, "splits": splits})


def need_splits(planned: Planned, dataset: str, seed: str) -> Need:
    """Return what a job reads that reads the splits of a data set for the runs of a seed."""
    return Need(job_of_splits(planned, dataset, planned.config.splits_of(dataset, int(seed))))


class DownloadWeights(Stage):
    """Download the published weights of a classifier.

    Needs internet access, so that the stages that use the weights do not.
    """

    command = "download-weights"
    places = ("../downloads",)
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
    group = "look at results"
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
