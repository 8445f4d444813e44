"""Settings of the training of a flow."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from nfpi.config.base import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Settings

NO_RESULT = {"workers", "checkpoint_minutes", "evaluate_every", "tracking", "sample_every_epochs", "keep"}
"""Settings of trainings that say how they are run and watched, not what comes out."""


class TrainingConfig(Settings):
    """Training of the flow by maximum likelihood."""

    epochs: PositiveInt = 500
    """passes over the training set, those before the fit included"""
    fit_after_epochs: NonNegativeInt = 1
    """epochs under the initial prior, before the fit"""
    batch_size: PositiveInt = 512
    optimizer: Literal["adamax", "adam", "adamw"] = "adamax"
    learning_rate: PositiveFloat = 1e-2
    """after the warm-up"""
    schedule: Literal["constant", "cosine"] = "constant"
    """of the learning rate after the warm-up: constant, or half a cosine wave down to 0 at the end of training"""
    warmup_steps: NonNegativeInt = 1000
    """steps of linear warm-up"""
    weight_decay: NonNegativeFloat = 0.0
    gradient_clip: NonNegativeFloat = 0.0
    """largest norm of the gradient; 0: not clipped, as in the released runs"""
    ema_decay: Fraction = 0.9999
    """largest decay of the exponential moving average: min(ema_decay, 1 − (1 + step)^−ema_power)"""
    ema_power: PositiveFloat = 0.75
    initialization_images: PositiveInt = 1024
    """augmented training images of the data-dependent initialisation"""
    augmentation: Literal["none", "flip", "shift", "released"] = "released"
    """released: flip, colour jitter, rotation by ±12°, crop; shift: pad and crop, for digits"""
    grey_noise: NonNegativeFloat = 0.05
    """grey images get U[0, grey_noise) of the value range besides the dequantisation noise"""
    latent_noise: NonNegativeFloat = 0.05
    """an autoencoder's latents get Gaussian noise of this share of each element's spread, not dequantisation noise"""
    evaluate_every: PositiveInt = 5
    """epochs between two evaluations on the validation split"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    workers: NonNegativeInt = 0
    """processes that read and augment images; 0: the training process does"""
    checkpoint_minutes: PositiveFloat = 10.0
    """time between two checkpoints of a running training"""
    tracking: Literal["tensorboard"] | None = None
    """where the numbers of log.csv are seen while it trains: tensorboard, in the folder tracking beside it"""
    sample_every_epochs: NonNegativeInt = 0
    """epochs between two grids of samples, samples/epoch=*.png beside log.csv; 0: none. A flow of an autoencoder's
    latents draws none"""

    def of_result(self) -> dict[str, Any]:
        """The settings that the result of a training depends on."""
        return self.model_dump(mode="json", exclude=NO_RESULT)

    def of_initial_state(self) -> dict[str, Any]:
        """The settings that the initial state depends on: a cosine schedule knows how many epochs will follow."""
        return self.model_dump(mode="json", exclude=NO_RESULT | ({"epochs"} if self.schedule == "constant" else set()))

    @model_validator(mode="after")
    def _fit_before_the_end(self) -> TrainingConfig:
        if self.fit_after_epochs >= self.epochs:
            raise ValueError(
                f"fit_after_epochs must be smaller than epochs, received {self.fit_after_epochs} and {self.epochs}"
            )
        return self
