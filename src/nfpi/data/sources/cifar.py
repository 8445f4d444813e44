"""CIFAR10 and CIFAR100 (Krizhevsky, 2009): 50 000 + 10 000 colour images of 32×32 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from nfpi.config.datasets import DatasetConfig
from nfpi.data.errors import DataError
from nfpi.data.sources.download import download
from nfpi.data.sources.registry import SourceImages


def load_cifar10(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load CIFAR10; see :func:`_load`."""
    return _load(CIFAR10, config.folder, download_folder)


def load_cifar100(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load CIFAR100 with its 100 fine classes; see :func:`_load`."""
    return _load(CIFAR100, config.folder, download_folder)


def _load(kind: type[CIFAR10], folder: Path | None, download_folder: Path) -> SourceImages:
    """Load the published train and test splits.

    The files are pickles; torchvision verifies their known md5 before opening them.

    Raises:
        DataError: a file is missing or damaged, or could not be downloaded.
    """
    if folder is None:
        download(kind, download_folder)
        folder = download_folder
    try:
        train, test = kind(folder, train=True), kind(folder, train=False)
    except (OSError, RuntimeError):
        raise DataError(_describe_fault(kind, folder)) from None
    return SourceImages(
        list(train.classes),
        {
            "train": (train.data, np.asarray(train.targets, np.int64)),
            "test": (test.data, np.asarray(test.targets, np.int64)),
        },
    )


def _describe_fault(kind: type[CIFAR10], folder: Path) -> str:
    """Describe the first file that is missing or damaged."""
    meta = (kind.meta["filename"], kind.meta["md5"])
    for name, md5 in (*kind.train_list, *kind.test_list, meta):
        file = folder / kind.base_folder / name
        try:
            intact = check_integrity(file, md5)
        except OSError as error:
            return f"{file}: expected a file that can be read, received an error ({error.strerror})"
        if not intact:
            return f"{file}: expected a file with md5 {md5}, received {'another' if file.is_file() else 'none'}"
    return f"{folder}: expected the files of {kind.__name__}, received some that torchvision cannot read"
