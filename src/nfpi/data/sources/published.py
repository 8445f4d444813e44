"""Published data sets: scikit-learn's digits, Fashion-MNIST, CIFAR10 and CIFAR100, downloaded by torchvision."""

from __future__ import annotations

import gzip
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from nfpi.config.base import Split
from nfpi.config.datasets import DataError, DatasetConfig
from nfpi.data.prepare import SourceImages
from nfpi.runtime.faults import format_error
from nfpi.runtime.locks import locked

logger = logging.getLogger(__name__)

FASHION_MNIST_FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""file names of images and labels of each split, without the ending .gz"""


def load_digits(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load all digits, 1797 grey images of 8×8 pixels, as one split, with their 17 grey levels scaled to [0, 255]."""
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return SourceImages(
        [str(name) for name in digits.target_names],
        {"train": (images[..., None], digits.target.astype(np.int64))},
    )


def load_fashion_mnist(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load Fashion-MNIST (Xiao et al., 2017): 60 000 + 10 000 grey images of 28×28 pixels, in MNIST's file format.

    Raises:
        DataError: a file is missing or damaged, or could not be downloaded.
    """
    from torchvision.datasets import FashionMNIST

    folder = config.folder or _download(FashionMNIST, download_folder)
    splits: dict[Split, tuple[np.ndarray, np.ndarray]] = {}
    for split, names in FASHION_MNIST_FILES.items():
        images, labels = (read_idx(find_idx(folder, name)) for name in names)
        splits[split] = images[..., None], labels.astype(np.int64)
    return SourceImages(list(FashionMNIST.classes), splits)


def load_cifar(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load CIFAR10 or CIFAR100 (its 100 fine classes), whichever the source names.

    The published splits (Krizhevsky, 2009) are 50 000 + 10 000 colour images of 32×32 pixels. The files are pickles;
    torchvision verifies their known md5 before opening them.

    Raises:
        DataError: a file is missing or damaged, or could not be downloaded.
    """
    from torchvision import datasets  # takes as long to import as torch

    kind = getattr(datasets, config.source.upper())
    folder = config.folder or _download(kind, download_folder)
    try:
        train, test = kind(folder, train=True), kind(folder, train=False)
    except (OSError, RuntimeError):
        place = folder / kind.base_folder
        raise DataError(f"{place}: expected the published files of {kind.__name__}, received none or others") from None
    return SourceImages(
        list(train.classes),
        {
            "train": (train.data, np.asarray(train.targets, np.int64)),
            "test": (test.data, np.asarray(test.targets, np.int64)),
        },
    )


def _download(kind: type[Any], folder: Path) -> Path:
    """Download a torchvision data set, unless it is in the folder already; other processes that need it wait.

    Raises:
        DataError: the download failed.
    """
    name = kind.__name__
    try:
        with locked(folder / f".{name}.lock", f"fetch {name}", logger.info):
            kind(folder, download=True)
    except (OSError, RuntimeError) as error:
        reason = format_error(error)
        url = getattr(kind, "url", None) or kind.mirrors[0]
        raise DataError(
            f"{folder}: expected to download {name} from {url}, received an error ({reason}): fetch its files where "
            "there is internet, and name their folder by `folder:` of the data set"
        ) from None
    return folder


def find_idx(folder: Path, name: str) -> Path:
    """Find a file, plain or gzip, in a folder or in its subfolder FashionMNIST/raw, where torchvision stores it.

    Args:
        folder: folder to search.
        name: file name without the ending .gz.

    Raises:
        DataError: there is no such file.
    """
    folders = (folder, folder / "FashionMNIST" / "raw")
    candidates = [parent / f"{name}{ending}" for parent in folders for ending in ("", ".gz")]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise DataError(f"{folder}: expected {name} or {name}.gz, also in FashionMNIST/raw, received none")
    return file


def read_idx(file: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, the format of MNIST (plain or gzip).

    The header consists of two zero bytes, the type (8: unsigned byte), the number of axes, and the length of each axis
    as a big-endian 32-bit integer.

    Raises:
        DataError: the file cannot be read, has another format, or its length contradicts its header.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        if content[:3] != b"\0\0\x08":
            raise ValueError("it does not start with the bytes 000008 in hexadecimal")
        start = 4 + 4 * content[3]
        shape = np.frombuffer(content[4:start], ">u4").astype(np.int64)
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(f"{file}: expected a whole idx file, received one that cannot be read ({error})") from None
