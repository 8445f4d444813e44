"""Unpacking of image folders from archives: zip, tar, or compressed tar."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from nfpi.config.datasets import ArchiveLimits, DataError
from nfpi.data.writer import replace_folder
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import is_below, write_atomically
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
_DEFAULT_LIMITS = ArchiveLimits()


def find_image_root(folder: Path | None, download_folder: Path, limits: ArchiveLimits = _DEFAULT_LIMITS) -> Path:
    """Return the folder that contains train/class/image or class/image: `folder` itself, or the unpacked archive.

    An archive is unpacked into `download_folder` once, by one process while others wait, and again if it or what was
    unpacked has changed.
    In the archive, the images may be nested in further folders.

    Raises:
        DataError: `folder` is None; or an archive is damaged, exceeds the limits, or has members that are outside
            of its folder or neither files nor folders; nothing is unpacked then.
    """
    if folder is None:
        raise DataError("folder: expected a folder of class folders, or of train and test (or val), received none")
    if not folder.is_file():
        return folder
    status = folder.stat()
    key = hashlib.sha256(f"{folder.resolve()} {status.st_size} {status.st_ctime_ns}".encode()).hexdigest()[:12]
    place = download_folder / f"{folder.name.split('.')[0]}-{key}"
    contents = download_folder / f".{place.name}.contents"
    with locked_in_turn(download_folder / f".{place.name}.lock", f"unpack {folder}"):
        if not contents.is_file() or contents.read_text() != _list_contents(place):  # or altered since
            shutil.rmtree(place, ignore_errors=True)
            with replace_folder(place, []) as unpacked:
                _unpack(folder, unpacked, limits)
            write_atomically(contents, _list_contents(place))
    while (outer := _find_outer_folder(place)) is not None:
        place = outer
    return place


def _list_contents(place: Path) -> str:
    """Return a digest of names, sizes and times (`ctime`, which programs cannot set) of all files in a folder."""
    files = sorted(Path(folder, name) for folder, _, names in os.walk(place) for name in names)
    found = ((file, file.stat()) for file in files)
    status = [(file.relative_to(place).as_posix(), status.st_size, status.st_ctime_ns) for file, status in found]
    return hashlib.sha256(repr(status).encode()).hexdigest()


def _find_outer_folder(place: Path) -> Path | None:
    """Return the only folder in `place` unless it is a split: has such a name, and does not contain the splits."""
    folders = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith((".", OF_MACOS))]
    if len(folders) != 1:
        return None
    inner = {name for name in SPLIT_NAMES if (folders[0] / name).is_dir()}
    is_split = folders[0].name in SPLIT_NAMES and not ("train" in inner and len(inner) > 1)
    return None if is_split else folders[0]


def _unpack(archive: Path, into: Path, limits: ArchiveLimits) -> None:
    is_zip = zipfile.is_zipfile(archive)
    try:
        with zipfile.ZipFile(archive) if is_zip else tarfile.open(archive) as file:
            found = _list_zip(file) if isinstance(file, zipfile.ZipFile) else _list_tar(file)
            for member in list(_check_members(archive, found, limits)):
                _write_member(member, into)
    except (DataError, Interrupted, MemoryError):
        raise
    except Exception as error:  # the modules raise many, also for encrypted archives and for other files
        if isinstance(error, OSError) and error.errno not in _OF_ARCHIVES:
            raise
        reason = format_error(error)
        raise DataError(f"{archive}: expected a whole zip or tar archive, received a damaged one ({reason})") from None
    if not any(into.iterdir()):
        raise DataError(f"{archive}: expected an archive of folders of images, received an empty one")


@dataclass(frozen=True)
class _Member:
    """A member of an archive.

    Attributes:
        name: its path in the archive.
        size: bytes that it takes when the archive is decompressed.
        kind: `file`, `folder`, or empty for a link or a device.
        open: opens a file.
    """

    name: str
    size: int
    kind: str
    open: Callable[[], Any]


def _list_zip(file: zipfile.ZipFile) -> Iterator[_Member]:
    for member in file.infolist():
        if PurePosixPath(member.filename).parts[:1] != (OF_MACOS,):
            mode = stat.S_IFMT(member.external_attr >> 16) if member.create_system == _UNIX else 0
            kind = "folder" if member.is_dir() else "file"
            known = mode in (0, stat.S_IFREG, stat.S_IFDIR)
            yield _Member(member.filename, member.file_size, kind if known else "", partial(file.open, member))


def _list_tar(file: tarfile.TarFile) -> Iterator[_Member]:
    end = 0
    for member in file:
        kind = "folder" if member.isdir() else "file" if member.isreg() else ""
        begin, end = end, member.offset_data + member.size
        yield _Member(member.name, end - begin, kind, partial(file.extractfile, member))  # with all headers before it
    # tarfile does not detect truncation between two members; the end is marked by a block of zeros
    assert file.fileobj is not None
    file.fileobj.seek(file.offset)
    if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("its end is missing")


def _check_members(archive: Path, members: Iterable[_Member], limits: ArchiveLimits) -> Iterator[_Member]:
    """Yield members that are files and folders below the folder, and not more than a disk is likely to have room for.

    Not left to the filter of tarfile, which chains of links pass on some versions of Python (CVE-2025-4517).

    Raises:
        DataError: another member, or too many or too large ones.
    """
    grown = max(_ALWAYS_ALLOWED, _LARGEST_GROWTH * archive.stat().st_size)
    most, size = 2**30 * limits.gib if limits.gib else grown, 0
    for number, member in enumerate(members, 1):
        size += member.size
        if not is_below(member.name):
            raise DataError(f"{archive}: expected members inside the folder, received {member.name!r}")
        if not member.kind:
            raise DataError(f"{archive}: expected files and folders, received a link or device, {member.name!r}")
        if number > limits.members:
            raise DataError(
                f"{archive}: expected at most {limits.members} files and folders, received more: raise archive.members"
            )
        if size > most:
            raise DataError(
                f"{archive}: expected at most {most} bytes when unpacked ({_LARGEST_GROWTH} times its size, or 1 GiB, "
                f"unless archive.gib is set), received {size} or more: set archive.gib, or unpack it yourself"
            )
        yield member


def _write_member(member: _Member, into: Path) -> None:
    """Write a file or folder with the usual permissions; names and kinds are checked."""
    path = into / member.name
    (path if member.kind == "folder" else path.parent).mkdir(parents=True, exist_ok=True)
    if member.kind == "file":
        with member.open() as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
