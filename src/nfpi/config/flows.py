"""Settings of flows: their backbones and the registry of these; training, evaluation, sampling, latent augmentation."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from nfpi.config.base import (
    EXECUTION,
    Fraction,
    LocalPath,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Settings,
    Share,
    expand_path,
    select_result_settings,
)
from nfpi.config.registry import BlockRegistry

LATENT_NOISE = 0.05
"""default of `latent_noise`, which class Gaussians of vectors have, too"""


class FlowBlock(Settings):
    """Settings common to all blocks of `flows:`."""

    kind: str = "matrix_exponential"
    """name of the backbone in the registry"""
    training: dict[str, Any] = {}
    """training settings that differ for this backbone"""


FLOWS = BlockRegistry("kind of flow", "kind", FlowBlock, ("shape", "settings"))

FlowConfig = Annotated[SerializeAsAny[FlowBlock], BeforeValidator(FLOWS.validate), FLOWS]
"""A block of `flows:`: its kind, the settings of that kind, and `training`."""


class LevelSettings(Settings):
    """Settings of a multiscale flow, one entry per level."""

    num_flows: list[NonNegativeInt]
    """flow steps of each level"""

    @model_validator(mode="after")
    def _check_entries_per_level(self) -> LevelSettings:
        counts = {name: len(value) for name, value in self if isinstance(value, list)}
        if len(set(counts.values())) != 1 or not self.num_flows:
            received = ", ".join(map(str, counts.values()))
            raise ValueError(f"{', '.join(counts)}: expected one entry per level, received {received}")
        return self


class MatrixExponentialSettings(LevelSettings):
    """Settings of the paper's backbone, one entry per level (Xiao and Liu, 2020)."""

    num_flows: list[NonNegativeInt] = [8, 8, 8]
    """flow steps (actnorm, 1×1 convolution, coupling) of each level"""
    num_blocks: list[NonNegativeInt] = [8, 4, 2]
    """residual blocks of each level's coupling nets"""
    hidden_channels: list[PositiveInt] = [128, 128, 128]
    """width of each level's coupling nets"""
    coupling: Literal["matrix_exponential", "affine", "additive"] = "matrix_exponential"
    """y₂ = e^{S(x₁)} x₂ + b(x₁) with a full matrix S (of rank 3 if x₂ has more than 24 channels), a diagonal one, or
    S = 0"""
    initialization: Literal["normal", "uniform"] = "normal"
    """initial kernels of the coupling nets. normal: normal kernels, with a scale per channel that normalises their
    outputs; uniform, as in the released code: uniform kernels, divided by the standard deviation of their outputs"""


class GlowSettings(LevelSettings):
    """Settings of Glow, one entry per level (Kingma and Dhariwal, 2018)."""

    num_flows: list[NonNegativeInt] = [32, 32, 32]
    """flow steps (actnorm, 1×1 convolution, affine coupling) of each level"""
    hidden_channels: list[PositiveInt] = [512, 512, 512]
    """width of each level's coupling nets"""


class TransformerSettings(Settings):
    """Settings of a coupling flow of transformer blocks on patches, as in Jet (Kolesnikov et al., 2024)."""

    patch_size: PositiveInt = 4
    """size of a patch, in pixels"""
    num_flows: PositiveInt = 32
    """coupling layers"""
    depth: PositiveInt = 2
    """transformer blocks per coupling"""
    width: PositiveInt = 256
    """embedding dimension of a token"""
    num_heads: PositiveInt = 4
    """attention heads; a divisor of the width"""
    channel_couplings: NonNegativeInt = 4
    """couplings that split channels for each one that splits patches (1: they alternate)"""

    @model_validator(mode="after")
    def _check_num_heads(self) -> TransformerSettings:
        if self.width % self.num_heads:
            raise ValueError(f"num_heads: expected a divisor of width {self.width}, received {self.num_heads}")
        return self


class ZukoSettings(Settings):
    """Settings of a flow of vectors from the package zuko."""

    architecture: Literal["NSF", "MAF", "NICE"] = "NSF"
    """class of zuko: neural spline flow, masked autoregressive flow or affine couplings"""
    num_flows: PositiveInt = 3
    """transforms"""
    hidden_features: list[PositiveInt] = [64, 64]
    """widths of the hidden layers of each transform's network"""
    coupling: bool = True
    """whether the transforms of NSF and MAF are couplings; if they are autoregressive, samples take D passes"""


class TrainedSettings(Settings):
    """A model that was trained elsewhere: experiments train nothing, and have its own prior and λ."""

    # before `model`, whose meaning depends on it
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    """commit of a model of the Hugging Face hub, which is downloaded; None: the model is on this machine"""
    model: Annotated[str, EXECUTION]
    """folder of a model, or file of a checkpoint of the authors' release; with a revision, id of a model of the hub"""
    averaged: bool = True
    """whether the averaged (EMA) weights of a checkpoint are used instead of the online ones"""
    weight: NonNegativeFloat = Field(0.0, alias="lambda")
    """λ of its training; if the model records another one, it is refused"""

    @field_validator("model", mode="before")
    @classmethod
    def _expand_model(cls, model: Any, info: ValidationInfo) -> Any:
        return model if info.data.get("revision") or not isinstance(model, str) else str(expand_path(model))


FLOWS.register("matrix_exponential", MatrixExponentialSettings, "nfpi.flows.matrix_exponential:matrix_exponential_flow")
FLOWS.register("glow", GlowSettings, "nfpi.flows.glow:GlowFlow")
FLOWS.register("transformer", TransformerSettings, "nfpi.flows.transformer:TransformerFlow")
FLOWS.register("zuko", ZukoSettings, "nfpi.flows.vectors:zuko_flow")
FLOWS.register("identity", Settings, "nfpi.flows.vectors:IdentityFlow")
FLOWS.register("trained", TrainedSettings, "nfpi.flows.registry:refuse_trained")


_STEPS, _EPOCHS = 800, 20
"""smallest numbers of steps and of epochs"""
_MOST_WARMUP = 100
"""largest number of steps of the warm-up"""


def size_training(num_images: int, epochs: int | None = None, batch_size: int | None = None) -> dict[str, Any]:
    """Return the settings of a small flow's training on this number of images.

    Batches of 32 if 20 epochs then have 800 steps, otherwise of 16. The fewest epochs that give 800 steps, but at least
    20. A warm-up of a tenth of the steps, but at most 100. bfloat16 where it is fast. The presets
    `fashion_mnist_screen` and `cifar10_screen` measured that smaller batches help, and a falling learning rate hardly.

    Args:
        num_images: number of training images.
        epochs, batch_size: those given by the user; None: chosen.
    """
    if batch_size is None:
        batch_size = 32 if num_images * _EPOCHS >= 32 * _STEPS else 16
    per_epoch = ceil(num_images / batch_size)
    if epochs is None:
        epochs = max(_EPOCHS, ceil(_STEPS / per_epoch))
    warmup_steps = min(_MOST_WARMUP, epochs * per_epoch // 10)
    return {"epochs": epochs, "batch_size": batch_size, "warmup_steps": warmup_steps, "precision": "auto"}


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
    posterior_weight: NonNegativeFloat = 0.0
    """γ of the loss −log p(x | y) − γ log p(y | x), in nats an image, under equal class frequencies (Ardizzone et al.,
    2020); 0: the likelihood alone; otherwise steps are not compiled"""
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
    latent_noise: NonNegativeFloat = LATENT_NOISE
    """standard deviation of the Gaussian noise that is added to an autoencoder's latents and to vectors instead of
    dequantisation noise, relative to the standard deviation of each element"""
    evaluate_every: Annotated[PositiveInt, EXECUTION] = 5
    """epochs between two evaluations on the validation split"""
    precision: Literal["auto", "32-true", "tf32", "bf16-mixed"] = "32-true"
    """precision of training steps: float32 (32-true), convolutions in TF32 (tf32), coupling networks in bfloat16
    (bf16-mixed); auto: bf16-mixed on GPUs (A100, H100) and CPUs (AMX, AVX512_BF16) that have it, otherwise 32-true"""
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
