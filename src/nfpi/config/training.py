"""Settings of the training of a flow."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, Literal

from pydantic import model_validator

from nfpi.config.base import (
    EXECUTION,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Settings,
    select_result_settings,
)

_STEPS, _EPOCHS = 800, 20
"""smallest numbers of steps and of epochs"""
_STEPS_PER_EPOCH = {128: 100, 64: 100, 32: 40, 16: 0}
"""batch sizes, largest first, and the smallest number of steps of an epoch with which each is chosen"""


def choose_batch_size(num_images: int) -> int:
    """Return 128 or 64 if an epoch then has 100 steps; otherwise 32 if 20 epochs then have 800; otherwise 16.

    How far a flow follows its prior depends on the number of steps more than on that of the images in a step.
    """
    return next(size for size, steps in _STEPS_PER_EPOCH.items() if num_images >= size * steps)


def choose_epochs(num_images: int, batch_size: int) -> int:
    """Return the fewest epochs that give 800 steps, but at least 20."""
    return max(_EPOCHS, ceil(_STEPS / ceil(num_images / batch_size)))


class TrainingConfig(Settings):
    """Training of the flow by maximum likelihood."""

    epochs: PositiveInt = 500
    """passes over the training set, including those before the prior is fitted"""
    fit_after_epochs: NonNegativeInt = 1
    """epochs under the initial prior, before the prior is fitted"""
    batch_size: PositiveInt = 512
    optimizer: Literal["adamax", "adam", "adamw"] = "adamax"
    learning_rate: PositiveFloat = 1e-2
    """learning rate after the warm-up"""
    schedule: Literal["constant", "cosine"] = "constant"
    """learning rate after the warm-up: constant, or a half cosine that reaches 0 at the end of training"""
    warmup_steps: NonNegativeInt = 1000
    """steps of linear warm-up"""
    weight_decay: NonNegativeFloat = 0.0
    gradient_clip: NonNegativeFloat = 0.0
    """maximum norm of the gradient; 0: no clipping, as in the authors' released code"""
    ema_decay: Fraction = 0.9999
    """largest decay of the exponential moving average, which begins after the first epoch: n steps after the first
    averaged one, its decay is min(ema_decay, 1 − (1 + n)^−ema_power)"""
    ema_power: PositiveFloat = 0.75
    initialization_images: PositiveInt = 1024
    """augmented training images used for the data-dependent initialisation"""
    augmentation: Literal["none", "flip", "shift", "released"] = "released"
    """augmentation of the flow's training images; released, as in the authors' code: flip, colour jitter, rotation by
    ±12°, crop; shift: pad and crop, for digits"""
    grey_noise: NonNegativeFloat = 0.05
    """noise U[0, grey_noise), as a share of the value range, added to grey images on top of the dequantisation noise"""
    latent_noise: NonNegativeFloat = 0.05
    """standard deviation of the Gaussian noise that is added to an autoencoder's latents instead of dequantisation
    noise, relative to the standard deviation of each element"""
    evaluate_every: Annotated[PositiveInt, EXECUTION] = 5
    """epochs between two evaluations on the validation split"""
    precision: Literal["auto", "32-true", "tf32", "bf16-mixed"] = "32-true"
    """precision of training steps: float32 (32-true), convolutions in TF32 (tf32), coupling networks in bfloat16
    (bf16-mixed); auto: bf16-mixed on GPUs that support it (A100, H100), otherwise 32-true"""
    compile: Annotated[bool | Literal["auto"], EXECUTION] = "auto"
    """whether steps on batches of full size run as one compiled graph; auto: on GPUs with Triton only;
    the first step then takes minutes; the results differ in their rounding"""
    workers: Annotated[NonNegativeInt, EXECUTION] = 0
    """processes that read and augment images; 0: the training process itself"""
    checkpoint_minutes: Annotated[PositiveFloat, EXECUTION] = 10.0
    """longest time between two checkpoints of a running training"""
    tracking: Annotated[Literal["tensorboard"] | None, EXECUTION] = None
    """additional log of the numbers in log.csv; tensorboard: event files in `tracking/` beside it"""
    sample_every_epochs: Annotated[NonNegativeInt, EXECUTION] = 0
    """epochs between two grids of samples, samples/epoch=*.png beside log.csv; 0: no grids. Flows of an autoencoder's
    latents have no grids"""

    def select_initial_state_settings(self) -> dict[str, Any]:
        """Return the settings that affect the initial state, `epochs` among them unless the schedule is constant."""
        settings = select_result_settings(self)
        if self.schedule == "constant":
            del settings["epochs"]
        return settings

    @model_validator(mode="after")
    def _check_fit_after_epochs(self) -> TrainingConfig:
        if self.fit_after_epochs >= self.epochs:
            raise ValueError(
                f"fit_after_epochs must be smaller than epochs, received {self.fit_after_epochs} and {self.epochs}"
            )
        return self
