"""Commands that help to write settings: a preset for the user's images, and the schema for editors."""

from __future__ import annotations

import json
import math
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic_settings import CliPositionalArg

from nfpi.config import SOURCES, ConfigError, DatasetConfig, build_json_schema, list_built_in_presets
from nfpi.config.base import NAME, NAME_RULE
from nfpi.data.sources.archive import find_image_root
from nfpi.runtime.files import write_atomically
from nfpi.stages.base import Command, Stage

if TYPE_CHECKING:
    import numpy as np

    from nfpi.data.sources.imagefolder import ImageFolder

_VALIDATION = 0.1
_PER_CLASS = 500
"""training images per class for a small flow"""
_BATCH, _STEPS, _EPOCHS = 128, 1000, (10, 100)
"""batch size, steps of a training, and the limits of its epochs"""
_LARGEST, _RESIZED, _MULTIPLE = 64, 32, 4
"""in pixels: the longest side of images that are not resized, the largest side to which others are resized, and a
divisor of all sides, since each level of the flow, of which there are at least two, halves them"""
_MEANING = {
    "train_per_class": " # without this line, all are used",
    "image_size": " # pixels; images are resized and cropped",
    "flip": " # false if mirroring changes the class of an image",
}
_MOST_SIZES = 10_000
"""largest number of images, evenly spaced among all, whose size is read"""


class WritePreset(Command):
    """Write a preset for a folder of images of your own.

    Chooses settings by the number, size and classes of the images. Prints the command that makes the table.
    """

    command = "new"

    folder: CliPositionalArg[Path]
    """train/ and test/ (or val/) with one folder per class, class folders alone, or a zip or tar archive of them"""
    output: Path | None = None
    """file of the preset, which must not exist; None: NAME.yaml in presets/ or, without such a folder, in the
    working folder; NAME is made from the name of the folder of images"""
    download_folder: Path = Path("results/downloads")
    """folder where an archive is unpacked"""

    def run(self) -> None:
        """Inspect the images, write the preset, and print the command that makes its table.

        Raises:
            ConfigError: the preset exists or has no valid name, or the folder's path is not UTF-8, or has a variable or
                a tilde to expand.
            DataError: the folder is ill-formed, an image cannot be read, or a class has too few images.
        """
        from nfpi.data.sources.imagefolder import list_image_folder, warn_of_other_folders, warn_of_unread_folders

        name = _name_dataset(self.folder)
        presets = Path("presets")
        output = self.output or (presets if presets.is_dir() else Path()) / f"{name}.yaml"
        if output.exists():
            raise ConfigError(
                f"{output}: expected a file that does not exist, received one that does: choose another --output"
            )
        if output.suffix not in (".yaml", ".yml") or not re.fullmatch(NAME, output.stem):
            raise ConfigError(f"{output}: expected a yaml file with {NAME_RULE}, received '{output.name}'")
        if output.stem in list_built_in_presets(presets):
            raise ConfigError(
                f"{output}: expected another name than those of the project's presets, received '{output.stem}': "
                "choose another --output"
            )
        files = list_image_folder(find_image_root(self.folder, self.download_folder))
        warn_of_other_folders(files)
        warn_of_unread_folders(files.root, files.unread)
        images = _inspect(files)
        text = _compose(name, self.folder.resolve(), images)
        try:
            content = text.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{self.folder}: expected a path in UTF-8: rename the folder") from None
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("xb") as file:
            file.write(content)
        print(f"{output}: {images.summary}")
        print(_describe_command(output, presets))


@dataclass(frozen=True)
class _Images:
    """Properties of the images that the preset depends on.

    Args:
        folder: the image files.
        size: (H, W) of all images; None: sizes differ.
        smallest: length of the shortest side.
        grey: whether the first training image of every class is greyscale.
    """

    folder: ImageFolder
    size: tuple[int, int] | None
    smallest: int
    grey: bool

    @property
    def image_size(self) -> int | None:
        """Side that images are resized to; None: they are used unchanged."""
        if self.size and max(self.size) <= _LARGEST and all(side % _MULTIPLE == 0 for side in self.size):
            return None
        return max(min(self.smallest, _RESIZED) // _MULTIPLE, 1) * _MULTIPLE

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the flow's input."""
        side = self.image_size
        return (side, side) if side or not self.size else self.size  # type: ignore[return-value]

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
        size = "of several sizes" if self.size is None else f"of {self.size[1]}×{self.size[0]} pixels"
        colour = "grey" if self.grey else "colour"
        return f"{len(counts)} classes of {span} images, {counts.sum()} in all, {size}, in {colour}"


def _name_dataset(folder: Path) -> str:
    """Name the data set after the folder, with invalid characters replaced, distinct from built-in data sets."""
    stem = folder.name if folder.name not in ("", "..") else folder.resolve().name
    if folder.is_file():
        stem = stem.partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", stem).strip("-_.+") or "images"
    return f"{name}-images" if name in SOURCES else name


def _describe_command(output: Path, presets: Path) -> str:
    """Return the command that makes the table, and where to run it if the working folder is not a clone."""
    where, preset = "run", str(output)
    if not Path("Snakefile").is_file():
        where, preset = "run at the root of a clone of the project", str(output.resolve())
    elif output.parent.resolve() == presets.resolve() and output.suffix == ".yaml" and _is_read_as_text(output.stem):
        preset = output.stem
    return f"{where}: snakemake table2 --config preset={shlex.quote(preset)}"


def _is_read_as_text(name: str) -> bool:
    """Return whether `NAME` in `--config preset=NAME` stays text, unlike numbers, True, False and null."""
    with suppress(ValueError):
        float(name)
        return False
    return name not in ("True", "False", "null")


def _inspect(folder: ImageFolder) -> _Images:
    import numpy as np

    from nfpi.data.image_files import GREY_MODES, read_image, read_image_size

    names = [name for some in folder.names.values() for name in some]
    sizes = {read_image_size(folder.root / name) for name in names[:: -(-len(names) // _MOST_SIZES)]}
    firsts = np.unique(folder.labels["train"], return_index=True)[1]
    grey = all(read_image(folder.root / folder.names["train"][index])[1] in GREY_MODES for index in firsts)
    return _Images(folder, next(iter(sizes)) if len(sizes) == 1 else None, min(min(size) for size in sizes), grey)


def _compose(name: str, folder: Path, images: _Images) -> str:
    """Compose the text of the preset."""
    dataset: dict[str, Any] = {"folder": str(folder), "validation_fraction": _VALIDATION}
    if images.image_size:
        dataset["image_size"] = images.image_size
    dataset["flip"] = True
    config = DatasetConfig.model_validate({"source": "imagefolder", **dataset})
    if config.folder != folder:
        raise ConfigError(
            f"{folder}: expected a path without variables or tilde, received one that expands to {config.folder}"
        )
    counts = _count_images(name, config, images.folder)
    if counts["train"].max() > _PER_CLASS:
        dataset["train_per_class"] = _PER_CLASS
        counts = _count_images(name, config.model_copy(update={"train_per_class": _PER_CLASS}), images.folder)
    splits = {split: count.sum() for split, count in counts.items()}
    steps = -(-splits["train"] // _BATCH)
    epochs = min(max(_STEPS // steps, _EPOCHS[0]), _EPOCHS[1])
    height, width = images.shape
    weights = _choose_weights(len(images.folder.classes), height * width * (1 if images.grey else 3))
    levels, key = images.levels, _quote_key(name)
    lines = [
        f"# {images.summary}: train {splits['train']}, validation {splits['validation']}, test {splits['test']}.",
        "# A small flow. config.yaml has all other settings, and explains each of them.",
        "",
        "seeds: [0]",
        "datasets:",
        f"  {key}:",
        "    source: imagefolder",
        *(
            f"    {setting}: {json.dumps(value, ensure_ascii=False)}{_MEANING.get(setting, '')}"
            for setting, value in dataset.items()
        ),
        f"flows: # {levels} levels, each of which halves width and height of {width}×{height} pixels",
        f"  mef: {{num_flows: {[4] * levels}, num_blocks: {[2, 1, 1][:levels]}, hidden_channels: {[48] * levels}}}",
        f"training: {{epochs: {epochs}, batch_size: {_BATCH}, warmup_steps: {min(100, epochs * steps // 10)}, "
        "augmentation: flip}"
        " # fewer epochs: also fewer warmup_steps",
        f"generation: {{temperatures: [0.7, 1.0], per_class: {_PER_CLASS}}}",
        f"classifiers: {{resnet18: {{epochs: 5, standard: {{crop_padding: {min(height, width) // 8}}}}}}}",
        "tables:",
        "  table2:",
        f"    title: Accuracy against the weight λ, {name}",
        "    metrics: [nf_acc, cnn_acc]",
        f"    experiments: [{{dataset: {key}, prior: fpi, lambdas: [0, {', '.join(weights)}], classifier: resnet18}}]",
        "figures:",
        "  accuracy_against_weight: {table: table2}",
        f"  samples: {{dataset: {key}, lambda: {weights[1]}}}",
    ]
    return "\n".join(lines) + "\n"


def _count_images(name: str, config: DatasetConfig, folder: ImageFolder) -> dict[str, np.ndarray]:
    """Count the images per class, (K,), of each split."""
    import numpy as np

    from nfpi.data.prepare import assign_splits

    assigned = assign_splits(name, config, folder.labels, folder.classes)
    return {
        split: np.bincount(folder.labels[origin][indices], minlength=len(folder.classes))
        for split, (origin, indices) in assigned.items()
    }


def _quote_key(name: str) -> str:
    """Quote the name of a data set, unless YAML reads it as this string anyway."""
    with suppress(ValueError):  # a name that looks like a date but is none, such as 2024-02-30
        if yaml.safe_load(name) == name:
            return name
    return json.dumps(name)


def _choose_weights(classes: int, dimensions: int) -> list[str]:
    """Choose three consecutive λ of 1, 3, 10, 30, …, the largest of them the nearest to 10 K D on a logarithmic scale.

    The best λ of digits, CIFAR10 and CIFAR100 are near it. With few classes or few images per class, the fit of the
    largest may diverge; its row of the table then says so.
    """
    largest = round(2 * math.log10(10 * classes * dimensions))
    return [f"{(1, 3)[step % 2]}e{step // 2}" for step in (largest - 2, largest - 1, largest)]


class WriteSchema(Stage):
    """Write the JSON schema of config.yaml, for editors."""

    command = "schema"
    outputs = {"schema": "config.schema.json"}

    def run(self) -> None:
        """Write the schema of config.yaml and presets."""
        schema = build_json_schema()
        write_atomically(self.get_path("schema"), json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
