"""Folders that are whole or absent."""

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
from nfpi.runtime.signals import Interrupted


@contextmanager
def replaced_folder(folder: Path, names: Collection[str], fingerprint: str | None = None) -> Iterator[Path]:
    """A new folder beside `folder` to write into, which takes its place when the block ends without an error.

    After an error nothing of the new folder is left, and what stood at `folder` before stands there still. With a
    fingerprint the new folder stays when the block is stopped by a signal, as it does when the process is killed, and
    the next call with the same fingerprint goes on in it.

    Args:
        folder: where the result is to stand; a folder that is there already is replaced as a whole.
        names: what such a folder may hold. Anything else in it (hidden files aside) is not ours to delete.
        fingerprint: of all that the result depends on, in hexadecimal; none: nothing of an unfinished one is used.

    Raises:
        DataError: `folder` is a file, or holds something that is not among `names`; or another process is writing it.
    """
    folder = Path(folder).resolve()
    _refuse_strangers(folder, names)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(folder, "partial", fingerprint)
    partial.mkdir(exist_ok=fingerprint is not None)
    stays = False
    with _held(partial) as alone:
        if alone is False:
            raise DataError(f"{folder}: expected to write it alone, received another process that does ({partial})")
        try:
            yield partial
            _put_in_place(partial, folder)
        except (Interrupted, KeyboardInterrupt):
            stays = fingerprint is not None
            raise
        finally:
            if not stays:
                shutil.rmtree(partial, ignore_errors=True)
    _remove_remains(folder)


@contextmanager
def _held(folder: Path) -> Iterator[bool | None]:
    """Mark a folder as one that a living process writes; whether this is the only one, none: it cannot be known."""
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
    """Remove what killed processes left of this folder, now that it is there."""
    for purpose in ("partial", "old"):
        for remains in folder.parent.glob(f".{glob.escape(folder.name)}.*.{purpose}"):
            if not remains.is_dir():
                continue
            with _held(remains) as alone:
                if alone:
                    shutil.rmtree(remains, ignore_errors=True)


def _refuse_strangers(folder: Path, names: Collection[str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder or nothing, received a file")
    strangers = sorted(p.name for p in folder.iterdir() if p.name not in names and not p.name.startswith("."))
    if strangers:
        raise DataError(f"{folder}: expected only {', '.join(names)} in a folder to replace, received '{strangers[0]}'")


def _put_in_place(partial: Path, folder: Path) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    # No portable call swaps two folders: the old one steps aside, and between the renames there is none.
    old = _beside(folder, "old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _beside(folder: Path, purpose: str, key: str | None = None) -> Path:
    return folder.with_name(f".{folder.name}.{(key or uuid4().hex)[:12]}.{purpose}")
