"""The files that a user's data set is read from, and the digest that identifies them.

The digest is that of the names and contents of all files, so that a copy elsewhere is the same data set. What is read
once is remembered with size and time of the last change in a file beside the downloads; without it, files are read
again. Times are `ctime`, which, unlike `mtime`, programs cannot set: an archive or `cp -p` may replace images by others
with the same size and `mtime`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nfpi.config.datasets import DataError
from nfpi.data.image_files import list_files
from nfpi.data.sources.published import FASHION_MNIST_FILES, find_idx
from nfpi.runtime.files import file_digest, write_atomically

AUTOENCODER_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
_THREADS = 8


@dataclass(frozen=True, eq=False)
class SourceFiles:
    """The files of a folder, or an archive.

    Args:
        root: the folder or the archive.
        names: N paths below the folder; of an archive, one that is empty.
        status: (N, 2), int64: size in bytes, time of the last change in ns.
    """

    root: Path
    names: list[str]
    status: np.ndarray

    def compute_digest(self, downloads: Path) -> str:
        """Compute the digest of names and contents.

        Args:
            downloads: folder of the file of known digests.

        Raises:
            DataError: a file cannot be read.
        """
        memory = downloads / f".digests-{hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:16]}.npz"
        known = _read_known(memory)
        rows = [status.tobytes() for status in self.status]
        digests = [known.get((name, row), b"") for name, row in zip(self.names, rows, strict=True)]
        missing = [index for index, digest in enumerate(digests) if not digest]
        options = {"desc": "hash files", "total": len(missing), "unit": "file", "leave": False, "disable": None}
        with ThreadPoolExecutor(_THREADS) as pool, tqdm(**options, delay=1) as progress:
            # reading and hashing release the GIL
            for index, digest in zip(missing, pool.map(self._read_digest, missing), strict=True):
                digests[index] = digest
                progress.update()
        if missing:
            _write_known(memory, self.names, self.status, digests)
        return hashlib.sha256(_join_names(self.names) + b"\0" + b"".join(digests)).hexdigest()

    def _read_digest(self, index: int) -> bytes:
        path = self.root / self.names[index]
        try:
            return bytes.fromhex(file_digest(path))
        except OSError as error:
            raise DataError(f"{path}: expected a file that can be read, received none ({error.strerror})") from None


def list_source(source: str, folder: Path) -> SourceFiles:
    """List the files that a data set is read from.

    Args:
        source: name of its source.
        folder: folder, or archive.

    Raises:
        DataError: the folder is missing, or does not have the structure that its source expects.
    """
    if folder.is_file():  # an archive
        return SourceFiles(folder, [""], _read_status([folder]))
    if source == "imagefolder":
        from nfpi.data.sources.imagefolder import list_image_folder  # imports Pillow

        images = list_image_folder(folder)
        names = [name for of_split in images.names.values() for name in of_split]
        return SourceFiles(folder, names, np.concatenate([*images.status.values()]))
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder or an archive, received none")
    is_fashion = source == "fashion_mnist"  # in torchvision's folder, beside other data sets
    wanted = [name for pair in FASHION_MNIST_FILES.values() for name in pair]
    files = [find_idx(folder, name) for name in wanted] if is_fashion else list_files(folder)
    return SourceFiles(folder, [str(file.relative_to(folder)) for file in files], _read_status(files))


def list_autoencoder(folder: Path) -> SourceFiles:
    """List the files of an autoencoder.

    Raises:
        DataError: one is missing.
    """
    return SourceFiles(folder, list(AUTOENCODER_FILES), _read_status([folder / name for name in AUTOENCODER_FILES]))


def _read_known(memory: Path) -> dict[tuple[str, bytes], bytes]:
    """Read the known digests, by name and status; none if they cannot be read."""
    try:
        with np.load(memory, allow_pickle=False) as arrays:
            joined, status, digests = (arrays[name] for name in ("names", "status", "sha256"))
        names = os.fsdecode(joined.tobytes()).split("\0")
        rows = zip(names, status, digests, strict=True)
        return {(name, row.tobytes()): digest.tobytes() for name, row, digest in rows if len(digest) == 32}
    except Exception:  # NumPy parses the header as a Python literal, which fails in many ways
        return {}


def _write_known(memory: Path, names: list[str], status: np.ndarray, digests: list[bytes]) -> None:
    buffer = io.BytesIO()
    joined = np.frombuffer(_join_names(names), np.uint8)
    np.savez(buffer, names=joined, status=status, sha256=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32))
    with suppress(OSError):  # not writable: the files are read again next time
        write_atomically(memory, buffer.getvalue())


def _join_names(names: list[str]) -> bytes:
    return os.fsencode("\0".join(names))


def _read_status(files: Iterable[Path]) -> np.ndarray:
    rows = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"{file}: expected a file, received none ({error.strerror})") from None
        rows.append((status.st_size, status.st_ctime_ns))
    return np.array(rows, np.int64).reshape(-1, 2)
