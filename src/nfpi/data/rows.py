"""Resumable writing of arrays to disk, row by row."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from nfpi.data.errors import DataError

if TYPE_CHECKING:
    from nfpi.data.progress import Progress

_MINUTES_BETWEEN_SAVES = 1.0
_UNKNOWN = -1


class LabelledRows:
    """An array (N, …) in an npy file whose rows, each with a label, are written in any order.

    All disk space is allocated in advance, because a full disk would kill a process that writes to a memory map.

    With a fingerprint, labels and checksums of the written rows are saved every minute (:meth:`save_progress`), and an
    object with the same path and fingerprint in a later process restores the rows whose checksums match.

    Args:
        path: npy file, in an existing folder.
        shape: (N, …).
        dtype: dtype of the array.
        fingerprint: digest of everything that the rows depend on, in hexadecimal; None: progress is not saved.

    Attributes:
        array: the rows, a memory map.
        labels: (N,), non-negative; −1 for rows not yet written.

    Raises:
        OSError: there is not enough disk space.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: DTypeLike, fingerprint: str | None = None) -> None:
        self.path = path
        self._progress: Progress | None = None
        self.labels = np.full(shape[0], _UNKNOWN, np.int64)
        self._sums = np.zeros(shape[0], np.int64)
        if fingerprint is not None:
            from nfpi.data.progress import Progress  # imports torch

            content = f"{fingerprint} {list(shape)} {np.dtype(dtype).name}"
            self._progress = Progress(path.parent, hashlib.sha256(content.encode()).hexdigest(), _MINUTES_BETWEEN_SAVES)
            if self._restore(tuple(shape), np.dtype(dtype)):
                return
        self.array = _open_allocated(path, "w+", dtype=np.dtype(dtype), shape=tuple(shape))

    @property
    def written(self) -> np.ndarray:
        """Whether each row is written, (N,)."""
        written: np.ndarray = self.labels != _UNKNOWN
        return written

    @property
    def first_missing(self) -> int:
        """Index of the first row not yet written; N if there is none."""
        missing = np.flatnonzero(~self.written)
        return int(missing[0]) if len(missing) else len(self.labels)

    def put(self, indices: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> None:
        """Write B rows (B, …) and their labels (B,) at these indices (B,)."""
        rows = np.asarray(rows, self.array.dtype)  # checksums are of rows as the file contains them
        self.array[indices] = rows
        if self._progress is not None:
            self._sums[indices] = [zlib.crc32(row) for row in np.ascontiguousarray(rows)]
        self.labels[indices] = labels  # last, so that a row with a label is complete even if a signal interrupts this
        if self._progress is not None and self._progress.is_due():
            self.save_progress()

    def save_progress(self) -> None:
        """Flush the rows, and save which rows are written."""
        self.array.flush()
        if self._progress is not None:
            self._progress.save(int(self.written.sum()), self.labels, self._sums)

    def finish(self) -> None:
        """Flush all rows, and remove the saved progress.

        Raises:
            DataError: a row is missing.
        """
        if not self.written.all():
            expected, received = len(self.labels), int(self.written.sum())
            raise DataError(f"{self.path}: expected {expected} rows in all, received {received}")
        self.array.flush()
        if self._progress is not None:
            self._progress.clear()

    def _restore(self, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        """Restore the intact rows of an earlier process; False if there is nothing to restore."""
        assert self._progress is not None
        saved = self._progress.load()
        if saved is None:
            return False
        try:
            array = _open_allocated(self.path, "r+")
        except (FileNotFoundError, ValueError):
            return False
        if array.shape != shape or array.dtype != dtype:  # written since by a process with another fingerprint
            return False
        self.array = array
        labels, sums = saved
        for index in np.flatnonzero(labels != _UNKNOWN):
            if zlib.crc32(np.ascontiguousarray(array[index]).data) == sums[index]:
                self.labels[index], self._sums[index] = labels[index], sums[index]
        return True


def _open_allocated(path: Path, mode: Literal["w+", "r+"], **form: Any) -> np.memmap:
    """Open a memory map whose disk space is fully allocated."""
    try:
        array = np.lib.format.open_memmap(path, mode, **form)
        _allocate(path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None
    return array


def _allocate(path: Path) -> None:
    """Allocate the disk space of a sparse file, if the system supports it."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not supported by the file system
                raise
