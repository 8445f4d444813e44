"""Write image sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from nfpi.data.atomic import replace_folder
from nfpi.data.errors import DataError
from nfpi.data.rows import LabelledRows
from nfpi.data.store import DTYPES, FILES, IMAGES, KEYS, LABELS, MAY_BE_EMPTY, META, ORIGINALS, check_labels
from nfpi.runtime.files import file_digest, note_digest, sync
from nfpi.runtime.signals import Interrupted


class ImageSetWriter:
    """Writer of an image set in pieces; the folder appears when the `with` block ends without an error.

    Args:
        folder: folder of the set; an existing image set is replaced.
        length: number of images N; 0 only for a validation split.
        shape: shape (H, W, C) of one image.
        classes: names of the K classes.
        name, split: names of the data set and of the split, if any.
        dtype: uint8, or float16 for latents.
        originals: paths of the N image files that were encoded to latents; None: pixels, or latents of no image files.
        fingerprint: digest of everything that the images depend on, in hexadecimal. A set that was interrupted with the
            same fingerprint is resumed (see `written`); None: an interrupted set is removed.
        extra: further settings for `meta.json` (JSON values).

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
        fingerprint: str | None = None,
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
        if originals is not None and len(originals) != length:
            raise DataError(f"{folder}: expected {length} original files, received {len(originals)}")
        self._shape, self._dtype, self._originals = shape, np.dtype(dtype), originals
        self._fingerprint = fingerprint
        self._classes = list(classes)
        self._settings: dict[str, Any] = {"name": name, "split": split, "extra": extra}
        self._appended = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            names = (*FILES, ORIGINALS)
            self._partial = stack.enter_context(replace_folder(self.folder, names, self._fingerprint))
            self._rows = LabelledRows(self._partial / IMAGES, self._shape, self._dtype, self._fingerprint)
            stack.push(self._complete)
            self._stack = stack.pop_all()
        return self

    @property
    def written(self) -> np.ndarray:
        """Whether each image is written, (N,), by this or by the interrupted process."""
        return self._rows.written

    @property
    def first_missing(self) -> int:
        """Index of the first image not yet written; N if there is none."""
        return self._rows.first_missing

    def append(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Write B more images (B, H, W, C) and their labels (B,)."""
        start, stop = self._appended, self._appended + len(images)
        if stop > self._shape[0]:
            raise DataError(f"{self.folder}: expected {self._shape[0]} images in all, received {stop} or more")
        self.put(np.arange(start, stop), images, labels)
        self._appended = stop

    def put(self, indices: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """Write B images (B, H, W, C) and their labels (B,) at these indices (B,) of the set."""
        images, labels = np.asarray(images), np.asarray(labels)
        if labels.ndim != 1:
            raise DataError(f"{self.folder}: expected labels of shape (B,), received {labels.shape}")
        if len(labels) != len(indices):
            raise DataError(f"{self.folder}: expected {len(indices)} labels, received {len(labels)}")
        expected = (len(labels), *self._shape[1:])
        if images.shape != expected or images.dtype != self._dtype:
            raise DataError(
                f"{self.folder}: expected {self._dtype} images of shape {expected} for {len(labels)} labels, "
                f"received {images.dtype} of shape {images.shape}"
            )
        check_labels(self.folder, labels, len(self._classes))
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise DataError(f"{self.folder}: expected finite latents, received NaN or infinity near image {indices[0]}")
        self._rows.put(indices, images, labels)

    def note(self, **extra: Any) -> None:
        """Add settings to `extra` in `meta.json` (JSON values)."""
        self._settings["extra"].update(extra)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _complete(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write labels and meta.json, or after an interruption the progress; no folder is left if this fails."""
        if isinstance(error, (Interrupted, KeyboardInterrupt)) and self._fingerprint is not None:
            self._rows.save_progress()
            if isinstance(error, Interrupted):
                error.kept = f"{np.count_nonzero(self.written)} of {self._shape[0]} images for {self.folder}"
        if kind is not None:
            return
        written, labels = np.count_nonzero(self.written), self._rows.labels
        if written != self._shape[0]:
            raise DataError(f"{self.folder}: expected {self._shape[0]} images in all, received {written}")
        self._rows.finish()
        np.save(self._partial / LABELS, labels)
        files = [IMAGES, LABELS]
        if self._originals is not None:  # as ASCII: file names need not be valid Unicode
            (self._partial / ORIGINALS).write_text(json.dumps(list(self._originals), indent=0) + "\n", encoding="ascii")
            files.append(ORIGINALS)
        counts = np.bincount(labels, minlength=len(self._classes)).tolist()
        digests = {file: file_digest(self._partial / file) for file in files}
        meta = {
            **self._settings,
            "classes": self._classes,
            "counts": dict(zip(self._classes, counts, strict=True)),
            "shape": list(self._shape),
            "dtype": self._dtype.name,
            "sha256": digests,
        }
        text = json.dumps({key: meta[key] for key in KEYS}, indent=2, ensure_ascii=False, allow_nan=False)
        (self._partial / META).write_text(text + "\n", encoding="utf-8")
        for file in (*files, META):
            sync(self._partial / file)
        for file, digest in digests.items():
            note_digest(self.folder / file, digest)


def write_image_set(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    name: str | None = None,
    split: str | None = None,
    **extra: Any,
) -> None:
    """Write images (N, H, W, C) from memory; arguments and errors are those of :class:`ImageSetWriter`."""
    settings = {"name": name, "split": split, "dtype": images.dtype, **extra}
    with ImageSetWriter(folder, len(images), images.shape[1:], classes, **settings) as writer:
        writer.append(images, labels)
