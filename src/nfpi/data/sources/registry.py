"""Registration of data sources, and the images that they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfpi.config.base import Split
from nfpi.config.datasets import SOURCES, DatasetConfig
from nfpi.data.errors import DataError


@dataclass(frozen=True, eq=False)
class SourceImages:
    """A data set with the splits of its source.

    Args:
        classes: names of the K classes.
        splits: images (N, H, W, C), uint8, and labels (N,), int64 in [0, K), of each split: "train", and "test" and
            "validation" if the source has them.

    Raises:
        DataError: wrong dtype or shape of images, or wrong number of labels.
    """

    classes: list[str]
    splits: dict[Split, tuple[np.ndarray, np.ndarray]]

    def __post_init__(self) -> None:
        for split, (images, labels) in self.splits.items():
            if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
                received = f"{images.shape} of {images.dtype}"
                raise DataError(
                    f"source: {split}: expected images (N, H, W, C) of uint8, C = 1 or 3, received {received}"
                )
            if labels.shape != images.shape[:1]:
                raise DataError(f"source: {split}: expected {len(images)} labels, received {labels.shape}")


Loader = Callable[[DatasetConfig, Path], SourceImages]
"""Function that reads a data set into memory: (config, download_folder) → images."""


def register_source(name: str) -> Callable[[Loader], Loader]:
    """Register a function (config, download_folder) as the source `name`, selected by `source:` in config.yaml.

    Raises:
        ConfigError: the name is taken.

    Examples:
        >>> @register_source("noise")
        ... def load_noise(config, download_folder):
        ...     images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), np.uint8)
        ...     return SourceImages(["odd", "even"], {"train": (images, np.arange(100) % 2)})
    """

    def register(load: Loader) -> Loader:
        SOURCES.register(name, DatasetConfig, load)
        return load

    return register


def load_source(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Read a data set into memory.

    Args:
        config: settings of the data set.
        download_folder: folder of downloads, used if `config.folder` is None.

    Raises:
        DataError: files are missing or damaged, or could not be downloaded.
    """
    images = SOURCES[config.source].build(config, download_folder)
    if not isinstance(images, SourceImages) or "train" not in images.splits:
        received = f"splits {list(images.splits)}" if isinstance(images, SourceImages) else type(images).__name__
        raise DataError(f"source '{config.source}': expected SourceImages with a split 'train', received {received}")
    return images
