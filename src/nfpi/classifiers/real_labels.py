"""Accuracy on the ReaL labels of ImageNet's validation images (Beyer et al., 2020)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nfpi.data.store import Pixels

logger = logging.getLogger(__name__)

_VALIDATION_IMAGES = 50_000


class RealLabels:
    """Accuracy on the ReaL labels, by timm's `RealLabelsImagenet`.

    Args:
        files: file names of the images, in the order of their logits, such as ILSVRC2012_val_00000001.JPEG.
        classes: names of the K classes, which are synsets of ImageNet, in the order of the logits.
        labels: JSON file with the ReaL labels of the first N validation images (ILSVRC2012_val_00000001, ...), where N
            is the number of `files`; None: those of all 50 000 validation images, which timm ships.

    Raises:
        ValueError: a file or a class is not one of ImageNet's validation set, or there are more files than labels.
    """

    def __init__(self, files: Sequence[str], classes: Sequence[str], labels: Path | None = None) -> None:
        from timm.data import ImageNetInfo, RealLabelsImagenet  # slow to import, and rarely used

        names = [f"{Path(file).stem}.JPEG" for file in files]
        if labels is None and len(files) > _VALIDATION_IMAGES:
            raise ValueError(
                f"real_labels: expected at most {_VALIDATION_IMAGES} files, those of ImageNet's validation set, "
                f"received {len(files)}"
            )
        rest = [""] * (_VALIDATION_IMAGES - len(files) if labels is None else 0)  # timm requires a name for every label
        synsets = ImageNetInfo("imagenet-1k").label_names()
        self.num_classes = len(synsets)
        self._scorer = RealLabelsImagenet(names + rest, labels, topk=(1, min(5, len(classes))))
        for kind, name, known in (
            *(("a file", name, self._scorer.real_labels) for name in names),
            *(("a class", name, synsets) for name in classes),
        ):
            if name not in known:
                received = files[names.index(name)] if kind == "a file" else name
                raise ValueError(f"real_labels: expected {kind} of ImageNet's validation set, received '{received}'")
        self._columns = torch.tensor([synsets.index(name) for name in classes])

    def add(self, logits: Tensor) -> None:
        """Score the next B images by their logits, (B, K)."""
        imagenet_logits = torch.full((len(logits), self.num_classes), -torch.inf)
        imagenet_logits[:, self._columns] = logits.float().cpu()
        self._scorer.add_result(imagenet_logits)

    def accuracy(self, k: int) -> float:
        """Return the percentage of images for which a ReaL label is among the min(k, K) largest logits, k ∈ {1, 5}.

        Images without ReaL labels are left out.
        """
        accuracy: float = self._scorer.get_accuracy(min(k, len(self._columns)))
        return accuracy


def find_real_labels(pixels: Pixels) -> RealLabels | None:
    """Find the ReaL labels of images by the names of their files.

    Returns:
        The labels; None, with a warning, if the names are not known, as for sets that are stored as pixels.

    Raises:
        ValueError: a file or a class is not one of ImageNet's validation set.
    """
    if pixels.file_names is None:
        logger.warning("%s: the names of the image files are not known: no score on ReaL labels", pixels.meta["name"])
        return None
    return RealLabels([str(name) for name in pixels.file_names], pixels.classes)
