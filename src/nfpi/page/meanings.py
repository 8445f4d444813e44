"""Explanations of metrics on a page."""

from __future__ import annotations

from collections.abc import Iterable

_MEANINGS = {
    "nf_acc": "NF-Acc: share of test images whose class has the largest log p(x | y) under the flow.",
    "nf_top5": "NF top-5: the same for the five largest.",
    "cnn_acc": "CNN-Acc: accuracy on test images of a classifier trained only on the flow's generated images.",
    "bits_per_dim": "bits/dim: −log₂ p(x | y) per dimension, with y the class of the image.",
    "top1": "Top-1: accuracy of a classifier of real images.",
    "top5": "Top-5: share of images whose class is among the five most probable ones.",
    "real_top1": "ReaL: on the labels of ImageNet-ReaL.",
    "ece": "ECE: expected calibration error, 15 bins.",
    "worst_class_acc": "Worst class: lowest accuracy of a class.",
    "parameters": "Parameters: of the flow, in millions.",
    "hours": "Training: hours after the fit of the prior, without validation.",
    "seconds_per_epoch": "Epoch: median time of an epoch.",
    "seconds_per_1000_samples": "1000 samples: time to draw 1000 images.",
    "temperature": "T: temperature of the samples, z = μ + T Σ^½ ε.",
}

WEIGHT = "λ: weight of the repulsion between classes; at 0 (baseline) the Gaussians keep their initial values."
"""Explanation of λ."""


def meanings(names: Iterable[str]) -> list[str]:
    """Return the explanations of these metrics, in a fixed order."""
    wanted = set(names)
    return [sentence for name, sentence in _MEANINGS.items() if name in wanted]
