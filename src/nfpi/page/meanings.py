"""What the project's metrics mean, a sentence each, for readers of a page."""

from __future__ import annotations

from collections.abc import Iterable

_MEANINGS = {
    "nf_acc": "NF-Acc: share of test images to whose class the flow gives the largest log p(x | y).",
    "nf_top5": "NF top-5: the same for the five largest.",
    "cnn_acc": "CNN-Acc: accuracy on test images of a classifier that learned from the flow's generated images alone.",
    "bits_per_dim": "bits/dim: −log₂ p(x | y) a dimension, y the image's own class.",
    "top1": "Top-1: accuracy of a classifier of real images.",
    "top5": "Top-5: share of images whose class is among the five most probable ones.",
    "real_top1": "ReaL: on the labels of ImageNet-ReaL.",
    "ece": "ECE: expected calibration error, 15 bins.",
    "worst_class_acc": "Worst class: accuracy of the class with the lowest one.",
    "parameters": "Parameters: of the flow, in millions.",
    "hours": "Training: hours after the fit of the prior, without validation.",
    "seconds_per_epoch": "Epoch: median time of one.",
    "seconds_per_1000_samples": "1000 samples: time to draw 1000 images.",
    "temperature": "T: temperature of the samples, z = μ + T Σ^½ ε.",
}

WEIGHT = "λ: weight of the repulsion between classes; at 0 (baseline) the Gaussians stay as they were initialised."
"""The same for λ."""


def meanings(names: Iterable[str]) -> list[str]:
    """Return a sentence for each of these metrics that has one, in the order that is fixed here."""
    wanted = set(names)
    return [sentence for name, sentence in _MEANINGS.items() if name in wanted]
