"""Registration of data sources, and the images that they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from nfpi.config.base import Split, suggest
from nfpi.config.datasets import SOURCES, DataError, DatasetConfig
from nfpi.data.store import check_labels


@dataclass(frozen=True, eq=False)
class SourceImages:
    """A data set with the splits of its source.

    Args:
        classes: names of the K classes.
        splits: images (N, H, W, C), uint8, all of one shape (H, W, C), and labels (N,), integers in [0, K), of each
            split: "train", and "test" and "validation" if the source has them.

    Raises:
        DataError: names of classes or splits, images or labels are not of this form.
    """

    classes: list[str]
    splits: dict[Split, tuple[np.ndarray, np.ndarray]]

    def __post_init__(self) -> None:
        names = list(self.classes)  # they may come as a NumPy array or a tuple
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise DataError(f"source: classes: expected distinct names as text, received {names}")
        object.__setattr__(self, "classes", list(map(str, names)))
        for split, (images, labels) in self.splits.items():
            if split not in get_args(Split):
                raise DataError(f"source: splits: unknown split '{split}'{suggest(str(split), get_args(Split))}")
            if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
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
        for split, (images, labels) in self.splits.items():
            chosen = new_labels[labels] >= 0
            splits[split] = images[chosen], new_labels[labels[chosen]]
        return SourceImages(kept, splits)


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
