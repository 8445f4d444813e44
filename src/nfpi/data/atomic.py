"""Folders that are written completely or not at all."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from nfpi.data.errors import DataError
from nfpi.runtime.files import note_moved, sync
from nfpi.runtime.manifests import SUFFIX
from nfpi.runtime.signals import Interrupted


@contextmanager
def replace_folder(
    folder: Path, names: Collection[str], fingerprint: str | None = None, kept: str | None = None
) -> Iterator[Path]:
    """Write into a temporary folder beside `folder`, which replaces it when the block ends without an error.

    After an error the temporary folder is removed, and `folder` is as it was before. With a fingerprint, it is kept
    when a signal stops the block or the process is killed, and the next call with the same fingerprint continues in it.

    Args:
        folder: the result; an existing folder is replaced as a whole.
        names: files and folders that such a folder may contain, besides hidden ones and its manifest. Others are never
            deleted.
        fingerprint: of everything that the result depends on, in hexadecimal; None: every call starts anew.
        kept: pattern of other folders' names, which stay in it.

    Yields:
        the temporary folder.

    Raises:
        DataError: `folder` is a file, or holds something that is not among `names`; or another process is writing it.
    """
    named, folder = Path(folder), Path(folder).resolve()
    _require_only(folder, names, kept)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _temporary(folder, "partial", fingerprint)
    partial.mkdir(exist_ok=fingerprint is not None)
    keep = False
    with _locked(partial) as alone:
        if alone is False:
            raise DataError(f"{folder}: expected to write it alone, received another process that does ({partial})")
        try:
            yield partial
            _replace(partial, folder, kept)
            note_moved(partial, named)
            sync(folder.parent)
        except (Interrupted, KeyboardInterrupt):
            keep = fingerprint is not None
            raise
        finally:
            if not keep:
                shutil.rmtree(partial, ignore_errors=True)
    _remove_remains(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[bool | None]:
    """Lock a folder while this process writes it; yields whether no other process does, None where nobody knows."""
    descriptor = os.open(folder, os.O_RDONLY)
    alone: bool | None = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        alone = False
    except OSError:  # a network file system that knows no locks of folders
        alone = None
    try:
        yield alone
    finally:
        os.close(descriptor)


def _remove_remains(folder: Path) -> None:
    """Remove temporary folders that killed processes left of this folder."""
    for purpose in ("partial", "old"):
        for remains in folder.parent.glob(f".{glob.escape(folder.name)}.*.{purpose}"):
            if not remains.is_dir():
                continue
            with _locked(remains) as alone:
                if alone:
                    shutil.rmtree(remains, ignore_errors=True)


def _require_only(folder: Path, names: Collection[str], kept: str | None) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder or nothing, received a file")
    found = {path.name for path in folder.iterdir()} - {path.name for path in _kept(folder, kept)}
    others = sorted(name for name in found if not (name in names or name.startswith(".") or name.endswith(SUFFIX)))
    if others:
        raise DataError(f"{folder}: expected only {', '.join(names)} in a folder to replace, received '{others[0]}'")


def _kept(folder: Path, pattern: str | None) -> list[Path]:
    return [] if pattern is None else [path for path in folder.glob(pattern) if path.is_dir()]


def _replace(partial: Path, folder: Path, kept: str | None) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    # no portable call swaps two folders: between the two renames there is none
    old = _temporary(folder, "old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    for path in _kept(old, kept):
        path.rename(folder / path.name)
    shutil.rmtree(old)


def _temporary(folder: Path, purpose: str, key: str | None = None) -> Path:
    return folder.with_name(f".{folder.name}.{(key or uuid4().hex)[:12]}.{purpose}")
