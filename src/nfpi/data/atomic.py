"""Folders that are whole or absent."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from nfpi.data.errors import DataError


@contextmanager
def replaced_folder(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """A new folder beside `folder` to write into, which takes its place when the block ends without an error.

    After an error nothing of the new folder is left, and what stood at `folder` before stands there still.

    Args:
        folder: where the result is to stand; a folder that is there already is replaced as a whole.
        names: what such a folder may hold. Anything else in it (hidden files aside) is not ours to delete.

    Raises:
        DataError: `folder` is a file, or holds something that is not among `names`.
    """
    folder = Path(folder).resolve()
    _refuse_strangers(folder, names)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(folder, "partial")
    partial.mkdir()
    try:
        yield partial
        _put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def _beside(folder: Path, purpose: str) -> Path:
    return folder.with_name(f".{folder.name}.{uuid4().hex[:12]}.{purpose}")
