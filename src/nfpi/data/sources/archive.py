"""Folders of images packed into one archive: zip, tar, or a compressed tar."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from nfpi.data.atomic import replace_folder
from nfpi.data.errors import DataError

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""raised for archives that are damaged or encrypted, and for files that are no archives"""


def find_image_root(folder: Path | None, download_folder: Path) -> Path:
    """Find the folder that holds train/class/image: `folder` itself, or the unpacked archive.

    An archive is unpacked into `download_folder` once, and again when it has changed. Further folders may enclose the
    splits in the archive.

    Raises:
        DataError: there is no such folder or archive, or the archive is damaged or has a member that leads out of it.
    """
    if folder is None:
        raise DataError(
            "folder: expected one that holds train/class/image and test (or val)/class/image, received none"
        )
    if not folder.is_file():
        return folder
    status = folder.stat()
    key = hashlib.sha256(f"{folder.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]
    place = download_folder / f"{folder.name.split('.')[0]}-{key}"
    if not place.is_dir():
        with replace_folder(place, []) as partial:
            _unpack(folder, partial)
    while not (place / "train").is_dir() and len(only := _folders(place)) == 1:
        place = only[0]
    return place


def _folders(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))]


def _unpack(archive: Path, into: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, into)
        else:
            _untar(archive, into)
    except DataError:
        raise
    except tarfile.FilterError as error:
        raise DataError(f"{archive}: expected members inside the folder, received one that is not ({error})") from None
    except DAMAGE as error:
        if getattr(error, "errno", None) is not None:  # the disk's fault
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{archive}: expected a whole zip or tar archive, received a damaged one ({reason})") from None


def _unzip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            # zipfile would silently drop the parts of a name that lead out of the folder
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise DataError(f"{archive}: expected members inside the folder, received '{name}'")
        file.extractall(into)


def _untar(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(into, filter="data")
        # tarfile does not notice a cut between two members; the end is marked by a block of zeros
        assert file.fileobj is not None
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("its end is missing")
