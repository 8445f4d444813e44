"""Fashion-MNIST (Xiao et al., 2017): 60 000 + 10 000 grey images of 28×28 pixels, in MNIST's file format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from nfpi.config.base import Split
from nfpi.config.datasets import DatasetConfig
from nfpi.data.errors import DataError
from nfpi.data.sources.download import download
from nfpi.data.sources.idx import read_idx
from nfpi.data.sources.registry import SourceImages

_STEMS: dict[Split, str] = {"train": "train", "test": "t10k"}


def load_fashion_mnist(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """The train and the test split, as their makers made them.

    Raises:
        DataError: a file is missing or damaged, or could not be downloaded.
    """
    folder = config.folder
    if folder is None:
        download(FashionMNIST, download_folder)
        folder = download_folder
    splits: dict[Split, tuple[np.ndarray, np.ndarray]] = {}
    for split, stem in _STEMS.items():
        images = read_idx(_find(folder, f"{stem}-images-idx3-ubyte"))
        labels = read_idx(_find(folder, f"{stem}-labels-idx1-ubyte"))
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            received = f"{images.shape} and {labels.shape}"
            raise DataError(f"{folder}: expected {stem} images (N, H, W) and labels (N,), received {received}")
        splits[split] = images[..., None], labels.astype(np.int64)
    return SourceImages(list(FashionMNIST.classes), splits)


def _find(folder: Path, name: str) -> Path:
    """The file where Linux distributions install it, or where torchvision puts it."""
    places = [
        place / f"{name}{ending}" for place in (folder, folder / "FashionMNIST" / "raw") for ending in ("", ".gz")
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f"{folder}: expected {name} or {name}.gz in it or in FashionMNIST/raw, received neither")
    return found
