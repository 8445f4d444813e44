"""Commands that help to begin: a preset for the user's images, and the workflow."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic_settings import CliPositionalArg

from nfpi.config.base import NAME, NAME_RULE, ConfigError
from nfpi.config.datasets import SOURCES, DataError, DatasetConfig
from nfpi.config.flows import size_training
from nfpi.config.priors import DEFAULT_RELATIVE_WEIGHT
from nfpi.config.resolution import resolve
from nfpi.results.numbers import format_duration
from nfpi.runtime.files import write_atomically
from nfpi.runtime.location import CONFIG_FILE, find_workflow
from nfpi.stages.base import Command

if TYPE_CHECKING:
    import numpy as np

    from nfpi.data.sources.imagefolder import ImageFolder

_FRACTIONS = ((0.2, 0.1), (0.2, 0.2), (0.25, 0.25), (0.25, 0.333))
"""shares of the test and the validation images; the first with which all classes have images in all splits is taken"""
_PER_CLASS = 500
"""training images per class for a small flow"""
_CLASSIFIER_STEPS, _CLASSIFIER_EPOCHS = 300, 8
"""smallest numbers of steps and epochs of the ResNet18"""
_METRICS = ["relative_weight", "nf_acc", "top1", "bits_per_dim", "mismatch"]
"""columns of the table"""
_SMALL_JOBS = (
    *("start_flow", "fit_prior", "train_flow", "refit_prior", "evaluate", "generate", "train_classifier"),
    *("test_classifier", "figure"),
)
"""jobs to which one core each is given, as a small flow is hardly faster with more"""
_RELATIVE_WEIGHTS = [0, DEFAULT_RELATIVE_WEIGHT / 5, DEFAULT_RELATIVE_WEIGHT, 5 * DEFAULT_RELATIVE_WEIGHT]
"""s₀: none; one that small flows follow (docs/measurements.md); the default of `fit`; a large one"""
_LARGEST, _RESIZED, _MULTIPLE = 64, 32, 4
"""in pixels: the longest side of images that are not resized, the largest side to which others are resized, and a
divisor of all sides, since each level of the flow, of which there are at least two, halves them"""
_SHIFTED = 16
"""longest side, in pixels, of images that are only mirrored; larger ones are shifted by a pixel too, without which a
flow learns a few hundred images by heart"""
_ABOUT = """\
# {summary}: train {train}, validation {validation}, test {test}.
# A small flow of {levels} levels, each of which halves width and height of {width}×{height} pixels.
{remarks}
# config.yaml has all other settings, and explains each of them. Often changed here:
#   flip: false if mirroring changes the class of an image; image_size: images are resized and cropped to it;
#   train_per_class: without it, all images are used; fewer epochs need fewer warmup_steps, too;
#   relative_weights: strengths s₀ of the repulsion between classes, from which λ is computed. Take the one that is best
#   on validation images; for samples, a smaller one if its flow does not follow its Gaussians (a note below the table).
"""
_START = 8.0
"""seconds in which the jobs of a training start, and do what is not timed"""
_MOST_READ = 10_000
"""largest number of images, evenly spaced among all, that are read"""


class WritePreset(Command):
    """Write a preset for a folder of images of your own.

    Chooses settings by the number, size and classes of the images. Prints the command that makes the results.
    """

    command = "new"
    group = "prepare runs"

    folder: CliPositionalArg[Path]
    """train/ and test/ (or val/) with one folder per class, class folders alone, or a zip or tar archive of them"""
    output: Path | None = None
    """file of the preset, which must not exist; None: NAME.yaml in the working folder, where NAME is made from the name
    of the folder of images"""
    download_folder: Path = Path("results/downloads")
    """folder where an archive is unpacked"""
    skip_damaged: bool = False
    """whether images that cannot be read are named under `skip:` of the preset, instead of an error"""

    def run(self) -> None:
        """Inspect the images, write the preset, and print the command that makes its results.

        Raises:
            ConfigError: the preset exists or has no valid name.
            DataError: the folder is ill-formed, an image cannot be read, or a class has too few images.
        """
        from nfpi.data.sources.files import find_image_root
        from nfpi.data.sources.imagefolder import list_image_folder, warn_of_unread_folders

        name = _name_dataset(self.folder)
        output = self.output or Path(f"{name}.yaml")
        if output.exists():
            raise ConfigError(
                f"{output}: expected a file that does not exist, received one that does: choose another --output"
            )
        if output.suffix not in (".yaml", ".yml") or not re.fullmatch(NAME, output.stem):
            raise ConfigError(f"{output}: expected a yaml file with {NAME_RULE}, received '{output.name}'")
        root = find_image_root(self.folder, self.download_folder)
        files = list_image_folder(root)
        warn_of_unread_folders(files)
        images, damaged = _inspect(files)
        if damaged and not (self.skip_damaged and images.sizes):
            fault, hint = next(iter(damaged.values())), "; --skip-damaged leaves them out" if images.sizes else ""
            names = ", ".join(damaged)
            raise DataError(f"{root}: {len(damaged)} images cannot be used: {names} (first: {fault}){hint}")
        if damaged:
            images = replace(images, folder=list_image_folder(root, damaged), skip=tuple(damaged))
        text, remarks, train = _compose(name, self.folder.resolve(), images)
        write_atomically(output, text)
        remarks.append(_estimate_time(output, name, images, train))
        print(f"{output}: {images.summary}", *remarks, sep="\n")
        print(f"run: nfpi run all --config preset={shlex.quote(str(output))}")


@dataclass(frozen=True)
class _Images:
    """Properties of the images that the preset depends on.

    Args:
        folder: the image files.
        sizes: (H, W) of the images.
        grey: whether the images are greyscale.
        skip: names of damaged files.
    """

    folder: ImageFolder
    sizes: set[tuple[int, int]]
    grey: bool
    skip: tuple[str, ...] = ()

    @property
    def image_size(self) -> int | None:
        """Side that images are resized to; None: they are used unchanged."""
        sides = [side for size in self.sizes for side in size]
        if len(self.sizes) == 1 and max(sides) <= _LARGEST and all(side % _MULTIPLE == 0 for side in sides):
            return None
        return max(min(*sides, _RESIZED) // _MULTIPLE, 1) * _MULTIPLE

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the flow's input."""
        side = self.image_size
        return (side, side) if side is not None else next(iter(self.sizes))

    @property
    def levels(self) -> int:
        """Levels of the flow, each halving both sides: 3, as in the paper, for multiples of 8 that are ≥ 32, else 2."""
        return 3 if min(self.shape) >= 32 and all(side % 8 == 0 for side in self.shape) else 2

    @property
    def per_class(self) -> np.ndarray:
        """Number of images per class in all splits, (K,)."""
        import numpy as np

        labels = np.concatenate(list(self.folder.labels.values()))
        return np.bincount(labels, minlength=len(self.folder.classes))

    @property
    def summary(self) -> str:
        counts = self.per_class
        span = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        size = "several sizes" if len(self.sizes) > 1 else "{1}×{0} pixels".format(*next(iter(self.sizes)))
        colour = "grey" if self.grey else "colour"
        return f"{len(counts)} classes of {span} images, {counts.sum()} in all, of {size}, in {colour}"


def _name_dataset(folder: Path) -> str:
    """Name the data set after the folder, with invalid characters replaced, distinct from built-in data sets."""
    stem = folder.name if folder.name not in ("", "..") else folder.resolve().name
    if folder.is_file():
        stem = stem.partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", stem).strip("-_.+") or "images"
    return f"{name}-images" if name in SOURCES else name


def _inspect(folder: ImageFolder) -> tuple[_Images, dict[str, str]]:
    """Read the images; return their properties, and by name what is wrong with those that cannot be used."""
    from concurrent.futures import ThreadPoolExecutor

    from nfpi.data.image_files import GREY_MODES, read_image

    def read(name: str) -> tuple[tuple[int, ...], str] | str:
        try:
            image, mode = read_image(folder.root / name)
        except DataError as fault:
            return str(fault)
        return image.shape[:2], mode

    names = [name for some in folder.names.values() for name in some]
    chosen = names[:: -(-len(names) // _MOST_READ)]
    with ThreadPoolExecutor() as pool:
        found = dict(zip(chosen, pool.map(read, chosen), strict=True))
    damaged = {name: fault for name, fault in found.items() if isinstance(fault, str)}
    read_ones = [properties for properties in found.values() if not isinstance(properties, str)]
    sizes = {(height, width) for (height, width), _ in read_ones}
    return _Images(folder, sizes, {mode for _, mode in read_ones} <= set(GREY_MODES)), damaged


def _estimate_time(preset: Path, dataset: str, images: _Images, train: int) -> str:
    """Describe the time of all jobs of a preset with `train` training images, by timing steps of each training."""
    import torch

    from nfpi.checks.batches import Subject
    from nfpi.checks.work import Images, list_work
    from nfpi.runtime.device import make_device

    file = find_workflow() / CONFIG_FILE
    config = resolve(file, file.parent / "presets", {"preset": str(preset)}).config
    torch.set_num_threads(1)  # as in a job of the preset
    device = make_device().device
    sizes = Images(train, len(images.folder.classes), (1 if images.grey else 3, *images.shape))
    subject = Subject(config, device, list_work(config, {dataset: sizes}), {dataset: sizes})
    seconds = sum(
        work.steps * found.seconds + _START * work.trainings
        for work in subject.work
        if not (found := subject.measure(work)).fault
    )
    flows = sum(work.trainings for work in subject.work if work.stage == "train_flow")
    where = "one core" if device.type == "cpu" else "this GPU"
    return f"{flows} flows and a ResNet18: about {format_duration(seconds)} on {where}, by a few steps that were timed"


def _compose(name: str, folder: Path, images: _Images) -> tuple[str, list[str], int]:
    """Compose the text of the preset, and describe the steps of its trainings and what its splits are too small for.

    Returns:
        The text, the remarks, and the number of training images.
    """
    from nfpi.results.statistics.intervals import FEW_IMAGES, describe_few_images

    (height, width), levels = images.shape, images.levels
    num_classes = len(images.folder.classes)
    dataset: dict[str, Any] = {"source": "imagefolder", "folder": str(folder)}
    dataset |= {"flip": True, "classes": num_classes, "shape": [height, width, 1 if images.grey else 3]}
    if images.skip:
        dataset["skip"] = list(images.skip)
    if images.image_size:
        dataset["image_size"] = images.image_size
    counts = _choose_fractions(name, dataset, images.folder)
    if counts["train"].max() > _PER_CLASS:
        dataset["train_per_class"] = _PER_CLASS
        counts = _count_images(name, dataset, images.folder)
    splits = {split: int(count.sum()) for split, count in counts.items()}
    training = size_training(splits["train"])
    epochs, batch_size = training["epochs"], training["batch_size"]
    steps = epochs * math.ceil(splits["train"] / batch_size)
    remarks = [f"training of each flow: {steps} steps ({epochs} epochs in batches of {batch_size})"]
    remarks += [describe_few_images(splits["validation"])] if splits["validation"] < FEW_IMAGES else []
    classifier = _size_classifier(splits["train"]) | {"standard": {"crop_padding": min(height, width) // 8}}
    flows = {"label": "flow", "dataset": name, "prior": "fpi", "relative_weights": _RELATIVE_WEIGHTS}
    others = {
        "linear discriminant of the pixels": {"classifier": "lda", "augmentation": "none"},
        "Gaussians of the pixels (QDA)": {"classifier": "qda", "augmentation": "none"},
        "ResNet18 on the images": {"classifier": "resnet18_real", "augmentation": "standard"},
    }
    if height != width:  # the discriminants are of square images
        others = {label: other for label, other in others.items() if other["classifier"] == "resnet18_real"}
    experiments: list[dict[str, Any]] = [{**flows, "classifier": None}]
    experiments += [{"label": label, "dataset": name, "prior": None, **other} for label, other in others.items()]
    title = f"Accuracy against the weight λ, {name}"
    preset = {
        "seeds": [0],
        "datasets": {name: dataset},
        "flows": {
            "mef": {"num_flows": [4] * levels, "num_blocks": [2, 1, 1][:levels], "hidden_channels": [48] * levels}
        },
        "training": training | {"augmentation": "shift" if max(height, width) > _SHIFTED else "flip"},
        "classifiers": {"resnet18_real": classifier},
        "tables": {"table2": {"title": title, "metrics": _METRICS, "experiments": experiments}},
        "figures": {
            "accuracy_against_weight": {"table": "table2"},
            "samples_by_weight": {"dataset": name, "relative_weights": [*_RELATIVE_WEIGHTS], "refits": [None]},
        },
        "resources": {job: {"threads": 1} for job in _SMALL_JOBS},
    }
    lines = "\n".join(f"# {remark[0].upper()}{remark[1:]}." for remark in remarks)
    about = _ABOUT.format(summary=images.summary, levels=levels, remarks=lines, width=width, height=height, **splits)
    text: str = yaml.safe_dump(preset, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return about + text, remarks, splits["train"]


def _size_classifier(num_images: int) -> dict[str, Any]:
    """Return the batch size and the number of epochs of a ResNet18 on as many images."""
    batch_size = 100 if num_images >= _CLASSIFIER_STEPS * 100 // _CLASSIFIER_EPOCHS else 32
    steps = math.ceil(num_images / batch_size)
    return {"epochs": max(_CLASSIFIER_EPOCHS, math.ceil(_CLASSIFIER_STEPS / steps)), "batch_size": batch_size}


def _choose_fractions(name: str, dataset: dict[str, Any], folder: ImageFolder) -> dict[str, np.ndarray]:
    """Choose the fractions of the splits, add them to the settings, and count the images per class, (K,), of each.

    Raises:
        DataError: a class has too few images for any choice.
    """
    import numpy as np

    for test, validation in _FRACTIONS:
        dataset |= {"test_fraction": test, "validation_fraction": validation}
        with suppress(DataError):
            return _count_images(name, dataset, folder)
    labels, needed = folder.labels["train"], 2 + ("test" not in folder.labels) + ("validation" not in folder.labels)
    counts = np.bincount(labels, minlength=len(folder.classes))
    few = [f"{folder.classes[index]} ({counts[index]})" for index in np.argsort(counts)[:3]]
    raise DataError(
        f"{folder.root}: expected at least {needed} images of each class to train with, so that all splits have some, "
        f"received fewest of {', '.join(few)}: add images, or merge or remove these folders"
    )


def _count_images(name: str, dataset: Mapping[str, Any], folder: ImageFolder) -> dict[str, np.ndarray]:
    """Count the images per class, (K,), of each split."""
    import numpy as np

    from nfpi.data.prepare import assign_splits

    assigned = assign_splits(name, DatasetConfig.model_validate(dataset), folder.labels, folder.classes)
    return {
        split: np.bincount(folder.labels[origin][indices], minlength=len(folder.classes))
        for split, (origin, indices) in assigned.items()
    }


class RunWorkflow(Command):
    """Run Snakemake in this folder with the workflow of nfpi: `nfpi run table2`.

    All arguments are those of `snakemake`; `--profile slurm` finds nfpi's profiles. In a clone, it is the clone's
    workflow.
    """

    command = "run"
    group = "prepare runs"

    def run(self) -> None:
        """Raise ConfigError: :func:`nfpi.cli.main` hands over to Snakemake if `run` is the first word."""
        raise ConfigError("run: expected as the first word, `nfpi run TARGET`, received options before it")
