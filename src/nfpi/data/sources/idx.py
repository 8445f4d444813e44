"""Read idx files, the format of MNIST (plain or gzip)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from nfpi.config.base import Split
from nfpi.data.errors import DataError

SPLIT_FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""File names of images and labels of each split, without the ending .gz."""

_MOST_DIMENSIONS = 32
"""Number of dimensions that every version of NumPy supports."""


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
        raise DataError(
            f"{folder}: expected {name} or {name}.gz in this folder or in its subfolder FashionMNIST/raw, received none"
        )
    return file


def read_idx(file: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes.

    The header consists of two zero bytes, the type (8: unsigned byte), the number of axes, and the length of each axis
    as a big-endian 32-bit integer.

    Raises:
        DataError: the file cannot be read, has another format, or its length contradicts its header.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: expected a file that can be read, received an error ({error})") from None
    if file.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file}: expected a gzip file, received a damaged one ({error})") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(
            f"{file}: expected an idx file that starts with the bytes 000008 in hexadecimal, "
            f"received {content[:3].hex() or 'nothing'}"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{file}: expected a header of {start} bytes, received {len(content)}")
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    values = np.frombuffer(content, np.uint8, offset=start)
    try:
        return values.reshape(shape)
    except ValueError:
        if len(shape) > _MOST_DIMENSIONS or math.prod(shape) == len(values):
            raise DataError(f"{file}: expected a shape that NumPy supports, received {len(shape)} dimensions") from None
        raise DataError(
            f"{file}: expected {math.prod(shape)} values for shape {shape}, received {len(values)}"
        ) from None
