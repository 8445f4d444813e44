"""Unpacking of image folders from archives: zip, tar, or compressed tar."""

from __future__ import annotations

import errno
import hashlib
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nfpi.config.datasets import DataError
from nfpi.data.writer import replace_folder
from nfpi.runtime.faults import format_error
from nfpi.runtime.locks import locked_in_turn
from nfpi.runtime.signals import Interrupted

SPLIT_NAMES = ("train", "test", "validation", "val")
"""names of the folders of splits"""
OF_MACOS = "__MACOSX"
"""folder that macOS adds to a zip archive, with metadata of the files"""
_LARGEST_GROWTH = 100
"""largest accepted ratio of unpacked to packed size; image files are compressed already"""
_ALWAYS_ALLOWED = 2**30
"""unpacked size, in bytes, that is always accepted"""
_OF_ARCHIVES = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT)
"""numbers of OS errors that damaged archives cause, by invalid offsets or paths; others are of the disk"""
_UNIX = 3


def find_image_root(folder: Path | None, download_folder: Path) -> Path:
    """Return the folder that contains train/class/image or class/image: `folder` itself, or the unpacked archive.

    An archive is unpacked into `download_folder` once, by one process while others wait, and again if it has changed.
    In the archive, the images may be nested in further folders.

    Raises:
        DataError: `folder` is None, or an archive is damaged, unpacks to a far larger size, or has members that are
            outside of its folder or are neither files nor folders.
    """
    if folder is None:
        raise DataError("folder: expected a folder of class folders, or of train and test (or val), received none")
    if not folder.is_file():
        return folder
    status = folder.stat()
    key = hashlib.sha256(f"{folder.resolve()} {status.st_size} {status.st_ctime_ns}".encode()).hexdigest()[:12]
    place = download_folder / f"{folder.name.split('.')[0]}-{key}"
    if not place.is_dir():
        with locked_in_turn(download_folder / f".{place.name}.lock", f"unpack {folder}"):
            if not place.is_dir():  # another process may have unpacked it meanwhile
                with replace_folder(place, []) as partial:
                    _unpack(folder, partial)
    while (outer := _find_outer_folder(place)) is not None:
        place = outer
    return place


def _find_outer_folder(place: Path) -> Path | None:
    """Return the only folder in `place` unless it is a split: has such a name, and does not contain the splits."""
    folders = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith((".", OF_MACOS))]
    if len(folders) != 1:
        return None
    inner = {name for name in SPLIT_NAMES if (folders[0] / name).is_dir()}
    is_split = folders[0].name in SPLIT_NAMES and not ("train" in inner and len(inner) > 1)
    return None if is_split else folders[0]


def _unpack(archive: Path, into: Path) -> None:
    try:
        (_unzip if zipfile.is_zipfile(archive) else _untar)(archive, into)
    except (DataError, Interrupted, MemoryError):
        raise
    except tarfile.FilterError as error:
        raise DataError(
            f"{archive}: expected members inside the folder, received one outside or a special file ({error})"
        ) from None
    except Exception as error:  # the modules raise many, also for encrypted archives and for other files
        if isinstance(error, OSError) and error.errno not in _OF_ARCHIVES:
            raise
        reason = format_error(error)
        raise DataError(f"{archive}: expected a whole zip or tar archive, received a damaged one ({reason})") from None
    if not any(into.iterdir()):
        raise DataError(f"{archive}: expected an archive of folders of images, received an empty one")


def _unzip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if PurePosixPath(member.filename).parts[:1] != (OF_MACOS,)]
        for member in members:
            path = PurePosixPath(member.filename)
            # zipfile would silently drop the parts of a name that point outside of the folder
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{archive}: expected members inside the folder, received '{member.filename}'")
            kind = stat.S_IFMT(member.external_attr >> 16) if member.create_system == _UNIX else 0
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # zipfile would extract a link as a file
                raise DataError(f"{archive}: expected files and folders, received '{member.filename}'")
        _check_size(archive, sum(member.file_size for member in members))
        file.extractall(into, members)  # ignores the members' permissions


def _untar(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as file:
        # the filter rejects devices and pipes, and drops setuid, setgid and sticky bits
        file.extractall(into, _check_sizes(archive, file), filter="data")
        # tarfile does not detect truncation between two members; the end is marked by a block of zeros
        assert file.fileobj is not None
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("its end is missing")


def _check_sizes(archive: Path, file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar archive, which is read only once, each after the total size up to it is checked."""
    size = 0
    for member in file:
        size += member.size
        _check_size(archive, size)
        yield member


def _check_size(archive: Path, size: int) -> None:
    """Raise DataError if the declared size of unpacked members, in bytes, would fill a disk with little data."""
    most = max(_ALWAYS_ALLOWED, _LARGEST_GROWTH * archive.stat().st_size)
    if size > most:
        raise DataError(
            f"{archive}: expected at most {most} bytes when unpacked ({_LARGEST_GROWTH} times its size, or 1 GiB), "
            f"received {size} or more: unpack it yourself and name the folder"
        )
