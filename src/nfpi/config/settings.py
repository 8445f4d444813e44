"""Every knob, typed, frozen and grouped by stage. The defaults are the settings of the paper's CIFAR10 runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from nfpi.config.base import (
    Fraction,
    LocalPath,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Settings,
    Share,
    Source,
    Start,
)

_RAND_AUGMENT = r"^rand(-(m\d+|n\d+|p[\d.]+|mstd[\d.]+|mmax\d+|inc[01]|t\w+))*$"
"""timm's text of a RandAugment policy: magnitude, operations, probability, deviation, ..."""

NO_RESULT = {"workers", "checkpoint_minutes", "evaluate_every"}
"""Settings of trainings that say how they are run and watched, not what comes out."""

Stage = Literal[
    "prepare_data",
    "encode_data",
    "start_flow",
    "fit_prior",
    "train_flow",
    "evaluate",
    "generate",
    "augment",
    "train_classifier",
    "test_classifier",
    "analyse",
    "collect",
    "table",
    "figure",
    "benchmark",
]


class FlowConfig(Settings):
    """Architecture of the flow, one entry a level."""

    num_flows: list[PositiveInt] = [8, 8, 8]
    """flows (actnorm, 1×1 convolution, coupling) in each level"""
    num_blocks: list[NonNegativeInt] = [8, 4, 2]
    """residual blocks of each level's coupling nets"""
    hidden_channels: list[PositiveInt] = [128, 128, 128]
    """width of each level's coupling nets"""
    coupling: Literal["matrix_exponential", "affine", "additive"] = "matrix_exponential"
    """y₂ = e^{S(x₁)} x₂ + b(x₁) with a full matrix S, a diagonal one, or S = 0"""

    @model_validator(mode="after")
    def _one_entry_a_level(self) -> FlowConfig:
        lengths = {len(self.num_flows), len(self.num_blocks), len(self.hidden_channels)}
        if len(lengths) != 1 or not self.num_flows:
            raise ValueError(
                "num_flows, num_blocks and hidden_channels need one entry a level each, "
                f"received {len(self.num_flows)}, {len(self.num_blocks)} and {len(self.hidden_channels)} entries"
            )
        return self


class TrainingConfig(Settings):
    """Training of the flow by maximum likelihood."""

    epochs: PositiveInt = 500
    """passes over the training set, those before the fit included"""
    fit_after_epochs: NonNegativeInt = 1
    """epochs under the initial prior, before the fit"""
    batch_size: PositiveInt = 512
    learning_rate: PositiveFloat = 1e-2
    """Adamax"""
    warmup_steps: NonNegativeInt = 1000
    """steps of linear warm-up"""
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

    @model_validator(mode="after")
    def _fit_before_the_end(self) -> TrainingConfig:
        if self.fit_after_epochs >= self.epochs:
            raise ValueError(
                f"fit_after_epochs must be smaller than epochs, received {self.fit_after_epochs} and {self.epochs}"
            )
        return self


class FixedPointPrior(Settings):
    """Class Gaussians fitted once by fixed-point iteration (λ stands with the experiment)."""

    method: Literal["fixed_point"] = "fixed_point"
    start: Start = "data"
    """initial Gaussians: class means with the class variances (data), class means with identity covariances
    (identity), or means drawn from N(0, I) with identity covariances (random)"""
    alpha: PositiveFloat = 10.0
    """α of Eq. 3"""
    scale: Literal["pairwise", "average"] = "pairwise"
    """π of Eq. 3: each pair's own KLD (Eq. 9), or the mean over all pairs (Eq. 10)"""
    update: Literal["released", "exact"] = "released"
    """Eqs. 5-7 as the released code computes them, or as they follow from Eq. 4"""
    fit_mean: bool = True
    fit_variance: bool = True
    isotropic_mean_update: bool = True
    """released update: the mean update replaces covariances by their average over dimensions"""
    pooled_mean_gaps: bool = True
    """released update: Σ_i Δ_ij² stands where Δ_ij² belongs in A"""
    tolerance: PositiveFloat = 0.1
    """stop when no class's mean and no class's variance moves by more (Euclidean norm)"""
    max_iterations: PositiveInt = 1000


class GradientPrior(Settings):
    """Class Gaussians learned by gradient descent along with the flow, from the epoch on in which others are fitted.

    Every epoch: statistics of all training latents, then one Adam step (NFGD). Every step: Adam on the likelihood of
    the batch, as Gaussian-mixture flows do. Variances are a·sigmoid(b·s) + c, and s is what is learned.
    """

    method: Literal["gradient_descent"]
    start: Start = "data"
    every: Literal["epoch", "step"] = "epoch"
    objective: Literal["equation_4", "released"] = "equation_4"
    """NLL + λ L_KLD (Eq. 4), or the released code's range-normalised NLL − w·KLD (every epoch only)"""
    alpha: PositiveFloat = 10.0
    scale: Literal["pairwise", "average"] = "pairwise"
    fit_mean: bool = True
    fit_variance: bool = True
    learning_rate: PositiveFloat = 0.1
    """η₀ of Adam's step size η(u) = η₀ + (η₁ − η₀) u^power, u from 0 (the first step) to 1 (the end of training)"""
    final_learning_rate: PositiveFloat = 0.001
    """η₁"""
    power: PositiveFloat = 1.0
    """1: linear; above: sublinear, the way from η₀ to η₁ begins slowly; below: superlinear"""
    variance_range: PositiveFloat = 1.0
    """a"""
    variance_slope: PositiveFloat = 1.0
    """b"""
    smallest_variance: PositiveFloat = 0.25
    """c"""

    @model_validator(mode="after")
    def _something_is_learned(self) -> GradientPrior:
        if self.objective == "released" and self.every == "step":
            raise ValueError("objective: released is of all training latents, expected every = epoch, received step")
        if not (self.fit_mean or self.fit_variance):
            raise ValueError("fit_mean, fit_variance: expected at least one to be learned, received neither")
        return self


def _method(prior: Any) -> Any:
    if isinstance(prior, dict):
        return prior.get("method", "fixed_point")
    return getattr(prior, "method", "fixed_point")


PriorConfig = Annotated[
    Annotated[FixedPointPrior, Tag("fixed_point")] | Annotated[GradientPrior, Tag("gradient_descent")],
    Discriminator(_method),
]
"""How a prior gets its Gaussians; without a `method`, by fixed-point iteration."""


class DatasetConfig(Settings):
    """Where a data set comes from, how it is split, and what is special about it."""

    source: Source = "digits"
    folder: LocalPath | None = None
    """folder that holds the files already (torchvision's layout, or split/class/image); none: downloaded"""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """share of the training images held out, stratified, for every choice that is made"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share held out for the test where the source has no test split of its own (digits)"""
    split_seed: NonNegativeInt = 0
    train_per_class: PositiveInt | None = None
    """training images kept a class, validation not counted; none: all"""
    test_per_class: PositiveInt | None = None
    image_size: PositiveInt | None = None
    """imagefolder: side that images are resized and centre-cropped to; none: they must all have one size"""
    flip: bool = True
    """mirrored images are still of their class (not so for digits)"""
    vae: LocalPath | None = None
    """folder of a diffusers AutoencoderKL: flows see its latents of the images; none: they see pixels"""
    encode_batch_size: PositiveInt = 32
    """images the autoencoder takes at a time"""
    real_labels: bool = False
    """also score classifiers on ImageNet-ReaL's labels (test files named as ImageNet's validation images)"""
    overrides: dict[Literal["flow", "training", "generation", "nfa", "classifiers"], dict[str, Any]] = {}
    """settings of other stages that differ for this data set"""


class GenerationConfig(Settings):
    """Labelled images drawn from the flow."""

    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.7, 0.8, 0.9, 1.0, 1.1, 1.2]
    """compared on the validation split; the best one is tested"""
    per_class: PositiveInt = 5000
    batch_size: PositiveInt = 1000


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


class StandardAugmentation(Settings):
    """What `standard` means for a classifier; 0 and none leave a part out."""

    flip: bool = True
    """mirror, where the data set allows it"""
    crop_padding: NonNegativeInt = 4
    """random crops of images padded by so many pixels"""
    auto_augment: Literal["cifar10", "imagenet", "svhn"] | None = None
    """torchvision's AutoAugment policy"""
    rand_augment: Annotated[str, Field(pattern=_RAND_AUGMENT)] | None = None
    """timm's RandAugment, e.g. rand-m9-mstd0.5-inc1"""
    random_erasing: Share = 0.0
    """probability"""
    mixup: NonNegativeFloat = 0.0
    """α of mixup's Beta(α, α)"""
    cutmix: NonNegativeFloat = 0.0
    """α of cutmix's Beta(α, α)"""


class ClassifierConfig(Settings):
    """Training of a classifier on generated images, real ones, or both."""

    model: Literal["resnet18", "swin", "eva02"] = "resnet18"
    architecture: dict[str, Any] = {}
    """arguments of the model that differ from the paper's"""
    weights: LocalPath | None = None
    """file of pretrained weights; none: timm's cache (eva02 with pretrained), or random ones"""
    pretrained: bool = False
    """start from weights that timm has published"""
    start_from: Name | None = None
    """another classifier of the config, trained without augmentation, whose weights are fine-tuned"""
    image_size: PositiveInt | None = None
    """side that images are resized to (bicubic); none: as they are"""
    epochs: NonNegativeInt = 30
    """0: the weights are tested as they are"""
    batch_size: Annotated[int, Field(ge=2)] = 100
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    learning_rate: PositiveFloat = 1e-3
    """where the one-cycle schedule starts, the cosine's top, or the constant"""
    max_learning_rate: PositiveFloat = 0.1
    """one-cycle's top"""
    warmup_epochs: NonNegativeInt = 0
    """of linear warm-up (cosine)"""
    momentum: Fraction = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    gradient_clip: NonNegativeFloat = 0.0
    """largest norm of the gradient; 0: not clipped"""
    label_smoothing: Fraction = 0.0
    train_on: Literal["generated", "real", "both"] = "generated"
    standard: StandardAugmentation = StandardAugmentation()
    """the standard augmentations"""
    nfa_probability: Share = 0.5
    """share of training images that one of their latent-augmented variants stands in for"""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: NonNegativeInt = 0
    """processes that read and augment images; 0: the training process does (changes no result)"""
    checkpoint_minutes: PositiveFloat = 10.0
    """time between two checkpoints of a running training (changes no result)"""


class EvaluationConfig(Settings):
    """NF-Acc, top-5 and bits/dim."""

    batch_size: PositiveInt = 1000


class Resources(Settings):
    """What one job of a stage may use."""

    gpu: NonNegativeInt = 0
    threads: PositiveInt = 1
    mem_mb: PositiveInt = 4000
    runtime: PositiveInt = 60
    """minutes"""
