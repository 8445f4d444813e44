"""Where images come from: scikit-learn's digits, Fashion-MNIST, CIFAR, and folders of image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST
from torchvision.datasets.utils import check_integrity

from nfpi.config.settings import DatasetConfig
from nfpi.config.base import Split
from nfpi.data.sources.archive import image_root
from nfpi.data.errors import DataError
from nfpi.data.sources.idx import read_idx
from nfpi.data.sources.imagefolder import read_image_files, split_folders


@dataclass(frozen=True, eq=False)
class SourceImages:
    """A data set as its makers split it.

    Args:
        classes: names of the K classes.
        splits: images (uint8, N×H×W×C) and labels (int64 in [0, K), N) of each split: "train", and "test" and
            "validation" where the source has them.
    """

    classes: list[str]
    splits: dict[Split, tuple[np.ndarray, np.ndarray]]


def load_source(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Read a data set into memory.

    Args:
        config: which one, and the folder that holds it already.
        download_folder: where torchvision keeps what it downloads when `config.folder` is none.

    Raises:
        DataError: files are missing or damaged, or could not be downloaded.
    """
    match config.source:
        case "digits":
            return _digits()
        case "fashion_mnist":
            return _fashion_mnist(config.folder, download_folder)
        case "cifar10":
            return _cifar(CIFAR10, config.folder, download_folder)
        case "cifar100":
            return _cifar(CIFAR100, config.folder, download_folder)
        case "imagefolder":
            return _imagefolder(image_root(config.folder, download_folder), config.image_size)


def _digits() -> SourceImages:
    """1797 digits of 8×8 pixels with 17 shades, in one split."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return SourceImages(
        [str(name) for name in digits.target_names],
        {"train": (images[..., None], digits.target.astype(np.int64))},
    )


def _fashion_mnist(folder: Path | None, download_folder: Path) -> SourceImages:
    if folder is None:
        _download(FashionMNIST, download_folder)
        folder = download_folder
    splits: dict[Split, tuple[np.ndarray, np.ndarray]] = {}
    stems: dict[Split, str] = {"train": "train", "test": "t10k"}
    for split, stem in stems.items():
        images = read_idx(_idx_file(folder, f"{stem}-images-idx3-ubyte"))
        labels = read_idx(_idx_file(folder, f"{stem}-labels-idx1-ubyte"))
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            received = f"{images.shape} and {labels.shape}"
            raise DataError(f"{folder}: expected {stem} images (N, H, W) and labels (N,), received {received}")
        splits[split] = images[..., None], labels.astype(np.int64)
    return SourceImages(list(FashionMNIST.classes), splits)


def _idx_file(folder: Path, name: str) -> Path:
    """The file as distributions install it, or where torchvision puts it."""
    places = [
        place / f"{name}{ending}" for place in (folder, folder / "FashionMNIST" / "raw") for ending in ("", ".gz")
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f"{folder}: expected {name} or {name}.gz in it or in FashionMNIST/raw, received neither")
    return found


def _cifar(kind: type[CIFAR10], folder: Path | None, download_folder: Path) -> SourceImages:
    """The files are pickles: torchvision compares their md5 with those it knows before it opens any."""
    if folder is None:
        _download(kind, download_folder)
        folder = download_folder
    try:
        train, test = kind(folder, train=True), kind(folder, train=False)
    except (OSError, RuntimeError):
        raise DataError(_first_fault(kind, folder)) from None
    return SourceImages(
        list(train.classes),
        {
            "train": (train.data, np.asarray(train.targets, np.int64)),
            "test": (test.data, np.asarray(test.targets, np.int64)),
        },
    )


def _download(kind: type[CIFAR10] | type[FashionMNIST], folder: Path) -> None:
    """Nothing is fetched that is there already."""
    try:
        kind(folder, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder}: expected to download {kind.__name__}, received an error ({reason})") from None


def _first_fault(kind: type[CIFAR10], folder: Path) -> str:
    meta = (kind.meta["filename"], kind.meta["md5"])
    for name, md5 in (*kind.train_list, *kind.test_list, meta):
        file = folder / kind.base_folder / name
        if not check_integrity(file, md5):
            return f"{file}: expected a file with md5 {md5}, received {'another' if file.is_file() else 'none'}"
    return f"{folder}: expected the files of {kind.__name__}, received some that torchvision cannot read"


def _imagefolder(folder: Path, image_size: int | None) -> SourceImages:
    """split/class/image, see :func:`split_folders`.

    Images are kept grey where every file of every split is, else all of them become RGB.
    """
    places, classes = split_folders(folder)
    read, shape = {}, None
    for split, place in places.items():
        images, labels, grey = read_image_files(place, image_size, shape)
        read[split], shape = (images, labels, grey), images.shape[1:3]
    channels = 1 if all(grey for _, _, grey in read.values()) else 3
    return SourceImages(classes, {split: (x[..., :channels], y) for split, (x, y, _) in read.items()})
