"""Replacement of folders as a whole: a folder is never left half written."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from nfpi.data.errors import DataError
from nfpi.runtime.files import note_rename, sync
from nfpi.runtime.manifests import SUFFIX
from nfpi.runtime.signals import Interrupted

_KEY_LENGTH = 12
"""hexadecimal digits in the names of temporary folders"""


@contextmanager
def replace_folder(
    folder: Path, names: Collection[str], fingerprint: str | None = None, kept: str | None = None
) -> Iterator[Path]:
    """Create a temporary folder beside `folder`, which replaces it when the block ends without an error.

    After an error the temporary folder is removed and `folder` is unchanged. With a fingerprint, the temporary folder
    is kept if a signal stops the block or the process is killed, and the next call with the same fingerprint resumes
    it.

    Args:
        folder: the folder to write; an existing one is replaced as a whole.
        names: files and folders that it may contain, besides hidden ones and its manifest; a folder with others is
            never replaced.
        fingerprint: digest of everything that the result depends on, in hexadecimal; None: never resume.
        kept: glob pattern; subfolders of the old folder that match it are moved to the new one. None: nothing is moved.

    Yields:
        The temporary folder.

    Raises:
        DataError: `folder` is a file, contains something not among `names`, or is the working directory or a parent of
            it; or, with a fingerprint, another process with the same one is writing it.
    """
    unresolved, folder = Path(folder), Path(folder).resolve()
    _require_only(folder, names, kept)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _make_temporary_path(folder, "partial", fingerprint)
    partial.mkdir(exist_ok=fingerprint is not None)
    keep = False
    with _try_lock(partial) as acquired:
        if acquired is False:
            raise DataError(f"{folder}: expected a single process to write it, received another one in {partial}")
        try:
            yield partial
            _replace(partial, folder, kept)
            note_rename(partial, unresolved)
            sync(folder.parent)
        except (Interrupted, KeyboardInterrupt):
            keep = fingerprint is not None
            raise
        finally:
            if not keep:
                shutil.rmtree(partial, ignore_errors=True)
    _remove_remains(folder)


@contextmanager
def _try_lock(folder: Path) -> Iterator[bool | None]:
    """Try to lock a folder; yield whether this succeeded, or None if the file system cannot lock folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    acquired: bool | None = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        acquired = False
    except OSError:  # some network file systems
        acquired = None
    try:
        yield acquired
    finally:
        os.close(descriptor)


def _remove_remains(folder: Path) -> None:
    """Remove temporary folders left by killed processes."""
    key = "[0-9a-f]" * _KEY_LENGTH  # not `*`, which would match those of `temperature=1.1` for `temperature=1`
    for purpose in ("partial", "old"):
        for remains in folder.parent.glob(f".{glob.escape(folder.name)}.{key}.{purpose}"):
            if not remains.is_dir():
                continue
            with _try_lock(remains) as acquired:
                if acquired:
                    shutil.rmtree(remains, ignore_errors=True)


def _require_only(folder: Path, names: Collection[str], kept: str | None) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder or nothing, received a file")
    present = {path.name for path in folder.iterdir()} - {path.name for path in _list_kept(folder, kept)}
    others = sorted(name for name in present if not (name in names or name.startswith(".") or name.endswith(SUFFIX)))
    if others:
        raise DataError(f"{folder}: expected only {', '.join(names)} in a folder to replace, received '{others[0]}'")
    with suppress(FileNotFoundError):  # there is no working directory any more
        if Path.cwd().is_relative_to(folder):
            raise DataError(
                f"{folder}: expected a folder to replace other than the working directory and its parents, received "
                "one of them: write to a subfolder, or run the command elsewhere"
            )


def _list_kept(folder: Path, pattern: str | None) -> list[Path]:
    return [] if pattern is None else [path for path in folder.glob(pattern) if path.is_dir()]


def _replace(partial: Path, folder: Path, kept: str | None) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    # not atomic: no portable call swaps two folders, so `folder` is missing between the two renames
    old = _make_temporary_path(folder, "old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    for path in _list_kept(old, kept):
        path.rename(folder / path.name)
    shutil.rmtree(old)


def _make_temporary_path(folder: Path, purpose: str, key: str | None = None) -> Path:
    return folder.with_name(f".{folder.name}.{(key or uuid4().hex)[:_KEY_LENGTH]}.{purpose}")
