"""Image sets: labelled images on disk, whether from a source, generated or augmented.

A folder contains `images.npy` (N, H, W, C), uint8, or float16 for latents, or float32 (N, 1, 1, D) for vectors;
`labels.npy` (N,), int64; and `meta.json` with name, split, classes, counts, shape, dtype, the sha256 of the other
files, and further settings under `extra`. For images or latents of a folder of image files, `files.json` lists these
files, in the same order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from nfpi.config.base import NonNegativeInt, PositiveFloat, PositiveInt, Split
from nfpi.config.datasets import DataError as DataError
from nfpi.data.image_files import convert_image, read_image
from nfpi.runs import IMAGE_SET_FILES
from nfpi.runtime.divergence import raise_if_marked
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import file_digest
from nfpi.runtime.formats import FormatError, Record, check_record, read_json_object

if TYPE_CHECKING:
    from torch import Tensor

IMAGES, LABELS, META = IMAGE_SET_FILES.values()
FILES = (IMAGES, LABELS, META)
ORIGINALS = "files.json"
DTYPES = ("uint8", "float16", "float32")
MAY_BE_EMPTY: Split = "validation"
"""The only split that may be empty, namely if the data set is prepared with `refit`."""


class _Extra(Record):
    """The fields of `extra` that are checked whenever a set is read; others are not.

    Attributes:
        flip: whether mirrored images keep their class; :attr:`ImageSet.flip` requires it.
        temperature: temperature of generated images.
        variants: number of augmented variants of each training image.
        of: for variants, the digests of the image set whose images they replace.
        vae, image_folder, scale: for latents: folders of the autoencoder and of the encoded images, and divisor of the
            latents.
    """

    flip: bool = True
    temperature: PositiveFloat | None = None
    variants: PositiveInt | None = None
    of: dict[str, str] | None = None
    vae: str | None = None
    image_folder: str | None = None
    scale: PositiveFloat | None = None


class _Meta(Record):
    """Contents of `meta.json`."""

    name: str | None
    split: str | None
    classes: Annotated[list[str], Field(min_length=1)]
    counts: dict[str, NonNegativeInt]
    shape: Annotated[list[NonNegativeInt], Field(min_length=4, max_length=4)]
    dtype: Literal["uint8", "float16", "float32"]
    sha256: dict[str, str]
    extra: _Extra


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Args:
        images: uint8 values in [0, 255], or float16 latents, (N, H, W, C); a read-only memory map if read from disk.
        labels: int64 in [0, K), (N,).
        meta: contents of `meta.json`.
    """

    images: np.ndarray
    labels: np.ndarray
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle memory-mapped images as the path of their file."""
        images: Any = self.images
        stored = isinstance(images, np.memmap) and isinstance(images.base, mmap)  # the whole file, not a part
        return _restore, (Path(str(images.filename)) if stored else images, self.labels, self.meta)

    @property
    def classes(self) -> list[str]:
        """Names of the K classes, which labels index."""
        classes: list[str] = self.meta["classes"]
        return classes

    @property
    def flip(self) -> bool:
        """Whether mirrored images keep their class.

        Raises:
            DataError: `extra.flip` is missing.
        """
        if "flip" not in self.meta["extra"]:
            raise DataError(f"{self.meta.get('name')}: expected extra.flip in {META}, received none")
        return bool(self.meta["extra"]["flip"])

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width


def digest_images(images: np.ndarray) -> np.ndarray:
    """Return the 64-bit digests of images (N, H, W, C): (N,), int64."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), "<i8")


def convert_images(image_set: ImageSet, shape: tuple[int, int, int]) -> ImageSet:
    """Convert 8-bit images to another size and colour (C, H, W); those that have it, and vectors, are kept.

    Raises:
        DataError: vectors of another length.
    """
    if image_set.shape == shape:
        return image_set
    if image_set.images.dtype == np.float32:
        raise DataError(f"{image_set.meta.get('name')}: expected {shape[0]} columns, received {image_set.shape[0]}")
    channels, height, width = shape
    colour = np.broadcast_to(image_set.images, (*image_set.images.shape[:3], 3))
    found = [
        convert_image(np.ascontiguousarray(image), height, width, channels == 1)[..., :channels] for image in colour
    ]
    return replace(image_set, images=np.stack(found))


def _restore(images: np.ndarray | Path, labels: np.ndarray, meta: dict[str, Any]) -> ImageSet:
    """Restore a pickled image set."""
    return ImageSet(_load(images, mmap_mode="r") if isinstance(images, Path) else images, labels, meta)


def read_image_set(folder: Path, verify: bool = True) -> ImageSet:
    """Open an image set, with memory-mapped images.

    Args:
        folder: folder of the image set.
        verify: whether to verify the files by sha256, which reads all of them.

    Raises:
        DataError: a file is missing or damaged, or the files contradict each other.
        Diverged: the files record a divergence of the run whose images they would be.
    """
    folder = Path(folder)
    for file in FILES:
        if not (folder / file).is_file():
            raise DataError(f"{folder}: expected an image set ({', '.join(FILES)}), received no {file}")
    meta = _read_meta(folder / META)
    images, labels = _load(folder / IMAGES, mmap_mode="r"), _load(folder / LABELS)
    labels.flags.writeable = False
    for file, array, shape, dtype in (
        (IMAGES, images, meta["shape"], meta["dtype"]),
        (LABELS, labels, meta["shape"][:1], "int64"),
    ):
        if (list(array.shape), array.dtype.name) != (shape, dtype):
            received = f"{array.dtype} of {list(array.shape)}"
            raise DataError(f"{folder / file}: expected {dtype} of {shape}, received {received}")
    check_labels(folder / LABELS, labels, len(meta["classes"]))
    if verify:
        for file in (IMAGES, LABELS):
            _check_digest(folder / file, meta)
    return ImageSet(images, labels, meta)


def _read_meta(file: Path) -> dict[str, Any]:
    """Read and check `meta.json`; raises Diverged if it records a divergence."""
    try:
        raise_if_marked(file)
        meta = read_json_object(file)
        check_record(_Meta, meta, file, "the description of an image set")
    except FormatError as error:
        raise DataError(str(error)) from None
    if not all(meta["shape"][1:]) or not (meta["shape"][0] or meta["split"] == MAY_BE_EMPTY):
        raise DataError(f"{file}: expected images of shape (N, H, W, C), all positive, received {meta['shape']}")
    return meta


def _check_digest(file: Path, meta: Mapping[str, Any]) -> None:
    known, actual = meta["sha256"].get(file.name), file_digest(file)
    if actual != known:
        raise DataError(f"{file}: expected sha256 {known}, received {actual}")


@dataclass(frozen=True, eq=False)
class Pixels:
    """Labelled images as pixels, read one at a time.

    Args:
        image_set: set of pixels or latents.
        folder: folder of the image files that were encoded to latents; None: the set contains pixels.
        file_names: paths of these files relative to `folder`, (N,) strings; an array and not a list, so that forked
            processes share its memory.
    """

    image_set: ImageSet
    folder: Path | None = None
    file_names: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_set)

    def __getitem__(self, index: int) -> Tensor:
        """Read one image (C, H, W), uint8; H and W may differ between files.

        Raises:
            DataError: its file cannot be read.
        """
        import torch

        if self.folder is None or self.file_names is None:
            image = np.array(self.image_set.images[index])
        else:
            image = np.array(read_image(self.folder / str(self.file_names[index]))[0])
        return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def open_pixels(folder: Path) -> Pixels:
    """Open the images of a split as pixels; for latents, open the original image files.

    Args:
        folder: folder of the image set.

    Raises:
        DataError: a file of the set is missing or damaged, or a set of latents does not list the image files.
    """
    image_set = read_image_set(folder)
    if image_set.images.dtype != np.float16:  # pixels, or vectors
        return Pixels(image_set)
    names = read_file_names(folder, image_set)
    if names is None:
        raise DataError(f"{folder}: expected latents with the names of their image files ({ORIGINALS}), received none")
    return Pixels(image_set, Path(image_set.meta["extra"]["image_folder"]), np.array(names, dtype=np.str_))


def read_file_names(folder: Path, image_set: ImageSet) -> list[str] | None:
    """Read the paths of the image files of a set relative to their folder; None: they were not stored.

    Raises:
        DataError: the list of them is damaged.
    """
    file = Path(folder) / ORIGINALS
    if not file.is_file():
        return None
    _check_digest(file, image_set.meta)
    # not parse_json, which rejects the lone surrogates of file names that are not UTF-8
    names: list[str] = json.loads(file.read_text(encoding="ascii"))
    return names


def check_labels(where: Path | str, labels: np.ndarray, num_classes: int) -> None:
    """Raise DataError, naming `where`, unless labels are integers in [0, K)."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: expected integer labels, received {labels.dtype}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise DataError(
            f"{where}: expected labels from 0 to {num_classes - 1}, received {labels.min()} to {labels.max()}"
        )


def _load(file: Path, **options: Any) -> np.ndarray:
    """Open an npy file; unlike `numpy.load`, reject npz archives."""
    try:
        with file.open("rb") as opened:
            np.lib.format.read_magic(opened)
        array: np.ndarray = np.load(file, allow_pickle=False, **options)
    except Exception as error:  # NumPy reads a header as a Python literal, which may fail in many ways
        reason = format_error(error, 200)
        raise DataError(f"{file}: expected a whole npy file, received a damaged one ({reason})") from None
    return array
