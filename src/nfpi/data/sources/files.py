"""The files that a user's data set is read from: their digest, which identifies the data set, and archives.

The digest is that of the names and contents of all files, so that a copy elsewhere is the same data set. It is
remembered, with sizes and times of the last change of the files, in a file beside the downloads; without it, or after a
change, the files are read again. Times are `ctime`, which, unlike `mtime`, programs cannot set: an archive or `cp -p`
may replace images by others with the same size and `mtime`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import tarfile
import zipfile
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nfpi.config.datasets import DataError
from nfpi.data.image_files import list_files
from nfpi.data.sources.published import FASHION_MNIST_FILES, find_idx
from nfpi.data.writer import replace_folder
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import file_digest, is_below, write_atomically
from nfpi.runtime.locks import locked
from nfpi.runtime.signals import Interrupted

logger = logging.getLogger(__name__)

AUTOENCODER_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
_THREADS = 8
SPLIT_NAMES = ("train", "test", "validation", "val")
"""names of the folders of splits"""
OF_MACOS = "__MACOSX"
"""folder that macOS adds to a zip archive, with metadata of the files"""


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
        names = os.fsencode("\0".join(self.names))
        state = hashlib.sha256(names + b"\0" + self.status.tobytes()).hexdigest()
        memory = downloads / f".digest-{hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:16]}.json"
        with suppress(OSError, ValueError, KeyError):  # missing, damaged, or of other files
            known: str = json.loads(memory.read_text(encoding="utf-8"))[state]
            return known
        options = {"desc": "hash files", "total": len(self.names), "unit": "file", "leave": False, "disable": None}
        with ThreadPoolExecutor(_THREADS) as pool:  # reading and hashing release the GIL
            digests = b"".join(tqdm(pool.map(self._read_digest, self.names), **options, delay=1))
        digest = hashlib.sha256(names + b"\0" + digests).hexdigest()
        with suppress(OSError):  # not writable: the files are read again next time
            write_atomically(memory, json.dumps({state: digest}))
        return digest

    def _read_digest(self, name: str) -> bytes:
        path = self.root / name
        try:
            return bytes.fromhex(file_digest(path))
        except OSError as error:
            raise DataError(f"{path}: expected a file that can be read, received none ({error.strerror})") from None


def list_source(source: str, folder: Path, skip: Collection[str] = ()) -> SourceFiles:
    """List the files that a data set is read from.

    Args:
        source: name of its source.
        folder: folder, or archive.
        skip: paths of images of a folder, relative to it, that are left out.

    Raises:
        DataError: the folder is missing, or does not have the structure that its source expects.
    """
    if folder.is_file():  # an archive
        return SourceFiles(folder, [""], _read_status([folder]))
    if source == "imagefolder":
        from nfpi.data.sources.imagefolder import list_image_folder  # imports Pillow

        images = list_image_folder(folder, skip)
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


def _read_status(files: Iterable[Path]) -> np.ndarray:
    rows = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"{file}: expected a file, received none ({error.strerror})") from None
        rows.append((status.st_size, status.st_ctime_ns))
    return np.array(rows, np.int64).reshape(-1, 2)


# ---- archives -------------------------------------------------------------------------------------------------------


def find_image_root(folder: Path | None, download_folder: Path) -> Path:
    """Return the folder that contains train/class/image or class/image: `folder` itself, or the unpacked archive.

    An archive is unpacked into `download_folder` once, by one process while others wait, and again if it has changed.
    In the archive, the images may be nested in further folders.

    Raises:
        DataError: `folder` is None; or an archive is damaged, or has members that are outside of its folder or neither
            files nor folders; nothing is unpacked then.
    """
    if folder is None:
        raise DataError("folder: expected a folder of class folders, or of train and test (or val), received none")
    if not folder.is_file():
        return folder
    status = folder.stat()
    key = hashlib.sha256(f"{folder.resolve()} {status.st_size} {status.st_ctime_ns}".encode()).hexdigest()[:12]
    place = download_folder / f"{folder.name.split('.')[0]}-{key}"
    with locked(download_folder / f".{place.name}.lock", f"unpack {folder}", logger.info):
        if not place.is_dir():
            with replace_folder(place, []) as unpacked:
                _unpack(folder, unpacked)
    while (outer := _find_outer_folder(place)) is not None:
        place = outer
    return place


def _find_outer_folder(place: Path) -> Path | None:
    """Return the only folder in `place`, unless it has the name of a split."""
    folders = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return folders[0] if len(folders) == 1 and folders[0].name not in SPLIT_NAMES else None


def _unpack(archive: Path, into: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                members = [one for one in zipped.infolist() if not one.filename.startswith(OF_MACOS)]
                _check_names(archive, (one.filename for one in members))
                zipped.extractall(into, members)  # makes no links: they become files
        else:
            with tarfile.open(archive) as tar:
                _check_names(archive, (one.name for one in tar))
                _require_end(tar)
                tar.extractall(into, filter=_accept)
    except (DataError, Interrupted, MemoryError):
        raise
    except Exception as error:  # the modules raise many, also for encrypted archives and for other files
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = format_error(error)
        raise DataError(
            f"{archive}: expected a whole zip or tar archive of files and folders, received an error ({reason})"
        ) from None
    if not any(into.iterdir()):
        raise DataError(f"{archive}: expected an archive of folders of images, received an empty one")


def _check_names(archive: Path, names: Iterable[str]) -> None:
    """Check that the names of an archive's members lead below the folder that it is unpacked into."""
    for name in names:
        if not is_below(name):
            raise DataError(f"{archive}: expected members inside the folder, received {name!r}")


def _require_end(tar: tarfile.TarFile) -> None:
    """Raise EOFError if a tar archive is cut between two members, which tarfile does not notice."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # of zeros, at the end of every archive
        raise EOFError("its end is missing")


def _accept(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Refuse links and devices, and give files the usual permissions.

    Links are not left to the filter of tarfile, which chains of links pass on some versions of Python (CVE-2025-4517).
    """
    if not (member.isreg() or member.isdir()):
        raise ValueError(f"a link or device, {member.name!r}")
    return tarfile.data_filter(member, folder)
