"""Top-1 and top-5 of a classifier, on a data set's own labels and on ImageNet-ReaL's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.data.store import ImageSet
from nfpi.data.batches import batches

_LARGEST_BATCH, _PIXELS_OF_A_BATCH = 500, 2**23
_VALIDATION_IMAGES = 50_000


@dataclass(frozen=True)
class Scores:
    """Percentages of images.

    Attributes:
        top1: whose largest logit is that of their label.
        top5: whose label is among the five largest (or K, where K < 5).
        real_top1, real_top5: the same, where any of an image's ReaL labels is right; of the images that have some.
            None where there are no ReaL labels.
    """

    top1: float
    top5: float
    real_top1: float | None = None
    real_top5: float | None = None


class RealLabels:
    """Scores on ImageNet-ReaL's labels (Beyer et al., 2020), by timm's `RealLabelsImagenet` and the labels it ships.

    Args:
        files: file names of the images, in the order in which their logits come: ILSVRC2012_val_XXXXXXXX.
        classes: names of the K classes, which are synsets of ImageNet; logits are in their order.
        labels: JSON file of labels for the validation images in order, in place of those that timm ships.

    Raises:
        ValueError: a file or a class is none of ImageNet's.
    """

    def __init__(self, files: Sequence[str], classes: Sequence[str], labels: Path | None = None) -> None:
        from timm.data import ImageNetInfo, RealLabelsImagenet

        names = [f"{Path(file).stem}.JPEG" for file in files]
        rest = [""] * (_VALIDATION_IMAGES - len(files) if labels is None else 0)  # timm wants a name for every label
        synsets = ImageNetInfo("imagenet-1k").label_names()
        self.num_classes = len(synsets)
        self._scorer = RealLabelsImagenet(names + rest, labels, topk=(1, 5))
        for kind, name, known in (
            *(("a file", name, self._scorer.real_labels) for name in names),
            *(("a class", name, synsets) for name in classes),
        ):
            if name not in known:
                raise ValueError(f"real_labels: expected {kind} of ImageNet's validation set, received '{name}'")
        self._columns = torch.tensor([synsets.index(name) for name in classes])

    def add(self, logits: Tensor) -> None:
        """Score the next B images by their logits, (B, K)."""
        of_all = torch.full((len(logits), self.num_classes), -torch.inf)
        of_all[:, self._columns] = logits.float().cpu()
        self._scorer.add_result(of_all)

    def accuracy(self, k: int) -> float:
        """Percentage of the images with ReaL labels that have one of them among their k ∈ {1, 5} largest logits."""
        return self._scorer.get_accuracy(k)


@torch.no_grad()
def classifier_scores(
    model: nn.Module,
    image_set: ImageSet,
    preprocessing: Preprocessing,
    device: torch.device,
    real_labels: RealLabels | None = None,
    workers: int = 0,
) -> Scores:
    """Scores of a classifier, in evaluation mode; every image counts once.

    Args:
        model: normalised images (B, C, H, W) → (B, K) logits, on `device`.
        image_set: 8-bit images of one size.
        preprocessing: how images are normalised.
        device: where the model is.
        real_labels: made for these images in this order; none: not scored.
        workers: processes that read images.
    """
    model.eval()
    _, height, width = image_set.shape
    batch_size = max(1, min(_LARGEST_BATCH, _PIXELS_OF_A_BATCH // (height * width)))
    correct, among_five = 0, 0
    for images, labels in batches(image_set, batch_size, seed=0, workers=workers, pin_memory=device.type == "cuda"):
        logits = model(preprocessing.normalized(images.to(device, non_blocking=True))).cpu()
        correct += int((logits.argmax(1) == labels).sum())
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        among_five += int((best == labels[:, None]).sum())
        if real_labels is not None:
            real_labels.add(logits)
    top1, top5 = (100 * count / len(image_set) for count in (correct, among_five))
    if real_labels is None:
        return Scores(top1, top5)
    return Scores(top1, top5, real_labels.accuracy(1), real_labels.accuracy(5))
