"""Files that are written completely or not at all, their digests, and files that other files name."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

_waiting: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("waiting", default=None)


def write_atomically(path: str | os.PathLike[str], content: str | bytes | bytearray) -> Path:
    """Write `content` (text as UTF-8) to a temporary file beside `path`, then rename it; missing folders are created.

    A reader of `path` finds the old file or the new one, never a partial one; after an error the old one remains.

    Raises:
        OSError: the folder or the file cannot be written; the error names the folder or the file.
    """
    path, waiting = Path(path), _waiting.get()
    content = content.encode() if isinstance(content, str) else content
    with _written_beside(path, content) as beside:
        if waiting is None:
            beside.replace(path)
            sync(path.parent)
        else:
            waiting.append((beside, path))
    return path


def write_keeping_previous(path: Path, content: bytes | bytearray, previous: Path) -> None:
    """Write `content` to `path` as :func:`write_atomically` does; the file that was there becomes `previous`.

    The files are renamed immediately, even in a block of :func:`written_together`.

    Raises:
        OSError: the folder or the file cannot be written; the error names the folder or the file.
    """
    with _written_beside(path, content) as beside:
        if path.exists():
            path.replace(previous)
        beside.replace(path)
    sync(path.parent)


@contextmanager
def _written_beside(path: Path, content: bytes | bytearray) -> Iterator[Path]:
    """Write a temporary file beside `path` for the block to rename; it is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # tempfile ignores the umask and makes files that only their owner can read; results are shared on a cluster
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    except BaseException as error:
        with suppress(OSError):  # if the name is too long, this fails too, as the writing did
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(beside)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


@contextmanager
def written_together() -> Iterator[None]:
    """Rename the files of :func:`write_atomically` only when the block ends without an error.

    No file appears before all are written, so none appears if the disk fills up. An inner block is part of the outer
    one.
    """
    if _waiting.get() is not None:
        yield
        return
    waiting: list[tuple[Path, Path]] = []
    token = _waiting.set(waiting)
    try:
        yield
        for beside, path in waiting:
            try:
                beside.replace(path)
            except OSError as error:
                raise type(error)(error.errno, error.strerror, str(path)) from None
        for folder in {path.parent for _, path in waiting}:
            sync(folder)
    finally:
        _waiting.reset(token)
        for beside, _ in waiting:
            beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk, if the file system supports it."""
    with suppress(OSError):  # some network file systems do not support this for folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_remains(path: Path) -> None:
    """Remove temporary files left behind by a process that was killed while it wrote `path` by a function above."""
    for remains in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        remains.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Check that a file or folder can be created at `path`, or inside it if it is a folder; nothing is written.

    Raises:
        OSError: nothing can be created there.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        folder = folder.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder, to write {path} in, received a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: expected a folder that can be written, for {path}, received one that cannot")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_below(name: str) -> bool:
    """Return whether a name from a file is that of something below a folder: neither absolute nor with `..`."""
    return not name.startswith("/") and ".." not in PurePosixPath(name).parts and "\0" not in name


def locate_below(folder: Path, name: str) -> Path:
    """Return the path of a file that another file names, as that file may be foreign.

    Raises:
        PermissionError: the name leads out of the folder, also through a link, or to something else than a file.
        OSError: the folder cannot be read.
    """
    path = folder / name
    is_inside = is_below(name) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    if not is_inside or (path.exists() and not path.is_file()):
        raise PermissionError(f"{path}: expected a file below {folder}, received another place")
    return path
