"""Settings of classifiers, and the registry of their models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from nfpi.config.base import (
    EXECUTION,
    ConfigError,
    Fraction,
    LocalPath,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Settings,
    Share,
    suggest,
)
from nfpi.config.registry import Registry

_RAND_AUGMENT = r"^rand(-(m\d+|n\d+|p\d+(\.\d*)?|mstd\d+(\.\d*)?|mmax\d+|inc[01]|t\w+))*$"
"""timm's notation of a RandAugment policy: magnitude, operations, probability, deviation, ..."""

CLASSIFIERS = Registry("classifier model", ("num_classes", "in_channels", "image_size", "settings"))
"""Builders return a network with random weights: (num_classes, in_channels, image_size, settings) → a module that maps
images (B, C, S, S) to logits (B, K). Traits (a `module:attribute` is imported when first used):

- `preprocessing`: how images are normalised and resized;
- `weights_from`: builder of a network with given or published weights; its additional last argument is the weights;
- `published`: number of classes and image size of the published weights.
"""


class ResNet18Settings(Settings):
    """Architecture of the ResNet18 for small images."""

    stem_init: Literal["kaiming_normal", "torch_default"] = "kaiming_normal"
    """initial weights of the 3×3 stem: as those of ResNet's other convolutions in torchvision (kaiming_normal), or
    torch's default for convolutions, as in the released code (torch_default)"""


Depth = Annotated[PositiveInt, Field(le=1000)]
"""Number of blocks; a damaged file with more would take too long to build."""


class SwinSettings(Settings):
    """Architecture of the Swin transformer of Table 5 (7.05 M parameters for 10 classes of 32×32×3 pixels)."""

    patch_size: PositiveInt = 2
    window_size: PositiveInt = 4
    embed_dim: PositiveInt = 96
    depths: list[Depth] = [2, 6, 4]
    """blocks of each level"""
    num_heads: list[PositiveInt] = [3, 6, 12]
    """attention heads of each level"""
    mlp_ratio: PositiveFloat = 2.0
    drop_path_rate: Fraction = 0.1
    layer_norm_eps: PositiveFloat = 1e-5
    """ε of the layer normalisations"""

    @model_validator(mode="after")
    def _check_entries_per_level(self) -> SwinSettings:
        if len(self.depths) != len(self.num_heads):
            received = f"{len(self.depths)} and {len(self.num_heads)}"
            raise ValueError(f"depths and num_heads: expected one entry per level in both, received {received}")
        return self


class Eva02Settings(Settings):
    """Architecture of EVA02; None: as in timm's EVA02-B/14, the model of Table 6."""

    patch_size: PositiveInt | None = None
    embed_dim: PositiveInt | None = None
    depth: Depth | None = None
    num_heads: PositiveInt | None = None
    drop_path_rate: Fraction | None = None


class QuadraticDiscriminantSettings(Settings):
    """Class Gaussians of the pixels."""

    axes: Annotated[list[PositiveInt], Field(min_length=1)] = [25, 50, 100, 200]
    """numbers of principal axes on which the classes differ; the one of highest validation accuracy is kept"""


CLASSIFIERS.register("resnet18", ResNet18Settings, "nfpi.classifiers.models:resnet18")
CLASSIFIERS.register("lda", Settings, "nfpi.classifiers.discriminants:LinearDiscriminant")
CLASSIFIERS.register("softmax", Settings, "nfpi.classifiers.discriminants:LogisticRegression")
CLASSIFIERS.register("qda", QuadraticDiscriminantSettings, "nfpi.classifiers.discriminants:QuadraticDiscriminant")
CLASSIFIERS.register("swin", SwinSettings, "nfpi.classifiers.models:swin")
CLASSIFIERS.register(
    "eva02",
    Eva02Settings,
    "nfpi.classifiers.models:eva02",
    weights_from="nfpi.classifiers.models:pretrained_eva02",
    preprocessing="nfpi.classifiers.models:get_eva02_preprocessing",
    published={"num_classes": 1000, "image_size": 448},
)


class StandardAugmentation(Settings):
    """The standard augmentations of a classifier; 0 or None disables an augmentation."""

    flip: bool = True
    """random horizontal flips, where the data set allows them"""
    crop_padding: NonNegativeInt = 4
    """padding before a random crop, in pixels"""
    auto_augment: Literal["cifar10", "imagenet", "svhn"] | None = None
    """torchvision's AutoAugment policy"""
    rand_augment: Annotated[str, Field(pattern=_RAND_AUGMENT)] | None = None
    """timm's RandAugment, e.g. rand-m9-mstd0.5-inc1"""
    random_erasing: Share = 0.0
    """probability that a part of an image is erased"""
    erasing_max_area: Annotated[float, Field(ge=0.02, le=1)] = 1 / 3
    """largest share of an image that random erasing erases; the smallest is 0.02"""
    erasing_fill: Literal["noise", "mean"] = "noise"
    """values of erased pixels after normalisation: noise N(0, 1), or 0, the channel mean"""
    mixup: NonNegativeFloat = 0.0
    """α of mixup's Beta(α, α)"""
    cutmix: NonNegativeFloat = 0.0
    """α of cutmix's Beta(α, α)"""
    mix_probability: Share = 1.0
    """probability that mixup or cutmix is applied to a batch"""


class ClassifierConfig(Settings):
    """Training of a classifier on generated images, real images, or both."""

    model: Annotated[str, AfterValidator(lambda name: CLASSIFIERS[name].name)] = "resnet18"
    """resnet18, swin, eva02, lda, qda, softmax, or a model registered by the user"""
    architecture: dict[str, Any] = {}
    """settings of the model"""
    weights: Annotated[LocalPath | None, EXECUTION] = None
    """file of pretrained weights; None: published weights if `pretrained`, otherwise random ones"""
    pretrained: bool = False
    """whether to start from the weights published by timm (eva02), which the workflow downloads"""
    start_from: Name | None = None
    """another classifier of the config; training starts from its final weights (those trained with `augmentation:
    none`), whatever `weights` and `pretrained` are"""
    image_size: PositiveInt | None = None
    """size that images are resized to (bicubic); None: no resizing"""
    normalization: Literal["model", "half", "dataset", "cifar10", "cifar100", "imagenet"] = "model"
    """mean and standard deviation used to normalise channels. model: the model's own, which are those of the published
    weights for eva02, and 0.5 and 0.5 for resnet18 and swin; half: 0.5 and 0.5; dataset: those of the training images;
    cifar10, cifar100, imagenet: the published values of this data set"""
    epochs: NonNegativeInt = 30
    """epochs of training, after which the weights are tested; 0: the initial weights are tested"""
    repeats: PositiveInt = 1
    """passes over the training images per epoch (repeated augmentation), each with its own order and augmentations"""
    batch_size: Annotated[int, Field(ge=2)] = 100
    accumulate: PositiveInt = 1
    """parts, at most this many, into which a batch is split for gradient accumulation: the same step with less memory
    (only for models without batch normalisation)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    learning_rate: PositiveFloat = 1e-3
    """initial value of the one-cycle schedule, maximum of the cosine, or the constant"""
    max_learning_rate: PositiveFloat = 0.1
    """maximum of the one-cycle schedule"""
    warmup_epochs: NonNegativeInt = 0
    """epochs of linear warm-up (cosine)"""
    momentum: Fraction = 0.9
    """momentum of SGD"""
    cycle_momentum: bool = False
    """whether the one-cycle schedule cycles SGD's momentum between 0.95 and 0.85, inversely to the learning rate
    (torch's default), instead of using `momentum`"""
    weight_decay: NonNegativeFloat = 5e-4
    gradient_clip: NonNegativeFloat = 0.0
    """maximum norm of the gradient; 0: no clipping"""
    label_smoothing: Fraction = 0.0
    train_on: Literal["generated", "real", "both"] = "generated"
    standard: StandardAugmentation = StandardAugmentation()
    """the standard augmentations"""
    nfa_probability: Share = 0.5
    """probability that a training image is replaced by one of its latent-augmented variants"""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    """precision of training steps; auto: bf16-mixed on GPUs (A100, H100) and CPUs (AMX, AVX512_BF16) that have it,
    otherwise 32-true"""
    workers: Annotated[NonNegativeInt, EXECUTION] = 0
    """processes that read and augment images; 0: the training process itself"""
    checkpoint_minutes: Annotated[PositiveFloat, EXECUTION] = 10.0
    """longest time between two checkpoints of a running training"""
    checkpoint_activations: Annotated[bool, EXECUTION] = False
    """whether activations inside transformer blocks are recomputed in the backward pass instead of kept: less memory, a
    third more computation"""
    keep: Annotated[bool, EXECUTION] = True
    """whether the weights are kept after testing, and not only metrics and predictions; applies to classifiers trained
    from now on"""

    @field_validator("architecture")
    @classmethod
    def _check_architecture(cls, architecture: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "model" in info.data:
            CLASSIFIERS[info.data["model"]].settings.model_validate(architecture)
        return architecture

    @model_validator(mode="after")
    def _check_combinations(self) -> ClassifierConfig:
        if self.pretrained and "published" not in CLASSIFIERS[self.model].traits:
            known = ", ".join(name for name in CLASSIFIERS if "published" in CLASSIFIERS[name].traits)
            expected = f"expected a model whose weights are published ({known})"
            raise ValueError(f"pretrained: {expected}, received model '{self.model}'")
        if self.schedule == "cosine" and 0 < self.epochs <= self.warmup_epochs:
            expected = f"expected less than the {self.epochs} epochs"
            raise ValueError(f"warmup_epochs: {expected}, received {self.warmup_epochs}")
        return self

    @property
    def settings(self) -> Settings:
        """The architecture, as passed to the model's builder."""
        return CLASSIFIERS[self.model].settings.model_validate(self.architecture)


def check_start_from(classifiers: Mapping[str, ClassifierConfig]) -> None:
    """Raise ConfigError if a classifier is fine-tuned that does not take real images, or from one that does not."""
    for name, classifier in classifiers.items():
        where = f"classifiers.{name}"
        if classifier.train_on != "real" and (classifier.start_from is not None or classifier.pretrained):
            raise ConfigError(f"{where}: start_from and pretrained need train_on: real")
        if classifier.start_from is None:
            continue
        where, other = f"{where}.start_from", classifiers.get(classifier.start_from)
        if other is None:
            hint = suggest(classifier.start_from, classifiers)
            raise ConfigError(f"{where}: unknown classifier '{classifier.start_from}'{hint}")
        if other.start_from is not None or not other.keep or other.train_on != "real":
            expected = "a classifier with train_on: real and keep: true, and without start_from"
            raise ConfigError(f"{where}: expected {expected}, received '{classifier.start_from}'")
