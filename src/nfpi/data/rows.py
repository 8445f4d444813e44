"""Arrays on their way to disk, row by row, that another process can go on with."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike

from nfpi.data.errors import DataError
from nfpi.runtime.checkpoints import CheckpointRing

_MINUTES = 1.0
_UNKNOWN = -1


class LabelledRows:
    """An array (N, …) in an npy file, whose rows are written in any order, each with its label.

    The disk space is taken at once: a memory map that finds no room later would end the process without a word.

    With a fingerprint, what is written is noted every minute (:meth:`note`) with a checksum of each row. A later one of
    the same path and fingerprint has these rows already, but for damaged ones.

    Args:
        path: of the npy file, in a folder that is there.
        shape: (N, …).
        dtype: of the array.
        fingerprint: of all that the rows depend on, in hexadecimal; none: nothing is noted.

    Attributes:
        array: the rows, a memory map.
        labels: (N,), not negative; −1 where no row is written.

    Raises:
        OSError: there is no room for the array.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: DTypeLike, fingerprint: str | None = None) -> None:
        self.path, self._ring = path, None
        self.labels = np.full(shape[0], _UNKNOWN, np.int64)
        self._sums = np.zeros(shape[0], np.int64)
        if fingerprint is not None:
            form = f"{fingerprint} {list(shape)} {np.dtype(dtype).name}"
            self._ring = CheckpointRing(path.parent, hashlib.sha256(form.encode()).hexdigest(), _MINUTES, "row")
            if self._taken_up():
                return
        self.array = _on_disk(path, "w+", dtype=np.dtype(dtype), shape=tuple(shape))

    @property
    def written(self) -> np.ndarray:
        """Whether each row is there, (N,)."""
        return self.labels != _UNKNOWN

    @property
    def first_missing(self) -> int:
        """Index of the first row that is not there; N if there is none."""
        missing = np.flatnonzero(~self.written)
        return int(missing[0]) if len(missing) else len(self.labels)

    def put(self, places: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> None:
        """Write B rows (B, …) and their labels (B,) at their places (B,)."""
        self.array[places] = rows
        if self._ring is not None:
            self._sums[places] = [zlib.crc32(row) for row in np.ascontiguousarray(rows)]
        self.labels[places] = labels  # last: where it stands the row is whole, wherever a signal ends this
        if self._ring is not None and self._ring.due():
            self.note()

    def note(self) -> None:
        """Make sure that what is written so far is found again."""
        self.array.flush()
        if self._ring is not None:
            noted = {"labels": torch.from_numpy(self.labels), "sums": torch.from_numpy(self._sums)}
            self._ring.save(int(self.written.sum()), noted, {})

    def finish(self) -> None:
        """Bring everything to the disk, and forget the notes.

        Raises:
            DataError: a row is missing.
        """
        if not self.written.all():
            expected, received = len(self.labels), int(self.written.sum())
            raise DataError(f"{self.path}: expected {expected} rows in all, received {received}")
        self.array.flush()
        if self._ring is not None:
            self._ring.clear()

    def _taken_up(self) -> bool:
        """Whether there is such an array already; its rows that are whole are those that count as written."""
        assert self._ring is not None
        found = self._ring.load()
        if found is None:
            return False
        try:
            self.array = _on_disk(self.path, "r+")
        except (FileNotFoundError, ValueError):
            return False
        noted = {name: tensor.numpy() for name, tensor in found[0].items()}
        for place in np.flatnonzero(noted["labels"] != _UNKNOWN):
            if zlib.crc32(np.ascontiguousarray(self.array[place]).data) == noted["sums"][place]:
                self.labels[place], self._sums[place] = noted["labels"][place], noted["sums"][place]
        return True


def _on_disk(path: Path, mode: Literal["w+", "r+"], **form: Any) -> np.memmap:
    """A memory map whose file takes all of its disk space."""
    try:
        array = np.lib.format.open_memmap(path, mode, **form)
        _reserve(path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None
    return array


def _reserve(path: Path) -> None:
    """Take the disk space of a file that may have been made without; where that cannot be said, nothing is done."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # those of file systems that cannot
                raise
