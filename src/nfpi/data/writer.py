"""Write image sets and other folders as a whole, and resume those that an interrupted process left.

A folder is written beside its place and then renamed, so that it is never left half written (:func:`replace_folder`).
The rows of an array are written in any order, with checksums of those that are done (:class:`LabelledRows`).
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

import numpy as np
from numpy.typing import DTypeLike

from nfpi.config.datasets import DataError
from nfpi.data.store import DTYPES, FILES, IMAGES, LABELS, MAY_BE_EMPTY, META, ORIGINALS, check_labels
from nfpi.runtime.files import file_digest, sync
from nfpi.runtime.locks import locked
from nfpi.runtime.manifests import SUFFIX
from nfpi.runtime.signals import Interrupted

if TYPE_CHECKING:
    from nfpi.runtime.checkpoints import Checkpoints

_KEY_LENGTH = 12
"""hexadecimal digits in the names of temporary folders"""
_MINUTES_BETWEEN_SAVES = 1.0
_UNKNOWN = -1
_OF_OTHERS = re.compile(r"\.(DS_Store|nfs\w+|.*\.tmp)$")
"""names of files that macOS, NFS and killed processes leave in folders"""


@contextmanager
def replace_folder(
    folder: Path, names: Collection[str], resume_key: str | None = None, kept: str | None = None
) -> Iterator[Path]:
    """Create a temporary folder beside `folder`, which replaces it when the block ends without an error.

    After an error the temporary folder is removed and `folder` is unchanged. With a resume key, the temporary folder
    is kept if a signal stops the block or the process is killed, and the next call with the same resume key resumes
    it.

    Args:
        folder: the folder to write; an existing one is replaced as a whole.
        names: files and folders that it may contain, besides its manifest and what the system leaves there; a folder
            with others is never replaced.
        resume_key: digest of everything that the result depends on, in hexadecimal; None: never resume.
        kept: glob pattern; subfolders of the old folder that match it are moved to the new one. None: nothing is moved.

    Yields:
        The temporary folder.

    Raises:
        DataError: `folder` is a file or a link, or contains something not among `names`.
        LockedError: another process is writing it.
    """
    folder = Path(folder).absolute()
    folder = folder.parent.resolve() / folder.name
    _require_only(folder, names, kept)
    with locked(folder.with_name(f".{folder.name}.write.lock"), f"write {folder}"):
        partial = _make_temporary_path(folder, "partial", resume_key)
        partial.mkdir(exist_ok=resume_key is not None)
        keep = False
        try:
            yield partial
            _replace(partial, folder, kept)
            sync(folder.parent)
        except (Interrupted, KeyboardInterrupt):
            keep = resume_key is not None
            raise
        finally:
            if not keep:
                shutil.rmtree(partial, ignore_errors=True)
        _remove_remains(folder)


def _remove_remains(folder: Path) -> None:
    """Remove temporary folders left by killed processes."""
    key = "[0-9a-f]" * _KEY_LENGTH  # not `*`, which would match those of `temperature=1.1` for `temperature=1`
    for purpose in ("partial", "old"):
        for remains in folder.parent.glob(f".{glob.escape(folder.name)}.{key}.{purpose}"):
            shutil.rmtree(remains, ignore_errors=True)


def _require_only(folder: Path, names: Collection[str], kept: str | None) -> None:
    """Raise DataError unless a folder may be replaced, see :func:`replace_folder`."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise DataError(f"{folder}: expected a folder or nothing, received a file or a link")
    if not folder.exists():
        return
    present = {path.name for path in folder.iterdir()} - {path.name for path in _list_kept(folder, kept)}
    others = sorted(name for name in present if not (name in names or name.endswith(SUFFIX) or _OF_OTHERS.match(name)))
    if others:
        raise DataError(f"{folder}: expected only {', '.join(names)} in a folder to replace, received '{others[0]}'")


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


class LabelledRows:
    """An array (N, …) in an npy file whose rows, each with a label, are written in any order.

    All disk space is allocated in advance, because a full disk would kill a process that writes to a memory map.

    With a resume key, labels and checksums of the written rows are saved every minute (:meth:`save_progress`), and an
    object with the same arguments in a later process restores the rows whose checksums match.

    Args:
        path: npy file, in an existing folder.
        shape: (N, …).
        dtype: dtype of the array.
        resume_key: digest of everything that the rows depend on, in hexadecimal; None: progress is not saved.

    Attributes:
        array: the rows, a memory map.
        labels: (N,), non-negative; −1 for rows not yet written.

    Raises:
        OSError: there is not enough disk space.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: DTypeLike, resume_key: str | None = None) -> None:
        self.path = path
        self._checkpoints: Checkpoints | None = None
        self.labels = np.full(shape[0], _UNKNOWN, np.int64)
        self._sums = np.zeros(shape[0], np.int64)
        if resume_key is not None:
            from nfpi.runtime.checkpoints import Checkpoints  # imports torch

            self._checkpoints = Checkpoints(path.parent, resume_key, _MINUTES_BETWEEN_SAVES, "row")
            if self._restore():
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
        if self._checkpoints is not None:
            self._sums[indices] = [zlib.crc32(row) for row in np.ascontiguousarray(rows)]
        self.labels[indices] = labels  # last, so that a row with a label is complete even if a signal interrupts this
        if self._checkpoints is not None and self._checkpoints.is_due():
            self.save_progress()

    def save_progress(self) -> None:
        """Flush the rows, and save which rows are written."""
        self.array.flush()
        if self._checkpoints is not None:
            import torch

            state = {"labels": torch.from_numpy(self.labels), "sums": torch.from_numpy(self._sums)}
            self._checkpoints.save(int(self.written.sum()), state, {})

    @contextmanager
    def saved_if_stopped(self, what: str) -> Iterator[None]:
        """Save which rows are written if a signal stops the block; `what` names the rows in its message."""
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as stopped:
            if self._checkpoints is not None:
                self.save_progress()
                if isinstance(stopped, Interrupted):
                    stopped.kept = f"{self.written.sum()} of {len(self.labels)} {what}"
            raise

    def finish(self) -> None:
        """Flush all rows, and remove the saved progress.

        Raises:
            DataError: a row is missing.
        """
        if not self.written.all():
            expected, received = len(self.labels), self.written.sum()
            raise DataError(f"{self.path.name}: expected {expected} rows in all, received {received}")
        self.array.flush()
        if self._checkpoints is not None:
            self._checkpoints.clear()

    def _restore(self) -> bool:
        """Restore the intact rows of an earlier process; False if there is nothing to restore."""
        saved = self._checkpoints.load() if self._checkpoints is not None else None
        if saved is None:
            return False
        try:
            array = _open_allocated(self.path, "r+")
        except (FileNotFoundError, ValueError):
            return False
        self.array = array
        labels, sums = (saved[0][name].numpy() for name in ("labels", "sums"))
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
    """Allocate the disk space of a sparse file, if the system and the file system support it."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


class ImageSetWriter:
    """Writer of an image set in pieces; the folder appears when the `with` block ends without an error.

    Args:
        folder: folder of the set; an existing image set is replaced.
        length: number of images N; 0 only for a validation split.
        shape: shape (H, W, C) of one image.
        classes: names of the K classes.
        name, split: names of the data set and of the split, if any.
        dtype: uint8, or float16 for latents.
        originals: paths of the N image files that the images are of; None: they are of no such files.
        resume_key: digest of everything that the images depend on, in hexadecimal. A set that was interrupted with the
            same resume_key is resumed (see `rows`); None: an interrupted set is removed.
        extra: further settings for `meta.json` (JSON values).

    Attributes:
        rows: the images (N, H, W, C), also those not yet written, and which are written; from the `with` block's begin.

    Raises:
        DataError: wrong shape, dtype or range of an argument or a piece, or the pieces do not sum up to N images.
    """

    def __init__(
        self,
        folder: Path,
        length: int,
        shape: Sequence[int],
        classes: Sequence[str],
        *,
        name: str | None = None,
        split: str | None = None,
        dtype: DTypeLike = np.uint8,
        originals: Sequence[str] | None = None,
        resume_key: str | None = None,
        **extra: Any,
    ) -> None:
        self.folder = Path(folder)
        shape = (length, *map(int, shape))
        fewest = 0 if split == MAY_BE_EMPTY else 1
        if len(shape) != 4 or length < fewest or min(shape[1:]) < 1:
            raise DataError(f"{folder}: expected images of shape (N, H, W, C), all positive, received {shape}")
        if np.dtype(dtype).name not in DTYPES:
            raise DataError(f"{folder}: expected images as {' or '.join(DTYPES)}, received {np.dtype(dtype).name}")
        if not classes or len(set(classes)) != len(classes):
            raise DataError(f"{folder}: expected distinct class names, at least one, received {list(classes)}")
        self._shape, self._dtype, self._originals = shape, np.dtype(dtype), originals
        self._resume_key = resume_key
        self._classes = list(classes)
        self._name, self._split, self._extra = name, split, extra

    def __enter__(self) -> Self:
        self._writing = self._write()
        return self._writing.__enter__()

    def __exit__(self, *fault: Any) -> None:
        self._writing.__exit__(*fault)

    @contextmanager
    def _write(self) -> Iterator[Self]:
        with replace_folder(self.folder, (*FILES, ORIGINALS), self._resume_key) as partial:
            self.rows = LabelledRows(partial / IMAGES, self._shape, self._dtype, self._resume_key)
            with self.rows.saved_if_stopped(f"images for {self.folder}"):
                yield self
            self.rows.finish()
            self._write_labels_and_meta(partial)

    def put(self, indices: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """Write B images (B, H, W, C) and their labels (B,) at these indices (B,) of the set."""
        images, labels = np.asarray(images), np.asarray(labels)
        expected = (len(indices), *self._shape[1:])
        if labels.shape != expected[:1] or images.shape != expected or images.dtype != self._dtype:
            raise DataError(
                f"{self.folder}: expected {self._dtype} images of shape {expected} and {len(indices)} labels, "
                f"received {images.dtype} of shape {images.shape} and labels of shape {labels.shape}"
            )
        check_labels(self.folder, labels, len(self._classes))
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise DataError(f"{self.folder}: expected finite latents, received NaN or infinity near image {indices[0]}")
        self.rows.put(indices, images, labels)

    def _write_labels_and_meta(self, partial: Path) -> None:
        labels = self.rows.labels
        np.save(partial / LABELS, labels)
        files = [IMAGES, LABELS]
        if self._originals is not None:  # as ASCII: file names need not be valid Unicode
            (partial / ORIGINALS).write_text(json.dumps(list(self._originals), indent=0) + "\n", encoding="ascii")
            files.append(ORIGINALS)
        counts = np.bincount(labels, minlength=len(self._classes)).tolist()
        digests = {file: file_digest(partial / file) for file in files}
        meta = {
            "name": self._name,
            "split": self._split,
            "classes": self._classes,
            "counts": dict(zip(self._classes, counts, strict=True)),
            "shape": list(self._shape),
            "dtype": self._dtype.name,
            "sha256": digests,
            "extra": self._extra,
        }
        text = json.dumps(meta, indent=2, ensure_ascii=False, allow_nan=False)
        (partial / META).write_text(text + "\n", encoding="utf-8")
        for file in (*files, META):
            sync(partial / file)


def write_image_set(
    folder: Path, images: np.ndarray, labels: np.ndarray, classes: Sequence[str], **settings: Any
) -> None:
    """Write images (N, H, W, C) from memory; settings and errors are those of :class:`ImageSetWriter`."""
    with ImageSetWriter(folder, len(images), images.shape[1:], classes, dtype=images.dtype, **settings) as writer:
        writer.put(np.arange(len(images)), images, labels)
