"""Files that are written completely or not at all, and their digests."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

_waiting: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("waiting", default=None)


@dataclass
class Written:
    """What a stage has written, see :func:`note_written`.

    Attributes:
        digests: SHA-256 of the content of files as it was meant to be, by absolute path.
        afterwards: what is left to do once the stage has committed its outputs, e.g. to remove checkpoints.
    """

    digests: dict[Path, str] = field(default_factory=dict)
    afterwards: list[Callable[[], None]] = field(default_factory=list)


_written: ContextVar[Written | None] = ContextVar("written", default=None)


@contextmanager
def note_written() -> Iterator[Written]:
    """Note the digests of the files that the block writes, and do :func:`when_committed` actions at its end.

    After an error these actions are dropped.
    """
    written = Written()
    token = _written.set(written)
    try:
        yield written
        for action in written.afterwards:
            action()
    finally:
        _written.reset(token)


def note_digest(path: Path, digest: str) -> None:
    """Say what the content of a file is meant to be, where :func:`note_written` asks for it."""
    written = _written.get()
    if written is not None:
        written.digests[path.absolute()] = digest


def note_moved(old: Path, new: Path) -> None:
    """Say that a folder has been renamed, so that the digests of files in it are found by their new names."""
    written, old, new = _written.get(), old.absolute(), new.absolute()
    if written is not None:
        for path in [path for path in written.digests if path.is_relative_to(old)]:
            written.digests[new / path.relative_to(old)] = written.digests.pop(path)


def when_committed(action: Callable[[], None]) -> None:
    """Do something once the outputs of the running stage are committed; at once where no stage runs."""
    written = _written.get()
    if written is None:
        action()
    else:
        written.afterwards.append(action)


def write_atomically(path: str | os.PathLike[str], content: str | bytes | bytearray) -> Path:
    """Write `content` (text as UTF-8) to a temporary file beside `path`, then rename it; missing folders are created.

    A reader of `path` finds the old file or the new one, never a part; after an error the old one remains.

    Raises:
        OSError: the folder or the file cannot be written; it names the file.
    """
    path, waiting = Path(path), _waiting.get()
    content = content.encode() if isinstance(content, str) else content
    with _written_beside(path, content) as beside:
        if waiting is None:
            beside.replace(path)
            sync(path.parent)
        else:
            waiting.append((beside, path))
    if _written.get() is not None:
        note_digest(path, hashlib.sha256(content).hexdigest())
    return path


def write_keeping_previous(path: Path, content: bytes | bytearray, previous: Path) -> None:
    """Write `content` to `path` as :func:`write_atomically` does; the file that was there becomes `previous`.

    The files are renamed at once, also in a block of :func:`written_together`.

    Raises:
        OSError: the folder or the file cannot be written; it names the file.
    """
    with _written_beside(path, content) as beside:
        if path.exists():
            path.replace(previous)
        beside.replace(path)
    sync(path.parent)


@contextmanager
def _written_beside(path: Path, content: bytes | bytearray) -> Iterator[Path]:
    """A temporary file with this content beside `path`, which the block renames; removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # files of tempfile can be read only by their owner, whatever the umask; results are shared on a cluster
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(beside)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


@contextmanager
def written_together() -> Iterator[None]:
    """Rename the files of :func:`write_atomically` only when the block ends without an error.

    Either all files of a stage appear or none, even if the disk fills up in between. Files of a block within another
    are renamed at the end of the outer one; an inner block that ends with an error drops its own files only.
    """
    outer = _waiting.get()
    waiting: list[tuple[Path, Path]] = []
    token = _waiting.set(waiting)
    try:
        yield
        if outer is not None:
            outer.extend(waiting)
            waiting.clear()
        for beside, path in waiting:
            beside.replace(path)
        for folder in {path.parent for _, path in waiting}:
            sync(folder)
    finally:
        _waiting.reset(token)
        for beside, _ in waiting:
            beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make what a file holds, or the names in a folder, outlast a power failure, where the file system can."""
    with suppress(OSError):  # some network file systems do not synchronise folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_remains(path: Path) -> None:
    """Remove temporary files that a killed process left of :func:`write_atomically` to `path`."""
    for remains in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        remains.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Check that `path`, a file or folder that need not exist, can be created or replaced; nothing is written.

    Raises:
        OSError: it cannot.
    """
    place = Path(path).absolute()
    if not place.is_dir():
        place = place.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(f"{place}: expected a folder, to write {path} in, received a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{place}: expected a folder that can be written, for {path}, received one that cannot")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
