"""Pixels for classifiers, from an image set or from the image files that were encoded to a set of latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfpi.data.image_files import read_image
from nfpi.data.store import ImageSet, read_image_set, read_originals


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
        if self.folder is None or self.file_names is None:
            image = np.array(self.image_set.images[index])
        else:
            image = np.array(read_image(self.folder / str(self.file_names[index]))[0])
        return torch.from_numpy(image).permute(2, 0, 1).contiguous()

    @property
    def labels(self) -> np.ndarray:
        """Labels in [0, K), (N,), int64."""
        return self.image_set.labels

    @property
    def classes(self) -> list[str]:
        """Names of the K classes."""
        return self.image_set.classes

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.image_set.num_classes

    @property
    def meta(self) -> dict[str, Any]:
        """Contents of the set's `meta.json`."""
        return self.image_set.meta


def open_pixels(folder: Path, verify: bool = True) -> Pixels:
    """Open the images of a split as pixels; for latents, open the original image files.

    Args:
        folder: folder of the image set.
        verify: whether to verify the set's files by sha256, which reads all of them.

    Raises:
        DataError: a file of the set is missing or damaged, or a set of latents does not list the image files.
    """
    image_set = read_image_set(folder, verify)
    if image_set.images.dtype == np.uint8:
        return Pixels(image_set)
    names = np.array(read_originals(folder, image_set.meta), dtype=np.str_)
    return Pixels(image_set, Path(image_set.meta["extra"]["image_folder"]), names)
