"""Accuracy and class probabilities of a classifier."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.classifiers.real_labels import RealLabels
from nfpi.data.batches import load_batches
from nfpi.data.store import ImageSet

_LARGEST_BATCH, _PIXELS_PER_BATCH = 500, 2**23


@dataclass(frozen=True)
class Scores:
    """Scores and class probabilities of N images.

    Attributes:
        top1: percentage of images whose largest logit is that of their label.
        top5: percentage with their label among the five largest logits (or K, where K < 5).
        log_prob: log p(y | x), the log-softmax of the logits, (N, K), float32, on the CPU.
        labels: (N,), int64, on the CPU.
        real_top1, real_top5: top1 and top5 on the images that have ReaL labels, where any ReaL label of an image counts
            as correct; None: not scored on ReaL labels.
    """

    top1: float
    top5: float
    log_prob: Tensor = field(repr=False, compare=False)
    labels: Tensor = field(repr=False, compare=False)
    real_top1: float | None = None
    real_top5: float | None = None


@torch.no_grad()
def score_classifier(
    model: nn.Module,
    image_set: ImageSet,
    preprocessing: Preprocessing,
    device: torch.device,
    real_labels: RealLabels | None = None,
    workers: int = 0,
) -> Scores:
    """Score a classifier in evaluation mode; every image counts once.

    Args:
        model: normalised images (B, C, H, W) → (B, K) logits, on `device`.
        image_set: 8-bit images of one size.
        preprocessing: how images are normalised.
        device: device of the model.
        real_labels: ReaL labels of these images, in their order; None: not scored on them.
        workers: number of processes that read images.
    """
    model.eval()
    channels, height, width = image_set.shape
    batch_size = max(1, min(_LARGEST_BATCH, _PIXELS_PER_BATCH // (height * width)))
    batches = load_batches(image_set, batch_size, seed=0, workers=workers, pin_memory=device.type == "cuda")
    normalize = preprocessing.make_normalizer(channels, device)
    correct, among_five = 0, 0
    log_prob, all_labels = [], []
    for images, labels in batches:
        logits = model(normalize(images.to(device, non_blocking=True))).cpu()
        correct += int((logits.argmax(1) == labels).sum())
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        among_five += int((best == labels[:, None]).sum())
        log_prob.append(logits.float().log_softmax(1))
        all_labels.append(labels)
        if real_labels is not None:
            real_labels.add(logits)
    return Scores(
        100 * correct / len(image_set),
        100 * among_five / len(image_set),
        torch.cat(log_prob),
        torch.cat(all_labels),
        *((real_labels.accuracy(1), real_labels.accuracy(5)) if real_labels is not None else ()),
    )
