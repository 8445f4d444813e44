"""List the files of a folder and its subfolders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from nfpi.data.errors import DataError

logger = logging.getLogger(__name__)


def list_files(folder: Path) -> list[Path]:
    """Return all files in a folder at any depth, sorted, without hidden ones.

    Links to folders are followed, except those to a folder that contains them, which are logged. Broken links are
    returned as files.

    Raises:
        DataError: a folder cannot be read.
    """
    parents = (parent.stat() for parent in Path(os.path.realpath(folder)).parents if parent.is_dir())
    return sorted(_walk(folder, frozenset((status.st_dev, status.st_ino) for status in parents)))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files of a folder.

    Args:
        folder: the folder.
        above: device and inode of the folders that contain it, or were entered to reach it.
    """
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            listed = [(folder / entry.name, is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be read, received none ({error.strerror})") from None
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        logger.warning("%s: not read: a link to a folder that contains it", folder)
        return
    for path, is_deeper in listed:
        if is_deeper:
            yield from _walk(path, above | {identity})
        else:
            yield path
