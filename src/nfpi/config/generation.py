"""Settings of what is done with a trained flow: evaluation, generation, latent augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nfpi.config.base import PositiveFloat, PositiveInt, Settings, Share


class EvaluationConfig(Settings):
    """Measurement of a flow on the validation and the test split."""

    batch_size: PositiveInt = 1000
    timed_samples: PositiveInt = 100
    """images drawn to measure the time that sampling takes"""


class GenerationConfig(Settings):
    """Labelled images drawn from the flow."""

    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.7, 0.8, 0.9, 1.0, 1.1, 1.2]
    """compared on the validation split; the best one is tested"""
    per_class: PositiveInt = 5000
    """images"""
    batch_size: PositiveInt = 1000


Displacement = Literal["mix", "noise"]
"""How latent augmentation moves a latent: towards another one of its class, or as far in a random direction."""


class NfaConfig(Settings):
    """Latent augmentation: a latent moves towards another one of its class, in the span of the class's PCA axes."""

    axes: PositiveInt = 64
    """leading PCA axes of each class's latents"""
    law: Literal["beta", "fixed"] = "beta"
    """share of the way: strength · u with u ~ Beta(concentration, concentration), or strength itself"""
    concentration: PositiveFloat = 1.0
    """1: uniform"""
    strength: Share = 0.5
    """largest share of the way to the partner; 0 gives the image back"""
    variants: PositiveInt = 3
    """augmented images made of each training image"""
    batch_size: PositiveInt = 500
