"""Settings of the evaluation of a trained flow, of generation, and of latent augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nfpi.config.base import EXECUTION, LocalPath, Name, PositiveFloat, PositiveInt, Settings, Share


class EvaluationConfig(Settings):
    """Evaluation of a flow on the validation and the test split."""

    batch_size: PositiveInt = 1000
    timed_samples: PositiveInt = 100
    """images drawn to measure the sampling time"""
    unknown: Name | None = None
    """data set whose test images, resized and converted between grey and colour, are to be told from those of the
    classes (metrics auroc_…, fpr95_…); None: none"""


class GenerationConfig(Settings):
    """Sampling of labelled images from the flow."""

    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.7, 0.8, 0.9, 1.0, 1.1, 1.2]
    """temperatures compared by `validation_cnn_acc`; only the best one's classifier is tested"""
    per_class: PositiveInt = 5000
    """images per class"""
    batch_size: PositiveInt = 1000


class QualityConfig(Settings):
    """Comparison of generated with real images by features of a network, for FID, KID, precision and recall."""

    images: PositiveInt = 10_000
    """images of each set, drawn at random; all of the smaller set if it has fewer, and as many of the other one"""
    split: Literal["train", "test"] = "train"
    """split of the real images"""
    neighbors: PositiveInt = 3
    """k of precision and recall"""
    kid_subsets: PositiveInt = 100
    """random subsets of both sets over which KID is averaged"""
    kid_subset_size: PositiveInt = 1000
    inception: Annotated[LocalPath | None, EXECUTION] = None
    """file of the weights that torch-fidelity publishes for Inception; needed by metrics such as `fid_inception`"""


Displacement = Literal["mix", "noise"]
"""How latent augmentation moves a latent: towards another latent of its class, or equally far in a random direction."""


class NfaConfig(Settings):
    """Latent augmentation: a latent moves towards a partner in its class, within the span of the class's PCA axes."""

    axes: PositiveInt = 64
    """leading PCA axes of each class's latents"""
    law: Literal["beta", "fixed"] = "beta"
    """the step, as a share of the distance to the partner; `beta`: strength · u with a random
    u ~ Beta(concentration, concentration); `fixed`: always strength"""
    concentration: PositiveFloat = 1.0
    """parameter of the beta distribution; 1: uniform"""
    strength: Share = 0.5
    """maximum step, as a share of the distance to the partner; 0 leaves images unchanged"""
    variants: PositiveInt = 3
    """augmented images per training image"""
    batch_size: PositiveInt = 500
