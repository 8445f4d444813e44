"""Detection of changes in the files that a user's data set was read from.

`prepare_data` and `encode_data` write a record beside the splits: name, size and time of the last change of each file,
and the SHA-256 of the files that were used. Its token is a short text that identifies this state of the files. Whenever
the workflow plans, it computes the current token, which Snakemake compares with that of the run that last made the
splits (:mod:`nfpi.workflow.sources`). The current token is:

- names, sizes and times as recorded: the token of the record;
- other names or sizes: a new token;
- same names and sizes, other times: the files whose time differs are read, if they have a recorded SHA-256. If all
  still have it, the token is that of the record, and the new times are stored, so that the files are not read again;
  otherwise it is a new token.

So copied or touched files keep the token of the record. The token is a param of these rules. Only Snakemake's main
process computes it. The stage does not receive it: before the stage reads a file, it computes the token for the record
itself. If files change between these two computations, the tokens differ, and the stage runs once more than needed. No
change is missed, since the record has digests of what was read.

Times are `ctime`, which, unlike `mtime`, programs cannot set: an archive or `cp -p` may replace images by others with
the same size and `mtime`.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nfpi.config.datasets import SOURCES, DataError, DatasetConfig
from nfpi.data.image_files import list_files
from nfpi.data.sources.published import FASHION_MNIST_FILES, find_idx
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import file_digest, sync, write_atomically

RECORD = "sources.npz"
"""name of the record in the folder of the splits"""
FOLDER, VAE = "folder", "vae"
AUTOENCODER_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
_TIMES_FILE = ".sources-times.npy"
_THREADS, _FILES_PER_BLOCK = 8, 256


@dataclass(frozen=True, eq=False)
class SourceFiles:
    """State of the files of a data set, now or as recorded.

    Args:
        roots: path of `folder`, which may be an archive, and of `vae`; empty for a record.
        names: `folder/…` or `vae/…`; only `folder` for an archive.
        status: (N, 2), int64: size in bytes, time of the last change in ns.
        digests: (N, 32), uint8: SHA-256 of the files; zeros for files that were not read.
    """

    roots: dict[str, Path]
    names: list[str]
    status: np.ndarray
    digests: np.ndarray

    @property
    def token(self) -> str:
        """A short text that identifies names, sizes and times."""
        digest = hashlib.sha256(_join_names(self.names) + b"\0" + self.status.tobytes()).hexdigest()
        return f"{len(self.names)} files of {self.status[:, 0].sum()} bytes, {digest[:16]}"

    def compute_digests(self, indices: Sequence[int], label: str) -> Iterator[bytes]:
        """Yield the SHA-256 digests of these files, in order, and keep them; each file is read at most once.

        Raises:
            DataError: a file cannot be read, or has changed since it was listed.
        """
        options = {"desc": label, "total": len(indices), "unit": "file", "leave": False, "disable": None, "delay": 1}
        with ThreadPoolExecutor(_THREADS) as pool, tqdm(**options) as progress:
            for start in range(0, len(indices), _FILES_PER_BLOCK):  # reading and hashing release the GIL
                for digest in pool.map(self._compute_digest, indices[start : start + _FILES_PER_BLOCK]):
                    progress.update()
                    yield digest

    def _compute_digest(self, index: int) -> bytes:
        known: np.ndarray = self.digests[index]
        if known.any():
            return known.tobytes()
        root, _, rest = self.names[index].partition("/")
        path = self.roots[root] / rest
        try:
            digest = bytes.fromhex(file_digest(path))
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: expected a file that can be read, received none ({error.strerror})") from None
        if (status.st_size, status.st_ctime_ns) != tuple(self.status[index]):
            raise DataError(f"{path}: expected a file that does not change, received one that has changed: try again")
        known[:] = np.frombuffer(digest, np.uint8)
        return digest

    def write_record(self, folder: Path, used: Sequence[int]) -> None:
        """Write the record into the (temporary) folder of the splits, with the digests of the files that were used.

        Raises:
            DataError: a file cannot be read, or has changed since it was listed.
        """
        for _ in self.compute_digests(used, "hash files"):
            pass
        names = np.frombuffer(_join_names(self.names), np.uint8)
        np.savez(folder / RECORD, names=names, status=self.status, sha256=self.digests)
        sync(folder / RECORD)


def list_source(config: DatasetConfig) -> SourceFiles:
    """List the files of a data set in a folder, and the files of its autoencoder.

    Files of sources with the trait `published` are not listed, since known digests verify them whenever they are read.

    Raises:
        DataError: a folder is missing, or does not have the structure that its source expects.
    """
    folder, is_images = config.folder, config.source == "imagefolder"
    roots: dict[str, Path] = {}
    names: list[str] = []
    status: list[np.ndarray] = []
    if folder is not None and not SOURCES[config.source].traits.get("published", False):
        roots[FOLDER] = folder
        if folder.is_file():  # an archive
            names, status = [FOLDER], [_read_status([folder])]
        elif is_images:
            from nfpi.data.sources.imagefolder import list_image_folder  # imports Pillow

            images = list_image_folder(folder)
            names = [f"{FOLDER}/{name}" for split_names in images.names.values() for name in split_names]
            status = [*images.status.values()]
        else:
            if not folder.is_dir():
                raise DataError(f"{folder}: expected a folder or an archive, received none")
            is_fashion = config.source == "fashion_mnist"  # in torchvision's folder, beside other data sets
            wanted = [name for pair in FASHION_MNIST_FILES.values() for name in pair]
            files = [find_idx(folder, name) for name in wanted] if is_fashion else list_files(folder)
            names, status = [f"{FOLDER}/{file.relative_to(folder)}" for file in files], [_read_status(files)]
    elif is_images:
        raise DataError("folder: expected a folder of class folders, or of train and test (or val), received none")
    if config.vae is not None:
        roots[VAE] = config.vae
        names += [f"{VAE}/{file}" for file in AUTOENCODER_FILES]
        status.append(_read_status([config.vae / file for file in AUTOENCODER_FILES]))
    numbers = np.concatenate([*status, np.empty((0, 2), np.int64)])
    return SourceFiles(roots, names, numbers, np.zeros((len(names), 32), np.uint8))


def read_record(folder: Path) -> SourceFiles | None:
    """Read the record from the folder of the splits; None if there is none.

    Raises:
        DataError: the record is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            joined, status, digests = (arrays[name] for name in ("names", "status", "sha256"))
        names = os.fsdecode(joined.tobytes()).split("\0") if joined.size else []
        if status.shape != (len(names), 2) or digests.shape != (len(names), 32):
            raise ValueError(f"{status.shape} and {digests.shape} for {len(names)} files")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
        reason = format_error(error)
        raise DataError(
            f"{file}: expected a record of source files, received a damaged one ({reason}): remove it"
        ) from None
    return SourceFiles({}, names, status, digests)


def compute_token(files: SourceFiles, folder: Path) -> str:
    """Compute the token of files (see the top of this module), reading those whose time differs from the record's.

    Args:
        files: current state of the files.
        folder: folder of the splits that are made from these files.

    Raises:
        DataError: the record is damaged, or a file cannot be read.
    """
    record = read_record(folder)
    if record is None or record.names != files.names or not np.array_equal(record.status[:, 0], files.status[:, 0]):
        return files.token
    times = files.status[:, 1]
    suspect = (times != record.status[:, 1]) & (times != _read_times(folder, len(times))) & record.digests.any(axis=1)
    indices = np.flatnonzero(suspect).tolist()
    for index, digest in zip(indices, files.compute_digests(indices, "compare images"), strict=True):
        if digest != record.digests[index].tobytes():
            return files.token
    if indices:
        _write_times(folder, times)
    return record.token


def _read_times(folder: Path, count: int) -> np.ndarray:
    """Read the times of the files when they were last found to be unchanged."""
    try:
        times: np.ndarray = np.load(folder / _TIMES_FILE, allow_pickle=False)
    except Exception:  # NumPy parses the header as a Python literal, which fails in many ways
        return np.zeros(count, np.int64)
    return times if times.shape == (count,) and times.dtype == np.int64 else np.zeros(count, np.int64)


def _write_times(folder: Path, times: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, times)
    with suppress(OSError):  # not writable, e.g. results of another user: the files are read again next time
        write_atomically(folder / _TIMES_FILE, buffer.getvalue())


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
