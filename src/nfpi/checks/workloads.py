"""Workloads of a preset: its flows with their images, or random images of that shape if none are prepared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfpi.benchmark.work import LATENT_CHANNELS, REDUCTION, Images, get_pixel_shape
from nfpi.config import FLOWS, SOURCES, Config, Resolved, TrainingConfig
from nfpi.config.datasets import DatasetBlock
from nfpi.data.errors import DataError
from nfpi.data.image_files import GREY_MODES, read_image
from nfpi.data.sources.imagefolder import find_first_image, find_split_folders, list_classes
from nfpi.data.store import ImageSet, read_image_set
from nfpi.runs import SPLITS, Layout

_IMAGES = 4096
"""number of random images; more for a larger batch"""
_UNKNOWN_SIZE, _UNKNOWN_CLASSES = 32, 10
_MANY_CLASSES = 200
"""Number of classes above which the Gaussians affect the time and memory of a step."""


def compose_preparation(dataset: DatasetBlock) -> str:
    """Return the command that prepares a data set; those of latents are prepared by a rule of their own."""
    return f"snakemake all --until {'prepare_data' if dataset.vae is None else 'encode_data'}"


@dataclass(frozen=True, eq=False)
class Workload:
    """A flow that a preset trains on a data set.

    Attributes:
        dataset, flow: names of the data set and the flow in the preset.
        description: description of the flow, see :attr:`nfpi.flows.image_flow.ImageFlow.description`.
        training: training settings of the flow.
        images: training split of the data set, or random images.
        prepared: whether the images are those of the data set.
        sizes: sizes of the data set, as prepared or else as known from its source; None: not known.
        runs: number of times that the preset trains the flow on the data set.
    """

    dataset: str
    flow: str
    description: dict[str, Any]
    training: TrainingConfig
    images: ImageSet
    prepared: bool
    sizes: Images | None
    runs: int

    @property
    def name(self) -> str:
        """Names of the data set and the flow."""
        return f"{self.flow} on {self.dataset}"

    @property
    def count(self) -> int | None:
        """Number of training images; None: unknown."""
        return None if self.sizes is None else self.sizes.train

    @property
    def step(self) -> str:
        """Key of all that time and memory of a step depend on: flow, training, and whether there are many classes."""
        settings = {"batch_size", "optimizer", "gradient_clip", "precision", "compile"}
        training = self.training.model_dump(mode="json", include=settings)
        return json.dumps([self.description, training, self.images.num_classes > _MANY_CLASSES], sort_keys=True)

    @property
    def steps_per_epoch(self) -> int | None:
        """Number of batches per epoch; None: unknown."""
        return None if self.count is None else math.ceil(self.count / self.training.batch_size)


def find_workloads(resolved: Resolved, dataset: str | None = None, flow: str | None = None) -> list[Workload]:
    """Return one workload for each pair of a flow and a data set on which the tables of a preset train it.

    Args:
        resolved: settings.
        dataset, flow: only this data set, this flow; None: all.

    Raises:
        ValueError: the tables train no such flow.
    """
    found = [
        _make_workload(resolved, *pair)
        for pair in _list_pairs(resolved.config)
        if dataset in (None, pair[0]) and flow in (None, pair[1])
    ]
    if not found:
        known = ", ".join(f"{flow} on {dataset}" for dataset, flow in _list_pairs(resolved.config)) or "none"
        raise ValueError(
            f"preset {resolved.preset}: expected a flow that its tables train, received {flow or 'any flow'} on "
            f"{dataset or 'any data set'}; it has {known}"
        )
    return found


def read_prepared_images(resolved: Resolved, dataset: str, split: str = "train") -> ImageSet | None:
    """Return the images of a split of a data set; None if they are not prepared."""
    config = resolved.config
    splits = config.splits_of(dataset, config.seeds[0])
    layout = Layout(resolved.results / resolved.preset)
    folder = Path(layout.path(SPLITS, dataset=dataset, splits=splits)) / split
    return read_image_set(folder, verify=False) if folder.is_dir() else None


def make_random_images(
    shape: tuple[int, int, int], classes: int, count: int, name: str = "random", latents: bool = False
) -> ImageSet:
    """Return random 8-bit images, or latents of an autoencoder, each (C, H, W), labelled with each class in turn."""
    generator = np.random.default_rng(0)
    channels, height, width = shape
    size = (count, height, width, channels)
    extra: dict[str, Any] = {"flip": True}
    images: np.ndarray
    if latents:
        images = generator.standard_normal(size, np.float32).clip(-4, 4).astype(np.float16) / np.float16(4)
        extra |= {"spread": np.full(shape, 0.25).tolist(), "scale": 1.0}
    else:
        images = generator.integers(256, size=size, dtype=np.uint8)
    meta = {
        "name": name,
        "classes": [str(index) for index in range(classes)],
        "dtype": images.dtype.name,
        "extra": extra,
    }
    return ImageSet(images, np.arange(count) % classes, meta)


def _list_pairs(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the distinct pairs of data set and flow among the experiments that train a flow."""
    pairs = ((one.dataset, one.flow) for _, one in config.iterate_experiments() if one.prior is not None)
    yield from dict.fromkeys(pairs)


def _make_workload(resolved: Resolved, dataset: str, flow: str) -> Workload:
    config = resolved.config
    training = config.resolve_training(dataset, flow)
    block = config.datasets[dataset]
    images = read_prepared_images(resolved, dataset)
    prepared, sizes = images is not None, _find_sizes(resolved, dataset, images)
    if images is None:
        shape, classes = infer_shape(block)
        images = make_random_images(
            shape, classes, max(_IMAGES, 2 * training.batch_size), dataset, block.vae is not None
        )
    settings = config.for_dataset(dataset).flows[flow]
    description = {
        "kind": settings.kind,
        "shape": list(images.shape),
        "settings": FLOWS.extract_settings(settings).model_dump(mode="json"),
    }
    return Workload(dataset, flow, description, training, images, prepared, sizes, _count_runs(config, dataset, flow))


def _count_runs(config: Config, dataset: str, flow: str) -> int:
    """Count the trainings of a flow on a data set."""
    folders = set()
    for _, experiment in config.iterate_experiments():
        if (experiment.dataset, experiment.flow) == (dataset, flow) and experiment.prior is not None:
            for weight in experiment.weights:
                folders |= {config.run(dataset, flow, experiment.prior, weight, seed).folder for seed in config.seeds}
    return len(folders)


def infer_shape(block: DatasetBlock) -> tuple[tuple[int, int, int], int]:
    """Return (C, H, W) of a flow's input and the number of classes, before the data set is prepared."""
    traits = SOURCES[block.source].traits
    (channels, height, width), classes = _inspect_folder(block)
    side = traits.get("size") or block.image_size
    if side:
        height, width = side, side
    classes = traits.get("classes") or classes
    if block.vae is not None:
        return (LATENT_CHANNELS, height // REDUCTION, width // REDUCTION), classes
    return (traits.get("channels", channels), height, width), classes


def _inspect_folder(block: DatasetBlock) -> tuple[tuple[int, int, int], int]:
    """Return (C, H, W) of the first image of a folder of class folders, and their number; usual values if unknown."""
    shape, classes = (3, _UNKNOWN_SIZE, _UNKNOWN_SIZE), _UNKNOWN_CLASSES
    if block.folder is not None:
        with suppress(DataError, OSError):  # an archive, or no folder of images
            classes = len(list_classes(find_split_folders(block.folder)["train"]))
            image, mode = read_image(find_first_image(block.folder))
            shape = (1 if mode in GREY_MODES else 3, *image.shape[:2])
    return shape, classes


def _find_sizes(resolved: Resolved, dataset: str, train: ImageSet | None) -> Images | None:
    """Return the sizes of a data set, from its prepared training images (None: not prepared) or else from its source.

    If the validation or test split is missing, its size comes from the source. The result is None if nothing is
    prepared and the source does not declare its content.
    """
    block = resolved.config.datasets[dataset]
    declared = Images.of(block)
    if train is None:
        return declared if "images" in SOURCES[block.source].traits else None
    validation, test = (read_prepared_images(resolved, dataset, split) for split in ("validation", "test"))
    return Images(
        len(train),
        declared.validation if validation is None else len(validation),
        declared.test if test is None else len(test),
        train.num_classes,
        train.shape,
        get_pixel_shape(block, train.shape),
    )
