"""Fashion-MNIST (Xiao et al., 2017): 60 000 + 10 000 grey images of 28×28 pixels, in MNIST's file format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from nfpi.config.base import Split
from nfpi.config.datasets import DatasetConfig
from nfpi.data.errors import DataError
from nfpi.data.sources.download import download
from nfpi.data.sources.idx import SPLIT_FILES, find_idx, read_idx
from nfpi.data.sources.registry import SourceImages


def load_fashion_mnist(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load the published train and test splits.

    Raises:
        DataError: a file is missing or damaged, or could not be downloaded.
    """
    folder = config.folder
    if folder is None:
        download(FashionMNIST, download_folder)
        folder = download_folder
    splits: dict[Split, tuple[np.ndarray, np.ndarray]] = {}
    for split in SPLIT_FILES:
        images, labels = (read_idx(find_idx(folder, name)) for name in SPLIT_FILES[split])
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            received = f"{images.shape} and {labels.shape}"
            raise DataError(f"{folder}: expected {split} images (N, H, W) and labels (N,), received {received}")
        splits[split] = images[..., None], labels.astype(np.int64)
    return SourceImages(list(FashionMNIST.classes), splits)
