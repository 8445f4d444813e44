"""Data sets from their sources: registration of sources, the images that they return, and the three sets on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from nfpi.config.base import Split, suggest
from nfpi.config.datasets import SOURCES, DataError, DatasetConfig
from nfpi.data.store import MAY_BE_EMPTY, check_labels
from nfpi.data.writer import replace_folder, write_image_set

FEWEST_PER_CLASS: dict[Split, int] = {"train": 2, "validation": 1, "test": 1}
"""minimum number of images per class in each split; a variance needs two"""
OUTPUTS = get_args(Split)
"""contents of the folder of the splits"""
SEED_FOLDERS = "seed=*"
"""pattern of the subfolders with the splits of single seeds (`split_seed: per_seed`)"""

Assignment = dict[Split, tuple[Split, np.ndarray]]
"""For each split, the split of the source that it is taken from, and sorted indices into the latter."""


# ---- sources --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SourceImages:
    """A data set with the splits of its source.

    Args:
        classes: names of the K classes.
        splits: images (N, H, W, C), uint8, all of one shape (H, W, C), or vectors (N, 1, 1, D), float32; and labels
            (N,), integers in [0, K), of each split: "train", and "test" and "validation" if the source has them.
        file_names: of image files, their paths relative to the folder, N of each split; empty for other sources.

    Raises:
        DataError: names of classes or splits, images or labels are not of this form.
    """

    classes: list[str]
    splits: dict[Split, tuple[np.ndarray, np.ndarray]]
    file_names: dict[Split, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = list(self.classes)  # they may come as a NumPy array or a tuple
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise DataError(f"source: classes: expected distinct names as text, received {names}")
        object.__setattr__(self, "classes", list(map(str, names)))
        for split, (images, labels) in self.splits.items():
            if split not in get_args(Split):
                raise DataError(f"source: splits: unknown split '{split}'{suggest(str(split), get_args(Split))}")
            is_vector = images.dtype == np.float32 and images.shape[1:3] == (1, 1)
            if images.ndim != 4 or not (is_vector or (images.shape[3] in (1, 3) and images.dtype == np.uint8)):
                received = f"{images.shape} of {images.dtype}"
                raise DataError(
                    f"source: {split}: expected images (N, H, W, C) of uint8, C = 1 or 3, received {received}"
                )
            if labels.shape != images.shape[:1]:
                raise DataError(f"source: {split}: expected {len(images)} labels, received {labels.shape}")
            check_labels(f"source: {split}", labels, len(names))

    def keep_classes(self, names: Sequence[str]) -> SourceImages:
        """Return the images of some classes, in the order of the source.

        Raises:
            DataError: there is no such class.
        """
        kept, new_labels = choose_classes(names, self.classes)
        splits: dict[Split, tuple[np.ndarray, np.ndarray]] = {}
        file_names: dict[Split, list[str]] = {}
        for split, (images, labels) in self.splits.items():
            chosen = np.flatnonzero(new_labels[labels] >= 0)
            splits[split] = images[chosen], new_labels[labels[chosen]]
            if split in self.file_names:
                file_names[split] = [self.file_names[split][index] for index in chosen]
        return SourceImages(kept, splits, file_names)


def choose_classes(names: Sequence[str], classes: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the names in the order of all classes, and the new label of each class, −1 if it is left out.

    Raises:
        DataError: there is no such class.
    """
    for name in names:
        if name not in classes:
            raise DataError(f"only_classes: unknown class '{name}'{suggest(name, classes)}")
    kept = sorted(names, key=classes.index)
    return kept, np.array([kept.index(name) if name in kept else -1 for name in classes])


Loader = Callable[[DatasetConfig, Path], SourceImages]
"""Function that reads a data set into memory: (config, download_folder) → images."""


def register_source(name: str) -> Callable[[Loader], Loader]:
    """Register a function (config, download_folder) as the source `name`, selected by `source:` in config.yaml.

    Raises:
        ConfigError: the name is taken; or the function has other arguments.

    Examples:
        >>> @register_source("noise")
        ... def load_noise(config, download_folder):
        ...     images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), np.uint8)
        ...     return SourceImages(["even", "odd"], {"train": (images, np.arange(100) % 2)})
    """

    def register(load: Loader) -> Loader:
        SOURCES.register(name, DatasetConfig, load)
        return load

    return register


def load_source(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Read a data set into memory.

    Args:
        config: settings of the data set.
        download_folder: folder of downloads and unpacked archives, used if `config.folder` is None or an archive.

    Raises:
        DataError: files are missing or damaged, or could not be downloaded, or `only_classes` names an unknown class.
    """
    images = SOURCES[config.source].build(config, download_folder)
    if not isinstance(images, SourceImages) or "train" not in images.splits:
        received = f"splits {list(images.splits)}" if isinstance(images, SourceImages) else type(images).__name__
        raise DataError(f"source '{config.source}': expected SourceImages with a split 'train', received {received}")
    return images if config.only_classes is None else images.keep_classes(config.only_classes)


# ---- splits ---------------------------------------------------------------------------------------------------------


def prepare_dataset(name: str, config: DatasetConfig, output: Path, download_folder: Path) -> None:
    """Write `output`/{train,validation,test}, either all or none, as :func:`assign_splits` assigns the images.

    Args:
        name: name of the data set.
        config: settings of the data set.
        output: folder of the three sets; existing ones are replaced.
        download_folder: folder of downloads.

    Raises:
        DataError: the source cannot be read, or a class has too few images in a split.
    """
    write_splits(name, config, load_source(config, download_folder), output)


def write_splits(name: str, config: DatasetConfig, source: SourceImages, output: Path) -> None:
    """Write the three sets of images that are in memory, see :func:`prepare_dataset`."""
    _check_expected(name, config, source)
    assigned = assign_splits(name, config, {split: y for split, (_, y) in source.splits.items()}, source.classes)
    settings = make_extra(config, assigned)
    origin, chosen = assigned["train"]
    if source.splits[origin][0].dtype == np.float32:
        from nfpi.data.domain import describe_elements  # imports torch

        settings |= describe_elements(source.splits[origin][0][chosen], may_be_constant=bool(config.features))
    with replace_folder(output, OUTPUTS, kept=SEED_FOLDERS) as partial:
        for split, (origin, chosen) in assigned.items():
            images, labels = (array[chosen] for array in source.splits[origin])
            names = source.file_names.get(origin)
            originals = None if names is None else [names[index] for index in chosen]
            of_split = {"name": name, "split": split, "originals": originals}
            write_image_set(partial / split, images, labels, source.classes, **of_split, **settings)


def _check_expected(name: str, config: DatasetConfig, source: SourceImages) -> None:
    """Raise DataError if the settings `classes` and `shape`, which determine λ, are not those of the images."""
    found = {"classes": len(source.classes), "shape": source.splits["train"][0].shape[1:]}
    for key, expected in {"classes": config.num_classes, "shape": config.shape}.items():
        if expected not in (None, found[key]):
            raise DataError(f"datasets.{name}.{key}: expected {expected}, received {found[key]}: correct the setting")


def make_extra(config: DatasetConfig, assigned: Assignment) -> dict[str, Any]:
    """Make `extra` of `meta.json`: settings, and `held_out`, the share held out for each split the source lacks."""
    held_out = {split: share for split, share in _get_held_out_shares(config).items() if assigned[split][0] == "train"}
    return {**config.model_dump(include={"source", "split_seed", "flip", "refit"}), "held_out": held_out}


def _get_held_out_shares(config: DatasetConfig) -> dict[Split, float]:
    """Return the share of training images to hold out for each split, if the source lacks it; the test set first."""
    shares: dict[Split, float] = {"test": config.test_fraction}
    return shares if config.refit else shares | {"validation": config.validation_fraction}


def assign_splits(
    name: str, config: DatasetConfig, labels: Mapping[Split, np.ndarray], classes: list[str]
) -> Assignment:
    """Assign the images of a source to train, validation and test.

    Splits that the source lacks are held out of its training images, stratified and seeded by `split_seed`: first the
    test set, then the validation set, which is empty with `refit`. Then the limits per class are applied by a random
    choice with the same seed. Images keep the order of the source within each split.

    Args:
        name: name of the data set.
        config: fractions, limits and seed.
        labels: labels (N,) of each split of the source.
        classes: names of the K classes.

    Raises:
        DataError: a class has too few images in a split, or `refit` is set and the source has a validation split.
    """
    if config.refit and "validation" in labels:
        raise DataError(
            f"{name}: refit: expected a source without a validation split, received {len(labels['validation'])} "
            "validation images (move them to its training images)"
        )
    splits: Assignment = {split: (split, np.arange(len(some))) for split, some in labels.items()}
    for split, fraction in _get_held_out_shares(config).items():
        if split not in splits:
            train = splits["train"][1]
            where = f"{name}: {split}_fraction"
            kept, held_out = hold_out(where, labels["train"][train], fraction, config.split_seed)
            splits["train"], splits[split] = ("train", train[kept]), ("train", train[held_out])
    if config.refit:
        splits[MAY_BE_EMPTY] = ("train", np.empty(0, np.int64))
    limits: dict[Split, int | None] = {"train": config.train_per_class, "test": config.test_per_class}
    for split, limit in limits.items():
        if limit is not None:
            origin, indices = splits[split]
            chosen = _choose_per_class(labels[origin][indices], limit, config.split_seed)
            splits[split] = origin, indices[chosen]
    for split, (origin, indices) in splits.items():
        if split == MAY_BE_EMPTY and config.refit:
            continue
        _check_counts(name, split, labels[origin][indices], classes)
    return splits


def hold_out(where: str, labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into kept and held-out ones, both sorted; class shares are exact to within one image.

    Args:
        where: name of the setting, for the error message.
        labels: (N,).
        fraction: share of the images to hold out.
        seed: below 2³².

    Raises:
        DataError: the images are too few, or the fraction is no share of them.
    """
    from sklearn.model_selection import train_test_split  # slow to import, also where a source is registered

    try:
        kept, held_out = train_test_split(
            np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed
        )
    except ValueError as error:  # too few images
        raise DataError(f"{where}: expected a share of images to hold out, received {fraction:g} ({error})") from None
    return np.sort(kept), np.sort(held_out)


def _choose_per_class(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Choose up to `limit` random images of each class; returns sorted indices."""
    generator = np.random.default_rng(seed)
    members = [generator.permutation(np.flatnonzero(labels == k))[:limit] for k in np.unique(labels)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *members]))


def _check_counts(name: str, split: Split, labels: np.ndarray, classes: list[str]) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    smallest = int(counts.argmin())
    if counts[smallest] < FEWEST_PER_CLASS[split]:
        raise DataError(
            f"{name}: expected at least {FEWEST_PER_CLASS[split]} {split} images of class '{classes[smallest]}', "
            f"received {counts[smallest]}"
        )
