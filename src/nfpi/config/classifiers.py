"""Classifiers: settings of their training, and the registry of models that `model:` selects from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

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
    added_setting,
    explain,
)
from nfpi.config.registry import Registry

_RAND_AUGMENT = r"^rand(-(m\d+|n\d+|p[\d.]+|mstd[\d.]+|mmax\d+|inc[01]|t\w+))*$"
"""timm's text of a RandAugment policy: magnitude, operations, probability, deviation, ..."""

CLASSIFIERS = Registry("classifier model")
"""Builders make networks with random weights: (num_classes, in_channels, image_size, settings) → a module from images
(B, C, S, S) to logits (B, K). Traits, of which `module:attribute` is imported when it is needed:

- `preprocessing`: how images are normalised and resized;
- `weights_from`: builder of a network with given or published weights, called with one argument more, the weights;
- `published`: number of classes and side of the images of the published weights.
"""


class ResNet18Settings(Settings):
    """Architecture of the ResNet18 of small images."""

    stem_init: Literal["kaiming_normal", "torch_default"] = added_setting("kaiming_normal")
    """initial weights of the 3×3 stem: as torchvision initialises ResNet's other convolutions (kaiming_normal), or as
    torch initialises any convolution, which is what the released code has (torch_default)"""


class SwinSettings(Settings):
    """Architecture of the Swin transformer of Table 5 (7.05 M parameters for 10 classes of 32×32×3 pixels)."""

    patch_size: PositiveInt = 2
    window_size: PositiveInt = 4
    embed_dim: PositiveInt = 96
    depths: list[PositiveInt] = [2, 6, 4]
    """blocks of each level"""
    num_heads: list[PositiveInt] = [3, 6, 12]
    """attention heads of each level"""
    mlp_ratio: PositiveFloat = 2.0
    drop_path_rate: Fraction = 0.1
    layer_norm_eps: PositiveFloat = added_setting(1e-5)
    """ε of the layer normalisations"""

    @model_validator(mode="after")
    def _one_entry_a_level(self) -> SwinSettings:
        if len(self.depths) != len(self.num_heads):
            received = f"{len(self.depths)} and {len(self.num_heads)}"
            raise ValueError(f"depths and num_heads: expected one entry a level in both, received {received}")
        return self


class Eva02Settings(Settings):
    """Architecture of EVA02; None: as in timm's EVA02-B/14, the model of Table 6."""

    patch_size: PositiveInt | None = None
    embed_dim: PositiveInt | None = None
    depth: PositiveInt | None = None
    num_heads: PositiveInt | None = None
    drop_path_rate: Fraction | None = None


CLASSIFIERS.register("resnet18", ResNet18Settings, "nfpi.classifiers.resnet18:resnet18")
CLASSIFIERS.register("swin", SwinSettings, "nfpi.classifiers.swin:swin")
CLASSIFIERS.register(
    "eva02",
    Eva02Settings,
    "nfpi.classifiers.eva02:eva02",
    weights_from="nfpi.classifiers.eva02:pretrained_eva02",
    preprocessing="nfpi.classifiers.eva02:eva02_preprocessing",
    published={"num_classes": 1000, "image_size": 448},
)


class StandardAugmentation(Settings):
    """What `standard` means for a classifier; 0 and None leave a part out."""

    flip: bool = True
    """mirror, where the data set allows it"""
    crop_padding: NonNegativeInt = 4
    """pixels that images are padded by before a random crop"""
    auto_augment: Literal["cifar10", "imagenet", "svhn"] | None = None
    """torchvision's AutoAugment policy"""
    rand_augment: Annotated[str, Field(pattern=_RAND_AUGMENT)] | None = None
    """timm's RandAugment, e.g. rand-m9-mstd0.5-inc1"""
    random_erasing: Share = 0.0
    """probability"""
    erasing_max_area: Annotated[float, Field(gt=0, le=1)] = added_setting(1 / 3)
    """largest share of an image that random erasing takes; the smallest is 0.02"""
    erasing_fill: Literal["noise", "mean"] = added_setting("noise")
    """what is put there: noise N(0, 1), or the mean that images are normalised by, after the normalisation"""
    mixup: NonNegativeFloat = 0.0
    """α of mixup's Beta(α, α)"""
    cutmix: NonNegativeFloat = 0.0
    """α of cutmix's Beta(α, α)"""
    mix_probability: Share = added_setting(1.0)
    """share of batches that mixup or cutmix changes"""


class ClassifierConfig(Settings):
    """Training of a classifier on generated images, real ones, or both."""

    model: str = "resnet18"
    """resnet18, swin, eva02, or one of the user's own"""
    architecture: dict[str, Any] = {}
    """settings of the model"""
    weights: LocalPath | None = None
    """file of pretrained weights; None: timm's cache (eva02 with pretrained), or random ones"""
    pretrained: bool = False
    """begin with weights that timm has published"""
    start_from: Name | None = None
    """another classifier of the config, trained without augmentation, whose weights are fine-tuned"""
    image_size: PositiveInt | None = None
    """side that images are resized to (bicubic); None: as they are"""
    normalization: Literal["model", "half", "dataset", "cifar10", "cifar100", "imagenet"] = added_setting("model")
    """mean and standard deviation that channels are normalised by: the model's own (model; 0.5 and 0.5, for EVA02 those
    of its published weights), 0.5 and 0.5 (half), those of the training images (dataset), or those published of a
    data set"""
    epochs: NonNegativeInt = 30
    """0: the weights are tested as they are. The weights after the last epoch are the ones that are tested"""
    repeats: PositiveInt = added_setting(1)
    """passes over the training images in an epoch (repeated augmentation), each with its own order and augmentations"""
    batch_size: Annotated[int, Field(ge=2)] = 100
    accumulate: PositiveInt = added_setting(1)
    """equal parts of a batch that pass through the model one after another, their gradients added up: less memory for
    the same step (only for models without batch normalisation)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    learning_rate: PositiveFloat = 1e-3
    """initial value of the one-cycle schedule, the cosine's top, or the constant"""
    max_learning_rate: PositiveFloat = 0.1
    """one-cycle's top"""
    warmup_epochs: NonNegativeInt = 0
    """of linear warm-up (cosine)"""
    momentum: Fraction = 0.9
    """of SGD"""
    cycle_momentum: bool = added_setting(False)
    """whether one-cycle moves SGD's momentum from 0.95 down to 0.85 and back while the learning rate goes up and down
    (torch's default), in place of `momentum`"""
    weight_decay: NonNegativeFloat = 5e-4
    gradient_clip: NonNegativeFloat = 0.0
    """largest norm of the gradient; 0: not clipped"""
    label_smoothing: Fraction = 0.0
    train_on: Literal["generated", "real", "both"] = "generated"
    standard: StandardAugmentation = StandardAugmentation()
    """the standard augmentations"""
    nfa_probability: Share = 0.5
    """share of training images that are replaced by one of their latent-augmented variants"""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: NonNegativeInt = 0
    """processes that read and augment images; 0: the training process does (changes no result)"""
    checkpoint_minutes: PositiveFloat = 10.0
    """time between two checkpoints of a running training (changes no result)"""
    keep: bool = True
    """whether its weights stay once it was tested; false: its metrics and predictions do (changes no result, and
    nothing of what has been trained before)"""

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, model: str) -> str:
        return CLASSIFIERS.known(model)

    @field_validator("architecture")
    @classmethod
    def _architecture_is_of_the_model(cls, architecture: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "model" in info.data:
            try:
                settings = CLASSIFIERS[info.data["model"]].settings.model_validate(architecture)
            except ValidationError as error:
                raise ValueError(explain(error)) from None
            written = settings.model_dump()  # without added settings that have their default
            return {name: value for name, value in architecture.items() if name in written}
        return architecture

    @field_validator("pretrained")
    @classmethod
    def _weights_are_published(cls, pretrained: bool, info: ValidationInfo) -> bool:
        model = info.data.get("model")
        if pretrained and model is not None and "published" not in CLASSIFIERS[model].traits:
            known = ", ".join(name for name in CLASSIFIERS if "published" in CLASSIFIERS[name].traits)
            raise ValueError(f"expected a model whose weights are published ({known}), received model '{model}'")
        return pretrained

    @model_validator(mode="after")
    def _momentum_has_a_cycle(self) -> ClassifierConfig:
        if self.cycle_momentum and (self.optimizer, self.schedule) != ("sgd", "one_cycle"):
            received = f"{self.optimizer} and {self.schedule}"
            raise ValueError(f"cycle_momentum: expected optimizer sgd and schedule one_cycle, received {received}")
        return self

    @property
    def settings(self) -> Settings:
        """The architecture as the model's builder gets it."""
        return CLASSIFIERS[self.model].settings.model_validate(self.architecture)
