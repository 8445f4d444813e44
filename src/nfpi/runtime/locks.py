"""Locks that let only one process write, and tell the others which process holds them.

A lock is an advisory lock of the operating system (`flock`) on a small file. It is released when its process, and all
worker processes forked from it, have ended, however that happens. It works across the machines of a cluster on NFS
(with its lock service, as usual), Lustre (mounted with `flock`), BeeGFS and GPFS, if they are configured for it. On a
file system without locks, the work continues unlocked, with a warning.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
"""Seconds between two attempts to acquire a lock."""
_HOLDER = re.compile(r"process (\d+) on (\S+), since ")
"""Beginning of the line in a lock file that names the holder."""


class LockedError(OSError):
    """Another process holds the lock; the message is one line that names it."""


class Lock:
    """A lock that this process holds.

    Args:
        path: path of the lock file.
        descriptor: descriptor of the open file; None: the file system does not support locks.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path, self._descriptor = path, descriptor

    def release(self) -> None:
        """Release the lock, and remove its file."""
        if self._descriptor is not None:
            if _is_current(self.path, self._descriptor):  # else the folder has been replaced, with the file in it
                self.path.unlink()  # still locked, so no other process can lock the removed file
            os.close(self._descriptor)
            self._descriptor = None


def acquire(path: Path, work: str) -> Lock:
    """Lock the file `path`, and write the holder into it; the folder must exist.

    Args:
        path: lock file, created if it is missing.
        work: what only one process may do at a time, as a verb phrase for messages, such as `unpack FILE`.

    Raises:
        LockedError: another process holds the lock.
        OSError: the file cannot be created.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 500, 0).decode(errors="replace").partition("\n")[0]
            os.close(descriptor)
            raise LockedError(
                f"{path.parent}: expected no other process to {work} at the same time, received "
                f"{holder or 'one that has just begun'}"
            ) from None
        except OSError as error:
            # a file that names a holder is kept, as the error may be temporary
            unheld = os.fstat(descriptor).st_size == 0
            os.close(descriptor)
            if unheld:
                path.unlink(missing_ok=True)
            logger.warning(
                "%s: this file system does not support locks (%s): start no second process here", path.parent, error
            )
            return Lock(path, None)
        if _is_current(path, descriptor):
            break
        os.close(descriptor)  # removed by its last holder in the meantime
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}, since {now}\n".encode(), 0)
    return Lock(path, descriptor)


@contextmanager
def locked(path: Path, work: str, announce: Callable[[str], None] | None = None) -> Iterator[bool]:
    """Hold the lock `path` during the block; afterwards, folders created for it are removed if empty.

    Args:
        path, work: see :func:`acquire`.
        announce: called with a message before this process waits for another one that holds the lock; None: raise an
            error instead of waiting.

    Yields:
        Whether this process has waited.

    Raises:
        LockedError: another process holds the lock, and `announce` is None.
    """
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    lock, has_waited = None, False
    while lock is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = acquire(path, work)
        except FileNotFoundError:  # the last holder has just removed the empty folder
            continue
        except LockedError as fault:
            if announce is None:
                raise
            if not has_waited:
                announce(f"{fault}: waiting until it ends")
            has_waited = True
            time.sleep(_RETRY_SECONDS)
    try:
        yield has_waited
    finally:
        lock.release()
        with suppress(OSError):  # the folder is not empty
            for folder in missing:
                folder.rmdir()


def read_holder(path: Path) -> str:
    """Return the holder that a lock file names, `process 17 on node3, since ...`; empty if the lock is not held.

    The lock itself is not tested. A process on another machine is assumed to be running.
    """
    try:
        holder = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return ""
    found = _HOLDER.match(holder)
    if found is None or (found[2] == platform.node() and not _is_running(int(found[1]))):
        return ""
    return holder


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # running as another user
        pass
    return True


def _is_current(path: Path, descriptor: int) -> bool:
    """Return whether `path` still is the file that was opened."""
    try:
        found, opened = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)
